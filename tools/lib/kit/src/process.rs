//! The one place that starts processes.
//!
//! xshell or the standard library builds a command, [`Process`] runs it: its log begins with the
//! argument list, secrets hidden; output is read line by line in bounded memory; a time limit and
//! our own signals end the whole process group; the last lines of standard error are in the error.

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
        mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

pub use rustix::process::Signal;
use rustix::process::{Pid, WaitId, WaitIdOptions, kill_process_group, waitid};

use crate::{Cause, Context, Error, Result, signal};

/// A longer line is cut into pieces of this many bytes.
const LINE_LIMIT: u64 = 1 << 20;
/// How long output is read after a process has ended.
const LEFT_BEHIND: Duration = Duration::from_secs(5);
/// How long a process may take to end after it was asked to.
const GRACE: Duration = Duration::from_secs(10);
/// How much [`Process::read`] takes.
const OUTPUT_LIMIT: usize = 64 << 20;
/// How many lines wait for us; then the process waits.
const QUEUE: usize = 1024;
/// How much of standard error stands in an error.
const LAST_LINES: usize = 12;
/// And of each of these lines.
const LAST_LINE_CHARS: usize = 2000;

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
    stoppers: Vec<Stopper>,
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
    /// There is something in [`Control`].
    Wake,
}

#[derive(Debug, Clone, Copy)]
enum Order {
    Exited,
    Signal(i32),
    Stop,
}

/// What must not wait behind lines: they fill a bounded queue, orders never block and are looked at first.
#[derive(Debug, Clone)]
struct Control {
    orders: Arc<Mutex<VecDeque<Order>>>,
    events: SyncSender<Event>,
}

impl Control {
    fn push(&self, order: Order) -> bool {
        let pushed = self.orders.lock().is_ok_and(|mut orders| {
            orders.push_back(order);
            true
        });
        // If the queue is full the reader is awake anyway.
        let _ = self.events.try_send(Event::Wake);
        pushed
    }

    fn next(&self) -> Option<Order> {
        self.orders.lock().ok()?.pop_front()
    }
}

/// Ends a process from elsewhere: from another thread, or from the callback that reads its lines.
#[derive(Debug, Clone, Default)]
pub struct Stopper(Arc<Mutex<(bool, Option<Control>)>>);

impl Stopper {
    /// Asks the process to end, now or as soon as it starts.
    pub fn stop(&self) {
        if let Ok(mut state) = self.0.lock() {
            state.0 = true;
            let _ = state.1.as_ref().map(|control| control.push(Order::Stop));
        }
    }

    /// Forgets that it has stopped anything: what starts from now on runs.
    pub fn clear(&self) {
        if let Ok(mut state) = self.0.lock() {
            *state = (false, None);
        }
    }

