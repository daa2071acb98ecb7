//! Which attempt comes next, and whether the command can make it.

use std::time::Duration;

use tokio::time::Instant;

use super::{LAST_LOOK, Runner, Stop};
use crate::{
    engine::launcher::{Abilities, LauncherError},
    human::bytes,
    job::{Job, Reason},
    survey::Survey,
};

/// How often the command is asked what it can do before the load fails for want of an answer.
const PROBES: u32 = 3;

/// Commands in a row that submitted nothing and do not count as attempts, and the pause before the first of
/// them is run again; each pause is twice as long as the one before.
const MAX_REFUSALS: u32 = 5;
const REFUSAL_PAUSE: Duration = Duration::from_secs(1);

/// The job master asks for the workers once in two minutes (alluxio.user.worker.list.refresh.interval), and
/// gets an answer that may be 10 s old (alluxio.master.worker.info.cache.refresh.time). Until then it gives
/// jobs to workers that are dead, and fails those that need one which is new (seen with 2.9.3).
const WORKERS_REMEMBERED: Duration = Duration::from_secs(135);

/// The runs of an engine since the sidecar started, for one load.
#[derive(Debug, Default)]
pub(super) struct Runs {
    /// Of the first.
    pub(super) begun: Option<Instant>,
    /// Of the last.
    pub(super) ended: Option<Instant>,
    /// Those that submitted nothing, in a row.
    pub(super) refused: u32,
}

impl Runs {
    /// The last one does not count as an attempt.
    pub(super) fn are_refused(&self) -> bool {
        (1..=MAX_REFUSALS).contains(&self.refused)
    }

    /// How long to wait before `next`.
    pub(super) fn pause_before(&self, next: Attempt, job: &Job) -> Duration {
        next.pause(job, self.refused, self.begun.map_or(Duration::ZERO, |begun| begun.elapsed()))
    }
}

/// What to do about what is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) direct_cache: bool,
    pub(super) top_up: bool,
    /// Goes on with what a restart of the sidecar cut short, or what the job service refused.
    pub(super) resumed: bool,
}

impl Attempt {
    /// The same once more, because it was refused.
    pub(super) fn again(self) -> Self {
        Self { resumed: true, top_up: false, ..self }
    }

    /// How long to wait before it, `since_first` after the first run began. The last one comes when Alluxio
    /// has forgotten what it knew then.
    fn pause(self, job: &Job, refused: u32, since_first: Duration) -> Duration {
        let is_last = !self.top_up && job.attempt + 1 >= job.spec.max_attempts.get();
        if self.resumed && refused > 0 {
            REFUSAL_PAUSE * 2_u32.pow(refused - 1)
        } else if is_last {
            WORKERS_REMEMBERED.saturating_sub(since_first)
        } else {
            Duration::ZERO
        }
    }

    /// What a watcher should know about it; nothing about a plain first attempt.
    pub(super) fn describe(self, job: &Job) -> String {
        let most = job.spec.max_attempts;
        match self {
            Self { resumed: true, .. } => format!("attempt {} goes on", job.attempt),
            Self { top_up: true, .. } => "adding the copies that are missing, with --direct-cache".to_owned(),
            Self { .. } if job.attempt > 0 => format!("attempt {} of {most}", job.attempt + 1),
            Self { direct_cache: true, .. } => "only copies are missing: using --direct-cache".to_owned(),
            Self { .. } => String::new(),
        }
    }
}

impl Runner {
    pub(super) fn incomplete(&self, found: &Survey) -> Stop {
        let attempts = self.job().attempt;
        Stop::Failed {
            reason: Reason::Incomplete,
            message: format!(
                "{} of {} files ({}) are not loaded after {attempts} attempts; ListFailures names them",
                found.files_missing(),
                found.files_total,
                bytes(found.bytes_missing()),
            ),
        }
    }

    /// How to begin, after a listing that found something missing. `None`: no attempt is left.
    pub(super) async fn first_attempt(
        &self,
        survey: &Survey,
        resumed: bool,
    ) -> Result<Option<Attempt>, Stop> {
        let job = self.job();
        let direct_cache = survey.lacks_only_copies() && self.abilities().await?.direct_cache;
        if resumed {
            return Ok(Some(Attempt { direct_cache, top_up: false, resumed }));
        }
        if job.attempt == 0 {
            self.abilities().await?;
            return Ok(Some(Attempt { direct_cache, top_up: false, resumed }));
        }
        self.next_attempt(survey).await
    }

