//! Running a test program, once for each of its passes, and reading what it says.
//!
//! `go tool test2json` starts it and makes events of its output, as `go test -json` does itself.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fmt::Write as _,
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use kit::{
    Cause, Context, Error, Process, Result, Stream as Pipe, Ui,
    process::{Signal, Stopper, quote},
    ui,
};

use crate::{
    cause::Judge,
    hung::{self, Guard, Hung, Limits},
    live::Live,
    parse::{
        Ended, Parsed, Stream,
        event::top,
        log::{self, Allowance, Folder},
    },
    program::Program,
    select::Selection,
    turns::Turns,
};

/// Said of tests that were stopped because the API server or a node did not come back.
pub const STAYED_AWAY: &str = "what the tests need stayed away, so they were stopped";

/// What `go test` adds when a test program has failed (cmd/go, test.go): a last line, marked as a frame with
/// ^V, from which test2json knows that what follows is no test's. Without it, the end of a program that
/// crashed looks like the end of its last test. `$0` is the package.
const AS_GO_TEST: &str = r#"trap : INT QUIT TERM HUP
"$@"
code=$?
[ $code -le 1 ] || printf '\nexit status %s\n' $code
[ $code -eq 0 ] || printf '\026FAIL\t%s\n' "$0"
exit $code"#;

/// How long after its own time limit a test program may still write down where its goroutines are.
const LATE: Duration = Duration::from_secs(20);
/// How soon it is noticed that a test hangs whose program prints nothing.
const NOTICED: Duration = Duration::from_secs(1);

/// All that a run of the program needs, apart from which tests.
pub struct Runner<'a> {
    /// The program.
    pub program: &'a Program,
    /// What it was chosen from.
    pub selection: &'a Selection,
    /// What starts it elsewhere, if it does not run here: a program with its arguments.
    pub launcher: Vec<String>,
    /// Its own arguments, placeholders filled.
    pub arguments: Vec<String>,
    /// Its passes, placeholders filled.
    pub passes: Vec<Vec<String>>,
    /// `-test.parallel`.
    pub parallel: Option<u32>,
    /// Its whole environment.
    pub environment: BTreeMap<String, OsString>,
    /// Where logs go.
    pub logs: PathBuf,
    /// What they may take together with those of other passes, attempts and rounds.
    pub allowance: Arc<Allowance>,
    /// When all must be over.
    pub deadline: Option<Instant>,
    /// How long the program may take each time that it has begun, if that is less.
    pub limit: Option<Duration>,
    /// For how long it may say nothing.
    pub silence: Duration,
    /// How long one test may take.
    pub limits: Limits,
    /// How many failures end it.
    pub max_failures: Option<u32>,
    /// Ends it from elsewhere.
    pub stopper: Stopper,
    /// The rules.
    pub judge: Judge,
    /// Other parts of the suite on the same cluster.
    pub turns: Turns,
}

/// Why tests were not run that were asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stopped {
    /// The cause, if that is not another test's failure.
    pub cause: Option<Cause>,
    /// In words.
    pub why: String,
}

impl Stopped {
    /// By an error of ours.
    #[must_use]
    pub fn by(error: &Error) -> Self {
        Self { cause: Some(error.cause), why: error.summary() }
    }
}

/// What came of all passes.
#[derive(Debug, Default)]
pub struct Ran {
    /// One stream for each pass.
    pub streams: Vec<Parsed>,
    /// Why it ended early, if it did.
    pub stopped: Option<Stopped>,
    /// The signal that ended it.
    pub signal: Option<i32>,
}

impl<'a> Runner<'a> {
    /// The same for another selection of the program's tests.
    #[must_use]
    pub fn selecting<'b>(&self, selection: &'b Selection, logs: PathBuf) -> Runner<'b>
    where
        'a: 'b,
    {
        Runner {
            program: self.program,
            selection,
            launcher: self.launcher.clone(),
            arguments: self.arguments.clone(),
            passes: self.passes.clone(),
            parallel: self.parallel,
            environment: self.environment.clone(),
            logs,
            allowance: Arc::clone(&self.allowance),
            deadline: self.deadline,
            limit: self.limit,
            silence: self.silence,
            limits: self.limits.clone(),
            max_failures: None,
            stopper: self.stopper.clone(),
            judge: self.judge.clone(),
            turns: self.turns.clone(),
        }
    }
}

