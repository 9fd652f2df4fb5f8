//! How long one test may take. Whoever takes longer is ended with its program, which says where it was, and so is whoever
//! runs longest when it prints nothing any more; the tests that this kept from their end run in another program.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{
        Arc, Mutex,
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use kit::{
    Cause,
    process::Stopper,
    record::{Status, TestLimit},
    ui,
};

use crate::{
    cause::Verdict,
    pace::Pace,
    parse::{Ended, Observer, Parsed, event::top},
    runs::Found,
};

/// What one test may take of which nobody says anything.
const LIMIT: Duration = Duration::from_mins(20);
/// A test that passed in an earlier run may take so many times as long.
const LEARNT: u32 = 5;
/// But this at least.
const LEAST: Duration = Duration::from_mins(2);
/// When so many tests have hung, more is wrong than each of them.
pub const MOST: usize = 3;
const TICK: Duration = Duration::from_millis(200);

/// How long tests may take, each for itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Limits {
    other: Duration,
    learnt: BTreeMap<String, Duration>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { other: LIMIT, learnt: BTreeMap::new() }
    }
}

impl Limits {
    /// Exactly what the caller says; otherwise what is learnt from the `earlier` runs, and for all other tests what the
    /// suite says, stretched. What was learnt on nodes that were as slow needs no stretching.
    #[must_use]
    pub fn new(exactly: Option<Duration>, suite: Option<Duration>, earlier: &[Found], pace: &Pace) -> Self {
        if let Some(other) = exactly {
            return Self { other, learnt: BTreeMap::new() };
        }
        let mut learnt = BTreeMap::new();
        for results in earlier.iter().map(|found| &found.results) {
            let then = results.conditions.stretch.as_ref().map_or(1, |stretch| stretch.factor.max(1));
            let slower = pace.factor().div_ceil(then);
            let tests = results.tests.iter().filter(|test| top(&test.name) == test.name);
            for test in tests.filter(|test| test.status == Status::Passed) {
                // A record may hold anything.
                let Ok(took) = Duration::try_from_secs_f64(test.seconds) else { continue };
                let limit = took.saturating_mul(LEARNT).max(LEAST);
                let limit = limit.saturating_mul(slower);
                let longest = learnt.entry(test.name.clone()).or_insert(limit);
                *longest = limit.max(*longest);
            }
        }
        Self { other: pace.stretch(suite.unwrap_or(LIMIT)), learnt }
    }

    /// What this test may take, without the time of its subtests.
    fn of(&self, test: &str) -> Duration {
        self.learnt.get(test).copied().unwrap_or(self.other)
    }

    /// So much more for each, for tests of which it is heard late.
    #[must_use]
    pub fn and(self, more: Duration) -> Self {
        let learnt = self.learnt.into_iter().map(|(test, limit)| (test, limit.saturating_add(more)));
        Self { other: self.other.saturating_add(more), learnt: learnt.collect() }
    }

    /// For the record.
    #[must_use]
    pub fn record(&self) -> TestLimit {
        TestLimit { seconds: self.other.as_secs_f64(), learnt: self.learnt.len() }
    }
}

/// The time that a test takes itself: it stands while the test waits for its turn and while a subtest runs.
#[derive(Debug)]
struct Clock {
    taken: Duration,
    since: Option<Instant>,
    parent: Option<Box<str>>,
    subtests: usize,
}

/// The clocks of the tests that run.
#[derive(Debug, Default)]
struct Clocks(HashMap<Box<str>, Clock>);

impl Clocks {
    fn began(&mut self, test: &str, now: Instant) {
        // A subtest's name may have slashes of its own.
        let parent = test.rmatch_indices('/').map(|(at, _)| &test[..at]).find(|name| self.0.contains_key(*name));
        let parent: Option<Box<str>> = parent.map(Into::into);
        if let Some(parent) = &parent {
            self.stop(parent, now);
            self.0.entry(parent.clone()).and_modify(|clock| clock.subtests += 1);
        }
        self.0.insert(test.into(), Clock { taken: Duration::ZERO, since: Some(now), parent, subtests: 0 });
    }

    fn stop(&mut self, test: &str, now: Instant) {
        if let Some(clock) = self.0.get_mut(test) {
            clock.taken += clock.since.take().map_or(Duration::ZERO, |since| now.duration_since(since));
        }
    }

    fn goes_on(&mut self, test: &str, now: Instant) {
        if let Some(clock) = self.0.get_mut(test).filter(|clock| clock.subtests == 0) {
            clock.since.get_or_insert(now);
        }
    }

    fn ended(&mut self, test: &str, now: Instant) {
        let Some(parent) = self.0.remove(test).and_then(|clock| clock.parent) else { return };
        self.0.entry(parent.clone()).and_modify(|clock| clock.subtests = clock.subtests.saturating_sub(1));
        self.goes_on(&parent, now);
    }