    /// What follows a verification that found something missing.
    pub(super) async fn next_attempt(&self, found: &Survey) -> Result<Option<Attempt>, Stop> {
        let direct_cache = self.job().spec.replicas.get() > 1 && self.abilities().await?.direct_cache;
        Ok(next_attempt(&self.job(), found.lacks_only_copies(), direct_cache))
    }

    /// What the command can do; a load without one ends here.
    pub(super) async fn abilities(&self) -> Result<Abilities, Stop> {
        let alluxio = &self.manager.0.alluxio;
        let missing = |message| Stop::Failed { reason: Reason::CommandMissing, message };
        let mut tries = 1;
        let asked = loop {
            let asked = self.unless_stopped(async { alluxio.launcher().await?.abilities().await }).await?;
            match asked {
                // A JVM that did not start on a busy node may start the next time.
                Err(error) if tries < PROBES && !matches!(error, LauncherError::NotFound { .. }) => {
                    tracing::warn!(%error, "distributedLoad did not say what it can do; asking again");
                    tries += 1;
                    self.unless_stopped(tokio::time::sleep(LAST_LOOK)).await?;
                }
                asked => break asked,
            }
        };
        match asked {
            Ok(abilities) if abilities.distributed_load => Ok(abilities),
            Ok(_) => Err(missing(
                "this Alluxio has no distributedLoad; 2.9.3 is the last release that has it".into(),
            )),
            Err(error @ LauncherError::NotFound { .. }) => Err(missing(error.to_string())),
            Err(error) => Err(Stop::Failed {
                reason: Reason::Internal,
                message: format!("distributedLoad cannot be asked what it can do: {error}"),
            }),
        }
    }
}

/// Another attempt, a top-up of copies, or neither. Top-ups do not count as attempts but are as many at most.
fn next_attempt(job: &Job, lacks_only_copies: bool, direct_cache: bool) -> Option<Attempt> {
    let most = job.spec.max_attempts.get();
    let resumed = false;
    if lacks_only_copies && direct_cache && job.top_ups < most {
        return Some(Attempt { direct_cache, top_up: true, resumed });
    }
    (job.attempt < most).then_some(Attempt { direct_cache, top_up: false, resumed })
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use uuid::Uuid;

    use super::*;
    use crate::job::{AlluxioPath, LoadId, Spec};

    fn job(attempt: u32, top_ups: u32) -> Job {
        let path = AlluxioPath::try_from("/a".to_owned()).unwrap();
        let id = LoadId::try_from("a".to_owned()).unwrap();
        Job { attempt, top_ups, ..Job::new(id, Uuid::nil(), Spec::new(path), Timestamp::UNIX_EPOCH) }
    }

    #[test]
    fn attempts_end() {
        let again = |direct_cache| Some(Attempt { direct_cache, top_up: false, resumed: false });
        assert_eq!(next_attempt(&job(1, 0), false, false), again(false));
        assert_eq!(next_attempt(&job(2, 0), false, true), again(true));
        assert_eq!(next_attempt(&job(3, 0), false, true), None);
    }

    #[test]
    fn the_last_attempt_and_a_refused_one_wait() {
        let attempt = Attempt { direct_cache: false, top_up: false, resumed: false };
        let pause = |attempt: Attempt, tries, since_first| {
            attempt.pause(&job(tries, 0), 0, Duration::from_secs(since_first)).as_secs()
        };
        assert_eq!(pause(attempt, 1, 5), 0);
        assert_eq!(pause(attempt, 2, 5), 130);
        assert_eq!(pause(attempt, 2, 600), 0);
        assert_eq!(pause(Attempt { top_up: true, ..attempt }, 2, 5), 0);

        let refused = |refused| attempt.again().pause(&job(3, 0), refused, Duration::ZERO).as_secs();
        assert_eq!([1, 2, 5].map(refused), [1, 2, 16]);
    }

    #[test]
    fn copies_are_topped_up_beyond_the_attempts_but_not_for_ever() {
        let top_up = Some(Attempt { direct_cache: true, top_up: true, resumed: false });
        assert_eq!(next_attempt(&job(3, 0), true, true), top_up);
        assert_eq!(next_attempt(&job(3, 3), true, true), None);
        assert_eq!(next_attempt(&job(3, 0), true, false), None);
    }
}
