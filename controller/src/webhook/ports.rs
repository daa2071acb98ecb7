//! Which ports of hosts are taken by sidecars.
//!
//! Asked for at each admission that needs one, instead of watched: replicas that do not lead keep no cache, and
//! such admissions are rare. Only metadata is asked for, since the port is in an annotation of every injected
//! pod. A list serves for a short time, and what was given meanwhile is remembered, so that a thousand pods at
//! once cost a handful of lists. Replicas do not know of each other's last moments: should two give one port to
//! two pods, the scheduler keeps them on different nodes, because it is declared as a hostPort (of native sidecars
//! schedulers before 1.33.4 did not know: there one of the two would say that its port is in use).

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use k8s_openapi::api::core::v1::Pod;
use kube::{Client, ResourceExt, api::ListParams};
use tokio::sync::Mutex;

use crate::{
    injection::{PORT, ROLE},
    stores::Scope,
};

/// How long a list serves.
const FRESH: Duration = Duration::from_secs(2);
/// How long a port is kept for a pod that does not show up.
const KEPT: Duration = Duration::from_secs(60);
/// Honest pods are fewer: the range has 500 pairs.
const MAX_KEPT: usize = 4096;
/// Of one page; metadata of a pod is 2 KB or so.
const PAGE: u32 = 500;

/// Ports on hosts' networks.
#[derive(Debug)]
pub struct Ports {
    scopes: Vec<Scope>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    listed: Option<(Instant, BTreeSet<u16>)>,
    /// By the key of its pod.
    given: HashMap<String, (Instant, u16)>,
}

impl Ports {
    #[must_use]
    pub fn new(scopes: Vec<Scope>) -> Self {
        Self { scopes, state: Mutex::default() }
    }

    /// Chooses with what is taken, and remembers the choice unless it is a `rehearsal`.
    pub async fn choose<E>(
        &self,
        client: &Client,
        key: &str,
        rehearsal: bool,
        choose: impl Fn(&BTreeSet<u16>) -> Result<u16, E>,
    ) -> Result<Result<u16, E>, kube::Error> {
        let mut state = self.state.lock().await;
        let now = Instant::now();
        state.given.retain(|_, (at, _)| now.duration_since(*at) < KEPT);
        let others = state.given.iter().filter(|(other, _)| *other != key);
        let given: BTreeSet<_> = others.flat_map(|(_, (_, port))| [*port, port.saturating_add(1)]).collect();
        let choose_of = |listed: &BTreeSet<u16>| choose(&listed.union(&given).copied().collect());
        let fresh = state.listed.as_ref().filter(|(at, _)| now.duration_since(*at) < FRESH);
        let chosen = match fresh.and_then(|(_, listed)| choose_of(listed).ok()) {
            Some(port) => Ok(port),
            None => {
                let listed = self.list(client).await?;
                // Who floods us with admissions of pods that never come must not use the range up.
                let chosen = choose_of(&listed).or_else(|_| choose(&listed));
                state.listed = Some((now, listed));
                chosen
            }
        };
        if let Ok(port) = &chosen
            && !rehearsal
            && state.given.len() < MAX_KEPT
        {
            state.given.insert(key.to_owned(), (now, *port));
        }
        Ok(chosen)
    }

    async fn list(&self, client: &Client) -> Result<BTreeSet<u16>, kube::Error> {
        let mut taken = BTreeSet::new();
        for scope in &self.scopes {
            let mut page = ListParams::default().labels(&format!("{}={}", ROLE.0, ROLE.1)).limit(PAGE);
            loop {
                let list = scope.api::<Pod>(client).list_metadata(&page).await?;
                for pod in &list.items {
                    let port = pod.annotations().get(PORT).and_then(|port| port.parse::<u16>().ok());
                    taken.extend(port.into_iter().flat_map(|port| [port, port.saturating_add(1)]));
                }
                match list.metadata.continue_.filter(|token| !token.is_empty()) {
                    Some(token) => page = page.continue_token(&token),
                    None => break,
                }
            }
        }
        Ok(taken)
    }
}
