//! Injection into pods as Fluid makes them, and into odd ones.

mod additions;
mod manifests;

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::*;

pub(super) const FLUID: &str = include_str!("../../../tests/kubernetes/fluid-master.yaml");

pub(super) fn options() -> Options {
    Options {
        image: "alluxio-preload:test".to_owned(),
        pull_policy: None,
        native: true,
        resources: Resources {
            cpu_request: Some("100m".to_owned()),
            memory_request: Some("256Mi".to_owned()),
            memory_limit: Some("1Gi".to_owned()),
            cpu_limit: None,
        },
        arguments: Vec::new(),
        version: "0.0.0".to_owned(),
    }
}

pub(super) fn range() -> PortRange {
    "27000-27999".parse().unwrap()
}

/// The first pod of Fluid's StatefulSet.
fn fluid_pod() -> Value {
    let set: Value = serde_saphyr::from_str(FLUID).unwrap();
    let mut pod = set["spec"]["template"].clone();
    pod["metadata"]["name"] = json!("hbase-master-0");
    pod["metadata"]["ownerReferences"] = json!([
        { "apiVersion": "apps/v1", "kind": "StatefulSet", "name": "hbase-master", "uid": "u", "controller": true }
    ]);
    pod
}

/// A pod whose only container is the master.
fn pod_with(container: Value, spec: Value) -> Value {
    let mut pod = json!({
        "metadata": { "name": "m", "labels": { "role": "alluxio-master" } },
        "spec": { "containers": [{ "name": "alluxio-master", "image": "alluxio" }] },
    });
    for (into, fields) in [("/spec/containers/0", container), ("/spec", spec)] {
        for (key, value) in fields.as_object().unwrap() {
            pod.pointer_mut(into).unwrap()[key] = value.clone();
        }
    }
    pod
}

fn injected(pod: &Value) -> Result<Injection, LeftAlone> {
    injected_with(pod, &options())
}

fn injected_with(pod: &Value, options: &Options) -> Result<Injection, LeftAlone> {
    judge(pod)?;
    let owner = Owner::of_pod("training", pod);
    let port = place(pod, range(), &BTreeSet::new(), &owner.port_key)?;
    inject(pod, Placement { secret: &owner.secret, port, claims: &[] }, options)
}

fn container<'a>(pod: &'a Value, name: &str) -> &'a Value {
    let all = ["initContainers", "containers"].iter().flat_map(|key| items(&pod["spec"], key));
    all.into_iter().find(|container| container["name"] == name).unwrap()
}

#[test]
fn the_pod_of_fluid() {
    let before = fluid_pod();
    let after = injected(&before).unwrap();
    assert!(after.notes.is_empty(), "{:?}", after.notes);
    insta::assert_snapshot!(serde_json::to_string_pretty(&json_patch::diff(&before, &after.pod)).unwrap());
}

#[test]
fn a_plain_container_where_there_are_no_native_sidecars() {
    let after = injected_with(&fluid_pod(), &Options { native: false, ..options() }).unwrap().pod;
    let names =
        |key| items(&after["spec"], key).iter().map(|c| c["name"].as_str().unwrap()).collect::<Vec<_>>();
    assert_eq!(names("initContainers"), ["journal-format", INSTALL]);
    assert_eq!(names("containers"), ["alluxio-master", "alluxio-job-master", SIDECAR]);
    assert_eq!(container(&after, SIDECAR).get("restartPolicy"), None);
    assert_eq!(injected(&after), Err(LeftAlone::Injected));
}

#[test]
fn who_is_left_alone() {
    let changed = |path: &str, value: Value| {
        let (parent, key) = path.rsplit_once('/').unwrap();
        let mut pod = fluid_pod();
        pod.pointer_mut(parent).unwrap()[key] = value;
        judge(&pod)
    };
    assert_eq!(judge(&fluid_pod()), Ok(()));
    assert_eq!(changed("/metadata/labels", json!({})), Err(LeftAlone::NoMaster));
    assert_eq!(changed("/metadata/labels/role", json!("alluxio-worker")), Err(LeftAlone::NoMaster));
    assert_eq!(changed("/metadata/annotations", json!({ OPT_OUT: "false" })), Err(LeftAlone::OptedOut));
    assert_eq!(changed("/metadata/annotations", json!({ OPT_OUT: "true" })), Ok(()));
    assert_eq!(changed("/spec/restartPolicy", json!("OnFailure")), Err(LeftAlone::RunsToCompletion));
    assert_eq!(changed("/spec/containers", json!([])), Err(LeftAlone::Empty));
    let mut pod = fluid_pod();
    pod["metadata"]["labels"][OPT_OUT] = json!("false");
    assert_eq!(judge(&pod), Err(LeftAlone::OptedOut));
}

