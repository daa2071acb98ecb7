//! What one run does, all of it drawn from the seed: pure.

use alluxio_preload_api::v1::load::State;
use alluxio_preload_api::v1::load_spec::Engine;
use preload_tests::random::Random;
use preload_tests::stage::WORKERS;
use std::fmt;
use std::time::Duration;

/// Longest time that a killed process stays away before it is started again.
const AWAY: Duration = Duration::from_secs(4);
/// Longest time between two kills of one run.
const APART: Duration = Duration::from_secs(2);
/// Longest time that a kill waits in a state that it was waiting for.
const WITHIN: Duration = Duration::from_millis(400);

#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) number: usize,
    pub(crate) engine: Engine,
    pub(crate) replicas: u32,
    /// Files whose metadata Alluxio has not seen before.
    pub(crate) cold: bool,
    pub(crate) files: usize,
    pub(crate) moment: Moment,
    pub(crate) worker: Option<Kill>,
    pub(crate) sidecar: Option<Kill>,
    /// Its number, if one is killed.
    pub(crate) victim: usize,
}

/// After the moment, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Kill {
    pub(crate) after: Duration,
    pub(crate) away: Duration,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Moment {
    /// This part of what such a load usually takes.
    Part(f64),
    /// So long after WatchLoad says this state first.
    In(State, Duration),
}

/// For the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Victims {
    Worker,
    Sidecar,
    Both,
}

impl Plan {
    pub(crate) fn draw(seed: u64, number: usize) -> Self {
        let mut random = Random::new(seed, number as u64);
        let engine = random.weighted(&[
            (70, Engine::Native),
            (15, Engine::DistributedLoad),
            (15, Engine::Unspecified),
        ]);
        let replicas = random.weighted(&[(1, 1), (1, 2)]);
        let cold = random.below(3) == 0;
        let files = 200 + random.below(201);
        let moment = match random.below(2) {
            0 => Moment::Part(random.fraction()),
            _ => {
                let states = [(1, State::Listing), (4, State::Loading), (3, State::Verifying)];
                Moment::In(random.weighted(&states), random.up_to(WITHIN))
            }
        };
        let victims = random.weighted(&[(5, Victims::Worker), (3, Victims::Sidecar), (2, Victims::Both)]);
        let victim = 1 + random.below(WORKERS);
        let mut kill = |later: bool| {
            let after = if later { random.up_to(APART) } else { Duration::ZERO };
            Kill { after, away: random.up_to(AWAY) }
        };
        let (worker, sidecar) = match victims {
            Victims::Worker => (Some(kill(false)), None),
            Victims::Sidecar => (None, Some(kill(false))),
            // Either may be first.
            Victims::Both if number.is_multiple_of(2) => (Some(kill(false)), Some(kill(true))),
            Victims::Both => (Some(kill(true)), Some(kill(false))),
        };
        Self { number, engine, replicas, cold, files, moment, worker, sidecar, victim }
    }

    /// Nothing is killed: to see how long a load takes.
    pub(crate) fn quiet(engine: Engine, replicas: u32) -> Self {
        let moment = Moment::Part(0.0);
        Self {
            number: 0,
            engine,
            replicas,
            cold: false,
            files: 300,
            moment,
            worker: None,
            sidecar: None,
            victim: 1,
        }
    }

    pub(crate) fn victims(&self) -> Victims {
        match (self.worker, self.sidecar) {
            (Some(_), Some(_)) => Victims::Both,
            (None, Some(_)) => Victims::Sidecar,
            _ => Victims::Worker,
        }
    }

    pub(crate) fn engine_name(&self) -> &'static str {
        match self.engine {
            Engine::Native => "NATIVE",
            Engine::DistributedLoad => "DISTRIBUTED_LOAD",
            Engine::Unspecified => "AUTO",
        }
    }
}

impl fmt::Display for Victims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Worker => "worker",
            Self::Sidecar => "sidecar",
            Self::Both => "both",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_runs_one_by_one() {
        let plans = |seed| (1..=50).map(|n| format!("{:?}", Plan::draw(seed, n))).collect::<Vec<_>>();
        assert_eq!(plans(7), plans(7));
        assert_ne!(plans(7), plans(8));
        assert_eq!(format!("{:?}", Plan::draw(7, 50)), plans(7)[49]);
    }

    #[test]
    fn every_kind_of_run_is_drawn() {
        let plans: Vec<_> = (1..=200).map(|number| Plan::draw(1, number)).collect();
        for victims in [Victims::Worker, Victims::Sidecar, Victims::Both] {
            for engine in [Engine::Native, Engine::DistributedLoad, Engine::Unspecified] {
                assert!(plans.iter().any(|plan| plan.victims() == victims && plan.engine == engine));
            }
        }
        assert!((1..=WORKERS).all(|worker| plans.iter().any(|plan| plan.victim == worker)));
        assert!(plans.iter().all(|plan| (200..=400).contains(&plan.files)));
    }
}
