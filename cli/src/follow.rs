//! Follows a load to its end, or until the user has had enough.

use crate::{error::Error, run::Session, view::View};
use alluxio_preload_api::{
    client::{Update, Watch},
    v1::{Load, load::State},
};
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{MissedTickBehavior, interval};

/// Ten turns a second look alive and cost nothing.
const TURN: Duration = Duration::from_millis(100);

/// Shows what is known of the load and then what the watch tells; returns the state that it ended in. The
/// view is closed whatever happens.
pub(crate) async fn follow(
    session: &Session,
    load: &Load,
    watch: Watch,
    mut view: View,
) -> Result<State, Error> {
    // Before anything is shown: from then on Ctrl-C means to stop watching.
    let interrupt = signal(SignalKind::interrupt())?;
    let end = match view.load(load) {
        Ok(()) => drive(session, load, watch, &mut view, interrupt).await,
        Err(error) => Err(error),
    };
    view.close();
    end
}

async fn drive(
    session: &Session,
    load: &Load,
    mut watch: Watch,
    view: &mut View,
    mut interrupt: Signal,
) -> Result<State, Error> {
    let mut turn = interval(TURN);
    turn.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut state = load.state();
    loop {
        tokio::select! {
            update = watch.next() => match update {
                Some(Ok(Update::Load(load))) => {
                    state = load.state();
                    view.load(&load)?;
                }
                Some(Ok(Update::Lost { error, retry_in })) => view.lost(&error, retry_in),
                Some(Err(status)) => return Err(session.failed(status)),
                None => return Ok(state),
            },
            _ = turn.tick() => view.tick(),
            _ = interrupt.recv() => return Err(Error::Interrupted { load_id: load.id.clone() }),
        }
    }
}
