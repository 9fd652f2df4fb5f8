//! The verbs that look at a lab, or reach into one that is up.

use std::{fs, path::Path};

use kit::{Cause, Context, Done, Error, Output, Process, Result, Ui};
use serde::Serialize;

use crate::{
    clients,
    control::{ProgramState, Request, State, ask},
    layout::Layout,
    parts, process,
    ready::{CONDITION, lives},
    record::{self, Node, Phase, Record},
    up,
};

/// What `status` and `up` print as JSON: the record, and how the programs are.
#[derive(Serialize)]
struct Shown<'a> {
    #[serde(flatten)]
    record: &'a Record,
    programs: &'a [ProgramState],
    /// Only of `up`: whether this very call made the lab, so that its caller knows whose it is to take down. A lab
    /// that was up already is not fresh, however far it had come.
    #[serde(skip_serializing_if = "Option::is_none")]
    fresh: Option<bool>,
}

/// Prints the record and the programs; `fresh` is for `up` to say.
pub(crate) fn show(record: &Record, programs: &[ProgramState], fresh: Option<bool>, ui: &Ui) -> Result<()> {
    if ui.output == Output::Json {
        return ui.json(&Shown { record, programs, fresh });
    }
    let line = |name: &str, value: &str| vec![name.to_owned(), value.to_owned()];
    let phase = match record.phase {
        Phase::Starting => "starting",
        Phase::Registry => "only the registry is up",
        Phase::Ready => "up",
    };
    let mut rows = vec![line("lab", &record.name), line("state", phase), line("registry", &record.registry)];
    if record.phase == Phase::Ready {
        rows.push(line("kubeconfig", &record.kubeconfig.display().to_string()));
        rows.push(line("api server", &record.api_server));
        rows.extend(record.nodes.iter().map(|node| line("node", &describe(node))));
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

/// A node in words; of one that is a machine also what it was given.
fn describe(node: &Node) -> String {
    let given = node.machine.as_ref().map(|m| format!(", {} processors, {} MiB", m.cpus, m.memory));
    let given = given.unwrap_or_default();
    format!("{} ({}, {}{given})", node.name, node.platform, node.nature.name())
}

/// The lab as it runs.
fn running(layout: &Layout) -> Result<(Record, u32)> {
    let down = || {
        Error::new(Cause::ClusterUnreachable, format!("lab '{}' is not up", layout.name))
            .next(format!("start it: lab up --name {}", layout.name))
    };
    let pid = process::find(layout)?.ok_or_else(down)?;
    Ok((record::read(layout)?.ok_or_else(down)?, pid))
}

/// Says how the lab is; not good unless its API server and its node are.
pub(crate) fn status(layout: &Layout, ui: &Ui) -> Result<Done> {
    let (record, pid) = running(layout)?;
    let programs = ask(pid, &Request::Status)?;
    show(&record, &programs, None, ui)?;
    if record.phase != Phase::Ready {
        return Ok(Done::good());
    }
    let get = ["get", "nodes", "--request-timeout=5s", "--output"];
    let path = format!(r#"jsonpath={{range .items[*]}}{{.metadata.name}} {CONDITION}{{"\n"}}{{end}}"#);
    let arguments: Vec<_> = get.into_iter().chain([path.as_str()]).collect();
    let Ok(nodes) = clients::kubectl(layout, &record, &arguments).read() else {
        ui.warn(format!("{} does not answer", record.api_server));
        return Ok(Done::found(Cause::Apiserver));
    };
    match trouble(&record, &programs, &nodes) {
        Some(what) => {
            ui.warn(what);
            Ok(Done::found(Cause::Node))
        }
        None => Ok(Done::good()),
    }
}

/// What is wrong with the first node that is not good; `nodes` has a line of each: name and [`CONDITION`].
fn trouble(record: &Record, programs: &[ProgramState], nodes: &str) -> Option<String> {
    record.nodes.iter().find_map(|node| {
        let name = &node.name;
        let condition = nodes.lines().find_map(|line| line.strip_prefix(name.as_str())?.strip_prefix(' '));
        match condition.filter(|condition| condition.starts_with("True ")) {
            None => Some(format!("node {name} is not ready")),
            Some(condition) if node.machine.is_some() && !lives(programs, node, condition) => {
                Some(format!("node {name} is not back yet: Kubernetes still says of it what was"))
            }
            Some(_) => None,
        }
    })
}

/// What `kubeconfig --output json` prints.
#[derive(Serialize)]
struct Kubeconfig<'a> {
    /// The file.
    kubeconfig: &'a Path,
    /// What it holds, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<String>,
}

/// Prints the kubeconfig's path or content.
pub(crate) fn kubeconfig(layout: &Layout, raw: bool, ui: &Ui) -> Result<Done> {
    let (record, _) = running(layout)?;
    if record.phase != Phase::Ready {
        return Err(Error::new(Cause::ClusterUnreachable, format!("of lab '{}' only the registry is up", layout.name))
            .next(format!("go on: lab up --name {}", layout.name)));
    }
    let read = || fs::read_to_string(&record.kubeconfig).cause(Cause::HostDisk, || "cannot read the kubeconfig");
    let content = raw.then(read).transpose()?;
    match (ui.output, content) {
        (Output::Json, content) => ui.json(&Kubeconfig { kubeconfig: &record.kubeconfig, content })?,
        (Output::Text, Some(content)) => ui.result(&content)?,
        (Output::Text, None) => ui.result(&record.kubeconfig.display().to_string())?,
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
    let (record, pid) = running(layout)?;
    if record.nodes.iter().any(|node| node.name == program && node.machine.is_some()) {
        let _lock = parts::lock(&layout.lock(), &format!("another command on lab '{}'", layout.name), ui)?;
        // Who had the lock before may have changed it.
        let (mut record, _) = running(layout)?;
        up::mend(layout, &mut record, &program, ui)?;
    }
    ask(pid, &Request::Start(vec![program.clone()]))?;
    ui.note(format!("{program} started"));
    Ok(Done::good())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_node_was_given_is_said() {
        let (_, record) = crate::guest::tests::record_with(&["linux/s390x"]);
        assert_eq!(describe(&record.nodes[1]), "test-s390x (linux/s390x, emulated, 2 processors, 3072 MiB)");
        assert!(describe(&record.nodes[0]).ends_with(", native)"));
    }

    #[test]
    fn a_node_that_is_not_there_is_named_although_kubernetes_has_not_missed_it() {
        let (_, record) = crate::guest::tests::record_with(&["linux/s390x"]);
        let (host, other) = (record.node(), &record.nodes[1].name);
        let machine = |state| ProgramState {
            name: other.clone(),
            state,
            restarts: 1,
            since: "2026-01-01T12:00:00Z".parse().ok(),
            last_end: None,
        };
        let good = format!("{host} True 2026-01-01T11:00:00Z\n{other} True 2026-01-01T12:00:30Z\n");
        assert_eq!(trouble(&record, &[machine(State::Running)], &good), None);
        for (nodes, state, word) in [
            (good.clone(), State::Restarting, "not back yet"),
            (good.replace("12:00:30", "11:59:00"), State::Running, "not back yet"),
            (good.replace(&format!("{other} True"), &format!("{other} Unknown")), State::Running, "is not ready"),
            (format!("{other} True 2026-01-01T12:00:30Z\n"), State::Running, host),
            (String::new(), State::Running, host),
        ] {
            let said = trouble(&record, &[machine(state)], &nodes).unwrap();
            assert!(said.contains(word), "{said}");
        }
    }
}
