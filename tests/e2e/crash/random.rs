//! Killed at random moments.

use super::{Course, NATIVE, SMALL, STRAIGHT, assert_continues};
use crate::outcome::wish;
use crate::support::{assert_attempts, assert_in_order, assert_nothing_works_on, rough};
use alluxio_preload_api::v1::Load;
use alluxio_preload_api::v1::load::State;
use anyhow::{Context, Result, ensure};
use preload_tests::random::Random;
use preload_tests::{Sidecar, load};
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

#[tokio::test]
async fn killed_again_and_again() -> Result<()> {
    // From before it is ready up to well into a load.
    again_and_again(Course { files: 60, ..STRAIGHT }, Duration::from_secs(4)).await
}

#[tokio::test]
async fn killed_again_and_again_while_loading_natively() -> Result<()> {
    again_and_again(Course { files: 1500, replicas: 2, ..NATIVE }, Duration::from_millis(1500)).await
}

/// Killed after at most `longest` each time.
async fn again_and_again(course: Course, longest: Duration) -> Result<()> {
    const ROUNDS: usize = 20;
    const LOADS: [&str; 3] = ["a", "b", "c"];
    let cluster = rough().await?;
    let seed = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_nanos() as u64;
    eprintln!("seed {seed}");
    let mut random = Random::new(seed, 0);
    let mut sidecar = Sidecar::start(cluster, &[] as &[&str]).await?;
    // The newest that was seen of every load that was acknowledged.
    let mut known = BTreeMap::<String, Load>::new();
    let mut paths = Vec::new();
    for id in LOADS {
        let data = cluster.data("crash-random")?;
        data.files(course.files, SMALL)?;
        let wish = wish(id, data.path(), course.replicas, |spec| spec.set_engine(course.engine))?;
        known.insert(id.to_owned(), sidecar.start_load(wish).await?);
        paths.push(data.path().to_owned());
    }
    let mut seen_in = BTreeMap::<State, usize>::new();
    for round in 0..ROUNDS {
        let moment = random.up_to(longest);
        let calling = async {
            for call in 0.. {
                let id = format!("round-{round}-{call}");
                if call < 2
                    && let Ok(started) = sidecar.start_load(load(&id, "/no/such/path", 1)).await
                {
                    known.insert(id, started);
                }
                for id in LOADS {
                    if let Ok(now) = sidecar.get_load(id).await {
                        assert_continues(&known[id], &now)?;
                        known.insert(id.to_owned(), now);
                    }
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            anyhow::Ok(())
        };
        if let Ok(failed) = tokio::time::timeout(moment, calling).await {
            failed?;
        }
        sidecar.kill9().await?;
        *seen_in.entry(known["a"].state()).or_default() += 1;
        sidecar.restart().await?;
        for (id, before) in &mut known {
            let now =
                sidecar.get_load(id).await.with_context(|| format!("acknowledged before round {round}"))?;
            assert_continues(before, &now).with_context(|| format!("round {round}"))?;
            *before = now;
        }
    }
    eprintln!("killed with the first load in {seen_in:?}; {} loads were acknowledged", known.len());
    for (id, path) in LOADS.iter().zip(&paths) {
        let loaded = sidecar.in_state(id, State::Loaded).await?;
        assert_continues(&known[*id], &loaded)?;
        assert_in_order(&loaded)?;
        assert_attempts(&loaded)?;
        cluster.oracle().assert_loaded(path, course.replicas as usize).await?;
        assert_nothing_works_on(cluster, path).await?;
    }
    for id in known.keys().filter(|id| id.starts_with("round")) {
        assert_eq!(sidecar.finished(id).await?.state(), State::Failed);
    }
    ensure!(sidecar.descendants()?.is_empty(), "children are left: {:?}", sidecar.descendants()?);
    sidecar.assert_no_errors()
}
