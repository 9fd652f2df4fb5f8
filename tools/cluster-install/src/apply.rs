//! Sending objects: server-side apply, many at the same time, and what came of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use cluster::{FIELD_MANAGER, Kind, KubeContext, cause_of, fail, inventory::Sent, objects::Object, watch};
use futures::{StreamExt, TryStreamExt, stream};
use kit::{
    Cause, Error, Result, Ui, digest,
    record::{AppliedObject, Change, ObjectKey},
    retry,
};
use kube::{
    Client, ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::Value;

/// Requests at the same time: enough to hide a slow line, few enough for the API server's flow control.
pub(crate) const PARALLEL: usize = 16;
/// How long an object is tried again while the API server or a webhook is not there.
const PATIENCE: Duration = Duration::from_secs(60);

/// An object with the way to reach it.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub(crate) object: Object,
    pub(crate) kind: Kind,
}

/// The versions of objects that were there before, by place: what tells a change from none.
pub(crate) type Versions = BTreeMap<ObjectKey, String>;

/// What was there before, and what of it came from us.
#[derive(Debug, Clone, Default)]
pub(crate) struct Before {
    pub(crate) versions: Versions,
    /// What the last installation sent, and the versions that came of it.
    pub(crate) sent: Sent,
}

impl Before {
    /// Whether sending the object again would change nothing: it is what was sent, and nobody has written it since.
    fn is_settled(&self, object: &Object, version: &str) -> bool {
        let sent = self.sent.get(&object.key.to_string());
        sent.is_some_and(|(digest, then)| then == version && *digest == digest_of(object))
    }
}

fn digest_of(object: &Object) -> String {
    digest::sha256(object.value.to_string().as_bytes())
}

/// What applying has come to so far.
#[derive(Debug, Clone, Default)]
pub(crate) struct Applied {
    pub(crate) counts: Counts,
    /// What was created or changed.
    pub(crate) objects: Vec<AppliedObject>,
    /// What was sent, for the next installation.
    pub(crate) sent: Sent,
}

impl Applied {
    /// What was written before it failed, in words; nothing if nothing was.
    pub(crate) fn words(&self) -> Option<String> {
        const SHOWN: usize = 8;
        let names: Vec<_> = self.objects.iter().take(SHOWN).map(|object| object.key.to_string()).collect();
        let more = self.objects.len().checked_sub(SHOWN).filter(|more| *more > 0);
        let more = more.map_or_else(String::new, |more| format!(", and {more} more"));
        (!names.is_empty()).then(|| format!("{} objects were applied: {}{more}", self.objects.len(), names.join(", ")))
    }

    fn add(&mut self, object: &Object, before: Option<&String>, now: String) {
        let change = match before {
            None => {
                self.counts.created += 1;
                Some(Change::Created)
            }
            Some(before) if *before == now => {
                self.counts.unchanged += 1;
                None
            }
            Some(_) => {
                self.counts.changed += 1;
                Some(Change::Changed)
            }
        };
        self.objects.extend(change.map(|change| AppliedObject { key: object.key.clone(), change }));
        // The digest of a secret might be guessed from.
        if object.key.kind != "Secret" {
            self.sent.insert(object.key.to_string(), (digest_of(object), now));
        }
    }
}

/// What applying came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) created: usize,
    pub(crate) changed: usize,
    pub(crate) unchanged: usize,
}

impl Counts {
    /// All objects that were looked at.
    pub(crate) fn all(&self) -> usize {
        self.different() + self.unchanged
    }

    /// Objects that were not there before, or changed.
    pub(crate) fn different(&self) -> usize {
        self.created + self.changed
    }
}

/// Reads the versions of what is there of `placed`, once what an earlier installation left has ended
/// that is being deleted.
pub(crate) async fn versions(client: &Client, placed: &[Placed], ui: &Ui) -> Result<Versions> {
    let (versions, going) = list(client, placed).await?;
    if going.is_empty() {
        return Ok(versions);
    }
    let step = ui.step(format!("waiting for the end of {} objects of an earlier installation", going.len()));
    let waits = placed.iter().filter(|item| going.contains(&item.object.key)).map(|item| {
        let key = &item.object.key;
        watch::gone(item.kind.api(client, &key.namespace), key, PATIENCE)
    });
    stream::iter(waits).buffer_unordered(PARALLEL).try_collect::<()>().await?;
    step.done("");
    list(client, placed).await.map(|(versions, _)| versions)
}