    /// The test that is over its limit for the longest time, and that limit.
    fn over(&self, limits: &Limits, now: Instant) -> Option<(&str, Duration)> {
        let over = self.0.iter().filter_map(|(name, clock)| {
            let taken = clock.taken + now.duration_since(clock.since?);
            let limit = limits.of(name);
            taken.checked_sub(limit).map(|over| (over, name, limit))
        });
        over.max_by_key(|(over, ..)| *over).map(|(_, name, limit)| (&**name, limit))
    }

    /// The test that has run for the longest time.
    fn longest(&self, now: Instant) -> Option<&str> {
        let taken =
            self.0.iter().filter_map(|(name, clock)| Some((clock.taken + now.duration_since(clock.since?), name)));
        taken.max().map(|(_, name)| &**name)
    }
}

/// A test that took too long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hung {
    /// Its name.
    pub test: String,
    /// In words, what it did.
    pub why: String,
    /// All that ran or waited at that time, and what began since, before the program ended.
    running: Vec<Box<str>>,
}

impl Hung {
    /// Whether its end cut that test off.
    fn cuts(&self, test: &Ended) -> bool {
        matches!(test.status, Status::Failed | Status::NotRun) && self.running.contains(&test.name)
    }

    /// Whether its end cut any test off: all may have come to their end in the last moment.
    #[must_use]
    pub fn cuts_any(&self, parsed: &Parsed) -> bool {
        parsed.tests.iter().any(|test| self.cuts(test))
    }

    /// Lays over what its program said at its end that nobody else is to blame: those whom it kept from their end are
    /// taken out with all their subtests, so that they can run again. Returns the logs of which one says where everything
    /// was: that of whichever test printed last, or the program's own.
    pub fn blame(&self, parsed: &mut Parsed) -> Vec<String> {
        // It may have come to its own end in the last moment: then nobody is to blame.
        let hangs = parsed.tests.iter().any(|test| *test.name == *self.test && self.cuts(test));
        let mine = if hangs { top(&self.test) } else { "" };
        let cut_off: Vec<_> = parsed.tests.iter().filter(|test| self.cuts(test)).collect();
        let again: BTreeSet<_> =
            cut_off.iter().map(|test| top(&test.name).to_owned()).filter(|top| top != mine).collect();
        let of_package = parsed.packages.iter().filter_map(|package| package.log.clone());
        let logs = cut_off.iter().filter_map(|test| test.log.clone()).chain(of_package).collect();
        parsed.tests.retain(|test| !again.contains(top(&test.name)));
        for test in parsed.tests.iter_mut().filter(|test| self.cuts(test)) {
            let contains = *test.name == *self.test || self.test.starts_with(&format!("{}/", test.name));
            test.status = if contains { Status::Failed } else { Status::NotRun };
            test.failure = Some(Box::new(Verdict::new(Cause::TestTimeout, self.why.as_str())));
        }
        for package in &mut parsed.packages {
            (package.failure, package.cut_off, package.crashed) = (None, None, false);
        }
        logs
    }
}

#[derive(Debug, Default)]
struct State {
    clocks: Clocks,
    /// When the program printed something last.
    heard: Option<Instant>,
    hung: Option<Hung>,
}

impl State {
    /// The test that hangs, and why that is so.
    fn hangs(&self, limits: &Limits, silence: Option<Duration>, now: Instant) -> Option<(String, String)> {
        if let Some((test, limit)) = self.clocks.over(limits, now) {
            return Some((test.to_owned(), format!("{test} took longer than one test may: {}", ui::duration(limit))));
        }
        let silence =
            silence.filter(|silence| self.heard.is_some_and(|heard| now.duration_since(heard) >= *silence))?;
        let test = self.clocks.longest(now)?;
        Some((test.to_owned(), format!("{test} ran longest when nothing was printed for {}", ui::duration(silence))))
    }
}

/// Looks at the clocks of a program's tests, and ends it when the time of one is over.
pub struct Guard {
    state: Arc<Mutex<State>>,
    stopper: Stopper,
    end: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

/// Tells a [`Guard`] what runs.
pub struct Told(Arc<Mutex<State>>);

impl Guard {
    /// Begins to look. Of a program that prints nothing for as long as `silence` the test hangs that has run longest.
    #[must_use]
    pub fn start(limits: &Limits, silence: Option<Duration>) -> Self {
        let state = State { heard: Some(Instant::now()), ..State::default() };
        let (state, stopper) = (Arc::new(Mutex::new(state)), Stopper::default());
        let (end, ended) = channel();
        let (seen, limits, ends) = (Arc::clone(&state), limits.clone(), stopper.clone());
        let thread = std::thread::spawn(move || {
            while ended.recv_timeout(TICK) == Err(RecvTimeoutError::Timeout) {
                let Ok(mut state) = seen.lock() else { break };
                if let Some((test, why)) = state.hangs(&limits, silence, Instant::now()) {
                    let running = state.clocks.0.keys().cloned().collect();
                    state.hung = Some(Hung { test, why, running });
                    ends.stop();
                    break;
                }
            }
        });
        Self { state, stopper, end: Some(end), thread: Some(thread) }
    }

