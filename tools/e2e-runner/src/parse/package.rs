//! A package while its test program runs, and who is to blame when that program ends badly.

use std::{collections::HashMap, sync::LazyLock};

use jiff::Timestamp;
use kit::Class;
use regex::Regex;

use super::{
    event::top,
    log::{Folder, Log},
};
use crate::cause::Verdict;

/// A test that has begun and not ended.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) began: Timestamp,
    pub(super) order: u64,
    pub(super) log: Log,
    /// Whether it waits for its turn.
    pub(super) paused: bool,
    /// Why subtests of it failed: the strongest reason.
    pub(super) inner: Option<Box<Verdict>>,
}

impl Running {
    pub(super) fn new(began: Timestamp, order: u64, log: Log) -> Self {
        Self { began, order, log, paused: false, inner: None }
    }

    /// A subtest of it has failed.
    fn learn(&mut self, why: &Verdict) {
        let rank = |why: &Verdict| match why.cause.class() {
            Class::Product => 2,
            Class::Unknown => 1,
            _ => 0,
        };
        if self.inner.as_ref().is_none_or(|known| rank(known) < rank(why)) {
            self.inner = Some(Box::new(why.clone()));
        }
    }
}

/// What is known of a package.
#[derive(Debug)]
pub(super) struct Package {
    pub(super) name: String,
    pub(super) log: Log,
    pub(super) running: HashMap<Box<str>, Running>,
    /// Tests that failed, so that a failed package without any is noticed.
    pub(super) failed: usize,
    /// Whether the program said PASS or FAIL at its end: it did not crash.
    pub(super) orderly: bool,
    /// Whether it said that it did not compile.
    pub(super) unbuilt: bool,
    pub(super) ended: bool,
    /// The test that failed by bringing the program down.
    pub(super) crashed_in: Option<Box<str>>,
}

impl Package {
    pub(super) fn new(name: &str, folder: &Folder) -> Self {
        let log = folder.log(&format!("_package-{}", name.replace('/', "-")));
        Self {
            name: name.into(),
            log,
            running: HashMap::new(),
            failed: 0,
            orderly: false,
            unbuilt: false,
            ended: false,
            crashed_in: None,
        }
    }

    /// Tells the tests that a test belongs to why it failed.
    pub(super) fn failed_in(&mut self, test: &str, why: &Verdict) {
        for (at, _) in test.match_indices('/') {
            if let Some(running) = self.running.get_mut(&test[..at]) {
                running.learn(why);
            }
        }
    }

    /// All tests that run, in the order in which they began.
    pub(super) fn take_running(&mut self) -> Vec<(Box<str>, Running)> {
        let mut running: Vec<_> = self.running.drain().collect();
        running.sort_by_key(|(_, test)| test.order);
        running
    }
}

/// Lines with which a Go program ends that did not want to.
static CRASH: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?m)^(panic: .*|fatal error: .*|unexpected fault address .*|signal: .*|SIG[A-Z]+: .*)$")
        .expect("it is constant")
});
/// A test's function in a trace of calls, as in `pkg.TestTwo.func1()` or `created by pkg.TestTwo in goroutine 5`.
static FUNCTION: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\.((?:Test|Fuzz|Benchmark)\w*)[.( ]").expect("it is constant"));

/// The words with which the program ended, if this log holds them.
pub(super) fn crash(log: &str) -> Option<&str> {
    CRASH.find(log).map(|found| found.as_str())
}

/// The tests that brought the program down, among those that ran, with the log of which holds its last words, if one does.
///
/// Go adds the last words of a program to the log of whichever test printed last, which may be one that waits for its
/// turn. The trace of the goroutine that panicked says more; a program that left without a word blames all that ran.
pub(super) fn culprits<'a>(running: &'a [(Box<str>, Running)], last: Option<(&'a str, &str)>) -> Vec<&'a str> {
    let all = || running.iter().map(|(name, _)| &**name);
    let ran = || running.iter().filter(|(_, test)| !test.paused).map(|(name, _)| &**name);
    let Some((name, log, crash)) = last.and_then(|(name, log)| Some((name, log, CRASH.find(log)?))) else {
        return ran().collect();
    };
    if crash.as_str().starts_with("panic: test timed out") {
        return timed_out(&log[crash.end()..], ran());
    }
    if crash.as_str().starts_with("SIGQUIT: ") {
        // Somebody outside asked where it was.
        return ran().collect();
    }
    let trace = log[crash.end()..].split("\ngoroutine ").nth(1).unwrap_or_default();
    let named: Vec<_> = FUNCTION.captures_iter(trace).filter_map(|found| found.get(1)).collect();
    let inside = |test: &str| named.iter().any(|found| found.as_str() == top(test));
    let waits = running.iter().any(|(test, running)| **test == *name && running.paused);
    match () {
        () if inside(name) => vec![name],
        // What a test has left behind may panic while it waits.
        () if all().any(inside) => all().filter(|test| inside(test)).collect(),
        () if waits => ran().collect(),
        () => vec![name],
    }
}

/// `running tests:` and then one name and age a line (testing.go, startAlarm).
fn timed_out<'a>(text: &str, ran: impl Iterator<Item = &'a str>) -> Vec<&'a str> {
    let listed = text.lines().skip_while(|line| line.trim() != "running tests:").skip(1);
    let listed: Vec<_> = listed.map_while(|line| line.strip_prefix("\t\t")?.rsplit_once(" (")).collect();
    ran.filter(|test| listed.is_empty() || listed.iter().any(|(name, _)| name == test)).collect()
}

