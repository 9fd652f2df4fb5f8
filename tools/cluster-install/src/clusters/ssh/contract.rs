//! The contract's side of us: what a host is asked, and how its answers are judged. `ci/hosts/CONTRACT.md` is the same for
//! those who write the other side.

use kit::{Cause, Class, Error, Result, Ui, rundir, ui::printable};
use serde::Deserialize;

use super::{
    Sent, Speaker, Told,
    connection::{Answered, Call, Connection},
};
use crate::clusters::state::{HostSeen, Phase};

const NAME: &str = "other-arch-cluster";
/// The version that is spoken here.
const VERSION: u32 = 1;
/// The contract's exit codes.
const ABSENT: i32 = 3;
const UNKNOWN_VERSION: i32 = 4;
const BUSY: i32 = 5;
/// A shell's own.
const NOT_FOUND: [i32; 2] = [126, 127];

pub(super) struct Contract {
    connection: Connection,
    command: String,
}

/// What a host answers; what is not known here is ignored.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    contract: String,
    version: u32,
    #[serde(default)]
    versions: Vec<u32>,
    machine: Option<String>,
    implementation: Option<String>,
    kubernetes: Option<String>,
    #[serde(default)]
    state: Phase,
    run: Option<String>,
    since: Option<String>,
    message: Option<String>,
    deleted: Option<bool>,
    kubeconfig: Option<String>,
    registry_certificate: Option<String>,
    registry_login: Option<String>,
    error: Option<Fault>,
}

#[derive(Debug, Deserialize)]
struct Fault {
    cause: Option<String>,
    message: String,
}

impl Contract {
    pub(super) fn new(connection: Connection, command: &str) -> Self {
        Self { connection, command: command.into() }
    }

    /// The command for a verb. Each of the words is plain: the file and the run's id were looked at.
    fn words(&self, words: &[&str]) -> String {
        [&[self.command.as_str(), "v1"], words].concat().join(" ")
    }

    fn ask(&self, call: &Call<'_>, ui: &Ui) -> Result<Answer> {
        let answered = self.connection.call(call, ui)?;
        let host = self.connection.shown();
        judge(&answered, &self.command).map_err(|error| error.within(format!("{}: {host}", call.what)))
    }

    /// A question; it changes nothing, so it may be asked again.
    fn question(&self, what: &str, words: &[&str], ui: &Ui) -> Result<Answer> {
        let command = self.words(words);
        let limit = self.connection.limits().answer;
        self.ask(&Call { what, command: &command, again: Some(&command), limit }, ui)
    }

    /// Work: whoever does it already is waited for only after a connection broke, for then it is our own.
    fn work(&self, what: &str, words: &[&str], limit: std::time::Duration, ui: &Ui) -> Result<Answer> {
        let command = self.words(words);
        let again = format!("{command} --wait {}", limit.as_secs());
        self.ask(&Call { what, command: &command, again: Some(&again), limit }, ui)
    }

    fn cluster(&self) -> &str {
        self.connection.cluster()
    }
}

/// An answer, or why there is none.
fn judge(answered: &Answered, command: &str) -> Result<Answer> {
    let Answered { code, out, last } = answered;
    let short = |text: &str| printable(text).chars().take(300).collect::<String>();
    let lines = || {
        let said = out.lines().next().map(|line| format!("standard output: {}", short(line)));
        let said = said.into_iter().chain(last.iter().map(|line| short(line)));
        said.collect::<Vec<_>>().join("\n")
    };
    let answer: Answer =
        match serde_json::from_str(out) {
            Ok(answer) => answer,
            Err(_) if NOT_FOUND.contains(code) => {
                return Err(Error::new(Cause::Ssh, format!("it has no command '{command}' (exit code {code})"))
                .line(lines())
                .next("install one that speaks ci/hosts/CONTRACT.md, as ci/hosts/other-arch-cluster does; a host with \
                       k8smanager needs ssh.k8smanager in ci/architectures.toml"));
            }
            Err(error) => {
                // serde quotes what it found, which may be a secret.
                let place = format!("line {} column {}", error.line(), error.column());
                let what = format!("it answers with no JSON of the contract ({place}, exit code {code})");
                let error = Error::new(Cause::Ssh, what).next("does its command print anything but one JSON object?");
                return Err(if *code == 0 { error.line(last.join("\n")) } else { error.line(lines()) });
            }
        };
    if answer.contract != NAME {
        return Err(Error::new(Cause::Ssh, format!("it speaks '{}' and not {NAME}", short(&answer.contract))));
    }
    if answer.version != VERSION || *code == UNKNOWN_VERSION {
        let known = answer.versions.iter().take(10).map(ToString::to_string).collect::<Vec<_>>();
        let known = if known.is_empty() { answer.version.to_string() } else { known.join(", ") };
        return Err(Error::new(
            Cause::Ssh,
            format!("it speaks version {known} of the contract, and we speak {VERSION}"),
        )
        .next("use a newer other-arch, or let the host speak version 1 as well"));
    }
    let Some(fault) = &answer.error else {
        return match code {
            0 => Ok(answer),
            _ => Err(Error::new(Cause::Ssh, format!("its command ended with exit code {code} and does not say why"))
                .line(lines())),
        };
    };
    let named = fault.cause.as_deref().and_then(|name| Cause::ALL.iter().copied().find(|cause| cause.name() == name));
    let cause = match *code {
        BUSY => Cause::LeaseHeld,
        ABSENT => Cause::ClusterUnreachable,
        // What it blames is its own: nothing there can say that a product is bad.
        _ => named
            .filter(|cause| cause.class() == Class::Infrastructure && *cause != Cause::Interrupted)
            .unwrap_or(Cause::Ssh),
    };
    Err(Error::new(cause, short(&fault.message))
        .line(last.iter().map(|line| short(line)).collect::<Vec<_>>().join("\n")))
}

