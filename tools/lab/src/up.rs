//! `up`: from whatever is there to a lab whose node is ready.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    path::PathBuf,
    time::{Duration, Instant},
};

use clap::{Args, ValueEnum};
use kit::{Arch, Cause, Done, Error, Result, Ui};

use crate::{
    cgroups, clients, config,
    control::{ProgramState, Request, State, ask},
    down, image,
    layout::{CONTAINERD, Layout, through},
    mirrors, namespace,
    network::{self, Subnet},
    parts::{self, Go, PARTS},
    pki, prerequisites, process,
    programs::{Stage, folder, programs},
    record::{Phase, Record},
    status,
};

/// How long a lab may take once its programs are built.
const PATIENCE: Duration = Duration::from_secs(180);

/// Options of `up`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Stop early; a later `up` goes on from there
    #[arg(long, value_enum, default_value_t)]
    until: Until,
    /// A public registry that the lab's own answers for, under mirror/HOST/; repeatable
    #[arg(long = "mirror-host", value_name = "HOST")]
    mirrors: Vec<String>,
    /// Take the public registries from the names in this file [default: ci/images.toml of the workspace]
    #[arg(long, value_name = "FILE")]
    images: Option<PathBuf>,
    /// The network between host and lab, 10.X.Y.0/24 [default: a free one]
    #[arg(long)]
    subnet: Option<Subnet>,
}

/// How far `up` goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
enum Until {
    /// Network and registry: images can be pushed.
    Registry,
    /// The node is ready.
    #[default]
    Ready,
}

/// Builds all parts.
pub(crate) fn build(layout: &Layout, ui: &Ui) -> Result<Done> {
    let go = Go::find()?;
    PARTS.iter().try_for_each(|part| part.build(layout, &go, Arch::host(), ui).map(drop))?;
    Ok(Done::good())
}

/// Brings the lab up.
pub(crate) fn up(layout: &Layout, options: &Options, ui: &Ui) -> Result<Done> {
    prerequisites::check(layout, ui)?;
    let mirrors = mirrors::hosts(&options.mirrors, options.images.as_deref())?;
    let _lock = parts::lock(&layout.lock(), &format!("another command on lab '{}'", layout.name), ui)?;
    let (mut record, pid, fresh) = match running(layout)? {
        Some((record, pid)) => (record, pid, false),
        None => {
            let (record, pid) = begin(layout, options, mirrors.clone(), ui)?;
            (record, pid, true)
        }
    };
    if mirrors.iter().any(|host| !record.mirrors.contains(host)) {
        // containerd reads them at each pull.
        record.mirrors.extend(mirrors);
        record.mirrors.sort();
        record.mirrors.dedup();
        store(layout, &record)?;
    }
    let wanted = if options.until == Until::Registry { Phase::Registry } else { Phase::Ready };
    if record.phase >= wanted {
        if !fresh {
            ui.note(format!("lab '{}' is up already", layout.name));
        }
    } else {
        cluster(layout, &mut record, pid, ui)?;
    }
    status::show(&record, &ask(pid, &Request::Status)?, ui)?;
    Ok(Done::good())
}

/// The lab as it runs, if it does. What an `up` left that was killed is removed.
fn running(layout: &Layout) -> Result<Option<(Record, u32)>> {
    // A record that cannot be read is no reason not to start again.
    let record = Record::read(layout).ok().flatten();
    match (record, process::find(layout)?) {
        (Some(record), Some(pid)) if whole(&record, pid) => Ok(Some((record, pid))),
        _ => {
            down::remove(layout)?;
            Ok(None)
        }
    }
}

/// Whether the lab is in one of the states that can be gone on from, and not between two of them.
fn whole(record: &Record, pid: u32) -> bool {
    let Ok(states) = ask(pid, &Request::Status) else { return false };
    let registry = |state: &&ProgramState| {
        programs(record).iter().any(|program| program.name == state.name && program.stage == Stage::Registry)
    };
    match record.phase {
        Phase::Starting => false,
        Phase::Registry => states.iter().filter(|state| !registry(state)).all(|state| state.state == State::Waiting),
        Phase::Ready => true,
    }
}

/// Network and registry.
fn begin(layout: &Layout, options: &Options, mirrors: Vec<String>, ui: &Ui) -> Result<(Record, u32)> {
    let go = Go::find()?;
    let registry = parts::part("registry")?;
    let key = registry.build(layout, &go, Arch::host(), ui)?;
    let step = ui.step(format!("registry of lab '{}'", layout.name));
    // An earlier lab's logs explain nothing any more.
    let _ = fs::remove_dir_all(layout.logs());
    namespace::prepare(layout)?;
    let draft = |subnet| {
        let mut record = Record::new(layout, subnet, mirrors.clone());
        record.parts.insert(registry.name.into(), key.clone());
        record
    };
    let subnet = network::reserve(&layout.name, options.subnet, |subnet| draft(subnet).write(layout))?;
    let mut record = draft(subnet);
    store(layout, &record)?;
    let pid = process::start(layout)?;
    network::connect(subnet, pid)?;
    start(&record, pid, Stage::Registry)?;
    let address = SocketAddr::from((record.address(), 5000));
    answers(pid, Cause::Registry, "registry", address, "/v2/").map_err(|error| explain(layout, pid, error))?;
    record.phase = Phase::Registry;
    store(layout, &record)?;
    step.done(&record.registry);
    Ok((record, pid))
}

