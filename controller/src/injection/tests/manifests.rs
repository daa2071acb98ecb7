//! Injection into files.

use serde_json::Value;

use super::{FLUID, options, range};
use crate::injection::{ManifestError, Manifests, SIDECAR};

fn inject(yaml: &str) -> Result<Manifests, ManifestError> {
    Manifests::inject(yaml, "training", range(), &options())
}

fn parse(yaml: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(yaml).unwrap()
}

#[test]
fn other_documents_pass_as_they_are_written() {
    let service = "# A comment\napiVersion: v1\nkind: Service # and one more\nmetadata: {name:   x}\n";
    let yaml = format!("{service}---\n{FLUID}--- # the end\n{service}");
    let done = inject(&yaml).unwrap();
    let (first, rest) = done.yaml.split_at(service.len());
    assert_eq!(first, service);
    assert!(rest.starts_with("---\n") && rest.ends_with(&format!("--- # the end\n{service}")), "{rest}");
    let documents = parse(&done.yaml);
    assert_eq!(documents.len(), 3);
    let spec = &documents[1]["spec"]["template"]["spec"];
    assert_eq!(spec["initContainers"][2]["name"], SIDECAR);
    // Octal, as Kubernetes reads it; and words that other readers of YAML take for booleans stay words.
    assert_eq!(spec["volumes"][0]["configMap"]["defaultMode"], 0o644);
    assert!(done.yaml.contains("value: \"on\"") || done.yaml.contains("value: 'on'"), "{}", done.yaml);
    let said =
        "StatefulSet training/hbase-master: sidecar added (gRPC port 27262, Secret hbase-master-preload)";
    assert_eq!(done.report, [said]);
}

#[test]
fn a_second_time_there_is_nothing_to_inject() {
    let once = inject(FLUID).unwrap().yaml;
    match inject(&once).unwrap_err() {
        ManifestError::Nothing { report } => {
            assert!(report[0].contains("has the sidecar already"), "{report:?}")
        }
        other => panic!("{other}"),
    }
}

#[test]
fn lists_and_json() {
    let set: Value = serde_saphyr::from_str(FLUID).unwrap();
    let list = serde_json::json!({ "apiVersion": "v1", "kind": "List", "items": [
        { "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "c" } }, set,
    ]});
    let done = inject(&format!("--- {list}")).unwrap();
    let documents = parse(&done.yaml);
    assert_eq!(documents[0]["items"][1]["spec"]["template"]["spec"]["initContainers"][2]["name"], SIDECAR);
    assert_eq!(documents[0]["items"][0]["kind"], "ConfigMap");
}

/// Claims of a StatefulSet become volumes of its pods.
#[test]
fn a_claim_for_the_state() {
    let yaml = format!("{FLUID}  volumeClaimTemplates:\n    - metadata: {{ name: preload-state }}\n");
    let documents = parse(&inject(&yaml).unwrap().yaml);
    let volumes = documents[0]["spec"]["template"]["spec"]["volumes"].as_array().unwrap();
    assert!(volumes.iter().all(|volume| volume["name"] != "preload-state"), "{volumes:?}");
}

#[test]
fn two_masters_of_one_file_get_two_ports() {
    let yaml = format!("{FLUID}---\n{}", FLUID.replace("hbase-master", "spark-master"));
    let documents = parse(&inject(&yaml).unwrap().yaml);
    let port = |at: usize| {
        documents[at]["spec"]["template"]["metadata"]["annotations"]["preload.dev/sidecar-port"].clone()
    };
    assert!(port(0).is_string() && port(0) != port(1), "{} {}", port(0), port(1));
}

#[test]
fn errors_say_where() {
    let bad = inject(&format!("{FLUID}---\na: [\n")).unwrap_err().to_string();
    let line = FLUID.lines().count() + 2;
    assert!(bad.starts_with("document 2 is no YAML") && bad.contains(&format!("line {line}")), "{bad}");
    let nothing = inject("apiVersion: v1\nkind: Service\n").unwrap_err().to_string();
    assert!(nothing.contains("role=alluxio-master"), "{nothing}");
    assert!(matches!(inject(""), Err(ManifestError::Nothing { .. })));
    let port = FLUID.replace(
        "      labels:\n        app",
        "      annotations: {preload.dev/sidecar-port: '1'}\n      labels:\n        app",
    );
    let fault = inject(&port).unwrap_err().to_string();
    assert!(
        fault.starts_with("StatefulSet training/hbase-master: annotation preload.dev/sidecar-port"),
        "{fault}"
    );
}
