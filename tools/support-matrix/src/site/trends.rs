//! Tests of a cell over its last runs: which are flaky, which are slow and get slower.

use std::collections::BTreeMap;

use kit::{
    Result,
    record::{Nature, Status},
};
use serde::Serialize;

use super::charts;
use crate::{cells::Told, history::Library, model::Verdict};

/// Runs that are looked at.
const RUNS: usize = 30;
/// Tests that are listed.
const LISTED: usize = 15;

/// A test over time.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Trend {
    name: String,
    /// How often it was not good, or good only when it was run again.
    bad: usize,
    flaky: usize,
    runs: usize,
    /// Median of its lengths, and of the older and the newer half.
    seconds: f64,
    before: f64,
    after: f64,
    picture: String,
}

impl Trend {
    /// The picture, as SVG.
    pub(super) fn picture(&self) -> &str {
        &self.picture
    }
}

/// What stands out.
#[derive(Default, Serialize)]
pub(super) struct Trends {
    pub(super) runs: usize,
    pub(super) flaky: Vec<Trend>,
    pub(super) slow: Vec<Trend>,
}

#[derive(Default)]
struct Seen {
    outcomes: Vec<char>,
    seconds: Vec<f64>,
    bad: usize,
    flaky: usize,
    good: usize,
}

fn is_valid(told: &Told<'_>) -> bool {
    matches!(told.attempt.verdict, Verdict::Shown | Verdict::Failed)
}

/// The runs on native nodes, if there is one that taught something, and whether there is; otherwise all. Times and failures
/// of emulated nodes are of another kind. What taught nothing is of any.
pub(super) fn of_one_nature<'a>(runs: &[Told<'a>]) -> (Vec<Told<'a>>, bool) {
    let is_native = |told: &&Told<'a>| told.attempt.nature == Some(Nature::Native);
    let native = runs.iter().filter(is_native).any(is_valid);
    let wanted = |told: &&Told<'a>| !native || is_native(told) || !is_valid(told);
    (runs.iter().filter(wanted).copied().collect(), native)
}

/// The tests of the suite that ran last.
///
/// # Errors
/// If the index is damaged.
pub(super) fn trends(library: &Library, runs: &[Told<'_>]) -> Result<Trends> {
    let tests = || runs.iter().filter(|told| is_valid(told));
    let Some(suite) = tests().next_back().map(|told| told.attempt.suite.clone()) else { return Ok(Trends::default()) };
    let mut runs: Vec<_> = tests().filter(|told| told.attempt.suite == suite).collect();
    let runs = runs.split_off(runs.len().saturating_sub(RUNS));
    let mut all: BTreeMap<u32, Seen> = BTreeMap::new();
    for told in &runs {
        for test in library.tests(&told.run.digest, told.attempt.number)?.iter() {
            let seen = all.entry(test.name).or_default();
            seen.outcomes.push(match test.status {
                Status::Passed => 'p',
                Status::Failed => 'f',
                Status::Flaky => 'y',
                Status::Skipped | Status::NotRun => 's',
            });
            seen.good += usize::from(test.good());
            seen.flaky += usize::from(test.status == Status::Flaky);
            seen.bad += usize::from(test.status == Status::Failed);
            if test.status != Status::Skipped {
                seen.seconds.push(test.seconds());
            }
        }
    }
    let mut flaky: Vec<_> = all.iter().filter(|(_, seen)| seen.flaky > 0 || (seen.bad > 0 && seen.good > 0)).collect();
    flaky.sort_by_key(|(name, seen)| (std::cmp::Reverse(seen.bad + seen.flaky), **name));
    // Each median once: to sort by it asks for it often.
    let timed = all.iter().map(|(name, seen)| (median(&seen.seconds), (name, seen)));
    let mut slow: Vec<_> = timed.filter(|(seconds, _)| *seconds >= 1.0).collect();
    slow.sort_by(|(a, (name, _)), (b, (other, _))| b.total_cmp(a).then(name.cmp(other)));
    let slow: Vec<_> = slow.into_iter().map(|(_, test)| test).collect();
    let rows = |found: Vec<(&u32, &Seen)>, by_time: bool| -> Result<Vec<Trend>> {
        found.into_iter().take(LISTED).map(|(name, seen)| trend(library, *name, seen, by_time)).collect()
    };
    Ok(Trends { runs: runs.len(), flaky: rows(flaky, false)?, slow: rows(slow, true)? })
}

fn trend(library: &Library, name: u32, seen: &Seen, by_time: bool) -> Result<Trend> {
    let (older, newer) = seen.seconds.split_at(seen.seconds.len() / 2);
    let runs = seen.outcomes.len();
    let picture = if by_time {
        charts::spark(&seen.seconds, &format!("seconds in {runs} runs, oldest first"))
    } else {
        let words = format!("{} not good and {} flaky of {runs} runs, oldest first", seen.bad, seen.flaky);
        charts::strip(&seen.outcomes, &words)
    };
    Ok(Trend {
        name: library.test_name(name)?,
        bad: seen.bad,
        flaky: seen.flaky,
        runs,
        seconds: median(&seen.seconds),
        before: median(older),
        after: median(newer),
        picture,
    })
}

fn median(all: &[f64]) -> f64 {
    let mut sorted = all.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or_default()
}