/// Everything else.
fn cluster(layout: &Layout, record: &mut Record, pid: u32, ui: &Ui) -> Result<()> {
    let go = Go::find()?;
    for part in PARTS {
        // A part that runs already stays what it is.
        if !record.parts.contains_key(part.name) {
            let key = part.build(layout, &go, Arch::host(), ui)?;
            record.parts.insert(part.name.into(), key);
        }
    }
    let began = Instant::now();
    let step = ui.step(format!("Kubernetes of lab '{}'", layout.name));
    cgroups::create(layout)?;
    pki::make(layout, record)?;
    store(layout, record)?;
    bring_up(layout, record, pid, &|state| step.set(state)).map_err(|error| explain(layout, pid, error))?;
    record.phase = Phase::Ready;
    store(layout, record)?;
    step.done(format!("node ready in {}", kit::ui::duration(began.elapsed())));
    Ok(())
}

fn bring_up(layout: &Layout, record: &Record, pid: u32, say: &dyn Fn(&str)) -> Result<()> {
    start(record, pid, Stage::Foundation)?;
    say("waiting for containerd");
    load_pause(layout, record, pid)?;
    say("waiting for the API server");
    let ready = || clients::kubectl(layout, record, &["get", "--raw", "/readyz"]).cause(Cause::Apiserver).read();
    let late = || Error::new(Cause::Apiserver, format!("{} is not ready in time", record.api_server));
    kit::retry::until(PATIENCE, late, || check_alive(pid).map(|()| ready().ok()))?;
    start(record, pid, Stage::Cluster)?;
    say("waiting for DNS, volumes and the node");
    let addons = layout.state_of("conf/addons.yaml").display().to_string();
    run(layout, record, &["apply", "--server-side", "--filename", &addons], Cause::Apiserver)?;
    let node = format!("node/{}", record.node());
    // Pods can be made as soon as their service account is there.
    let waits = [&["--for=create", "--for=condition=Ready", &node][..], &["--for=create", "serviceaccount/default"]];
    for wait in waits {
        run(layout, record, &[&["wait", "--timeout=120s"], wait].concat(), Cause::Node)?;
    }
    let dns = SocketAddr::from((record.address(), config::DNS_READY_PORT));
    answers(pid, Cause::Dns, "DNS", dns, "/ready")
}

/// Writes the record and every configuration that follows from it.
fn store(layout: &Layout, record: &Record) -> Result<()> {
    for (path, text) in config::files(record, &layout.cgroup(), &folder(record, "cni")) {
        kit::rundir::write(&layout.state_of("conf").join(path), text.as_bytes())?;
    }
    kit::rundir::write_json(&layout.state_of("conf/lab.json"), record)?;
    record.write(layout)
}

fn start(record: &Record, pid: u32, stage: Stage) -> Result<()> {
    let names = programs(record).into_iter().filter(|program| program.stage == stage);
    ask(pid, &Request::Start(names.map(|program| program.name.to_owned()).collect())).map(drop)
}

/// Loads the image that holds the pods' namespaces: it is on the node before the first pod is.
fn load_pause(layout: &Layout, record: &Record, pid: u32) -> Result<()> {
    let program = layout.bin().join("pause").join(&record.parts["pause"]).join("pause");
    let archive = layout.state_of("tmp/pause.tar");
    let bytes = image::archive(config::PAUSE, &program, Arch::host())?;
    kit::rundir::write(&archive, &bytes)?;
    let socket = through(pid, CONTAINERD);
    let late = || Error::new(Cause::Node, "containerd does not take images in time");
    kit::retry::until(PATIENCE, late, || {
        check_alive(pid)?;
        // It listens a moment before it can do this.
        Ok(socket.exists().then(|| clients::load(layout, record, pid, &archive).ok()).flatten())
    })
    .map(drop)
}

fn run(layout: &Layout, record: &Record, arguments: &[&str], cause: Cause) -> Result<()> {
    clients::kubectl(layout, record, arguments).cause(cause).run()
}

/// Waits until an HTTP server of the lab says 200.
fn answers(pid: u32, cause: Cause, name: &str, address: SocketAddr, path: &str) -> Result<()> {
    let late = || Error::new(cause, format!("the lab's {name} does not answer at {address}"));
    kit::retry::until(Duration::from_secs(60), late, || {
        check_alive(pid)?;
        Ok(get(address, path).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")).then_some(()))
    })
}

/// An error if a program was given up, or the whole lab has gone: then there is nothing to wait for.
fn check_alive(pid: u32) -> Result<()> {
    let states = ask(pid, &Request::Status)?;
    match states.iter().find(|program| program.state == State::Failed) {
        Some(failed) => Err(Error::new(Cause::Node, format!("{} of the lab does not run", failed.name))),
        None => Ok(()),
    }
}

fn get(address: SocketAddr, path: &str) -> std::io::Result<String> {
    let second = Duration::from_secs(1);
    let mut stream = TcpStream::connect_timeout(&address, second)?;
    stream.set_read_timeout(Some(second))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    stream.take(4096).read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Adds the last words of the programs that do not run to an error.
fn explain(layout: &Layout, pid: u32, error: Error) -> Error {
    let states = ask(pid, &Request::Status).unwrap_or_default();
    let troubled = states.iter().filter(|program| program.restarts > 0 || program.state == State::Failed);
    let said: Vec<_> = troubled
        .map(|program| {
            let lines = process::last_lines(&layout.logs().join(format!("{}.log", program.name)));
            let end = program.last_end.as_deref().unwrap_or_default();
            format!("{} ({}, {end}):\n{lines}", program.name, program.state.name())
        })
        .collect();
    let said = error.line.clone().into_iter().chain(said).collect::<Vec<_>>().join("\n");
    let full = said.contains("no space left on device");
    let mut error = if said.is_empty() { error } else { error.line(said) };
    if full {
        error.cause = Cause::HostDisk;
    }
    let name = &layout.name;
    error.next(format!("logs are in {}; `lab down --name {name}` removes the rest", layout.logs().display()))
}
