//! What one run does, all of it drawn from the seed: pure.

use crate::cluster::Role;
use crate::random::Random;
use crate::stage::WORKERS;
use alluxio_preload_api::v1::load_spec::Engine;
use std::time::Duration;

/// Loads that clients wish for.
const WISHES: usize = 5;
/// Longest rest between two faults of a lane.
const REST: Duration = Duration::from_secs(2);
/// How long a fault may last.
const LASTING: Duration = Duration::from_secs(4);
/// Faults of a lane.
const FAULTS: usize = 3;
/// Seconds by which the clock is moved at most, either way.
const CLOCK: i64 = 7200;

#[derive(Debug, Clone)]
pub struct Plan {
    pub seed: u64,
    pub number: u64,
    pub wishes: Vec<Wish>,
    /// What happens to the sidecar, and to what is Alluxio's: at the same time.
    pub lanes: [Vec<Blow>; 2],
}

/// A load, and another one that is asked for with the same id.
#[derive(Debug, Clone)]
pub struct Wish {
    pub files: usize,
    pub engine: Engine,
    pub replicas: u32,
    /// Metadata that Alluxio has not seen.
    pub cold: bool,
}

#[derive(Debug, Clone, Copy)]
pub struct Blow {
    /// Since the one before.
    pub after: Duration,
    pub fault: Fault,
    /// Until it is mended.
    pub lasting: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    KillSidecar,
    PauseSidecar,
    KillCommand,
    PauseCommand,
    Kill(Role),
    Pause(Role),
    Cut(Link),
    /// Nothing crosses, and nobody is told.
    Silence(Link),
    /// Everything takes this long to cross.
    Delay(Link, Duration),
    FillDisk,
    /// The state directory is read-only when the sidecar starts, after a kill.
    ReadOnlyDisk,
    /// Seconds.
    MoveClock(i64),
}

/// A connection that the nemesis can cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Link {
    Clients,
    Master,
    JobMaster,
}

impl Plan {
    pub fn draw(seed: u64, number: u64) -> Self {
        let mut random = Random::new(seed, number);
        let wishes = (0..WISHES).map(|_| Wish::draw(&mut random)).collect();
        let ours = blows(&mut random, fault_of_the_sidecar);
        let theirs = blows(&mut random, fault_of_alluxio);
        Self { seed, number, wishes, lanes: [ours, theirs] }
    }
}

impl Wish {
    fn draw(random: &mut Random) -> Self {
        let engine =
            random.weighted(&[(4, Engine::Native), (1, Engine::DistributedLoad), (1, Engine::Unspecified)]);
        Self {
            files: 30 + random.below(170),
            engine,
            replicas: random.weighted(&[(2, 1), (1, 2)]),
            cold: random.below(3) == 0,
        }
    }
}

fn blows(random: &mut Random, fault: impl Fn(&mut Random) -> Fault) -> Vec<Blow> {
    (0..1 + random.below(FAULTS))
        .map(|_| Blow { after: random.up_to(REST), fault: fault(random), lasting: random.up_to(LASTING) })
        .collect()
}

fn fault_of_the_sidecar(random: &mut Random) -> Fault {
    let link = random.weighted(&[(2, Link::Clients), (2, Link::Master), (1, Link::JobMaster)]);
    let delay = random.up_to(Duration::from_millis(500));
    let seconds = random.below(2 * CLOCK as usize) as i64 - CLOCK;
    random.weighted(&[
        (6, Fault::KillSidecar),
        (2, Fault::PauseSidecar),
        (2, Fault::KillCommand),
        (1, Fault::PauseCommand),
        (3, Fault::Cut(link)),
        (2, Fault::Silence(link)),
        (2, Fault::Delay(link, delay)),
        (2, Fault::FillDisk),
        (1, Fault::ReadOnlyDisk),
        (2, Fault::MoveClock(seconds)),
    ])
}

fn fault_of_alluxio(random: &mut Random) -> Fault {
    let worker = 1 + random.below(WORKERS);
    let role = random.weighted(&[
        (5, Role::Worker(worker)),
        (2, Role::JobWorker(worker)),
        (1, Role::JobMaster),
        (1, Role::Master),
    ]);
    random.weighted(&[(3, Fault::Kill(role)), (2, Fault::Pause(role))])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_seed_repeats_its_runs_one_by_one() {
        let plans = |seed| (1..=50).map(|n| format!("{:?}", Plan::draw(seed, n))).collect::<Vec<_>>();
        assert_eq!(plans(7), plans(7));
        assert_ne!(plans(7), plans(8));
    }

    #[test]
    fn every_fault_is_drawn() {
        let plans: Vec<_> = (1..=300).map(|number| Plan::draw(1, number)).collect();
        let kind = |fault: &Fault| match fault {
            Fault::Delay(link, _) => format!("Delay({link:?})"),
            Fault::MoveClock(seconds) => format!("MoveClock({})", seconds.signum()),
            fault => format!("{fault:?}"),
        };
        let drawn: BTreeSet<_> =
            plans.iter().flat_map(|plan| plan.lanes.iter().flatten()).map(|blow| kind(&blow.fault)).collect();
        // Nine of the sidecar's, of which cuts, silences and delays have three links and the clock two ways; two of each
        // role.
        assert_eq!(drawn.len(), 6 + 3 * 3 + 2 + 2 * (2 + 2 * WORKERS), "{drawn:?}");
        assert!(plans.iter().all(|plan| plan.lanes.iter().all(|lane| (1..=FAULTS).contains(&lane.len()))));
    }
}
