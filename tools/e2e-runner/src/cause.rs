//! Why something failed: the verdict over a log, and the line that decided it.
//!
//! What the lines mean is data, in [`rules`]; here is only in which order they are asked.

pub mod pods;
pub mod rules;

use std::sync::LazyLock;

use kit::Cause;
use regex::{Regex, RegexSet};

use rules::{RULES, Rule};

/// What is said of a test whose program ended and did not say why.
pub(crate) const SILENT_END: &str = "the test program ended in the middle of it, without a word";

/// How a line begins in which one of our programs says how the container of a test program ended.
pub(crate) const CONTAINER_ENDED: &str = "the container was ended: ";

/// How many lines before its end a test tells why it failed, at most: what it says while it cleans up counts as well.
const LAST_LINES: usize = 80;
/// How many lines of a test's own words are shown.
const EXCERPT: usize = 12;
/// What Go's library says of a server that is away.
const AWAY: &str = r"connection refused|connection reset by peer|i/o timeout|EOF|no route to host|network is unreachable|TLS handshake timeout|Client\.Timeout exceeded|context deadline exceeded";
/// How the last words of a Go program begin.
const CRASH: &[&str] = &["panic: ", "fatal error: ", "SIGQUIT: "];
/// How those begin that it says because its time was over, or because somebody asked.
const LATE: &[&str] = &["panic: test timed out", "SIGQUIT: "];
/// How many lines before its last complaint belong to it: what a test met earlier it has got over.
const BEFORE: usize = 4;
/// A longer line is cut in records.
const LINE: usize = 400;

/// A cause with the line that decided it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// Who has to act.
    pub cause: Cause,
    /// The line that decided.
    pub line: Option<String>,
    /// The first of the test's own words on it.
    pub excerpt: Vec<String>,
}

impl Verdict {
    /// A verdict of a line.
    #[must_use]
    pub fn new(cause: Cause, line: impl Into<String>) -> Self {
        Self { cause, line: Some(line.into()), excerpt: Vec::new() }
    }
}

/// The rules, ready for use, with what is known of the cluster.
#[derive(Clone)]
pub struct Judge {
    set: RegexSet,
    causes: Vec<Cause>,
    /// Whether a package's output may hold errors of our own, of a program that could not be run elsewhere.
    own_errors: bool,
    /// Whether the tests are unit tests, which name what a cluster says without having any.
    units: bool,
    /// The component's own namespace.
    namespace: Option<String>,
}

impl Default for Judge {
    fn default() -> Self {
        Self::new(None)
    }
}

/// What a line of a test itself looks like: `    file.go:12: words` (testing.go, (*common).decorate).
static OWN: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^\s+[^\s:]+\.go:\d+: (?:.*)$").expect("it is constant"));
/// Where a test begins to print all that the cluster holds: a bar of signs (Tekton's and Knative's helpers).
static DUMP: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^\s+[^\s:]+\.go:\d+: [#=*-]{12,}\s*$").expect("it is constant"));
/// A call of a test's function, in a trace.
static IN_TEST: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^\S+\.(?:Test|Fuzz|Benchmark)\w*[.(]").expect("it is constant"));
/// What Go's testing package says itself when a test has failed for reasons that are the program's.
static PROGRAM: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"^(?:panic: |fatal error: |unexpected fault address |SIG[A-Z]+: |WARNING: DATA RACE|\s+testing\.go:\d+: race detected|(?:got|want):$|--- FAIL: Example)",
    )
    .expect("it is constant")
});

/// What a program says that nothing around it makes it say.
static CRASHED: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"^(?:panic: |fatal error: |unexpected fault address |SIG[A-Z]+: |WARNING: DATA RACE|testing\.go:\d+: race detected)",
    )
    .expect("it is constant")
});

/// Whether the line that decided is a crash of the program, or a data race: those are its own doing, whatever else goes
/// wrong at that time.
pub(crate) fn is_crash(line: &str) -> bool {
    CRASHED.is_match(line) && !is_late(line)
}

fn is_late(line: &str) -> bool {
    LATE.iter().any(|late| line.starts_with(late))
}

/// A line of a comparison of what was wanted with what came (cmp.Diff): those are values, whatever they name.
fn is_diff(line: &str) -> bool {
    line.trim_start().strip_prefix(['+', '-']).is_some_and(|rest| rest.starts_with(char::is_whitespace))
}

/// Where a test begins to tell why it failed: a few lines before its last complaint, or where that begins which they are a
/// part of.
fn tells(said: &[&str]) -> usize {
    let complains = |line: &&str| own_words(line).is_some();
    let least = said.len().saturating_sub(LAST_LINES);
    let Some(last) = said.iter().rposition(complains) else { return least };
    let from = last.saturating_sub(BEFORE);
    said[..=from].iter().rposition(complains).unwrap_or(from).max(least)
}

