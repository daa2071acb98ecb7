//! What keeps the sidecar from serving, apart from its store: told by `/readyz`, and logged once per change.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// Who is in trouble. At most one reason each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    Listener,
    AdminListener,
    UnixSocket,
    Credentials,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Listener => "listener",
            Self::AdminListener => "admin listener",
            Self::UnixSocket => "unix socket",
            Self::Credentials => "credentials",
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Trouble {
    /// Not ready.
    Shut(String),
    /// Ready all the same.
    Warning(String),
}

/// Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<Part, Trouble>>>);

impl Readiness {
    /// `part` does not serve; tried again by whoever says so.
    pub fn shut(&self, part: Part, reason: String) {
        if self.set(part, Some(Trouble::Shut(reason.clone()))) {
            tracing::error!(%part, reason, "not ready");
        }
    }

    /// `part` serves, but somebody has to act.
    pub fn warn(&self, part: Part, reason: String) {
        if self.set(part, Some(Trouble::Warning(reason.clone()))) {
            tracing::error!(%part, reason, "ready, but not as it should be");
        }
    }

    pub fn clear(&self, part: Part) {
        if self.set(part, None) {
            tracing::info!(%part, "trouble is over");
        }
    }

    /// Reasons not to be ready, and warnings.
    #[must_use]
    pub fn troubles(&self) -> (Vec<String>, Vec<String>) {
        let mut all = (Vec::new(), Vec::new());
        for trouble in self.0.lock().unwrap_or_else(PoisonError::into_inner).values() {
            match trouble {
                Trouble::Shut(reason) => all.0.push(reason.clone()),
                Trouble::Warning(reason) => all.1.push(reason.clone()),
            }
        }
        all
    }

    fn set(&self, part: Part, trouble: Option<Trouble>) -> bool {
        let mut troubles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let before = match trouble.clone() {
            Some(trouble) => troubles.insert(part, trouble),
            None => troubles.remove(&part),
        };
        before != trouble
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reason_a_part_and_only_changes_count() {
        let readiness = Readiness::default();
        assert!(readiness.set(Part::Listener, Some(Trouble::Shut("in use".into()))));
        assert!(!readiness.set(Part::Listener, Some(Trouble::Shut("in use".into()))));
        assert!(readiness.set(Part::Credentials, Some(Trouble::Warning("old".into()))));
        assert_eq!(readiness.troubles(), (vec!["in use".to_owned()], vec!["old".to_owned()]));
        assert!(readiness.set(Part::Listener, None) && !readiness.set(Part::Listener, None));
        assert_eq!(readiness.troubles().0, Vec::<String>::new());
    }
}
