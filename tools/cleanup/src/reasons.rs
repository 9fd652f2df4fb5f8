//! Why an object is still there, from what it says of itself and what was listed beside it. Pure.

use kit::record::ObjectKey;
use serde::Serialize;
use serde_json::Value;

use crate::{
    blockers::Servers,
    finalizers,
    list::{Kind, Listing, Object},
    order::is,
    rules::group_of,
};

/// What kind of thing holds an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum What {
    /// Nothing: nobody has asked for it to go.
    Nobody,
    /// A finalizer.
    Finalizer,
    /// A webhook that cannot answer.
    Webhook,
    /// An API whose server does not answer.
    ApiService,
    /// A volume or claim in use.
    Volume,
    /// A node that does not say that a pod has ended.
    Node,
    /// What it owns, or what is in it.
    Content,
    /// A quota that is used up.
    Quota,
    /// It cannot be put back.
    PutBack,
}

/// One reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Reason {
    /// What holds it.
    pub what: What,
    /// Its name: the finalizer, the webhook configuration, the node, …
    pub name: String,
    /// In words.
    pub why: String,
    /// Who has to act, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller: Option<String>,
    /// Whether it is alive, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub alive: Option<bool>,
    /// Whether it may do it, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed: Option<bool>,
    /// What to do.
    pub next: String,
}

impl Reason {
    /// Without a controller.
    pub(crate) fn new(what: What, name: impl Into<String>, why: impl Into<String>, next: impl Into<String>) -> Self {
        let (name, why, next) = (name.into(), why.into(), next.into());
        Self { what, name, why, controller: None, alive: None, allowed: None, next }
    }

    /// For people.
    #[must_use]
    pub(crate) fn text(&self) -> String {
        let kind = match self.what {
            What::Nobody => return format!("{}; next: {}", self.why, self.next),
            What::Finalizer => "finalizer ",
            What::Webhook => "webhook ",
            What::ApiService => "API ",
            What::Node => "node ",
            What::Quota => "quota ",
            What::Volume | What::Content | What::PutBack => "",
        };
        let controller = self.controller.as_ref().map(|controller| {
            let alive = match self.alive {
                Some(true) => ", which is alive",
                Some(false) => ", which is not alive",
                None => "",
            };
            let allowed = if self.allowed == Some(false) { ", which may not change it" } else { "" };
            format!(" [{controller}{alive}{allowed}]")
        });
        format!("{kind}{}: {}{}; next: {}", self.name, self.why, controller.unwrap_or_default(), self.next)
    }
}

/// What an object and the listing say; `body` is the object as it is now. Finalizers of which the table says
/// nothing are left to whoever can ask the cluster.
#[must_use]
pub(crate) fn of(object: &Object, body: &Value, listing: &Listing, servers: &Servers<'_>) -> Vec<Reason> {
    let key = &object.key;
    let mut reasons = Vec::new();
    if body["metadata"]["deletionTimestamp"].as_str().is_none() {
        let by = finalizers::writers(body).join(", ");
        let by = if by.is_empty() { String::new() } else { format!(" (written by {by})") };
        let why = format!("nobody has asked for it to go{by}");
        reasons.push(Reason::new(What::Nobody, "", why, "cargo xtask cleanup run"));
    }
    for finalizer in finalizers_of(body) {
        if let Some(known) = finalizers::known(finalizer, key) {
            let mut reason = Reason::new(What::Finalizer, finalizer, &*known.means, &*known.next);
            reason.controller = Some(known.controller.clone());
            if finalizer.starts_with("customresourcecleanup.") {
                reason.why = format!("{} objects of its kind are still there", of_definition(object, listing));
                reason.alive = Some(true);
            }
            reasons.push(reason);
        }
    }
    for condition in body["status"]["conditions"].as_array().into_iter().flatten() {
        let name = condition["type"].as_str().unwrap_or_default();
        if condition["status"] == "True" && says_why(name) {
            let message = condition["message"].as_str().unwrap_or_default();
            let (what, next) = match name {
                "NamespaceDeletionDiscoveryFailure" => {
                    (What::ApiService, "remove the APIService whose server is gone, or bring its server back")
                }
                _ => (What::Content, "see why these do not go"),
            };
            reasons.push(Reason::new(what, name, message, next));
        }
    }
    let owned: Vec<String> = owned(object, listing).map(|owned| owned.key.to_string()).take(3).collect();
    if finalizers_of(body).contains(&"foregroundDeletion") && !owned.is_empty() {
        reasons.push(Reason::new(What::Content, "owned objects", owned.join(", "), "see why these do not go"));
    }
    if let Some(kind) = listing.kind_of(key) {
        reasons.extend(webhooks(kind, listing, servers));
    }
    if let Some(blocker) = servers.blocker(object) {
        let next = "cleanup run removes it first";
        reasons.push(Reason::new(What::Webhook, &*key.name, format!("blocks others: {}", blocker.why()), next));
    }
    reasons
}

