//! The state of a stream of events: what runs, what ended, and how.

use std::collections::HashMap;

use jiff::Timestamp;
use kit::{Cause, Result, record::Status};

use super::{
    Ended, Failure, Observer, PackageEnd, Parsed,
    event::{Action, Event, Line, decode, top},
    log::{self, Folder},
    package::{Package, Running, compiler_s, contains, crash, culprits},
};
use crate::cause::{Judge, Verdict};

/// Lines of a compiler that are kept for each package.
const BUILD_LINES: usize = 40;
/// Packages whose compiler output is kept, and lines of text beside the events.
const KEPT: usize = 200;
/// Failures whose own words are kept; of the others there is the log.
const EXCERPTS: usize = 300;
/// How it begins what is said of a test that did not come to its end, and is not to blame.
pub(crate) const ENDED: &str = "the test program ended";

/// Reads a stream line by line.
pub struct Stream<'a, O> {
    observer: O,
    folder: Folder,
    judge: &'a Judge,
    /// Whether the logs of tests that passed are kept.
    keep_all: bool,
    /// Whether good tests are the observer's affair.
    forgets_good: bool,
    packages: Vec<Package>,
    index: HashMap<Box<str>, usize>,
    last: usize,
    builds: HashMap<Box<str>, Vec<String>>,
    /// A package that does not compile, until the package ends that needs it.
    broken: Option<Box<str>>,
    order: u64,
    /// Top-level tests that failed.
    failed: usize,
    /// Failures, of which the first ones keep their words.
    excerpts: usize,
    parsed: Parsed,
}

impl<'a, O: Observer> Stream<'a, O> {
    /// Logs go to `folder`: all of them, or only those of tests that did not pass.
    pub fn new(folder: Folder, keep_all: bool, judge: &'a Judge, observer: O) -> Self {
        Self {
            observer,
            folder,
            judge,
            keep_all,
            forgets_good: false,
            packages: Vec::new(),
            index: HashMap::new(),
            last: 0,
            builds: HashMap::new(),
            broken: None,
            order: 0,
            failed: 0,
            excerpts: 0,
            parsed: Parsed::default(),
        }
    }

    /// Leaves good tests to the observer: the result holds the others only, so that it does not grow with them.
    #[must_use]
    pub fn forgetting_good(self) -> Self {
        Self { forgets_good: true, ..self }
    }

