//! Counts what of a path is in the cache, block by block: the truth about data.
//!
//! Pure: a caller feeds it files from a listing. A copy counts only on a worker of the given set, so that a
//! worker which is silent, though the master still lists its blocks, proves nothing.

use std::collections::{BTreeMap, HashSet};

use alluxio_client::File;

use crate::job::{Count, Failure};

/// What one file lacks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Over all wished copies.
    pub bytes_total: u64,
    pub bytes_cached: u64,
    /// Bytes of blocks without any copy, once.
    pub bytes_absent: u64,
    /// Bytes of blocks with fewer copies than wished, once.
    pub bytes_short: u64,
    /// Copies of the block that has the fewest; the wished number for a file without data.
    pub replicas_seen: u32,
    /// Somebody still writes it: it has no final length.
    pub being_written: bool,
}

/// Sums of [`Tally`] over the files below a path.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    replicas: u32,
    live: HashSet<i64>,
    pub files_total: u64,
    pub files_cached: u64,
    pub bytes_total: u64,
    pub bytes_cached: u64,
    pub bytes_absent: u64,
    pub bytes_short: u64,
    pub being_written: u64,
    /// Bytes that each worker of the set holds.
    pub held: BTreeMap<i64, u64>,
}

impl Survey {
    /// `live`: ids of the workers whose copies count.
    #[must_use]
    pub fn new(replicas: u32, live: HashSet<i64>) -> Self {
        Self { replicas, live, ..Self::default() }
    }

    /// Counts `file`; `Some` when it is not loaded. Folders and empty files are nothing to load.
    pub fn add(&mut self, file: &File) -> Option<Tally> {
        if file.folder || (file.length == 0 && file.completed) {
            return None;
        }
        let tally = tally(file, &self.live, self.replicas);
        for block in &file.blocks {
            for worker in block.workers.iter().filter(|worker| self.live.contains(worker)) {
                let held = self.held.entry(*worker).or_default();
                *held = held.saturating_add(block.length);
            }
        }
        self.files_total += 1;
        self.bytes_total = self.bytes_total.saturating_add(tally.bytes_total);
        self.bytes_cached = self.bytes_cached.saturating_add(tally.bytes_cached);
        self.bytes_absent = self.bytes_absent.saturating_add(tally.bytes_absent);
        self.bytes_short = self.bytes_short.saturating_add(tally.bytes_short);
        self.being_written += u64::from(tally.being_written);
        if tally.is_loaded() {
            self.files_cached += 1;
            return None;
        }
        Some(tally)
    }

    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.files_cached == self.files_total
    }

    /// Files still to be cached, or lacking copies.
    #[must_use]
    pub fn files_missing(&self) -> u64 {
        self.files_total - self.files_cached
    }

    /// Bytes still to be cached, over all wished copies.
    #[must_use]
    pub fn bytes_missing(&self) -> u64 {
        self.bytes_total - self.bytes_cached
    }

    /// Every block has a copy; only further copies are missing.
    #[must_use]
    pub fn lacks_only_copies(&self) -> bool {
        !self.is_complete() && self.bytes_absent == 0 && self.being_written == 0
    }

    #[must_use]
    pub fn count(&self, totals_exact: bool) -> Count {
        Count {
            files_total: self.files_total,
            files_cached: self.files_cached,
            bytes_total: self.bytes_total,
            bytes_cached: self.bytes_cached,
            totals_exact,
            cached_exact: true,
            ..Count::default()
        }
    }
}

impl Tally {
    fn is_loaded(&self) -> bool {
        // Not by the sums, which a master that lies can drive to where they say nothing.
        self.bytes_short == 0 && !self.being_written
    }

    /// The line of ListFailures for `file`. `cause`: what Alluxio said, if anything.
    #[must_use]
    pub fn failure(&self, file: &File, replicas: u32, cause: Option<&str>) -> Failure {
        let seen = self.replicas_seen;
        let what = match (self.being_written, seen) {
            // Of a file that is written through to the UFS the master says the same.
            (true, _) if file.persisted => "alluxio does not know the file completely: it is still being \
                 written, or the loading of its metadata was cut off; then `alluxio fs rm --alluxioOnly` of \
                 the file and another load mend it"
                .to_owned(),
            (true, _) => "the file is still being written".to_owned(),
            (false, 0) => "a block has no copy in the cache".to_owned(),
            (false, _) => format!("a block has {seen} of {replicas} copies"),
        };
        Failure {
            path: file.path.clone(),
            length: file.length,
            bytes_missing: self.bytes_total - self.bytes_cached,
            replicas_seen: seen,
            reason: cause.map_or(what.clone(), |cause| format!("{what}: {cause}")),
        }
    }
}

