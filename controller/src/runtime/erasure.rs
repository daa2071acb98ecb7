//! When a status that somebody erases is written again. Pure.
//!
//! Fluid writes typed objects, which lack our fields, every 15 s: answering each would be a storm.

use std::time::Duration;

use jiff::Timestamp;

use super::plan::Mirror;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(5 * 60);

/// What we wrote last into one runtime.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    pub mirror: Mirror,
    pub at: Timestamp,
    /// How often it had to be written again.
    pub erased: u32,
}

impl Written {
    /// The memory after writing `mirror`.
    #[must_use]
    pub fn next(before: Option<&Self>, mirror: Mirror, now: Timestamp) -> Self {
        let erased = match before {
            None => 0,
            // It stood for long: whoever erased it has stopped.
            Some(before) if survived(before, now) => 0,
            Some(before) if before.mirror == mirror => before.erased.saturating_add(1),
            Some(before) => before.erased,
        };
        Self { mirror, at: now, erased }
    }

    /// When `mirror` may be written, given that it is not there.
    #[must_use]
    pub fn due(&self, mirror: &Mirror) -> Timestamp {
        let news = mirror.status != self.mirror.status;
        let quiet = self.erased == 0 && *mirror != self.mirror;
        let pause =
            if news || quiet { FIRST } else { FIRST.saturating_mul(1 << self.erased.min(16)).min(LONGEST) };
        self.at.checked_add(pause).unwrap_or(Timestamp::MAX)
    }
}

fn survived(before: &Written, now: Timestamp) -> bool {
    before.at.checked_add(LONGEST + FIRST).is_ok_and(|long| long < now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::MirroredStatus;

    fn mirror(status: MirroredStatus, progress: &str) -> Mirror {
        Mirror { status, progress: progress.to_owned() }
    }

    /// Somebody erases our fields every second: how often do we write within an hour?
    #[test]
    fn no_storm_against_a_writer_that_erases() {
        let wanted = mirror(MirroredStatus::Loaded, "100%");
        let mut written = Written::next(None, wanted.clone(), Timestamp::UNIX_EPOCH);
        let mut writes = 1;
        for second in 1..3600 {
            let now = Timestamp::from_second(second).unwrap();
            if written.due(&wanted) <= now {
                written = Written::next(Some(&written), wanted.clone(), now);
                writes += 1;
            }
        }
        assert!((12..=24).contains(&writes), "{writes} writes");
    }

    #[test]
    fn a_new_phase_is_written_after_a_second_even_then() {
        let at = Timestamp::UNIX_EPOCH;
        let written = Written { mirror: mirror(MirroredStatus::DisLoading, "7%"), at, erased: 9 };
        let due = |mirror: Mirror| written.due(&mirror).as_second();
        assert_eq!(due(mirror(MirroredStatus::Loaded, "100%")), 1);
        assert_eq!(due(mirror(MirroredStatus::DisLoading, "7%")), 300);
        assert_eq!(due(mirror(MirroredStatus::DisLoading, "8%")), 300, "progress alone is no news");
        let calm = Written { erased: 0, ..written };
        assert_eq!(calm.due(&mirror(MirroredStatus::DisLoading, "8%")).as_second(), 1);
    }
}
