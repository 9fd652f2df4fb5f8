//! The one place that starts processes.
//!
//! xshell (or the standard library) builds a command, [`Process`] runs it: the argument list is
//! logged with secrets hidden, output is read line by line in bounded memory, a time limit and
//! our own signals end the whole process group, and the last lines of standard error are in the
//! error.

// clippy forbids these everywhere else.
#![allow(clippy::disallowed_methods, reason = "this is the place")]

use std::{
    collections::VecDeque,
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::{Duration, Instant},
};

pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process_group};

use crate::{Cause, Context, Error, Result, signal};

/// A longer line is cut into pieces of this many bytes.
const LINE_LIMIT: u64 = 1 << 20;
/// How long a process may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(10);
/// How much of standard error stands in an error.
const LAST_LINES: usize = 12;

/// Which stream a line came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Out,
    /// Standard error.
    Err,
}

type OnLine<'a> = Box<dyn FnMut(Stream, &str) + 'a>;

/// A command with everything that says how it is run.
pub struct Process<'a> {
    command: Command,
    what: String,
    cause: Cause,
    limit: Option<Duration>,
    grace: Duration,
    silence: Option<Duration>,
    stopper: Option<Stopper>,
    ask: Option<Signal>,
    secrets: Vec<String>,
    log: Option<PathBuf>,
    input: Option<Vec<u8>>,
    on_line: Option<OnLine<'a>>,
}

/// How a process ended.
#[derive(Debug)]
pub struct Finished {
    /// Its status.
    pub status: ExitStatus,
    /// The last lines of its standard error.
    pub last: Vec<String>,
    /// Whether we ended it: at its time limit, for its silence, or by a [`Stopper`].
    pub timed_out: bool,
    /// Whether it was the limit for its silence.
    pub silent: bool,
    /// Whether a [`Stopper`] ended it.
    pub stopped: bool,
    /// How long it ran.
    pub took: Duration,
}

#[derive(Debug)]
enum Event {
    Line(Stream, String),
    Closed,
    Exited(std::io::Result<ExitStatus>),
    Signal(i32),
    Stop,
}

/// Ends a process from elsewhere: from another thread, or from the callback that reads its lines.
#[derive(Debug, Clone, Default)]
pub struct Stopper(Arc<Mutex<(bool, Option<Sender<Event>>)>>);

impl Stopper {
    /// Asks the process to end, now or as soon as it starts.
    pub fn stop(&self) {
        if let Ok(mut state) = self.0.lock() {
            state.0 = true;
            // Without a receiver it has ended already.
            let _ = state.1.as_ref().map(|events| events.send(Event::Stop));
        }
    }

    fn connect(&self, events: &Sender<Event>) {
        if let Ok(mut state) = self.0.lock() {
            state.1 = Some(events.clone());
            let _ = state.0.then(|| events.send(Event::Stop));
        }
    }
}

impl<'a> Process<'a> {
    /// `what` says what it is for, as in "build of kubelet".
    pub fn new(what: impl Into<String>, command: impl Into<Command>) -> Self {
        Self {
            command: command.into(),
            what: what.into(),
            cause: Cause::Internal,
            limit: None,
            grace: GRACE,
            silence: None,
            stopper: None,
            ask: None,
            secrets: Vec::new(),
            log: None,
            input: None,
            on_line: None,
        }
    }

    /// The cause if it does not end well.
    #[must_use]
    pub fn cause(mut self, cause: Cause) -> Self {
        self.cause = cause;
        self
    }

    /// Ends it after `limit`.
    #[must_use]
    pub fn limit(mut self, limit: Duration) -> Self {
        self.limit = Some(limit);
        self
    }

    /// How long it may take to end after it was asked to, instead of ten seconds.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// Ends it as the time limit does when it prints nothing for so long.
    #[must_use]
    pub fn silence(mut self, limit: Duration) -> Self {
        self.silence = Some(limit);
        self
    }

    /// Lets `stopper` end it as the time limit does.
    #[must_use]
    pub fn stop_with(mut self, stopper: &Stopper) -> Self {
        self.stopper = Some(stopper.clone());
        self
    }

    /// The signal that asks it to end, instead of SIGTERM and instead of passing on the one that we got:
    /// SIGQUIT makes Go programs say where they are.
    #[must_use]
    pub fn ask_with(mut self, signal: Signal) -> Self {
        self.ask = Some(signal);
        self
    }

    /// A text that no log may show.
    #[must_use]
    pub fn secret(mut self, secret: impl Into<String>) -> Self {
        self.secrets.push(secret.into());
        self
    }

    /// Writes both streams to a file as well.
    #[must_use]
    pub fn log(mut self, path: impl Into<PathBuf>) -> Self {
        self.log = Some(path.into());
        self
    }