#[test]
fn nothing_is_left_of_privileges() {
    let pod = pod_with(
        json!({
            "securityContext": {
                "privileged": true, "procMount": "Unmasked", "runAsUser": 1000, "runAsNonRoot": true,
                "capabilities": { "add": ["SYS_ADMIN"] }, "seccompProfile": { "type": "Unconfined" },
                "appArmorProfile": { "type": "Unconfined" }, "seLinuxOptions": { "level": "s0" },
            },
            "volumeMounts": [
                { "name": "fuse", "mountPath": "/fuse", "mountPropagation": "Bidirectional" },
                { "name": "kube-api-access-x", "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount" },
            ],
        }),
        json!({}),
    );
    let after = injected(&pod).unwrap().pod;
    let sidecar = container(&after, SIDECAR);
    assert_eq!(
        sidecar["securityContext"],
        json!({
            "allowPrivilegeEscalation": false, "capabilities": { "drop": ["ALL"] }, "runAsNonRoot": true,
            "runAsUser": 1000, "seccompProfile": { "type": "RuntimeDefault" }, "seLinuxOptions": { "level": "s0" },
        })
    );
    let mounts: Vec<_> =
        items(sidecar, "volumeMounts").iter().map(|mount| mount["name"].as_str().unwrap()).collect();
    assert_eq!(mounts, ["preload-bin", "preload-state", "preload-credentials", "preload-no-token", "fuse"]);
    assert_eq!(sidecar["volumeMounts"][4]["mountPropagation"], "HostToContainer");
}

/// A pod without tokens needs nothing to hide them.
#[test]
fn no_token_to_hide() {
    let after = injected(&pod_with(json!({}), json!({ "automountServiceAccountToken": false }))).unwrap().pod;
    assert!(!after.to_string().contains("serviceaccount"), "{after}");
}

