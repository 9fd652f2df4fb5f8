//! What is known of a cluster, and how it is shown. What it is made of is a record, for all who read the JSON.

use cluster::Options;
pub(super) use kit::record::{ClusterHost as HostSeen, ClusterPhase as Phase, ClusterSeen as Seen};
use kit::{
    Output, Result, Ui,
    ci::{Cluster, Provider},
    record::{ClusterState, SCHEMA_VERSION},
};

use super::store::Kept;

/// A cluster, as far as it is known.
pub(super) struct State {
    pub(super) known: ClusterState,
    options: Options,
}

impl State {
    /// What its description says.
    pub(super) fn of(entry: &Cluster) -> Self {
        let known = ClusterState {
            schema_version: SCHEMA_VERSION.into(),
            name: entry.name.clone().unwrap_or_default(),
            provider: entry.provider().as_ref().map_or("", Provider::name).into(),
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
        };
        Self { known, options: Options::default() }
    }

    /// Notes where what was fetched lies.
    pub(super) fn place(&mut self, kept: Kept) {
        self.options = kept.options();
        let known = &mut self.known;
        known.arguments = self.options.arguments();
        known.kubeconfig = Some(kept.kubeconfig);
        (known.registry_certificate, known.registry_login) = (kept.certificate, kept.login);
    }

    /// The cluster, as tools open it.
    pub(super) fn options(&self) -> Options {
        self.options.clone()
    }

    pub(super) fn show(&self, ui: &Ui) -> Result<()> {
        match ui.output {
            Output::Json => ui.json(&self.known),
            Output::Text => ui.result(&kit::ui::printable(&kit::ui::table(&self.rows()))),
        }
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let known = &self.known;
        let mut rows = Vec::new();
        let mut row = |name: &str, value: String| rows.push(vec![name.to_owned(), value]);
        row("cluster", format!("{} (by {}, owner {})", known.name, known.provider, known.owner));
        if let Some(host) = &known.seen.host {
            let words = [&host.machine, &host.implementation, &host.kubernetes];
            let words: Vec<_> = words.into_iter().flatten().map(String::as_str).collect();
            let there = if host.reachable { "is there" } else { "cannot be used" };
            row("host", format!("{} {there}  {}", host.address, words.join(", ")).trim_end().to_owned());
        }
        let run = known.seen.run.iter().map(|run| format!(", made by run {run}"));
        let since = known.seen.since.iter().map(|since| format!(", since {since}"));
        row("state", format!("{}{}", known.seen.phase.word(), run.chain(since).collect::<String>()));
        if let Some(cluster) = &known.cluster {
            row("kubernetes", format!("{}, UID {}", cluster.kubernetes, cluster.uid));
            for node in &cluster.nodes {
                let ready = if node.ready { "ready" } else { "takes no pods" };
                row("node", format!("{} ({}, {ready})", node.name, node.platform));
            }
        }
        let files = [("kubeconfig", &known.kubeconfig), ("certificate", &known.registry_certificate)];
        for (name, path) in files.into_iter().chain([("login", &known.registry_login)]) {
            if let Some(path) = path {
                row(name, path.display().to_string());
            }
        }
        if !known.arguments.is_empty() {
            row("options", known.arguments.join(" "));
        }
        rows
    }
}
