//! What is known of a cluster: what the verbs print, as JSON and for people.

use std::path::PathBuf;

use cluster::Options;
use kit::{
    Cause, Output, Platform, Result, Ui,
    ci::{Cluster, Provider},
    record::{ClusterId, SCHEMA_VERSION},
};
use serde::{Deserialize, Serialize};

use super::store::Kept;

/// How far a cluster has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Phase {
    /// There is none.
    Absent,
    /// Somebody is making it.
    Creating,
    /// It is there.
    Ready,
    /// Making or removing it did not come to its end.
    Broken,
    /// Somebody is removing it.
    Deleting,
    /// Nobody could tell.
    #[default]
    #[serde(other)]
    Unknown,
}

impl Phase {
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Absent => "not there",
            Self::Creating => "being made",
            Self::Ready => "there",
            Self::Broken => "broken",
            Self::Deleting => "being removed",
            Self::Unknown => "in no state that is known",
        }
    }
}

/// What a provider sees without asking the cluster itself.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Seen {
    /// The host, if a host makes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) host: Option<HostSeen>,
    /// How far it is.
    #[serde(rename = "state")]
    pub(super) phase: Phase,
    /// Which run made it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) run: Option<String>,
    /// Since when it is so, as the host says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) since: Option<String>,
    /// What the host says of it.
    #[serde(skip)]
    pub(super) message: Option<String>,
}

/// Whether a host is there; its cluster has no part in that.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct HostSeen {
    /// Name and port.
    pub(super) address: String,
    /// Whether it let us in and answered.
    pub(super) reachable: bool,
    /// Its machine, as `uname -m` says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) machine: Option<String>,
    /// What makes clusters there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) implementation: Option<String>,
    /// The Kubernetes that it would make.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kubernetes: Option<String>,
}

/// A cluster, as far as it is known.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct State {
    schema_version: &'static str,
    pub(super) name: String,
    pub(super) provider: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) platform: Option<Platform>,
    pub(super) owner: String,
    #[serde(flatten)]
    pub(super) seen: Seen,
    /// Of `create`: whether this run made it, so that its caller knows whose it is to remove.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) created: Option<bool>,
    /// Of `delete`: whether there was something to remove.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) deleted: Option<bool>,
    /// The cluster's own answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cluster: Option<ClusterId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) kubeconfig: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) registry_certificate: Option<PathBuf>,
    /// A file as Docker has it, in a folder that `DOCKER_CONFIG` can name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) registry_login: Option<PathBuf>,
    /// How every tool is told which cluster it is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) arguments: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cause: Option<Cause>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) message: Option<String>,
    #[serde(skip)]
    options: Options,
}

impl State {
    /// What its description says.
    pub(super) fn of(entry: &Cluster) -> Self {
        Self {
            schema_version: SCHEMA_VERSION,
            name: entry.name.clone().unwrap_or_default(),
            provider: entry.provider().as_ref().map_or("", Provider::name),
            platform: entry.platform.clone(),
            owner: entry.owner.clone(),
            seen: Seen::default(),
            created: None,
            deleted: None,
            cluster: None,
            kubeconfig: None,
            registry_certificate: None,
            registry_login: None,
            arguments: Vec::new(),
            cause: None,
            message: None,
            options: Options::default(),
        }
    }

    /// Notes where what was fetched lies.
    pub(super) fn place(&mut self, kept: Kept) {
        self.options = kept.options();
        self.arguments = self.options.arguments();
        self.kubeconfig = Some(kept.kubeconfig);
        (self.registry_certificate, self.registry_login) = (kept.certificate, kept.login);
    }

    /// The cluster, as tools open it.
    pub(super) fn options(&self) -> Options {
        self.options.clone()
    }

    pub(super) fn show(&self, ui: &Ui) -> Result<()> {
        match ui.output {
            Output::Json => ui.json(self),
            Output::Text => ui.result(&kit::ui::printable(&kit::ui::table(&self.rows()))),
        }
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let mut rows = Vec::new();
        let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
        row("cluster", format!("{} (by {}, owner {})", self.name, self.provider, self.owner));
        if let Some(host) = &self.seen.host {
            let words = [&host.machine, &host.implementation, &host.kubernetes];
            let words: Vec<_> = words.into_iter().flatten().map(String::as_str).collect();
            let there = if host.reachable { "is there" } else { "cannot be used" };
            row("host", format!("{} {there}  {}", host.address, words.join(", ")).trim_end().to_owned());
        }
        let run = self.seen.run.iter().map(|run| format!(", made by run {run}"));
        let since = self.seen.since.iter().map(|since| format!(", since {since}"));
        row("state", format!("{}{}", self.seen.phase.word(), run.chain(since).collect::<String>()));
        if let Some(cluster) = &self.cluster {
            row("kubernetes", format!("{}, UID {}", cluster.kubernetes, cluster.uid));
            for node in &cluster.nodes {
                let ready = if node.ready { "ready" } else { "takes no pods" };
                row("node", format!("{} ({}, {ready})", node.name, node.platform));
            }
        }
        let files = [("kubeconfig", &self.kubeconfig), ("certificate", &self.registry_certificate)];
        for (name, path) in files.into_iter().chain([("login", &self.registry_login)]) {
            if let Some(path) = path {
                row(name, path.display().to_string());
            }
        }
        if !self.arguments.is_empty() {
            row("options", self.arguments.join(" "));
        }
        rows
    }
}