    /// How many top-level tests have failed until now.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.failed
    }

    /// Whether something began, and all that began has ended.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !self.packages.is_empty() && self.packages.iter().all(|package| package.ended) && self.broken.is_none()
    }

    /// Takes in a line, without its end.
    ///
    /// # Errors
    /// [`Cause::HostDisk`] if a log cannot be written.
    pub fn line(&mut self, line: &[u8]) -> Result<()> {
        match decode(line) {
            Line::Event(event) => self.event(&event),
            Line::Text(text) => self.text(&text),
        }
    }

    fn event(&mut self, event: &Event<'_>) -> Result<()> {
        match event.action {
            Action::BuildOutput => self.build_output(event),
            Action::BuildFail => self.broken = Some((&*event.import_path).into()),
            // A package of the plan that did not begin may come without any name: nothing to hold on to.
            Action::Other | Action::Bench => {}
            Action::Pause => self.pause(event),
            Action::Cont => self.go_on(event),
            Action::Start => {
                self.package_begins(&event.package);
            }
            Action::Run => self.begin(event),
            Action::Output => return self.output(event),
            Action::Pass | Action::Fail | Action::Skip if event.test.is_empty() => return self.end_package(event),
            Action::Pass | Action::Fail | Action::Skip => return self.end_test(event),
        }
        Ok(())
    }

    fn package(&mut self, name: &str) -> usize {
        if self.packages.get(self.last).is_some_and(|package| package.name == name) {
            return self.last;
        }
        match self.index.get(name) {
            Some(index) => self.last = *index,
            None => self.add(name),
        }
        self.last
    }

    fn add(&mut self, name: &str) {
        self.last = self.packages.len();
        self.packages.push(Package::new(name, &self.folder));
        self.parsed.packages.push(PackageEnd { name: name.into(), ..PackageEnd::default() });
        self.index.insert(name.into(), self.last);
    }

    /// The package whose program runs now: if it has ended before, it runs once more, and what it said then stands.
    fn package_begins(&mut self, name: &str) -> usize {
        let index = self.package(name);
        if self.packages[index].ended {
            self.add(name);
        }
        self.last
    }

    fn begin(&mut self, event: &Event<'_>) {
        if event.test.is_empty() {
            return;
        }
        // Before Go 1.20 nothing says that a package begins.
        let index = self.package_begins(&event.package);
        // Whatever looked like a crash was none: the program goes on.
        self.packages[index].crashed_in = None;
        self.order += 1;
        let log = self.folder.log(&event.test);
        let running = Running::new(time(event), self.order, log);
        self.packages[index].running.insert((&*event.test).into(), running);
        self.observer.began(&event.test);
    }

    /// A parallel test waits for its turn.
    fn pause(&mut self, event: &Event<'_>) {
        let index = self.package(&event.package);
        if let Some(running) = self.packages[index].running.get_mut(&*event.test) {
            running.paused = true;
            self.observer.paused(&event.test);
        }
    }

    /// It goes on: what happens from now on is its affair. Go says the same of tests that never waited.
    fn go_on(&mut self, event: &Event<'_>) {
        let index = self.package(&event.package);
        let running = self.packages[index].running.get_mut(&*event.test);
        if let Some(running) = running.filter(|running| running.paused) {
            (running.paused, running.began) = (false, time(event));
            self.observer.goes_on(&event.test);
        }
    }

    fn output(&mut self, event: &Event<'_>) -> Result<()> {
        let index = self.package(&event.package);
        let (package, bytes) = (&mut self.packages[index], event.output.as_bytes());
        if event.test.is_empty() {
            let line = event.output.trim_end();
            package.orderly |= line == "PASS" || line == "FAIL";
            package.unbuilt |= line.starts_with("FAIL\t") && line.ends_with(" failed]");
            return self.folder.write(&mut package.log, bytes);
        }
        let mut known = false;
        // A test's log holds its subtests' too, as `go test -v` shows them.
        let (test, top) = (&*event.test, top(&event.test));
        for name in std::iter::once(test).chain((top != test).then_some(top)) {
            if let Some(running) = package.running.get_mut(name) {
                known = true;
                self.folder.write(&mut running.log, bytes)?;
            }
        }
        if !known {
            self.folder.write(&mut package.log, bytes)?;
        }
        self.observer.said(test, event.output.trim_end());
        Ok(())
    }

    fn end_test(&mut self, event: &Event<'_>) -> Result<()> {
        let index = self.package(&event.package);
        let now = time(event);
        let running = self.packages[index].running.remove(&*event.test).unwrap_or_else(|| {
            // Its beginning is missing: a line that Go could not make out, or a stream that was cut.
            Running::new(now, 0, self.folder.log(&event.test))
        });
        let status = match event.action {
            Action::Pass => Status::Passed,
            Action::Skip => Status::Skipped,
            _ => Status::Failed,
        };
        if status != Status::Failed {
            self.packages[index].crashed_in = None;
        }
        self.end(index, &event.test, running, status, now, event.elapsed)
    }

    /// Ends a test by its own word: its log decides why it failed, or what was decided of its subtests. What those say
    /// stands in its log too, beside what others of them said later.
    fn end(
        &mut self,
        package: usize,
        name: &str,
        running: Running,
        status: Status,
        now: Timestamp,
        elapsed: Option<f64>,
    ) -> Result<()> {
        let reason = (status == Status::Skipped).then(|| running.log.last_words()).flatten();
        let wanted = status == Status::Failed || (self.keep_all && top(name) == name);
        let began = running.began;
        let log = if wanted {
            self.folder.finish(running.log)?
        } else {
            self.folder.discard(&running.log);
            None
        };
        let failure = (status == Status::Failed).then(|| {
            let text = self.read(log.as_deref());
            let crashed = crash(&text).is_some();
            if crashed {
                self.packages[package].crashed_in = Some(name.into());
            }
            let inner = running.inner.filter(|_| !crashed);
            let failure = inner.unwrap_or_else(|| Box::new(self.judge.test(&text)));
            self.packages[package].failed_in(name, &failure);
            failure
        });
        self.push(
            Ended { package, name: name.into(), status, began, ended: now, seconds: 0.0, log, failure, reason },
            elapsed,
        );
        Ok(())
    }

    fn push(&mut self, mut ended: Ended, elapsed: Option<f64>) {
        let measured = ended.ended.duration_since(ended.began).as_secs_f64();
        ended.seconds = elapsed.filter(|seconds| seconds.is_finite()).unwrap_or(measured).clamp(0.0, 1e9);
        if ended.status == Status::Failed {
            self.packages[ended.package].failed += 1;
            self.failed += usize::from(!ended.name.contains('/'));
            self.excerpts += 1;
            if let Some(failure) = ended.failure.as_mut().filter(|_| self.excerpts > EXCERPTS) {
                failure.excerpt = Vec::new();
            }
        }
        ended.log = ended.log.and_then(|log| self.folder.settle(log));
        self.observer.ended(&self.packages[ended.package].name, &ended);
        let good = matches!(ended.status, Status::Passed | Status::Skipped);
        if !(good && self.forgets_good) {
            self.parsed.tests.push(ended);
        }
    }

    fn end_package(&mut self, event: &Event<'_>) -> Result<()> {
        let mut index = self.package(&event.package);
        if self.packages[index].ended && !self.packages[index].unbuilt {
            index = self.package_begins(&event.package);
        }
        let failed = event.action == Action::Fail;
        let crashed = failed && !self.packages[index].orderly && !self.packages[index].unbuilt;
        let cut_off = if crashed { self.end_crashed(index, time(event))? } else { None };
        for (name, running) in self.packages[index].take_running() {
            // A benchmark has no end of its own; and where the package passed, so did all in it.
            let good = !failed || name.starts_with("Benchmark");
            let status = if good { Status::Passed } else { Status::Failed };
            self.end(index, &name, running, status, time(event), None)?;
        }
        let package = &mut self.packages[index];
        package.ended = true;
        let log = std::mem::replace(&mut package.log, self.folder.log(""));
        let log = self.folder.finish(log)?;
        let text = self.read(log.as_deref());
        let package = &self.packages[index];
        let unbuilt = package.unbuilt || !event.failed_build.is_empty();
        self.broken = self.broken.take().filter(|_| !(failed && unbuilt));
        let package = &self.packages[index];
        let cut_off = cut_off.or_else(|| self.judge.cut_off(&text).filter(|_| crashed));
        let failure = match () {
            () if !failed => None,
            () if cut_off.is_some() => cut_off.clone(),
            () if unbuilt => Some(self.unbuilt(&event.failed_build, &package.name, &text)),
            () if package.failed == 0 => Some(self.judge.package(&text)),
            () => None,
        };
        let end = &mut self.parsed.packages[index];
        end.seconds = event.elapsed.filter(|seconds| seconds.is_finite()).unwrap_or(0.0).clamp(0.0, 1e9);
        (end.failure, end.log) = (failure, log);
        (end.crashed, end.cut_off) = (crashed && !unbuilt && cut_off.is_none(), cut_off);
        Ok(())
    }

    /// The program ended in the middle: who did it has failed, the others never came to their end. Says why, if it was
    /// what the program ran on; then nobody has failed.
    fn end_crashed(&mut self, index: usize, now: Timestamp) -> Result<Option<Failure>> {
        let mut stopped = self.packages[index].take_running();
        let (mut logs, mut says_end, mut crashed) = (Vec::with_capacity(stopped.len()), None, None);
        for (at, (_, running)) in stopped.iter_mut().enumerate() {
            let log = self.folder.finish(std::mem::replace(&mut running.log, self.folder.log("")))?;
            // One after the other: together they may be more than fits in memory.
            let text = self.read(log.as_deref());
            logs.push(log);
            if says_end.is_none() && self.judge.says_end(&text) {
                says_end = Some(text.clone());
            }
            if crashed.is_none() && crash(&text).is_some() {
                crashed = Some((at, text));
            }
        }
        let last = crashed.as_ref().map(|(at, text)| (&*stopped[*at].0, text.as_str()));
        let guilty: Vec<Box<str>> = match &self.packages[index].crashed_in {
            Some(failed) => vec![failed.clone()],
            None => culprits(&stopped, last).into_iter().map(Into::into).collect(),
        };
        let of_package = self.packages[index].log.in_memory().into_owned();
        let says_end = says_end.or_else(|| Some(of_package).filter(|log| self.judge.says_end(log)));
        let last_words = says_end.as_deref().or(last.map(|(_, text)| text)).unwrap_or_default();
        let cut_off = self.judge.cut_off(last_words);
        let of_others = || {
            let by = if guilty.is_empty() { String::new() } else { format!(" in {}", guilty.join(", ")) };
            Verdict::new(self.judge.crash("", last_words).cause, format!("{ENDED}{by}"))
        };
        let of_others = cut_off.clone().unwrap_or_else(of_others);
        for ((name, Running { began, paused, .. }), log) in stopped.into_iter().zip(logs) {
            let did_it = cut_off.is_none() && guilty.iter().any(|guilty| contains(&name, guilty));
            let failure = match &cut_off {
                _ if did_it => self.judge.crash(&self.read(log.as_deref()), last_words),
                Some(Verdict { cause, line: Some(line), .. }) if paused => {
                    Verdict::new(*cause, format!("{ENDED} before its turn: {line}"))
                }
                _ => of_others.clone(),
            };
            let status = if did_it { Status::Failed } else { Status::NotRun };
            let failure = Some(Box::new(failure));
            self.push(
                Ended { package: index, name, status, began, ended: now, seconds: 0.0, log, failure, reason: None },
                None,
            );
        }
        Ok(cut_off)
    }

    fn read(&self, log: Option<&str>) -> String {
        log.map(|log| log::read(&self.folder.path().join(log))).unwrap_or_default()
    }

    fn build_output(&mut self, event: &Event<'_>) {
        if self.builds.len() < KEPT || self.builds.contains_key(&*event.import_path) {
            let lines = self.builds.entry((&*event.import_path).into()).or_default();
            if lines.len() < BUILD_LINES {
                lines.push(event.output.trim_end().chars().take(1000).collect());
            }
        }
    }

    fn unbuilt(&self, import_path: &str, package: &str, text: &str) -> Failure {
        let printed = self.builds.get(import_path).cloned().unwrap_or_else(|| {
            // Before Go 1.24 the compiler's words were text between the events.
            let beside: Vec<_> = self.parsed.text.iter().map(String::as_str).collect();
            compiler_s(&beside, package).iter().copied().chain(text.lines()).map(String::from).collect()
        });
        let line = printed.iter().find(|line| line.contains(".go:")).or_else(|| printed.first()).cloned();
        Verdict { cause: Cause::BuildFailure, line, excerpt: printed }
    }

    fn text(&mut self, text: &str) -> Result<()> {
        // Go says so in text where a package could not even be started.
        let unbuilt = text.strip_prefix("FAIL\t").and_then(|rest| rest.split_once(" ["));
        if let Some((package, "build failed]" | "setup failed]")) = unbuilt {
            self.packages_unbuilt(package)?;
        }
        if self.parsed.text.len() == KEPT {
            self.parsed.text.pop_front();
        }
        self.parsed.text.push_back(text.chars().take(1000).collect());
        Ok(())
    }

    fn packages_unbuilt(&mut self, name: &str) -> Result<()> {
        let index = self.package(name);
        if self.packages[index].ended && self.packages[index].unbuilt {
            // The events have said so.
            return Ok(());
        }
        let index = self.package_begins(name);
        self.packages[index].unbuilt = true;
        self.end_package(&Event { action: Action::Fail, package: name.into(), ..Event::default() })
    }

    /// Ends the stream. Where packages did not end by themselves, their tests have not run, for the
    /// reason that the caller knows, or for none; where no test ran, that is the package's.
    ///
    /// # Errors
    /// [`Cause::HostDisk`] if a log cannot be written.
    pub fn finish(mut self, reason: Option<(Option<Cause>, String)>) -> Result<Parsed> {
        let now = Timestamp::now();
        let known = reason.is_some();
        let (cause, line) =
            reason.unwrap_or_else(|| (Some(Cause::Unclassified), "the stream ends before the test does".into()));
        if let Some(broken) = self.broken.take() {
            self.parsed.truncated = true;
            let name = broken.split(' ').next().unwrap_or_default().to_owned();
            let failure = Some(self.unbuilt(&broken, &name, ""));
            self.parsed.packages.push(PackageEnd { name, failure, ..PackageEnd::default() });
        }
        for index in 0..self.packages.len() {
            if self.packages[index].ended {
                continue;
            }
            self.parsed.truncated = true;
            let running = self.packages[index].take_running();
            if running.is_empty() {
                // What passed until then must not look like all of it.
                let line = if known { line.as_str() } else { "the stream ends before the package does" };
                self.parsed.packages[index].failure = cause.map(|cause| Verdict::new(cause, line));
            }
            for (name, running) in running {
                let (began, log) = (running.began, self.folder.finish(running.log)?);
                // Where another test's failure is the reason, this one has no cause of its own.
                let failure = cause.map(|cause| Box::new(Verdict::new(cause, line.clone())));
                let reason = cause.is_none().then(|| line.clone());
                let status = Status::NotRun;
                self.push(
                    Ended { package: index, name, status, began, ended: now, seconds: 0.0, log, failure, reason },
                    None,
                );
            }
            let log = std::mem::replace(&mut self.packages[index].log, self.folder.log(""));
            self.parsed.packages[index].log = self.folder.finish(log)?;
        }
        Ok(self.parsed)
    }
}

fn time(event: &Event<'_>) -> Timestamp {
    event.time.parse().unwrap_or_else(|_| Timestamp::now())
}
