//! What the cluster held while tests ran: kept as it happens, for tests clean up behind themselves before anybody
//! knows that they have failed. In the end what belongs to tests that failed is written down, and the rest forgotten.
//!
//! Namespaces that came while tests ran are the tests'. Of those, pods, events and objects of custom kinds are kept as
//! they were last seen, and the log of each container as soon as it ends or its pod is being deleted. Secrets are
//! never looked at.

mod held;
mod logs;
mod owner;
mod write;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use cluster::{
    Kind, Kinds, KubeContext,
    explain::{self, Context as About},
    watch::{Target, watch},
};
use futures::StreamExt;
use k8s_openapi::{
    api::core::v1::{Event, Namespace},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kit::{
    Cause, Platform, Result, Ui,
    record::{Collected, Status},
};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, GroupVersionKind, ListParams},
};
use tokio::task::JoinHandle;

use crate::{cause, home::Home, parse::event::top, report::Row};
use held::Held;
use logs::Logs;
use owner::Owners;

/// Custom kinds that are watched, at most.
const KINDS: usize = 60;
/// How long collecting may take when the tests have ended.
const LIMIT: Duration = Duration::from_secs(90);
/// Failures for which it is written down.
const FAILURES: usize = 25;

/// What is kept while tests run.
pub struct Evidence {
    client: Client,
    /// The component's own namespace.
    namespace: Option<String>,
    platform: Platform,
    held: Arc<Mutex<Held>>,
    logs: Logs,
    task: JoinHandle<()>,
}

impl Evidence {
    /// Begins, on the present tokio runtime, before the first test. The namespace `known` is the tests' although it is
    /// there already.
    ///
    /// # Errors
    /// As `cluster::cause_of` says.
    pub async fn start(
        client: &Client,
        namespace: Option<&str>,
        known: Option<&str>,
        platform: &Platform,
        ui: &Ui,
    ) -> Result<Self> {
        let before = Api::<Namespace>::all(client.clone()).list_metadata(&ListParams::default()).await;
        let before = before.kube(|| "cannot list the namespaces")?;
        let before: BTreeSet<_> =
            before.iter().map(ResourceExt::name_any).filter(|name| Some(name.as_str()) != known).collect();
        let mut targets: Vec<_> = ["Namespace", "Pod", "Event"].into_iter().map(core).collect();
        match custom(client).await {
            Ok(kinds) => targets.extend(kinds),
            // Without them there is less to see, and the tests run all the same.
            Err(error) => ui.warn(format!("no objects of custom kinds are kept of failures: {}", error.summary())),
        }
        let names: Vec<_> = targets.iter().map(|target| target.kind.resource.kind.clone()).collect();
        let held = Arc::new(Mutex::new(Held::new(before, namespace, names)));
        let logs = Logs::new(client.clone(), Arc::clone(&held))?;
        let (_, mut changes) = watch(client, &targets);
        let (keep, fetch) = (Arc::clone(&held), logs.clone());
        let task = tokio::spawn(async move {
            while let Some((index, change)) = changes.next().await {
                // After a fault of the connection it goes on by itself.
                let Ok(change) = change else { continue };
                let ended = keep.lock().unwrap_or_else(PoisonError::into_inner).take(index, change);
                ended.into_iter().for_each(|container| fetch.fetch(container));
            }
        });
        Ok(Self {
            client: client.clone(),
            namespace: namespace.map(String::from),
            platform: platform.clone(),
            held,
            logs,
            task,
        })
    }

    /// Whose the namespaces are; logs are read meanwhile, so nobody waits for what is held.
    fn owners(&self, rows: &[Row], logs: &Path) -> Owners {
        let spaces: Vec<_> = self.held(|held| held.namespaces().collect());
        Owners::find(&spaces, rows, logs)
    }

