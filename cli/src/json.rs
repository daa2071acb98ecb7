//! Messages as protobuf JSON, one object a line: lowerCamelCase names, 64-bit numbers as strings, enums by
//! name, times in RFC 3339, durations as `1.5s`. Fields without presence are printed also when empty, so
//! that `jq .progress.bytesCached` finds a value.

use crate::text;
use alluxio_preload_api::{FILE_DESCRIPTOR_SET, v1::Load};
use prost::Message;
use prost_reflect::{DescriptorError, DescriptorPool, DynamicMessage, SerializeOptions};
use prost_types::{DescriptorProto, FileDescriptorSet};

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("the descriptors of this build do not fit together")]
    Descriptors(#[from] DescriptorError),
    #[error("the message {0} is not in the descriptors of this build")]
    Unknown(&'static str),
    #[error("the message cannot be read")]
    Decode(#[from] prost::DecodeError),
    #[error("the message has no JSON form")]
    Serialize(#[from] serde_json::Error),
}

#[derive(Debug)]
pub(crate) struct Json {
    pool: DescriptorPool,
}

impl Json {
    /// The contract, and the error details that a `google.rpc.Status` may carry.
    pub(crate) fn new() -> Result<Self, Error> {
        let mut pool = DescriptorPool::decode(FILE_DESCRIPTOR_SET)?;
        let mut details = FileDescriptorSet::decode(tonic_types::pb::FILE_DESCRIPTOR_SET)?;
        // Its status.proto lies at another path than ours: one type must not be defined twice.
        details.file.retain(|file| {
            let name = |m: &DescriptorProto| format!("{}.{}", file.package(), m.name());
            !file.message_type.iter().any(|m| pool.get_message_by_name(&name(m)).is_some())
        });
        pool.add_file_descriptor_set(details)?;
        Ok(Self { pool })
    }

    /// Details of `load.error` that this version does not know are left out; the rest is more use than
    /// no output.
    pub(crate) fn load(&self, load: &Load) -> Result<String, Error> {
        const NAME: &str = "preload.v1.Load";
        match (self.message(NAME, load), &load.error) {
            (Err(Error::Serialize(_)), Some(error)) if !error.details.is_empty() => {
                let mut load = load.clone();
                load.error = Some(tonic_types::Status { details: Vec::new(), ..error.clone() });
                self.message(NAME, &load)
            }
            (json, _) => json,
        }
    }

    pub(crate) fn message(&self, name: &'static str, message: &impl Message) -> Result<String, Error> {
        let descriptor = self.pool.get_message_by_name(name).ok_or(Error::Unknown(name))?;
        let message = DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice())?;
        let mut bytes = Vec::new();
        let options = SerializeOptions::new().skip_default_fields(false);
        message.serialize_with_options(&mut serde_json::Serializer::new(&mut bytes), &options)?;
        Ok(escape(&String::from_utf8_lossy(&bytes)))
    }
}

/// JSON leaves DEL, C1 and direction marks as they are; a terminal obeys them. In compact JSON they only
/// occur inside strings.
fn escape(json: &str) -> String {
    let mut safe = String::with_capacity(json.len());
    for c in json.chars() {
        if text::is_unsafe(c) {
            safe.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            safe.push(c);
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::tests::load;
    use alluxio_preload_api::v1::load::State;
    use serde_json::{Value, json};
    use tonic_types::{ErrorDetails, StatusExt};

    fn parsed(load: &Load) -> Value {
        serde_json::from_str(&Json::new().unwrap().load(load).unwrap()).unwrap()
    }

    #[test]
    fn names_and_values_are_those_of_protobuf_json() {
        let mut load = load(State::Loading);
        let spec = load.spec.as_mut().unwrap();
        spec.timeout = Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 });
        spec.labels.insert("team".into(), "ml".into());
        let json = parsed(&load);
        assert_eq!(json["state"], "LOADING");
        assert_eq!(json["reason"], "REASON_UNSPECIFIED");
        assert_eq!(json["spec"]["timeout"], "1.500s");
        assert_eq!(json["spec"]["loadMetadata"], "LOAD_METADATA_UNSPECIFIED");
        assert_eq!(json["spec"]["labels"], json!({"team": "ml"}));
        assert_eq!(json["progress"]["bytesTotal"], "3221225472");
        assert_eq!(json["progress"]["filesFailed"], "0");
        assert_eq!(json["progress"]["replicas"], 2);
        assert_eq!(json["createTime"], "1970-01-01T00:00:00.250Z");
        assert_eq!(json.get("endTime"), None);
    }

    #[test]
    fn error_details_are_printed_and_unknown_ones_left_out() {
        let mut load = load(State::Failed);
        let details =
            ErrorDetails::with_error_info("INCOMPLETE", "preload.dev", [("files".into(), "3".into())]);
        let status = tonic::Status::with_error_details(tonic::Code::Internal, "no", details);
        load.error = Some(tonic_types::Status::decode(status.details()).unwrap());
        assert_eq!(status.get_details_error_info().unwrap().reason, "INCOMPLETE");
        let json = parsed(&load);
        let detail = &json["error"]["details"][0];
        assert_eq!(detail["@type"], "type.googleapis.com/google.rpc.ErrorInfo");
        assert_eq!(detail["metadata"]["files"], "3");

        let unknown = prost_types::Any { type_url: "type.example/of.tomorrow".into(), value: vec![] };
        load.error.as_mut().unwrap().details.push(unknown);
        let json = parsed(&load);
        assert_eq!(json["error"]["details"], json!([]));
        assert_eq!(json["state"], "FAILED");
    }

    #[test]
    fn one_line_that_no_terminal_obeys() {
        let mut load = load(State::Failed);
        load.message = "a\nb\u{9b}2J\u{7f}\u{202e}\"".into();
        let json = Json::new().unwrap().load(&load).unwrap();
        assert!(!json.contains(text::is_unsafe), "{json}");
        let value: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(value["message"], load.message);
    }
}
