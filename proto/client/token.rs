//! The bearer token of a client. Never printed, not even by `Debug`.

use super::ConfigError;
use std::{fmt, fs, path::PathBuf};
use tonic::metadata::{Ascii, MetadataValue};

/// Sent as `authorization: Bearer …`.
#[derive(Clone)]
pub enum Token {
    Value(String),
    /// Read again for every call, because mounted tokens are rotated.
    File(PathBuf),
}

impl Token {
    /// Blocks for the read of a file of a few hundred bytes.
    pub(super) fn header(&self) -> Result<MetadataValue<Ascii>, ConfigError> {
        let text = match self {
            Self::Value(value) => value.clone(),
            Self::File(path) => fs::read_to_string(path)
                .map_err(|source| ConfigError::TokenFile { path: path.clone(), source })?,
        };
        let token = text.trim();
        if token.is_empty() || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(ConfigError::BadToken);
        }
        let mut header: MetadataValue<Ascii> =
            format!("Bearer {token}").parse().map_err(|_| ConfigError::BadToken)?;
        header.set_sensitive(true);
        Ok(header)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(_) => f.write_str("Value(..)"),
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn surrounding_blanks_are_dropped_and_anything_odd_is_refused() {
        let header = Token::Value(" abc.def-_~+/=\n".into()).header().unwrap();
        assert_eq!(header.to_str().unwrap(), "Bearer abc.def-_~+/=");
        assert!(header.is_sensitive());
        for bad in ["", " \n", "two words", "line\nline", "pässword"] {
            assert!(Token::Value(bad.into()).header().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn an_unreadable_file_is_named() {
        let error = Token::File("/nonexistent/token".into()).header().unwrap_err();
        assert!(error.to_string().contains("/nonexistent/token"), "{error}");
    }
}
