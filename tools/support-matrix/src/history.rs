//! A history through its index: what is there, what is new, what is damaged; cut at a date.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap, HashSet},
    mem::ManuallyDrop,
    rc::Rc,
};

use jiff::Timestamp;
use kit::{
    Result, Ui,
    bundle::{Closed, History},
    rundir::is_run_id,
};

use crate::{
    cells::TestDifferences,
    evidence::{self, Key},
    index::{self, About, BATCH, Built, Facts, Index, Loaded, RunRef, TestRun},
    kept::Kept,
    model::{LeftOut, OriginKind, TestRow},
    text::{clean, when},
};

/// Rows of facts that are kept in memory: tests, stages and statements.
const KEPT_ROWS: usize = 20_000;
/// Tests that are kept in memory: the runs of the reference are compared with those of each platform.
const KEPT_TESTS: usize = 200_000;
/// Names of tests in comparisons that are kept in memory.
const KEPT_NAMES: usize = 10_000;

/// Two statements that are compared: each by digest of the bundle and its number there.
type Compared = (Rc<str>, u16, Rc<str>, u16);

/// All that a history holds.
pub(crate) struct Library {
    history: Option<History>,
    index: Option<Index>,
    /// Never freed: a process opens one history and ends with it, and to take it apart would take longer than some answers.
    all: ManuallyDrop<Vec<Loaded>>,
    faulty: RefCell<Vec<LeftOut>>,
    /// Bundles that are not counted, and those that were looked at.
    excluded: RefCell<HashSet<String>>,
    checked: RefCell<HashSet<String>>,
    facts: RefCell<Kept<String, Facts>>,
    tests: RefCell<Kept<(String, u16), Vec<TestRun>>>,
    compared: RefCell<Kept<Compared, TestDifferences>>,
}

/// What was known at a date.
pub(crate) struct Known<'a> {
    /// Runs, in the order in which they ended.
    pub(crate) runs: Vec<&'a Loaded>,
    /// How many later ones there are.
    pub(crate) later: usize,
    /// What is not counted for a fault.
    pub(crate) left_out: Vec<LeftOut>,
    origins: HashMap<&'a str, (&'a Built, &'a RunRef)>,
}

impl Library {
    /// A library without books.
    pub(crate) fn empty() -> Self {
        Self {
            history: None,
            index: None,
            all: ManuallyDrop::default(),
            faulty: RefCell::default(),
            excluded: RefCell::default(),
            checked: RefCell::default(),
            facts: RefCell::new(Kept::new(KEPT_ROWS)),
            tests: RefCell::new(Kept::new(KEPT_TESTS)),
            compared: RefCell::new(Kept::new(KEPT_NAMES)),
        }
    }

    /// Brings the index up to date and reads it; `thorough` also checks every file of every bundle.
    ///
    /// # Errors
    /// If the history or the index cannot be read. What is wrong with one bundle only leaves that one out.
    pub(crate) fn open(history: History, index: Index, thorough: bool, ui: &Ui) -> Result<Self> {
        let digests = history.digests()?;
        let mut library = Self { all: ManuallyDrop::new(index.load()?), ..Self::empty() };
        // Both are sorted.
        if !digests.iter().map(String::as_str).eq(library.all.iter().map(|loaded| &*loaded.run.digest)) {
            library.update(&digests, &history, &index, ui)?;
        }
        (library.history, library.index) = (Some(history), Some(index));
        if thorough {
            let step = (digests.len() > 200).then(|| ui.step(format!("checking {} runs", digests.len())));
            let faulty: HashSet<String> = library.faulty.borrow().iter().map(|left| left.bundle.clone()).collect();
            for (number, digest) in digests.iter().filter(|digest| !faulty.contains(*digest)).enumerate() {
                library.check_with(digest, Closed::verify)?;
                if let Some(step) = &step {
                    step.set(format!("{number} of {}", digests.len()));
                }
            }
            if let Some(step) = step {
                step.done("");
            }
        }
        Ok(library)
    }

    /// Takes in what is new, and forgets what is gone.
    fn update(&mut self, digests: &[String], history: &History, index: &Index, ui: &Ui) -> Result<()> {
        let known: HashSet<&str> = self.all.iter().map(|loaded| &*loaded.run.digest).collect();
        let here: HashSet<&str> = digests.iter().map(String::as_str).collect();
        let new: Vec<&String> = digests.iter().filter(|digest| !known.contains(digest.as_str())).collect();
        let gone: Vec<String> = known.difference(&here).map(|digest| (*digest).to_owned()).collect();
        index.forget(&gone)?;
        self.faulty = RefCell::new(ingest(history, index, &new, ui)?);
        self.all.retain(|loaded| here.contains(&*loaded.run.digest));
        self.all.extend(index.load_some(&new)?);
        self.all.sort_by(|a, b| a.run.digest.cmp(&b.run.digest));
        self.miss(digests);
        Ok(())
    }

