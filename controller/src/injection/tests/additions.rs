//! What holds for any pod, however odd.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::{container, injected_with, options};
use crate::injection::{Injection, LeftAlone, Options, SIDECAR, items, judge};

fn any_pod() -> impl Strategy<Value = Value> {
    let name = || "[a-z]{1,8}";
    let mount = (name(), "(/preload|/var/run|/opt)(/[a-z]{1,5}){0,2}")
        .prop_map(|(name, path)| json!({ "name": name, "mountPath": path }));
    let container = (
        prop_oneof![Just("alluxio-master".to_owned()), name().prop_map(|name: String| name)],
        prop::option::of(prop::collection::vec(mount, 0..3)),
        prop::option::of(prop::collection::vec(
            ("(PRELOAD_)?[A-Z]{1,4}").prop_map(|name| json!({ "name": name })),
            0..3,
        )),
        prop::option::of(prop::collection::vec(
            (20000u16..30000).prop_map(|p| json!({ "containerPort": p })),
            0..3,
        )),
    )
        .prop_map(|(name, mounts, env, ports)| {
            let mut container = json!({ "name": name, "image": "i" });
            for (key, value) in [("volumeMounts", mounts), ("env", env), ("ports", ports)] {
                if let Some(value) = value {
                    container[key] = json!(value);
                }
            }
            container
        });
    (
        prop::collection::vec(container.clone(), 0..3),
        prop::option::of(prop::collection::vec(container, 0..2)),
        prop::option::of(any::<bool>()),
        prop::option::of(any::<bool>()),
        prop::option::of(prop::collection::btree_map("[a-z]{1,3}", "[a-z]{0,3}", 0..2)),
        prop_oneof![Just("alluxio-master"), Just("alluxio-master"), Just("alluxio-worker")],
    )
        .prop_map(|(containers, init, host, token, annotations, role)| {
            let mut pod = json!({
                "metadata": { "name": "m-0", "labels": { "role": role } },
                "spec": { "containers": containers, "unknown": { "kept": true } },
            });
            for (key, value) in [
                ("initContainers", init.map(Value::from)),
                ("hostNetwork", host.map(Value::from)),
                ("automountServiceAccountToken", token.map(Value::from)),
            ] {
                if let Some(value) = value {
                    pod["spec"][key] = value;
                }
            }
            if let Some(annotations) = annotations {
                pod["metadata"]["annotations"] = json!(annotations);
            }
            pod
        })
}

proptest! {
    /// Only additions, once; what was there is there in its order.
    #[test]
    fn things_are_only_added_and_only_once(before in any_pod(), native: bool) {
        let options = Options { native, ..options() };
        let Ok(Injection { pod: after, .. }) = injected_with(&before, &options) else {
            prop_assert!(judge(&before).is_err());
            return Ok(());
        };
        let again = injected_with(&after, &options);
        prop_assert_eq!(again, Err(LeftAlone::Injected));
        for operation in json_patch::diff(&before, &after).0 {
            prop_assert!(matches!(operation, json_patch::PatchOperation::Add(_)), "{operation:?}");
        }
        for key in ["initContainers", "containers", "volumes"] {
            let (old, new) = (items(&before["spec"], key), items(&after["spec"], key));
            prop_assert_eq!(old, &new[..old.len()]);
        }
        let mounts = items(container(&after, SIDECAR), "volumeMounts");
        let ours = mounts.iter().filter(|mount| {
            let path = mount["mountPath"].as_str().unwrap_or_default();
            path == "/preload" || path.starts_with("/preload/")
        });
        prop_assert_eq!(ours.count(), 3);
    }
}
