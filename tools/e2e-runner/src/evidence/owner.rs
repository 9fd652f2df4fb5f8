//! Which namespaces belong to which test: those that its log names; otherwise those that came while it ran, if no other
//! test names them.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use jiff::{SignedDuration, Timestamp};
use kit::record::Status;
use regex::Regex;

use super::is_failure;
use crate::{parse::event::top, parse::log, report::Row};

/// Clocks of the cluster and of this machine differ.
const SKEW: SignedDuration = SignedDuration::from_secs(5);

/// Namespaces by top-level test, with whether the test names them itself.
#[derive(Debug, Default)]
pub(super) struct Owners {
    of: BTreeMap<String, BTreeMap<String, bool>>,
    /// Those that only tests that passed name.
    passed: BTreeSet<String>,
}

impl Owners {
    /// For the failures among `rows`, whose logs lie in `logs`.
    pub(super) fn find(spaces: &[(String, Option<Timestamp>)], rows: &[Row], logs: &Path) -> Self {
        let Some(any) = Names::new(spaces) else { return Self::default() };
        let mut of_others = BTreeSet::new();
        let mut named: BTreeSet<&str> = BTreeSet::new();
        let mut owners = Self::default();
        // A test that passed may have come while another one failed.
        for row in rows.iter().filter(|row| top(&row.test.name) == row.test.name && row.ran.is_some()) {
            let Some(path) = row.test.log.as_ref() else { continue };
            let text = log::read(&logs.join(path.strip_prefix("logs/").unwrap_or(path)));
            for name in any.named_in(&text) {
                let known = spaces.iter().find(|(known, _)| known == name).map(|(known, _)| known.as_str());
                named.extend(known);
                if is_failure(row) {
                    owners.add(&row.test.name, name, true);
                }
                let passed = row.test.status == Status::Passed;
                let names = if passed { &mut owners.passed } else { &mut of_others };
                names.insert(name.to_owned());
            }
        }
        owners.passed.retain(|name| !of_others.contains(name));
        for row in rows.iter().filter(|row| is_failure(row)) {
            let Some((began, ended)) = row.ran else { continue };
            let came = |born: &Option<Timestamp>| born.is_some_and(|born| began - SKEW <= born && born <= ended + SKEW);
            for (name, _) in spaces.iter().filter(|(name, born)| !named.contains(name.as_str()) && came(born)) {
                owners.add(&row.test.name, name, false);
            }
        }
        owners
    }

    fn add(&mut self, test: &str, namespace: &str, named: bool) {
        let of = self.of.entry(test.to_owned()).or_default();
        *of.entry(namespace.to_owned()).or_default() |= named;
    }

    /// The namespaces of a test; only those that it names, if that is wanted.
    pub(super) fn of(&self, test: &str, only_named: bool) -> Vec<String> {
        let all = self.of.get(test).into_iter().flatten();
        all.filter(|(_, named)| **named || !only_named).map(|(name, _)| name.clone()).collect()
    }

    /// Namespaces that tests name that passed, and no others.
    pub(super) fn passed(&self) -> &BTreeSet<String> {
        &self.passed
    }

    /// Whether a test names a namespace itself.
    pub(super) fn is_named(&self, test: &str, namespace: &str) -> bool {
        self.of.get(test).and_then(|all| all.get(namespace)).copied().unwrap_or(false)
    }
}

/// Finds names of namespaces in a text, all in one go: logs are long and names are many.
struct Names(Regex);

impl Names {
    /// Nothing, if there are none.
    fn new(spaces: &[(String, Option<Timestamp>)]) -> Option<Self> {
        let mut names: Vec<_> = spaces.iter().map(|(name, _)| name.as_str()).collect();
        // A name that another one begins with comes after that.
        names.sort_by_key(|name| std::cmp::Reverse(name.len()));
        let pattern: Vec<_> = names.iter().map(|name| regex::escape(name)).collect();
        (!names.is_empty()).then(|| Regex::new(&pattern.join("|")).ok().map(Self)).flatten()
    }

    /// The names that stand there as whole words.
    fn named_in<'t>(&self, text: &'t str) -> BTreeSet<&'t str> {
        let part = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '-');
        let whole = |found: &regex::Match<'_>| {
            !part(text[..found.start()].chars().next_back()) && !part(text[found.end()..].chars().next())
        };
        self.0.find_iter(text).filter(whole).map(|found| found.as_str()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{evidence::held::Held, report};
    use kube::{api::DynamicObject, runtime::watcher};
    use serde_json::json;

    #[test]
    fn a_name_is_a_whole_word() {
        let names = Names::new(&[("test-1".into(), None), ("test-1-b".into(), None)]).unwrap();
        let named = |text: &'static str| names.named_in(text).into_iter().collect::<Vec<_>>();
        assert_eq!(named("Create namespace test-1 to deploy to"), ["test-1"]);
        assert_eq!(named("ns=test-1-b/pod, test-1"), ["test-1", "test-1-b"]);
        assert!(named("test-12 my-test-1 test-1-c").is_empty());
        assert!(Names::new(&[]).is_none());
    }

    #[test]
    fn namespaces_go_to_who_names_them_or_to_who_ran() {
        let mut held = Held::new(BTreeSet::new(), None, vec!["Namespace".into()]);
        for (name, second) in [("arendelle-a", 10), ("arendelle-b", 11), ("silent", 12), ("late", 500)] {
            let object =
                json!({"metadata": {"name": name, "creationTimestamp": Timestamp::from_second(second).unwrap()}});
            let object: DynamicObject = serde_json::from_value(object).unwrap();
            held.take(0, watcher::Event::Apply(object));
        }
        let folder = tempfile::tempdir().unwrap();
        let row = |name: &str, status, said: &str| {
            let mut test = report::row(name, "p", status);
            std::fs::write(folder.path().join(format!("{name}.log")), said).unwrap();
            test.log = Some(format!("{name}.log"));
            let ran = (Timestamp::from_second(9).unwrap(), Timestamp::from_second(60).unwrap());
            Row { test, excerpt: Vec::new(), ran: Some(ran) }
        };
        let rows = [
            row("TestBad", Status::Failed, "x.go:1: Create namespace arendelle-a to deploy to"),
            row("TestGood", Status::Passed, "x.go:1: Create namespace arendelle-b to deploy to"),
        ];
        let spaces: Vec<_> = held.namespaces().collect();
        let owners = Owners::find(&spaces, &rows, folder.path());
        assert_eq!(owners.of("TestBad", true), ["arendelle-a"]);
        assert_eq!(owners.of("TestBad", false), ["arendelle-a", "silent"]);
        assert!(owners.of("TestGood", false).is_empty() && !owners.is_named("TestBad", "silent"));
        assert_eq!(owners.passed().iter().collect::<Vec<_>>(), ["arendelle-b"]);
    }
}
