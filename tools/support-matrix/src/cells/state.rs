//! A cell in one word, with the reason; and its axes.

use std::rc::Rc;

use jiff::Timestamp;
use kit::{Result, record::Nature};

use super::{Judged, Rules, Sheet, Told, sheet::Line};
use crate::{
    evidence::{Attempt, Key},
    history::Library,
    index::Facts,
    model::{Available, Evidence, Level, OriginKind, State, Tested, Verdict},
    policy,
    text::{day, list, many, older},
};

/// Every level, judged, in the order of [`Level::ALL`].
pub(crate) fn levels<'a>(sheet: &Sheet<'a>, rules: &Rules) -> [Judged<'a>; 7] {
    let shown = |verdict| verdict == Verdict::Shown;
    Level::ALL.map(|level| sheet.worst(level, &[], rules.policy.states.failing, shown))
}

/// Why a cell is what it is; the words are put together only when somebody reads them.
#[derive(Clone)]
pub(crate) enum Reason<'a> {
    /// This is not good.
    Failing(Judged<'a>),
    /// This is good.
    Good(Judged<'a>),
    /// This was good, so many days ago.
    TooOld(Judged<'a>, u32),
    /// This was, so many days ago that nobody believes it any more.
    Forgotten(Judged<'a>, u32),
    /// All tries of this were lost.
    Lost(Judged<'a>),
    /// That, although all tries of this were lost: what was shown before stands.
    Despite(Box<Self>, Judged<'a>),
    /// This is known, but not from native nodes.
    NotNative(Judged<'a>),
    /// The images are good; this is not known from native nodes; whether tests ran.
    Images(Judged<'a>, Option<Judged<'a>>, bool),
    /// It is installed, and no test ran.
    Untested(Judged<'a>, bool),
    /// The build ended before it.
    NotBuilt(Judged<'a>),
    /// Nothing.
    Nothing,
}

/// The state, and why.
pub(crate) fn state<'a>(key: &Key, judged: &[Judged<'a>; 7], rules: &Rules, now: Timestamp) -> (State, Reason<'a>) {
    let (state, reason) = fresh(key, judged, rules, now);
    let Some(days) = rules.policy.states.unknown else { return (state, reason) };
    // What taught nothing keeps nothing fresh, unless there is nothing else.
    let taught = |judged: &&Judged<'a>| {
        !matches!(judged.verdict, Verdict::Infrastructure | Verdict::NotReached | Verdict::NotTried)
    };
    let newest = judged.iter().filter(taught).max_by_key(|judged| judged.at());
    let newest = newest.or_else(|| judged.iter().filter(|judged| judged.by.is_some()).max_by_key(|judged| judged.at()));
    match newest {
        Some(newest) if newest.at().is_some_and(|at| older(at, now, days)) => {
            (State::Unknown, Reason::Forgotten(*newest, days))
        }
        _ => (state, reason),
    }
}

fn fresh<'a>(key: &Key, judged: &[Judged<'a>; 7], rules: &Rules, now: Timestamp) -> (State, Reason<'a>) {
    let [index, contents, installs, _, e2e, ..] = judged;
    let bad = [index, contents, installs, e2e].into_iter().find(|judged| judged.verdict == Verdict::Failed);
    if let Some(bad) = bad {
        return (State::Failing, Reason::Failing(*bad));
    }
    // Whatever was shown, it decays.
    let decays = |judged: &Judged<'a>, days: Option<u32>, state: State, reason: Reason<'a>| match days {
        Some(days) if judged.at().is_some_and(|at| older(at, now, days)) => {
            (State::Stale, Reason::TooOld(*judged, days))
        }
        _ => (state, reason),
    };
    let stale = policy::stale_after(rules);
    let images = |other: Option<Judged<'a>>, tested: bool| {
        let state = if key.origin == OriginKind::Published { State::Available } else { State::Built };
        let days = rules.policy.states.stale.or_else(|| policy::max_age("built", rules));
        decays(contents, days, state, Reason::Images(*contents, other, tested))
    };
    // The infrastructure makes nothing worse than it was shown to be: it only keeps it from being shown again.
    let lost = [installs, e2e, contents].into_iter().find(|judged| judged.verdict == Verdict::Infrastructure);
    let (state, reason) = match (contents.verdict, installs.verdict, e2e.verdict) {
        (_, _, Verdict::Shown) => decays(e2e, stale, State::TestedNatively, Reason::Good(*e2e)),
        (_, _, Verdict::NotNative) => decays(e2e, stale, State::TestedNotNatively, Reason::NotNative(*e2e)),
        (Verdict::Shown, _, Verdict::FailedNotNative) => images(Some(*e2e), true),
        (_, _, Verdict::FailedNotNative) => (State::Unknown, Reason::NotNative(*e2e)),
        (_, Verdict::Shown, _) => decays(installs, stale, State::Installed, Reason::Untested(*installs, true)),
        (Verdict::Shown, Verdict::NotNative | Verdict::FailedNotNative, _) => images(Some(*installs), false),
        (_, Verdict::NotNative | Verdict::FailedNotNative, _) => (State::Unknown, Reason::Untested(*installs, false)),
        (Verdict::Shown, ..) => images(None, false),
        _ => match lost {
            Some(lost) => return (State::Infrastructure, Reason::Lost(*lost)),
            None if contents.verdict == Verdict::NotReached => (State::Unknown, Reason::NotBuilt(*contents)),
            None => (State::Unknown, Reason::Nothing),
        },
    };
    match lost {
        Some(lost) => (state, Reason::Despite(Box::new(reason), *lost)),
        None => (state, reason),
    }
}

impl<'a> Reason<'a> {
    /// What somebody has to look at, if it is red: what failed, or was lost.
    pub(crate) fn trouble(&self) -> Option<&Judged<'a>> {
        match self {
            Self::Failing(judged) | Self::Lost(judged) | Self::Despite(_, judged) => Some(judged),
            _ => None,
        }
    }

    /// The try that decided, if there is one.
    pub(crate) fn by(&self) -> Option<&Judged<'a>> {
        match self {
            Self::Despite(reason, _) => reason.by(),
            Self::Failing(judged)
            | Self::Good(judged)
            | Self::TooOld(judged, _)
            | Self::Forgotten(judged, _)
            | Self::Lost(judged)
            | Self::NotNative(judged)
            | Self::Images(judged, ..)
            | Self::Untested(judged, _)
            | Self::NotBuilt(judged) => Some(judged),
            Self::Nothing => None,
        }
    }

    /// In words.
    ///
    /// # Errors
    /// If the index is damaged.
    pub(crate) fn words(&self, library: &Library) -> Result<String> {
        Ok(match self {
            Self::Failing(judged) => {
                let said = judged.said(library)?;
                format!("{}: {}{}", said.name, said.dated, failing_tests(library, judged.by)?)
            }
            Self::Good(judged) => {
                let said = judged.said(library)?;
                format!("{}: {}{}", said.name, said.dated, lost(judged))
            }
            Self::TooOld(judged, days) => {
                let said = judged.said(library)?;
                format!("{}: {}, more than {days} days ago{}", said.name, said.dated, lost(judged))
            }
            Self::Forgotten(judged, days) => {
                let said = judged.said(library)?;
                format!("nothing is known since more than {days} days; {}: {}", said.name, said.dated)
            }
            Self::Lost(judged) => {
                let said = judged.said(library)?;
                format!("{} lost to the infrastructure; {}: {}", all_tries(judged), said.name, said.words)
            }
            Self::Despite(reason, judged) => {
                let (shown, said) = (reason.words(library)?, judged.said(library)?);
                let tries = all_tries(judged);
                format!("{shown}; {}: {tries} lost to the infrastructure: {}", said.name, said.words)
            }
            Self::NotNative(judged) => judged.said(library)?.not_native(judged),
            Self::Images(contents, other, tested) => {
                let images = contents.said(library)?.dated;
                match (other, tested) {
                    (None, _) => format!("{images}; nothing ran on this platform"),
                    (Some(other), true) => format!("{images}; {}", other.said(library)?.not_native(other)),
                    (Some(other), false) => {
                        format!("{images}; {}; no test ran", other.said(library)?.not_native(other))
                    }
                }
            }
            Self::Untested(judged, true) => format!("{}; no test ran", judged.said(library)?.dated),
            Self::Untested(judged, false) => format!("{}; no test ran", judged.said(library)?.not_native(judged)),
            Self::NotBuilt(judged) => format!("not built; {}", judged.said(library)?.dated),
            Self::Nothing => "nothing was shown of it".into(),
        })
    }
}

