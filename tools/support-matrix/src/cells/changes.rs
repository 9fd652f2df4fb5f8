//! How a cell changes over time: what it was after each run, and what time alone makes of it.

use std::collections::BTreeMap;

use jiff::{SignedDuration, Timestamp};
use kit::Result;

use super::{
    Book, Entry, Rules, Sheet, Told, owned,
    state::{self, Reason},
};
use crate::{
    history::Library,
    index::RunRef,
    model::{Change, Claim, Direction, LogEntry, State},
    policy::{self, Basis},
};

/// Of so many entries the evidence is looked at, from the newest on: all that anybody reads of one cell, or of a year of
/// nights. To read every bundle of a large history would take minutes.
const CHECKED: usize = 1_000;

/// What a cell is at a moment.
pub(crate) struct Status<'a> {
    pub(crate) state: State,
    pub(crate) reason: Reason<'a>,
    pub(crate) claims: Vec<Claim>,
}

impl<'a> Status<'a> {
    /// What the tries in `sheet` come to at `now`.
    ///
    /// # Errors
    /// If the index is damaged.
    pub(crate) fn of(basis: &Basis<'_, 'a>, sheet: &Sheet<'a>, now: Timestamp) -> Result<Self> {
        let judged = state::levels(sheet, basis.rules);
        let (state, reason) = state::state(basis.key, &judged, basis.rules, now);
        Ok(Self { state, reason, claims: policy::claims(basis, sheet, now)? })
    }

    /// The strongest claim that is met: its place among the claims.
    fn claim(&self) -> Option<usize> {
        self.claims.iter().rposition(|claim| claim.met)
    }

    fn claim_name(&self) -> Option<String> {
        self.claim().map(|place| self.claims[place].name.clone())
    }

    fn same(&self, other: &Self) -> bool {
        let met = |status: &Self| status.claims.iter().map(|claim| claim.met).collect::<Vec<_>>();
        self.state == other.state && met(self) == met(other)
    }
}

/// The next change of what it is now, `before`, that comes by time alone, and which.
///
/// # Errors
/// If the index is damaged.
pub(super) fn next<'a>(
    basis: &Basis<'_, 'a>,
    sheet: &Sheet<'a>,
    before: &Status<'a>,
    now: Timestamp,
) -> Result<Option<Change>> {
    let Some((at, after)) = by_time(basis, sheet, before, now, Timestamp::MAX)? else { return Ok(None) };
    let lost = before.claims.iter().zip(&after.claims).rev().find(|(before, after)| before.met && !after.met);
    let lost = lost.map(|(claim, _)| format!("no longer '{}'", claim.name));
    let state = (before.state != after.state).then(|| after.state.words(None).to_owned());
    Ok(Some(Change {
        at,
        words: state.into_iter().chain(lost).collect::<Vec<_>>().join(", "),
        state: after.state,
        claim: after.claim_name(),
        why: why(before, &after).unwrap_or_else(|| after.reason.words(basis.library).unwrap_or_default()),
    }))
}

/// The first change after `now` and before `end` if nothing new comes.
fn by_time<'a>(
    basis: &Basis<'_, 'a>,
    sheet: &Sheet<'a>,
    before: &Status<'a>,
    now: Timestamp,
    end: Timestamp,
) -> Result<Option<(Timestamp, Status<'a>)>> {
    let ages = policy::ages(basis.rules);
    let mut moments: Vec<Timestamp> =
        sheet.moments().iter().flat_map(|at| ages.iter().map(|days| policy::after(*at, *days))).collect();
    // Something is too old only after its last moment.
    moments.retain(|at| *at >= now && *at < end && *at < Timestamp::MAX);
    moments.sort_unstable();
    moments.dedup();
    for at in moments {
        let just_after = at.checked_add(SignedDuration::from_millis(1)).unwrap_or(at);
        if just_after <= now {
            continue;
        }
        let after = Status::of(basis, sheet, just_after)?;
        if !before.same(&after) {
            return Ok(Some((at, after)));
        }
    }
    Ok(None)
}

/// Which rule was met or is not any more.
fn why(before: &Status<'_>, after: &Status<'_>) -> Option<String> {
    let both = || before.claims.iter().zip(&after.claims);
    let lost = both().rev().find(|(before, after)| before.met && !after.met);
    let won = both().rev().find(|(before, after)| !before.met && after.met);
    match (lost, won) {
        (Some((_, after)), _) => Some(format!("{}: {}", after.name, after.reasons.join("; "))),
        (None, Some((_, after))) => Some(format!("{}: everything that it requires is shown", after.name)),
        (None, None) => None,
    }
}