    /// Says of which bundles the index has nothing that can be used, although they could be read.
    fn miss(&mut self, digests: &[String]) {
        let known: HashSet<&str> = self.all.iter().map(|loaded| &*loaded.run.digest).collect();
        let faulty = self.faulty.get_mut();
        let said: HashSet<String> = faulty.iter().map(|left| left.bundle.clone()).collect();
        let missing = digests.iter().filter(|digest| !known.contains(digest.as_str()) && !said.contains(*digest));
        faulty.extend(missing.map(|digest| LeftOut {
            bundle: digest.clone(),
            reason: "the index cannot hold what it says".into(),
            fault: true,
        }));
    }

    /// Looks at the records in bundles that something rests on. True if all are what their digests say; the others are
    /// left out from now on.
    ///
    /// # Errors
    /// After a signal.
    pub(crate) fn check<'d>(&self, digests: impl IntoIterator<Item = &'d str>) -> Result<bool> {
        let digests: BTreeSet<&str> = digests.into_iter().collect();
        let mut good = true;
        for digest in digests {
            if !self.checked.borrow().contains(digest) {
                good &= self.check_with(digest, evidence::verify)?;
            }
        }
        Ok(good)
    }

    /// Whether a bundle was found to be damaged.
    pub(crate) fn is_excluded(&self, digest: &str) -> bool {
        self.excluded.borrow().contains(digest)
    }

    fn check_with(&self, digest: &str, verify: impl Fn(&Closed) -> Result<()>) -> Result<bool> {
        kit::signal::check()?;
        let Some(history) = &self.history else { return Ok(true) };
        self.checked.borrow_mut().insert(digest.to_owned());
        match history.bundle(digest).and_then(|closed| verify(&closed)) {
            Ok(()) => Ok(true),
            Err(error) if error.signal.is_some() => Err(error),
            Err(error) => {
                let left = LeftOut { bundle: digest.to_owned(), reason: clean(&error.summary()), fault: true };
                self.faulty.borrow_mut().push(left);
                self.excluded.borrow_mut().insert(digest.to_owned());
                Ok(false)
            }
        }
    }

    /// What was known at `as_of`.
    pub(crate) fn at(&self, as_of: Timestamp) -> Known<'_> {
        let (now, excluded) = (Timestamp::now(), self.excluded.borrow());
        let mut left_out = self.faulty.borrow().clone();
        let mut runs = Vec::with_capacity(self.all.len());
        let mut later = 0;
        for loaded in self.all.iter().filter(|loaded| !excluded.contains(&*loaded.run.digest)) {
            let run = &loaded.run;
            if evidence::is_ahead(run.finished, now) {
                // Whatever the date of the matrix is: nobody can have seen that.
                let reason = format!("run {} ended on {}, which lies in the future", run.run, when(run.finished));
                left_out.push(LeftOut { bundle: run.digest.to_string(), reason, fault: true });
            } else if run.finished <= as_of {
                runs.push(loaded);
            } else {
                later += 1;
            }
        }
        left_out.sort_by(|a, b| a.bundle.cmp(&b.bundle));
        let runs = supersede(runs);
        let origins = origins(&runs);
        Known { runs, later, left_out, origins }
    }

    /// Everything that a run says.
    ///
    /// # Errors
    /// If the index is damaged.
    pub(crate) fn facts(&self, digest: &str) -> Result<Rc<Facts>> {
        if let Some(found) = self.facts.borrow().get(digest) {
            return Ok(found);
        }
        let facts = self.index()?.facts(digest)?;
        Ok(self.facts.borrow_mut().keep(digest.to_owned(), facts.rows(), facts))
    }

    /// The tests of one of a run's statements.
    ///
    /// # Errors
    /// If the index is damaged.
    pub(crate) fn tests(&self, digest: &str, number: u16) -> Result<Rc<Vec<TestRun>>> {
        let name = (digest.to_owned(), number);
        if let Some(found) = self.tests.borrow().get(&name) {
            return Ok(found);
        }
        let tests = self.index()?.tests(digest, number)?;
        Ok(self.tests.borrow_mut().keep(name, 1 + tests.len(), tests))
    }

    /// Those of them that did not simply pass, with all that is shown of them.
    ///
    /// # Errors
    /// If the index is damaged.
    pub(crate) fn listed(&self, digest: &str, number: u16) -> Result<Vec<TestRow>> {
        self.index()?.listed(digest, number)
    }

    /// The name of a test.
    ///
    /// # Errors
    /// If the index is damaged.
    pub(crate) fn test_name(&self, number: u32) -> Result<String> {
        self.index()?.name(number)
    }

    /// A comparison, made once.
    ///
    /// # Errors
    /// What `compare` returns.
    pub(crate) fn compared(
        &self,
        key: Compared,
        compare: impl FnOnce() -> Result<TestDifferences>,
    ) -> Result<Rc<TestDifferences>> {
        if let Some(found) = self.compared.borrow().get(&key) {
            return Ok(found);
        }
        let made = compare()?;
        Ok(self.compared.borrow_mut().keep(key, 1 + made.listed.len(), made))
    }

    /// The bundle with this digest.
    ///
    /// # Errors
    /// As [`History::bundle`].
    pub(crate) fn bundle(&self, digest: &str) -> Result<Closed> {
        self.history()?.bundle(digest)
    }

    /// The history.
    ///
    /// # Errors
    /// [`kit::Cause::Usage`] if there is none yet.
    pub(crate) fn history(&self) -> Result<&History> {
        self.history.as_ref().ok_or_else(nothing_recorded)
    }

    fn index(&self) -> Result<&Index> {
        self.index.as_ref().ok_or_else(nothing_recorded)
    }

    /// Every bundle that is not damaged, whether it counts at some date or not.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Loaded> {
        self.all.iter().filter(|loaded| !self.excluded.borrow().contains(&*loaded.run.digest))
    }

    /// Warns of what had to be left out for a fault.
    pub(crate) fn warn(&self, ui: &Ui) {
        for left in self.faulty.borrow().iter().filter(|left| left.fault) {
            ui.warn(format!("left out: {} {}", left.bundle, left.reason));
        }
    }
}

