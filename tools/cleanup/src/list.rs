//! Everything that a cluster holds: each listable kind once, in pages, several at a time.

use std::{collections::BTreeMap, time::Duration};

use cluster::fail;
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use kit::{Cause, Error, Result, record::ObjectKey, retry};
use kube::{
    Client, Resource,
    api::{ApiResource, DynamicObject, GetParams, ListParams},
    core::{Request, discovery::v2::APIGroupDiscovery},
};
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    api::{self, CONCURRENT, Patience, patiently},
    bodies::Writing,
    page,
    rules::{RULES, group_of},
    secret::Key,
    view::{essential, fingerprint, is_secret, view},
};

/// Objects a page.
const PAGE: u32 = 500;
/// A list that changes while it is read begins anew; that often.
const RESTARTS: usize = 3;

/// A kind that can be listed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kind {
    /// Group, preferred version, kind and plural.
    pub resource: ApiResource,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Whether the API server stores it: it can be deleted.
    pub deletable: bool,
}

/// An object as far as it is compared.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    /// Which.
    pub key: ObjectKey,
    /// Its UID.
    pub uid: String,
    /// Of what is compared.
    pub digest: String,
    /// The part of what is compared that is looked at later; mostly none, and never of a Secret.
    pub view: Value,
    /// Its labels. Not as a map, whose nodes would take more room than all the rest of an object.
    pub labels: Vec<(String, String)>,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// UID of the owner that manages it.
    pub owner: Option<String>,
    /// UIDs of its other owners.
    pub owners: Vec<String>,
    /// What must be done before it goes.
    pub finalizers: Vec<String>,
    /// Since when it is being deleted.
    pub deleting: Option<String>,
}

impl Object {
    /// One of which only the name is known.
    #[must_use]
    pub(crate) fn named(key: ObjectKey, uid: &str) -> Self {
        Self {
            key,
            uid: uid.into(),
            digest: String::new(),
            view: Value::Null,
            labels: vec![],
            created: None,
            owner: None,
            owners: vec![],
            finalizers: vec![],
            deleting: None,
        }
    }
}

/// What a cluster holds.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// Every object that no rule leaves out.
    pub objects: Vec<Object>,
    /// Every kind that can be listed, by group and kind.
    pub kinds: BTreeMap<(String, String), Kind>,
    /// What should be listable and is not, as `Kind.group` or `*.group`, with the reason.
    pub unlisted: BTreeMap<String, String>,
}

impl Listing {
    /// The kind of an object, if the cluster still serves it.
    #[must_use]
    pub(crate) fn kind_of(&self, key: &ObjectKey) -> Option<&Kind> {
        self.kinds.get(&(group_of(key).to_owned(), key.kind.clone()))
    }
}

/// What a listing is made with.
#[derive(Clone, Copy, Default)]
pub(crate) struct With<'a> {
    /// Secrets are hashed with it.
    pub key: Option<&'a Key>,
    /// Bodies that may be put back go there.
    pub bodies: Option<&'a Writing>,
}

impl With<'_> {
    /// How long a kind whose own server fails is asked again: what a baseline cannot see is never cleaned, so that
    /// its server may restart meanwhile; a cleanup looks again.
    fn bears(self) -> Duration {
        Duration::from_secs(if self.bodies.is_some() { 5 } else { 2 })
    }
}

/// Lists the cluster.
///
/// A group whose server does not answer is named in [`Listing::unlisted`]; it does not hide the rest.
///
/// # Errors
/// [`Cause::Auth`] naming every kind that may not be listed; otherwise as [`cluster::cause_of`] says.
pub(crate) async fn list(client: &Client, with: With<'_>) -> Result<Listing> {
    let mut served = discover(client).await?;
    let (began, mut delays) = (Instant::now(), retry::delays());
    while with.bodies.is_some() && !served.1.is_empty() && began.elapsed() < with.bears() {
        tokio::time::sleep(delays.next().unwrap_or_default()).await;
        served = discover(client).await?;
    }
    list_served(client, served, with).await
}