    /// Something to give to a stream.
    #[must_use]
    pub fn told(&self) -> Told {
        Told(Arc::clone(&self.state))
    }

    /// The program has printed something.
    pub fn heard(&self) {
        if let Ok(mut state) = self.state.lock() {
            state.heard = Some(Instant::now());
        }
    }

    /// What ends the program.
    #[must_use]
    pub fn stopper(&self) -> &Stopper {
        &self.stopper
    }

    /// Whom it had to end. All that began until now is known then.
    #[must_use]
    pub fn found(&self) -> Option<Hung> {
        self.state.lock().ok()?.hung.clone()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            // It has found something by now, or there is nothing more to find.
            let _ = thread.join();
        }
    }
}

impl Told {
    fn tell(&self, tell: impl FnOnce(&mut Clocks, Instant)) {
        self.change(|state| tell(&mut state.clocks, Instant::now()));
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        if let Ok(mut state) = self.0.lock() {
            change(&mut state);
        }
    }
}

impl Observer for Told {
    fn began(&mut self, test: &str) {
        self.change(|state| {
            state.clocks.began(test, Instant::now());
            // The program hears of its end a moment later.
            if let Some(hung) = &mut state.hung {
                hung.running.push(test.into());
            }
        });
    }

    fn paused(&mut self, test: &str) {
        self.tell(|clocks, now| clocks.stop(test, now));
    }

    fn goes_on(&mut self, test: &str) {
        self.tell(|clocks, now| clocks.goes_on(test, now));
    }

