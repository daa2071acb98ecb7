//! When a status may be written: at most once a second, and progress less often when much is loading. Pure.

use std::time::Duration;

use crate::api::PreloadStatus;

/// Between two writes to one object.
const BETWEEN: Duration = Duration::from_secs(1);
/// All writes of progress together.
const PROGRESS_A_SECOND: u32 = 50;

/// How long a write has to wait, when the last one to this object was `since` ago and `loading` Preloads report
/// progress. Never, where the write precedes a start: the load should not wait for it.
#[must_use]
pub(super) fn wait(
    old: &PreloadStatus,
    new: &PreloadStatus,
    since: Option<Duration>,
    loading: u32,
) -> Duration {
    let starts = new.submission.is_some() && old.submission.is_none();
    let Some(since) = since.filter(|_| !starts) else { return Duration::ZERO };
    let pause =
        if is_progress_only(old, new) { BETWEEN.max(BETWEEN * loading / PROGRESS_A_SECOND) } else { BETWEEN };
    pause.saturating_sub(since)
}

/// Nothing changes but figures and words.
fn is_progress_only(old: &PreloadStatus, new: &PreloadStatus) -> bool {
    let conditions = |status: &PreloadStatus| {
        status.conditions.iter().map(|c| (c.type_.clone(), c.status.clone())).collect::<Vec<_>>()
    };
    old.phase == new.phase
        && old.run == new.run
        && old.cancelling == new.cancelling
        && old.submission == new.submission
        && conditions(old) == conditions(new)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{Phase, Progress, Submission};

    #[test]
    fn one_write_a_second_and_less_progress_when_much_is_loading() {
        let old = PreloadStatus { phase: Phase::Loading, ..Default::default() };
        let progress = PreloadStatus { progress: Some(Progress::default()), ..old.clone() };
        let loaded = PreloadStatus { phase: Phase::Loaded, ..old.clone() };
        let ms = Duration::from_millis;
        assert_eq!(wait(&old, &loaded, None, 1), ms(0));
        assert_eq!(wait(&old, &loaded, Some(ms(300)), 2000), ms(700));
        assert_eq!(wait(&old, &progress, Some(ms(300)), 1), ms(700));
        assert_eq!(wait(&old, &progress, Some(ms(1000)), 50), ms(0));
        assert_eq!(wait(&old, &progress, Some(ms(1000)), 2000), ms(39_000));
        let start = PreloadStatus { submission: Some(Submission::default()), ..old.clone() };
        assert_eq!(wait(&old, &start, Some(ms(1)), 1), ms(0));
    }
}
