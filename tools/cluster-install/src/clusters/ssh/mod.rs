//! `ssh`: a host makes the cluster. What it is asked and what it answers is the contract (`ci/hosts/CONTRACT.md`), or
//! what the hosts of today have instead.

mod connection;
mod contract;
mod faults;
mod k8smanager;
mod keys;

use kit::{
    Cause, Error, Result, Ui,
    ci::{Cluster, Ssh},
};

use super::{
    Access, Phase, Provider, Seen, Store,
    access::{self, Fetched},
    state::HostSeen,
};
use connection::Connection;

/// What a host sends so that its cluster can be used, as it sends it.
struct Sent {
    kubeconfig: String,
    certificate: Option<String>,
    login: Option<String>,
}

/// What a host says of a cluster.
struct Told {
    phase: Phase,
    run: Option<String>,
    since: Option<String>,
    message: Option<String>,
}

/// What a host can be asked, whichever language it speaks.
trait Speaker {
    /// Whether it is there; no cluster has a part in that.
    fn host(&self, host: &mut HostSeen, ui: &Ui) -> Result<()>;
    fn status(&self, ui: &Ui) -> Result<Told>;
    fn create(&self, run: &str, ui: &Ui) -> Result<Told>;
    fn delete(&self, run: Option<&str>, ui: &Ui) -> Result<bool>;
    fn fetch(&self, ui: &Ui) -> Result<Sent>;
}

/// A host and the cluster that it makes.
pub(super) struct Host {
    name: String,
    address: String,
    machine: Option<&'static str>,
    api_server: Option<String>,
    speaker: Box<dyn Speaker>,
}

impl Host {
    pub(super) fn new(entry: &Cluster, store: &Store) -> Result<Self> {
        let name = store.name();
        let wrong = || Error::new(Cause::Internal, format!("'{name}' has no host"));
        let ssh: &Ssh = entry.ssh.as_ref().ok_or_else(wrong)?;
        let connection = Connection::new(name, &entry.owner, ssh)?;
        let speaker: Box<dyn Speaker> = match ssh.share(entry.platform.as_ref()) {
            Some(share) => Box::new(k8smanager::K8sManager::new(connection, share, Store::new(name)?)),
            None => Box::new(contract::Contract::new(connection, &ssh.command)),
        };
        let row = entry.platform.as_ref().map(kit::Platform::row).transpose()?;
        Ok(Self {
            name: name.into(),
            address: format!("{}:{}", ssh.host, ssh.port),
            machine: row.map(|row| row.uname),
            api_server: ssh.api_server.clone(),
            speaker,
        })
    }

    /// Asks whether the host is there and the machine that is meant, before anything that takes long.
    fn greet(&self, seen: &mut HostSeen, ui: &Ui) -> Result<()> {
        self.address.clone_into(&mut seen.address);
        self.speaker.host(seen, ui)?;
        seen.reachable = true;
        match (self.machine, seen.machine.as_deref()) {
            (Some(wanted), Some(found)) if wanted != found => {
                let what = format!(
                    "{} is a machine of {found}, and cluster {} is described as {wanted}",
                    self.address, self.name
                );
                Err(Error::new(Cause::Usage, what).next("put platform or host right in ci/architectures.toml"))
            }
            _ => Ok(()),
        }
    }
}

impl Provider for Host {
    fn create(&self, run: &str, ui: &Ui) -> Result<bool> {
        self.greet(&mut HostSeen::default(), ui)?;
        let told = self.speaker.create(run, ui)?;
        if told.phase == Phase::Ready {
            return Ok(told.run.as_deref() == Some(run));
        }
        let what = format!("{} says that it made cluster {}, which is {}", self.address, self.name, told.phase.word());
        Err(told.message.into_iter().fold(Error::new(Cause::ClusterUnreachable, what), Error::line))
    }

    fn delete(&self, run: Option<&str>, ui: &Ui) -> Result<bool> {
        self.speaker.delete(run, ui)
    }

    fn look(&self, seen: &mut Seen, ui: &Ui) -> Result<()> {
        self.greet(seen.host.get_or_insert_default(), ui)?;
        let told = self.speaker.status(ui)?;
        (seen.phase, seen.run, seen.since, seen.host_message) = (told.phase, told.run, told.since, told.message);
        Ok(())
    }

    fn access(&self, ui: &Ui) -> Result<Access> {
        let sent = self.speaker.fetch(ui)?;
        let kubeconfig = access::adopt(&sent.kubeconfig, &self.name, self.api_server.as_deref(), Cause::Ssh)?;
        let certificate = sent.certificate.map(|text| access::certificate(&text, Cause::Ssh)).transpose()?;
        let login = sent.login.map(|text| access::login(&text, Cause::Ssh)).transpose()?;
        Ok(Access::Files(Box::new(Fetched { kubeconfig, certificate, login })))
    }
}
