//! Alluxio paths and ids of loads, as callers and files name them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use preload_sidecar::job::{AlluxioPath, LoadId};

/// What an error may take: it travels in a header.
const MESSAGE: usize = 300;

fuzz_target!(|texts: (&str, &str)| {
    let (one, other) = texts;
    if let (Some(one), Some(other)) = (path(one), path(other)) {
        assert_eq!(one.overlaps(&other), other.overlaps(&one));
        assert_eq!(one.contains(other.as_str()) && other.contains(one.as_str()), one == other);
        if one.contains(other.as_str()) {
            assert!(other.as_str().len() >= one.as_str().len());
        }
    }
    match LoadId::try_from(one.to_owned()) {
        Ok(id) => assert!(id.as_str() == one && !one.contains(['/', '.', '\0']) && one.len() <= 63),
        Err(problem) => assert!(problem.len() <= MESSAGE),
    }
});

fn path(text: &str) -> Option<AlluxioPath> {
    match AlluxioPath::try_from(text.to_owned()) {
        Ok(path) => {
            let normal = path.as_str();
            assert!(
                normal.starts_with('/')
                    && (normal == "/" || !normal.ends_with('/'))
                    && !normal.contains("//")
            );
            assert!(!normal.split('/').any(|component| matches!(component, "." | "..")));
            assert!(!normal.contains(['\0', '\n', '\r']) && normal.len() <= text.len());
            assert_eq!(AlluxioPath::try_from(normal.to_owned()).as_ref(), Ok(&path));
            let below = format!("{}/x", normal.trim_end_matches('/'));
            assert!(path.contains(normal) && path.contains(&below));
            Some(path)
        }
        Err(problem) => {
            assert!(problem.len() <= MESSAGE, "{problem}");
            None
        }
    }
}
