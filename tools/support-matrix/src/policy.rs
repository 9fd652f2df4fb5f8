//! The claims of `ci/policy.toml`, computed from evidence. A claim that is not shown is not made.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use kit::{
    Cause, Error, Result, ci,
    ci::{Components, Policy},
};

use crate::{
    cells::{Judged, Line, References, Rules, Runs, Sheet, Told},
    evidence::Key,
    history::Library,
    model::{Claim, Level, OriginKind, Owned, Verdict},
    text::{day, many, older},
};

/// The claim that the product is about.
pub(crate) const SUPPORTED: &str = "supported";

/// Refuses a policy that asks for what does not exist: it would never be met, and nobody would know why.
///
/// # Errors
/// [`Cause::Usage`], naming the level and the word.
pub(crate) fn check(policy: &Policy) -> Result<()> {
    let refuse = |level: &ci::Level, what: String| {
        Err(Error::new(Cause::Usage, format!("ci/policy.toml: level '{}': {what}", level.name)))
    };
    for level in &policy.level {
        if let Some(unknown) = level.evidence.iter().find(|name| Level::find(name).is_none()) {
            let known: Vec<_> = Level::ALL.iter().map(|level| level.name()).collect();
            let error = refuse(level, format!("unknown evidence '{unknown}'"));
            return error.map_err(|error| error.next(format!("known: {}", known.join(", "))));
        }
        if let Some(unknown) = level.origin.as_deref().filter(|origin| *origin != OriginKind::Published.name()) {
            return refuse(level, format!("unknown origin '{unknown}'"));
        }
        if let Some(rate) = level.pass_rate
            && !(rate.least > 0.0 && rate.least <= 1.0 && (1..=200).contains(&rate.last))
        {
            return refuse(level, "pass_rate needs a share above 0 and at most 1, and from 1 to 200 runs".into());
        }
        if level.pass_rate.is_some() && !level.native {
            return refuse(level, "pass_rate is of native runs: it needs native = true".into());
        }
        let tests = level.evidence.iter().any(|name| name == Level::E2e.name());
        if !tests && (level.pass_rate.is_some() || level.max_skips.is_some() || level.unlike_reference.is_some()) {
            return refuse(
                level,
                "pass_rate, max_skips and unlike_reference speak of tests: it needs evidence 'e2e'".into(),
            );
        }
    }
    if policy.states.failing == 0 {
        return Err(Error::new(
            Cause::Usage,
            "ci/policy.toml: [states] failing: at least one run makes a cell failing",
        ));
    }
    Ok(())
}

/// The suites of end-to-end tests that say something of a component: those that a level names, and the component's own.
/// What somebody calls a suite elsewhere is no evidence.
#[derive(Clone)]
pub(crate) struct Suites {
    /// A level asks for tests and names none: any will do.
    any: bool,
    named: BTreeSet<String>,
    of: BTreeMap<String, BTreeSet<String>>,
}

impl Suites {
    /// Of ci/policy.toml and ci/components.toml.
    pub(crate) fn new(policy: &Policy, components: &Components) -> Self {
        let tests = |level: &&ci::Level| level.evidence.iter().any(|name| Level::find(name) == Some(Level::E2e));
        let named: BTreeSet<_> = policy.level.iter().filter(tests).flat_map(|level| level.suites.clone()).collect();
        let any = named.is_empty() || policy.level.iter().filter(tests).any(|level| level.suites.is_empty());
        let own = |component: &ci::Component| component.suites.keys().cloned().collect();
        Self { any, named, of: components.iter().map(|(name, component)| (name.clone(), own(component))).collect() }
    }

    /// Whether a suite says something of a component.
    pub(crate) fn count(&self, component: &str, suite: &str) -> bool {
        self.any || self.named.contains(suite) || self.of.get(component).is_some_and(|own| own.contains(suite))
    }
}

/// How many days evidence counts for the claim `name`, if there is an end to it.
pub(crate) fn max_age(name: &str, rules: &Rules) -> Option<u32> {
    rules.policy.level.iter().find(|level| level.name == name).and_then(|level| level.max_age)
}

/// After how many days tests are stale.
pub(crate) fn stale_after(rules: &Rules) -> Option<u32> {
    rules.policy.states.stale.or_else(|| max_age("tested", rules))
}

/// Every number of days after which something changes.
pub(crate) fn ages(rules: &Rules) -> Vec<u32> {
    let states = &rules.policy.states;
    let levels = rules.policy.level.iter().filter_map(|level| level.max_age);
    let mut ages: Vec<u32> = levels.chain(states.stale).chain(states.unknown).collect();
    ages.sort_unstable();
    ages.dedup();
    ages
}

/// So many days after `at`.
pub(crate) fn after(at: Timestamp, days: u32) -> Timestamp {
    at.checked_add(SignedDuration::from_hours(24 * i64::from(days))).unwrap_or(Timestamp::MAX)
}

