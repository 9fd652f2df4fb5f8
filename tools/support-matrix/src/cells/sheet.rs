//! What many tries of one thing come to, entered one after the other: the newest that taught us something decides, the
//! others age it. Entering is cheap, so that a history of years can be gone through day by day.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet, VecDeque},
    rc::Rc,
};

use jiff::Timestamp;
use kit::record::Nature;

use super::{Told, is_lost};
use crate::{
    model::{Level, Verdict},
    policy::Suites,
};

/// Of so many native tries the outcome is remembered: more than any policy asks for.
const REMEMBERED: usize = 200;

/// The tries of a cell.
#[derive(Clone, Default)]
pub(crate) struct Sheet<'a> {
    levels: BTreeMap<Level, Lines<'a>>,
}

#[derive(Clone, Default)]
struct Lines<'a> {
    /// Every try, of whichever suite.
    any: Line<'a>,
    /// Those of no suite: what did not get so far counts for each of them.
    none: Line<'a>,
    suites: BTreeMap<Rc<str>, Line<'a>>,
    seen: HashSet<u64>,
}

/// Tries of one level and suite, in the order of time.
#[derive(Clone, Default)]
pub(crate) struct Line<'a> {
    native: Option<Told<'a>>,
    shown: Option<Told<'a>>,
    taught: Option<Told<'a>>,
    lost: Option<Told<'a>>,
    not_reached: Option<Told<'a>>,
    /// What taught nothing, and was not lost: a look that saw nothing, or a fault of our own.
    untried: Option<Told<'a>>,
    lost_in_all: usize,
    lost_since_native: usize,
    lost_since_taught: usize,
    bad_in_a_row: u32,
    outcomes: VecDeque<Told<'a>>,
}

/// The judgement on one level, and the try that decided.
#[derive(Clone, Copy)]
pub(crate) struct Judged<'a> {
    pub(crate) verdict: Verdict,
    pub(crate) by: Option<Told<'a>>,
    /// Tries after it that were lost to the infrastructure.
    pub(crate) lost_since: usize,
}

impl<'a> Sheet<'a> {
    /// Enters a try; they come in the order of time. A suite that nobody names says nothing.
    pub(crate) fn enter(&mut self, told: Told<'a>, suites: &Suites) {
        let Some(level) = told.attempt.level else { return };
        let suite = told.attempt.suite.as_deref().filter(|_| level == Level::E2e);
        if suite.is_some_and(|suite| !suites.count(&told.attempt.key.component, suite)) {
            return;
        }
        let lines = self.levels.entry(level).or_default();
        // A run that goes on from another holds copies of its records: they are no second try.
        if told.attempt.record.is_some_and(|record| !lines.seen.insert(record)) {
            return;
        }
        lines.any.enter(level, told);
        match &told.attempt.suite {
            Some(suite) => {
                let none = &lines.none;
                lines.suites.entry(Rc::clone(suite)).or_insert_with(|| none.clone()).enter(level, told);
            }
            None => {
                lines.none.enter(level, told);
                lines.suites.values_mut().for_each(|line| line.enter(level, told));
            }
        }
    }

    /// The tries of one suite, or of all.
    pub(crate) fn line(&self, level: Level, suite: Option<&str>) -> Option<&Line<'a>> {
        let lines = self.levels.get(&level)?;
        Some(suite.map_or(&lines.any, |suite| lines.suites.get(suite).unwrap_or(&lines.none)))
    }

    /// Judges the tries of one suite, or of all; `failing` native tries in a row are needed before a failure counts.
    pub(crate) fn judge(&self, level: Level, suite: Option<&str>, failing: u32) -> Judged<'a> {
        self.line(level, suite).map_or(Judged::NOTHING, |line| line.judge(failing))
    }

    /// Digests of every run that the judgements on all levels and suites rest on.
    pub(crate) fn rests(&self, failing: u32) -> impl Iterator<Item = &'a str> {
        let lines = self.levels.values().flat_map(|lines| lines.suites.values().chain([&lines.any]));
        lines.flat_map(move |line| line.rests(failing))
    }

    /// The suites that were tried at `level`.
    pub(crate) fn suites(&self, level: Level) -> impl Iterator<Item = &str> {
        self.levels.get(&level).into_iter().flat_map(|lines| lines.suites.keys()).map(|suite| &**suite)
    }

    /// Judges suites as one, those that are named or all that were tried: a small one that passes does not hide a large
    /// one that fails, however long ago that was, because time alone makes nothing good. Otherwise the newest one counts
    /// whose verdict `good` takes.
    pub(crate) fn worst(
        &self,
        level: Level,
        suites: &[String],
        failing: u32,
        good: impl Fn(Verdict) -> bool,
    ) -> Judged<'a> {
        let judge = |suite: &str| self.judge(level, Some(suite), failing);
        let each: Vec<_> = match suites {
            [] => self.suites(level).map(judge).collect(),
            named => named.iter().map(|suite| judge(suite)).collect(),
        };
        let newest = |wanted: &dyn Fn(Verdict) -> bool| {
            each.iter().filter(|judged| wanted(judged.verdict)).max_by_key(|judged| judged.at())
        };
        let failed = newest(&|verdict| verdict == Verdict::Failed);
        let best = failed.or_else(|| newest(&good)).or_else(|| each.iter().max_by_key(|judged| judged.rank()));
        best.copied().unwrap_or_else(|| self.judge(level, None, failing))
    }

    /// The moments from which evidence gets old.
    pub(crate) fn moments(&self) -> Vec<Timestamp> {
        let lines = self.levels.values().flat_map(|lines| lines.suites.values().chain([&lines.any]));
        // Where nothing was ever learnt, what taught nothing decides.
        let idle = |line: &Line<'a>| {
            [line.lost, line.not_reached, line.untried].map(|told| told.filter(|_| line.taught.is_none()))
        };
        let deciding = lines.flat_map(|line| [line.native, line.shown, line.taught].into_iter().chain(idle(line)));
        let mut moments: Vec<_> = deciding.flatten().map(|told| told.attempt.at).collect();
        moments.sort_unstable();
        moments.dedup();
        moments
    }
}

