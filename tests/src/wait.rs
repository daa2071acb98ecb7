//! Waiting for a condition, with a limit.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// Longest wait for anything that normally takes seconds; generous, because tests share two cores.
pub const LIMIT: Duration = Duration::from_secs(120);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(50);

/// Asks `check` until it gives a value. Fails with `what` and the last thing `check` said after `limit`;
/// errors of `check` count as "not yet", because what we wait for is often not there to be asked.
pub async fn until<T>(
    what: &str,
    limit: Duration,
    mut check: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let end = Instant::now() + limit;
    loop {
        let last = match check().await {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => "not yet".to_owned(),
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() >= end {
            bail!("waited {limit:?} in vain for {what}: {last}");
        }
        tokio::time::sleep(PAUSE).await;
    }
}