fn tally(file: &File, live: &HashSet<i64>, replicas: u32) -> Tally {
    let mut tally = Tally { being_written: !file.completed, replicas_seen: replicas, ..Tally::default() };
    let mut add = |length: u64, copies: u32| {
        let wished = length.saturating_mul(u64::from(replicas));
        tally.bytes_total = tally.bytes_total.saturating_add(wished);
        let cached = length.saturating_mul(u64::from(copies.min(replicas)));
        tally.bytes_cached = tally.bytes_cached.saturating_add(cached);
        tally.replicas_seen = tally.replicas_seen.min(copies);
        tally.bytes_absent = tally.bytes_absent.saturating_add(if copies == 0 { length } else { 0 });
        tally.bytes_short = tally.bytes_short.saturating_add(if copies < replicas { length } else { 0 });
    };
    let mut known = 0_u64;
    for block in file.blocks.iter().filter(|block| block.length > 0) {
        known = known.saturating_add(block.length);
        let copies = block.workers.iter().filter(|worker| live.contains(worker)).count();
        add(block.length, u32::try_from(copies).unwrap_or(u32::MAX));
    }
    // Bytes of which the master knows no block are in no cache.
    if file.length > known {
        add(file.length - known, 0);
    }
    tally
}

#[cfg(test)]
mod tests {
    use alluxio_client::Block;

    use super::*;

    fn file(length: u64, blocks: &[(u64, &[i64])]) -> File {
        let blocks = blocks.iter().map(|(length, workers)| Block {
            id: 0,
            length: *length,
            workers: workers.to_vec(),
        });
        File { path: "/f".into(), length, completed: true, blocks: blocks.collect(), ..File::default() }
    }

    fn survey(replicas: u32) -> Survey {
        Survey::new(replicas, HashSet::from([1, 2]))
    }

    #[test]
    fn counts_copies_on_live_workers_only() {
        let mut survey = survey(2);
        assert_eq!(survey.add(&file(20, &[(10, &[1, 2]), (10, &[2, 1])])), None);
        let tally = survey.add(&file(20, &[(10, &[1, 2]), (10, &[1, 9])])).unwrap();
        assert_eq!((tally.bytes_total, tally.bytes_cached, tally.replicas_seen), (40, 30, 1));
        assert_eq!((survey.files_total, survey.files_cached), (2, 1));
        assert_eq!((survey.bytes_missing(), survey.bytes_absent, survey.bytes_short), (10, 0, 10));
        assert!(survey.lacks_only_copies());
    }

    #[test]
    fn bytes_without_a_block_are_missing() {
        let mut survey = survey(1);
        let tally = survey.add(&file(30, &[(10, &[1])])).unwrap();
        assert_eq!((tally.bytes_total, tally.bytes_cached, tally.bytes_absent), (30, 10, 20));
        assert!(!survey.lacks_only_copies());
    }

    #[test]
    fn lengths_beyond_any_sum_hide_nothing() {
        let most = i64::MAX.cast_unsigned();
        let mut survey = survey(2);
        let blocks = |last: &'static [i64]| [(most, &[1, 2][..]), (most, &[1, 2]), (most, last)];
        assert!(survey.add(&file(most, &blocks(&[]))).is_some(), "a block has no copy");
        assert_eq!(survey.add(&file(most, &blocks(&[1, 2]))), None);
        assert_eq!((survey.files_total, survey.files_cached), (2, 1));
        assert!(!survey.is_complete());
    }

    #[test]
    fn more_copies_than_wished_are_no_surplus() {
        let mut survey = survey(1);
        assert_eq!(survey.add(&file(10, &[(10, &[1, 2])])), None);
        assert_eq!((survey.bytes_cached, survey.bytes_total), (10, 10));
    }

    #[test]
    fn an_empty_file_does_not_count_and_one_being_written_does() {
        let mut survey = survey(1);
        assert_eq!(survey.add(&file(0, &[])), None);
        assert_eq!(survey.files_total, 0);
        let open = File { completed: false, ..file(0, &[]) };
        let tally = survey.add(&open).unwrap();
        assert_eq!(tally.failure(&open, 1, None).reason, "the file is still being written");
        let half = File { persisted: true, ..open };
        assert!(tally.failure(&half, 1, None).reason.contains("`alluxio fs rm --alluxioOnly`"));
        assert!(!survey.is_complete());
    }

    #[test]
    fn folders_do_not_count() {
        let mut survey = survey(1);
        assert_eq!(survey.add(&File { folder: true, ..File::default() }), None);
        assert_eq!(survey.files_total, 0);
        assert!(survey.is_complete());
    }

    #[test]
    fn a_failure_quotes_alluxio() {
        let mut survey = survey(2);
        let short = file(10, &[(10, &[1])]);
        let tally = survey.add(&short).unwrap();
        let failure = tally.failure(&short, 2, Some("no space"));
        assert_eq!((failure.bytes_missing, failure.replicas_seen), (10, 1));
        assert_eq!(failure.reason, "a block has 1 of 2 copies: no space");
    }
}
