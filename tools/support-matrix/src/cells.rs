//! From what runs tried to the matrix: tries in groups, groups as cells, each with state and reason.

mod changes;
mod compare;
mod owners;
pub(crate) mod rows;
mod sheet;
mod state;
mod streams;
mod superseded;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    rc::Rc,
};

use jiff::Timestamp;
use kit::{
    Cause, Class, Result,
    ci::{Architectures, Policy},
};

use crate::{
    evidence::Key,
    history::{Known, Library},
    index::{RunRef, Try},
    model::{Beside, Cell, Level, Levels, Matrix, OriginKind, OriginRow, PassRow, SCHEMA_VERSION, State, Verdict},
    policy::{self, Basis, Suites},
    text::clean,
};
pub(crate) use changes::{Status, log};
pub(crate) use compare::{References, TestDifferences};
pub(crate) use owners::owned;
pub(crate) use sheet::{Judged, Line, Sheet};
pub(crate) use streams::{Runs, Streams};

/// A try and the run that made it.
#[derive(Clone, Copy)]
pub(crate) struct Told<'a> {
    pub(crate) run: &'a RunRef,
    pub(crate) attempt: &'a Try,
    /// The run that says who built what was tried.
    pub(crate) origin: Option<&'a RunRef>,
}

impl<'a> Told<'a> {
    /// The order of time.
    pub(crate) fn order(&self) -> (Timestamp, &'a str) {
        (self.attempt.at, &self.run.digest)
    }

    /// The bundles that it rests on, by digest.
    pub(crate) fn rests(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let runs: [Option<&'a RunRef>; 2] = [Some(self.run), self.origin];
        runs.into_iter().flatten().map(|run| &*run.digest)
    }
}

/// What the matrix is computed from, beside the runs.
#[derive(Clone)]
pub(crate) struct Rules {
    pub(crate) architectures: Architectures,
    pub(crate) policy: Policy,
    /// Suites that count.
    pub(crate) suites: Suites,
    pub(crate) now: Timestamp,
}

/// Every cell's tries, at a date.
pub(crate) struct Book<'a> {
    pub(crate) cells: Vec<Entry<'a>>,
    pub(crate) references: References<'a>,
    pub(crate) streams: Streams<'a>,
    groups: Groups<'a>,
}

/// Tries by what they were about, in the order of time.
type Groups<'a> = BTreeMap<Rc<Key>, Rc<[Told<'a>]>>;

/// A cell's tries, in the order of time.
pub(crate) struct Entry<'a> {
    pub(crate) key: Rc<Key>,
    pub(crate) kubernetes: Option<Rc<str>>,
    pub(crate) told: Rc<[Told<'a>]>,
}

impl Entry<'_> {
    /// `component@version/os-arch/kubernetes/origin`.
    pub(crate) fn id(&self) -> String {
        let (key, place) = (&self.key, self.kubernetes.as_deref().unwrap_or("-"));
        format!("{}@{}/{}/{place}/{}", key.component, key.version, key.platform.dir(), key.origin.name())
    }
}

impl<'a> Book<'a> {
    /// What `known` comes to, cell by cell.
    pub(crate) fn new(known: &Known<'a>, rules: &Rules) -> Self {
        let mut groups = grouped(known);
        adopt_unknown(&mut groups);
        let sorted = |(key, mut told): (Rc<Key>, Vec<Told<'a>>)| {
            told.sort_by_key(|told| told.order());
            (key, Rc::from(told))
        };
        let groups: Groups<'a> = groups.into_iter().map(sorted).collect();
        let all = groups.iter().map(|(key, told)| (&**key, &**told));
        let references = References::new(rules.policy.reference.clone(), all);
        let mut cells = Vec::with_capacity(groups.len());
        for (key, all) in &groups {
            let versions: BTreeSet<_> = all.iter().filter_map(|told| told.attempt.kubernetes.as_ref()).collect();
            let mut enter = |kubernetes, told| cells.push(Entry { key: Rc::clone(key), kubernetes, told });
            if versions.len() < 2 {
                enter(versions.first().copied().cloned(), Rc::clone(all));
                continue;
            }
            for version in versions {
                let of = |told: &&Told<'_>| told.attempt.kubernetes.as_ref().is_none_or(|found| found == version);
                enter(Some(Rc::clone(version)), all.iter().filter(of).copied().collect());
            }
        }
        let streams = Streams::new(&cells, &rules.suites);
        Self { cells, references, streams, groups }
    }
}