#[test]
fn what_would_clash_is_not_copied() {
    let pod = pod_with(
        json!({
            "env": [
                { "name": "PRELOAD_STAY_UP", "value": "false" }, { "name": "A", "value": "1" },
                { "name": "M", "valueFrom": { "resourceFieldRef": { "resource": "limits.memory" } } },
            ],
            "volumeMounts": [
                { "name": "a", "mountPath": "/preload/state/" }, { "name": "b", "mountPath": "/preload" },
                { "name": "c", "mountPath": "/preloaded" },
            ],
            "ports": [{ "containerPort": 29701 }],
        }),
        json!({}),
    );
    let Injection { pod, notes } = injected(&pod).unwrap();
    let sidecar = container(&pod, SIDECAR);
    let names = |key: &str, of: &str| {
        items(sidecar, key).iter().map(|item| item[of].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("env", "name"), ["PRELOAD_STAY_UP", "PRELOAD_MAX_RUNNING", "A", "M"]);
    assert_eq!(sidecar["env"][0]["value"], "true");
    assert_eq!(sidecar["env"][3]["valueFrom"]["resourceFieldRef"]["containerName"], "alluxio-master");
    assert_eq!(names("volumeMounts", "mountPath").last().unwrap(), "/preloaded");
    assert_eq!(notes.len(), 3, "{notes:?}");
    assert_eq!(pod["metadata"]["annotations"][PORT], "29702");
}

#[test]
fn whose_secret_and_port() {
    let owned = |kind: &str, version: &str, name: &str| {
        json!({
            "metadata": {
                "name": "pod-0", "labels": { "pod-template-hash": "5d9c" },
                "ownerReferences": [
                    { "kind": "Node", "apiVersion": "v1", "name": "no-controller" },
                    { "kind": kind, "apiVersion": version, "name": name, "controller": true },
                ],
            },
        })
    };
    let of = |pod: &Value| {
        let owner = Owner::of_pod("ns", pod);
        (owner.secret, owner.port_key, credentials_owner(pod).is_some())
    };
    let expected = |secret: &str, key: &str, made: bool| (secret.to_owned(), key.to_owned(), made);
    assert_eq!(of(&owned("StatefulSet", "apps/v1", "m")), expected("m-preload", "ns/pod-0", true));
    assert_eq!(of(&owned("StatefulSet", "apps.kruise.io/v1", "m")), expected("m-preload", "ns/m", false));
    assert_eq!(of(&owned("ReplicaSet", "apps/v1", "m-5d9c")), expected("m-preload", "ns/m", false));
    assert_eq!(of(&owned("ReplicaSet", "apps/v1", "m")), expected("m-preload", "ns/m", false));
    assert_eq!(of(&json!({ "metadata": { "name": "solo" } })), expected("solo-preload", "ns/solo", false));
    assert_eq!(of(&json!({ "metadata": { "generateName": "g-" } })), expected("g-preload", "ns/g", false));
    let (set, first) = (Owner::of_template("ns", "StatefulSet", "m"), owned("StatefulSet", "apps/v1", "m"));
    assert_eq!(set.secret, Owner::of_pod("ns", &first).secret);
    assert_eq!(set.port_key, "ns/m-0");
}

#[test]
fn a_name_that_would_be_too_long() {
    let mut pod = pod_with(json!({}), json!({}));
    pod["metadata"]["name"] = json!("n".repeat(250));
    assert!(matches!(injected(&pod), Err(LeftAlone::LongName(_))));
}

#[test]
fn ports_that_are_wished() {
    let with = |port: &str, host: bool| {
        let ports = json!({ "ports": [{ "containerPort": 19998 }] });
        let mut pod = pod_with(ports, json!({ "hostNetwork": host }));
        pod["metadata"]["annotations"] = json!({ PORT: port });
        injected(&pod).map(|injection| {
            let declared = container(&injection.pod, SIDECAR)["ports"].clone();
            (declared[0]["containerPort"].clone(), declared[1]["hostPort"].clone())
        })
    };
    assert_eq!(with("31001", false), Ok((json!(31001), json!(null))));
    assert_eq!(with("31001", true), Ok((json!(31001), json!(31002))));
    for bad in ["", "80", "65535", "x", "19998", "19997"] {
        assert_eq!(with(bad, true), Err(LeftAlone::Port(bad.to_owned())));
    }
}

#[test]
fn an_exhausted_range_is_a_fault() {
    let narrow: PortRange = "27000-27003".parse().unwrap();
    let error = place(&fluid_pod(), narrow, &BTreeSet::from([27001, 27002]), "k").unwrap_err();
    assert!(error.is_fault() && error.to_string().contains("27000-27003"), "{error}");
}

/// Whatever single part somebody removes, the pod is not injected over it.
#[test]
fn half_of_an_injection_is_a_fault() {
    let whole = injected(&fluid_pod()).unwrap().pod;
    let remove = |change: fn(&mut Value)| {
        let mut pod = whole.clone();
        change(&mut pod);
        judge(&pod).unwrap_err()
    };
    fn without(name: &str) -> impl Fn(&mut Value) {
        move |pod| pod["spec"]["initContainers"].as_array_mut().unwrap().retain(|c| c["name"] != name)
    }
    for broken in [
        remove(|pod| without(SIDECAR)(pod)),
        remove(|pod| without(INSTALL)(pod)),
        remove(|pod| pod["spec"]["initContainers"][2]["volumeMounts"] = json!([])),
        remove(|pod| pod["metadata"]["annotations"] = json!({})),
    ] {
        assert!(matches!(broken, LeftAlone::HalfInjected(_)) && broken.is_fault(), "{broken}");
    }
    // All containers gone: volumes that stayed are used.
    let mut cleaned = whole.clone();
    without(SIDECAR)(&mut cleaned);
    without(INSTALL)(&mut cleaned);
    assert_eq!(injected(&cleaned).unwrap().pod, whole);
}
