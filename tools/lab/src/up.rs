//! `up`: from whatever is there to a lab whose node is ready.

use std::{fs, path::PathBuf, time::Instant};

use clap::{Args, ValueEnum};
use kit::{Arch, Cause, Done, Error, Platform, Result, Ui};

use crate::{
    cgroups, clients, config,
    control::{Request, State, ask},
    down,
    guest::{self, Nodes},
    image,
    layout::{CONTAINERD, Layout, through},
    mirrors, namespace, network,
    parts::{self, Go, PARTS},
    pki,
    prerequisites::{self, New},
    process,
    programs::{Stage, folder, programs},
    ready::{Lab, PATIENCE},
    record::{self, Phase, Record, Subnet},
    status,
};

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
    #[command(flatten)]
    nodes: Nodes,
    /// Leave what was started when it fails, to look at it
    #[arg(long)]
    keep: bool,
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

impl Until {
    /// What the lab is then.
    const fn phase(self) -> Phase {
        match self {
            Self::Registry => Phase::Registry,
            Self::Ready => Phase::Ready,
        }
    }
}

/// Builds all parts, and those of nodes of other `platforms`.
pub(crate) fn build(layout: &Layout, platforms: &[Platform], ui: &Ui) -> Result<Done> {
    let nodes = guest::machines(platforms)?;
    let go = Go::find(layout)?;
    PARTS.iter().try_for_each(|part| part.build(layout, &go, Arch::host(), ui).map(drop))?;
    nodes.into_iter().try_for_each(|machine| guest::build(layout, machine, &go, ui).map(drop))?;
    Ok(Done::good())
}

/// Brings the lab up. If this call made the lab and it does not get there, nothing of it stays but its logs.
pub(crate) fn up(layout: &Layout, options: &Options, ui: &Ui) -> Result<Done> {
    let there = there(layout)?;
    prerequisites::check(layout, new(options, there.as_ref())?, &options.nodes.programs()?, ui)?;
    options.nodes.check(there.as_ref())?;
    let mirrors = mirrors::hosts(&options.mirrors, options.images.as_deref())?;
    let _lock = parts::lock(&layout.lock(), &format!("another command on lab '{}'", layout.name), ui)?;
    let found = running(layout)?;
    let fresh = found.is_none();
    let (record, pid) = advance(layout, options, found, mirrors, ui)
        .map_err(|error| if fresh && !options.keep { undo(layout, error) } else { with_next(error, &kept(layout)) })?;
    status::show(&record, &ask(pid, &Request::Status)?, Some(fresh), ui)?;
    Ok(Done::good())
}

/// The record of a lab that runs. What is wrong with it is said later, by [`running`].
fn there(layout: &Layout) -> Result<Option<Record>> {
    Ok(process::find(layout)?.and_then(|_| record::read(layout).ok().flatten()))
}

/// What this call has to make, to a lab that is there or not.
fn new(options: &Options, there: Option<&Record>) -> Result<New> {
    let lab = there.is_none_or(|record| record.phase < options.until.phase());
    Ok(New { lab, nodes: options.nodes.count_new(there)? })
}

/// The lab as it runs, if it does. What is left of one that does not is removed, and one that an `up` was killed
/// over before it was anything; a lab that lives is never removed.
fn running(layout: &Layout) -> Result<Option<(Record, u32)>> {
    let remove = || down::remove(layout).map(|()| None);
    let Some(pid) = process::find(layout)? else { return remove() };
    let name = &layout.name;
    let next = format!("take it down first: lab down --name {name}");
    let record = record::read(layout).map_err(|error| {
        let next = format!("use the version of other-arch that started it, or {next}");
        error.within(format!("lab '{name}' runs, but what it is cannot be read")).next(next)
    })?;
    match record {
        // We have the lock: nobody is at it.
        Some(record) if record.phase == Phase::Starting => remove(),
        Some(record) => match ask(pid, &Request::Status) {
            Ok(_) => Ok(Some((record, pid))),
            Err(error) => {
                let what = format!("lab '{name}' runs, but cannot be talked to");
                Err(Error::from_source(Cause::ClusterUnreachable, what, error).next(next))
            }
        },
        None => {
            Err(Error::new(Cause::ClusterUnreachable, format!("lab '{name}' runs, but its record is gone")).next(next))
        }
    }
}