/// One of a run's statements. It is not copied: each level of each cell asks for one.
pub(crate) struct Statement {
    facts: Rc<Facts>,
    number: usize,
}

impl std::ops::Deref for Statement {
    type Target = Attempt;

    fn deref(&self) -> &Attempt {
        &self.facts.attempts[self.number]
    }
}

/// What the deciding try's own record says.
struct Said {
    name: String,
    words: String,
    dated: String,
    nature: Nature,
}

impl Said {
    fn not_native(&self, judged: &Judged<'_>) -> String {
        let nodes = match self.nature {
            Nature::Unknown => "nodes of unknown nature",
            Nature::Emulated => "emulated nodes",
            Nature::Native => "native nodes",
        };
        let verdict = if judged.verdict == Verdict::FailedNotNative { "not good" } else { "good" };
        format!("{}: {}, {verdict} on {nodes}, which never counts as native", self.name, self.dated)
    }
}

fn failing_tests(library: &Library, by: Option<Told<'_>>) -> Result<String> {
    let Some(by) = by else { return Ok(String::new()) };
    let tests = library.listed(&by.run.digest, by.attempt.number)?;
    let failed = tests.iter().filter(|test| test.status == kit::record::Status::Failed && !test.name.contains('/'));
    let cause = |test: &crate::model::TestRow| test.cause.map_or("no cause", kit::Cause::name);
    let names: Vec<_> = failed.map(|test| format!("{} ({})", test.name, cause(test))).collect();
    Ok(if names.is_empty() { String::new() } else { format!("; {}", list(&names, 3)) })
}

