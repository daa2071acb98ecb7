//! Writes every StatefulSet's Secret anew once in each period, at a moment of its own.
//!
//! Nothing of it is remembered: a controller that was down at the moment leaves the Secret as it is, which is
//! accepted for another period; should that happen twice, the sidecar refuses, and the session has the Secret
//! written at once (see [`Keeper::repair`]).

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
    time::Duration,
};

use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{
    identity::{Identity, Owner},
    keeper::Keeper,
};

/// Between two looks at whose moment has come.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Keeps the Secrets of all `owners` fresh, until `stop`. Of a root that is new all are written at once, however
/// often the leader changes meanwhile.
pub async fn rotate(keeper: &Keeper, owners: impl Fn() -> BTreeSet<Owner>, stop: &CancellationToken) {
    let mut roots = keeper.root();
    let mut looked = Timestamp::now();
    loop {
        let now = Timestamp::now();
        let root = roots.borrow_and_update().clone();
        let announced = keeper.is_announced();
        let mut failed = root.is_none();
        for owner in owners() {
            if !announced || is_due(&owner.identity, looked, now, keeper.period()) {
                match stop.run_until_cancelled(keeper.write(&owner)).await {
                    None => return,
                    // An error was logged: the next look, the next period, or a refusal of the sidecar brings
                    // another try.
                    Some(written) => failed |= written.is_err(),
                }
            }
        }
        if let (Some(root), false, false) = (root, announced, failed)
            && let Err(error) = keeper.announce(&root).await
        {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the root could not be marked as announced"
            );
        }
        looked = now;
        let pause = (keeper.period() / 100).min(LONGEST_PAUSE);
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            changed = roots.changed() => if changed.is_err() { return },
        }
    }
}

/// Whether its moment lies after `from` and not after `to`.
fn is_due(identity: &Identity, from: Timestamp, to: Timestamp, period: Duration) -> bool {
    let period = i64::try_from(period.as_millis()).unwrap_or(i64::MAX).max(1);
    let mut hasher = DefaultHasher::new();
    identity.hash(&mut hasher);
    let offset = i64::try_from(hasher.finish() >> 1).unwrap_or_default().rem_euclid(period);
    let count = |at: Timestamp| (at.as_millisecond() - offset).div_euclid(period);
    count(to) > count(from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        /// However the time is cut into looks, each period brings one moment.
        #[test]
        fn once_in_each_period(name in "[a-z]{1,8}", looks in prop::collection::btree_set(0_i64..10_000, 0..50)) {
            let identity = Identity::new("ns", &name);
            let at = |ms| Timestamp::from_millisecond(1_800_000_000_000 + ms).unwrap();
            let period = Duration::from_millis(1000);
            let mut from = 0;
            let mut times = 0;
            for to in looks.into_iter().chain([10_000]) {
                // A look that comes late finds the moments that have passed as one.
                let passed = is_due(&identity, at(from), at(to), period);
                times += i32::from(passed);
                prop_assert!(passed || to - from < 1000);
                from = to;
            }
            prop_assert!((1..=10).contains(&times));
        }
    }

    #[test]
    fn moments_are_spread() {
        let at = |ms| Timestamp::from_millisecond(ms).unwrap();
        let early =
            |i: i32| is_due(&Identity::new("ns", &i.to_string()), at(0), at(500), Duration::from_secs(1));
        let count = (0..1000).filter(|i| early(*i)).count();
        assert!((300..700).contains(&count), "{count}");
    }
}
