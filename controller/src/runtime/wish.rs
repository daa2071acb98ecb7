//! What the user wants to be loaded, from spec and annotations. Pure.

use std::collections::BTreeMap;

use crate::{
    api::{AlluxioRuntimeSpec, Engine, PreloadSpec, PreloadWish, RuntimeKind, RuntimeRef, annotation},
    preload::plan::parse_duration,
};

/// The wish of a runtime.
#[derive(Clone, Debug, PartialEq)]
pub enum Wish {
    Disabled,
    Load(Box<PreloadSpec>),
    /// It cannot be carried out; the message names the field and the accepted form.
    Invalid {
        message: String,
    },
}

/// Annotations win over the spec, the spec over what was remembered of it, that over the defaults.
#[must_use]
pub fn wish(
    name: &str,
    spec: &AlluxioRuntimeSpec,
    annotations: &BTreeMap<String, String>,
    remembered: Option<&PreloadWish>,
) -> Wish {
    match read(name, spec, annotations, remembered) {
        Ok(wish) => wish,
        Err(message) => Wish::Invalid { message },
    }
}

fn read(
    name: &str,
    spec: &AlluxioRuntimeSpec,
    annotations: &BTreeMap<String, String>,
    remembered: Option<&PreloadWish>,
) -> Result<Wish, String> {
    let said = spec.data.preload.as_ref().or(remembered).cloned().unwrap_or_default();
    let enabled = match annotations.get(annotation::ENABLED).map(String::as_str) {
        None => said.enabled,
        Some("true") => true,
        Some("false") => false,
        Some(other) => {
            return Err(format!("annotation {} is {other:?}; give true or false", annotation::ENABLED));
        }
    };
    if !enabled {
        return Ok(Wish::Disabled);
    }
    let (field, path) = match annotations.get(annotation::PATH) {
        Some(path) => (format!("annotation {}", annotation::PATH), path.clone()),
        None => ("spec.data.preload.path".to_owned(), said.path),
    };
    check_path(&path).map_err(|problem| format!("{field} {problem}"))?;
    let engine = match annotations.get(annotation::ENGINE).map(String::as_str) {
        None | Some("Auto") => Engine::Auto,
        Some("DistributedLoad") => Engine::DistributedLoad,
        Some("Native") => Engine::Native,
        Some(other) => {
            let wanted = "give Auto, DistributedLoad or Native";
            return Err(format!("annotation {} is {other:?}; {wanted}", annotation::ENGINE));
        }
    };
    let duration = |name: &str| match annotations.get(name) {
        Some(text) => {
            parse_duration(&format!("annotation {name}"), text)?;
            Ok::<_, String>(Some(text.clone()))
        }
        None => Ok(None),
    };
    let timeout = duration(annotation::TIMEOUT)?;
    let reverify_interval = duration(annotation::REVERIFY_INTERVAL)?;
    let max_bytes_per_second = match annotations.get(annotation::MAX_BYTES_PER_SECOND) {
        Some(text) => Some(text.parse().ok().filter(|most| *most > 0_i64).ok_or_else(|| {
            let name = annotation::MAX_BYTES_PER_SECOND;
            format!("annotation {name} is {text:?}; give bytes a second, such as 500000000")
        })?),
        None => None,
    };
    let replicas = spec.data.replicas.unwrap_or(1);
    if replicas < 1 {
        return Err(format!("spec.data.replicas is {replicas}; give 1 or more"));
    }
    let runtime_ref = RuntimeRef { kind: RuntimeKind::AlluxioRuntime, name: name.to_owned(), workers: None };
    let spec =
        PreloadSpec { runtime_ref, path, replicas, engine, timeout, reverify_interval, max_bytes_per_second };
    Ok(Wish::Load(Box::new(spec)))
}

