//! What many tries of one thing come to: the newest that taught us something decides, the others age it.

use std::collections::BTreeSet;

use jiff::Timestamp;
use kit::record::Nature;

use super::Told;
use crate::model::{Evidence, Level, Verdict};

/// The judgement on one level, and the try that decided.
#[derive(Clone, Copy)]
pub(crate) struct Judged<'a> {
    pub(crate) verdict: Verdict,
    pub(crate) by: Option<Told<'a>>,
    /// Tries after it that were lost to the infrastructure.
    pub(crate) lost_since: usize,
}

/// Judges the tries of `level`; `suites` names those that count, all if it is empty.
pub(crate) fn judge<'a>(told: &[Told<'a>], level: Level, suites: &[String]) -> Judged<'a> {
    let counts = |told: &&Told<'a>| {
        let suite = told.attempt.suite.as_ref();
        told.attempt.result.level == Some(level)
            && (suites.is_empty() || suite.is_none_or(|suite| suites.contains(suite)))
    };
    let mut told: Vec<_> = told.iter().filter(counts).copied().collect();
    told.sort_by_key(|told| (told.attempt.at, told.run.closed.digest().to_owned()));
    // A run that goes on from another holds copies of its records: they are no second try.
    let mut seen = BTreeSet::new();
    told.retain(|told| told.attempt.record.as_ref().is_none_or(|record| seen.insert(record)));
    let newest = |wanted: &dyn Fn(&Told<'a>) -> bool| told.iter().rev().find(|told| wanted(told)).copied();
    let verdict = |told: &Told<'a>| told.attempt.result.verdict;
    let taught = |told: &Told<'a>| matches!(verdict(told), Verdict::Shown | Verdict::Failed);
    let native = |told: &Told<'a>| !level.runs() || told.attempt.result.nature == Some(Nature::Native);
    let (verdict, by) = if let Some(by) = newest(&|told| taught(told) && native(told)) {
        (verdict(&by), Some(by))
    } else if let Some(by) = newest(&taught) {
        let good = verdict(&by) == Verdict::Shown;
        (if good { Verdict::NotNative } else { Verdict::FailedNotNative }, Some(by))
    } else {
        let other = [Verdict::Infrastructure, Verdict::NotReached].into_iter();
        let found = other.map(|wanted| (wanted, newest(&|told| verdict(told) == wanted))).find(|(_, by)| by.is_some());
        found.unwrap_or((Verdict::NotTried, None))
    };
    let since = |told: &&Told<'a>| {
        told.attempt.result.verdict == Verdict::Infrastructure && by.is_none_or(|by| told.attempt.at > by.attempt.at)
    };
    Judged { verdict, by, lost_since: told.iter().filter(since).count() }
}

impl<'a> Judged<'a> {
    /// When the deciding try ended.
    pub(crate) fn at(&self) -> Option<Timestamp> {
        self.by.map(|by| by.attempt.at)
    }

    /// The deciding try's words.
    pub(crate) fn words(&self) -> &'a str {
        self.by.map_or("never tried", |by| by.attempt.result.words.as_str())
    }

    /// As the matrix says it.
    pub(crate) fn evidence(&self) -> Evidence {
        let by = self.by;
        let result = by.map(|by| &by.attempt.result);
        Evidence {
            verdict: self.verdict,
            words: self.words().to_owned(),
            at: self.at(),
            nature: result.and_then(|result| result.nature),
            suite: by.and_then(|by| by.attempt.suite.clone()),
            counts: result.and_then(|result| result.counts),
            evidence: by.map(|by| by.run.closed.digest().to_owned()),
            record: by.and_then(|by| by.attempt.record.clone()),
            lost_since: self.lost_since,
        }
    }
}