/// Tries by what they were about, in the order of runs. What each of these things comes to is found once, by its address:
/// there are hundreds of thousands of tries.
fn grouped<'a>(known: &Known<'a>) -> BTreeMap<Rc<Key>, Vec<Told<'a>>> {
    let mut groups: Vec<(Rc<Key>, Vec<Told<'a>>)> = Vec::new();
    let mut places: HashMap<Rc<Key>, usize> = HashMap::new();
    let mut seen = HashMap::new();
    for loaded in &known.runs {
        for attempt in &loaded.tries {
            let (place, origin) = *seen.entry(Rc::as_ptr(&attempt.about)).or_insert_with(|| {
                let (key, origin) = known.key(&attempt.about);
                let place = *places.entry(key).or_insert_with_key(|key| {
                    groups.push((Rc::clone(key), Vec::new()));
                    groups.len() - 1
                });
                (place, origin)
            });
            groups[place].1.push(Told { run: &loaded.run, attempt, origin });
        }
    }
    groups.into_iter().collect()
}

/// A run that did not get as far as knowing the version says something about the version that was last seen there
/// before it. Where none was, it stays what it is.
fn adopt_unknown(groups: &mut BTreeMap<Rc<Key>, Vec<Told<'_>>>) {
    let is_unknown = |key: &Key| key.version == "unknown" && key.origin == OriginKind::Unknown;
    let orphans: Vec<_> = groups.keys().filter(|key| is_unknown(key)).cloned().collect();
    for orphan in orphans {
        let same = |key: &Key| key.component == orphan.component && key.platform == orphan.platform && !is_unknown(key);
        let others = groups.iter().filter(|(key, _)| same(key));
        let mut seen: Vec<_> =
            others.flat_map(|(key, told)| told.iter().map(move |told| (told.attempt.at, Rc::clone(key)))).collect();
        seen.sort();
        for told in groups.remove(&orphan).unwrap_or_default() {
            let before = seen.partition_point(|(at, _)| *at <= told.attempt.at);
            let parent = before.checked_sub(1).map_or(&orphan, |last| &seen[last].1);
            groups.entry(Rc::clone(parent)).or_default().push(told);
        }
    }
}

/// The matrix at `rules.now`. Bundles that a cell rests on are looked at; where one is damaged, it is left out and the
/// matrix is computed again.
///
/// # Errors
/// [`kit::Cause::Usage`] for a policy that asks for what does not exist; if the index is damaged.
pub(crate) fn compute(library: &Library, rules: &Rules) -> Result<Matrix> {
    policy::check(&rules.policy)?;
    settle(
        || once(library, rules),
        |matrix, more| {
            let rested: Vec<_> = matrix.cells.iter().map(|cell| (cell, rests(cell))).collect();
            let good = library.check(rested.iter().flat_map(|(_, digests)| digests).copied())?;
            let shaken = rested.iter().filter(|(_, digests)| digests.iter().any(|digest| library.is_excluded(digest)));
            let shaken: BTreeSet<_> = shaken.map(|(cell, _)| cell.id.as_str()).collect();
            if more > 0 && !shaken.is_empty() {
                let known = library.at(rules.now);
                let book = Book::new(&known, rules);
                for entry in book.cells.iter().filter(|entry| shaken.contains(entry.id().as_str())) {
                    let mut seen = BTreeSet::new();
                    let next =
                        entry.told.iter().rev().map(|told| &*told.run.digest).filter(|digest| seen.insert(*digest));
                    library.check(next.take(more))?;
                }
            }
            Ok(good)
        },
    )
}

/// Computes until what it rests on is good. What damaged one bundle damaged others: `check` also looks at so many more
/// of a cell each time, because to find them one by one would take as many rounds as there are.
fn settle<M>(mut compute: impl FnMut() -> Result<M>, mut check: impl FnMut(&M, usize) -> Result<bool>) -> Result<M> {
    let mut more = 0;
    loop {
        let made = compute()?;
        if check(&made, more)? {
            return Ok(made);
        }
        more = (more * 8).max(8);
    }
}

/// Bundles that must be what they say. Of what nobody believes any more none is looked at.
fn rests(cell: &Cell) -> Vec<&str> {
    let believed = cell.state != State::Unknown || cell.claim.is_some();
    if believed { cell.checked().collect() } else { Vec::new() }
}

