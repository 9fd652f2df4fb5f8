//! Asking the cluster who could remove a finalizer: which workloads run, and which of them may change the object.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, StatefulSet},
    authorization::v1::{ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec},
    coordination::v1::Lease,
    core::v1::PodTemplateSpec,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, PostParams},
};
use serde_json::Value;
use tokio::sync::{Mutex, OnceCell};

use crate::{
    api::{CONCURRENT, again},
    finalizers::{Known, Workload, owner_words, writer},
    list::{Kind, Object, name_of},
    reasons::{Reason, What},
};

/// More workloads than this are not looked at.
const WORKLOADS: u32 = 500;
/// A controller manager renews its lease every few seconds.
const LEASE_AGE: Duration = Duration::from_secs(60);
/// How many candidates are named.
const NAMED: usize = 3;

/// Service account, API group, plural, namespace of the object.
type Question = (String, String, String, String);

/// What runs in the cluster, and what has been asked about it already.
pub(crate) struct Controllers<'a> {
    client: &'a Client,
    /// Nothing if they may not be listed.
    workloads: Option<Vec<Workload>>,
    /// Whether these are all of them.
    complete: bool,
    /// Whether the controller manager holds a lease; nothing if it has none, as where there is only one.
    manager: Option<bool>,
    asked: Mutex<HashMap<Question, Arc<OnceCell<Option<bool>>>>>,
}

impl<'a> Controllers<'a> {
    /// Looks at the cluster. What may not be looked at is not known.
    pub(crate) async fn look(client: &'a Client) -> Self {
        let (workloads, manager) = tokio::join!(workloads(client), manager(client));
        let (workloads, complete) = workloads.map_or((None, false), |(found, complete)| (Some(found), complete));
        Self { client, workloads, complete, manager, asked: Mutex::default() }
    }

    /// Fills in what is known of the controller of a finalizer that the table knows.
    pub(crate) async fn complete(&self, reason: &mut Reason, known: &Known, object: &Object, kind: &Kind) {
        if known.controller == "kube-controller-manager" {
            reason.alive = self.manager;
        }
        let (Some((namespace, name)), Some(workloads)) = (known.workload(), &self.workloads) else { return };
        match workloads.iter().find(|workload| workload.namespace == namespace && workload.name == name) {
            Some(workload) => {
                reason.controller = Some(workload.shown());
                reason.alive = Some(workload.alive());
                reason.allowed = self.may(workload, kind, &object.key.namespace).await;
            }
            // Somebody may have installed it elsewhere.
            None => match workloads.iter().find(|workload| workload.name == name) {
                Some(other) => {
                    let other = other.shown();
                    reason.why = format!("{}, and {namespace}/{name} is not there; {other} is", reason.why);
                    reason.next = format!("is {other} its controller? see its log; if it is not: {}", by_force(kind));
                }
                None if !self.complete => {
                    reason.next = format!("is {namespace}/{name} there? there are too many workloads to look at all");
                }
                None => {
                    reason.alive = Some(false);
                    reason.why = format!("{}, and {namespace}/{name} is not installed", reason.why);
                    reason.next = by_force(kind);
                }
            },
        }
    }

    /// Who could remove a finalizer that no table knows.
    pub(crate) async fn of(&self, finalizer: &str, object: &Object, kind: &Kind, body: &Value) -> Reason {
        let written = writer(body, finalizer);
        let by = written.as_ref().map_or_else(String::new, |writer| format!("set by '{writer}'; "));
        let reason = |why: String, next: String| Reason::new(What::Finalizer, finalizer, format!("{by}{why}"), next);
        let Some(workloads) = &self.workloads else {
            return reason("who may remove it cannot be looked at".into(), "find its controller; is it alive?".into());
        };
        let words = owner_words(finalizer, written.as_deref());
        let asked = stream::iter(workloads).map(|workload| {
            let fits = workload.fits(&words);
            async move { (workload, fits, self.may(workload, kind, &object.key.namespace).await) }
        });
        let asked: Vec<_> = asked.buffered(CONCURRENT).collect().await;
        let unsure: Vec<_> = asked.iter().filter(|(.., may)| may.is_none()).map(|(one, ..)| one.shown()).collect();
        // An unknown answer counts for those whose names fit: somebody should look.
        let mut candidates: Vec<_> = asked.into_iter().filter(|(_, fits, may)| *fits || *may == Some(true)).collect();
        candidates.sort_by_key(|(_, fits, may)| std::cmp::Reverse((*may != Some(false), *fits)));
        candidates.truncate(NAMED);
        if candidates.is_empty() && (!unsure.is_empty() || !self.complete) {
            let why = match unsure.len() {
                0 => "there are too many workloads to look at all".to_owned(),
                some => format!("no workload is named like it, and {some} may do everything"),
            };
            let these =
                if unsure.is_empty() { "one of them".into() } else { unsure[..unsure.len().min(NAMED)].join(", or ") };
            return reason(why, format!("is {these} its controller? see its log; if none is: {}", by_force(kind)));
        }
        if candidates.is_empty() {
            let mut gone =
                reason("no workload of this cluster may remove it: its controller is gone".into(), by_force(kind));
            gone.alive = Some(false);
            return gone;
        }
        let able: Vec<_> = candidates.iter().filter(|(_, _, may)| *may != Some(false)).collect();
        let alive = able.iter().any(|(workload, ..)| workload.alive());
        let shown: Vec<_> = candidates.iter().map(|(workload, ..)| workload.shown()).collect();
        let Workload { kind: sort, namespace, name, account, .. } = candidates[0].0;
        let sort = sort.to_lowercase();
        let (why, next) = if able.is_empty() {
            let next = format!(
                "let service account {namespace}/{account} update {}; or {}",
                name_of(&kind.resource),
                by_force(kind)
            );
            ("who seems to be its controller may not change such objects any more", next)
        } else if alive {
            ("its controller has not removed it", format!("see why: kubectl logs -n {namespace} {sort}/{name}"))
        } else {
            ("its controller does not run", format!("see why: kubectl describe -n {namespace} {sort}/{name}"))
        };
        let mut reason = reason(why.into(), next);
        reason.controller = Some(shown.join(", or "));
        reason.alive = Some(alive || able.is_empty() && candidates.iter().any(|(workload, ..)| workload.alive()));
        reason.allowed = Some(!able.is_empty());
        reason
    }