/// The finalizers of an object; a namespace has its own in another place.
pub(crate) fn finalizers_of(body: &Value) -> Vec<&str> {
    let places = [&body["metadata"]["finalizers"], &body["spec"]["finalizers"]];
    places.into_iter().filter_map(Value::as_array).flatten().filter_map(Value::as_str).collect()
}

/// Conditions with which a namespace or a definition tells what it waits for.
fn says_why(condition: &str) -> bool {
    condition.starts_with("Namespace") || condition == "Terminating"
}

fn of_definition(definition: &Object, listing: &Listing) -> usize {
    let spec = &definition.view["spec"];
    let of_it =
        |other: &&Object| spec["names"]["kind"] == other.key.kind.as_str() && spec["group"] == group_of(&other.key);
    listing.objects.iter().filter(of_it).count()
}

fn owned<'a>(owner: &'a Object, listing: &'a Listing) -> impl Iterator<Item = &'a Object> {
    let owns = |other: &&Object| other.owner.iter().chain(&other.owners).any(|uid| *uid == owner.uid);
    listing.objects.iter().filter(owns)
}

/// Webhooks that would have to allow the end of such an object, and whose server is gone.
fn webhooks(kind: &Kind, listing: &Listing, servers: &Servers<'_>) -> Vec<Reason> {
    let configurations =
        listing.objects.iter().filter(|object| group_of(&object.key) == "admissionregistration.k8s.io");
    let mut reasons = Vec::new();
    for configuration in configurations {
        let Some(blocker) = servers.blocker(configuration) else { continue };
        let webhooks = configuration.view["webhooks"].as_array().into_iter().flatten();
        if webhooks.into_iter().any(|webhook| asks(webhook, kind)) {
            let why = format!("it has to allow this, and {}", blocker.why());
            let next = format!("kubectl delete {} {}", configuration.key.kind.to_lowercase(), configuration.key.name);
            reasons.push(Reason::new(What::Webhook, &*configuration.key.name, why, next));
        }
    }
    reasons
}

/// Whether a webhook is asked, and counts, when an object of this kind is changed or deleted.
fn asks(webhook: &Value, kind: &Kind) -> bool {
    let resource = &kind.resource;
    let has = |value: &Value, wanted: &dyn Fn(&str) -> bool| {
        value.as_array().into_iter().flatten().filter_map(Value::as_str).any(wanted)
    };
    let rule = |rule: &Value| {
        has(&rule["apiGroups"], &|group| group == "*" || group == resource.group)
            && has(&rule["resources"], &|name| {
                name == "*" || name == "*/*" || name.split('/').next() == Some(resource.plural.as_str())
            })
            && has(&rule["operations"], &|operation| matches!(operation, "*" | "DELETE" | "UPDATE"))
    };
    webhook["failurePolicy"] != "Ignore" && webhook["rules"].as_array().into_iter().flatten().any(rule)
}

/// Which pods use a claim.
#[must_use]
pub(crate) fn users<'a>(claim: &ObjectKey, pods: impl Iterator<Item = &'a Value>) -> Vec<String> {
    let uses = |pod: &&Value| {
        let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
        let ended = matches!(pod["status"]["phase"].as_str(), Some("Succeeded" | "Failed"));
        !ended && volumes.into_iter().any(|volume| volume["persistentVolumeClaim"]["claimName"] == claim.name.as_str())
    };
    pods.filter(uses).filter_map(|pod| pod["metadata"]["name"].as_str().map(String::from)).collect()
}