impl<'a> Line<'a> {
    fn enter(&mut self, level: Level, told: Told<'a>) {
        let native = !level.runs() || told.attempt.nature == Some(Nature::Native);
        match told.attempt.verdict {
            verdict @ (Verdict::Shown | Verdict::Failed) => {
                let good = verdict == Verdict::Shown;
                self.taught = Some(told);
                self.lost_since_taught = 0;
                if native {
                    self.native = Some(told);
                    self.lost_since_native = 0;
                    self.bad_in_a_row = if good { 0 } else { self.bad_in_a_row.saturating_add(1) };
                    self.outcomes.push_back(told);
                    if self.outcomes.len() > REMEMBERED {
                        self.outcomes.pop_front();
                    }
                    if good {
                        self.shown = Some(told);
                    }
                }
            }
            Verdict::Infrastructure if is_lost(&told) => {
                self.lost = Some(told);
                self.lost_in_all += 1;
                self.lost_since_native += 1;
                self.lost_since_taught += 1;
            }
            Verdict::NotReached => self.not_reached = Some(told),
            _ => self.untried = Some(told),
        }
    }

    fn judge(&self, failing: u32) -> Judged<'a> {
        let judged = |verdict, by, lost_since| Judged { verdict, by: Some(by), lost_since };
        if let Some(by) = self.native {
            let verdict = by.attempt.verdict;
            return match self.shown {
                // Not yet often enough in a row: what was shown before still stands.
                Some(shown) if verdict == Verdict::Failed && self.bad_in_a_row < failing => {
                    judged(Verdict::Shown, shown, self.lost_since_native)
                }
                _ => judged(verdict, by, self.lost_since_native),
            };
        }
        if let Some(by) = self.taught {
            let good = by.attempt.verdict == Verdict::Shown;
            let verdict = if good { Verdict::NotNative } else { Verdict::FailedNotNative };
            return judged(verdict, by, self.lost_since_taught);
        }
        match (self.lost, self.not_reached, self.untried) {
            (Some(by), ..) => judged(Verdict::Infrastructure, by, self.lost_in_all - 1),
            (None, Some(by), _) => judged(Verdict::NotReached, by, 0),
            (None, None, Some(by)) => judged(Verdict::NotTried, by, 0),
            (None, None, None) => Judged::NOTHING,
        }
    }

    /// Digests of the runs that a judgement rests on: the try that decides, as many as make it failing, and whoever says
    /// what it was that they tried.
    pub(crate) fn rests(&self, failing: u32) -> impl Iterator<Item = &'a str> {
        let last = self.outcomes.iter().rev().take(failing as usize).copied();
        let told = self.judge(failing).by.into_iter().chain(last);
        told.flat_map(|told| told.rests()).collect::<BTreeSet<_>>().into_iter()
    }

    /// The last native try that taught something.
    pub(crate) fn newest(&self) -> Option<Told<'a>> {
        self.outcomes.back().copied()
    }

    /// How many native tries in a row were not good.
    pub(crate) const fn bad_in_a_row(&self) -> u32 {
        self.bad_in_a_row
    }
}

impl<'a> Judged<'a> {
    /// Never tried at all.
    pub(crate) const NOTHING: Self = Self { verdict: Verdict::NotTried, by: None, lost_since: 0 };

    /// When the deciding try ended.
    pub(crate) fn at(&self) -> Option<Timestamp> {
        self.by.map(|by| by.attempt.at)
    }

    /// How much that is worth, when suites are compared: what was shown or failed natively most.
    pub(crate) fn rank(&self) -> (usize, Option<Timestamp>) {
        let order = [Verdict::NotReached, Verdict::Infrastructure, Verdict::FailedNotNative, Verdict::NotNative];
        let rank = match self.verdict {
            Verdict::Shown | Verdict::Failed => order.len() + 1,
            verdict => order.iter().position(|other| *other == verdict).map_or(0, |position| position + 1),
        };
        (rank, self.at())
    }
}