/// A word of the host's that is shown or compared.
fn word(text: Option<String>) -> Option<String> {
    text.map(|text| printable(&text).chars().take(100).collect())
}

fn told(answer: Answer) -> Told {
    let run = answer.run.filter(|run| rundir::slug(run) == *run);
    Told { phase: answer.state, run, since: word(answer.since), message: word(answer.message) }
}

impl Speaker for Contract {
    fn host(&self, host: &mut HostSeen, ui: &Ui) -> Result<()> {
        let answer = self.question("look at the host", &["host"], ui)?;
        host.machine = word(answer.machine);
        host.implementation = word(answer.implementation);
        host.kubernetes = word(answer.kubernetes);
        Ok(())
    }

    fn status(&self, ui: &Ui) -> Result<Told> {
        self.question("look at the cluster", &["status", self.cluster()], ui).map(told)
    }

    fn create(&self, run: &str, ui: &Ui) -> Result<Told> {
        let words = ["create", self.cluster(), "--run", run];
        self.work("making of the cluster", &words, self.connection.limits().create, ui).map(told)
    }

    fn delete(&self, run: Option<&str>, ui: &Ui) -> Result<bool> {
        let run = run.into_iter().flat_map(|run| ["--run", run]);
        let words: Vec<_> = ["delete", self.cluster()].into_iter().chain(run).collect();
        let answer = self.work("removal of the cluster", &words, self.connection.limits().delete, ui)?;
        Ok(answer.deleted.unwrap_or(answer.state == Phase::Absent))
    }

    fn fetch(&self, ui: &Ui) -> Result<Sent> {
        let answer = self.question("fetching of the kubeconfig", &["kubeconfig", self.cluster()], ui)?;
        let none = || Error::new(Cause::Ssh, format!("{} sends no kubeconfig", self.connection.shown()));
        let kubeconfig = answer.kubeconfig.ok_or_else(none)?;
        Ok(Sent { kubeconfig, certificate: answer.registry_certificate, login: answer.registry_login })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: i32, out: &str) -> Result<Answer> {
        judge(&Answered { code, out: out.into(), last: vec!["it said so".into()] }, "x")
    }

    #[test]
    fn answers_are_judged_by_code_and_content() {
        let good = r#"{"contract":"other-arch-cluster","version":1,"state":"ready","run":"r","later":{"x":1}}"#;
        let answer = told(of(0, good).unwrap());
        assert_eq!((answer.phase, answer.run.as_deref()), (Phase::Ready, Some("r")));
        let strange = of(0, &good.replace("ready", "sleeping").replace("\"r\"", "\"../r\"")).map(told).unwrap();
        assert_eq!((strange.phase, strange.run), (Phase::Unknown, None));
        let failed = |cause: &str| {
            format!(
                r#"{{"contract":"other-arch-cluster","version":1,"error":{{"cause":"{cause}","message":"no \u001b[2J"}}}}"#
            )
        };
        for (code, out, cause, said) in [
            (1, failed("host-disk"), Cause::HostDisk, "no \\u{1b}[2J"),
            (1, failed("product"), Cause::Ssh, "no "),
            (1, failed("usage"), Cause::Ssh, "no "),
            (1, failed("interrupted"), Cause::Ssh, "no "),
            (1, failed("whatever"), Cause::Ssh, "no "),
            (3, failed("ssh"), Cause::ClusterUnreachable, "no "),
            (5, failed("ssh"), Cause::LeaseHeld, "no "),
            (0, failed("node"), Cause::Node, "no "),
            (1, good.to_owned(), Cause::Ssh, "exit code 1 and does not say why"),
            (255, good.to_owned(), Cause::Ssh, "exit code 255 and does not say why"),
            (
                0,
                good.replace("\"version\":1", "\"version\":2"),
                Cause::Ssh,
                "speaks version 2 of the contract, and we speak 1",
            ),
            (
                4,
                r#"{"contract":"other-arch-cluster","version":2,"versions":[2,3]}"#.into(),
                Cause::Ssh,
                "speaks version 2, 3",
            ),
            (0, good.replace("other-arch", "another"), Cause::Ssh, "speaks 'another-cluster'"),
            (0, format!("Welcome!\n{good}"), Cause::Ssh, "no JSON of the contract (line 1 column 1, exit code 0)"),
            (0, format!("{good}{good}"), Cause::Ssh, "no JSON of the contract"),
            (0, String::new(), Cause::Ssh, "no JSON of the contract"),
            (0, "[".repeat(100_000), Cause::Ssh, "no JSON of the contract"),
            (127, String::new(), Cause::Ssh, "has no command 'x'"),
        ] {
            let error = of(code, &out).unwrap_err();
            assert_eq!(error.cause, cause, "{code} {}: {error}", out.chars().take(100).collect::<String>());
            assert!(error.to_string().contains(said), "{said}: {error}");
        }
    }
}