/// One list for each kind and namespace; the keys are of what is being deleted.
async fn list(client: &Client, placed: &[Placed]) -> Result<(Versions, BTreeSet<ObjectKey>)> {
    let mut groups: BTreeMap<(String, String, String), (&Kind, BTreeSet<&str>)> = BTreeMap::new();
    for item in placed {
        let key = &item.object.key;
        let group = (key.api_version.clone(), key.kind.clone(), key.namespace.clone());
        groups.entry(group).or_insert_with(|| (&item.kind, BTreeSet::new())).1.insert(&key.name);
    }
    let lists = groups.into_iter().map(|((api_version, kind, namespace), (found, names))| async move {
        let api = found.api(client, &namespace);
        let what = || format!("cannot list {kind} of {api_version}");
        // Of one object among many others only that one is asked for.
        let params = match names.iter().next() {
            Some(name) if names.len() == 1 => ListParams::default().fields(&format!("metadata.name={name}")),
            _ => ListParams::default(),
        };
        let listed = match patiently(is_away, || api.list_metadata(&params)).await {
            // A kind that the release itself defines, before its definition is there.
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(Vec::new()),
            listed => listed.kube(what)?,
        };
        let ours = listed.into_iter().filter(|object| names.contains(object.name_any().as_str()));
        let found = ours.map(|object| {
            let (name, version) = (object.name_any(), object.resource_version().unwrap_or_default());
            let (api_version, kind, namespace) = (api_version.clone(), kind.clone(), namespace.clone());
            (ObjectKey { api_version, kind, namespace, name }, version, object.metadata.deletion_timestamp.is_some())
        });
        Ok::<Vec<_>, Error>(found.collect())
    });
    let lists: Vec<Vec<_>> = stream::iter(lists).buffer_unordered(PARALLEL).try_collect().await?;
    let found: Vec<_> = lists.into_iter().flatten().collect();
    let going = found.iter().filter(|(_, _, going)| *going).map(|(key, _, _)| key.clone()).collect();
    Ok((found.into_iter().map(|(key, version, _)| (key, version)).collect(), going))
}

/// Applies all of `placed`, many at the same time; goes on after a failure, so that all conflicts are
/// named at once.
///
/// # Errors
/// [`Cause::Usage`] for conflicts with other managers; otherwise the first failure as
/// [`cluster::cause_of`] says, with how many more there are.
pub(crate) async fn wave(
    client: &Client,
    placed: Vec<Placed>,
    before: &Before,
    force: bool,
    applied: &mut Applied,
    done: impl Fn(&Counts),
) -> Result<()> {
    let mut failures = Vec::new();
    let work = placed.into_iter().map(|item| async move {
        let version = match before.versions.get(&item.object.key) {
            Some(version) if is_bare(&item.object.value) || before.is_settled(&item.object, version) => {
                Ok(version.clone())
            }
            _ => one(client, &item, force).await,
        };
        (item.object, version)
    });
    let mut work = std::pin::pin!(stream::iter(work).buffer_unordered(PARALLEL));
    while let Some((object, version)) = work.next().await {
        match version {
            Ok(now) => applied.add(&object, before.versions.get(&object.key), now),
            Err(error) => failures.push((object.key, error)),
        }
        done(&applied.counts);
    }
    if failures.is_empty() { Ok(()) } else { Err(explain(failures)) }
}

/// Whether an object says nothing but its name. Applying such a one again would change who owns its
/// fields, and nothing else: the API server keeps no owner of nothing.
fn is_bare(object: &Value) -> bool {
    fn is_empty(value: &Value) -> bool {
        match value {
            Value::Null => true,
            Value::Object(fields) => fields.values().all(is_empty),
            _ => false,
        }
    }
    let names = |field: &str| ["name", "namespace"].contains(&field);
    object.as_object().into_iter().flatten().all(|(field, value)| match (field.as_str(), value) {
        ("apiVersion" | "kind", _) => true,
        ("metadata", Value::Object(metadata)) => metadata.iter().all(|(field, value)| names(field) || is_empty(value)),
        (_, value) => is_empty(value),
    })
}

/// Applies one object and returns its version.
async fn one(client: &Client, item: &Placed, force: bool) -> Result<String, kube::Error> {
    let api = item.kind.api(client, &item.object.key.namespace);
    let mut params = PatchParams::apply(FIELD_MANAGER);
    params.force = force;
    let patch = Patch::Apply(&item.object.value);
    let object = patiently(passes, || api.patch(&item.object.key.name, &params, &patch)).await?;
    Ok(object.resource_version().unwrap_or_default())
}

/// Tries again what `passes`, for a while.
async fn patiently<T, F>(passes: fn(&kube::Error) -> bool, attempt: impl Fn() -> F) -> Result<T, kube::Error>
where
    F: Future<Output = Result<T, kube::Error>>,
{
    let deadline = Instant::now() + PATIENCE;
    let mut delays = retry::delays();
    loop {
        let error = match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let delay = delays.next().unwrap_or(PATIENCE);
        if !passes(&error) || Instant::now() + delay > deadline {
            return Err(error);
        }
        tokio::time::sleep(delay).await;
    }
}