/// The rules of the schema, for an annotation, which has none.
fn check_path(path: &str) -> Result<(), String> {
    let wanted = "give an absolute Alluxio path such as / or /data/train";
    if !path.starts_with('/') {
        return Err(format!("is {path:?}; {wanted}"));
    }
    if path.split('/').any(|component| matches!(component, "." | "..")) {
        return Err(format!("holds the components . or ..; {wanted}"));
    }
    if path.contains(['\0', '\n', '\r']) {
        return Err(format!("holds control characters; {wanted}"));
    }
    if path.len() > 4096 {
        return Err(format!("is {} bytes long; at most 4096 are accepted", path.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Data;

    fn annotations(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    fn spec(preload: Option<(bool, &str)>) -> AlluxioRuntimeSpec {
        let preload = preload.map(|(enabled, path)| PreloadWish { enabled, path: path.to_owned() });
        AlluxioRuntimeSpec { replicas: Some(2), data: Data { replicas: None, preload } }
    }

    fn path(wish: &Wish) -> &str {
        match wish {
            Wish::Load(spec) => &spec.path,
            Wish::Disabled => "disabled",
            Wish::Invalid { message } => message,
        }
    }

    #[test]
    fn defaults_load_everything_once() {
        let Wish::Load(load) = wish("h", &spec(None), &BTreeMap::new(), None) else { panic!("no load") };
        assert_eq!((load.path.as_str(), load.replicas, load.engine), ("/", 1, Engine::Auto));
        assert_eq!(load.runtime_ref.name, "h");
    }

    #[test]
    fn limits_and_checks_are_told_by_annotations() {
        let pairs = annotations(&[(annotation::TIMEOUT, "2h"), (annotation::REVERIFY_INTERVAL, "10m")]);
        let Wish::Load(load) = wish("h", &spec(None), &pairs, None) else { panic!("no load") };
        assert_eq!((load.timeout.as_deref(), load.reverify_interval.as_deref()), (Some("2h"), Some("10m")));
    }

    #[test]
    fn annotations_win_over_the_spec_and_that_over_what_was_remembered() {
        let remembered = PreloadWish { enabled: false, path: "/remembered".into() };
        let told = |spec, pairs: &[(&str, &str)], remembered| {
            path(&wish("h", &spec, &annotations(pairs), remembered)).to_owned()
        };
        assert_eq!(told(spec(Some((true, "/spec"))), &[], Some(&remembered)), "/spec");
        assert_eq!(told(spec(None), &[], Some(&remembered)), "disabled");
        assert_eq!(told(spec(None), &[(annotation::ENABLED, "true")], Some(&remembered)), "/remembered");
        assert_eq!(told(spec(Some((false, "/spec"))), &[(annotation::ENABLED, "true")], None), "/spec");
        assert_eq!(told(spec(Some((true, "/spec"))), &[(annotation::ENABLED, "false")], None), "disabled");
        assert_eq!(told(spec(Some((true, "/spec"))), &[(annotation::PATH, "/a")], None), "/a");
    }

    #[test]
    fn what_cannot_be_read_names_the_field_and_the_accepted_form() {
        for (key, value, wanted) in [
            (annotation::ENABLED, "yes", "true or false"),
            (annotation::PATH, "data", "absolute"),
            (annotation::PATH, "", "absolute"),
            (annotation::PATH, "/a/../b", "absolute"),
            (annotation::PATH, "/a\nb", "control"),
            (annotation::ENGINE, "native", "Native"),
            (annotation::TIMEOUT, "soon", "2h"),
            (annotation::TIMEOUT, "-2h", "2h"),
            (annotation::REVERIFY_INTERVAL, "often", "2h"),
            (annotation::MAX_BYTES_PER_SECOND, "much", "500000000"),
            (annotation::MAX_BYTES_PER_SECOND, "0", "500000000"),
            (annotation::REVERIFY_INTERVAL, "100ms", "2h"),
        ] {
            let wish = wish("h", &spec(None), &annotations(&[(key, value)]), None);
            let Wish::Invalid { message } = &wish else { panic!("{key}={value}: {wish:?}") };
            assert!(message.contains(key) && message.contains(wanted), "{message}");
        }
        let none = AlluxioRuntimeSpec { data: Data { replicas: Some(0), preload: None }, ..spec(None) };
        assert!(path(&wish("h", &none, &BTreeMap::new(), None)).contains("spec.data.replicas"));
    }

    #[test]
    fn a_disabled_preload_is_not_checked() {
        let pairs = annotations(&[(annotation::ENABLED, "false"), (annotation::PATH, "bad")]);
        assert_eq!(wish("h", &spec(None), &pairs, None), Wish::Disabled);
    }
}