fn all_tries(judged: &Judged<'_>) -> String {
    match judged.lost_since {
        0 => "the only try was".to_owned(),
        more => format!("all {} tries were", more + 1),
    }
}

fn lost(judged: &Judged<'_>) -> String {
    match judged.lost_since {
        0 => String::new(),
        1 => "; the try since then was lost to the infrastructure".into(),
        count => format!("; {count} tries since then were lost to the infrastructure"),
    }
}

impl Judged<'_> {
    /// Everything that the deciding try's record says.
    ///
    /// # Errors
    /// If the index is damaged.
    pub(crate) fn attempt(&self, library: &Library) -> Result<Option<Statement>> {
        let Some(by) = self.by else { return Ok(None) };
        let (facts, number) = (library.facts(&by.run.digest)?, usize::from(by.attempt.number));
        Ok((number < facts.attempts.len()).then_some(Statement { facts, number }))
    }

    fn said(&self, library: &Library) -> Result<Said> {
        let attempt = self.attempt(library)?;
        let result = attempt.as_ref().map(|attempt| &attempt.result);
        let words = result.map_or("never tried", |result| result.words.as_str()).to_owned();
        let date = self.at().map_or_else(String::new, |at| format!(" on {}", day(at)));
        Ok(Said {
            name: result.map_or("", |result| result.name.as_str()).to_owned(),
            dated: format!("{words}{date}"),
            nature: result.and_then(|result| result.nature).unwrap_or(Nature::Unknown),
            words,
        })
    }

    /// As the matrix says it.
    ///
    /// # Errors
    /// If the index is damaged.
    pub(crate) fn evidence(&self, library: &Library) -> Result<Evidence> {
        let attempt = self.attempt(library)?;
        let result = attempt.as_ref().map(|attempt| &attempt.result);
        Ok(Evidence {
            verdict: self.verdict,
            words: result.map_or("never tried", |result| result.words.as_str()).to_owned(),
            at: self.at(),
            nature: result.and_then(|result| result.nature),
            suite: attempt.as_ref().and_then(|attempt| attempt.suite.clone()),
            counts: result.and_then(|result| result.counts),
            evidence: self.by.map(|by| by.run.digest.to_string()),
            record: attempt.as_ref().and_then(|attempt| attempt.record.clone()),
            lost_since: self.lost_since,
        })
    }
}