impl Runner<'_> {
    /// Runs these tests in all passes. Whatever happens is in the result; an error means that nothing is known.
    ///
    /// # Errors
    /// If the program cannot be started, or a log not written.
    pub fn run(&self, tests: &[String], name: &str, ui: &Ui) -> Result<Ran> {
        self.run_after(0, tests, name, ui)
    }

    /// The same when `failed` other tests have failed before, which count for [`Self::max_failures`] as well.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub fn run_after(&self, failed: usize, tests: &[String], name: &str, ui: &Ui) -> Result<Ran> {
        let mut ran = Ran::default();
        let live = Live::start(ui, ui.step(name), tests.len());
        // A test may run in several passes: it has ended in each for itself.
        let mut left = vec![tests.to_vec(); self.passes.len()];
        for number in 1.. {
            let Some(hung) = self.all_passes(&mut left, failed, (&live, ui), &mut ran)? else { break };
            let over = left.iter().all(Vec::is_empty);
            if over || ran.stopped.is_some() || ran.signal.is_some() {
                break;
            }
            if number == hung::MOST {
                let why = format!("{number} tests hung, the last one {}", hung.test);
                ran.stopped = Some(Stopped { cause: Some(Cause::TestTimeout), why });
                break;
            }
            ui.note(format!("{}; the others go on without it", hung.why));
        }
        Ok(ran)
    }

    /// All passes, each with what is left for it, until a test hangs.
    fn all_passes(
        &self,
        left: &mut [Vec<String>],
        failed: usize,
        (live, ui): (&Live, &Ui),
        ran: &mut Ran,
    ) -> Result<Option<Hung>> {
        for (number, (pass, left)) in self.passes.iter().zip(left).enumerate().filter(|(_, (_, left))| !left.is_empty())
        {
            // Why a component has several: a later one is not to run beside anything else.
            let turn = match self.turns.take(number > 0, ui) {
                Err(Error { signal: Some(number), .. }) => {
                    (ran.signal, ran.stopped) = (Some(number), Some(by_signal(number)));
                    break;
                }
                turn => turn?,
            };
            if self.left().is_some_and(|left| left.is_zero()) {
                ran.stopped.get_or_insert(time_over());
            }
            if ran.stopped.is_some() || ran.signal.is_some() {
                break;
            }
            match self.pass(pass, left, failed, live, ran) {
                // What the passes before it have found stays.
                Err(error) if !ran.streams.is_empty() => ran.stopped = Some(Stopped::by(&error)),
                // What has not run in it is none of its tests.
                Ok(None) => left.clear(),
                Ok(hung) => {
                    let ended = ran.streams.last().map_or(&[][..], |stream| &stream.tests);
                    left.retain(|name| !ended.iter().any(|test| *test.name == **name));
                    return Ok(hung);
                }
                Err(error) => return Err(error),
            }
            drop(turn);
        }
        Ok(None)
    }

    /// One pass; who took too long, if somebody did.
    fn pass(
        &self,
        pass: &[String],
        tests: &[String],
        failed: usize,
        live: &Live,
        ran: &mut Ran,
    ) -> Result<Option<Hung>> {
        let folder = Folder::new(&self.logs).within(&self.allowance);
        // Of what runs elsewhere nothing is heard while the connection is away.
        let silence = self.launcher.is_empty().then_some(self.silence);
        let guard = Guard::start(&self.limits, silence);
        let mut stream = Stream::new(folder, true, &self.judge, (live.feed(), guard.told()));
        let (mut written, mut too_many) = (Ok(()), false);
        let before = failed + ran.streams.iter().map(Parsed::failed).sum::<usize>();
        // One failure is Go's own affair: the tests that run come to their end.
        let most = self.max_failures.filter(|most| *most > 1).map_or(usize::MAX, |most| most as usize);
        // A program elsewhere is ended by whoever started it there.
        let ask = if self.launcher.is_empty() { Signal::QUIT } else { Signal::TERM };
        let process = Process::new("the tests", self.command(pass, tests)?).ask_with(ask).grace(LATE);
        // A test that hangs is noticed first.
        let process = process.silence(self.silence + NOTICED).stop_with(&self.stopper).stop_with(guard.stopper());
        let process = match self.left() {
            // The program ends itself first, and says which tests ran.
            Some(left) => process.limit(left + LATE),
            None => process,
        };
        let finished = process
            .on_line(|pipe, line| {
                guard.heard();
                let line = if pipe == Pipe::Out { line.as_bytes() } else { line.trim_start_matches('{').as_bytes() };
                if written.is_ok() {
                    written = stream.line(line);
                    // Whom the end of a hung program cut off has not failed.
                    let enough = before + stream.failed() >= most && guard.found().is_none();
                    if written.is_err() || (enough && !too_many) {
                        self.stopper.stop();
                    }
                    too_many |= enough;
                }
            })
            .finish();
        written?;
        let by_us = finished.as_ref().is_ok_and(|finished| finished.stopped);
        let hung = guard.found().filter(|_| by_us);
        let reason = match finished {
            Ok(_) if too_many => Some(Stopped { cause: None, why: enough(most) }),
            Ok(finished) if finished.silent => {
                let why = format!("it printed nothing for {}", ui::duration(self.silence));
                Some(Stopped { cause: Some(Cause::TestTimeout), why })
            }
            Ok(finished) if finished.stopped && hung.is_some() => None,
            Ok(finished) if finished.stopped => {
                let why = STAYED_AWAY.to_owned();
                Some(Stopped { cause: Some(Cause::ClusterUnreachable), why })
            }
            Ok(finished) if finished.timed_out => Some(time_over()),
            // What reads the program's output says itself that it has ended, unless something killed it.
            Ok(finished) if !stream.is_whole() => {
                let why = format!("the test program's output ended early (exit code {})", finished.code());
                Some(Stopped { cause: Some(Cause::Unclassified), why })
            }
            Ok(_) => None,
            Err(Error { signal: Some(number), .. }) => {
                ran.signal = Some(number);
                Some(by_signal(number))
            }
            Err(error) => return Err(error),
        };
        let known = reason.clone().map(|stopped| (stopped.cause, stopped.why));
        let mut parsed = stream.finish(known)?;
        // Whatever else ended it is the better reason.
        let hung = hung.filter(|hung| reason.is_none() && hung.cuts_any(&parsed));
        if let Some(hung) = &hung {
            let logs = hung.blame(&mut parsed);
            self.keep_dump(&parsed, hung, &logs)?;
        }
        ran.stopped = reason.or_else(|| self.early_end(&parsed));
        ran.streams.push(parsed);
        Ok(hung)
    }

    /// Where the program was when a test hung stands in that test's log, whoever it was that printed last.
    fn keep_dump(&self, parsed: &Parsed, hung: &Hung, logs: &[String]) -> Result<()> {
        let dump_of = |log: &String| {
            let text = log::read(&self.logs.join(log));
            text.find("SIGQUIT: ").map(|at| text[at..].to_owned())
        };
        let Some(dump) = logs.iter().find_map(dump_of) else { return Ok(()) };
        let mine = |test: &&Ended| *test.name == *hung.test || *test.name == *top(&hung.test);
        let mine = parsed.tests.iter().filter(mine).filter_map(|test| test.log.as_ref());
        for log in mine.filter(|log| dump_of(log).is_none()) {
            let file = self.logs.join(log);
            let append = || write!(std::fs::File::options().append(true).open(&file)?, "\n{dump}");
            append().cause(Cause::HostDisk, || format!("cannot write {}", file.display()))?;
        }
        Ok(())
    }

    /// Why no further pass begins, if what this one said is reason enough.
    fn early_end(&self, parsed: &Parsed) -> Option<Stopped> {
        let failed = parsed.tests.iter().filter_map(|test| Some((test, test.failure.as_ref()?)));
        let late = failed.clone().any(|(_, failure)| failure.cause == Cause::TestTimeout);
        if late && self.left().is_some_and(|left| left <= LATE) {
            return Some(time_over());
        }
        let (test, failure) = failed.min_by_key(|(test, _)| test.ended)?;
        let fast = self.max_failures == Some(1) && failure.cause != Cause::Flaky;
        fast.then(|| Stopped { cause: None, why: format!("--fail-fast, and {} failed", test.name) })
    }

    fn left(&self) -> Option<Duration> {
        let deadline = self.deadline.map(|deadline| deadline + self.turns.waited());
        deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()))
    }

    /// The command of a pass, for these tests.
    fn command(&self, pass: &[String], tests: &[String]) -> Result<Command> {
        let mut command = Command::new(&self.program.test2json);
        command.args(["-t", "-p", &self.program.package, "/bin/sh", "-c", AS_GO_TEST, &self.program.package]);
        command.args(&self.launcher).arg(&self.program.path);
        command.args(self.words(pass, tests)?);
        command.current_dir(&self.program.folder).env_clear().envs(&self.environment);
        Ok(command)
    }

    /// The test program's arguments: those that `go test -json` gives it, the selection, its own.
    fn words(&self, pass: &[String], tests: &[String]) -> Result<Vec<String>> {
        let limit = self.left().into_iter().chain(self.limit).min().map_or(0, |limit| limit.as_millis().max(1));
        let mut words = vec![
            "-test.v=test2json".to_owned(),
            "-test.paniconexit0".into(),
            "-test.count=1".into(),
            format!("-test.timeout={limit}ms"),
        ];
        words.extend(self.selection.arguments(tests)?);
        words.extend(self.parallel.map(|number| format!("-test.parallel={number}")));
        words.extend((self.max_failures == Some(1)).then(|| "-test.failfast".into()));
        words.extend(self.arguments.iter().chain(pass).cloned());
        Ok(words)
    }

    /// What runs, as one could type it, but for secrets: folder, environment, one command for each pass.
    ///
    /// # Errors
    /// As [`Selection::arguments`].
    pub fn describe(&self, tests: &[String]) -> Result<String> {
        let mut text = format!("cd {}\n", quote(&self.program.folder.display().to_string()));
        for (name, value) in &self.environment {
            let _ = writeln!(text, "export {name}={}", quote(&kit::secrets::shown(name, &value.to_string_lossy())));
        }
        for pass in &self.passes {
            let program = self.program.path.display().to_string();
            let words = self.launcher.iter().chain([&program]).cloned().chain(self.words(pass, tests)?);
            let words: Vec<_> = words.map(|word| quote(&word)).collect();
            let _ = writeln!(text, "{}", words.join(" "));
        }
        Ok(text)
    }

    /// Leaves that beside the logs.
    ///
    /// # Errors
    /// [`Cause::HostDisk`] naming the file, or as [`Self::describe`].
    pub fn record(&self, tests: &[String]) -> Result<()> {
        clear(&self.logs)?;
        kit::rundir::write(&self.logs.join("_command.txt"), self.describe(tests)?.as_bytes()).map(drop)
    }
}

/// Removes logs of an earlier attempt at this cell, which would be taken for this one's.
///
/// # Errors
/// [`Cause::HostDisk`] naming the folder.
pub(crate) fn clear(logs: &Path) -> Result<()> {
    match std::fs::remove_dir_all(logs) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
    .cause(Cause::HostDisk, || format!("cannot clear {}", logs.display()))
}

fn enough(most: usize) -> String {
    format!("--max-failures, and {most} tests had failed")
}

fn by_signal(number: i32) -> Stopped {
    Stopped { cause: Some(Cause::Interrupted), why: format!("stopped by signal {number}") }
}

fn time_over() -> Stopped {
    Stopped { cause: Some(Cause::TestTimeout), why: "the time limit of the suite was over".into() }
}