/// Whether the API server is away for a moment.
fn is_away(error: &kube::Error) -> bool {
    [Cause::ClusterUnreachable, Cause::Apiserver].contains(&cause_of(error))
}

/// Whether it may go well the next time: the API server is away, a webhook starts, a namespace of an
/// earlier installation goes, a kind that was just defined is not served yet.
fn passes(error: &kube::Error) -> bool {
    let unknown = matches!(error, kube::Error::Api(status) if status.code == 404);
    unknown || is_away(error) || [Cause::Webhook, Cause::NotAtBaseline].contains(&cause_of(error))
}

fn explain(failures: Vec<(ObjectKey, kube::Error)>) -> Error {
    let conflict = |error: &kube::Error| matches!(error, kube::Error::Api(status) if status.code == 409 && status.message.contains("conflict"));
    let conflicts: Vec<_> = failures
        .iter()
        .filter(|(_, error)| conflict(error))
        .map(|(key, error)| format!("{key}: {}", cluster::describe(error)))
        .collect();
    let count = failures.len();
    match failures.into_iter().find(|(_, error)| !conflict(error)) {
        Some((key, error)) if count > 1 => fail(format!("cannot apply {key} (and {} more objects)", count - 1), &error),
        Some((key, error)) => fail(format!("cannot apply {key}"), &error),
        None => Error::new(Cause::Usage, format!("{count} objects have fields that another manager owns"))
            .line(conflicts.join("\n"))
            .next("add --force-conflicts to take these fields over"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    fn api(code: u16, message: &str) -> kube::Error {
        kube::Error::Api(Box::new(Status::failure(message, "").with_code(code)))
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey { api_version: "v1".into(), kind: "Service".into(), namespace: "n".into(), name: name.into() }
    }

    #[test]
    fn an_object_may_be_nothing_but_a_name() {
        let bare = |text: &str| is_bare(&cluster::objects::parse(text, "r").unwrap()[0].value);
        assert!(bare(
            "{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {}, creationTimestamp: null}, spec: {}}"
        ));
        assert!(!bare("{apiVersion: v1, kind: Namespace, metadata: {name: a, labels: {x: y}}}"));
        assert!(!bare("{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {a: ''}}"));
        assert!(!bare("{apiVersion: v1, kind: ServiceAccount, metadata: {name: a}, secrets: []}"));
    }

    #[test]
    fn what_nobody_has_written_since_is_not_sent_again() {
        let parse = |colour: &str| {
            let text =
                format!("{{apiVersion: v1, kind: ConfigMap, metadata: {{name: a}}, data: {{colour: {colour}}}}}");
            cluster::objects::parse(&text, "r").unwrap().remove(0)
        };
        let mut applied = Applied::default();
        applied.add(&parse("red"), None, "7".into());
        let before = Before { sent: applied.sent.clone(), ..Before::default() };
        assert!(before.is_settled(&parse("red"), "7"));
        assert!(!before.is_settled(&parse("red"), "8"), "somebody has written it");
        assert!(!before.is_settled(&parse("blue"), "7"), "it is to become another");
        let mut secret = parse("red");
        secret.key.kind = "Secret".into();
        applied.add(&secret, Some(&"1".into()), "2".into());
        assert_eq!((applied.sent.len(), applied.counts.all()), (1, 2));
        assert_eq!(applied.words().unwrap(), "2 objects were applied: ConfigMap.v1 a, Secret.v1 a");
        assert_eq!(Applied::default().words(), None);
    }

    #[test]
    fn all_conflicts_are_named() {
        let message = "Apply failed with 1 conflict: conflict with \"kubectl\": .spec.type";
        let error = explain(vec![(key("a"), api(409, message)), (key("b"), api(409, message))]);
        assert_eq!(error.cause, Cause::Usage);
        let text = error.to_string();
        assert!(
            text.contains("Service.v1 n/a: Apply") && text.contains("n/b") && text.contains("--force-conflicts"),
            "{text}"
        );
        let error = explain(vec![(key("a"), api(409, message)), (key("b"), api(422, "spec.type: invalid"))]);
        assert_eq!(error.cause, Cause::Product);
        assert!(error.to_string().contains("cannot apply Service.v1 n/b (and 1 more objects): spec.type"), "{error}");
    }

    #[test]
    fn what_passes_is_tried_again() {
        for (code, message, again) in [
            (503, "", true),
            (404, "the server could not find the requested resource", true),
            (500, "failed calling webhook \"w\": connection refused", true),
            (403, "namespace x because it is being terminated", true),
            (403, "forbidden", false),
            (422, "invalid", false),
            (409, "conflict", false),
        ] {
            assert_eq!(passes(&api(code, message)), again, "{code} {message}");
        }
    }
}
