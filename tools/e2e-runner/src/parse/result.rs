//! What a stream says in the end: its packages and tests.

use std::collections::VecDeque;

use jiff::Timestamp;
use kit::record::Status;

use crate::cause::Verdict;

/// Why something failed, and where it says so.
pub type Failure = Verdict;

/// A test that ended, or that the end of its program ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// Index into [`Parsed::packages`].
    pub package: usize,
    /// `TestX` or `TestX/sub`.
    pub name: Box<str>,
    /// What became of it.
    pub status: Status,
    /// When it began.
    pub began: Timestamp,
    /// When it ended.
    pub ended: Timestamp,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Its log's file.
    pub log: Option<String>,
    /// Why it is not good, or not known.
    pub failure: Option<Box<Failure>>,
    /// Why it skipped itself.
    pub reason: Option<String>,
}

/// What became of a package.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct PackageEnd {
    /// Its import path.
    pub name: String,
    /// What is wrong with it beside its tests: it does not compile, or its program failed outside of any.
    pub failure: Option<Failure>,
    /// Its own output's file.
    pub log: Option<String>,
    /// How long it took, in seconds.
    pub seconds: f64,
    /// Whether its program crashed.
    pub crashed: bool,
    /// Why it was kept from its end by what it ran on.
    pub cut_off: Option<Failure>,
}

/// All that a stream says.
#[derive(Debug, Clone, Default)]
pub struct Parsed {
    /// Packages, in the order in which they began.
    pub packages: Vec<PackageEnd>,
    /// Tests, in the order in which they ended; only those that are not good, if the stream was told so.
    pub tests: Vec<Ended>,
    /// Text beside the events: the last lines.
    pub text: VecDeque<String>,
    /// Whether the stream ended before its packages did.
    pub truncated: bool,
}

impl Parsed {
    /// How many top-level tests have failed.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.tests.iter().filter(|test| test.status == Status::Failed && !test.name.contains('/')).count()
    }
}

/// Who wants to see what goes on.
pub trait Observer {
    /// A test began.
    fn began(&mut self, _test: &str) {}
    /// A parallel test waits for its turn.
    fn paused(&mut self, _test: &str) {}
    /// It goes on.
    fn goes_on(&mut self, _test: &str) {}
    /// A test printed a line.
    fn said(&mut self, _test: &str, _line: &str) {}
    /// A test of that package ended.
    fn ended(&mut self, _package: &str, _test: &Ended) {}
}

impl Observer for () {}

impl<O: Observer> Observer for &mut O {
    fn began(&mut self, test: &str) {
        (**self).began(test);
    }

    fn paused(&mut self, test: &str) {
        (**self).paused(test);
    }

    fn goes_on(&mut self, test: &str) {
        (**self).goes_on(test);
    }

    fn said(&mut self, test: &str, line: &str) {
        (**self).said(test, line);
    }

    fn ended(&mut self, package: &str, test: &Ended) {
        (**self).ended(package, test);
    }
}

/// Both see it.
impl<A: Observer, B: Observer> Observer for (A, B) {
    fn began(&mut self, test: &str) {
        self.0.began(test);
        self.1.began(test);
    }

    fn paused(&mut self, test: &str) {
        self.0.paused(test);
        self.1.paused(test);
    }

    fn goes_on(&mut self, test: &str) {
        self.0.goes_on(test);
        self.1.goes_on(test);
    }

    fn said(&mut self, test: &str, line: &str) {
        self.0.said(test, line);
        self.1.said(test, line);
    }

    fn ended(&mut self, package: &str, test: &Ended) {
        self.0.ended(package, test);
        self.1.ended(package, test);
    }
}
