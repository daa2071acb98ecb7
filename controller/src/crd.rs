//! The documents of `deploy/crd`, made from the types, so that they cannot disagree with the program.

use kube::CustomResourceExt;
use serde_json::{Value, json};

use crate::{
    api::{AlluxioRuntime, Preload},
    args::Document,
};

/// The document as YAML.
pub fn print(document: Document) -> Result<String, serde_saphyr::ser::Error> {
    match document {
        Document::Preload => serde_saphyr::to_string(&Preload::crd()),
        Document::AlluxioRuntime => serde_saphyr::to_string(&alluxio_runtime()),
        Document::FluidPatch => serde_saphyr::to_string(&fluid_patch()),
    }
}

/// Ours, which takes a manifest that was written for Fluid as it is.
fn alluxio_runtime() -> Value {
    let mut crd = serde_json::to_value(AlluxioRuntime::crd()).unwrap_or_default();
    for field in ["spec", "status"] {
        crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][field]["x-kubernetes-preserve-unknown-fields"] =
            json!(true);
    }
    crd
}

/// JSON patch (RFC 6902) for Fluid's CRD. Without defaults: Fluid erases what it does not know, and a default
/// would then stand where the user had said something else.
fn fluid_patch() -> Value {
    let ours = alluxio_runtime();
    let schema = &ours["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
    let mut preload = schema["spec"]["properties"]["data"]["properties"]["preload"].clone();
    remove_key(&mut preload, "default");
    let at = "/spec/versions/0/schema/openAPIV3Schema/properties";
    let add = |path: String, value: Value| json!({ "op": "add", "path": path, "value": value });
    let status = &schema["status"]["properties"];
    json!([
        { "op": "test", "path": "/spec/versions/0/name", "value": "v1alpha1" },
        add(format!("{at}/spec/properties/data/properties/preload"), preload),
        add(format!("{at}/status/properties/preloadStatus"), status["preloadStatus"].clone()),
        add(format!("{at}/status/properties/preloadProgress"), status["preloadProgress"].clone()),
        add(
            "/spec/versions/0/additionalPrinterColumns/-".to_owned(),
            json!({ "name": "Preload", "type": "string", "jsonPath": ".status.preloadStatus" })
        ),
        add(
            "/spec/versions/0/additionalPrinterColumns/-".to_owned(),
            json!({ "name": "Preload Progress", "type": "string", "jsonPath": ".status.preloadProgress", "priority": 10 })
        ),
    ])
}

fn remove_key(value: &mut Value, key: &str) {
    match value {
        Value::Object(fields) => {
            fields.remove(key);
            fields.values_mut().for_each(|field| remove_key(field, key));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| remove_key(item, key)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `make manifests` writes them.
    #[test]
    fn the_files_in_deploy_are_current() {
        for (document, file) in [
            (Document::Preload, "preload.yaml"),
            (Document::AlluxioRuntime, "standalone/alluxioruntime.yaml"),
            (Document::FluidPatch, "fluid-alluxioruntime.patch.yaml"),
        ] {
            let path = format!("{}/../deploy/crd/{file}", env!("CARGO_MANIFEST_DIR"));
            let on_disk = std::fs::read_to_string(&path).unwrap_or_default();
            // Not shown: it is hundreds of lines, and the command makes the difference visible.
            assert!(
                on_disk == print(document).unwrap(),
                "{file} is not what the types say: run 'make manifests'"
            );
        }
    }

    #[test]
    fn the_patch_has_no_defaults() {
        let patch = serde_json::to_string(&fluid_patch()).unwrap();
        assert!(!patch.contains("\"default\""), "{patch}");
        assert!(patch.contains("x-kubernetes-validations"), "{patch}");
        assert!(!patch.contains(":null"), "a path of ours is wrong: {patch}");
    }

    /// Defaults of the first design: enabled, everything, one replica.
    #[test]
    fn an_empty_runtime_is_filled_with_the_defaults() {
        let crd = alluxio_runtime();
        let data = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
            ["data"];
        assert_eq!(
            data["properties"]["preload"]["default"],
            json!({ "enabled": true, "path": "/" }),
            "{data}"
        );
        assert_eq!(data["properties"]["replicas"]["default"], json!(1), "{data}");
    }
}
