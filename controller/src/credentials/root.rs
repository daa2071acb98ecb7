//! The root of all trust: an authority that signs certificates, and a key that tokens are derived from.
//!
//! Pure but for randomness: the caller says what time it is.

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::ByteString;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use ring::{
    hmac,
    rand::{SecureRandom, SystemRandom},
};
use thiserror::Error;

use super::identity::Identity;

/// How long an authority is valid.
const LIFETIME: Duration = Duration::from_secs(10 * 365 * 24 * 3600);
/// Clocks of nodes may lag by this much.
const SKEW: Duration = Duration::from_secs(3600);

const CERTIFICATE: &str = "ca.crt";
const KEY: &str = "ca.key";
const CREATED: &str = "created";
const TOKEN_KEY: &str = "token.key";

/// The root cannot be made or read. Whoever runs the controller acts.
#[derive(Debug, Error)]
pub enum RootError {
    #[error("the key {0} is missing, or not what the controller writes there")]
    Field(&'static str),
    #[error("the authority cannot be used")]
    Authority(#[from] rcgen::Error),
    #[error("the system gives no random numbers")]
    Random,
}

/// See the module.
pub struct Root {
    issuer: Issuer<'static, KeyPair>,
    key_pem: String,
    /// The authority that signs, and behind it the one before, whose certificates may still be in use.
    authorities: Vec<String>,
    created: Timestamp,
    token_key: Vec<u8>,
}

/// A certificate and its key, in PEM.
pub struct Issued {
    pub certificate: String,
    pub key: String,
}

// Never the keys.
impl std::fmt::Debug for Root {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Root").field("created", &self.created).finish_non_exhaustive()
    }
}

impl std::fmt::Debug for Issued {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Issued").finish_non_exhaustive()
    }
}

impl Root {
    /// A new one, which nothing trusts yet.
    pub fn generate(now: Timestamp) -> Result<Self, RootError> {
        let mut token_key = vec![0; 32];
        SystemRandom::new().fill(&mut token_key).map_err(|_| RootError::Random)?;
        Self::with_authority(now, token_key, Vec::new())
    }

    /// A new authority; the present one stays trusted, and tokens stay the same.
    pub fn renewed(&self, now: Timestamp) -> Result<Self, RootError> {
        let present = self.authorities.first().cloned();
        Self::with_authority(now, self.token_key.clone(), present.into_iter().collect())
    }

    fn with_authority(now: Timestamp, token_key: Vec<u8>, before: Vec<String>) -> Result<Self, RootError> {
        let key = KeyPair::generate()?;
        let mut parameters = parameters(now, LIFETIME, &format!("alluxio-preload {now:.0}"));
        parameters.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        parameters.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = parameters.self_signed(&key)?.pem();
        let key_pem = key.serialize_pem();
        let authorities = std::iter::once(certificate).chain(before).collect();
        Ok(Self { issuer: Issuer::new(parameters, key), key_pem, authorities, created: now, token_key })
    }

    /// As it lies in the Secret.
    #[must_use]
    pub fn data(&self) -> BTreeMap<String, ByteString> {
        let entries = [
            (CERTIFICATE, self.authorities().into_bytes()),
            (KEY, self.key_pem.clone().into_bytes()),
            (CREATED, self.created.to_string().into_bytes()),
            (TOKEN_KEY, self.token_key.clone()),
        ];
        entries.into_iter().map(|(key, value)| (key.to_owned(), ByteString(value))).collect()
    }

