//! Where credentials are on disk, and reading all of them as of one moment.

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
};

use super::CredentialsError;
use crate::config::SecurityArgs;

/// Much more than any chain of certificates.
const MAX_FILE: u64 = 1 << 20;
/// The link that a kubelet exchanges to change all files of a Secret at once.
const GENERATION: &str = "..data";
/// Shorter ones can be guessed. A `--token-file` may hold what it always could.
const MIN_TOKEN: usize = 16;

/// Where to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sources {
    /// `--credentials`: a directory with fixed names, as a Secret is mounted.
    Directory(PathBuf),
    /// `--tls-cert` and its like: what is named has to be there.
    Files { tls: Option<(PathBuf, PathBuf)>, client_ca: Option<PathBuf>, tokens: Option<PathBuf> },
}

/// A file that was read, and what it is called in an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) file: String,
    pub(super) bytes: Vec<u8>,
}

/// All that was read. Whatever is there is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Contents {
    /// Certificate chain and key.
    pub(super) tls: Option<(Content, Content)>,
    pub(super) client_ca: Option<Content>,
    pub(super) tokens: Option<Content>,
    pub(super) min_token: usize,
}

impl Sources {
    /// As the flags say.
    #[must_use]
    pub fn new(security: &SecurityArgs) -> Self {
        if let Some(directory) = &security.credentials {
            return Self::Directory(directory.clone());
        }
        Self::Files {
            tls: security.tls_cert.clone().zip(security.tls_key.clone()),
            client_ca: security.tls_client_ca.clone(),
            tokens: security.token_file.clone(),
        }
    }

    #[must_use]
    pub fn has_tls(&self) -> bool {
        match self {
            Self::Directory(_) => true,
            Self::Files { tls, .. } => tls.is_some(),
        }
    }

    /// Nothing to read: everybody is let in.
    #[must_use]
    pub fn is_open(&self) -> bool {
        matches!(self, Self::Files { tls: None, client_ca: None, tokens: None })
    }

    pub(super) fn read(&self) -> Result<Contents, CredentialsError> {
        match self {
            Self::Directory(directory) => of_directory(directory),
            Self::Files { tls, client_ca, tokens } => {
                let mut missing = Vec::new();
                let mut required = |path: &PathBuf| required(path, path, &mut missing);
                let tls = match tls {
                    Some((certificate, key)) => required(certificate)?.zip(required(key)?),
                    None => None,
                };
                let client_ca = client_ca.as_ref().map(&mut required).transpose()?.flatten();
                let tokens = tokens.as_ref().map(&mut required).transpose()?.flatten();
                if !missing.is_empty() {
                    return Err(CredentialsError::Missing { files: missing });
                }
                Ok(Contents { tls, client_ca, tokens, min_token: 1 })
            }
        }
    }
}

fn of_directory(directory: &Path) -> Result<Contents, CredentialsError> {
    // Resolved once, so that all files are of one generation.
    let generation = fs::read_link(directory.join(GENERATION)).unwrap_or_default();
    let generation = directory.join(generation);
    let mut missing = Vec::new();
    let at = |name: &str| (generation.join(name), directory.join(name));
    let mut needed = |name| {
        let (path, shown) = at(name);
        required(&path, &shown, &mut missing)
    };
    let tls = (needed("tls.crt")?, needed("tls.key")?);
    let optional = |name| {
        let (path, shown) = at(name);
        read(&path, &shown)
    };
    let (client_ca, tokens) = (optional("client-ca.crt")?, optional("tokens")?);
    if client_ca.is_none() && tokens.is_none() {
        let [tokens, client_ca] = ["tokens", "client-ca.crt"].map(|name| directory.join(name));
        missing.push(format!("{} (or {})", tokens.display(), client_ca.display()));
    }
    match tls {
        (Some(certificate), Some(key)) if missing.is_empty() => {
            Ok(Contents { tls: Some((certificate, key)), client_ca, tokens, min_token: MIN_TOKEN })
        }
        _ => Err(CredentialsError::Missing { files: missing }),
    }
}

/// `None`, and named in `missing`, when it is not there.
fn required(
    path: &Path,
    shown: &Path,
    missing: &mut Vec<String>,
) -> Result<Option<Content>, CredentialsError> {
    let content = read(path, shown)?;
    if content.is_none() {
        missing.push(shown.display().to_string());
    }
    Ok(content)
}

fn read(path: &Path, shown: &Path) -> Result<Option<Content>, CredentialsError> {
    let unusable =
        |problem: String| CredentialsError::Unusable { file: shown.display().to_string(), problem };
    let mut bytes = Vec::new();
    match File::open(path).and_then(|file| file.take(MAX_FILE + 1).read_to_end(&mut bytes)) {
        Ok(length) if length as u64 > MAX_FILE => Err(unusable("larger than 1 MiB".to_owned())),
        Ok(_) => Ok(Some(Content { file: shown.display().to_string(), bytes })),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(error) => Err(unusable(format!("cannot be read: {error}"))),
    }
}
