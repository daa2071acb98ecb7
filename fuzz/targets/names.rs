//! Alluxio paths and ids of loads, as callers and files name them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use preload_sidecar::job::{AlluxioPath, LoadId};

/// What an error may take: it travels in a header.
const MESSAGE: usize = 300;
const ALPHABET: &[u8; 37] = b"abcdefghijklmnopqrstuvwxyz0123456789-";

fuzz_target!(|texts: (&str, &str)| {
    let (one, other) = texts;
    if let (Some(one), Some(other)) = (path(one), path(other)) {
        assert_eq!(one.overlaps(&other), other.overlaps(&one));
        assert_eq!(one.contains(other.as_str()) && other.contains(one.as_str()), one == other);
        if one.contains(other.as_str()) {
            assert!(other.as_str().len() >= one.as_str().len());
        }
    }
    id(one);
    // Nearly always one, but for its length and its ends.
    id(&one.bytes().map(|byte| char::from(ALPHABET[usize::from(byte) % ALPHABET.len()])).collect::<String>());
});

/// Accepted is what the contract says, and nothing else: `[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?`.
fn id(text: &str) {
    let documented = (1..=63).contains(&text.len())
        && text.bytes().all(|byte| ALPHABET.contains(&byte))
        && !text.starts_with('-')
        && !text.ends_with('-');
    match LoadId::try_from(text.to_owned()) {
        Ok(id) => assert!(documented && id.as_str() == text, "{text:?}"),
        Err(problem) => assert!(!documented && problem.len() <= MESSAGE, "{text:?}: {problem}"),
    }
}

fn path(text: &str) -> Option<AlluxioPath> {
    let dots = |text: &str| text.split('/').any(|component| matches!(component, "." | ".."));
    let documented = text.starts_with('/')
        && text.len() <= 4096
        && !text.contains("://")
        && !text.contains(['\0', '\n', '\r'])
        && !dots(text);
    match AlluxioPath::try_from(text.to_owned()) {
        Ok(path) => {
            let normal = path.as_str();
            assert!(
                documented
                    && normal.starts_with('/')
                    && (normal == "/" || !normal.ends_with('/'))
                    && !normal.contains("//")
            );
            assert!(!dots(normal) && !normal.contains(['\0', '\n', '\r']) && normal.len() <= text.len());
            assert_eq!(AlluxioPath::try_from(normal.to_owned()).as_ref(), Ok(&path));
            let below = format!("{}/x", normal.trim_end_matches('/'));
            assert!(path.contains(normal) && path.contains(&below));
            Some(path)
        }
        Err(problem) => {
            assert!(!documented && problem.len() <= MESSAGE, "{text:?}: {problem}");
            None
        }
    }
}
