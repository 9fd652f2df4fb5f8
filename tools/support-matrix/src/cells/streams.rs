//! Runs of tests over a line of versions. Each nightly commit is a cell of its own: only together they have a history.

use std::collections::{BTreeMap, HashSet};

use jiff::Timestamp;
use kit::{Platform, record::Nature};

use super::{
    Entry, Told,
    superseded::{minor, stream},
};
use crate::{
    model::{Level, OriginKind, Verdict},
    policy::Suites,
};

/// Component, line of versions, platform, origin, and minor version of Kubernetes.
type Place = (String, String, Platform, OriginKind, Option<String>);

/// Every try of end-to-end tests, by line of versions, in the order in which the runs ended.
#[derive(Default)]
pub(crate) struct Streams<'a>(BTreeMap<Place, Vec<Told<'a>>>);

/// Those of one line.
#[derive(Clone, Copy)]
pub(crate) struct Runs<'s, 'a>(&'s [Told<'a>]);

fn place(entry: &Entry<'_>) -> Place {
    let key = &entry.key;
    let kubernetes = entry.kubernetes.as_deref().map(minor);
    (key.component.clone(), stream(&key.version), key.platform.clone(), key.origin, kubernetes)
}

impl<'a> Streams<'a> {
    /// Of everything that was tried; a suite that nobody names says nothing.
    pub(super) fn new(cells: &[Entry<'a>], suites: &Suites) -> Self {
        let mut all: BTreeMap<Place, Vec<Told<'a>>> = BTreeMap::new();
        for entry in cells {
            let counts = |told: &&Told<'a>| {
                let suite = told.attempt.suite.as_deref();
                told.attempt.level == Some(Level::E2e)
                    && suite.is_none_or(|suite| suites.count(&entry.key.component, suite))
            };
            let mut tests = entry.told.iter().filter(counts).copied().peekable();
            if tests.peek().is_some() {
                all.entry(place(entry)).or_default().extend(tests);
            }
        }
        for told in all.values_mut() {
            told.sort_by_key(|told| (told.run.finished, &told.run.digest, told.attempt.number));
            // What is of no version of Kubernetes is in several cells, and a run that goes on from another holds copies.
            told.dedup_by(|a, b| a.run.digest == b.run.digest && a.attempt.number == b.attempt.number);
            let mut records = HashSet::new();
            told.retain(|told| told.attempt.record.is_none_or(|record| records.insert(record)));
        }
        Self(all)
    }

    /// Those of the line that a cell is of.
    pub(crate) fn of(&self, entry: &Entry<'_>) -> Runs<'_, 'a> {
        Runs(self.0.get(&place(entry)).map_or(&[], Vec::as_slice))
    }
}

impl<'s, 'a> Runs<'s, 'a> {
    /// Those that had ended then.
    fn until(self, end: Timestamp) -> &'s [Told<'a>] {
        &self.0[..self.0.partition_point(|told| told.run.finished <= end)]
    }

    /// Those that had ended when the cell itself was last tested; none if it never was.
    pub(crate) fn up_to(self, entry: &Entry<'_>) -> &'s [Told<'a>] {
        let own = entry.told.iter().filter(|told| told.attempt.level == Some(Level::E2e));
        own.map(|told| told.run.finished).max().map_or(&[], |end| self.until(end))
    }

    /// The last native ones that taught something and had ended then, newest first: of one suite, or of all. What is of
    /// no suite did not get so far, and counts for each.
    pub(crate) fn last(self, suite: Option<&str>, end: Timestamp, most: usize) -> Vec<Told<'a>> {
        let valid = |told: &&Told<'a>| {
            let tried = told.attempt;
            tried.nature == Some(Nature::Native)
                && matches!(tried.verdict, Verdict::Shown | Verdict::Failed)
                && (suite.is_none() || tried.suite.is_none() || tried.suite.as_deref() == suite)
        };
        self.until(end).iter().rev().filter(valid).take(most).copied().collect()
    }
}
