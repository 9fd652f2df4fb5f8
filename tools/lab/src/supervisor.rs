//! The lab's first process: it enters the namespaces, starts programs, starts them again when they end,
//! and buries orphans. When it ends the kernel ends everything else in the lab.
//!
//! One thread owns all state and takes events from three: signals, ended children, requests.

use std::{
    collections::HashMap,
    os::unix::{
        net::{UnixListener, UnixStream},
        process::ExitStatusExt,
    },
    path::{Path, PathBuf},
    process::{Command, ExitStatus},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    time::{Duration, Instant},
};

use kit::{Cause, Context, Error, Process, Result};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use signal_hook::{consts::SIGCHLD, iterator::Signals};

use crate::{
    control::{Answer, ProgramState, Request, State, receive, send},
    layout::{CONTROL, LAB, Layout},
    logs, namespace, process,
    programs::{Program, programs, search_path},
    record::Record,
};

/// A program that ends more often than this within [`PERIOD`] is given up.
const RESTARTS: usize = 8;
/// See [`RESTARTS`].
const PERIOD: Duration = Duration::from_secs(120);
/// How long until programs are tried again that nobody knows how to start: the record cannot be read.
const PAUSE: Duration = Duration::from_secs(5);
/// How often the logs are looked at.
const LOGS: Duration = Duration::from_secs(10);

enum Event {
    Ended(i32, ExitStatus),
    Asked(Request, UnixStream),
    Stop,
}

/// Runs as the first process of a lab's namespaces, until it is killed.
///
/// # Errors
/// [`Cause::Usage`] if these namespaces are not its own: it would cover the machine's folders.
pub(crate) fn run(layout: &Layout) -> Result<()> {
    if !process::is_first_of_its_own() {
        return Err(Error::new(Cause::Usage, "`supervise` is only for a lab's first process")
            .next(format!("start a lab: lab up --name {}", layout.name)));
    }
    // The terminal of `up` is not ours: its hang-up must not end the lab.
    rustix::process::setsid().cause(Cause::Internal, || "cannot begin a session")?;
    rustix::system::sethostname(layout.node().as_bytes()).cause(Cause::Node, || "cannot name the lab")?;
    namespace::enter(layout)?;
    std::env::set_current_dir("/").cause(Cause::Node, || "cannot leave the folder")?;
    let (sender, events) = channel();
    listen_to_signals(sender.clone())?;
    listen_to_requests(sender)?;
    let record = Path::new(LAB).join("conf/lab.json");
    Supervisor { layout, record, slots: Vec::new() }.serve(&events)
}

fn listen_to_signals(events: Sender<Event>) -> Result<()> {
    let stop = events.clone();
    // For as long as this process lives.
    std::mem::forget(kit::signal::subscribe(move |_| stop.send(Event::Stop).is_ok()));
    let mut signals = Signals::new([SIGCHLD]).cause(Cause::Internal, || "cannot watch for ended programs")?;
    std::thread::spawn(move || {
        for _ in signals.forever() {
            // Several ends may come as one signal.
            while let Ok(Some((pid, status))) = wait(WaitOptions::NOHANG) {
                let status = ExitStatus::from_raw(status.as_raw());
                if events.send(Event::Ended(pid.as_raw_nonzero().get(), status)).is_err() {
                    return;
                }
            }
        }
    });
    Ok(())
}

fn listen_to_requests(events: Sender<Event>) -> Result<()> {
    let socket = UnixListener::bind(CONTROL).cause(Cause::Node, || format!("cannot listen on {CONTROL}"))?;
    std::thread::spawn(move || {
        for stream in socket.incoming().flatten() {
            // A request is one short line from one of our own commands.
            let ready = stream.set_read_timeout(Some(Duration::from_secs(5)));
            if let (Ok(()), Ok(request)) = (ready, receive::<Request>(&stream))
                && events.send(Event::Asked(request, stream)).is_err()
            {
                return;
            }
        }
    });
    Ok(())
}

/// A program and what became of it.
struct Slot {
    program: Program,
    state: State,
    pid: Option<i32>,
    restarts: u32,
    ends: Vec<Instant>,
    due: Option<Instant>,
    since: Option<jiff::Timestamp>,
    last_end: Option<String>,
}