/// A line that a test wrote with `t.Log`, `t.Error` and their like, or nothing. What deferred functions wrote
/// after `t.Fatal` or `t.Skip` (Go puts it down to its own panic.go) comes too late to be the reason.
#[must_use]
pub fn own_words(line: &str) -> Option<&str> {
    (OWN.is_match(line) && !line.trim_start().starts_with("panic.go:")).then(|| line.trim())
}

impl Judge {
    /// The rules, for tests against the API server at this address (`host:port`), if one is known.
    #[must_use]
    pub fn new(server: Option<&str>) -> Self {
        let address = server.map(|server| {
            let (url, host) = (regex::escape(server), regex::escape(server.split('/').next().unwrap_or(server)));
            let dial = format!(r"(?:dial|read|write) tcp (?:\S*->)?{host}: ");
            (format!(r#"{dial}|https?://{url}(?:[/?]\S*|"?): .*(?:{AWAY})"#), Cause::ClusterUnreachable)
        });
        let rules: Vec<_> = RULES.iter().map(|rule| (rule.pattern.to_owned(), rule.cause)).chain(address).collect();
        let set = RegexSet::new(rules.iter().map(|(pattern, _)| pattern)).expect("the rules are tested");
        let causes = rules.into_iter().map(|(_, cause)| cause).collect();
        Self { set, causes, own_errors: false, units: false, namespace: None }
    }

    /// For programs that one of ours starts elsewhere, and says why it cannot.
    #[must_use]
    pub fn of_launcher(self) -> Self {
        Self { own_errors: true, ..self }
    }

    /// For unit tests: most rules are about a cluster, of which they only have words.
    #[must_use]
    pub fn of_units(self) -> Self {
        Self { units: true, ..self }
    }

    /// For tests of a component that lives there: a webhook of its own that fails is its own fault.
    #[must_use]
    pub fn of_namespace(self, namespace: Option<&str>) -> Self {
        Self { namespace: namespace.map(String::from), ..self }
    }

    /// Why a test failed that came to its end.
    #[must_use]
    pub fn test<'l>(&self, log: &'l str) -> Verdict {
        let lines: Vec<_> = log.lines().collect();
        // A time-out or a panic ends with pages of traces, a failure with all that a cluster holds: what
        // decided stands before.
        let crash = lines.iter().position(|line| CRASH.iter().any(|crash| line.starts_with(crash)));
        let dump = lines.iter().position(|line| DUMP.is_match(line)).unwrap_or(lines.len());
        let (said, dumped) = lines.split_at(crash.map_or(dump, |crash| dump.min(crash + 1)));
        let values = |lines: &[&'l str]| lines.iter().copied().filter(|line| !is_diff(line)).collect::<Vec<_>>();
        let late = || lines.iter().find(|line| line.starts_with("panic: test timed out"));
        let own = || said.iter().rev().find(|line| own_words(line).is_some());
        let (cause, line) = self
            .program(&lines)
            .or_else(|| self.infrastructure(&values(&said[tells(said)..]), |_| true))
            .or_else(|| self.infrastructure(dumped, |rule| rule.in_dumps))
            .or_else(|| late().map(|line| (Cause::TestTimeout, *line)))
            .or_else(|| own().map(|line| (Cause::Product, *line)))
            .or_else(|| self.infrastructure(&values(said), |_| true))
            .unwrap_or((Cause::Unclassified, lines.last().copied().unwrap_or_default()));
        let excerpt = if crash.is_some() { excerpt(&lines, crash) } else { excerpt(said, None) };
        Verdict { cause, line: Some(cut(line)), excerpt }
    }

    /// Whether one of our programs says in this log how the test program ended that it ran elsewhere.
    #[must_use]
    pub fn says_end(&self, log: &str) -> bool {
        self.own_errors && (self.launcher_s(log).is_some() || container_s(log).is_some())
    }

    /// Why a program was kept from its end by what it ran on, as one of ours says: that is no crash of its own.
    #[must_use]
    pub fn cut_off(&self, log: &str) -> Option<Verdict> {
        self.launcher_s(log).map(|(cause, line)| Verdict::new(cause, cut(line)))
    }

    /// What one of our programs says, last, that could not run a test program elsewhere to its end.
    fn launcher_s<'l>(&self, log: &'l str) -> Option<(Cause, &'l str)> {
        log.lines().rev().filter(|_| self.own_errors).find_map(|line| Some((own_error(line)?, line)))
    }

    /// Why a test failed that took the program with it, whose last words (in some test's log) are `words`.
    #[must_use]
    pub fn crash(&self, log: &str, words: &str) -> Verdict {
        let own = self.test(log);
        let decided = own.cause.class() == kit::Class::Infrastructure || own.cause == Cause::TestTimeout;
        let crash = words.lines().find(|line| PROGRAM.is_match(line));
        let program = crash.filter(|line| !is_late(line)).and_then(|line| self.program(&[line]));
        match (program, crash) {
            (Some((cause, line)), _) => Verdict { cause, line: Some(cut(line)), ..own },
            _ if decided => own,
            (None, Some(line)) => Verdict { cause: Cause::TestTimeout, line: Some(cut(line)), ..own },
            (None, None) => {
                let mut lines = [log, words].into_iter().flat_map(|log| log.lines().rev());
                let status = lines.find(|line| line.starts_with("exit status "));
                let said: Vec<_> = status.into_iter().chain(container_s(words)).collect();
                let said = if said.is_empty() { String::new() } else { format!(" ({})", said.join(", ")) };
                let line = format!("{SILENT_END}{said}");
                Verdict { cause: Cause::Product, line: Some(line), ..own }
            }
        }
    }

    /// Why a package failed in which no test did.
    #[must_use]
    pub fn package(&self, log: &str) -> Verdict {
        let lines: Vec<_> = log.lines().filter(|line| !line.is_empty()).collect();
        let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
        let said = lines.iter().find(|line| !line.starts_with("FAIL")).or(lines.last()).copied().unwrap_or_default();
        let late = || lines.iter().find(|line| is_late(line));
        let (cause, line) = self
            .launcher_s(log)
            .or_else(|| self.program(&lines))
            .or_else(|| self.infrastructure(last, |_| true))
            .or_else(|| late().map(|line| (Cause::TestTimeout, *line)))
            .unwrap_or((Cause::Unclassified, said));
        Verdict { cause, line: Some(cut(line)), excerpt: lines.iter().take(EXCERPT).map(|line| cut(line)).collect() }
    }

    /// What Go itself says of a failure that is the program's: that is the component's fault, unless the words are those of
    /// something else.
    fn program<'l>(&self, lines: &[&'l str]) -> Option<(Cause, &'l str)> {
        let line = *lines.iter().find(|line| PROGRAM.is_match(line) && !is_late(line))?;
        Some(self.infrastructure(&[line], |_| true).unwrap_or((Cause::Product, line)))
    }

    /// The strongest of the `wanted` rules that fits any of these lines, and the first such line.
    fn infrastructure<'l>(&self, lines: &[&'l str], wanted: fn(&Rule) -> bool) -> Option<(Cause, &'l str)> {
        let fits = |line: &str| {
            let fitting = self.set.matches(line);
            let meant = |rule: &Rule| {
                let here = wanted(rule) && (rule.in_units || !self.units);
                here && !rule.except.iter().any(|words| line.contains(words))
            };
            fitting.iter().find(|rule| RULES.get(*rule).is_none_or(meant))
        };
        let found = lines.iter().filter_map(|line| Some((fits(line)?, *line)));
        // Equal rules: the first line, for what follows it often only repeats it.
        let (rule, line) = found.min_by_key(|(rule, _)| *rule)?;
        let cause = self.causes[rule];
        Some((if cause == Cause::Webhook && self.is_own(line) { Cause::Product } else { cause }, line))
    }

    /// Whether a line names a service in the component's own namespace.
    fn is_own(&self, line: &str) -> bool {
        self.namespace.as_ref().is_some_and(|namespace| line.contains(&format!(".{namespace}.svc")))
    }
}