/// As [`list`], of kinds that are known.
///
/// # Errors
/// As [`list`].
pub(crate) async fn list_served(client: &Client, served: Served, with: With<'_>) -> Result<Listing> {
    let (kinds, mut unlisted) = served;
    let wanted = kinds.iter().filter(|kind| !RULES.kind_left_out(&kind.resource.group, &kind.resource.kind));
    let pages = stream::iter(wanted.cloned()).map(|kind| async move {
        let listed = list_kind(client, &kind, with).await?;
        Ok::<_, Error>((kind, listed))
    });
    let listed: Vec<_> = pages.buffer_unordered(CONCURRENT).try_collect().await?;
    let mut forbidden = Vec::new();
    let mut objects = Vec::new();
    for (kind, listed) in listed {
        match listed {
            Listed::Objects(found) => objects.extend(found),
            Listed::Forbidden => forbidden.push(name_of(&kind.resource)),
            Listed::Unavailable(why) => {
                unlisted.insert(format!("{}.{}", kind.resource.kind, kind.resource.group), why);
            }
        }
    }
    if !forbidden.is_empty() {
        forbidden.sort();
        return Err(Error::new(Cause::Auth, format!("may not list {}", forbidden.join(", ")))
            .next("grant the verbs get, list and watch on all resources (a ClusterRole with '*')"));
    }
    let kinds =
        kinds.into_iter().map(|kind| ((kind.resource.group.clone(), kind.resource.kind.clone()), kind)).collect();
    Ok(Listing { objects: each_once(objects), kinds, unlisted })
}

/// Whether a key belongs to what could not be listed.
#[must_use]
pub(crate) fn is_unlisted<'a>(key: &ObjectKey, mut unlisted: impl Iterator<Item = &'a str>) -> bool {
    unlisted.any(|name| match name.split_once('.') {
        Some((kind, group)) => group == group_of(key) && (kind == "*" || kind == key.kind),
        None => false,
    })
}

/// `plural.group`, as kubectl writes it.
#[must_use]
pub(crate) fn name_of(resource: &ApiResource) -> String {
    if resource.group.is_empty() { resource.plural.clone() } else { format!("{}.{}", resource.plural, resource.group) }
}

/// Some servers show one object under two kinds, as OpenShift a Namespace as a Project: the name that Kubernetes itself
/// gives it stays, which the rules know.
fn each_once(mut objects: Vec<Object>) -> Vec<Object> {
    objects.sort_by(|one, two| one.key.cmp(&two.key));
    let foreign = |object: &Object| match group_of(&object.key) {
        "" => 0,
        group if group.ends_with(".k8s.io") => 1,
        "apps" | "autoscaling" | "batch" | "policy" => 1,
        _ => 2,
    };
    let mut by_uid: Vec<usize> = (0..objects.len()).collect();
    by_uid.sort_by_key(|index| (&objects[*index].uid, foreign(&objects[*index]), *index));
    let mut again = vec![false; objects.len()];
    for pair in by_uid.windows(2) {
        again[pair[1]] = objects[pair[0]].uid == objects[pair[1]].uid;
    }
    let mut again = again.into_iter();
    objects.retain(|_| again.next() == Some(false));
    objects
}

/// The kinds that can be listed, and what cannot, with the reason.
pub(crate) type Served = (Vec<Kind>, BTreeMap<String, String>);

/// Every listable kind, in the version that its group prefers among those that have it, with what
/// cannot be listed.
pub(crate) async fn discover(client: &Client) -> Result<Served> {
    let what = || "cannot read which kinds the cluster serves (Kubernetes 1.26 or newer is needed)".to_owned();
    let (core, groups) = tokio::try_join!(
        patiently(what, || client.list_core_api_versions_aggregated()),
        patiently(what, || client.list_api_groups_aggregated()),
    )?;
    Ok(kinds_of(core.items.into_iter().chain(groups.items)))
}

