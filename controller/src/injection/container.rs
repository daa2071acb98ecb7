//! The two containers: one that installs the program, and the sidecar, which is the master's twin without its
//! privileges.

use serde_json::{Map, Value, json};

use super::{INSTALL, Options, SIDECAR, items, text, volume};

const MASTER: &str = "alluxio-master";
const BIN_PATH: &str = "/preload/bin";
const STATE_PATH: &str = "/preload/state";
const CREDENTIALS_PATH: &str = "/preload/credentials";
/// Everything below is ours.
const ROOT: &str = "/preload";
/// Environment of the sidecar's own flags.
const OWN_ENV: &str = "PRELOAD_";
/// Nobody: the image needs no user database.
const NOBODY: u32 = 65532;
/// Of a security context, what says who a process is, not what it may do.
const IDENTITY: [&str; 5] = ["runAsUser", "runAsGroup", "runAsNonRoot", "seLinuxOptions", "appArmorProfile"];

/// What of an injection is not there. None: nothing is, so this is no injected pod.
pub(super) fn missing_parts(pod: &Value) -> Option<Vec<String>> {
    let find = |key: &str, name: &str| {
        items(&pod["spec"], key).iter().find(|container| text(container, &["name"]) == Some(name))
    };
    let install = find("initContainers", INSTALL);
    let sidecar = find("initContainers", SIDECAR).or_else(|| find("containers", SIDECAR));
    if install.is_none() && sidecar.is_none() {
        return None;
    }
    let mut missing = Vec::new();
    for (name, container, mounts) in [
        (INSTALL, install, &[volume::BIN][..]),
        (SIDECAR, sidecar, &[volume::BIN, volume::STATE, volume::CREDENTIALS]),
    ] {
        let Some(container) = container else {
            missing.push(format!("container {name}"));
            continue;
        };
        for volume in mounts {
            let of = |mount: &Value| text(mount, &["name"]) == Some(volume);
            if !items(container, "volumeMounts").iter().any(of) {
                missing.push(format!("mount of volume {volume} in container {name}"));
            }
        }
    }
    if text(pod, &["metadata", "annotations", super::PORT]).is_none() {
        missing.push(format!("annotation {}", super::PORT));
    }
    Some(missing)
}

/// The container of the master itself.
fn master(pod: &Value) -> &Value {
    let containers = items(&pod["spec"], "containers");
    let named = containers.iter().find(|container| text(container, &["name"]) == Some(MASTER));
    named.or(containers.first()).unwrap_or(&Value::Null)
}

/// Copies the program to where the sidecar's image has none. Runs under the restricted Pod Security Standard.
pub(super) fn install(pod: &Value, options: &Options) -> Value {
    let mut mounts = vec![json!({ "name": volume::BIN, "mountPath": BIN_PATH })];
    mounts.extend(no_token(pod));
    let mut container = json!({
        "name": INSTALL,
        "image": options.image,
        "command": ["/preload-sidecar", "install", BIN_PATH],
        "volumeMounts": mounts,
        "resources": options.resources.to_json(),
        "securityContext": {
            "runAsUser": NOBODY,
            "runAsGroup": NOBODY,
            "runAsNonRoot": true,
            "readOnlyRootFilesystem": true,
            "allowPrivilegeEscalation": false,
            "capabilities": { "drop": ["ALL"] },
            "seccompProfile": { "type": "RuntimeDefault" },
        },
    });
    if let Some(policy) = options.pull_policy {
        container["imagePullPolicy"] = json!(policy.as_str());
    }
    container
}

