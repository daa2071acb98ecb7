//! The Secret that the pods of one StatefulSet mount. Pure but for the certificate's key.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::OwnerReference};
use kube::api::ObjectMeta;

use super::{
    identity::{Identity, Owner},
    root::{Root, RootError},
};

/// By which the policy of `deploy/base` tells these Secrets from all others.
pub(super) const TYPE: &str = "preload.dev/credentials";
/// Periods that a certificate lives: as long as it may take until somebody notices that it is not renewed.
const CERTIFICATE_PERIODS: u32 = 4;

/// Which period a moment lies in.
#[must_use]
pub(super) fn period(now: Timestamp, length: Duration) -> i64 {
    let length = i64::try_from(length.as_millis()).unwrap_or(i64::MAX).max(1);
    now.as_millisecond().div_euclid(length)
}

/// Accepted are the tokens of this period, of the one before, for a controller whose clock is behind, and of the
/// next one, since this Secret may still be in use then.
pub(super) fn tokens(root: &Root, identity: &Identity, period: i64) -> String {
    let tokens = [period - 1, period, period + 1].map(|period| root.token(identity, period));
    tokens.join("\n") + "\n"
}

pub(super) fn secret(
    root: &Root,
    owner: &Owner,
    length: Duration,
    now: Timestamp,
) -> Result<Secret, RootError> {
    let identity = &owner.identity;
    let issued = root.issue(&[identity.server_name()], length * CERTIFICATE_PERIODS, now)?;
    let entries = [
        ("tls.crt", issued.certificate),
        ("tls.key", issued.key),
        ("ca.crt", root.authorities()),
        ("tokens", tokens(root, identity, period(now, length))),
    ];
    let data = entries.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value.into_bytes())));
    Ok(Secret {
        metadata: ObjectMeta {
            name: Some(identity.secret_name()),
            namespace: Some(identity.namespace.clone()),
            labels: Some(BTreeMap::from([(
                "app.kubernetes.io/managed-by".to_owned(),
                "preload-controller".to_owned(),
            )])),
            owner_references: Some(vec![OwnerReference {
                api_version: "apps/v1".to_owned(),
                kind: "StatefulSet".to_owned(),
                name: identity.stateful_set.clone(),
                uid: owner.uid.clone(),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        },
        type_: Some(TYPE.to_owned()),
        data: Some(data.collect()),
        ..Secret::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn what_was_written_in_one_period_opens_in_the_next() {
        let now: Timestamp = "2026-11-24T08:00:00Z".parse().unwrap();
        let root = Root::generate(now).unwrap();
        let owner = Owner { identity: Identity::new("training", "hbase-master"), uid: "u".to_owned() };
        let written = secret(&root, &owner, DAY, now).unwrap();
        let accepted = String::from_utf8(written.data.unwrap()["tokens"].0.clone()).unwrap();
        let opens = |after: Duration| {
            accepted.lines().any(|token| token == root.token(&owner.identity, period(now + after, DAY)))
        };
        assert!(opens(Duration::ZERO) && opens(DAY));
        assert!(!opens(DAY * 2));
        assert_eq!(written.metadata.name.as_deref(), Some("hbase-master-preload"));
    }

    #[test]
    fn periods_are_counted_on_both_sides_of_1970() {
        let at = |millisecond| {
            period(Timestamp::from_millisecond(millisecond).unwrap(), Duration::from_millis(10))
        };
        assert_eq!([at(-1), at(0), at(9), at(10)], [-1, 0, 0, 1]);
    }
}
