//! Whether a lab works: waits for what must answer, and says which program is to blame if it does not.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use kit::{Cause, Error, Result};

use crate::{
    clients, config,
    control::{ProgramState, Request, State, ask},
    layout::Layout,
    process,
    programs::{Stage, programs},
    record::{Node, Phase, Record},
};

/// How long a lab may take once its programs are built.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// Whether a node is ready, and when its kubelet last wrote how it is: in one answer, for after a start the first thing
/// that it writes is that it is not.
pub(crate) const CONDITION: &str =
    r#"{.status.conditions[?(@.type=="Ready")].status} {.status.conditions[?(@.type=="Ready")].lastHeartbeatTime}"#;

/// The keys of a node's taints.
const TAINTS: &str = "{.spec.taints[*].key}";
/// What Kubernetes itself taints a node with that just came, and takes away some moments after it is ready.
const YOUNG: [&str; 3] =
    ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable", "node.kubernetes.io/network-unavailable"];

/// A lab that is being waited for.
pub(crate) struct Lab<'a> {
    pub(crate) layout: &'a Layout,
    pub(crate) record: &'a Record,
    /// Its first process.
    pub(crate) pid: u32,
}

impl Lab<'_> {
    /// Waits until everything of a phase answers; takes no time where it does already.
    pub(crate) fn wait(&self, phase: Phase) -> Result<()> {
        self.registry()?;
        if phase == Phase::Ready {
            self.api_server()?;
            self.cluster()?;
        }
        Ok(())
    }

    /// Waits for the registry.
    pub(crate) fn registry(&self) -> Result<()> {
        let address = SocketAddr::from((self.record.address(), 5000));
        self.answers(Phase::Registry, Cause::Registry, "registry", address, "/v2/")
    }

    /// Waits for the API server.
    pub(crate) fn api_server(&self) -> Result<()> {
        let ready = || self.kubectl(&["get", "--raw", "/readyz", "--request-timeout=10s"]).read();
        let late = || Error::new(Cause::Apiserver, format!("{} is not ready in time", self.record.api_server));
        kit::retry::until(PATIENCE, late, || {
            self.check(Phase::Ready)?;
            Ok(ready().ok())
        })
        .map(drop)
    }

    /// Waits for everything that needs the API server.
    pub(crate) fn cluster(&self) -> Result<()> {
        let node = format!("node/{}", self.record.node());
        // Pods can be made as soon as their service account is there.
        let waits =
            [&["--for=create", "--for=condition=Ready", &node][..], &["--for=create", "serviceaccount/default"]];
        for wait in waits {
            self.kubectl(&[&["wait", "--timeout=120s"], wait].concat()).cause(Cause::Node).run()?;
        }
        let late = || Error::new(Cause::Node, format!("{node} is ready, and still takes no pods"));
        kit::retry::until(Duration::from_secs(60), late, || {
            self.check(Phase::Ready)?;
            Ok(self.takes_pods(&node).then_some(()))
        })?;
        let dns = SocketAddr::from((self.record.address(), config::DNS_READY_PORT));
        self.answers(Phase::Ready, Cause::Dns, "DNS", dns, "/ready")?;
        self.check(Phase::Ready)
    }

    /// Waits for all nodes that are virtual machines, saying which.
    pub(crate) fn machines(&self, say: &dyn Fn(&str)) -> Result<()> {
        self.record.nodes.iter().filter(|node| node.machine.is_some()).try_for_each(|node| {
            say(&format!("waiting for {}", node.name));
            self.machine(node)
        })
    }

    fn machine(&self, node: &Node) -> Result<()> {
        let log = self.layout.logs().join(format!("{}.log", node.name));
        let late = || {
            let error = Error::new(Cause::Node, format!("node {} is not ready in time", node.name));
            error.line(process::last_lines(&log))
        };
        let name = format!("node/{}", node.name);
        kit::retry::until(PATIENCE * 2, late, || {
            self.check(Phase::Ready)?;
            let wait = ["wait", "--timeout=10s", "--for=create", "--for=condition=Ready", &name];
            Ok((self.kubectl(&wait).run().is_ok() && self.has_heard_of(node)? && self.takes_pods(&name)).then_some(()))
        })
    }

    /// Whether Kubernetes has heard since a node's machine was started that it is ready.
    pub(crate) fn has_heard_of(&self, node: &Node) -> Result<bool> {
        let (name, path) = (format!("node/{}", node.name), format!("jsonpath={CONDITION}"));
        let states = ask(self.pid, &Request::Status)?;
        let said = self.kubectl(&["get", &name, "--request-timeout=5s", "--output", &path]).read();
        Ok(said.is_ok_and(|said| lives(&states, node, said.trim())))
    }

    /// Whether the taints of a node that just came are gone.
    fn takes_pods(&self, node: &str) -> bool {
        let path = format!("jsonpath={TAINTS}");
        let said = self.kubectl(&["get", node, "--request-timeout=5s", "--output", &path]).read();
        said.is_ok_and(|keys| settled(&keys))
    }

    /// The lab's kubectl.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> kit::Process<'static> {
        clients::kubectl(self.layout, self.record, arguments)
    }

    /// Waits until an HTTP server of the lab says 200.
    fn answers(&self, phase: Phase, cause: Cause, name: &str, address: SocketAddr, path: &str) -> Result<()> {
        let late = || Error::new(cause, format!("the lab's {name} does not answer at {address}"));
        kit::retry::until(Duration::from_secs(60), late, || {
            self.check(phase)?;
            Ok(get(address, path).is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")).then_some(()))
        })
    }

    /// An error if a program that the phase needs will not come back, or the whole lab has gone: then there is
    /// nothing to wait for.
    pub(crate) fn check(&self, phase: Phase) -> Result<()> {
        let states = ask(self.pid, &Request::Status)?;
        stopped(&states, self.record, phase).map_or(Ok(()), Err)
    }

    /// Adds the last words of the programs that do not run to an error.
    pub(crate) fn explain(&self, error: Error) -> Error {
        let states = ask(self.pid, &Request::Status).unwrap_or_default();
        let troubled = states.iter().filter(|program| program.restarts > 0 || program.state == State::Failed);
        let said: Vec<_> = troubled
            .map(|program| {
                let lines = process::last_lines(&self.layout.logs().join(format!("{}.log", program.name)));
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
        error
    }
}

/// What to say of the first program that stays down though the phase needs it.
fn stopped(states: &[ProgramState], record: &Record, phase: Phase) -> Option<Error> {
    let known = match programs(record) {
        Ok(known) => known,
        Err(error) => return Some(error),
    };
    let needed = |name: &str| {
        let known = known.iter().find(|program| program.name == name);
        known.is_some_and(|program| phase == Phase::Ready || program.stage == Stage::Registry)
    };
    let down = |state: &&ProgramState| matches!(state.state, State::Held | State::Failed) && needed(&state.name);
    let program = states.iter().find(down)?;
    let cause = match program.name.as_str() {
        "registry" => Cause::Registry,
        "kube-apiserver" | "etcd" => Cause::Apiserver,
        "dns" => Cause::Dns,
        "storage" => Cause::Storage,
        _ => Cause::Node,
    };
    let how = if program.state == State::Held { "is held down" } else { "ended too often and was given up" };
    let (name, lab) = (&program.name, &record.name);
    let error = Error::new(cause, format!("{name} of lab '{lab}' {how}"));
    Some(
        error.next(format!(
            "start it again: lab start {name} --name {lab}; or take the lab down: lab down --name {lab}"
        )),
    )
}

/// Whether none of a node's taints is one that goes by itself.
fn settled(keys: &str) -> bool {
    !keys.split_whitespace().any(|key| YOUNG.contains(&key))
}

/// Whether a node that is a machine is ready: the machine runs, and its kubelet wrote the [`CONDITION`] since it was
/// started. (Kubernetes misses a node only after a grace period, and until then says of it what was.)
pub(crate) fn lives(states: &[ProgramState], node: &Node, condition: &str) -> bool {
    let Some(machine) = states.iter().find(|program| program.name == node.name) else { return false };
    let Some(heartbeat) = condition.strip_prefix("True ") else { return false };
    let heard = |since| heartbeat.parse::<jiff::Timestamp>().is_ok_and(|heartbeat| heartbeat >= since);
    // A supervisor of an earlier version does not say since when.
    machine.state == State::Running && machine.since.is_none_or(heard)
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

#[cfg(test)]
mod tests {
    use super::*;

    fn program(name: &str, state: State) -> ProgramState {
        ProgramState { name: name.into(), state, restarts: 0, since: None, last_end: None }
    }

    #[test]
    fn a_node_takes_pods_when_its_first_taints_are_gone() {
        assert!(!settled("node.kubernetes.io/not-ready node.kubernetes.io/unschedulable"));
        // Somebody's own taints, and a node that somebody cordoned, would be waited for in vain.
        assert!(settled("example.com/mine node.kubernetes.io/unschedulable"));
        assert!(settled(""));
    }

    #[test]
    fn a_node_lives_if_its_machine_runs_and_was_heard_of_since_it_was_started() {
        let (_, record) = crate::guest::tests::record_with(&["linux/s390x"]);
        let node = &record.nodes[1];
        let since = "2026-01-01T12:00:00.5Z".parse().ok();
        let running = ProgramState { since, ..program(&node.name, State::Running) };
        for (state, condition, good) in [
            (running.clone(), "True 2026-01-01T12:00:31Z", true),
            (running.clone(), "True 2026-01-01T11:59:59Z", false),
            (running.clone(), "False 2026-01-01T12:00:31Z", false),
            (running.clone(), "True", false),
            (running.clone(), "", false),
            (ProgramState { state: State::Restarting, ..running.clone() }, "True 2026-01-01T12:00:31Z", false),
            (ProgramState { since: None, ..running.clone() }, "True 2026-01-01T11:59:59Z", true),
            (program("registry", State::Running), "True 2026-01-01T12:00:31Z", false),
        ] {
            assert_eq!(lives(std::slice::from_ref(&state), node, condition), good, "{state:?} {condition}");
        }
    }

    #[test]
    fn a_program_that_stays_down_is_named_if_the_phase_needs_it() {
        let layout = Layout::new("test").unwrap();
        let record = crate::record::new(&layout, "10.213.7.0/24".parse().unwrap(), vec![]);
        let states = [program("registry", State::Running), program("kube-apiserver", State::Held)];
        let error = stopped(&states, &record, Phase::Ready).unwrap();
        assert_eq!(error.cause, Cause::Apiserver);
        assert!(error.to_string().contains("lab start kube-apiserver --name test"), "{error}");
        assert!(stopped(&states, &record, Phase::Registry).is_none());
        let busy = [program("registry", State::Restarting), program("dns", State::Waiting)];
        assert!(stopped(&busy, &record, Phase::Ready).is_none(), "it may come back");
    }
}
