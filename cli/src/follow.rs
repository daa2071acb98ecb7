//! Follows a load to its end, or until the user has had enough.

use crate::{error::Error, run::Session, view::View};
use alluxio_preload_api::{
    client::{Update, Watch},
    v1::load::State,
};
use std::{io, time::Duration};
use tokio::time::{MissedTickBehavior, interval};

/// Ten turns a second look alive and cost nothing.
const TURN: Duration = Duration::from_millis(100);

/// The state that the load ended in. The view is closed whatever happens.
pub(crate) async fn follow(
    session: &Session,
    load_id: &str,
    watch: Watch,
    mut view: View,
) -> Result<State, Error> {
    let end = drive(session, load_id, watch, &mut view).await;
    view.close();
    end
}

async fn drive(session: &Session, load_id: &str, mut watch: Watch, view: &mut View) -> Result<State, Error> {
    let mut interrupt = std::pin::pin!(tokio::signal::ctrl_c());
    let mut turn = interval(TURN);
    turn.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut state = State::Unspecified;
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
            result = &mut interrupt => {
                result.map_err(io::Error::other)?;
                return Err(Error::Interrupted { load_id: load_id.to_owned() });
            }
        }
    }
}
