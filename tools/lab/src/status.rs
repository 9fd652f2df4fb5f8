//! The verbs that look at a lab, or reach into one that is up.

use std::{
    fs::{self, File},
    io::{Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use kit::{Cause, Context, Done, Error, Output, Process, Result, Ui};
use serde::Serialize;

use crate::{
    clients,
    control::{ProgramState, Request, State, ask},
    layout::Layout,
    process,
    record::{Phase, Record},
};

/// What `status --output json` prints: the record, and how the programs are.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    record: &'a Record,
    programs: &'a [ProgramState],
}

/// Prints the record and the programs.
pub(crate) fn show(record: &Record, programs: &[ProgramState], ui: &Ui) -> Result<()> {
    if ui.output == Output::Json {
        return ui.json(&Shown { record, programs });
    }
    let line = |name: &str, value: &str| vec![name.to_owned(), value.to_owned()];
    let phase = match record.phase {
        Phase::Starting => "starting",
        Phase::Registry => "only the registry is up",
        Phase::Ready => "up",
    };
    let mut rows = vec![line("lab", &record.name), line("state", phase), line("registry", &record.registry)];
    if record.phase == Phase::Ready {
        rows.push(line("kubeconfig", &record.kubeconfig));
        rows.push(line("api server", &record.api_server));
        let nodes = record.nodes.iter();
        rows.extend(nodes.map(|n| line("node", &format!("{} ({}, {})", n.name, n.platform, n.nature.name()))));
    }
    for program in programs.iter().filter(|program| program.state != State::Running || program.restarts > 0) {
        let end = program.last_end.as_deref().map_or_else(String::new, |end| format!(", last: {end}"));
        let text = format!("{} {} (started again {} times{end})", program.name, program.state.name(), program.restarts);
        if record.phase == Phase::Ready || program.state != State::Waiting {
            rows.push(line("program", &text));
        }
    }
    ui.result(&kit::ui::table(&rows))
}

/// The lab as it runs.
fn running(layout: &Layout) -> Result<(Record, u32)> {
    let down = || {
        Error::new(Cause::ClusterUnreachable, format!("lab '{}' is not up", layout.name))
            .next(format!("start it: lab up --name {}", layout.name))
    };
    let pid = process::find(layout)?.ok_or_else(down)?;
    Ok((Record::read(layout)?.ok_or_else(down)?, pid))
}

/// Says how the lab is; not good unless its API server and its node are.
pub(crate) fn status(layout: &Layout, ui: &Ui) -> Result<Done> {
    let (record, pid) = running(layout)?;
    let programs = ask(pid, &Request::Status)?;
    show(&record, &programs, ui)?;
    if record.phase != Phase::Ready {
        return Ok(Done::good());
    }
    let get = ["get", "nodes", "--request-timeout=5s", "--output"];
    let path =
        r#"jsonpath={range .items[*]}{.metadata.name} {.status.conditions[?(@.type=="Ready")].status}{"\n"}{end}"#;
    let arguments: Vec<_> = get.into_iter().chain([path]).collect();
    let Ok(nodes) = clients::kubectl(layout, &record, &arguments).read() else {
        ui.warn(format!("{} does not answer", record.api_server));
        return Ok(Done::found(Cause::Apiserver));
    };
    let ready = |node: &crate::Node| nodes.lines().any(|line| line == format!("{} True", node.name));
    match record.nodes.iter().find(|node| !ready(node)) {
        Some(node) => {
            ui.warn(format!("node {} is not ready", node.name));
            Ok(Done::found(Cause::Node))
        }
        None => Ok(Done::good()),
    }
}

/// Prints the kubeconfig's path or content.
pub(crate) fn kubeconfig(layout: &Layout, raw: bool, ui: &Ui) -> Result<Done> {
    let (record, _) = running(layout)?;
    if record.phase != Phase::Ready {
        return Err(Error::new(Cause::ClusterUnreachable, format!("of lab '{}' only the registry is up", layout.name))
            .next(format!("go on: lab up --name {}", layout.name)));
    }
    if raw {
        let text = fs::read_to_string(layout.kubeconfig()).cause(Cause::HostDisk, || "cannot read the kubeconfig")?;
        ui.result(&text)?;
    } else {
        ui.result(&record.kubeconfig)?;
    }
    Ok(Done::good())
}

/// Becomes the lab's kubectl.
pub(crate) fn kubectl(layout: &Layout, arguments: &[String]) -> Result<Done> {
    let (record, _) = running(layout)?;
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    Err(Process::new("kubectl", clients::kubectl_command(layout, &record, &arguments)).replace())
}

/// Loads an image archive.
pub(crate) fn load(layout: &Layout, file: &Path, ui: &Ui) -> Result<Done> {
    if !file.is_file() {
        return Err(Error::new(Cause::Usage, format!("{} is no file", file.display())));
    }
    let (record, pid) = running(layout)?;
    ui.result(&clients::load(layout, &record, pid, file)?)?;
    Ok(Done::good())
}

/// Kills a program.
pub(crate) fn kill(layout: &Layout, program: String, hold: bool, ui: &Ui) -> Result<Done> {
    let (_, pid) = running(layout)?;
    ask(pid, &Request::Kill { program: program.clone(), hold })?;
    ui.note(format!("{program} killed{}", if hold { ", and held down" } else { "" }));
    Ok(Done::good())
}

/// Starts a program again.
pub(crate) fn start(layout: &Layout, program: String, ui: &Ui) -> Result<Done> {
    let (_, pid) = running(layout)?;
    ask(pid, &Request::Start(vec![program.clone()]))?;
    ui.note(format!("{program} started"));
    Ok(Done::good())
}

/// Prints logs, of one program or all, each line with the program's name.
pub(crate) fn logs(layout: &Layout, program: Option<&str>, follow: bool) -> Result<Done> {
    let mut logs = open_logs(layout, program)?;
    let mut print = || -> Result<()> {
        logs.iter_mut().try_for_each(|(name, file)| {
            let prefix = if program.is_some() { String::new() } else { format!("{name}: ") };
            copy(file, &prefix).cause(Cause::HostDisk, || format!("cannot print the log of {name}"))
        })
    };
    print()?;
    if follow {
        let end = || Error::new(Cause::Interrupted, "a year is over");
        kit::retry::until::<()>(Duration::from_secs(365 * 86_400), end, || print().map(|()| None))?;
    }
    Ok(Done::good())
}

fn open_logs(layout: &Layout, program: Option<&str>) -> Result<Vec<(String, File)>> {
    let folder = layout.logs();
    let none = || {
        Error::new(Cause::Usage, format!("lab '{}' has no such log in {}", layout.name, folder.display()))
            .next("programs are listed by `lab status --output json`")
    };
    let entries = fs::read_dir(&folder).map_err(|_| none())?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    let named = paths.into_iter().filter_map(|path| {
        let name = path.file_stem()?.to_str()?.to_owned();
        program.is_none_or(|program| program == name).then(|| File::open(&path).ok().map(|file| (name, file)))?
    });
    let logs: Vec<_> = named.collect();
    if logs.is_empty() { Err(none()) } else { Ok(logs) }
}

/// Prints the whole lines that have come since the last call.
fn copy(file: &mut File, prefix: &str) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    loop {
        let begin = file.stream_position()?;
        let mut bytes = Vec::new();
        Read::by_ref(file).take(1 << 20).read_to_end(&mut bytes)?;
        let Some(end) = bytes.iter().rposition(|byte| *byte == b'\n') else {
            file.seek(SeekFrom::Start(begin))?;
            return Ok(());
        };
        file.seek(SeekFrom::Start(begin + end as u64 + 1))?;
        for line in String::from_utf8_lossy(&bytes[..end]).lines() {
            writeln!(out, "{prefix}{}", kit::ui::printable(line))?;
        }
    }
}
