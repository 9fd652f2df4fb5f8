//! Before the upgrade: objects are made in a namespace of their own, and remembered when they have come to their end.

use std::{collections::BTreeMap, time::Duration};

use cluster::{
    Kind, Kinds, KubeContext,
    explain::Trouble,
    objects::Object,
    watch::{Target, watch},
};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kit::{
    Cause, Context, Error, Result, Ui,
    record::{ObjectKey, Remembered, Upgrade},
    source,
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions},
    runtime::wait::await_condition,
};
use serde_json::{Value, json};

use super::{
    Seen, mark,
    same::{self, State},
};
use crate::{place, plan::Plan, settings::patiently};

/// The label of our namespaces, beside the one that tests' namespaces have.
const LABEL: &str = "other-arch.dev/upgrade";
/// As Tekton's tests label theirs, so that `cleanup sweep` finds them.
const TESTS: &str = "tekton.dev/test-e2e";
/// How the API server knows what we write.
pub(super) const MANAGER: &str = "other-arch-upgrade";
/// More is no sample.
const OBJECTS: usize = 200;
/// A larger object is not remembered.
const SIZE: usize = 256 << 10;
/// How long the service account of a new namespace may take.
const ACCOUNT: Duration = Duration::from_secs(20);

/// An object that is to be made.
pub(super) struct Wanted {
    file: String,
    pub(super) object: Object,
    /// What it comes to by itself.
    pub(super) reach: Option<String>,
}

/// The objects of the component's manifests.
///
/// # Errors
/// [`Cause::Usage`] naming the file and what is wrong with it.
pub(super) fn wanted(plan: &Plan<'_>, ui: &Ui) -> Result<Vec<Wanted>> {
    let section = super::section(plan)?;
    let ours = |path: &String| path.strip_prefix("//").map(|path| plan.ci.resolve(path));
    let theirs = section.manifests.iter().any(|path| ours(path).is_none());
    let sources = theirs.then(|| source::checkout(&plan.ci, &plan.component, ui)).transpose()?;
    let sources = sources.map(|checkout| checkout.dir).unwrap_or_default();
    let places = section.manifests.iter().map(|path| ours(path).unwrap_or_else(|| sources.join(path)));
    let mut all = Vec::new();
    for (file, object) in place::manifests(places)? {
        let wrong = |why: &str| Err(Error::new(Cause::Usage, format!("{file}: {}: {why}", object.key)));
        if object.is("", "Secret") {
            return wrong("what Secrets hold is not remembered");
        }
        if !object.key.namespace.is_empty() {
            return wrong("it is made in a namespace of our own, so it must not name one");
        }
        let reach = section.reach.get(&object.key.kind).cloned();
        all.push(Wanted { file, object, reach });
    }
    if let Some((kind, _)) = section.reach.iter().find(|(kind, _)| all.iter().all(|one| one.object.key.kind != **kind))
    {
        return Err(Error::new(Cause::Usage, format!("no manifest of the upgrade has a {kind}, and 'reach' names it")));
    }
    if all.len() > OBJECTS {
        return Err(Error::new(Cause::Usage, format!("{} objects for an upgrade: more than {OBJECTS}", all.len())));
    }
    Ok(all)
}

/// Makes them in the namespace that `record` names, and remembers those that are as they should be.
///
/// # Errors
/// What is wrong with the manifests, or why there is no namespace; what becomes of an object is no error.
pub(super) async fn make(
    client: &Client,
    wanted: &[Wanted],
    record: &mut Upgrade,
    limit: Duration,
) -> Result<Vec<Seen>> {
    let kinds = patiently(|| Kinds::discover(client)).await?;
    let mut objects = Vec::new();
    for Wanted { file, object, reach } in wanted {
        let mut object = object.clone();
        object.key.namespace.clone_from(&record.namespace);
        let kind = kinds.place(&mut object, file)?;
        if !kind.namespaced {
            let what = format!("{file}: {}: it lies in no namespace, and would not go with ours", object.key);
            return Err(Error::new(Cause::Usage, what));
        }
        objects.push((object, kind, reach.as_deref()));
    }
    forget(client, &mark(record)).await?;
    record.namespace_uid = namespace(client, record).await?;
    let mut all = Vec::new();
    for (object, kind, _) in &objects {
        let mut seen = Seen::new(&object.key);
        match apply(client, kind, &object.key, &object.value).await {
            Ok(()) => seen.say("made"),
            Err(error) => seen.fail(error.cause, error.summary()),
        }
        all.push(seen);
    }
    let made = objects.iter().zip(&all).filter(|(_, seen)| seen.fault.is_none());
    let runs = made.filter_map(|((object, kind, reach), _)| Some((kind.clone(), object.key.name.clone(), (*reach)?)));
    let ends = settle(client, &record.namespace, &runs.collect::<Vec<_>>(), limit).await?;
    for ((object, kind, reach), seen) in objects.iter().zip(&mut all).filter(|(_, seen)| seen.fault.is_none()) {
        if let Some(what) = reach {
            match ends.get(&(object.key.kind.clone(), object.key.name.clone())) {
                Some((State::Reached, _)) => seen.say(format!("reached {what}")),
                end => seen.fail_waiting(format!("did not reach {what}: {}", why(end))),
            }
        }
        match remember(client, kind, object, *reach).await {
            Ok(one) => record.objects.push(one),
            Err(error) => seen.fail(error.cause, error.summary()),
        }
    }
    Ok(all)
}

