//! Sending objects: server-side apply, many at the same time, and what came of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use cluster::{FIELD_MANAGER, Kind, KubeContext, cause_of, fail, inventory::Sent, objects::Object, watch};
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
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

/// Requests at the same time: enough to hide a slow line (the widest wave of Tekton's has 59), few enough for the API
/// server's flow control, which has the others wait and refuses none.
pub(crate) const PARALLEL: usize = 64;
/// How long an object is tried again while the API server or a webhook is not there.
const PATIENCE: Duration = Duration::from_secs(60);

/// An object with the way to reach it.
#[derive(Debug, Clone)]
pub(crate) struct Placed {
    pub(crate) object: Object,
    pub(crate) kind: Kind,
}

/// An object as it was found or became.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// Its version: what tells a change from none.
    version: String,
    /// What the API server says of the fields that are ours, as a digest; nothing if none are.
    owned: Option<String>,
}

impl State {
    /// A field that somebody else writes, by whatever kind of request, is taken out of our entry
    /// (sigs.k8s.io/structured-merge-diff, merge/update.go); what is written under our name renews the entry's time.
    /// What others write into other fields, and controllers into the status, does not touch it.
    fn of(metadata: &ObjectMeta) -> Self {
        let ours = |entry: &&ManagedFieldsEntry| {
            entry.manager.as_deref() == Some(FIELD_MANAGER)
                && entry.operation.as_deref() == Some("Apply")
                && entry.subresource.as_deref().unwrap_or_default().is_empty()
        };
        let entry = metadata.managed_fields.iter().flatten().find(ours);
        let entry = entry.and_then(|entry| serde_json::to_string(entry).ok());
        Self {
            version: metadata.resource_version.clone().unwrap_or_default(),
            owned: entry.map(|entry| digest::sha256(entry.as_bytes())),
        }
    }
}

/// The objects that were there before, by place.
pub(crate) type States = BTreeMap<ObjectKey, State>;

/// What was there before, and what of it came from us.
#[derive(Debug, Clone, Default)]
pub(crate) struct Before {
    pub(crate) states: States,
    /// What the last installation sent, and which fields became ours by it.
    pub(crate) sent: Sent,
    /// The namespaces that the release makes: one that is not there yet will be.
    pub(crate) makes: BTreeSet<String>,
}

impl Before {
    /// Whether sending the object again would change nothing: it says nothing, or it is what was sent, and nobody has
    /// written to our fields since.
    fn is_settled(&self, object: &Object) -> bool {
        let Some(state) = self.states.get(&object.key) else { return false };
        let sent = self.sent.get(&object.key.to_string());
        is_bare(&object.value)
            || sent.is_some_and(|(digest, owned)| state.owned.as_ref() == Some(owned) && *digest == digest_of(object))
    }