fn once(library: &Library, rules: &Rules) -> Result<Matrix> {
    let known = library.at(rules.now);
    let book = Book::new(&known, rules);
    let mut cells = Vec::with_capacity(book.cells.len());
    for entry in &book.cells {
        cells.push(cell(library, &book, entry, rules)?);
    }
    superseded::mark(&mut cells);
    Ok(Matrix {
        schema_version: SCHEMA_VERSION.into(),
        tool_version: env!("CARGO_PKG_VERSION").into(),
        as_of: rules.now,
        runs: known.runs.len(),
        last_run: known.runs.iter().map(|loaded| loaded.run.finished).max(),
        platforms: owners::platforms(&book.groups, rules),
        owners: owners::owners(&book.groups, rules),
        later: known.later,
        left_out: known.left_out,
        cells,
    })
}

pub(crate) fn is_run(told: &Told<'_>) -> bool {
    let tried = told.attempt;
    tried.level.is_some_and(Level::runs) && !matches!(tried.verdict, Verdict::NotTried | Verdict::NotReached)
}

/// Whether the infrastructure lost it: what we did wrong ourselves shows nothing either, and is nobody's loss.
pub(crate) fn is_lost(told: &Told<'_>) -> bool {
    let class = told.attempt.cause.map(Cause::class);
    told.attempt.verdict == Verdict::Infrastructure && class == Some(Class::Infrastructure)
}

fn cell<'a>(library: &Library, book: &Book<'a>, entry: &Entry<'a>, rules: &Rules) -> Result<Cell> {
    let Entry { key, kubernetes, told } = entry;
    let owned = owned(&key.platform, rules);
    let runs = book.streams.of(entry);
    let basis = Basis { library, references: &book.references, runs, rules, key, owned: &owned };
    let mut sheet = Sheet::default();
    told.iter().for_each(|told| sheet.enter(*told, &rules.suites));
    let judged = state::levels(&sheet, rules);
    let status = Status::of(&basis, &sheet, rules.now)?;
    let changes = changes::next(&basis, &sheet, &status, rules.now)?;
    let Status { state, reason, mut claims } = status;
    let decided = reason.trouble().and_then(|judged| judged.by);
    let mut reason = reason.words(library)?;
    if let Some(doubts) = state::doubts(&sheet, rules).filter(|_| state != State::Failing) {
        reason = format!("{reason}; {doubts}");
    }
    let [_, _, installs, _, e2e, ..] = &judged;
    let evidence = |level: usize| judged[level].evidence(library);
    let e2e_evidence = evidence(4)?;
    let compared = match e2e.by {
        Some(by) => book.references.row(library, key, by, rules.now)?,
        None => None,
    };
    let recent = basis.recent(&sheet, None, 20);
    let (run_count, lost_runs) = owners::lost(told.iter());
    let mut rests: BTreeSet<&str> = sheet.rests(rules.policy.states.failing).collect();
    rests.extend(compared.iter().map(|compared| compared.evidence.as_str()));
    for (level, claim) in rules.policy.level.iter().zip(&mut claims) {
        let of_claim = policy::rests(level, &basis, &sheet, rules.now)?;
        claim.evidence = of_claim.iter().map(|digest| (*digest).to_owned()).collect();
        rests.extend(of_claim);
    }
    let rests = rests.into_iter().map(str::to_owned).collect();
    Ok(Cell {
        id: entry.id(),
        component: key.component.clone(),
        version: key.version.clone(),
        line: line(&key.version),
        platform: key.platform.clone(),
        kubernetes: kubernetes.as_deref().map(str::to_owned),
        origin: origin_row(library, key, told)?,
        state,
        state_words: state.words(e2e_evidence.nature).into(),
        reason,
        changes,
        available: state::available(key.origin, &judged),
        tested: state::tested(library, &sheet, &judged, rules)?,
        compared,
        pass_rate: (!recent.is_empty()).then(|| PassRow { passed: policy::passed(&recent), valid: recent.len() }),
        nodes: installs.attempt(library)?.map(|attempt| attempt.result.nodes.clone()).unwrap_or_default(),
        levels: Levels {
            index: evidence(0)?,
            contents: evidence(1)?,
            installs: evidence(2)?,
            unit: evidence(3)?,
            e2e: e2e_evidence,
            examples: evidence(5)?,
            upgrade: evidence(6)?,
        },
        claim: claims.iter().rev().find(|claim| claim.met).map(|claim| claim.name.clone()),
        supported: policy::supported(&claims),
        claims,
        owned,
        evidence: rests,
        run_count,
        lost_runs,
        last_run: told.iter().filter(|told| is_run(told)).map(|told| told.attempt.at).max(),
        runs: Vec::new(),
        beside: Beside {
            first_seen: told.first().map(|told| told.attempt.at),
            seen: told.iter().map(|told| told.run.finished).max(),
            learnt: learnt(told),
            decided: decided.map(|by| (by.run.digest.to_string(), by.attempt.number)),
            newest: rows::newest(told),
            ..Beside::default()
        },
    })
}