/// Why an object is not where it should be.
pub(super) fn why(end: Option<&(State, Value)>) -> String {
    match end.map(|(state, _)| state) {
        Some(State::Ended(why)) => why.clone(),
        Some(State::Open(why)) => format!("{why}, and the time is over"),
        Some(State::Reached) | None => "it is gone".into(),
    }
}

/// Writes an object as its manifest has it.
pub(super) async fn apply(client: &Client, kind: &Kind, key: &ObjectKey, value: &Value) -> Result<()> {
    let api = kind.api(client, &key.namespace);
    let params = PatchParams::apply(MANAGER).force();
    let write =
        || async { api.patch(&key.name, &params, &Patch::Apply(value)).await.kube(|| format!("cannot make {key}")) };
    patiently(write).await.map(drop)
}

async fn remember(client: &Client, kind: &Kind, object: &Object, reach: Option<&str>) -> Result<Remembered> {
    let key = object.key.clone();
    let api = kind.api(client, &key.namespace);
    let read = patiently(|| async { api.get(&key.name).await.kube(|| format!("cannot read {key}")) }).await?;
    let uid = read.uid().unwrap_or_default();
    let read = as_value(&read)?;
    let (body, reached) = (same::body(&read), reach.map(|what| same::reached(&read, what, &object.value)));
    if body.to_string().len() > SIZE {
        return Err(Error::new(Cause::Usage, format!("{key} is larger than {} KiB", SIZE >> 10)));
    }
    Ok(Remembered { key, uid, body, reached })
}

pub(super) fn as_value(object: &DynamicObject) -> Result<Value> {
    serde_json::to_value(object).cause(Cause::Internal, || "cannot look at an object")
}

/// Makes the namespace, and waits for what its pods cannot be without; returns its UID.
async fn namespace(client: &Client, record: &Upgrade) -> Result<String> {
    let (name, all) = (&record.namespace, Api::<Namespace>::all(client.clone()));
    let labels = json!({TESTS: "true", LABEL: mark(record)});
    let namespace = serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}}));
    let namespace = namespace.cause(Cause::Internal, || "cannot describe the namespace")?;
    let made = all.create(&PostParams::default(), &namespace).await.kube(|| format!("cannot make namespace {name}"))?;
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), name);
    let there = await_condition(accounts, "default", |account: Option<&ServiceAccount>| account.is_some());
    // Who may not look goes on: whatever is missing shows in what becomes of the objects.
    let _ = tokio::time::timeout(ACCOUNT, there).await;
    Ok(made.uid().unwrap_or_default())
}

/// Asks the namespaces to go that this run has made for the same before.
async fn forget(client: &Client, mark: &str) -> Result<()> {
    let labelled = ListParams::default().labels(&format!("{LABEL}={mark}"));
    let all = Api::<Namespace>::all(client.clone());
    let found = all.list_metadata(&labelled).await.kube(|| "cannot list the namespaces of earlier attempts")?;
    for old in found.iter().filter(|old| old.labels().get(LABEL).is_some_and(|value| value == mark)) {
        remove(client, &old.name_any(), &old.uid().unwrap_or_default()).await?;
    }
    Ok(())
}

/// Asks a namespace to go, unless another one has its name by now. Nobody has to wait for it.
///
/// # Errors
/// As `cluster::cause_of` says.
pub(super) async fn remove(client: &Client, name: &str, uid: &str) -> Result<()> {
    let preconditions = Some(Preconditions { uid: Some(uid.to_owned()), resource_version: None });
    let params = DeleteParams { preconditions, ..DeleteParams::default() };
    match Api::<Namespace>::all(client.clone()).delete(name, &params).await {
        Err(kube::Error::Api(status)) if [404, 409].contains(&status.code) => Ok(()),
        done => done.map(drop).kube(|| format!("cannot remove namespace {name}")),
    }
}

/// What became of objects, by kind and name: how far they came, and what they are.
pub(super) type Ends = BTreeMap<(String, String), (State, Value)>;

/// Waits by watch until each of these objects of a namespace has come to its end; those that are not there have none.
///
/// # Errors
/// Why they could not be seen at all.
pub(super) async fn settle(
    client: &Client,
    namespace: &str,
    runs: &[(Kind, String, &str)],
    limit: Duration,
) -> Result<Ends> {
    let mut kinds: Vec<&Kind> = Vec::new();
    for (kind, _, _) in runs {
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    let target = |kind: &&Kind| Target { kind: (*kind).clone(), namespace: namespace.into(), fields: String::new() };
    let (mut view, mut changes) = watch(client, &kinds.iter().map(target).collect::<Vec<_>>());
    let mut ends = Ends::new();
    let wait = async {
        let is_open = |(state, _): &(State, Value)| matches!(state, State::Open(_));
        // What a complete list lacks is gone, and does not come back.
        while !view.complete() || ends.values().any(is_open) {
            let Some(change) = changes.next().await else { break };
            view.take(change);
            if view.unseen().is_some_and(|trouble| !trouble.heals) {
                break;
            }
            ends.clear();
            for (kind, name, what) in runs {
                let kind = &kind.resource.kind;
                let Some(object) = view.get(kind, namespace, name) else { continue };
                let Ok(object) = as_value(object) else { continue };
                ends.insert((kind.clone(), name.clone()), (same::state(&object, what), object));
            }
        }
    };
    // What is open when the time is over is said to be so.
    let _ = tokio::time::timeout(limit, wait).await;
    if view.complete() {
        return Ok(ends);
    }
    let silent = || Trouble::new(Cause::Apiserver, "the API server has not listed what was made");
    let trouble = view.unseen().cloned().unwrap_or_else(silent);
    Err(Error::new(trouble.cause, trouble.line))
}
