//! Clients that send frames or headers without end.

use anyhow::{Context, Result, bail, ensure};
use preload_tests::Sandbox;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::codegen::http::StatusCode;

use super::{House, frames, messages};

/// HEADERS and RST_STREAM, one after the other (CVE-2023-44487).
#[tokio::test]
async fn rapid_resets_end_the_connection() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let house = House::new(&sandbox).await?;
    let attack = async || {
        let (mut answers, mut calls) = house.connect().await?.into_split();
        let flood = async {
            calls.write_all(&frames::greeting()).await?;
            for number in 0..1_000_000_u32 {
                let stream = 2 * number + 1;
                let mut words = frames::call(stream, "/preload.v1.PreloadService/ListLoads");
                words.extend(frames::reset(stream));
                calls.write_all(&words).await?;
            }
            anyhow::Ok(())
        };
        let reading = async {
            let mut sink = vec![0; 65_536];
            while answers.read(&mut sink).await.is_ok_and(|read| read > 0) {}
        };
        let (flood, ()) = tokio::join!(flood, reading);
        ensure!(flood.is_err(), "a million resets were taken");
        Ok(())
    };
    house.serves_during(attack).await?;
    house.is_well().await
}

/// CONTINUATION after CONTINUATION, without an end (CVE-2024-27316).
#[tokio::test]
async fn headers_without_end_are_cut() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let house = House::new(&sandbox).await?;
    let attack = async || {
        let mut stranger = house.connect().await?;
        stranger.write_all(&frames::greeting()).await?;
        stranger.write_all(&frames::endless_call(1)).await?;
        for _ in 0..100_000 {
            if stranger.write_all(&frames::continuation(1)).await.is_err() {
                return Ok(());
            }
        }
        bail!("a gigabyte of headers was taken")
    };
    house.serves_during(attack).await?;
    house.is_well().await
}

/// As much as is taken, and more: by the server's word, not by the client's own.
#[tokio::test]
async fn giant_metadata_are_refused() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let house = House::new(&sandbox).await?;
    let ask = async |size: usize| {
        let mut channel = messages::channel(&house).await?;
        let mut request = messages::request("/preload.v1.PreloadService/GetLoad", messages::whole(&[])?)?;
        request.headers_mut().insert("x-giant", "x".repeat(size).parse()?);
        messages::call(&mut channel, request).await.map(|answer| answer.status())
    };
    let attack = async || {
        assert_eq!(ask(10_000).await?, StatusCode::OK);
        assert_eq!(ask(20_000).await?, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE);
        for size in [200_000, 2_000_000] {
            let error = format!("{:#}", ask(size).await.err().context("it was taken")?);
            // What it says may be lost when it closes the connection before all was sent.
            let is_cut =
                ["too_many_continuations", "broken pipe", "reset"].iter().any(|word| error.contains(word));
            ensure!(is_cut, "{size}: {error}");
        }
        Ok(())
    };
    house.serves_during(attack).await?;
    house.is_well().await
}