    pub fn from_data(data: &BTreeMap<String, ByteString>) -> Result<Self, RootError> {
        let text = |key: &'static str| {
            let value = data.get(key).and_then(|value| std::str::from_utf8(&value.0).ok());
            value.map(str::to_owned).ok_or(RootError::Field(key))
        };
        let key_pem = text(KEY)?;
        let authorities = split(&text(CERTIFICATE)?);
        let present = authorities.first().ok_or(RootError::Field(CERTIFICATE))?;
        let issuer = Issuer::from_ca_cert_pem(present, KeyPair::from_pem(&key_pem)?)?;
        let created = text(CREATED)?.trim().parse().map_err(|_| RootError::Field(CREATED))?;
        let token_key = data.get(TOKEN_KEY).map(|value| value.0.clone()).unwrap_or_default();
        if token_key.len() < 32 {
            return Err(RootError::Field(TOKEN_KEY));
        }
        Ok(Self { issuer, key_pem, authorities, created, token_key })
    }

    /// Every authority that is trusted, newest first, in PEM.
    #[must_use]
    pub fn authorities(&self) -> String {
        self.authorities.concat()
    }

    /// Differs between roots of different authorities.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.authorities.hash(&mut hasher);
        hasher.finish()
    }

    /// A third of the authority's life is left: certificates that it signs live much shorter.
    #[must_use]
    pub fn is_due(&self, now: Timestamp) -> bool {
        now.duration_since(self.created).unsigned_abs() > LIFETIME * 2 / 3
    }

    /// A certificate for servers of these names.
    pub fn issue(&self, names: &[String], validity: Duration, now: Timestamp) -> Result<Issued, RootError> {
        let key = KeyPair::generate()?;
        let common_name = names.first().map(String::as_str).unwrap_or_default();
        let mut parameters = parameters(now, validity, common_name);
        parameters.subject_alt_names = CertificateParams::new(names)?.subject_alt_names;
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        parameters.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let certificate = parameters.signed_by(&key, &self.issuer)?.pem();
        Ok(Issued { certificate, key: key.serialize_pem() })
    }

    /// The token that opens the sidecars of one StatefulSet in one period: 64 hexadecimal digits.
    #[must_use]
    pub fn token(&self, identity: &Identity, period: i64) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.token_key);
        // Neither name can hold a slash.
        let text = format!("preload.dev/{}/{}/{period}", identity.namespace, identity.stateful_set);
        hmac::sign(&key, text.as_bytes()).as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Of a certificate that is valid from a little before now.
fn parameters(now: Timestamp, validity: Duration, common_name: &str) -> CertificateParams {
    let mut parameters = CertificateParams::default();
    let now = std::time::SystemTime::from(now);
    parameters.not_before = (now - SKEW).into();
    parameters.not_after = (now + validity).into();
    // At most 64 characters by X.520; only people read it.
    let common_name: String = common_name.chars().take(64).collect();
    parameters.distinguished_name.push(DnType::CommonName, common_name);
    parameters
}

/// The certificates of a PEM text, one by one.
fn split(pem: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let blocks = pem.split_inclusive(END).filter(|block| block.contains(END));
    blocks.map(|block| format!("{}\n", block.trim())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn now() -> Timestamp {
        "2026-11-24T08:00:00Z".parse().unwrap()
    }

    #[test]
    fn it_survives_being_stored() {
        let root = Root::generate(now()).unwrap();
        let read = Root::from_data(&root.data()).unwrap();
        let identity = Identity::new("training", "hbase-master");
        assert_eq!(read.data(), root.data());
        assert_eq!(read.token(&identity, 7), root.token(&identity, 7));
        let issued = read.issue(&[identity.server_name()], Duration::from_secs(60), now()).unwrap();
        assert!(issued.certificate.starts_with("-----BEGIN CERTIFICATE-----"));
        assert!(!format!("{root:?}{issued:?}").contains("PRIVATE"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let root = Root::generate(now()).unwrap();
        for key in [CERTIFICATE, KEY, CREATED, TOKEN_KEY] {
            let mut data = root.data();
            data.remove(key);
            assert!(Root::from_data(&data).unwrap_err().to_string().contains(key), "{key}");
        }
    }

    #[test]
    fn a_renewed_authority_is_trusted_beside_the_old_one() {
        let root = Root::generate(now()).unwrap();
        assert!(!root.is_due(now() + Duration::from_secs(5 * 365 * 24 * 3600)));
        let later = now() + Duration::from_secs(7 * 365 * 24 * 3600);
        assert!(root.is_due(later));
        let renewed = root.renewed(later).unwrap();
        assert!(!renewed.is_due(later));
        assert!(renewed.authorities().ends_with(&root.authorities()));
        // And no more than those two.
        let again = renewed.renewed(later).unwrap();
        assert_eq!(split(&again.authorities()).len(), 2);
        let identity = Identity::new("a", "b");
        assert_eq!(again.token(&identity, 1), root.token(&identity, 1));
    }

    #[test]
    fn every_stateful_set_and_period_has_a_token_of_its_own() {
        let (root, other) = (Root::generate(now()).unwrap(), Root::generate(now()).unwrap());
        let identity = Identity::new("a", "b");
        let token = root.token(&identity, 1);
        assert_eq!(token.len(), 64);
        for different in [
            root.token(&identity, 2),
            root.token(&Identity::new("b", "a"), 1),
            root.token(&Identity::new("a", "c"), 1),
            other.token(&identity, 1),
        ] {
            assert_ne!(token, different);
        }
    }
}