struct Supervisor<'a> {
    layout: &'a Layout,
    /// The cache is covered; the record's copy in the state is what `up` has just written.
    record: PathBuf,
    slots: Vec<Slot>,
}

impl Supervisor<'_> {
    fn serve(&mut self, events: &Receiver<Event>) -> Result<()> {
        let mut logs_due = Instant::now() + LOGS;
        loop {
            let due = self.slots.iter().filter_map(|slot| slot.due).fold(logs_due, Instant::min);
            match events.recv_timeout(due.saturating_duration_since(Instant::now())) {
                Ok(Event::Ended(pid, status)) => self.ended(pid, status),
                Ok(Event::Asked(request, stream)) => {
                    let refused = self.obey(request).err().map(|error| error.summary());
                    let programs = self.slots.iter().map(Slot::shown).collect();
                    // Whoever asked may have gone.
                    let _ = send(&stream, &Answer { refused, programs });
                }
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return Ok(()),
                Err(RecvTimeoutError::Timeout) => {}
            }
            self.start_due();
            if logs_due <= Instant::now() {
                logs::rotate(&Path::new(LAB).join("log"), logs::LIMIT);
                logs_due = Instant::now() + LOGS;
            }
        }
    }

    fn obey(&mut self, request: Request) -> Result<()> {
        match request {
            Request::Status => Ok(()),
            Request::Start(names) => {
                self.reload()?;
                names.iter().try_for_each(|name| {
                    let slot = self.slot(name)?;
                    slot.wanted(Instant::now());
                    Ok(())
                })?;
                self.start_due();
                Ok(())
            }
            Request::Kill { program, hold } => {
                let slot = self.slot(&program)?;
                if slot.pid.is_none() && !hold {
                    return Err(Error::new(
                        Cause::Usage,
                        format!("{program} does not run: it is {}", slot.state.name()),
                    ));
                }
                if hold {
                    slot.due = None;
                }
                // At once: a large program takes a moment to end, and does nothing in it.
                slot.state = if hold { State::Held } else { State::Restarting };
                slot.kill();
                Ok(())
            }
        }
    }

    /// The record grows while the lab starts: programs take their arguments from it when they are started.
    fn reload(&mut self) -> Result<()> {
        let programs = programs(&self.record()?)?;
        let mut old: HashMap<_, _> = self.slots.drain(..).map(|slot| (slot.program.name.clone(), slot)).collect();
        for program in programs {
            self.slots.push(match old.remove(&program.name) {
                Some(slot) => Slot { program, ..slot },
                None => Slot::new(program),
            });
        }
        Ok(())
    }

    fn record(&self) -> Result<Record> {
        kit::rundir::read_json(&self.record).map(|(record, _)| record).map_err(|e| e.within(self.layout.name.clone()))
    }

    fn slot(&mut self, name: &str) -> Result<&mut Slot> {
        let known: Vec<_> = self.slots.iter().map(|slot| slot.program.name.clone()).collect();
        let slot = self.slots.iter_mut().find(|slot| slot.program.name == name);
        slot.ok_or_else(|| {
            Error::new(Cause::Usage, format!("no program '{name}' here; there are: {}", known.join(", ")))
        })
    }

    fn ended(&mut self, pid: i32, status: ExitStatus) {
        // Any other process is an orphan that is buried now.
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.pid == Some(pid)) {
            slot.ended(status, Instant::now());
            eprintln!("{} {} ended: {status}", jiff::Timestamp::now(), slot.program.name);
        }
    }

    fn start_due(&mut self) {
        let now = Instant::now();
        if !self.slots.iter().any(|slot| slot.due.is_some_and(|due| due <= now)) {
            return;
        }
        let record = match self.record() {
            Ok(record) => record,
            Err(error) => {
                eprintln!("{} cannot start anything: {error}", jiff::Timestamp::now());
                let due = self.slots.iter_mut().filter_map(|slot| slot.due.as_mut()).filter(|due| **due <= now);
                due.for_each(|due| *due = now + PAUSE);
                return;
            }
        };
        for slot in self.slots.iter_mut().filter(|slot| slot.due.is_some_and(|due| due <= now)) {
            slot.due = None;
            match start(&slot.program, &record) {
                Ok(pid) => {
                    slot.pid = Some(pid);
                    slot.since = Some(jiff::Timestamp::now());
                    slot.state = State::Running;
                }
                Err(error) => {
                    slot.state = State::Failed;
                    slot.last_end = Some(error.summary());
                }
            }
        }
    }
}