    /// Whether sending all of them would change nothing.
    pub(crate) fn are_settled(&self, placed: &[Placed]) -> bool {
        placed.iter().all(|item| self.is_settled(&item.object))
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

    fn add(&mut self, object: &Object, before: Option<&State>, now: State) {
        let change = match before {
            None => {
                self.counts.created += 1;
                Some(Change::Created)
            }
            Some(before) if before.version == now.version => {
                self.counts.unchanged += 1;
                None
            }
            Some(_) => {
                self.counts.changed += 1;
                Some(Change::Changed)
            }
        };
        self.objects.extend(change.map(|change| AppliedObject { key: object.key.clone(), change }));
        if let Some(owned) = now.owned.filter(|_| !is_secret(&object.value)) {
            self.sent.insert(object.key.to_string(), (digest_of(object), owned));
        }
    }
}

/// Whether something could be guessed from its digest.
fn is_secret(object: &Value) -> bool {
    object["kind"] == "Secret" && ["data", "stringData"].iter().any(|field| !object[field].is_null())
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

/// Reads what is there of `placed`, once what an earlier installation left has ended
/// that is being deleted.
pub(crate) async fn states(client: &Client, placed: &[Placed], ui: &Ui) -> Result<States> {
    let (states, going) = list(client, placed).await?;
    if going.is_empty() {
        return Ok(states);
    }
    let step = ui.step(format!("waiting for the end of {} objects of an earlier installation", going.len()));
    let waits = placed.iter().filter(|item| going.contains(&item.object.key)).map(|item| {
        let key = &item.object.key;
        watch::gone(item.kind.api(client, &key.namespace), key, PATIENCE)
    });
    stream::iter(waits).buffer_unordered(PARALLEL).try_collect::<()>().await?;
    step.done("");
    list(client, placed).await.map(|(states, _)| states)
}

/// One list for each kind and namespace; the keys are of what is being deleted.
async fn list(client: &Client, placed: &[Placed]) -> Result<(States, BTreeSet<ObjectKey>)> {
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
            let (name, state) = (object.name_any(), State::of(&object.metadata));
            let (api_version, kind, namespace) = (api_version.clone(), kind.clone(), namespace.clone());
            (ObjectKey { api_version, kind, namespace, name }, state, object.metadata.deletion_timestamp.is_some())
        });
        Ok::<Vec<_>, Error>(found.collect())
    });
    let lists: Vec<Vec<_>> = stream::iter(lists).buffer_unordered(PARALLEL).try_collect().await?;
    let found: Vec<_> = lists.into_iter().flatten().collect();
    let going = found.iter().filter(|(_, _, going)| *going).map(|(key, _, _)| key.clone()).collect();
    Ok((found.into_iter().map(|(key, state, _)| (key, state)).collect(), going))
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
        let state = match before.states.get(&item.object.key) {
            Some(state) if before.is_settled(&item.object) => Ok(state.clone()),
            _ => one(client, &item, force, before).await,
        };
        (item.object, state)
    });
    let mut work = std::pin::pin!(stream::iter(work).buffer_unordered(PARALLEL));
    while let Some((object, state)) = work.next().await {
        match state {
            Ok(now) => applied.add(&object, before.states.get(&object.key), now),
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

/// Applies one object, and returns what it has become.
async fn one(client: &Client, item: &Placed, force: bool, before: &Before) -> Result<State, kube::Error> {
    let namespace = &item.object.key.namespace;
    let passes = |error: &kube::Error| passes(error) && (!lacks(error, namespace) || before.makes.contains(namespace));
    let api = item.kind.api(client, namespace);
    let mut params = PatchParams::apply(FIELD_MANAGER);
    params.force = force;
    let patch = Patch::Apply(&item.object.value);
    let object = patiently(passes, || api.patch(&item.object.key.name, &params, &patch)).await?;
    Ok(State::of(&object.metadata))
}

/// Tries again what `passes`, for a while. The client has patience of its own, which a server can make long
/// (`Retry-After`): no attempt takes longer than that while.
async fn patiently<T, F>(passes: impl Fn(&kube::Error) -> bool, attempt: impl Fn() -> F) -> Result<T, kube::Error>
where
    F: Future<Output = Result<T, kube::Error>>,
{
    let deadline = Instant::now() + PATIENCE;
    let mut delays = retry::delays();
    loop {
        let error = match tokio::time::timeout(PATIENCE, attempt()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => error,
            Err(late) => kube::Error::Service(std::io::Error::new(std::io::ErrorKind::TimedOut, late).into()),
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

/// Whether an object's namespace is not there.
fn lacks(error: &kube::Error, namespace: &str) -> bool {
    let said = format!("namespaces \"{namespace}\" not found");
    matches!(error, kube::Error::Api(status) if status.code == 404 && status.message.contains(&said))
}

fn explain(failures: Vec<(ObjectKey, kube::Error)>) -> Error {
    let conflict = |error: &kube::Error| matches!(error, kube::Error::Api(status) if status.code == 409 && status.message.contains("conflict"));
    let conflicts: Vec<_> = failures
        .iter()
        .filter(|(_, error)| conflict(error))
        .map(|(key, error)| format!("{key}: {}", cluster::describe(error)))
        .collect();
    let count = failures.len();
    if let Some((key, _)) = failures.iter().find(|(key, error)| lacks(error, &key.namespace)) {
        let what = format!("cannot apply {key}: there is no namespace {}, and the release makes none", key.namespace);
        return Error::new(Cause::Product, what).next("add it to the release, or create it");
    }
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
    use serde_json::json;

    fn api(code: u16, message: &str) -> kube::Error {
        kube::Error::Api(Box::new(Status::failure(message, "").with_code(code)))
    }

    fn key(name: &str) -> ObjectKey {
        ObjectKey { api_version: "v1".into(), kind: "Service".into(), namespace: "n".into(), name: name.into() }
    }

    /// An entry of ours with these fields.
    fn ours(fields: &[&str], second: &str) -> Value {
        let fields: serde_json::Map<_, _> = fields.iter().map(|field| ((*field).to_owned(), json!({}))).collect();
        json!({"manager": FIELD_MANAGER, "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
            "time": format!("2026-01-01T00:00:0{second}Z"), "fieldsV1": {"f:data": fields}})
    }

    fn state(version: &str, managers: &[Value]) -> State {
        let metadata = json!({"resourceVersion": version, "managedFields": managers});
        State::of(&serde_json::from_value(metadata).unwrap())
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
        applied.add(&parse("red"), None, state("7", &[ours(&["f:colour"], "1")]));
        let settled = |colour: &str, state: State| {
            let object = parse(colour);
            let states = States::from([(object.key.clone(), state)]);
            Before { states, sent: applied.sent.clone(), ..Before::default() }.is_settled(&object)
        };
        assert!(settled("red", state("7", &[ours(&["f:colour"], "1")])));
        let mut other = ours(&["f:replicas"], "2");
        other["manager"] = json!("kubectl");
        let mut status = ours(&["f:status"], "3");
        status["subresource"] = json!("status");
        let beside = [status, other.clone(), ours(&["f:colour"], "1")];
        assert!(settled("red", state("8", &beside)), "what others write beside it changes nothing of it");
        assert!(!settled("red", state("8", &[ours(&[], "1")])), "somebody has taken a field over");
        assert!(!settled("red", state("8", &[ours(&["f:colour"], "2")])), "another of ours has written it");
        assert!(!settled("red", state("8", &[other])), "it was made anew");
        assert!(!settled("blue", state("7", &[ours(&["f:colour"], "1")])), "it is to become another");
        assert!(!Before { sent: applied.sent.clone(), ..Before::default() }.is_settled(&parse("red")), "it is gone");
        let mut secret = parse("red");
        (secret.key.kind, secret.value["kind"]) = ("Secret".into(), json!("Secret"));
        applied.add(&secret, Some(&state("1", &[])), state("2", &[ours(&["f:colour"], "1")]));
        assert_eq!((applied.sent.len(), applied.counts.all()), (1, 2), "nothing is kept of what is secret");
        assert_eq!(applied.words().unwrap(), "2 objects were applied: ConfigMap.v1 a, Secret.v1 a");
        secret.value["data"] = Value::Null;
        applied.add(&secret, None, state("2", &[ours(&["f:colour"], "1")]));
        assert_eq!(applied.sent.len(), 2);
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
        let error = explain(vec![(key("a"), api(404, "namespaces \"n\" not found"))]);
        assert!(error.cause == Cause::Product && error.to_string().contains("no namespace n, and"), "{error}");
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
