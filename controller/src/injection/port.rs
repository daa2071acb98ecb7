//! Which ports a sidecar takes: an even one, and the next.

use std::{collections::BTreeSet, fmt, str::FromStr};

use serde_json::Value;

use super::{DEFAULT_PORT, LeftAlone, PORT, items, text};

/// Both ends belong to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let ends =
            text.split_once('-').and_then(|(first, last)| Some((first.parse().ok()?, last.parse().ok()?)));
        match ends {
            Some((first, last)) if first >= 1024 && pairs(first, last) > 0 => Ok(Self { first, last }),
            _ => Err(
                "give two ports from 1024 on with an even one and the next between them, such as 27000-27999"
                    .to_owned(),
            ),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

/// How many times an even port and the next are within.
fn pairs(first: u16, last: u16) -> u32 {
    let (even, end) = (u32::from(first).next_multiple_of(2), u32::from(last) + 1);
    end.saturating_sub(even) / 2
}

/// An even port that is free together with the next one. Where the search begins depends on `key` alone: whoever
/// comes again gets the same port, if it is free.
fn pick(range: PortRange, taken: &BTreeSet<u16>, key: &str) -> Option<u16> {
    let count = pairs(range.first, range.last);
    let begin = u32::try_from(hash(key) % u64::from(count.max(1))).unwrap_or(0);
    let even = u32::from(range.first).next_multiple_of(2);
    let candidates = (0..count).filter_map(|step| u16::try_from(even + (begin + step) % count * 2).ok());
    candidates.into_iter().find(|port| !taken.contains(port) && !taken.contains(&(port + 1)))
}

/// FNV-1a: the same in every version of this program and of its libraries.
fn hash(key: &str) -> u64 {
    key.bytes()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3))
}

/// Every port that containers of the pod declare.
fn declared(pod: &Value) -> BTreeSet<u16> {
    let containers = ["initContainers", "containers"].iter().flat_map(|key| items(&pod["spec"], key));
    let ports = containers.flat_map(|container| items(container, "ports"));
    let numbers = ports.flat_map(|port| [&port["containerPort"], &port["hostPort"]]);
    numbers.filter_map(|number| u16::try_from(number.as_u64()?).ok()).filter(|port| *port != 0).collect()
}

/// Whether the pod's port has to be one that no other pod has.
#[must_use]
pub fn is_shared(pod: &Value) -> bool {
    pod["spec"]["hostNetwork"] == Value::Bool(true) && text(pod, &["metadata", "annotations", PORT]).is_none()
}

/// The port of the pod's sidecar: what its annotation asks for; on the host's network one of `range` that is not
/// `taken`; else the usual one. Never one that the pod declares itself.
pub fn place(pod: &Value, range: PortRange, taken: &BTreeSet<u16>, key: &str) -> Result<u16, LeftAlone> {
    let declared = declared(pod);
    let is_free = |port: u16| !declared.contains(&port) && !declared.contains(&(port + 1));
    if let Some(wished) = text(pod, &["metadata", "annotations", PORT]) {
        let port = wished.parse().ok().filter(|port| (1024..u16::MAX).contains(port) && is_free(*port));
        return port.ok_or_else(|| LeftAlone::Port(wished.to_owned()));
    }
    let found = if is_shared(pod) {
        pick(range, &taken.union(&declared).copied().collect(), key)
    } else {
        (DEFAULT_PORT..DEFAULT_PORT + 100).step_by(2).find(|port| is_free(*port))
    };
    found.ok_or_else(|| LeftAlone::NoPort(range.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn range(text: &str) -> PortRange {
        text.parse().unwrap()
    }

    #[test]
    fn ranges_without_a_pair_are_refused() {
        for bad in ["", "27000", "27000-27000", "27001-27002", "28000-27000", "80-90", "a-b", "1024-70000"] {
            assert!(bad.parse::<PortRange>().is_err(), "{bad}");
        }
        assert_eq!(range("27000-27001").to_string(), "27000-27001");
        assert_eq!(pick(range("27001-27004"), &BTreeSet::new(), "x"), Some(27002));
        assert_eq!(pick(range("65534-65535"), &BTreeSet::new(), "x"), Some(65534));
    }

    /// The port is in annotations of pods that outlive a version of this program.
    #[test]
    fn where_the_search_begins_never_changes() {
        let all = range("27000-27999");
        for (key, port) in
            [("training/hbase-master-0", 27262), ("training/hbase-master-1", 27840), ("a/b", 27378)]
        {
            assert_eq!(pick(all, &BTreeSet::new(), key), Some(port), "{key}");
        }
    }

    proptest! {
        #[test]
        fn picks_are_free_even_and_found_if_there_are_any(
            first in 1024u16..1100, length in 1u16..60, taken in prop::collection::btree_set(1024u16..1160, 0..80),
            key in ".{0,20}",
        ) {
            let Ok(range) = format!("{first}-{}", first + length).parse::<PortRange>() else { return Ok(()) };
            let free = |port: &u16| port.is_multiple_of(2) && !taken.contains(port) && !taken.contains(&(port + 1));
            let any = (range.first..range.last).any(|port| free(&port));
            match pick(range, &taken, &key) {
                None => prop_assert!(!any),
                Some(port) => {
                    prop_assert!(free(&port) && port >= range.first && port < range.last);
                    prop_assert_eq!(pick(range, &taken, &key), Some(port));
                }
            }
        }
    }
}