/// How the container of a test program ended, in the words of one of our programs.
fn container_s(log: &str) -> Option<&str> {
    log.lines().rev().find_map(|line| line.strip_prefix(CONTAINER_ENDED))
}

/// The cause of a line like `error[image-pull]: why`, as our own programs say it.
fn own_error(line: &str) -> Option<Cause> {
    let (name, _) = line.strip_prefix("error[")?.split_once("]: ")?;
    Cause::ALL.iter().copied().find(|cause| cause.name() == name)
}

/// The test's own words: what it complains about, without Go's frame around it. Of a crash, what it says
/// and the calls of the test that it was in.
fn excerpt(lines: &[&str], crash: Option<usize>) -> Vec<String> {
    let frame = |line: &&str| {
        let line = line.trim_start();
        !(line.is_empty() || line.starts_with("=== ") || line.starts_with("--- "))
    };
    let Some(crash) = crash else {
        let all: Vec<_> = lines.iter().copied().filter(frame).collect();
        // The complaint comes last, and may go on for some lines.
        let last = all.iter().rposition(|line| own_words(line).is_some()).unwrap_or(all.len());
        let from = last.saturating_sub(BEFORE).min(all.len().saturating_sub(BEFORE));
        return all[from..].iter().take(EXCERPT).map(|line| cut(line)).collect();
    };
    let mut parts = lines[crash..].split(|line| line.is_empty());
    let words = parts.next().unwrap_or_default().iter();
    let in_test = |part: &&[&str]| part.iter().any(|line| IN_TEST.is_match(line));
    // The goroutine that panicked comes first; after a time-out it is a clock that says nothing.
    let calls = parts.clone().find(in_test).or_else(|| parts.next()).unwrap_or_default().iter();
    words.take(EXCERPT / 2).chain(calls.take(EXCERPT)).map(|line| cut(line)).collect()
}

fn cut(line: &str) -> String {
    let line = line.trim();
    match line.char_indices().nth(LINE) {
        Some((end, _)) => format!("{} …", &line[..end]),
        None => line.to_owned(),
    }
}
