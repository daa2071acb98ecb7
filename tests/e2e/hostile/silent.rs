//! Clients that stop, or drip, before they have asked for anything.

use std::time::Duration;

use anyhow::{Result, ensure};
use preload_tests::Sandbox;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use super::{CUT_WITHIN, House, frames};

const STRANGERS: usize = 300;

/// Strangers who say no more than `words`, and then keep their connections open, or shut their side.
async fn silent_after(words: &[u8], shut: bool) -> Result<()> {
    let sandbox = Sandbox::new()?;
    let house = House::new(&sandbox).await?;
    let attack = async || {
        let mut cut = JoinSet::new();
        for _ in 0..STRANGERS {
            let mut stream = house.connect().await?;
            stream.write_all(words).await?;
            if shut {
                stream.shutdown().await?;
            }
            cut.spawn(async move {
                let mut rest = Vec::new();
                // An error is an end too.
                tokio::time::timeout(CUT_WITHIN, stream.read_to_end(&mut rest)).await.is_ok()
            });
        }
        ensure!(cut.join_all().await.into_iter().all(|cut| cut), "silent connections stay for ever");
        Ok(())
    };
    house.serves_during(attack).await?;
    house.is_well().await
}

#[tokio::test]
async fn who_never_speaks_is_cut() -> Result<()> {
    silent_after(b"", false).await
}

#[tokio::test]
async fn who_stops_in_the_greeting_is_cut() -> Result<()> {
    silent_after(&frames::PREFACE[..10], false).await
}

#[tokio::test]
async fn who_stops_in_the_headers_of_a_call_is_cut() -> Result<()> {
    let mut words = frames::greeting();
    let call = frames::call(1, "/preload.v1.PreloadService/GetLoad");
    words.extend(&call[..call.len() - 5]);
    silent_after(&words, false).await
}

/// A half-open connection hears no end of a watch.
#[tokio::test]
async fn who_shuts_its_side_is_cut() -> Result<()> {
    let mut words = frames::greeting();
    words.extend(frames::call(1, "/preload.v1.PreloadService/WatchLoad"));
    words.extend(frames::message(1, &frames::load_id("honest")));
    silent_after(&words, true).await?;
    silent_after(&frames::PREFACE[..10], true).await
}

/// One byte of the greeting every second, and never the last: no byte of it is wrong, so it is the time that ends it.
#[tokio::test]
async fn who_drips_is_cut() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let house = House::new(&sandbox).await?;
    let attack = async || {
        let (mut answers, mut words) = house.connect().await?.into_split();
        let drip = async {
            for byte in &frames::PREFACE[..frames::PREFACE.len() - 1] {
                if words.write_all(&[*byte]).await.is_err() {
                    return true;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            false
        };
        let mut rest = Vec::new();
        let is_cut = tokio::select! {
            _end = answers.read_to_end(&mut rest) => true,
            is_cut = drip => is_cut,
        };
        ensure!(is_cut, "it could go on");
        Ok(())
    };
    house.serves_during(attack).await?;
    house.is_well().await
}