/// What a volume, or a claim's users, say.
#[must_use]
pub(crate) fn volume(object: &Object, body: &Value, users: &[String], listing: &Listing) -> Option<Reason> {
    let key = &object.key;
    if is(key, "", "PersistentVolumeClaim") && !users.is_empty() {
        let next = format!("kubectl delete pod -n {} {}", key.namespace, users.join(" "));
        return Some(Reason::new(What::Volume, "in use", format!("pods that use it: {}", users.join(", ")), next));
    }
    if is(key, "", "PersistentVolume") {
        let claim = &body["spec"]["claimRef"];
        let (namespace, name) = (claim["namespace"].as_str()?, claim["name"].as_str()?);
        let there = listing.objects.iter().any(|object| {
            is(&object.key, "", "PersistentVolumeClaim") && object.key.namespace == namespace && object.key.name == name
        });
        let policy = body["spec"]["persistentVolumeReclaimPolicy"].as_str().unwrap_or("Retain");
        let (why, next) = if there {
            (format!("claim {namespace}/{name} is bound to it"), "see why the claim does not go")
        } else {
            (
                format!("its claim {namespace}/{name} is gone, and its policy is {policy}"),
                "with Delete its provisioner has to remove the data: is it alive? with Retain delete the volume",
            )
        };
        return Some(Reason::new(What::Volume, "claim", why, next));
    }
    None
}

/// What the node of a pod says: nothing if the pod has none.
#[must_use]
pub(crate) fn node(pod: &Value, node: Option<&Value>) -> Option<Reason> {
    let name = pod["spec"]["nodeName"].as_str().filter(|name| !name.is_empty())?;
    let Some(node) = node else {
        let why = "it is gone, and only its kubelet could say that the pod has ended";
        let next = "Kubernetes removes the pods of nodes that are gone within minutes";
        return Some(Reason::new(What::Node, name, why, next));
    };
    let conditions = node["status"]["conditions"].as_array().into_iter().flatten();
    let ready = conditions.into_iter().find(|condition| condition["type"] == "Ready");
    let status = ready.and_then(|ready| ready["status"].as_str()).unwrap_or("Unknown");
    let mut reason = if status == "True" {
        let grace = pod["metadata"]["deletionGracePeriodSeconds"].as_u64().unwrap_or(30);
        let why = format!("its kubelet is ending it, within {grace} s of grace");
        Reason::new(What::Node, name, why, "wait; then look at the kubelet's log")
    } else {
        let since = ready.and_then(|ready| ready["lastTransitionTime"].as_str()).unwrap_or("?");
        let why = format!("it is not ready since {since}: its kubelet cannot say that the pod has ended");
        Reason::new(What::Node, name, why, format!("bring it back; if it is gone for good: kubectl delete node {name}"))
    };
    reason.controller = Some("kubelet".into());
    reason.alive = Some(status == "True");
    Some(reason)
}

/// Quotas that are used up, of those of a namespace.
#[must_use]
pub(crate) fn quotas<'a>(quotas: impl Iterator<Item = &'a Value>) -> Vec<Reason> {
    let mut reasons = Vec::new();
    for quota in quotas {
        let (hard, used) = (&quota["status"]["hard"], &quota["status"]["used"]);
        let full = |(name, limit): (&String, &Value)| {
            let (limit, used) = (limit.as_str()?, used[name].as_str()?);
            (limit == used).then(|| format!("{name} {used} of {limit}"))
        };
        let full: Vec<String> = hard.as_object().into_iter().flatten().filter_map(full).collect();
        if !full.is_empty() {
            let name = quota["metadata"]["name"].as_str().unwrap_or_default();
            let why = format!("{} used: nothing more of it can be made in this namespace", full.join(", "));
            reasons.push(Reason::new(What::Quota, name, why, "raise the quota, or remove what uses it"));
        }
    }
    reasons
}

#[cfg(test)]
#[path = "reasons_tests.rs"]
mod tests;