/// What the compiler said of a package, among its words on all of them: from the last line `# package` on, up to what it
/// said of the next. All of it where no such line is there, for then it does not say of which.
pub(super) fn compiler_s<'a, 't>(words: &'a [&'t str], package: &str) -> &'a [&'t str] {
    let program = format!("[{package}.test]");
    let is_its = |line: &&str| {
        let of = line.strip_prefix("# ");
        of.is_some_and(|of| of.split(' ').next() == Some(package) || of.ends_with(&program))
    };
    let Some(from) = words.iter().rposition(is_its) else { return words };
    let is_next = |line: &&str| line.starts_with("# ") || line.starts_with("FAIL");
    let length = words[from + 1..].iter().take_while(|line| !is_next(line)).count();
    &words[from..=from + length]
}

/// Whether `test` is `other`, or contains it.
pub(super) fn contains(test: &str, other: &str) -> bool {
    other.strip_prefix(test).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blamed(logs: &[(&str, &str)]) -> Vec<String> {
        let waits = |name: &str| name.ends_with("Waits");
        let log = |name: &str| Folder::new("").log(name);
        let running = logs.iter().map(|(name, _)| {
            let (began, paused) = (Timestamp::UNIX_EPOCH, waits(name));
            (Box::from(*name), Running { paused, ..Running::new(began, 0, log(name)) })
        });
        let running: Vec<_> = running.collect();
        let last = logs.iter().copied().find(|(_, log)| crash(log).is_some());
        culprits(&running, last).into_iter().map(String::from).collect()
    }

    #[test]
    fn the_trace_names_the_culprit() {
        let trace =
            "panic: oh\n\ngoroutine 6 [running]:\np.TestTwo.func1()\n\tx.go:1\ncreated by p.TestTwo in goroutine 5\n";
        assert_eq!(blamed(&[("TestOne", trace), ("TestTwo", "")]), ["TestTwo"]);
        assert_eq!(blamed(&[("TestOne", ""), ("TestTwo", trace)]), ["TestTwo"]);
        let elsewhere = "panic: oh\n\ngoroutine 6 [running]:\np.helper()\n\ngoroutine 7 [select]:\np.TestTwo()\n";
        assert_eq!(blamed(&[("TestOne", elsewhere), ("TestTwo", "")]), ["TestOne"]);
    }

    #[test]
    fn without_a_word_all_are_suspect() {
        assert_eq!(blamed(&[("TestOne", "x"), ("TestTwo", "")]), ["TestOne", "TestTwo"]);
    }

    #[test]
    fn who_waits_is_no_suspect() {
        assert_eq!(blamed(&[("TestOne", "x"), ("TestWaits", "")]), ["TestOne"]);
        assert_eq!(blamed(&[("TestWaits", "")]), [""; 0]);
        let asked = "SIGQUIT: quit\nPC=0x1\n\ngoroutine 1 [chan receive]:\n";
        assert_eq!(blamed(&[("TestOne", ""), ("TestWaits", asked)]), ["TestOne"], "it only printed last");
        let panic = "panic: oh\n\ngoroutine 6 [running]:\np.helper()\n";
        assert_eq!(blamed(&[("TestOne", ""), ("TestWaits", panic)]), ["TestOne"]);
        let its = "panic: oh\n\ngoroutine 6 [running]:\np.TestWaits.func1()\n";
        assert_eq!(blamed(&[("TestOne", its), ("TestWaits", "")]), ["TestWaits"], "unless it left something behind");
    }

    #[test]
    fn a_time_out_lists_who_ran() {
        let text =
            "panic: test timed out after 1s\n\trunning tests:\n\t\tTestTwo (1s)\n\t\tTestTwo/a (0s)\n\ngoroutine 1\n";
        assert_eq!(blamed(&[("TestOne", text), ("TestTwo", ""), ("TestTwo/a", "")]), ["TestTwo", "TestTwo/a"]);
    }

    #[test]
    fn each_package_gets_what_the_compiler_said_of_it() {
        let words = ["# a [a.test]", "a_test.go:1: x", "# b_test [b.test]", "b_test.go:2: y", "FAIL\ta [build failed]"];
        assert_eq!(compiler_s(&words, "a"), &words[..2]);
        assert_eq!(compiler_s(&words, "b"), &words[2..4]);
        assert_eq!(compiler_s(&words, "c"), words);
        assert_eq!(compiler_s(&[], "a"), [""; 0]);
    }

    #[test]
    fn a_test_contains_its_subtests() {
        assert!(contains("TestA", "TestA") && contains("TestA", "TestA/b"));
        assert!(!contains("TestA", "TestAb") && !contains("TestA/b", "TestA"));
    }
}