/// The log, of which the bundles that its newest entries name were looked at; where one is damaged, it is left out and the
/// log is made again.
///
/// # Errors
/// As [`changes`].
pub(crate) fn log(
    library: &Library,
    rules: &Rules,
    wanted: &dyn Fn(&Entry<'_>) -> bool,
    since: Option<Timestamp>,
) -> Result<Vec<LogEntry>> {
    loop {
        let log = changes(library, rules, wanted, since)?;
        let named = log.iter().rev().take(CHECKED).filter_map(|entry| entry.evidence.as_deref());
        if library.check(named)? {
            return Ok(log);
        }
    }
}

/// Every change of every cell until `rules.now`, in the order of time: each promotion and demotion with the rule and the
/// evidence. Only cells that `wanted` takes.
///
/// # Errors
/// If the index is damaged.
fn changes(
    library: &Library,
    rules: &Rules,
    wanted: &dyn Fn(&Entry<'_>) -> bool,
    since: Option<Timestamp>,
) -> Result<Vec<LogEntry>> {
    policy::check(&rules.policy)?;
    let known = library.at(rules.now);
    let book = Book::new(&known, rules);
    let mut log = Vec::new();
    for entry in book.cells.iter().filter(|entry| wanted(entry)) {
        kit::signal::check()?;
        of_cell(library, &book, entry, rules, since, &mut log)?;
    }
    log.sort_by(|a, b| (a.at, &a.cell).cmp(&(b.at, &b.cell)));
    Ok(log)
}

fn of_cell<'a>(
    library: &Library,
    book: &Book<'a>,
    entry: &Entry<'a>,
    rules: &Rules,
    since: Option<Timestamp>,
    log: &mut Vec<LogEntry>,
) -> Result<()> {
    let owned = owned(&entry.key.platform, rules);
    let runs = book.streams.of(entry);
    let basis = Basis { library, references: &book.references, runs, rules, key: &entry.key, owned: &owned };
    let mut sheet = Sheet::default();
    let mut last: Option<Status<'a>> = None;
    let mut clock = Timestamp::MIN;
    let mut entered: Vec<Told<'a>> = Vec::new();
    for Tick { run, told } in ticks(&entry.told, book.references.of(&entry.key)) {
        // What a run says is known when all of it is.
        let at = run.finished;
        last = age(&basis, &sheet, entry, (last, clock, at), since, log)?;
        clock = at;
        // What the reference does before anything was tried here is no change of this cell; later it may be.
        if told.is_empty() && (last.is_none() || !policy::hangs_on_reference(&basis, &sheet, at)?) {
            continue;
        }
        let in_order = entered.last().zip(told.first()).is_none_or(|(a, b)| a.attempt.at <= b.attempt.at);
        entered.extend(&told);
        if in_order {
            told.iter().for_each(|told| sheet.enter(*told, &rules.suites));
        } else {
            // Two runs side by side, as the matrix sees them.
            entered.sort_by_key(|told| told.order());
            sheet = Sheet::default();
            entered.iter().for_each(|told| sheet.enter(*told, &rules.suites));
        }
        let status = Status::of(&basis, &sheet, at)?;
        if last.as_ref().is_none_or(|last| !last.same(&status)) {
            if since.is_none_or(|since| at > since) {
                let evidence = (run.digest.to_string(), run.run.to_string());
                log.push(line(&basis, entry, at, last.as_ref(), &status, Some(evidence))?);
            }
            last = Some(status);
        }
    }
    age(&basis, &sheet, entry, (last, clock, rules.now), since, log)?;
    Ok(())
}

/// A run after which a cell may be something else, and what it tried there: nothing, if it was on the reference platform.
struct Tick<'a> {
    run: &'a RunRef,
    told: Vec<Told<'a>>,
}

/// The cell's runs with their tries, and those of the reference platform, in the order in which they ended.
fn ticks<'a>(told: &[Told<'a>], references: &[Told<'a>]) -> Vec<Tick<'a>> {
    let mut ticks: BTreeMap<(Timestamp, &str), Tick<'a>> = BTreeMap::new();
    let both = told.iter().map(|told| (told, true)).chain(references.iter().map(|told| (told, false)));
    for (told, is_own) in both {
        let run = told.run;
        let tick = ticks.entry((run.finished, &run.digest)).or_insert_with(|| Tick { run, told: Vec::new() });
        tick.told.extend(is_own.then_some(*told));
    }
    ticks.into_values().collect()
}

/// Lets time pass from `clock` to `end`.
fn age<'a>(
    basis: &Basis<'_, 'a>,
    sheet: &Sheet<'a>,
    entry: &Entry<'a>,
    (mut last, mut clock, end): (Option<Status<'a>>, Timestamp, Timestamp),
    since: Option<Timestamp>,
    log: &mut Vec<LogEntry>,
) -> Result<Option<Status<'a>>> {
    while let Some(before) = &last {
        let Some((at, after)) = by_time(basis, sheet, before, clock, end)? else { break };
        if since.is_none_or(|since| at > since) {
            log.push(line(basis, entry, at, Some(before), &after, None)?);
        }
        clock = at.checked_add(SignedDuration::from_millis(1)).unwrap_or(at);
        last = Some(after);
    }
    Ok(last)
}

fn line(
    basis: &Basis<'_, '_>,
    entry: &Entry<'_>,
    at: Timestamp,
    before: Option<&Status<'_>>,
    after: &Status<'_>,
    run: Option<(String, String)>,
) -> Result<LogEntry> {
    let (was, is) = (before.and_then(Status::claim), after.claim());
    let state = |status: Option<&Status<'_>>| status.map_or(State::Unknown, |status| status.state);
    let direction = Direction::between((&was, state(before)), (&is, after.state));
    let reason = after.reason.words(basis.library)?;
    let rested = after.reason.by().and_then(|judged| judged.by).map(|by| by.run.digest.to_string());
    let rule = match before {
        Some(before) => why(before, after),
        None => is.map(|place| format!("{}: everything that it requires is shown", after.claims[place].name)),
    };
    let (evidence, run) = run.map_or((rested, None), |(digest, run)| (Some(digest), Some(run)));
    Ok(LogEntry {
        at,
        cell: entry.id(),
        component: entry.key.component.clone(),
        version: entry.key.version.clone(),
        platform: entry.key.platform.clone(),
        owners: basis.owned.owners.clone(),
        direction,
        from: before.map(|before| before.state),
        to: after.state,
        claim_before: before.and_then(Status::claim_name),
        claim: after.claim_name(),
        rule: rule.unwrap_or_else(|| format!("state {}", after.state.name())),
        reason,
        evidence,
        run,
    })
}
