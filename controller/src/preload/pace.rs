//! When a status may be written: at most once a second, and progress less often when much is loading. Pure.
//!
//! What is no news for a program (conditions, words, figures) waits a second for what follows it: facts about a
//! cluster arrive together, and one write tells of all of them.

use std::time::Duration;

use crate::api::PreloadStatus;

/// Between two writes to one object.
const BETWEEN: Duration = Duration::from_secs(1);
/// What is no news waits for what follows it.
const SETTLING: Duration = Duration::from_secs(1);
/// All writes of progress together.
const PROGRESS_A_SECOND: u32 = 50;

/// How long a write has to wait, when the last one to this object was `since` ago, the change was first noticed
/// `noticed` ago, and `loading` Preloads report progress. Never, where the write precedes a start: the load
/// should not wait for it.
#[must_use]
pub(super) fn wait(
    old: &PreloadStatus,
    new: &PreloadStatus,
    since: Option<Duration>,
    noticed: Duration,
    loading: u32,
) -> Duration {
    if new.submission.is_some() && old.submission.is_none() {
        return Duration::ZERO;
    }
    let (pause, settling) = match change(old, new) {
        Change::News => (BETWEEN, Duration::ZERO),
        Change::Conditions => (BETWEEN, SETTLING),
        Change::Progress => (BETWEEN.max(BETWEEN * loading / PROGRESS_A_SECOND), SETTLING),
    };
    let paced = since.map_or(Duration::ZERO, |since| pause.saturating_sub(since));
    paced.max(settling.saturating_sub(noticed))
}

enum Change {
    /// Phase, run, or what has to be cancelled.
    News,
    Conditions,
    /// Figures and words.
    Progress,
}

fn change(old: &PreloadStatus, new: &PreloadStatus) -> Change {
    let conditions = |status: &PreloadStatus| {
        status.conditions.iter().map(|c| (c.type_.clone(), c.status.clone())).collect::<Vec<_>>()
    };
    // That the sidecar has accepted it can wait: asked again, it says so again.
    let pod = |status: &PreloadStatus| status.submission.as_ref().map(|sent| sent.pod_uid.clone());
    let first = old.run == 0;
    let same = old.phase == new.phase
        && (old.run == new.run || first)
        && old.cancelling == new.cancelling
        && pod(old) == pod(new);
    if !same {
        Change::News
    } else if first || conditions(old) != conditions(new) {
        Change::Conditions
    } else {
        Change::Progress
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Phase, Progress, Submission};

    #[test]
    fn one_write_a_second_and_less_progress_when_much_is_loading() {
        let old = PreloadStatus { phase: Phase::Loading, run: 1, ..Default::default() };
        let progress = PreloadStatus { progress: Some(Progress::default()), ..old.clone() };
        let loaded = PreloadStatus { phase: Phase::Loaded, ..old.clone() };
        let ms = Duration::from_millis;
        assert_eq!(wait(&old, &loaded, None, ms(0), 1), ms(0));
        assert_eq!(wait(&old, &loaded, Some(ms(300)), ms(0), 2000), ms(700));
        assert_eq!(wait(&old, &progress, Some(ms(300)), ms(900), 1), ms(700));
        assert_eq!(wait(&old, &progress, Some(ms(1000)), ms(1000), 50), ms(0));
        assert_eq!(wait(&old, &progress, Some(ms(1000)), ms(1000), 2000), ms(39_000));
        let start = PreloadStatus { submission: Some(Submission::default()), ..old.clone() };
        assert_eq!(wait(&old, &start, Some(ms(1)), ms(0), 1), ms(0));
    }

    #[test]
    fn facts_that_arrive_together_are_written_together() {
        let old = PreloadStatus::default();
        let first = PreloadStatus { run: 1, ..old.clone() };
        let ms = Duration::from_millis;
        assert_eq!(wait(&old, &first, None, ms(0), 0), ms(1000));
        assert_eq!(wait(&old, &first, None, ms(400), 0), ms(600));
        assert_eq!(wait(&old, &first, None, ms(1500), 0), ms(0));
        let again = PreloadStatus { run: 2, ..first.clone() };
        assert_eq!(wait(&first, &again, None, ms(0), 0), ms(0), "a withdrawal is news");
    }
}
