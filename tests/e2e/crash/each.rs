//! Killed after each change of state of each course, and right after each answer.

use super::{Course, NATIVE, SMALL, STRAIGHT, assert_continues, has_jobs, loading};
use crate::outcome::begin_with;
use crate::support::{assert_in_order, assert_nothing_works_on, cancel, changes, rough, watch_until};
use alluxio_preload_api::v1::load::State;
use anyhow::{Context, Result, ensure};
use preload_tests::Cluster;

#[tokio::test]
async fn killed_after_each_transition() -> Result<()> {
    let points = killed_after_each(STRAIGHT).await?;
    assert_eq!(points.iter().filter(|(from, _)| *from == State::Loading).count(), 1);
    Ok(())
}

/// The command leaves out second copies, so that there is a second run.
#[tokio::test]
async fn killed_after_each_transition_of_a_load_that_is_repaired() -> Result<()> {
    let points = killed_after_each(Course { files: 100, replicas: 2, ..STRAIGHT }).await?;
    assert!(points.contains(&(State::Verifying, State::Loading)), "{points:?}");
    Ok(())
}

#[tokio::test]
async fn killed_after_each_transition_of_a_load_that_fails() -> Result<()> {
    let points = killed_after_each(Course { gone: true, end: State::Failed, ..STRAIGHT }).await?;
    assert_eq!(points.last(), Some(&(State::Verifying, State::Failed)));
    Ok(())
}

#[tokio::test]
async fn killed_after_each_transition_of_a_native_load() -> Result<()> {
    let points = killed_after_each(Course { replicas: 2, ..NATIVE }).await?;
    assert_eq!(points.iter().filter(|(from, _)| *from == State::Loading).count(), 1);
    Ok(())
}

#[tokio::test]
async fn killed_after_each_transition_of_a_native_load_that_fails() -> Result<()> {
    let points = killed_after_each(Course { gone: true, end: State::Failed, ..NATIVE }).await?;
    assert_eq!(points.last(), Some(&(State::Verifying, State::Failed)));
    Ok(())
}

#[tokio::test]
async fn killed_after_each_transition_of_a_native_load_that_is_cancelled() -> Result<()> {
    let course = Course { files: 2000, cancelled: true, end: State::Cancelled, ..NATIVE };
    let points = killed_after_each(course).await?;
    assert_eq!(points.last(), Some(&(State::Loading, State::Cancelled)));
    Ok(())
}

#[tokio::test]
async fn killed_after_each_transition_of_a_load_that_is_cached_already() -> Result<()> {
    let points = killed_after_each(Course { cached: true, ..STRAIGHT }).await?;
    assert!(points.contains(&(State::Listing, State::Verifying)), "{points:?}");
    Ok(())
}

#[tokio::test]
async fn killed_after_each_transition_of_a_load_that_is_cancelled() -> Result<()> {
    let course = Course { files: 100, cancelled: true, end: State::Cancelled, ..STRAIGHT };
    let points = killed_after_each(course).await?;
    assert_eq!(points.last(), Some(&(State::Loading, State::Cancelled)));
    Ok(())
}

/// Learns the changes of state of the course, then kills a sidecar after each of them. Gives the changes.
async fn killed_after_each(course: Course) -> Result<Vec<(State, State)>> {
    let cluster = rough().await?;
    let (data, sidecar, _) = loading(cluster, "crash-learn", course).await?;
    let mut ended = course.ends_well(cluster, &sidecar, data.path()).await?;
    // Not the course with a command that Alluxio failed.
    for id in ["b", "c", "d"] {
        if ended.attempt > 1 {
            let data = course.data(cluster, "crash-learn").await?;
            sidecar.start_load(course.request(id, &data)?).await?;
            ended = sidecar.in_state(id, course.end).await?;
        }
    }
    drop(sidecar);
    let learned = changes(&ended);
    let mut points = Vec::new();
    while let Some(change) = learned.get(points.len()) {
        let killed = killed_after(cluster, course, points.len()).await;
        points.push(killed.with_context(|| format!("killed after {change:?}"))?);
    }
    assert_eq!(points.len(), learned.len());
    assert_eq!(points, learned);
    Ok(points)
}

async fn killed_after(cluster: &Cluster, course: Course, point: usize) -> Result<(State, State)> {
    let (data, mut sidecar, started) = loading(cluster, "crash", course).await?;
    if course.cancelled && point > 2 {
        course.cancel(&sidecar).await?;
    }
    let seen = watch_until(&sidecar, "a", |load| load.transitions.len() > point).await?;
    sidecar.kill9().await?;
    sidecar.restart().await?;
    let back = sidecar.get_load("a").await?;
    assert_continues(&started, &seen)?;
    assert_continues(&seen, &back)?;
    if seen.state() == course.end {
        assert_eq!(back, seen);
    } else {
        ensure!(back.sequence > seen.sequence, "a number was used twice: {seen:?}, then {back:?}");
    }
    let ended = course.ends_well(cluster, &sidecar, data.path()).await?;
    assert_continues(&back, &ended)?;
    sidecar.assert_no_errors()?;
    Ok(changes(&seen)[point])
}

#[tokio::test]
async fn killed_right_after_an_answer() -> Result<()> {
    let cluster = rough().await?;
    let (data, mut sidecar, started) = loading(cluster, "crash-start", STRAIGHT).await?;
    sidecar.kill9().await?;
    sidecar.restart().await?;
    assert_continues(&started, &sidecar.get_load("a").await?)?;
    let loaded = STRAIGHT.ends_well(cluster, &sidecar, data.path()).await?;

    sidecar.kill9().await?;
    sidecar.restart().await?;
    assert_eq!(sidecar.get_load("a").await?, loaded, "a load that has ended stays as it is");

    let data = cluster.data("crash-cancel")?;
    data.files(200, SMALL)?;
    begin_with(&sidecar, STRAIGHT.engine, "b", data.path(), 1).await?;
    has_jobs(cluster, data.path()).await?;
    let cancelling = cancel(&sidecar, "b").await?;
    sidecar.kill9().await?;
    sidecar.restart().await?;
    let cancelled = sidecar.in_state("b", State::Cancelled).await?;
    assert_continues(&cancelling, &cancelled)?;
    assert_in_order(&cancelled)?;
    assert_nothing_works_on(cluster, data.path()).await?;
    sidecar.kill9().await?;
    sidecar.restart().await?;
    assert_eq!(sidecar.get_load("b").await?, cancelled, "a load that was cancelled stays as it is");
    sidecar.assert_no_errors()
}