/// From what was `found` to what is wanted.
fn advance(
    layout: &Layout,
    options: &Options,
    found: Option<(Record, u32)>,
    mirrors: Vec<String>,
    ui: &Ui,
) -> Result<(Record, u32)> {
    let fresh = found.is_none();
    let (mut record, pid) = match found {
        Some(found) => found,
        None => begin(layout, options, mirrors.clone(), ui)?,
    };
    if mirrors.iter().any(|host| !record.mirrors.contains(host)) {
        // containerd reads them at each pull; nodes that are machines when they start.
        record.mirrors.extend(mirrors);
        record.mirrors.sort();
        record.mirrors.dedup();
        store(layout, &record)?;
        for node in record.nodes.iter().filter(|node| node.machine.is_some()) {
            guest::write(layout, &record, node)?;
            let (name, lab) = (&node.name, &layout.name);
            ui.warn(format!("{name} knows the new mirrors once it starts again: lab kill {name} --name {lab}"));
        }
    }
    let wanted = options.until.phase();
    let more = |record: &Record| -> Result<bool> {
        // One that an `up` was killed over is in the record and was never started.
        let begun = || Ok::<_, Error>(guest::all_begun(record, &begun(pid)?));
        Ok(wanted == Phase::Ready && (options.nodes.wants_more(record)? || !begun()?))
    };
    if !fresh {
        let has = record.phase.min(wanted);
        let lab = Lab { layout, record: &record, pid };
        lab.wait(has).map_err(|error| lab.explain(error))?;
        if record.phase >= wanted && !more(&record)? {
            if wanted == Phase::Ready {
                come_back(layout, &mut record, pid, ui)?;
            }
            ui.note(format!("lab '{}' is up already", layout.name));
        }
    }
    if record.phase < wanted || more(&record)? {
        cluster(layout, &mut record, &options.nodes, pid, ui)?;
    }
    Ok((record, pid))
}

/// Waits for the nodes of a lab that is up whose machines were killed, or end by themselves.
fn come_back(layout: &Layout, record: &mut Record, pid: u32, ui: &Ui) -> Result<()> {
    let mut missed = Vec::new();
    for node in record.nodes.iter().filter(|node| node.machine.is_some()) {
        if !(Lab { layout, record, pid }).has_heard_of(node)? {
            missed.push(node.name.clone());
        }
    }
    for name in missed {
        ui.note(format!("waiting for {name}, whose machine was not up"));
        if mend(layout, record, &name, ui)? {
            // It has begun with what was damaged.
            ask(pid, &Request::Kill { program: name.clone(), hold: true })?;
        }
        ask(pid, &Request::Start(vec![name]))?;
    }
    let lab = Lab { layout, record, pid };
    lab.machines(&|_| ()).map_err(|error| lab.explain(error))
}

/// Looks at what a node boots from before its machine is started again; `true` if it had to be made anew.
pub(crate) fn mend(layout: &Layout, record: &mut Record, name: &str, ui: &Ui) -> Result<bool> {
    let Some(at) = record.nodes.iter().position(|node| node.name == name) else { return Ok(false) };
    let anew = guest::mend(layout, &mut record.nodes[at], ui)?;
    if anew {
        store(layout, record)?;
        guest::write(layout, record, &record.nodes[at])?;
    }
    Ok(anew)
}

/// Takes down what this call has started, and says so.
fn undo(layout: &Layout, error: Error) -> Error {
    // The signal that ended the start must not end the removal as well.
    kit::signal::forget();
    match down::remove(layout) {
        Ok(()) if layout.logs().is_dir() => {
            let logs = layout.logs().display().to_string();
            with_next(error, &format!("see the logs in {logs}; what was started is removed, unless --keep is given"))
        }
        Ok(()) => error,
        Err(second) => error.next(format!("{}: lab down --name {}", second.summary(), layout.name)),
    }
}

/// What to do with what was left.
fn kept(layout: &Layout) -> String {
    let (logs, name) = (layout.logs(), &layout.name);
    format!(
        "see the logs in {}; `lab up --name {name}` tries again, `lab down --name {name}` removes it",
        logs.display()
    )
}

/// An error's own advice is the better one.
fn with_next(error: Error, next: &str) -> Error {
    if error.next.is_some() { error } else { error.next(next) }
}

/// Network and registry.
fn begin(layout: &Layout, options: &Options, mirrors: Vec<String>, ui: &Ui) -> Result<(Record, u32)> {
    let go = Go::find(layout)?;
    let registry = parts::part("registry")?;
    let key = registry.build(layout, &go, Arch::host(), ui)?;
    let step = ui.step(format!("registry of lab '{}'", layout.name));
    // An earlier lab's logs explain nothing any more.
    let _ = fs::remove_dir_all(layout.logs());
    namespace::prepare(layout)?;
    let subnet = network::reserve(layout, options.subnet)?;
    let mut record = record::new(layout, subnet, mirrors);
    record.parts.insert(registry.name.into(), key);
    store(layout, &record)?;
    let pid = process::start(layout)?;
    network::connect(layout, subnet, pid)?;
    start(&record, pid, Stage::Registry)?;
    let lab = Lab { layout, record: &record, pid };
    lab.registry().map_err(|error| lab.explain(error))?;
    record.phase = Phase::Registry;
    store(layout, &record)?;
    step.done(&record.registry);
    Ok((record, pid))
}

