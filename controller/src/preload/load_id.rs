//! The name of a load: the same wish in the same run always gives the same id, so that asking twice starts once.

use uuid::Uuid;

use crate::api::{Engine, PreloadSpec};

/// UUIDv5 of path, replicas, engine and run within the uid of the Preload.
///
/// Time limit, interval of checks and bandwidth are not part of it: a change of them alone does not load anew.
#[must_use]
pub fn load_id(preload_uid: &str, spec: &PreloadSpec, run: i64) -> String {
    let PreloadSpec {
        runtime_ref,
        path,
        replicas,
        engine,
        timeout: _,
        reverify_interval: _,
        max_bytes_per_second: _,
    } = spec;
    let engine = match engine {
        Engine::Auto => "auto",
        Engine::DistributedLoad => "distributed-load",
        Engine::Native => "native",
    };
    let name = format!(
        "{:?}\n{}\n{}\n{replicas}\n{engine}\n{run}",
        runtime_ref.kind,
        runtime_ref.name,
        normalised(path)
    );
    // Uids of an API server are UUIDs; any other text is hashed to one.
    let namespace = Uuid::parse_str(preload_uid)
        .unwrap_or_else(|_| Uuid::new_v5(&Uuid::NAMESPACE_OID, preload_uid.as_bytes()));
    Uuid::new_v5(&namespace, name.as_bytes()).to_string()
}

/// One `/` between components, none at the end; as the sidecar does it.
fn normalised(path: &str) -> String {
    let components: Vec<_> = path.split('/').filter(|component| !component.is_empty()).collect();
    format!("/{}", components.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::RuntimeRef;

    const UID: &str = "7d444840-9dc0-11d1-b245-5ffdce74fad2";

    fn spec(path: &str) -> PreloadSpec {
        PreloadSpec {
            runtime_ref: RuntimeRef { kind: Default::default(), name: "hbase".into(), workers: None },
            path: path.into(),
            replicas: 1,
            engine: Engine::Auto,
            timeout: None,
            reverify_interval: None,
            max_bytes_per_second: None,
        }
    }

    #[test]
    fn what_makes_another_load_makes_another_id() {
        let base = load_id(UID, &spec("/a"), 1);
        assert_eq!(load_id(UID, &spec("/a"), 1), base);
        assert_eq!(load_id(UID, &spec("/a//"), 1), base, "the same path, written otherwise");
        assert_eq!(load_id(UID, &PreloadSpec { timeout: Some("2h".into()), ..spec("/a") }, 1), base);
        let checked = PreloadSpec { reverify_interval: Some("10m".into()), ..spec("/a") };
        assert_eq!(load_id(UID, &checked, 1), base);
        let others = [
            load_id(UID, &spec("/a"), 2),
            load_id(UID, &spec("/b"), 1),
            load_id(UID, &PreloadSpec { replicas: 2, ..spec("/a") }, 1),
            load_id(UID, &PreloadSpec { engine: Engine::Native, ..spec("/a") }, 1),
            load_id("another", &spec("/a"), 1),
        ];
        for (index, other) in others.iter().enumerate() {
            assert_ne!(*other, base);
            assert!(!others[..index].contains(other));
        }
    }

    /// A controller of another version must find the loads of this one.
    #[test]
    fn the_id_stays_the_same_over_versions() {
        assert_eq!(load_id(UID, &spec("/data/train"), 3), "dc3793d0-df1b-51f0-a455-63330c9cd8db");
    }
}