/// When something was last learnt on a cluster; as long as nothing was, when it was first tried there. Where it was ever
/// tested, that it installs teaches nothing more.
fn learnt(told: &[Told<'_>]) -> Option<Timestamp> {
    let tested = told.iter().any(|told| told.attempt.level == Some(Level::E2e));
    let tried = || told.iter().filter(|told| is_run(told) && (!tested || told.attempt.level == Some(Level::E2e)));
    let taught = tried().filter(|told| matches!(told.attempt.verdict, Verdict::Shown | Verdict::Failed));
    taught.map(|told| told.attempt.at).max().or_else(|| tried().map(|told| told.attempt.at).min())
}

/// The line of development that a version belongs to: `v1.9` of v1.9.0; everything that is no release is `main`.
pub(crate) fn line(version: &str) -> String {
    let numbers: Vec<_> = version.strip_prefix('v').unwrap_or_default().split('.').collect();
    let is_number = |text: &&str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match numbers.as_slice() {
        [major, minor, patch] if [major, minor, patch].iter().all(|text| is_number(text)) => {
            format!("v{major}.{minor}")
        }
        [major, minor, rest @ ..]
            if is_number(major) && is_number(minor) && rest.first().is_some_and(|rest| rest.contains("-rc")) =>
        {
            format!("v{major}.{minor}")
        }
        _ => "main".into(),
    }
}

/// Bases and replacements of the newest build. Who only looked at a release does not know what was replaced in it.
fn origin_row(library: &Library, key: &Key, told: &[Told<'_>]) -> Result<OriginRow> {
    let built = told.iter().filter(|told| matches!(told.attempt.level, Some(Level::Index | Level::Contents)));
    let mut newest: Option<(Timestamp, &str)> = None;
    for told in built {
        if newest.is_none_or(|(at, _)| told.attempt.at >= at) {
            newest = Some((told.attempt.at, &told.origin.unwrap_or(told.run).digest));
        }
    }
    let empty = OriginRow { kind: key.origin, bases: Vec::new(), replacements: Vec::new() };
    let Some((_, digest)) = newest else { return Ok(empty) };
    let facts = library.facts(digest)?;
    let build = facts.builds.iter().find(|build| clean(&build.component) == key.component);
    Ok(build.map_or(empty, |build| OriginRow {
        kind: key.origin,
        bases: build.bases.clone(),
        replacements: build.replacements.clone(),
    }))
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    /// 1,000 bundles of one cell, of which only the oldest is good: each round rests on the newest that is not known
    /// to be bad.
    #[test]
    fn many_damaged_bundles_take_few_rounds() {
        let (left, rounds) = (RefCell::new((1..1_000).rev().collect::<Vec<_>>()), RefCell::new(0));
        let newest = || {
            *rounds.borrow_mut() += 1;
            Ok(left.borrow().first().copied())
        };
        let check = |rests: &Option<i32>, more: usize| {
            let mut left = left.borrow_mut();
            let found = (usize::from(rests.is_some()) + more).min(left.len());
            left.drain(..found);
            Ok(rests.is_none())
        };
        assert_eq!(super::settle(newest, check).unwrap(), None);
        assert!(*rounds.borrow() < 8, "{}", rounds.borrow());
    }

    #[test]
    fn versions_belong_to_lines() {
        for (version, line) in [
            ("v1.9.0", "v1.9"),
            ("v0.32.11", "v0.32"),
            ("v1.10.0-rc.1", "v1.10"),
            ("v0.0.0-20261123101010-0123456789ab", "main"),
            ("devel", "main"),
            ("v1.9", "main"),
            ("0123456", "main"),
            ("v1.x.0", "main"),
        ] {
            assert_eq!(super::line(version), line, "{version}");
        }
    }
}