/// Everything else; goes on where an `up` was killed.
fn cluster(layout: &Layout, record: &mut Record, nodes: &Nodes, pid: u32, ui: &Ui) -> Result<()> {
    let go = Go::find(layout)?;
    for part in PARTS {
        // A part that runs already stays what it is.
        if !record.parts.contains_key(part.name) {
            let key = part.build(layout, &go, Arch::host(), ui)?;
            record.parts.insert(part.name.into(), key);
        }
    }
    let recorded = record.nodes.len();
    nodes.add(layout, record, &go, ui)?;
    let began = Instant::now();
    let step = ui.step(format!("Kubernetes of lab '{}'", layout.name));
    cgroups::create(layout)?;
    let begun = begun(pid)?;
    if begun.iter().all(|name| name == "registry") {
        // What runs already knows its certificates.
        pki::make(layout, record)?;
    }
    for at in 0..record.nodes.len() {
        if record.nodes[at].machine.is_some() && !begun.contains(&record.nodes[at].name) {
            step.set(format!("disks of {}", record.nodes[at].name));
            if at < recorded {
                guest::mend(layout, &mut record.nodes[at], ui)?;
            }
            guest::prepare(layout, record, &record.nodes[at], pid)?;
        }
    }
    store(layout, record)?;
    let lab = Lab { layout, record, pid };
    bring_up(&lab, &|state| step.set(state)).map_err(|error| lab.explain(error))?;
    record.phase = Phase::Ready;
    store(layout, record)?;
    let ready = if record.nodes.len() == 1 { "node ready" } else { "nodes ready" };
    step.done(format!("{ready} in {}", kit::ui::duration(began.elapsed())));
    Ok(())
}

/// The programs that were ever asked for.
fn begun(pid: u32) -> Result<Vec<String>> {
    let states = ask(pid, &Request::Status)?.into_iter();
    Ok(states.filter(|program| program.state != State::Waiting).map(|program| program.name).collect())
}

fn bring_up(lab: &Lab<'_>, say: &dyn Fn(&str)) -> Result<()> {
    start(lab.record, lab.pid, Stage::Foundation)?;
    say("waiting for containerd");
    load_pause(lab)?;
    say("waiting for the API server");
    lab.api_server()?;
    start(lab.record, lab.pid, Stage::Cluster)?;
    say("waiting for DNS, volumes and the node");
    let addons = lab.layout.state_of("conf/addons.yaml").display().to_string();
    lab.kubectl(&["apply", "--server-side", "--filename", &addons]).cause(Cause::Apiserver).run()?;
    lab.cluster()?;
    lab.machines(say)
}

/// Writes the record and every configuration that follows from it.
fn store(layout: &Layout, record: &Record) -> Result<()> {
    for (path, text) in config::files(record, &layout.cgroup(), &folder(record, "cni")) {
        kit::rundir::write(&layout.state_of("conf").join(path), text.as_bytes())?;
    }
    kit::rundir::write_json(&layout.state_of("conf/lab.json"), record)?;
    record::write(record, layout)
}

fn start(record: &Record, pid: u32, stage: Stage) -> Result<()> {
    let names = programs(record)?.into_iter().filter(|program| program.stage == stage);
    ask(pid, &Request::Start(names.map(|program| program.name).collect())).map(drop)
}

/// Loads the image that holds the pods' namespaces: it is on the node before the first pod is.
fn load_pause(lab: &Lab<'_>) -> Result<()> {
    let Lab { layout, record, pid } = *lab;
    let program = layout.bin().join("pause").join(&record.parts["pause"]).join("pause");
    let archive = layout.state_of("tmp/pause.tar");
    let bytes = image::archive(config::PAUSE, &program, Arch::host())?;
    kit::rundir::write(&archive, &bytes)?;
    let socket = through(pid, CONTAINERD);
    let late = || Error::new(Cause::Node, "containerd does not take images in time");
    kit::retry::until(PATIENCE, late, || {
        lab.check(Phase::Ready)?;
        // It listens a moment before it can do this.
        Ok(socket.exists().then(|| clients::load(layout, record, pid, &archive).ok()).flatten())
    })
    .map(drop)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    #[test]
    fn what_is_there_needs_no_room_again() {
        let (_, mut record) = guest::tests::record_with(&["linux/s390x"]);
        let ask = |line: &str, there: Option<&Record>| {
            let line = Line::parse_from(format!("up {line}").split_whitespace());
            let New { lab, nodes } = new(&line.options, there).unwrap();
            (lab, nodes)
        };
        assert_eq!(ask("--node linux/s390x", None), (true, 1));
        record.phase = Phase::Registry;
        assert_eq!(ask("--node linux/s390x", Some(&record)), (true, 0));
        assert_eq!(ask("--until registry", Some(&record)), (false, 0));
        record.phase = Phase::Ready;
        assert_eq!(ask("--node linux/s390x", Some(&record)), (false, 0));
        assert_eq!(ask("--node linux/s390x --node linux/arm64", Some(&record)), (false, 1));
    }
}
