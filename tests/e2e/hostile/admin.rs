//! Slow clients of the admin port (HTTP/1).

use std::time::Duration;

use anyhow::{Result, ensure};
use preload_tests::{Sandbox, http};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::{CUT_WITHIN, House};

const STRANGERS: usize = 300;
/// Drips of a header, one a second: longer than anyone is waited for.
const DRIPS: usize = 60;

#[tokio::test]
async fn the_admin_port_cuts_who_is_slow() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let house = House::new(&sandbox).await?;
    let admin = house.sidecar.admin_address();
    let attack = async || {
        let mut cut = JoinSet::new();
        for number in 0..STRANGERS {
            let stream = TcpStream::connect(admin).await?;
            cut.spawn(async move {
                let (mut answers, mut words) = stream.into_split();
                let drip = async {
                    let words = &mut words;
                    match number % 3 {
                        0 => {}
                        1 => words.write_all(b"GET /livez HT").await?,
                        _ => {
                            words.write_all(b"GET /livez HTTP/1.1\r\nx: ").await?;
                            for _ in 0..DRIPS {
                                tokio::time::sleep(Duration::from_secs(1)).await;
                                words.write_all(b"x").await?;
                            }
                        }
                    }
                    // Nothing more.
                    std::future::pending::<std::io::Result<()>>().await
                };
                let mut rest = Vec::new();
                let end = async {
                    tokio::select! {
                        end = answers.read_to_end(&mut rest) => end.map(drop),
                        failed = drip => failed,
                    }
                };
                tokio::time::timeout(CUT_WITHIN, end).await.is_ok()
            });
        }
        for path in ["/livez", "/readyz", "/metrics"] {
            ensure!(http::get(admin, path).await?.0 == 200, "{path} is not served");
        }
        ensure!(cut.join_all().await.into_iter().all(|cut| cut), "slow connections stay for ever");
        Ok(())
    };
    house.serves_during(attack).await?;
    house.is_well().await
}

/// A head without end is refused before it fills memory.
#[tokio::test]
async fn the_admin_port_takes_no_giant_head() -> Result<()> {
    let sandbox = Sandbox::new()?;
    let house = House::new(&sandbox).await?;
    let admin = house.sidecar.admin_address();
    let attack = async || {
        let mut floods = JoinSet::new();
        for _ in 0..STRANGERS {
            let mut stream = TcpStream::connect(admin).await?;
            floods.spawn(async move {
                stream.write_all(b"GET /livez HTTP/1.1\r\nx: ").await?;
                for _ in 0..1_000 {
                    stream.write_all(&[b'x'; 10_000]).await?;
                }
                std::io::Result::Ok(())
            });
        }
        for flood in floods.join_all().await {
            ensure!(flood.is_err(), "10 MB of a header were taken");
        }
        ensure!(http::get(admin, "/livez").await?.0 == 200, "/livez is not served");
        Ok(())
    };
    house.serves_during(attack).await?;
    house.is_well().await
}