    /// Gives it standard input; otherwise it has none.
    #[must_use]
    pub fn input(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.input = Some(bytes.into());
        self
    }

    /// Calls `on_line` for each line of either stream, without its end of line.
    #[must_use]
    pub fn on_line(mut self, on_line: impl FnMut(Stream, &str) + 'a) -> Self {
        self.on_line = Some(Box::new(on_line));
        self
    }

    /// The command as one could type it, secrets hidden.
    #[must_use]
    pub fn display(&self) -> String {
        display(&self.command, &self.secrets)
    }

    /// Runs it; anything but exit code 0 is an error.
    ///
    /// # Errors
    /// [`Cause::MissingProgram`] if it is not there, [`Cause::Interrupted`] after a signal,
    /// otherwise the cause given.
    pub fn run(self) -> Result<()> {
        let (what, shown, cause, limit) = (self.what.clone(), self.display(), self.cause, self.limit);
        let finished = self.finish()?;
        check(&what, &shown, cause, limit, &finished)
    }

    /// Runs it and returns its standard output, of which 64 MiB are kept at most.
    ///
    /// # Errors
    /// As [`Process::run`].
    pub fn read(mut self) -> Result<String> {
        let mut output = String::new();
        let mut others = self.on_line.take();
        let (what, shown, cause, limit) = (self.what.clone(), self.display(), self.cause, self.limit);
        let finished = self.finish_with(&mut |stream, line| {
            if stream == Stream::Out && output.len() < 64 << 20 {
                output.push_str(line);
                output.push('\n');
            }
            if let Some(on_line) = &mut others {
                on_line(stream, line);
            }
        })?;
        check(&what, &shown, cause, limit, &finished)?;
        Ok(output)
    }

    /// Runs it; how it ended is for the caller to judge.
    ///
    /// # Errors
    /// If it cannot be started, or a signal to us ended it.
    pub fn finish(mut self) -> Result<Finished> {
        let mut on_line = self.on_line.take();
        self.finish_with(&mut |stream, line| {
            if let Some(on_line) = &mut on_line {
                on_line(stream, line);
            }
        })
    }

    fn finish_with(mut self, on_line: &mut dyn FnMut(Stream, &str)) -> Result<Finished> {
        let mut log = self.log.as_deref().map(create_log).transpose()?;
        if let Some(log) = &mut log {
            // Without the log the work can still be done.
            let _ = writeln!(log, "$ {}", self.display());
        }
        self.command.stdin(if self.input.is_some() { Stdio::piped() } else { Stdio::null() });
        self.command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let began = Instant::now();
        let (mut child, pid) = self.start()?;
        let (sender, events) = channel();
        read_lines(Stream::Out, child.stdout.take(), &sender);
        read_lines(Stream::Err, child.stderr.take(), &sender);
        if let (Some(bytes), Some(mut stdin)) = (self.input.take(), child.stdin.take()) {
            // A process that does not read its input says so by its exit code.
            std::thread::spawn(move || stdin.write_all(&bytes).is_ok());
        }
        if let Some(stopper) = &self.stopper {
            stopper.connect(&sender);
        }
        let signals = sender.clone();
        let _subscription = signal::subscribe(move |number| signals.send(Event::Signal(number)).is_ok());
        std::thread::spawn(move || sender.send(Event::Exited(child.wait())).is_ok());
        self.follow(&events, pid, began, &mut |stream, line| {
            if let Some(log) = &mut log {
                let _ = writeln!(log, "{line}");
            }
            on_line(stream, line);
        })
    }

    fn start(&mut self) -> Result<(Child, Pid)> {
        // A group of its own: a signal from the terminal reaches us first, and we pass it on to all.
        self.command.process_group(0);
        let child = self.command.spawn().map_err(|error| {
            let program = self.command.get_program().to_string_lossy().into_owned();
            let cause = match error.kind() {
                std::io::ErrorKind::NotFound => Cause::MissingProgram,
                _ => Cause::Internal,
            };
            Error::from_source(cause, format!("{}: cannot start '{program}'", self.what), error)
        })?;
        let pid = Pid::from_child(&child);
        Ok((child, pid))
    }