/// What claims are computed from.
pub(crate) struct Basis<'b, 'a> {
    pub(crate) library: &'b Library,
    pub(crate) references: &'b References<'a>,
    /// Runs of tests on the cell's line of versions.
    pub(crate) runs: Runs<'b, 'a>,
    pub(crate) rules: &'b Rules,
    pub(crate) key: &'b Key,
    pub(crate) owned: &'b Owned,
}

impl<'a> Basis<'_, 'a> {
    /// The last valid runs of tests on the cell's line of versions, up to its own last one, newest first: of a commit
    /// alone there is one run each night, and what comes after it says nothing of it.
    pub(crate) fn recent(&self, sheet: &Sheet<'a>, suite: Option<&str>, most: usize) -> Vec<Told<'a>> {
        let own = sheet.line(Level::E2e, suite).and_then(Line::newest);
        own.map_or_else(Vec::new, |own| self.runs.last(suite, own.run.finished, most))
    }
}

/// How many of them passed.
pub(crate) fn passed(runs: &[Told<'_>]) -> usize {
    runs.iter().filter(|told| told.attempt.verdict == Verdict::Shown).count()
}

/// Every claim, from weak to strong.
///
/// # Errors
/// If the index is damaged.
pub(crate) fn claims<'a>(basis: &Basis<'_, 'a>, sheet: &Sheet<'a>, now: Timestamp) -> Result<Vec<Claim>> {
    basis.rules.policy.level.iter().map(|level| claim(level, basis, sheet, now)).collect()
}

/// Whether a claim is made or not by nothing but the comparison with the reference: then a run there can change it.
///
/// # Errors
/// If the index is damaged.
pub(crate) fn hangs_on_reference<'a>(basis: &Basis<'_, 'a>, sheet: &Sheet<'a>, now: Timestamp) -> Result<bool> {
    for level in basis.rules.policy.level.iter().filter(|level| level.unlike_reference.is_some()) {
        let alone = ci::Level { unlike_reference: None, ..level.clone() };
        if claim(&alone, basis, sheet, now)?.met {
            return Ok(true);
        }
    }
    Ok(false)
}

/// The claim `supported`, or that nothing defines it.
pub(crate) fn supported(claims: &[Claim]) -> Claim {
    claims.iter().find(|claim| claim.name == SUPPORTED).cloned().unwrap_or_else(|| Claim {
        name: SUPPORTED.into(),
        met: false,
        reasons: vec!["ci/policy.toml does not say what it requires".into()],
        until: None,
        expired: None,
        evidence: Vec::new(),
    })
}

/// The bundles that a claim rests on, by digest, whether it is met or not: what was judged, the runs of its pass rate, and
/// those of the reference platform.
///
/// # Errors
/// If the index is damaged.
pub(crate) fn rests<'a>(
    level: &ci::Level,
    basis: &Basis<'_, 'a>,
    sheet: &Sheet<'a>,
    now: Timestamp,
) -> Result<BTreeSet<&'a str>> {
    let failing = basis.rules.policy.states.failing;
    let mut found = BTreeSet::new();
    for name in level.evidence.iter().filter_map(|name| Level::find(name)) {
        let tests = name == Level::E2e;
        let suites = if tests { &level.suites[..] } else { &[] };
        let most = level.pass_rate.filter(|_| tests).map_or(0, |rate| rate.last);
        let judged = sheet.worst(name, suites, failing, |verdict| counts(level, verdict));
        // Where no suite is named, each that was tried may decide; where none was, there is one line.
        let named = suites.iter().map(String::as_str);
        let tried = sheet.suites(name).filter(|_| suites.is_empty());
        let all = named.chain(tried).map(Some).chain(suites.is_empty().then_some(None));
        for suite in all {
            found.extend(sheet.line(name, suite).into_iter().flat_map(|line| line.rests(failing)));
            if most > 0 {
                found.extend(basis.recent(sheet, suite, most).iter().flat_map(Told::rests));
            }
        }
        if let Some(by) = judged.by.filter(|_| tests && level.unlike_reference.is_some())
            && let Some((there, _)) = basis.references.compare(basis.library, basis.key, by, now)?
        {
            found.extend(there.rests());
        }
    }
    Ok(found)
}