    /// Whether the pods of a workload may change objects of a kind. Accounts that may do everything are asked
    /// about nothing: that they may says nothing about whose the object is.
    async fn may(&self, workload: &Workload, kind: &Kind, namespace: &str) -> Option<bool> {
        let account = format!("{}:{}", workload.namespace, workload.account);
        let resource = &kind.resource;
        if self.ask((account.clone(), "*".into(), "*".into(), String::new())).await == Some(true) {
            return None;
        }
        self.ask((account, resource.group.clone(), resource.plural.clone(), namespace.to_owned())).await
    }

    /// The answer to a question, which is asked once, also when several want to know it at the same time.
    async fn ask(&self, question: Question) -> Option<bool> {
        let cell = Arc::clone(self.asked.lock().await.entry(question.clone()).or_default());
        *cell.get_or_init(|| review(self.client, &question)).await
    }
}

/// The command that takes the finalizers off objects of a kind.
fn by_force(kind: &Kind) -> String {
    format!(
        "install it again; or, if what it stands for is of no use: cargo xtask cleanup run --force-finalizers={}",
        name_of(&kind.resource)
    )
}

async fn review(client: &Client, (account, group, plural, namespace): &Question) -> Option<bool> {
    let (home, _) = account.split_once(':')?;
    let attributes = ResourceAttributes {
        verb: Some(if group == "*" { "*" } else { "update" }.into()),
        group: Some(group.clone()),
        resource: Some(plural.clone()),
        namespace: Some(namespace.clone()).filter(|namespace| !namespace.is_empty()),
        ..ResourceAttributes::default()
    };
    let groups =
        ["system:serviceaccounts".into(), format!("system:serviceaccounts:{home}"), "system:authenticated".into()];
    let spec = SubjectAccessReviewSpec {
        user: Some(format!("system:serviceaccount:{account}")),
        groups: Some(groups.into()),
        resource_attributes: Some(attributes),
        ..SubjectAccessReviewSpec::default()
    };
    let review = SubjectAccessReview { spec, ..SubjectAccessReview::default() };
    let (api, params) = (Api::<SubjectAccessReview>::all(client.clone()), PostParams::default());
    let answer = again(|| api.create(&params, &review)).await.ok()?;
    answer.status.map(|status| status.allowed)
}

async fn manager(client: &Client) -> Option<bool> {
    let leases = Api::<Lease>::namespaced(client.clone(), "kube-system");
    let lease = again(|| leases.get_opt("kube-controller-manager")).await.ok()??;
    let renewed = lease.spec?.renew_time?.0;
    Some(Timestamp::now().duration_since(renewed).unsigned_abs() < LEASE_AGE)
}

/// The workloads, and whether these are all.
async fn workloads(client: &Client) -> Option<(Vec<Workload>, bool)> {
    let list = ListParams::default().limit(WORKLOADS);
    let deployments = Api::<Deployment>::all(client.clone());
    let sets = Api::<StatefulSet>::all(client.clone());
    let daemons = Api::<DaemonSet>::all(client.clone());
    let (deployments, sets, daemons) =
        tokio::try_join!(again(|| deployments.list(&list)), again(|| sets.list(&list)), again(|| daemons.list(&list)))
            .ok()?;
    let more = [&deployments.metadata, &sets.metadata, &daemons.metadata];
    let complete = more.iter().all(|list| list.continue_.as_ref().is_none_or(String::is_empty));
    let mut found = Vec::new();
    for deployment in deployments {
        let (spec, status) = (deployment.spec.clone(), deployment.status.clone().unwrap_or_default());
        let (ready, wanted) = (status.ready_replicas.unwrap_or(0), spec.replicas.unwrap_or(1));
        found.push(workload("Deployment", &deployment, &spec.template, ready, wanted));
    }
    for set in sets {
        let (spec, status) = (set.spec.clone(), set.status.clone().unwrap_or_default());
        let (ready, wanted) = (status.ready_replicas.unwrap_or(0), spec.replicas.unwrap_or(1));
        found.push(workload("StatefulSet", &set, &spec.template, ready, wanted));
    }
    for daemon in daemons {
        let (spec, status) = (daemon.spec.clone(), daemon.status.clone().unwrap_or_default());
        found.push(workload(
            "DaemonSet",
            &daemon,
            &spec.template,
            status.number_ready,
            status.desired_number_scheduled,
        ));
    }
    Some((found, complete))
}

fn workload(
    kind: &'static str,
    of: &impl ResourceExt,
    template: &PodTemplateSpec,
    ready: i32,
    wanted: i32,
) -> Workload {
    let account = template.spec.as_ref().and_then(|spec| spec.service_account_name.clone());
    Workload {
        kind,
        namespace: of.namespace().unwrap_or_default(),
        name: of.name_any(),
        account: account.filter(|account| !account.is_empty()).unwrap_or_else(|| "default".into()),
        ready,
        wanted,
    }
}