    fn follow(
        self,
        events: &Receiver<Event>,
        pid: Pid,
        began: Instant,
        on_line: &mut dyn FnMut(Stream, &str),
    ) -> Result<Finished> {
        let mut deadline = self.limit.map(|limit| began + limit);
        let (mut open, mut status, mut timed_out, mut signalled) = (2, None, false, None);
        let mut stopped = false;
        let (mut silent, mut quiet) = (false, self.silence.map(|silence| began + silence));
        let mut last = VecDeque::new();
        while status.is_none() || open > 0 {
            let event = match deadline.into_iter().chain(quiet).min() {
                Some(deadline) => events.recv_timeout(deadline.saturating_duration_since(Instant::now())),
                None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match event {
                Ok(Event::Line(stream, line)) => {
                    quiet = quiet.and(self.silence).map(|silence| Instant::now() + silence);
                    let line = hide(&line, &self.secrets);
                    if stream == Stream::Err {
                        if last.len() == LAST_LINES {
                            last.pop_front();
                        }
                        last.push_back(line.clone());
                    }
                    on_line(stream, &line);
                }
                Ok(Event::Closed) => open -= 1,
                Ok(Event::Exited(ended)) => {
                    status = Some(ended.cause(Cause::Internal, || format!("{}: cannot wait for it", self.what))?);
                    quiet = None;
                    // Somebody whom it left behind may hold the pipes open: not for long.
                    deadline = Some(Instant::now() + Duration::from_secs(2));
                }
                Ok(Event::Signal(number)) => {
                    (signalled, quiet) = (Some(number), None);
                    send(pid, self.ask.or(Signal::from_named_raw(number)).unwrap_or(Signal::TERM));
                    deadline = Some(Instant::now() + self.grace);
                }
                // Once is enough, and it may be ending already.
                Ok(Event::Stop) if timed_out || signalled.is_some() || status.is_some() => {}
                Ok(Event::Stop) => {
                    (timed_out, stopped, quiet) = (true, true, None);
                    send(pid, self.ask.unwrap_or(Signal::TERM));
                    deadline = Some(Instant::now() + self.grace);
                }
                Err(RecvTimeoutError::Timeout) if status.is_some() => break,
                Err(RecvTimeoutError::Timeout) if timed_out || signalled.is_some() => {
                    send(pid, Signal::KILL);
                    deadline = None;
                }
                Err(RecvTimeoutError::Timeout) => {
                    timed_out = true;
                    silent = quiet.take().is_some_and(|quiet| quiet <= Instant::now());
                    send(pid, self.ask.unwrap_or(Signal::TERM));
                    deadline = Some(Instant::now() + self.grace);
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        // Whatever it left behind in its group must not outlive it.
        send(pid, Signal::KILL);
        if let Some(number) = signalled {
            return Err(Error::interrupted(number).within(self.what));
        }
        let status = status.ok_or_else(|| Error::new(Cause::Internal, format!("{}: it vanished", self.what)))?;
        Ok(Finished { status, last: last.into(), timed_out, silent, stopped, took: began.elapsed() })
    }

    /// Starts it in the background with both streams in a file, and leaves it to the caller.
    ///
    /// # Errors
    /// If it cannot be started or the file cannot be opened.
    pub fn spawn(mut self, log: &Path) -> Result<Child> {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .cause(Cause::HostDisk, || format!("{}: cannot open {}", self.what, log.display()))?;
        let err = out.try_clone().cause(Cause::HostDisk, || format!("cannot use {}", log.display()))?;
        self.command.stdin(Stdio::null()).stdout(out).stderr(err);
        self.start().map(|(child, _)| child)
    }

    /// Replaces this process by it: for passing everything through to another program.
    #[must_use]
    pub fn replace(mut self) -> Error {
        let error = self.command.exec();
        Error::from_source(Cause::MissingProgram, format!("{}: cannot run it", self.what), error)
    }
}

impl Finished {
    /// The exit code, 128 and the signal's number after a signal.
    #[must_use]
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| 128 + self.status.signal().unwrap_or(0))
    }

    /// Whether it ended with 0 in time.
    #[must_use]
    pub fn good(&self) -> bool {
        self.status.success() && !self.timed_out
    }
}

/// Finds a program: the environment variable `variable` if set, otherwise PATH.
///
/// # Errors
/// [`Cause::MissingProgram`]; the message says what needs it (`purpose`) and how to get it.
pub fn find_program(name: &str, variable: &str, purpose: &str, hint: &str) -> Result<PathBuf> {
    if let Some(path) = std::env::var_os(variable).filter(|value| !value.is_empty()) {
        let path = PathBuf::from(path);
        return which::which(&path)
            .cause(Cause::MissingProgram, || format!("{variable} names {}, which cannot be run", path.display()));
    }
    which::which(name).map_err(|_| {
        Error::new(Cause::MissingProgram, format!("{purpose} needs '{name}', which is not on PATH"))
            .next(format!("{hint}, or set {variable}"))
    })
}

fn check(what: &str, shown: &str, cause: Cause, limit: Option<Duration>, finished: &Finished) -> Result<()> {
    if finished.good() {
        return Ok(());
    }
    let how = match limit {
        Some(limit) if finished.timed_out => format!("did not end within {} s", limit.as_secs()),
        _ => format!("ended with exit code {}", finished.code()),
    };
    Err(Error::new(cause, format!("{what} {how}: {shown}")).line(finished.last.join("\n")))
}

fn send(group: Pid, signal: Signal) {
    // It may be gone already, which is what we want.
    let _ = kill_process_group(group, signal);
}

fn create_log(path: &Path) -> Result<File> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).cause(Cause::HostDisk, || format!("cannot create {}", folder.display()))?;
    }
    File::create(path).cause(Cause::HostDisk, || format!("cannot write {}", path.display()))
}

