//! An Alluxio path that is safe to hand on.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Longest accepted path in bytes; Linux' PATH_MAX, which Alluxio's local UFS has too.
const MAX_BYTES: usize = 4096;

/// Absolute and normalised: one `/` between components, none at the end, no `.` or `..`, no control
/// character that would break a line of a command's output.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AlluxioPath(String);

impl AlluxioPath {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// `other` is this path or lies below it.
    #[must_use]
    pub fn contains(&self, other: &str) -> bool {
        self.0 == "/"
            || other.strip_prefix(&self.0).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// One of the two contains the other: their loads must not run at the same time.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.contains(&other.0) || other.contains(&self.0)
    }
}

impl TryFrom<String> for AlluxioPath {
    type Error = String;

    /// The error says what is wrong and the accepted form.
    fn try_from(text: String) -> Result<Self, String> {
        let wanted = "give an absolute Alluxio path such as / or /data/train";
        if text.is_empty() {
            return Err(format!("is empty; {wanted}"));
        }
        if text.len() > MAX_BYTES {
            return Err(format!("is {} bytes long; at most {MAX_BYTES} are accepted", text.len()));
        }
        if text.contains("://") {
            return Err(format!("is a URI; {wanted}, without scheme and host"));
        }
        if !text.starts_with('/') {
            return Err(format!("is not absolute; {wanted}"));
        }
        if let Some(c) = text.chars().find(|c| matches!(c, '\0' | '\n' | '\r')) {
            return Err(format!("holds the control character {c:?}; {wanted}"));
        }
        let components: Vec<&str> = text.split('/').filter(|c| !c.is_empty()).collect();
        if let Some(dots) = components.iter().find(|c| matches!(**c, "." | "..")) {
            return Err(format!("has a component {dots:?}; {wanted}, without . and .."));
        }
        Ok(Self(format!("/{}", components.join("/"))))
    }
}

impl From<AlluxioPath> for String {
    fn from(path: AlluxioPath) -> Self {
        path.0
    }
}

impl fmt::Display for AlluxioPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