fn nothing_recorded() -> kit::Error {
    kit::Error::new(kit::Cause::Usage, "nothing was recorded yet").next("cargo xtask nightly")
}

/// Reads what is new; returns what cannot be read, which is tried again each time.
fn ingest(history: &History, index: &Index, new: &[&String], ui: &Ui) -> Result<Vec<LeftOut>> {
    let mut faulty = Vec::new();
    let step = (new.len() > 200).then(|| ui.step(format!("reading {} runs", new.len())));
    for (number, batch) in new.chunks(BATCH).enumerate() {
        let mut all = Vec::with_capacity(batch.len());
        for digest in batch {
            kit::signal::check()?;
            match history.bundle(digest).and_then(index::facts) {
                Ok(facts) => all.push(facts),
                Err(error) if error.signal.is_some() => return Err(error),
                Err(error) => {
                    let reason = clean(&error.summary());
                    faulty.push(LeftOut { bundle: (*digest).clone(), reason, fault: true });
                }
            }
        }
        if !all.is_empty() {
            index.add(&all)?;
        }
        if let Some(step) = &step {
            step.set(format!("{} of {}", number * BATCH + batch.len(), new.len()));
        }
    }
    if let Some(step) = step {
        step.done("");
    }
    Ok(faulty)
}

impl<'a> Known<'a> {
    /// What a try was about, and the run that says who built it. Whatever a run says of a release that it did not build,
    /// or only looked at, whoever built it knows better.
    pub(crate) fn key(&self, tried: &About) -> (Rc<Key>, Option<&'a RunRef>) {
        let release = tried.builder.as_deref().or(tried.release.as_deref());
        let Some((built, run)) = release.and_then(|release| self.origins.get(release)) else {
            return (Rc::clone(&tried.key), None);
        };
        let commit = built.version.rsplit_once('@').filter(|(said, _)| *said == tried.key.version);
        let version = commit.map_or(tried.key.version.as_str(), |_| &*built.version);
        if tried.key.origin == built.origin && tried.key.version == version {
            return (Rc::clone(&tried.key), Some(run));
        }
        let key = Key { origin: built.origin, version: version.to_owned(), ..(*tried.key).clone() };
        (Rc::new(key), Some(run))
    }
}

/// Who built each release, and the run that knows it. What anybody built here is not published, whoever looked at it
/// later; otherwise whoever knows the commit, and then the last one: it may have been built again, from a newer commit
/// with the same outcome.
fn origins<'a>(runs: &[&'a Loaded]) -> HashMap<&'a str, (&'a Built, &'a RunRef)> {
    let mut origins: HashMap<&str, (&Built, &RunRef)> = HashMap::new();
    for loaded in runs {
        for built in &loaded.run.built {
            let worth = |built: &Built| (built.origin == OriginKind::BuiltHere, built.version.contains('@'));
            let known = origins.entry(&built.release).or_insert((built, &loaded.run));
            if worth(built) >= worth(known.0) {
                *known = (built, &loaded.run);
            }
        }
    }
    origins
}

/// Of a run that was recorded, went on, and was recorded again, the last recording counts.
fn supersede(mut runs: Vec<&Loaded>) -> Vec<&Loaded> {
    runs.sort_by(|a, b| {
        (a.run.finished, a.run.files, &a.run.digest).cmp(&(b.run.finished, b.run.files, &b.run.digest))
    });
    let mut later: HashMap<&str, &RunRef> = HashMap::with_capacity(runs.len());
    // From the last to the first, so that each meets only what came after it.
    runs.reverse();
    runs.retain(|Loaded { run, .. }| {
        let counts = !later.get(&*run.run).is_some_and(|after| went_on(run, after));
        if counts {
            later.insert(&run.run, run);
        }
        counts
    });
    runs.sort_by(|a, b| (a.run.finished, &a.run.digest).cmp(&(b.run.finished, &b.run.digest)));
    runs
}

/// Whether `after` is the same run, later. The name alone does not say so, unless it is one that was made for this run.
fn went_on(run: &RunRef, after: &RunRef) -> bool {
    match (run.asked, after.asked) {
        (Some(before), Some(after)) => before == after,
        (None, None) => is_run_id(&run.run) || run.records.iter().all(|record| after.records.contains(record)),
        _ => false,
    }
}