/// The axis of images.
pub(crate) fn available(origin: OriginKind, judged: &[Judged<'_>; 7]) -> Available {
    let [_, contents, ..] = judged;
    let shown = contents.verdict == Verdict::Shown;
    let available = shown && origin == OriginKind::Published;
    let words = match (shown, origin) {
        (true, OriginKind::Published) => "available",
        (true, _) => "built, verified",
        (false, _) => "not verified",
    };
    let evidence = contents.by.map(|by| by.run.digest.to_string());
    Available { available, words: words.into(), at: contents.at(), evidence }
}

/// The axis of tests: the last full native run, which is one of the suites that 'supported' asks for; as long as there was
/// none, the last of any suite.
///
/// # Errors
/// If the index is damaged.
pub(crate) fn tested(library: &Library, sheet: &Sheet<'_>, judged: &[Judged<'_>; 7], rules: &Rules) -> Result<Tested> {
    let is_native = |judged: &Judged<'_>| matches!(judged.verdict, Verdict::Shown | Verdict::Failed);
    let shown = |verdict| verdict == Verdict::Shown;
    let full = rules.policy.level.iter().find(|level| level.name == policy::SUPPORTED);
    let full = full.map(|level| sheet.worst(Level::E2e, &level.suites, rules.policy.states.failing, shown));
    let e2e = full.filter(is_native).unwrap_or(judged[4]);
    let Some(by) = e2e.by.filter(|_| is_native(&e2e)) else {
        let words = match e2e.verdict {
            Verdict::NotNative | Verdict::FailedNotNative => "never natively",
            Verdict::Infrastructure => "never to an end",
            _ => "never",
        };
        return Ok(Tested { words: words.into(), ..Tested::default() });
    };
    let attempt = e2e.attempt(library)?;
    Ok(Tested {
        passed: e2e.verdict == Verdict::Shown,
        words: attempt.as_ref().map_or_else(String::new, |attempt| attempt.result.words.clone()),
        at: e2e.at(),
        suite: by.attempt.suite.as_deref().map(str::to_owned),
        counts: by.attempt.counts(),
        release: by.attempt.release.as_deref().map(str::to_owned),
        cluster: attempt.and_then(|attempt| attempt.cluster.clone()),
        evidence: Some(by.run.digest.to_string()),
    })
}

/// How many failures in a row there are which are not yet enough, of the suite that has most of them.
pub(crate) fn doubts(sheet: &Sheet<'_>, rules: &Rules) -> Option<String> {
    let suites = sheet.suites(Level::E2e).map(Some).chain([None]);
    let levels = [Level::Index, Level::Contents, Level::Installs].map(|level| (level, None));
    // What is of no suite counts for each of them; of all together the good ones would hide the others.
    let has_suites = sheet.suites(Level::E2e).next().is_some();
    let tests = suites.filter(|suite| suite.is_some() || !has_suites).map(|suite| (Level::E2e, suite));
    let lines = tests.chain(levels).filter_map(|(level, suite)| sheet.line(level, suite));
    let bad = lines.map(Line::bad_in_a_row).max()?;
    (bad > 0 && bad < rules.policy.states.failing).then(|| {
        format!(
            "{} in a row not good, of {} that make it failing",
            many(bad as usize, "run"),
            rules.policy.states.failing
        )
    })
}