    fn ended(&mut self, _package: &str, test: &Ended) {
        self.tell(|clocks, now| clocks.ended(&test.name, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{report, runs};
    use kit::record::Stretch;

    const fn minutes(number: u64) -> Duration {
        Duration::from_mins(number)
    }

    #[test]
    fn what_is_known_of_a_test_limits_it() {
        let passed = |name: &str, seconds| kit::record::Test { seconds, ..report::row(name, "p", Status::Passed) };
        let failed = kit::record::Test { seconds: 9e9, ..report::row("TestBad", "p", Status::Failed) };
        let tests = vec![passed("TestA", 60.0), passed("TestB", 1.0), passed("TestA/x", 900.0), failed];
        let results = runs::tests::results("x", "linux/s390x", tests);
        let mut found = [Found { path: "x".into(), digest: "sha256:1".into(), results }];
        let limits = |found: &[Found], exactly, suite, slowdown| {
            let limits = Limits::new(exactly, suite, found, &Pace::new(slowdown, None));
            ["TestA", "TestB", "TestBad", "TestA/x"].map(|test| limits.of(test).as_secs() / 60)
        };
        assert_eq!(limits(&found, None, None, None), [5, 2, 20, 20]);
        assert_eq!(limits(&found, None, Some(minutes(4)), Some(3.0)), [15, 6, 12, 12]);
        assert_eq!(limits(&found, Some(minutes(7)), Some(minutes(4)), Some(3.0)), [7, 7, 7, 7]);
        let late = Limits::new(None, None, &found, &Pace::default()).and(minutes(10));
        assert_eq!(["TestA", "TestBad"].map(|test| late.of(test)), [minutes(15), minutes(30)]);
        // Nodes that were as slow then took that time.
        let stretch = Stretch { slowdown: 3.0, source: "x".into(), factor: 3, changes: Vec::new() };
        found[0].results.conditions.stretch = Some(stretch);
        assert_eq!(limits(&found, None, None, Some(3.0)), [5, 2, 60, 60]);
        assert_eq!(limits(&found, None, None, None), [5, 2, 20, 20]);
        assert_eq!(limits(&found, None, None, Some(12.0))[0], 20);
    }

    #[test]
    fn a_clock_stands_while_a_test_waits_or_a_subtest_runs() {
        let start = Instant::now();
        let at = |number| start + minutes(number);
        let limits = Limits { other: minutes(10), learnt: BTreeMap::new() };
        let mut clocks = Clocks::default();
        clocks.began("TestWaits", at(0));
        clocks.stop("TestWaits", at(1));
        clocks.began("TestA", at(0));
        clocks.began("TestA/x", at(5));
        clocks.began("TestA/x/y/z", at(6));
        clocks.ended("TestA/x/y/z", at(14));
        assert_eq!(clocks.over(&limits, at(22)), None, "x has 9 minutes of its own, A 5");
        assert_eq!(clocks.over(&limits, at(23)), Some(("TestA/x", minutes(10))));
        clocks.ended("TestA/x", at(23));
        assert_eq!(clocks.over(&limits, at(27)), None);
        assert_eq!(clocks.over(&limits, at(28)), Some(("TestA", minutes(10))));
        clocks.ended("TestA", at(29));
        clocks.goes_on("TestWaits", at(100));
        assert_eq!(clocks.over(&limits, at(108)), None);
        assert_eq!(clocks.over(&limits, at(109)), Some(("TestWaits", minutes(10))));
    }

    fn ended(name: &str, status: Status, log: &str) -> Ended {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let failure = (status != Status::Passed).then(|| Box::new(Verdict::new(Cause::TestTimeout, "SIGQUIT: quit")));
        let log = Some(log.to_owned());
        Ended {
            package: 0,
            name: name.into(),
            status,
            began: now,
            ended: now,
            seconds: 0.0,
            log,
            failure,
            reason: None,
        }
    }

    #[test]
    fn whoever_it_kept_from_its_end_is_taken_out_with_all_subtests() {
        use Status::{Failed, NotRun, Passed};
        let mut parsed = Parsed {
            packages: vec![crate::parse::PackageEnd { crashed: true, ..Default::default() }],
            tests: vec![
                ended("TestDone", Passed, "done"),
                ended("TestBad", Failed, "bad"),
                ended("TestBeside/one", Passed, "one"),
                ended("TestBeside/two", Failed, "two"),
                ended("TestBeside", Failed, "beside"),
                ended("TestLate", Failed, "late"),
                ended("TestHung/one", Passed, "first"),
                ended("TestHung/two", Failed, "hung"),
                ended("TestHung/three", NotRun, "third"),
                ended("TestHung", Failed, "top"),
            ],
            ..Parsed::default()
        };
        let running =
            ["TestBeside/two", "TestBeside", "TestLate", "TestHung/two", "TestHung/three", "TestHung"].map(Box::from);
        let hung = Hung { test: "TestHung/two".into(), why: "why".into(), running: running.to_vec() };
        assert!(hung.cuts_any(&parsed));
        let before = parsed.clone();
        assert_eq!(hung.blame(&mut parsed), ["two", "beside", "late", "hung", "third", "top"]);
        let said: Vec<_> = parsed.tests.iter().map(|test| (&*test.name, test.status)).collect();
        let expected = [
            ("TestDone", Passed),
            ("TestBad", Failed),
            ("TestHung/one", Passed),
            ("TestHung/two", Failed),
            ("TestHung/three", NotRun),
            ("TestHung", Failed),
        ];
        assert_eq!(said, expected);
        assert!(!parsed.packages[0].crashed);
        // It came to its end just before its program: nobody is to blame, and all the others run again.
        let mut parsed = before;
        parsed.tests[7] = ended("TestHung/two", Passed, "hung");
        parsed.tests.truncate(8);
        hung.blame(&mut parsed);
        let said: Vec<_> = parsed.tests.iter().map(|test| &*test.name).collect();
        assert_eq!(said, ["TestDone", "TestBad", "TestHung/one", "TestHung/two"]);
        assert!(!hung.cuts_any(&parsed));
    }

    #[test]
    fn of_a_silent_program_the_test_hangs_that_has_run_longest() {
        let start = Instant::now();
        let at = |number| start + minutes(number);
        let mut state = State { heard: Some(at(2)), ..State::default() };
        let hangs = |state: &State, number| {
            let hangs = state.hangs(&Limits::default(), Some(minutes(10)), at(number));
            hangs.map(|(test, _)| test)
        };
        assert_eq!(hangs(&state, 12), None, "no test runs");
        state.clocks.began("TestWaits", at(0));
        state.clocks.stop("TestWaits", at(0));
        state.clocks.began("TestA", at(0));
        state.clocks.began("TestB", at(1));
        assert_eq!(hangs(&state, 11), None);
        assert_eq!(hangs(&state, 12).as_deref(), Some("TestA"));
        state.heard = Some(at(12));
        assert_eq!(hangs(&state, 13), None);
        assert_eq!(state.hangs(&Limits::default(), None, at(19)), None, "nobody minds");
    }

    #[test]
    fn what_begins_while_the_program_is_ended_is_cut_off_as_well() {
        let guard = Guard::start(&Limits { other: Duration::ZERO, learnt: BTreeMap::new() }, None);
        let mut told = guard.told();
        told.began("TestHung");
        let late = Instant::now() + Duration::from_secs(20);
        while guard.found().is_none() && Instant::now() < late {
            std::thread::yield_now();
        }
        told.began("TestLate");
        let hung = guard.found().unwrap();
        assert_eq!((hung.test.as_str(), hung.running), ("TestHung", vec!["TestHung".into(), "TestLate".into()]));
    }
}