fn claim<'a>(level: &ci::Level, basis: &Basis<'_, 'a>, sheet: &Sheet<'a>, now: Timestamp) -> Result<Claim> {
    let Basis { rules, key, owned, .. } = basis;
    let mut reasons = Vec::new();
    let mut until: Option<Timestamp> = None;
    let mut old = 0;
    let asked: Vec<_> = level.evidence.iter().filter_map(|name| Level::find(name)).collect();
    for name in asked.iter().copied() {
        let suites = if name == Level::E2e { &level.suites[..] } else { &[] };
        // As the cell's state is: none of the suites may be failing, and any one of them is enough.
        let judged = sheet.worst(name, suites, rules.policy.states.failing, |verdict| counts(level, verdict));
        match judged.at().filter(|_| counts(level, judged.verdict)) {
            None => reasons.push(missing(name, suites, &judged)),
            Some(at) => {
                if name == Level::E2e {
                    tests(level, basis, sheet, &judged, now, &mut reasons)?;
                }
                let Some(days) = level.max_age else { continue };
                if older(at, now, days) {
                    old += 1;
                    reasons.push(format!("{}: shown on {}, more than {days} days ago", name.name(), day(at)));
                }
                let end = after(at, days);
                until = Some(until.map_or(end, |until| until.min(end)));
            }
        }
    }
    if asked.contains(&Level::E2e) {
        reasons.extend(failing(level, &asked, basis, sheet));
    }
    if level.origin.is_some() && key.origin != OriginKind::Published {
        reasons.push(format!("not a published release: {}", key.origin.words()));
    }
    if owned.owners.len() < level.owners as usize {
        reasons.push(format!("{} of at least {}", many(owned.owners.len(), "owner"), level.owners));
    }
    if owned.machines < level.machines {
        reasons.push(format!("{} of at least {}", many(owned.machines as usize, "machine"), level.machines));
    }
    let met = reasons.is_empty();
    let by_age = !met && reasons.len() == old;
    let (until, expired) = (until.filter(|_| met), until.filter(|_| by_age));
    Ok(Claim { name: level.name.clone(), met, reasons, until, expired, evidence: Vec::new() })
}

/// What is failing although the level does not ask for it: of a cell that fails, nothing is said that rests on tests.
fn failing(level: &ci::Level, asked: &[Level], basis: &Basis<'_, '_>, sheet: &Sheet<'_>) -> Vec<String> {
    let failing = basis.rules.policy.states.failing;
    let mut reasons = Vec::new();
    for name in [Level::Index, Level::Contents, Level::Installs, Level::E2e] {
        let worst = |suites: &[String]| sheet.worst(name, suites, failing, |verdict| counts(level, verdict));
        let suites = if name == Level::E2e { &level.suites[..] } else { &[] };
        let is_said = asked.contains(&name) && worst(suites).verdict == Verdict::Failed;
        let judged = worst(&[]);
        if judged.verdict == Verdict::Failed && !is_said {
            let suite = judged.by.and_then(|by| by.attempt.suite.as_deref());
            reasons.push(missing(name, &suite.into_iter().map(str::to_owned).collect::<Vec<_>>(), &judged));
        }
    }
    reasons
}

/// What is asked of the tests beside that they passed.
fn tests<'a>(
    level: &ci::Level,
    basis: &Basis<'_, 'a>,
    sheet: &Sheet<'a>,
    judged: &Judged<'a>,
    now: Timestamp,
    reasons: &mut Vec<String>,
) -> Result<()> {
    let Some(by) = judged.by else { return Ok(()) };
    let suite = by.attempt.suite.as_deref();
    let what = suite.map_or_else(|| "e2e".to_owned(), |suite| format!("e2e {suite}"));
    if let Some(rate) = level.pass_rate {
        let runs = basis.recent(sheet, suite, rate.last);
        let (passed, all) = (passed(&runs), runs.len());
        if (passed as f64) < rate.least * all as f64 {
            let least = (rate.least * 100.0).round();
            reasons.push(format!("{what}: {passed} of the last {all} valid runs passed, fewer than {least} %"));
        }
    }
    let counts = by.attempt.counts().unwrap_or_default();
    let skips = counts.skipped + counts.excluded;
    if let Some(most) = level.max_skips.filter(|most| skips > *most) {
        reasons.push(format!("{what}: {} skipped or excluded, more than {most}", many(skips, "test")));
    }
    let Some(most) = level.unlike_reference else { return Ok(()) };
    let reference = basis.references.platform();
    if basis.key.platform == *reference {
        return Ok(());
    }
    match basis.references.compare(basis.library, basis.key, by, now)? {
        None => reasons.push(format!("{what}: never tested on {reference} in this version, with which it is compared")),
        Some((_, found)) if found.count > most => {
            let tests = if found.count == 1 { "1 test passes".into() } else { format!("{} tests pass", found.count) };
            reasons.push(format!("{what}: {tests} on {reference} and not here: {}", found.names(3)));
        }
        Some(_) => {}
    }
    Ok(())
}

const fn counts(level: &ci::Level, verdict: Verdict) -> bool {
    matches!(verdict, Verdict::Shown) || (matches!(verdict, Verdict::NotNative) && !level.native)
}

fn missing(name: Level, suites: &[String], judged: &Judged<'_>) -> String {
    let suites = if suites.is_empty() { String::new() } else { format!(" {}", suites.join(" or ")) };
    let what = format!("{}{suites}", name.name());
    match judged.verdict {
        Verdict::Shown => format!("{what}: shown"),
        Verdict::NotTried if judged.by.is_some() => format!("{what}: nothing was learnt"),
        Verdict::NotTried => format!("{what}: never tried"),
        Verdict::NotReached => format!("{what}: never reached"),
        Verdict::Infrastructure => format!("{what}: lost to the infrastructure"),
        Verdict::Failed => format!("{what}: not good"),
        Verdict::NotNative | Verdict::FailedNotNative => format!("{what}: not on native nodes"),
    }
}