/// The kind of a key as the cluster serves it now.
pub(crate) async fn kind_now(client: &Client, key: &ObjectKey) -> Option<Kind> {
    let (kinds, _) = discover(client).await.ok()?;
    kinds.into_iter().find(|kind| kind.resource.group == group_of(key) && kind.resource.kind == key.kind)
}

fn kinds_of(groups: impl IntoIterator<Item = APIGroupDiscovery>) -> Served {
    let mut kinds: Vec<Kind> = Vec::new();
    let mut unlisted = BTreeMap::new();
    for group in groups {
        let name = group.metadata.and_then(|metadata| metadata.name).unwrap_or_default();
        // The versions come in the order in which the server prefers them.
        for version in group.versions {
            let number = version.version.unwrap_or_default();
            let api_version = if name.is_empty() { number.clone() } else { format!("{name}/{number}") };
            if version.freshness.as_deref() == Some("Stale") {
                if !RULES.kind_left_out(&name, "*") {
                    unlisted.insert(format!("*.{name}"), "its server does not answer".into());
                }
                continue;
            }
            for resource in version.resources {
                let kind = resource.response_kind.and_then(|kind| kind.kind).unwrap_or_default();
                let plural = resource.resource.unwrap_or_default();
                let can = |verb: &str| resource.verbs.iter().any(|can| can == verb);
                let known = kinds.iter().any(|known| known.resource.group == name && known.resource.plural == plural);
                if kind.is_empty() || plural.is_empty() || known || !can("list") {
                    continue;
                }
                kinds.push(Kind {
                    namespaced: resource.scope.as_deref() == Some("Namespaced"),
                    deletable: can("delete"),
                    resource: ApiResource {
                        group: name.clone(),
                        version: number.clone(),
                        api_version: api_version.clone(),
                        kind,
                        plural,
                    },
                });
            }
        }
    }
    (kinds, unlisted)
}

enum Listed {
    Objects(Vec<Object>),
    Forbidden,
    Unavailable(String),
}

async fn list_kind(client: &Client, kind: &Kind, with: With<'_>) -> Result<Listed> {
    let mut restarts = 0;
    let (began, mut patience) = (Instant::now(), Patience::new());
    loop {
        let error = match list_pages(client, kind, with).await {
            Ok(objects) => return Ok(Listed::Objects(objects)),
            Err(error) => error,
        };
        match api::code(&error) {
            // The list is older than the server remembers: from the beginning.
            Some(410) if restarts < RESTARTS => restarts += 1,
            // Its CustomResourceDefinition went away meanwhile, or it cannot be listed after all.
            Some(404 | 405) => return Ok(Listed::Objects(vec![])),
            Some(403) => return Ok(Listed::Forbidden),
            // The API server is well, and this kind's own server or conversion webhook is not.
            Some(500..) if ready(client).await => {
                if began.elapsed() > with.bears() {
                    return Ok(Listed::Unavailable(cluster::describe(&error)));
                }
                patience.wait().await;
            }
            _ if patience.allows(&error) => patience.wait().await,
            _ => return Err(fail(format!("cannot list {}", name_of(&kind.resource)), &error)),
        }
    }
}

async fn ready(client: &Client) -> bool {
    match Request::new("").get("readyz", &GetParams::default()) {
        Ok(request) => client.request_text(request).await.is_ok(),
        Err(_) => false,
    }
}

async fn list_pages(client: &Client, kind: &Kind, with: With<'_>) -> Result<Vec<Object>, kube::Error> {
    let mut found = Vec::new();
    let mut next: Option<String> = None;
    loop {
        let text = api::answered(page(client, &kind.resource, next.as_deref())).await?;
        let each = |item: Value| {
            let Some((object, view)) = object_of(&kind.resource, &item, with.key) else { return };
            if let Some(bodies) = with.bodies.filter(|_| RULES.keeps_body(&object.key)) {
                bodies.add(&object.digest, &view);
            }
            found.push(object);
        };
        next = page::read(&text, each).map_err(kube::Error::SerdeError)?;
        if next.is_none() {
            return Ok(found);
        }
    }
}