impl Slot {
    fn new(program: Program) -> Self {
        let (state, ends) = (State::Waiting, Vec::new());
        Self { program, state, pid: None, restarts: 0, ends, due: None, since: None, last_end: None }
    }

    /// Somebody wants it to run: now, or as soon as the one that is being killed has ended.
    fn wanted(&mut self, now: Instant) {
        self.ends.clear();
        if self.pid.is_none() {
            self.due = Some(now);
        } else if self.state == State::Held {
            self.state = State::Restarting;
        }
    }

    /// Decides what becomes of a program that has ended: again after a while, or never.
    fn ended(&mut self, status: ExitStatus, now: Instant) {
        self.pid = None;
        self.last_end = Some(status.to_string());
        if self.state == State::Held {
            return;
        }
        self.ends.retain(|end| now.duration_since(*end) < PERIOD);
        self.ends.push(now);
        if self.ends.len() > RESTARTS {
            self.state = State::Failed;
            return;
        }
        let pause = kit::retry::delays().nth(self.ends.len()).unwrap_or(PERIOD);
        self.state = State::Restarting;
        self.restarts += 1;
        self.due = Some(now + pause);
    }

    fn kill(&self) {
        if let Some(pid) = self.pid.and_then(Pid::from_raw) {
            // It may have ended by itself a moment ago, which its event will tell.
            let _ = kill_process(pid, Signal::KILL);
        }
    }

    fn shown(&self) -> ProgramState {
        ProgramState {
            name: self.program.name.clone(),
            state: self.state,
            restarts: self.restarts,
            since: self.since,
            last_end: self.last_end.clone(),
        }
    }
}

/// Starts a program with an environment of its own: the user's proxies and settings are not the lab's.
fn start(program: &Program, record: &Record) -> Result<i32> {
    let mut command = Command::new(program.path(record));
    command.args(&program.arguments).env_clear().env("PATH", search_path(record)).env("HOME", "/root");
    let log = Path::new(LAB).join("log").join(format!("{}.log", program.name));
    let child = Process::new(&program.name, command).spawn(&log)?;
    i32::try_from(child.id()).cause(Cause::Internal, || "a process number")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::programs::{Origin, Stage};

    fn slot() -> Slot {
        let program = Program { name: "x".into(), origin: Origin::Part("x"), stage: Stage::Cluster, arguments: vec![] };
        Slot { state: State::Running, pid: Some(7), ..Slot::new(program) }
    }

    #[test]
    fn a_program_that_ends_is_started_again_but_not_forever() {
        let (mut slot, now) = (slot(), Instant::now());
        for _ in 0..RESTARTS {
            slot.ended(ExitStatus::from_raw(9), now);
            assert_eq!(slot.state, State::Restarting);
            assert!(slot.due.unwrap() > now);
        }
        slot.due = None;
        slot.ended(ExitStatus::from_raw(9), now);
        assert_eq!((slot.state, slot.due), (State::Failed, None));
        slot.ended(ExitStatus::from_raw(9), now + PERIOD * 2);
        assert_eq!(slot.state, State::Restarting);
    }

    #[test]
    fn without_a_record_nothing_is_tried_again_at_once() {
        let layout = Layout::new("test").unwrap();
        let began = Instant::now();
        let slot = Slot { due: Some(began), pid: None, ..slot() };
        let mut supervisor = Supervisor { layout: &layout, record: "/no/such/file".into(), slots: vec![slot] };
        supervisor.start_due();
        assert!(supervisor.slots[0].due.is_some_and(|due| due >= began + PAUSE));
    }

    #[test]
    fn what_is_held_stays_down() {
        let mut slot = slot();
        slot.state = State::Held;
        slot.ended(ExitStatus::from_raw(9), Instant::now());
        assert_eq!((slot.state, slot.due, slot.restarts), (State::Held, None, 0));
    }

    #[test]
    fn what_is_wanted_while_it_is_being_killed_comes_back() {
        let (mut slot, now) = (slot(), Instant::now());
        slot.state = State::Held;
        slot.wanted(now);
        assert_eq!(slot.due, None);
        slot.ended(ExitStatus::from_raw(9), now);
        assert!(slot.due.is_some());
    }
}