fn hide(text: &str, secrets: &[String]) -> String {
    secrets.iter().filter(|secret| !secret.is_empty()).fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
}

fn display(command: &Command, secrets: &[String]) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| quote(&word.to_string_lossy())).collect();
    hide(&words.join(" "), secrets)
}

/// A word as a POSIX shell reads it back.
#[must_use]
pub fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_=+./:,@%^{}".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

fn read_lines(stream: Stream, pipe: Option<impl Read + Send + 'static>, events: &Sender<Event>) {
    let events = events.clone();
    std::thread::spawn(move || {
        let mut reader = pipe.map(BufReader::new);
        let mut line = Vec::new();
        while let Some(reader) = &mut reader {
            line.clear();
            match reader.by_ref().take(LINE_LIMIT).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => break,
                Ok(_) => {}
            }
            let text = String::from_utf8_lossy(&line);
            let text = text.strip_suffix('\n').unwrap_or(&text);
            let text = text.strip_suffix('\r').unwrap_or(text);
            if events.send(Event::Line(stream, text.to_owned())).is_err() {
                break;
            }
        }
        events.send(Event::Closed).is_ok()
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str) -> Process<'static> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        Process::new("the script", command)
    }

    #[test]
    fn reads_standard_output() {
        assert_eq!(sh("echo one; echo two >&2; printf three").read().unwrap(), "one\nthree\n");
    }

    #[test]
    fn the_error_has_the_last_lines_and_no_secret() {
        let error = sh("echo no hunter2 here >&2; exit 7").secret("hunter2").cause(Cause::Registry).run().unwrap_err();
        assert_eq!(error.cause, Cause::Registry);
        assert_eq!(error.line.as_deref(), Some("no *** here"));
        assert!(error.to_string().contains("exit code 7"), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }

    #[test]
    fn a_time_limit_ends_the_whole_group() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let script = format!("sleep 100 & echo $! > {}; wait", file.path().display());
        let finished = sh(&script).limit(Duration::from_millis(300)).finish().unwrap();
        assert!(finished.timed_out);
        let pid = std::fs::read_to_string(file.path()).unwrap();
        let gone = || {
            let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
            Ok((state.is_empty() || state.contains(") Z ")).then_some(()))
        };
        crate::retry::until(Duration::from_secs(5), || Error::new(Cause::Internal, "it lives"), gone).unwrap();
    }

    #[test]
    fn a_process_that_ignores_the_request_is_killed() {
        let process = sh("trap '' TERM; while :; do sleep 0.1; done").limit(Duration::from_millis(100));
        let finished = process.grace(Duration::from_millis(100)).finish().unwrap();
        assert_eq!(finished.code(), 128 + 9);
    }

    #[test]
    fn silence_ends_it_with_the_signal_that_was_chosen() {
        let script = "trap 'echo asked; exit 3' QUIT; for i in 1 2 3 4; do echo $i; sleep 0.1; done; sleep 9 & wait";
        let mut lines = Vec::new();
        let process = sh(script).silence(Duration::from_millis(700)).ask_with(Signal::QUIT);
        let finished = process.on_line(|_, line| lines.push(line.to_owned())).finish().unwrap();
        assert!(finished.silent && finished.timed_out);
        assert_eq!((finished.code(), lines.join(" ").as_str()), (3, "1 2 3 4 asked"));
    }

    #[test]
    fn it_can_be_stopped_from_elsewhere() {
        let stopper = Stopper::default();
        let stop = stopper.clone();
        let process = sh("echo ready; sleep 60").stop_with(&stopper).on_line(move |_, _| stop.stop());
        assert!(process.finish().unwrap().stopped);
        // It is stopped still.
        assert!(sh("sleep 60").stop_with(&stopper).finish().unwrap().stopped);
    }

    #[test]
    fn someone_left_behind_does_not_hold_us() {
        let began = Instant::now();
        sh("sleep 60 & echo started").run().unwrap();
        assert!(began.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn a_missing_program_has_its_own_cause() {
        let error = Process::new("the check", Command::new("no-such-program")).run().unwrap_err();
        assert_eq!(error.cause, Cause::MissingProgram);
        assert!(error.to_string().contains("no-such-program"));
    }

    #[test]
    fn words_are_quoted_as_a_shell_needs_it() {
        assert_eq!(quote("--repo=10.0.0.1:5000/x"), "--repo=10.0.0.1:5000/x");
        assert_eq!(quote("it's"), r"'it'\''s'");
        assert_eq!(quote(""), "''");
    }
}