/// The text of a page: it is read item by item.
async fn page(client: &Client, resource: &ApiResource, next: Option<&str>) -> Result<String, kube::Error> {
    let mut params = ListParams::default().limit(PAGE);
    params.continue_token = next.map(String::from);
    let request = Request::new(DynamicObject::url_path(resource, None)).list(&params);
    client.request_text(request.map_err(kube::Error::BuildRequest)?).await
}

/// A listed item, and what is compared of it (null of a Secret); nothing if a rule leaves it out, or if it is computed and not stored.
#[must_use]
pub(crate) fn object_of(resource: &ApiResource, item: &Value, secret_key: Option<&Key>) -> Option<(Object, Value)> {
    let metadata = item.get("metadata")?;
    let text = |name: &str| metadata.get(name).and_then(Value::as_str).map(String::from);
    let key = ObjectKey {
        api_version: resource.api_version.clone(),
        kind: resource.kind.clone(),
        namespace: text("namespace").unwrap_or_default(),
        name: text("name")?,
    };
    let uid = text("uid").filter(|uid| !uid.is_empty())?;
    if RULES.left_out(&key, item).is_some() {
        return None;
    }
    let list = |name: &str| metadata.get(name).and_then(Value::as_array).into_iter().flatten();
    let view = view(&key, item);
    let digest = fingerprint(&key, &view, secret_key);
    let view = if is_secret(&key) { Value::Null } else { view };
    let (mut owner, mut owners) = (None, Vec::new());
    for reference in list("ownerReferences") {
        let Some(uid) = reference["uid"].as_str().map(String::from) else { continue };
        if reference["controller"] == true && owner.is_none() { owner = Some(uid) } else { owners.push(uid) }
    }
    let labels = metadata.get("labels").and_then(Value::as_object).into_iter().flatten();
    let object = Object {
        uid,
        digest,
        view: essential(&key, &view),
        labels: labels.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned()))).collect(),
        created: text("creationTimestamp").and_then(|time| time.parse().ok()),
        owner,
        owners,
        finalizers: list("finalizers").filter_map(|finalizer| finalizer.as_str().map(String::from)).collect(),
        deleting: text("deletionTimestamp"),
        key,
    };
    Some((object, view))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn groups(text: Value) -> Vec<APIGroupDiscovery> {
        serde_json::from_value(text).unwrap()
    }

    fn resource(plural: &str, kind: &str, verbs: &[&str]) -> Value {
        json!({"resource": plural, "responseKind": {"kind": kind}, "scope": "Namespaced", "verbs": verbs})
    }

    #[test]
    fn each_kind_is_listed_once_in_the_preferred_version_that_has_it() {
        let all = ["delete", "list"];
        let (kinds, unlisted) = kinds_of(groups(json!([
            {"metadata": {"name": "tekton.dev"}, "versions": [
                {"version": "v1", "resources": [resource("tasks", "Task", &all)]},
                {"version": "v1beta1", "resources": [
                    resource("tasks", "Task", &all), resource("stepactions", "StepAction", &all)]},
            ]},
            {"metadata": {"name": "x.example.com"}, "versions": []},
            {"metadata": {"name": "y.example.com"}, "versions": [{"version": "v1", "freshness": "Stale"}]},
            {"metadata": {"name": "metrics.k8s.io"}, "versions": [{"version": "v1", "freshness": "Stale"}]},
            {"versions": [{"version": "v1", "resources": [
                resource("pods", "Pod", &all), resource("bindings", "Binding", &["create"])]}]},
        ])));
        let names: Vec<_> =
            kinds.iter().map(|kind| (name_of(&kind.resource), kind.resource.api_version.as_str())).collect();
        assert_eq!(
            names,
            [
                ("tasks.tekton.dev".to_owned(), "tekton.dev/v1"),
                ("stepactions.tekton.dev".to_owned(), "tekton.dev/v1beta1"),
                ("pods".to_owned(), "v1")
            ]
        );
        assert_eq!(unlisted.keys().collect::<Vec<_>>(), ["*.y.example.com"]);
    }

    fn api(api_version: &str, kind: &str) -> ApiResource {
        let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
        ApiResource {
            group: group.into(),
            version: version.into(),
            api_version: api_version.into(),
            kind: kind.into(),
            plural: format!("{}s", kind.to_lowercase()),
        }
    }

    #[test]
    fn what_could_not_be_listed_is_known_by_group_or_kind() {
        let key =
            object_of(&api("x.dev/v1", "Thing"), &json!({"metadata": {"name": "t", "uid": "1"}}), None).unwrap().0.key;
        for (name, is) in [("*.x.dev", true), ("Thing.x.dev", true), ("Other.x.dev", false), ("*.y.dev", false)] {
            assert_eq!(is_unlisted(&key, [name].into_iter()), is, "{name}");
        }
    }

    #[test]
    fn an_item_becomes_an_object() {
        let pod = json!({"metadata": {
            "name": "p", "namespace": "n", "uid": "u1", "finalizers": ["a/b"], "deletionTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [{"uid": "x"}, {"uid": "rs", "controller": true}],
            "labels": {"a": "b"}, "creationTimestamp": "2026-01-01T00:00:00Z",
        }, "spec": {"nodeName": "n1"}});
        let (object, view) = object_of(&api("v1", "Pod"), &pod, None).unwrap();
        assert_eq!((view["spec"]["nodeName"].as_str(), object.view.is_null()), (Some("n1"), true));
        assert_eq!((object.owners, object.labels), (vec!["x".to_owned()], vec![("a".to_owned(), "b".to_owned())]));
        assert_eq!(object.created.unwrap().to_string(), "2026-01-01T00:00:00Z");
        assert_eq!(object.key.to_string(), "Pod.v1 n/p");
        assert_eq!(object.owner.as_deref(), Some("rs"));
        assert_eq!(object.finalizers, ["a/b"]);
        assert!(object.deleting.is_some());
    }

    #[test]
    fn what_is_computed_or_left_out_is_no_object() {
        let status = json!({"metadata": {"name": "scheduler"}});
        assert!(object_of(&api("v1", "ComponentStatus"), &status, None).is_none());
        let root = json!({"metadata": {"name": "kube-root-ca.crt", "namespace": "x", "uid": "1"}});
        assert!(object_of(&api("v1", "ConfigMap"), &root, None).is_none());
        assert!(object_of(&api("v1", "ConfigMap"), &json!("damaged"), None).is_none());
    }

    #[test]
    fn an_object_under_two_kinds_is_one() {
        let object = |id: &str, uid: &str| crate::compare::tests::object(id, uid);
        let all = vec![
            object("Ingress.networking.k8s.io/v1 a/i", "1"),
            object("Ingress.extensions/v1 a/i", "1"),
            object("Project.project.openshift.io/v1 kube-system", "4"),
            object("Namespace.v1 kube-system", "4"),
            object("ConfigMap.v1 a/c", "2"),
            object("ConfigMap.v1 a/b", "3"),
        ];
        let left: Vec<_> = each_once(all).iter().map(|object| object.key.to_string()).collect();
        let kept =
            ["Ingress.networking.k8s.io/v1 a/i", "ConfigMap.v1 a/b", "ConfigMap.v1 a/c", "Namespace.v1 kube-system"];
        assert_eq!(left, kept);
    }

    #[test]
    fn the_content_of_a_secret_is_not_kept() {
        let secret = json!({"metadata": {"name": "s", "namespace": "n", "uid": "1"}, "data": {"p": "c2VjcmV0"}});
        let (object, view) = object_of(&api("v1", "Secret"), &secret, Some(&Box::new([7; 32]))).unwrap();
        assert!(object.view.is_null() && view.is_null());
        assert!(!format!("{object:?}").contains("c2VjcmV0"));
    }
}
