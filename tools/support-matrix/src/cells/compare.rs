//! The tests of a cell beside those of the reference platform, for the very same version.

use std::{collections::BTreeMap, rc::Rc};

use jiff::Timestamp;
use kit::{Platform, Result, record::Nature};

use super::{Told, line};
use crate::{
    evidence::Key,
    history::Library,
    index::TestRun,
    model::{Comparison, Level, OriginKind, TestDifference, Verdict},
};

/// Differences that a matrix lists.
const MAX_LISTED: usize = 50;

/// What differs: tests that pass on the reference platform and not here.
#[derive(Default)]
pub(crate) struct TestDifferences {
    /// How many.
    pub(crate) count: usize,
    /// The first of them by name.
    pub(crate) listed: Vec<TestDifference>,
}

impl TestDifferences {
    /// The names of the first `most`, and how many more there are.
    pub(crate) fn names(&self, most: usize) -> String {
        let names: Vec<_> = self.listed.iter().take(most).map(|test| test.name.as_str()).collect();
        match self.count - names.len() {
            0 => names.join(", "),
            more => format!("{} and {more} more", names.join(", ")),
        }
    }
}

/// Native runs of tests on the reference platform, by what was tested.
pub(crate) struct References<'a> {
    platform: Platform,
    tries: BTreeMap<(String, String, OriginKind), Vec<Told<'a>>>,
}

impl<'a> References<'a> {
    /// Of everything that was tried; `all` comes in the order of time.
    pub(crate) fn new<'k>(platform: Platform, all: impl Iterator<Item = (&'k Key, &'k [Told<'a>])>) -> Self
    where
        'a: 'k,
    {
        let mut tries: BTreeMap<_, Vec<Told<'a>>> = BTreeMap::new();
        for (key, told) in all.filter(|(key, _)| key.platform == platform) {
            let wanted = |told: &&Told<'a>| {
                told.attempt.level == Some(Level::E2e)
                    && told.attempt.nature == Some(Nature::Native)
                    && matches!(told.attempt.verdict, Verdict::Shown | Verdict::Failed)
            };
            let entry = tries.entry((key.component.clone(), key.version.clone(), key.origin)).or_default();
            entry.extend(told.iter().filter(wanted).copied());
        }
        Self { platform, tries }
    }

    /// Native tries of the same version on the reference platform; none if this is the reference.
    pub(crate) fn of(&self, key: &Key) -> &[Told<'a>] {
        let all = self.tries.get(&(key.component.clone(), key.version.clone(), key.origin));
        all.filter(|_| key.platform != self.platform).map_or(&[], Vec::as_slice)
    }

    /// The newest native run of the same suite, for the same release if there is one, otherwise for the same version if
    /// that is always the same.
    fn find(&self, key: &Key, here: Told<'a>, now: Timestamp) -> Option<Told<'a>> {
        let all = self.tries.get(&(key.component.clone(), key.version.clone(), key.origin))?;
        let of_suite = || {
            let same = |told: &&Told<'a>| told.attempt.suite == here.attempt.suite && told.run.finished <= now;
            all.iter().rev().filter(same)
        };
        let release = |told: &&Told<'a>| told.attempt.release.is_some() && told.attempt.release == here.attempt.release;
        let newest = || of_suite().next().filter(|_| names_one(&key.version));
        of_suite().find(release).or_else(newest).copied()
    }

    /// The platform that others are compared with.
    pub(crate) fn platform(&self) -> &Platform {
        &self.platform
    }

    /// Compares the run `here` with the reference's; nothing if there is none, or if this is the reference.
    ///
    /// # Errors
    /// If the index is damaged.
    pub(crate) fn compare(
        &self,
        library: &Library,
        key: &Key,
        here: Told<'a>,
        now: Timestamp,
    ) -> Result<Option<(Told<'a>, Rc<TestDifferences>)>> {
        if key.platform == self.platform {
            return Ok(None);
        }
        let Some(there) = self.find(key, here, now) else { return Ok(None) };
        let (a, b) = (here, there);
        let names = (Rc::clone(&a.run.digest), a.attempt.number, Rc::clone(&b.run.digest), b.attempt.number);
        let found = library.compared(names, || differences(library, here, there))?;
        Ok(Some((there, found)))
    }

    /// As the matrix lists it.
    ///
    /// # Errors
    /// If the index is damaged.
    pub(crate) fn row(
        &self,
        library: &Library,
        key: &Key,
        here: Told<'a>,
        now: Timestamp,
    ) -> Result<Option<Comparison>> {
        let Some((there, found)) = self.compare(library, key, here, now)? else { return Ok(None) };
        Ok(Some(Comparison {
            platform: self.platform.clone(),
            suite: here.attempt.suite.as_deref().unwrap_or_default().to_owned(),
            evidence: there.run.digest.to_string(),
            at: there.attempt.at,
            same_release: there.attempt.release.is_some() && there.attempt.release == here.attempt.release,
            count: found.count,
            tests: found.listed.clone(),
        }))
    }
}

/// Whether a version always names the same: a release, a commit, Go's version of a commit. 'devel' is something else
/// every day.
fn names_one(version: &str) -> bool {
    let last = version.rsplit(['@', '-']).next().unwrap_or_default();
    let is_commit = last.len() >= 7 && last.bytes().all(|byte| byte.is_ascii_hexdigit());
    line(version) != "main" || is_commit
}

/// Top-level tests that are good there and not here.
fn differences(library: &Library, here: Told<'_>, there: Told<'_>) -> Result<TestDifferences> {
    // By number, side by side: runs of one suite mostly have it so already.
    let tests = |told: Told<'_>| -> Result<Rc<Vec<TestRun>>> {
        let mut tests = library.tests(&told.run.digest, told.attempt.number)?;
        if !tests.is_sorted_by_key(|test| test.name) {
            Rc::make_mut(&mut tests).sort_by_key(|test| test.name);
        }
        Ok(tests)
    };
    let (mine, mut next) = (tests(here)?, 0);
    let mut found: Vec<TestDifference> = Vec::new();
    for test in tests(there)?.iter().filter(|test| test.good()) {
        next += mine[next..].iter().take_while(|other| other.name <= test.name).count();
        let other = next.checked_sub(1).map(|last| mine[last]).filter(|other| other.name == test.name);
        if other.is_some_and(|other| other.good()) {
            continue;
        }
        let name = library.test_name(test.name)?;
        if !name.contains('/') {
            found.push(TestDifference {
                name,
                here: other.map(|other| other.status),
                excluded: other.is_some_and(|other| other.excluded),
            });
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    let count = found.len();
    found.truncate(MAX_LISTED);
    found.shrink_to_fit();
    Ok(TestDifferences { count, listed: found })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_names_one_content_stands_for_it() {
        for version in ["v1.9.0", "v1.10.0-rc.1", "devel@0123456789ab", "v0.0.0-20261123101010-0123456789ab", "0123456"]
        {
            assert!(names_one(version), "{version}");
        }
        for version in ["devel", "main", "unknown", "v1", "nightly-2026", "devel@"] {
            assert!(!names_one(version), "{version}");
        }
    }

    #[test]
    fn what_is_not_listed_is_counted() {
        let test = |name: &str| TestDifference { name: name.into(), here: None, excluded: false };
        let found = TestDifferences { count: 60, listed: vec![test("a"), test("b"), test("c"), test("d")] };
        assert_eq!(found.names(3), "a, b, c and 57 more");
        assert_eq!(TestDifferences { count: 1, listed: vec![test("a")] }.names(3), "a");
    }
}
