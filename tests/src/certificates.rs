//! An authority of a test's own, and what it signs, as PEM files for `--tls-cert` and its like.

use anyhow::{Context, Result};
use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use std::fs;
use std::path::{Path, PathBuf};

/// An authority whose files lie in one directory.
#[derive(Debug)]
pub struct Authority {
    directory: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    certificate: PathBuf,
}

/// A certificate and its key.
#[derive(Debug, Clone)]
pub struct Identity {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

impl Authority {
    pub fn new(directory: &Path) -> Result<Self> {
        let key = KeyPair::generate().context("make a key")?;
        let mut parameters = CertificateParams::new(Vec::new()).context("describe the authority")?;
        parameters.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let signed = parameters.self_signed(&key).context("sign the authority")?;
        let certificate = directory.join(format!("ca-{}.pem", uuid::Uuid::new_v4()));
        fs::write(&certificate, signed.pem()).context("write the authority's certificate")?;
        Ok(Self { directory: directory.to_owned(), issuer: Issuer::new(parameters, key), certificate })
    }

    /// What whoever trusts it is given.
    pub fn certificate(&self) -> &Path {
        &self.certificate
    }

    /// For a server and a client alike; `names` are host names and addresses.
    pub fn identity(&self, names: &[&str]) -> Result<Identity> {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut parameters = CertificateParams::new(names).context("describe the certificate")?;
        parameters.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&parameters)
    }

    /// For a client whom Kubernetes knows by this user name, in this group.
    pub fn client(&self, user: &str, group: &str) -> Result<Identity> {
        let mut parameters = CertificateParams::new(Vec::new()).context("describe the certificate")?;
        parameters.distinguished_name.push(DnType::CommonName, user);
        parameters.distinguished_name.push(DnType::OrganizationName, group);
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(&parameters)
    }

    /// A client's, of the past.
    pub fn expired(&self) -> Result<Identity> {
        let mut parameters = CertificateParams::new(Vec::new()).context("describe the certificate")?;
        parameters.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        parameters.not_before = rcgen::date_time_ymd(2020, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2021, 1, 1);
        self.sign(&parameters)
    }

    fn sign(&self, parameters: &CertificateParams) -> Result<Identity> {
        let key = KeyPair::generate().context("make a key")?;
        let signed = parameters.signed_by(&key, &self.issuer).context("sign a certificate")?;
        let stem = uuid::Uuid::new_v4();
        let identity = Identity {
            certificate: self.directory.join(format!("{stem}.pem")),
            key: self.directory.join(format!("{stem}.key")),
        };
        fs::write(&identity.certificate, signed.pem()).context("write a certificate")?;
        fs::write(&identity.key, key.serialize_pem()).context("write a key")?;
        Ok(identity)
    }
}