    fn connect(&self, control: &Control) {
        if let Ok(mut state) = self.0.lock() {
            state.1 = Some(control.clone());
            let _ = state.0.then(|| control.push(Order::Stop));
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
            stoppers: Vec::new(),
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

    /// Lets `stopper` end it as the time limit does; so may others.
    #[must_use]
    pub fn stop_with(mut self, stopper: &Stopper) -> Self {
        self.stoppers.push(stopper.clone());
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
        // Output is looked at line by line.
        self.secrets.extend(secret.into().lines().map(str::trim).filter(|line| !line.is_empty()).map(String::from));
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

    /// Runs it and returns its standard output, of at most 64 MiB.
    ///
    /// # Errors
    /// As [`Process::run`]; [`Cause::Internal`] if it prints more.
    pub fn read(mut self) -> Result<String> {
        let mut output = String::new();
        let mut others = self.on_line.take();
        let (what, shown, cause, limit) = (self.what.clone(), self.display(), self.cause, self.limit);
        let mut too_long = false;
        let finished = self.finish_with(&mut |stream, line| {
            too_long |= output.len() + line.len() > OUTPUT_LIMIT;
            if stream == Stream::Out && !too_long {
                output.push_str(line);
                output.push('\n');
            }
            if let Some(on_line) = &mut others {
                on_line(stream, line);
            }
        })?;
        check(&what, &shown, cause, limit, &finished)?;
        if too_long {
            return Err(Error::new(Cause::Internal, format!("{what} printed more than {OUTPUT_LIMIT} bytes: {shown}")));
        }
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
        let (sender, events) = sync_channel(QUEUE);
        let control = Control { orders: Arc::default(), events: sender.clone() };
        // Before it starts, so that no signal falls between.
        let signals = control.clone();
        let _subscription = signal::subscribe(move |number| signals.push(Order::Signal(number)));
        signal::check().map_err(|error| error.within(self.what.clone()))?;
        let (mut child, pid) = self.start()?;
        if let Ok(mut groups) = GROUPS.lock() {
            groups.push(pid);
        }
        read_lines(Stream::Out, child.stdout.take(), &sender);
        read_lines(Stream::Err, child.stderr.take(), &sender);
        if let (Some(bytes), Some(mut stdin)) = (self.input.take(), child.stdin.take()) {
            // A process that does not read its input says so by its exit code.
            std::thread::spawn(move || stdin.write_all(&bytes).is_ok());
        }
        for stopper in &self.stoppers {
            stopper.connect(&control);
        }
        let exits = control.clone();
        std::thread::spawn(move || {
            // It stays a zombie, so that its number, which is its group's, belongs to nobody else yet.
            let _ = waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
            exits.push(Order::Exited)
        });
        let ended = self.follow(&events, &control, pid, began, &mut |stream, line| {
            if let Some(log) = &mut log {
                let _ = writeln!(log, "{line}");
            }
            on_line(stream, line);
        });
        // Whatever it left behind in its group must not outlive it.
        send(pid, Signal::KILL);
        if let Ok(mut groups) = GROUPS.lock() {
            groups.retain(|group| *group != pid);
        }
        let status = child.wait().cause(Cause::Internal, || format!("{}: cannot wait for it", self.what))?;
        if let Some(number) = ended.signalled {
            return Err(Error::interrupted(number).within(self.what));
        }
        let Ended { last, timed_out, silent, stopped, .. } = ended;
        Ok(Finished { status, last: last.into(), timed_out, silent, stopped, took: began.elapsed() })
    }

    fn start(&mut self) -> Result<(Child, Pid)> {
        // A group of its own: a signal from the terminal reaches us first, and we pass it on to all.
        self.command.process_group(0);
        let child = self.command.spawn().map_err(|error| {
            let program = self.command.get_program().to_string_lossy().into_owned();
            // The same error means that the folder to start in is missing.
            let folder = self.command.get_current_dir().filter(|folder| !folder.is_dir());
            if let Some(folder) = folder {
                return Error::new(Cause::Usage, format!("{}: there is no folder {}", self.what, folder.display()));
            }
            let cause = match error.kind() {
                std::io::ErrorKind::NotFound | std::io::ErrorKind::PermissionDenied => Cause::MissingProgram,
                _ => Cause::Internal,
            };
            Error::from_source(cause, format!("{}: cannot start '{program}'", self.what), error)
        })?;
        let pid = Pid::from_child(&child);
        Ok((child, pid))
    }

    /// Reads lines and obeys orders until it has ended and its streams are closed.
    fn follow(
        &self,
        events: &Receiver<Event>,
        control: &Control,
        pid: Pid,
        began: Instant,
        on_line: &mut dyn FnMut(Stream, &str),
    ) -> Ended {
        let mut deadline = self.limit.and_then(|limit| began.checked_add(limit));
        let mut quiet = self.silence.and_then(|silence| began.checked_add(silence));
        let (mut open, mut exited, mut ended) = (2, false, Ended::default());
        while !exited || open > 0 {
            while let Some(order) = control.next() {
                let asked = ended.timed_out || ended.signalled.is_some() || exited;
                match order {
                    Order::Exited => {
                        (exited, quiet) = (true, None);
                        // Somebody whom it left behind may hold the streams open: not for long.
                        deadline = Some(Instant::now() + LEFT_BEHIND);
                    }
                    // Once is enough, and it may be ending already.
                    Order::Stop if asked => {}
                    Order::Stop => {
                        (ended.timed_out, ended.stopped, quiet) = (true, true, None);
                        deadline = self.ask_to_end(pid, Signal::TERM);
                    }
                    Order::Signal(number) => {
                        (ended.signalled, quiet) = (Some(number), None);
                        deadline = self.ask_to_end(pid, Signal::from_named_raw(number).unwrap_or(Signal::TERM));
                    }
                }
            }
            // Its end may be the last thing that there is to hear.
            if exited && open == 0 {
                break;
            }
            let next = deadline.into_iter().chain(quiet).min();
            let left = next.map(|next| next.saturating_duration_since(Instant::now()));
            let event = match left {
                // However much it prints.
                Some(Duration::ZERO) => Err(RecvTimeoutError::Timeout),
                Some(left) => events.recv_timeout(left),
                None => events.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            match event {
                Ok(Event::Line(stream, line)) => {
                    quiet = quiet.and(self.silence).map(|silence| Instant::now() + silence);
                    let line = hide(&line, &self.secrets);
                    if stream == Stream::Err {
                        if ended.last.len() == LAST_LINES {
                            ended.last.pop_front();
                        }
                        ended.last.push_back(line.chars().take(LAST_LINE_CHARS).collect());
                    }
                    on_line(stream, &line);
                }
                Ok(Event::Closed) => open -= 1,
                Ok(Event::Wake) => {}
                Err(RecvTimeoutError::Timeout) if exited => break,
                Err(RecvTimeoutError::Timeout) if ended.timed_out || ended.signalled.is_some() => {
                    send(pid, Signal::KILL);
                    deadline = None;
                }
                Err(RecvTimeoutError::Timeout) => {
                    ended.timed_out = true;
                    ended.silent = quiet.take().is_some_and(|quiet| quiet <= Instant::now());
                    deadline = self.ask_to_end(pid, Signal::TERM);
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        ended
    }

    /// Asks it to end, and says until when it may take.
    fn ask_to_end(&self, pid: Pid, signal: Signal) -> Option<Instant> {
        send(pid, self.ask.unwrap_or(signal));
        Some(Instant::now() + self.grace)
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

/// What [`Process::follow`] saw.
#[derive(Default)]
struct Ended {
    last: VecDeque<String>,
    timed_out: bool,
    silent: bool,
    stopped: bool,
    signalled: Option<i32>,
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
        _ if finished.silent => "was ended because it printed nothing for too long".into(),
        _ if finished.stopped => "was stopped".into(),
        Some(limit) if finished.timed_out => format!("did not end within {} s", limit.as_secs()),
        _ => format!("ended with exit code {}", finished.code()),
    };
    Err(Error::new(cause, format!("{what} {how}: {shown}")).line(finished.last.join("\n")))
}

/// Process groups that are ours and alive, for [`kill_all`].
static GROUPS: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

/// Kills what this process has started and waits for: before it ends without waiting.
pub(crate) fn kill_all() {
    if let Ok(groups) = GROUPS.lock() {
        groups.iter().for_each(|group| send(*group, Signal::KILL));
    }
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
    secrets.iter().fold(text.to_owned(), |text, secret| text.replace(secret, "***"))
}

fn display(command: &Command, secrets: &[String]) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|word| quote(&hide(&word.to_string_lossy(), secrets))).collect();
    words.join(" ")
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

fn read_lines(stream: Stream, pipe: Option<impl Read + Send + 'static>, events: &SyncSender<Event>) {
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
mod tests;
