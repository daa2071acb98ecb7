//! The commands that page through answers: `list` and `failures`.

use super::Session;
use crate::{
    args::List,
    error::{Error, note},
    exit::Exit,
    table::{Column, table},
    text, words,
};
use alluxio_preload_api::v1::{
    Failure, ListFailuresRequest, ListLoadsRequest, Load, list_loads_request::Filter,
};
use std::time::SystemTime;

/// Small enough that a page of the largest loads stays below gRPC's limit of 4 MiB for a message.
const PAGE: u64 = 100;

const LOADS: [Column; 7] = [
    Column::left("ID"),
    Column::left("STATE"),
    Column::free("PATH"),
    Column::right("REPLICAS"),
    Column::right("PROGRESS"),
    Column::right("AGE"),
    Column::free("MESSAGE"),
];

const FAILURES: [Column; 5] = [
    Column::free("PATH"),
    Column::right("SIZE"),
    Column::right("MISSING"),
    Column::right("COPIES"),
    Column::free("REASON"),
];

fn failure_row(failure: &Failure) -> [String; 5] {
    [
        failure.path.clone(),
        text::bytes(failure.length),
        text::bytes(failure.bytes_missing),
        failure.replicas_seen.to_string(),
        failure.reason.clone(),
    ]
}

impl Session {
    pub(super) async fn list(&self, list: List) -> Result<Exit, Error> {
        let List { states, path, labels, limit } = list;
        let filter = Filter {
            states: states.into_iter().map(Into::into).collect(),
            path_prefix: path,
            labels: labels.into_iter().collect(),
        };
        let json = self.json()?;
        let mut left = limit.unwrap_or(u64::MAX);
        let mut rows = Vec::new();
        let mut page_token = String::new();
        while left > 0 {
            let request = ListLoadsRequest {
                page_size: page_size(left),
                page_token: page_token.clone(),
                filter: Some(filter.clone()),
            };
            let mut page = self.client.list_loads(request).await.map_err(|e| self.failed(e))?;
            page.loads.truncate(usize::try_from(left).unwrap_or(usize::MAX));
            left -= page.loads.len() as u64;
            match &json {
                Some(json) => {
                    for load in &page.loads {
                        self.print(&(json.load(load)? + "\n"))?;
                    }
                }
                None => rows.extend(page.loads.iter().map(|load| self.row(load))),
            }
            page_token = next(page_token, page.next_page_token)?;
            if page_token.is_empty() {
                break;
            }
        }
        if json.is_none() && rows.is_empty() {
            note("no loads");
        } else if json.is_none() {
            self.print(&table(&LOADS, &rows, self.width))?;
        }
        Ok(Exit::Ok)
    }

    pub(super) async fn failures(&self, load_id: String, limit: u64) -> Result<Exit, Error> {
        let json = self.json()?;
        let mut rows = Vec::new();
        let (mut shown, mut total) = (0, 0);
        let mut page_token = String::new();
        while shown < limit {
            let request = ListFailuresRequest {
                load_id: load_id.clone(),
                page_size: page_size(limit - shown),
                page_token: page_token.clone(),
            };
            let mut page = self.client.list_failures(request).await.map_err(|e| self.failed(e))?;
            page.failures.truncate(usize::try_from(limit - shown).unwrap_or(usize::MAX));
            shown += page.failures.len() as u64;
            total = page.total;
            for failure in &page.failures {
                match &json {
                    Some(json) => {
                        self.print(&(json.message("preload.v1.Failure", failure)? + "\n"))?;
                    }
                    None => rows.push(failure_row(failure)),
                }
            }
            page_token = next(page_token, page.next_page_token)?;
            if page_token.is_empty() {
                break;
            }
        }
        if json.is_none() {
            if !rows.is_empty() {
                self.print(&table(&FAILURES, &rows, self.width))?;
            }
            let end = if total == 0 {
                let load = self.client.get_load(&load_id).await.map_err(|e| self.failed(e))?;
                words::no_failures(load.state()).to_owned()
            } else {
                format!("{} of {}", text::count(shown), text::count(total))
            };
            self.print(&(end + "\n"))?;
        }
        Ok(Exit::Ok)
    }

    fn row(&self, load: &Load) -> [String; 7] {
        let spec = load.spec.clone().unwrap_or_default();
        [
            text::clean(&load.id).into_owned(),
            self.paint.state(load.state()),
            spec.path.clone(),
            spec.replicas.unwrap_or(1).to_string(),
            words::percent(load).map_or_else(|| "-".to_owned(), |percent| format!("{percent}%")),
            text::age(load.create_time, SystemTime::now()),
            words::because(load.reason(), words::message(load)),
        ]
    }
}

fn page_size(left: u64) -> i32 {
    // At most PAGE, so it fits.
    left.min(PAGE) as i32
}

/// A server that hands out the same token again would keep us here for ever.
fn next(before: String, token: String) -> Result<String, Error> {
    if !token.is_empty() && token == before { Err(Error::Paging) } else { Ok(token) }
}