/// The sidecar, in the master's image and environment: it runs Alluxio's command line.
pub(super) fn sidecar(pod: &Value, port: u16, options: &Options, notes: &mut Vec<String>) -> Value {
    let master = master(pod);
    let admin = port.saturating_add(1);
    let mut arguments = vec![
        "serve".to_owned(),
        format!("--listen=0.0.0.0:{port}"),
        format!("--admin-listen=0.0.0.0:{admin}"),
        format!("--state-dir={STATE_PATH}"),
        format!("--unix-socket={STATE_PATH}/preload.sock"),
        format!("--credentials={CREDENTIALS_PATH}"),
    ];
    arguments.extend(options.arguments.iter().cloned());
    let on_host = pod["spec"]["hostNetwork"] == Value::Bool(true);
    let declare = |name: &str, port: u16| {
        let mut declared = json!({ "name": name, "containerPort": port, "protocol": "TCP" });
        if on_host {
            // The scheduler then keeps others of this port away from the node.
            declared["hostPort"] = json!(port);
        }
        declared
    };
    let mut container = json!({
        "name": SIDECAR,
        "image": master["image"],
        "command": [format!("{BIN_PATH}/preload-sidecar")],
        "args": arguments,
        "env": environment(master, notes),
        "ports": [declare("preload-grpc", port), declare("preload-admin", admin)],
        "volumeMounts": mounts(pod, master, notes),
        "resources": options.resources.to_json(),
        "securityContext": security_context(master),
        // Alone of the probes: one that fails for the load's sake would take the master out of its Service.
        "livenessProbe": {
            "httpGet": { "path": "/livez", "port": admin },
            "initialDelaySeconds": 10,
            "periodSeconds": 10,
            "timeoutSeconds": 5,
            "failureThreshold": 6,
        },
    });
    for key in ["imagePullPolicy", "envFrom"] {
        if let Some(value) = master.get(key) {
            container[key] = value.clone();
        }
    }
    if options.native {
        container["restartPolicy"] = json!("Always");
    }
    container
}

fn environment(master: &Value, notes: &mut Vec<String>) -> Vec<Value> {
    let own = |name: &str, value: &str| json!({ "name": name, "value": value });
    let mut all = vec![own("PRELOAD_STAY_UP", "true"), own("PRELOAD_MAX_RUNNING", "1")];
    for variable in items(master, "env") {
        let name = text(variable, &["name"]).unwrap_or_default();
        if name.starts_with(OWN_ENV) {
            notes.push(format!("variable {name} is not copied: it would be a flag of the sidecar"));
            continue;
        }
        let mut variable = variable.clone();
        if let Some(reference) = variable.pointer_mut("/valueFrom/resourceFieldRef")
            && reference.get("containerName").is_none()
        {
            // Without a name it would mean the sidecar's own.
            reference["containerName"] = master["name"].clone();
        }
        all.push(variable);
    }
    all
}

fn mounts(pod: &Value, master: &Value, notes: &mut Vec<String>) -> Vec<Value> {
    let mut all = vec![
        json!({ "name": volume::BIN, "mountPath": BIN_PATH, "readOnly": true }),
        json!({ "name": volume::STATE, "mountPath": STATE_PATH }),
        json!({ "name": volume::CREDENTIALS, "mountPath": CREDENTIALS_PATH, "readOnly": true }),
    ];
    all.extend(no_token(pod));
    for mount in items(master, "volumeMounts") {
        let path = text(mount, &["mountPath"]).unwrap_or_default().trim_end_matches('/');
        if is_within(path, volume::TOKEN_PATH) {
            // The sidecar asks the API server nothing.
            continue;
        }
        if is_within(path, ROOT) || is_within(ROOT, path) {
            notes.push(format!("mount {path} is not copied: the sidecar has {ROOT} for itself"));
            continue;
        }
        let mut mount = mount.clone();
        if mount["mountPropagation"] == "Bidirectional" {
            // For privileged containers only.
            mount["mountPropagation"] = json!("HostToContainer");
        }
        all.push(mount);
    }
    all
}

fn no_token(pod: &Value) -> Option<Value> {
    let mount = || json!({ "name": volume::NO_TOKEN, "mountPath": volume::TOKEN_PATH, "readOnly": true });
    volume::hides_token(pod).then(mount)
}

/// Both without a slash at their end.
fn is_within(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The master's user with no privilege. The root file system stays writable: Alluxio's command line writes logs
/// beside itself.
fn security_context(master: &Value) -> Value {
    let of_master = master.get("securityContext").and_then(Value::as_object);
    let kept = of_master.into_iter().flatten().filter(|(key, _)| IDENTITY.contains(&key.as_str()));
    let mut context: Map<_, _> = kept.map(|(key, value)| (key.clone(), value.clone())).collect();
    if context.get("appArmorProfile").is_some_and(|profile| profile["type"] == "Unconfined") {
        context.remove("appArmorProfile");
    }
    let mut context = Value::Object(context);
    context["allowPrivilegeEscalation"] = json!(false);
    context["capabilities"] = json!({ "drop": ["ALL"] });
    context["seccompProfile"] = json!({ "type": "RuntimeDefault" });
    context
}
