//! `install.json`: written in any case, also when the installation failed or was interrupted.

use std::{collections::BTreeMap, path::Path};

use jiff::Timestamp;
use kit::{
    Error, Platform, Result, RunDir,
    process::quote,
    record::{ClusterId, Head, Input, Install, Nature, ObjectKey, RunningImage},
    rundir::write_record,
};

use crate::{
    apply::{Applied, Counts},
    extras::Changes,
    probe,
};

/// What is known of an installation so far.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    pub(crate) started: Timestamp,
    pub(crate) component: String,
    pub(crate) version: String,
    pub(crate) release: String,
    pub(crate) platform: Option<Platform>,
    pub(crate) nature: Nature,
    pub(crate) cluster: Option<ClusterId>,
    pub(crate) objects: usize,
    pub(crate) applied: Applied,
    pub(crate) pruned: Vec<ObjectKey>,
    pub(crate) changes: Changes,
    pub(crate) namespaces: Vec<String>,
    pub(crate) node_selector: BTreeMap<String, String>,
    pub(crate) slowdown: Option<f64>,
    pub(crate) patient_probes: usize,
    pub(crate) unchecked: bool,
    pub(crate) running: Vec<RunningImage>,
    pub(crate) inputs: Vec<Input>,
}

impl Progress {
    pub(crate) fn new(component: &str, platform: Option<&Platform>) -> Self {
        Self {
            started: Timestamp::now(),
            component: component.to_owned(),
            version: String::new(),
            release: String::new(),
            platform: platform.cloned(),
            nature: Nature::Unknown,
            cluster: None,
            objects: 0,
            applied: Applied::default(),
            pruned: Vec::new(),
            changes: Changes::default(),
            namespaces: Vec::new(),
            node_selector: BTreeMap::new(),
            slowdown: None,
            patient_probes: 0,
            unchecked: false,
            running: Vec::new(),
            inputs: Vec::new(),
        }
    }

    /// Writes the record; nothing if it is not known where it belongs. `cluster` names the cluster if it
    /// could not be opened.
    pub(crate) fn write(
        self,
        run: &RunDir,
        cluster: Option<String>,
        result: Result<(), &Error>,
    ) -> Result<Option<(Install, String)>> {
        let unopened = |name| ClusterId { uid: String::new(), name, kubernetes: String::new(), nodes: Vec::new() };
        let Some((platform, cluster)) = self.platform.zip(self.cluster.or(cluster.map(unopened))) else {
            return Ok(None);
        };
        let mut head = Head::new("cluster-install", env!("CARGO_PKG_VERSION"), &run.id(), self.started);
        head.inputs = self.inputs;
        if let Err(error) = result {
            head = head.failed(error).reproduce(reproduce());
        }
        let folder = run.cell(&self.component, &platform, &cluster.name);
        let record = Install {
            head,
            component: self.component,
            version: self.version,
            release: self.release,
            platform,
            nature: self.nature,
            cluster,
            objects: self.objects,
            changed: self.applied.counts.different(),
            namespaces: self.namespaces,
            node_selector: self.node_selector,
            slowdown: self.slowdown,
            patient_probes: self.patient_probes,
            unchecked: self.unchecked,
            flags: self.changes.flags,
            settings: self.changes.settings,
            registries: self.changes.registries.into_iter().map(|rewrite| (rewrite.from, rewrite.to)).collect(),
            applied: self.applied.objects,
            pruned: self.pruned,
            running: self.running,
        };
        let digest = write_record(&folder, &record)?;
        Ok(Some((record, digest)))
    }
}

/// The command that does the same again.
fn reproduce() -> String {
    let words = std::env::args().skip(1).map(|word| quote(&word));
    std::iter::once("cargo xtask cluster-install".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

/// What people see at the end.
pub(crate) fn table(record: &Install, counts: &Counts, folder: &Path) -> String {
    let pruned = match record.pruned.len() {
        0 => String::new(),
        count => format!(", {count} of an earlier version removed"),
    };
    let flags = record.flags.as_ref().map_or_else(String::new, |flags| format!("\nflags: {flags}"));
    let values = record.settings.iter().map(|set| format!("\nset: {} {}={}", set.config_map, set.key, set.value));
    let changes = flags + &values.collect::<String>();
    let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
    let mut rows = vec![row(&["CONTAINER", "IMAGE", "DIGEST"])];
    for running in &record.running {
        let image = running.image.split('@').next().unwrap_or_default();
        rows.push(row(&[&running.container, image, &running.digest]));
    }
    let cluster = &record.cluster;
    format!(
        "{} {} runs on {} (Kubernetes {}, {}, {}{})\n{} objects: {} created, {} changed, {} as they were{pruned}; {} namespaces: {}{changes}\n\n{}\n{}",
        record.component,
        record.version,
        cluster.name,
        cluster.kubernetes,
        record.platform,
        record.nature.name(),
        record.slowdown.map_or_else(String::new, |slowdown| format!(", {}", probe::times(slowdown))),
        record.objects,
        counts.created,
        counts.changed,
        counts.unchanged,
        record.namespaces.len(),
        record.namespaces.join(", "),
        kit::ui::table(&rows),
        folder.join("install.json").display(),
    )
}
