//! Clients that ask, answer PINGs, and never open their windows for an answer.

use alluxio_preload_api::v1::CancelLoadRequest;
use anyhow::{Context, Result};
use preload_tests::{Sandbox, load};
use tokio::io::AsyncWriteExt;

use super::{CUT_WITHIN, House, frames, numbers};

/// What an answer of ListLoads is made of: 80 loads with 10 KB of labels each.
const LOADS: usize = 80;
/// On each of two connections: 250 MB.
const LISTS: u32 = 150;
const WATCHES: u32 = 1_000;

/// Opens `number` calls with shut windows, and returns when each has the head of its answer.
async fn shut_windows(house: &House<'_>, path: &str, message: &[u8], number: u32) -> Result<frames::Pinged> {
    let mut stream = house.connect().await?;
    stream.write_all(&frames::greeting_with_shut_windows()).await?;
    let mut pinged = frames::Pinged::new(stream);
    for number in 0..number {
        let stream = 2 * number + 1;
        let mut words = frames::call(stream, path);
        words.extend(frames::message(stream, message));
        pinged.say(&words).await?;
    }
    let heads = pinged.heads(number);
    tokio::time::timeout(CUT_WITHIN, heads).await.context("the answers did not begin")??;
    Ok(pinged)
}

#[tokio::test]
async fn lists_that_nobody_takes_are_bounded() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let house = House::new(&sandbox).await?;
    let mut client = house.sidecar.client()?;
    for number in 0..LOADS {
        let mut wish = load(&format!("l-{number}"), &format!("/l-{number}"), 1);
        let spec = wish.spec.as_mut().context("a spec")?;
        spec.labels = (0..32).map(|label| (format!("{label:063}"), "x".repeat(256))).collect();
        let load_id = client.start_load(wish).await?.into_inner().id;
        client.cancel_load(CancelLoadRequest { load_id }).await?;
    }
    let attack = async || {
        let mut held = Vec::new();
        for _ in 0..2 {
            // page_size 1000.
            held.push(
                shut_windows(&house, "/preload.v1.PreloadService/ListLoads", &[8, 0xe8, 7], LISTS).await?,
            );
        }
        drop(held);
        Ok(())
    };
    house.serves_during(attack).await?;
    house.is_well().await
}

#[tokio::test]
async fn watches_that_nobody_reads_harm_no_other() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let house = House::new(&sandbox).await?;
    let attack = async || {
        let path = "/preload.v1.PreloadService/WatchLoad";
        let mut held = Vec::new();
        for _ in 0..4 {
            held.push(shut_windows(&house, path, &frames::load_id("honest"), WATCHES).await?);
        }
        numbers::watched_by(&house, 4 * WATCHES as usize).await?;
        drop(held);
        numbers::watched_by(&house, 0).await
    };
    house.serves_during(attack).await?;
    house.is_well().await
}
