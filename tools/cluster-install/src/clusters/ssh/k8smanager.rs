//! The hosts of the nightly tests as they are today: `k8smanager create` and `delete`, and three files in a folder that
//! everybody has to know. Which run made the cluster is remembered here, for nobody does there.

use kit::{Cause, Error, Result, Ui, process::quote, ui::printable};

use super::{
    Sent, Speaker, Told,
    connection::{Answered, Call, Connection},
};
use crate::clusters::{
    state::{HostSeen, Phase},
    store::Store,
};

/// The kubeconfig in that folder, by which a cluster is known again.
const CONFIG: &str = "config";

pub(super) struct K8sManager {
    connection: Connection,
    share: String,
    store: Store,
}

impl K8sManager {
    pub(super) fn new(connection: Connection, share: &str, store: Store) -> Self {
        Self { connection, share: share.into(), store }
    }

    fn ask(&self, what: &str, command: &str, ui: &Ui) -> Result<Answered> {
        let limit = self.connection.limits().answer;
        self.connection.call(&Call { what, command, again: Some(command), limit }, ui)
    }

    /// Nobody promised that it can be called twice: what may have begun is not begun again.
    fn work(&self, verb: &str, limit: std::time::Duration, ui: &Ui) -> Result<Answered> {
        let command = format!("k8smanager {verb}");
        self.connection.call(&Call { what: &command, command: &command, again: None, limit }, ui)
    }

    fn worked(&self, verb: &str, answered: &Answered) -> Result<()> {
        if answered.code == 0 { Ok(()) } else { Err(self.failed(&format!("k8smanager {verb}"), answered)) }
    }

    fn failed(&self, what: &str, answered: &Answered) -> Error {
        let said: Vec<_> = answered.last.iter().map(|line| printable(line)).collect();
        let what = format!("{what}: exit code {} on {}", answered.code, self.connection.shown());
        Error::new(Cause::Ssh, what).line(said.join("\n"))
    }

    /// A file of the share; nothing if there is none.
    fn file(&self, name: &str, ui: &Ui) -> Result<Option<String>> {
        let path = quote(&format!("{}/{name}", self.share));
        // 44 can be nothing but this.
        let command = format!("test -s {path} || exit 44; cat {path}");
        let answered = self.ask(&format!("fetching of {name}"), &command, ui)?;
        match answered.code {
            0 => Ok(Some(answered.out)),
            44 => Ok(None),
            _ => Err(self.failed(&format!("fetching of {name}"), &answered)),
        }
    }
}

impl Speaker for K8sManager {
    fn host(&self, host: &mut HostSeen, ui: &Ui) -> Result<()> {
        let answered = self.ask("look at the host", "uname -m", ui)?;
        if answered.code != 0 {
            return Err(self.failed("look at the host", &answered));
        }
        host.machine = Some(printable(answered.out.trim()).chars().take(100).collect());
        host.implementation = Some("k8smanager".into());
        Ok(())
    }

    fn status(&self, ui: &Ui) -> Result<Told> {
        let config = self.file(CONFIG, ui)?;
        let phase = if config.is_some() { Phase::Ready } else { Phase::Absent };
        // Somebody may have made another one since.
        let ours = config.is_some_and(|config| self.store.is_made(&config) != Some(false));
        Ok(Told { phase, run: self.store.made_by().filter(|_| ours), since: None, message: None })
    }

    /// As the nightly tests do: it is made each time. Whether an earlier one goes first is the host's business.
    fn create(&self, run: &str, ui: &Ui) -> Result<Told> {
        self.store.remember(run)?;
        let answered = self.work("create", self.connection.limits().create, ui)?;
        // Also if it made none: one that is there later is somebody's.
        if let Ok(config) = self.file(CONFIG, ui) {
            self.store.identify(run, &config.unwrap_or_default())?;
        }
        self.worked("create", &answered)?;
        self.status(ui)
    }

    fn delete(&self, run: Option<&str>, ui: &Ui) -> Result<bool> {
        let other = || Ok(self.file(CONFIG, ui)?.is_some_and(|config| self.store.is_made(&config) == Some(false)));
        if self.store.is_of_another(run) || (run.is_some() && other()?) {
            return Ok(false);
        }
        self.worked("delete", &self.work("delete", self.connection.limits().delete, ui)?)?;
        self.store.remove()?;
        Ok(true)
    }

    fn fetch(&self, ui: &Ui) -> Result<Sent> {
        let none = || {
            let what = format!("{} has no {}/config", self.connection.shown(), self.share);
            Error::new(Cause::ClusterUnreachable, what).next("make the cluster: cluster-install cluster create NAME")
        };
        Ok(Sent {
            kubeconfig: self.file(CONFIG, ui)?.ok_or_else(none)?,
            certificate: self.file("cert.pem", ui)?,
            login: self.file("config.json", ui)?,
        })
    }
}