    fn held<T>(&self, look: impl FnOnce(&Held) -> T) -> T {
        look(&self.held.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Gives failures the cause that the pods of their namespaces show, where the tests' own words show none: a pod
    /// that could not get its image says so in its state, and its test only that it waited in vain.
    pub fn judge(&self, rows: &mut [Row], logs: &Path) {
        if !rows.iter().any(is_failure) && !self.held(Held::is_crowded) {
            return;
        }
        let owners = self.owners(rows, logs);
        self.held.lock().unwrap_or_else(PoisonError::into_inner).passed(owners.passed());
        for row in rows.iter_mut().filter(|row| is_open(row)) {
            let named = owners.of(top(&row.test.name), true);
            let found = self.held(|held| named.iter().find_map(|namespace| self.trouble(held, namespace)));
            if let Some((cause, line)) = found {
                (row.test.cause, row.test.line) = (Some(cause), Some(line));
            }
        }
    }

    /// What keeps a pod of a namespace from running that no test is to blame for.
    fn trouble(&self, held: &Held, namespace: &str) -> Option<(Cause, String)> {
        let events: Vec<Event> = held.events(namespace);
        held.pods(namespace).iter().find_map(|pod| {
            let about = About { events: &events, logs: &[], platform: Some(&self.platform), nodes: &[] };
            let trouble = explain::pod(pod, about)?;
            cause::pods::decides(&trouble).then(|| (trouble.cause, format!("pod {namespace}/{}", trouble.line)))
        })
    }

    /// Ends, and writes down what belongs to failures.
    pub async fn finish(self, rows: &mut [Row], home: &Home, ui: &Ui) -> Option<Collected> {
        let to = home.evidence();
        let prefix = to.strip_prefix(home.folder()).unwrap_or(&to).to_path_buf();
        // What an earlier attempt at this cell has left would be taken for this one's.
        if to.exists()
            && let Err(error) = std::fs::remove_dir_all(&to)
        {
            ui.warn(format!("cannot remove what an earlier attempt left in {}: {error}", to.display()));
        }
        let failed: Vec<usize> = (0..rows.len()).filter(|index| is_failure(&rows[*index])).collect();
        if failed.is_empty() {
            self.task.abort();
            return None;
        }
        let owners = self.owners(rows, &home.logs());
        let deadline = tokio::time::Instant::now() + LIMIT;
        let collect = async {
            let wanted = failed.iter().flat_map(|index| owners.of(&rows[*index].test.name, false));
            let still: Vec<_> = wanted.flat_map(|namespace| self.held(|held| held.running(&namespace))).collect();
            still.into_iter().for_each(|container| self.logs.fetch(container));
            self.logs.settle().await;
            match &self.namespace {
                Some(namespace) => Some(logs::Controllers::find(&self.client, namespace).await),
                None => None,
            }
        };
        let collected = tokio::time::timeout_at(deadline, collect).await;
        self.task.abort();
        let mut late = collected.is_err();
        let mut containers = collected.ok().flatten();
        let mut writer = write::Writer::new(&to);
        writer.cuts(self.held(Held::cuts));
        writer.cuts(self.logs.cuts());
        if failed.len() > FAILURES {
            writer.cut(format!("only the first {FAILURES} of {} failures have evidence", failed.len()));
        }
        for index in failed.into_iter().take(FAILURES) {
            let name = rows[index].test.name.clone();
            let spaces = owners.of(&name, false);
            // One failure after the other: together they may be more than fits in memory.
            let mut controllers = Vec::new();
            if let (Some(containers), Some(ran)) = (&mut containers, rows[index].ran) {
                let (from, to) = write::window(ran);
                let said = tokio::time::timeout_at(deadline, containers.between(from, to)).await;
                late |= said.is_err();
                controllers = said.unwrap_or_default();
            }
            let about = write::About {
                row: &rows[index],
                owners: &owners,
                namespaces: &spaces,
                component: self.namespace.as_deref(),
                controllers: &controllers,
                platform: &self.platform,
            };
            let written = self.held(|held| writer.test(&about, held, &self.logs));
            match written {
                Ok(folder) => {
                    let path = prefix.join(folder).display().to_string();
                    let same = |row: &&mut Row| top(&row.test.name) == name && bad(row);
                    rows.iter_mut().filter(same).for_each(|row| row.test.evidence = Some(path.clone()));
                }
                Err(error) => writer.cut(format!("{name}: {}", error.summary())),
            }
        }
        if late {
            writer.cut(format!("collecting took longer than {} s: logs may be missing", LIMIT.as_secs()));
        }
        writer.cuts(containers.map(|containers| containers.cuts).unwrap_or_default());
        let collected = writer.finish();
        for cut in &collected.cut {
            ui.warn(format!("evidence: {cut}"));
        }
        Some(collected)
    }
}

fn bad(row: &Row) -> bool {
    matches!(row.test.status, Status::Failed | Status::Flaky | Status::NotRun)
}

/// A top-level test that ran, and did not come to a good end at once.
fn is_failure(row: &Row) -> bool {
    bad(row) && row.ran.is_some() && top(&row.test.name) == row.test.name && row.test.name != crate::report::PACKAGE
}

/// A failure whose cause is not known yet, or is the component's for want of another: no pod makes a program crash.
fn is_open(row: &Row) -> bool {
    let crashed = row.test.line.as_deref().is_some_and(cause::is_crash);
    let open = matches!(row.test.cause, Some(Cause::Product | Cause::Unclassified)) && !crashed;
    row.test.status == Status::Failed && open
}

fn core(kind: &str) -> Target {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", kind));
    Target { kind: Kind { resource, namespaced: kind != "Namespace" }, namespace: String::new(), fields: String::new() }
}

/// The custom kinds that lie in namespaces, each in the version that it is stored in.
async fn custom(client: &Client) -> Result<Vec<Target>> {
    let definitions = Api::<CustomResourceDefinition>::all(client.clone()).list(&ListParams::default()).await;
    let definitions = definitions.kube(|| "cannot list the custom kinds")?;
    let mut kinds = Kinds::default();
    let objects: Vec<_> = definitions.iter().filter_map(as_object).collect();
    kinds.learn(&objects);
    let stored = definitions.iter().filter_map(|definition| {
        let spec = &definition.spec;
        let version = spec.versions.iter().find(|version| version.storage)?;
        kinds.get(&format!("{}/{}", spec.group, version.name), &spec.names.kind).filter(|kind| kind.namespaced)
    });
    let target = |kind: &Kind| Target { kind: kind.clone(), namespace: String::new(), fields: String::new() };
    Ok(stored.take(KINDS).map(target).collect())
}

fn as_object(definition: &CustomResourceDefinition) -> Option<cluster::objects::Object> {
    let mut value = serde_json::to_value(definition).ok()?;
    value["apiVersion"] = "apiextensions.k8s.io/v1".into();
    value["kind"] = "CustomResourceDefinition".into();
    let key = kit::record::ObjectKey {
        api_version: "apiextensions.k8s.io/v1".into(),
        kind: "CustomResourceDefinition".into(),
        namespace: String::new(),
        name: definition.name_any(),
    };
    Some(cluster::objects::Object { key, value })
}

/// A file name of parts that anybody may have chosen.
fn file_name(parts: &[&str]) -> PathBuf {
    kit::rundir::slug(&parts.join("_")).into()
}
