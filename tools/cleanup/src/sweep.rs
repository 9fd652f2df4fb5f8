//! `sweep`: namespaces that tests left on a cluster that others use as well, by label and age. It needs no run and
//! no baseline, and no more rights than `ci/sweep.yaml` gives.

use std::time::Duration;

use cluster::{LeaseState, NAMESPACE, Opened, Source, lease};
use futures::{StreamExt, TryStreamExt, stream};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kit::{Cause, Done, Error, Output, Result, Ui, record::ObjectKey, ui::printable};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Preconditions},
    core::PartialObjectMeta,
};
use serde::Serialize;

use crate::{
    access,
    api::{CONCURRENT, again, answered, code, patiently},
    blockers::Servers,
    gone::{self, Pending},
    list::{self, Kind, Listing, Object},
    reasons::{self, Reason},
    remove::GRACE,
    rules::RULES,
    select::{Age, Label},
};

/// Namespaces that are worked on at the same time: others want an answer of the API server as well.
const TOGETHER: usize = 8;
/// Namespaces a page.
const PAGE: u32 = 500;

/// Which namespaces.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct SweepArgs {
    /// Namespaces with this label (repeated: with all of them), for instance tekton.dev/test-e2e=true; their pods get
    /// one second to end
    #[arg(long = "label", value_name = "KEY[=VALUE]", required = true)]
    labels: Vec<Label>,
    /// Only those that are older: 90s, 30m, 2h, 3d
    #[arg(long, value_name = "AGE", default_value = "2h")]
    older_than: Age,
    /// Print which would go, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// The cluster that is meant, by the UID of its namespace kube-system; needed but for labs and
    /// --kubeconfig in-cluster
    #[arg(long, value_name = "UID")]
    cluster_uid: Option<String>,
    /// The longest wait, in seconds, until they are gone
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    budget: u64,
    /// The cluster.
    #[command(flatten)]
    cluster: cluster::Options,
}

/// What came of it.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Swept {
    /// The cluster's UID.
    cluster: String,
    /// Namespaces that are gone, or would go.
    swept: Vec<String>,
    /// Those that a run uses which holds the cluster.
    spared: Vec<String>,
    /// Those that are still there.
    left: Vec<Left>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Left {
    namespace: String,
    reasons: Vec<Reason>,
}

/// A namespace that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    name: String,
    uid: String,
    created: Timestamp,
}

/// Removes them.
///
/// # Errors
/// [`Cause::Usage`] for a cluster that is not named, [`Cause::Auth`] naming what is not allowed, before anything is
/// deleted; otherwise as [`cluster::cause_of`] says.
pub(crate) fn run(args: &SweepArgs, ui: &Ui) -> Result<Done> {
    cluster::block_on(async {
        let opened = cluster::open(&args.cluster, ui).await?;
        let client = &opened.client;
        let uid = meant(args, &opened).await?;
        let holder = holder(client, ui).await?;
        let now = Timestamp::now();
        let (found, spared) = sort(labelled(client, &args.labels).await?, args.older_than.before(now), &holder, now);
        let mut swept = Swept { cluster: uid, spared, ..Swept::default() };
        if args.dry_run {
            swept.swept = found.into_iter().map(|found| found.name).collect();
            report(&swept, true, ui)?;
            return Ok(Done::good());
        }
        if !found.is_empty() {
            sweep(client, &found, Duration::from_secs(args.budget), &mut swept, ui).await?;
        }
        report(&swept, false, ui)?;
        Ok(if swept.left.is_empty() { Done::good() } else { Done::found(Cause::NotAtBaseline) })
    })
}

/// The cluster's UID. One that others use is only swept when the call says which it is.
async fn meant(args: &SweepArgs, opened: &Opened) -> Result<String> {
    let namespaces = Api::<Namespace>::all(opened.client.clone());
    let system = patiently(|| "cannot read the namespace kube-system".into(), || namespaces.get("kube-system")).await?;
    let uid = system.uid().unwrap_or_default();
    let own = opened.lab.is_some() || args.cluster.source()? == Source::InCluster;
    match &args.cluster_uid {
        Some(named) if *named != uid => {
            Err(Error::new(Cause::Usage, format!("--cluster-uid names cluster {named}, and this is cluster {uid}")))
        }
        None if !own => Err(Error::new(Cause::Usage, format!("cluster {uid} ({}) is not named", opened.name))
            .next(format!("if it is really the one to sweep: --cluster-uid {uid}"))),
        _ => Ok(uid),
    }
}

/// Who holds the cluster. Where nobody may look, nobody is known to.
async fn holder(client: &Client, ui: &Ui) -> Result<LeaseState> {
    match lease::show(client).await {
        Err(error) if error.cause == Cause::Auth => {
            ui.warn("may not read the lease: a run that holds the cluster is not known, and only the age counts");
            Ok(LeaseState::default())
        }
        other => other,
    }
}

async fn labelled(client: &Client, labels: &[Label]) -> Result<Vec<PartialObjectMeta<Namespace>>> {
    let selector: Vec<_> = labels.iter().map(ToString::to_string).collect();
    let namespaces = Api::<Namespace>::all(client.clone());
    let mut params = ListParams::default().labels(&selector.join(",")).limit(PAGE);
    let mut found = Vec::new();
    loop {
        let page = patiently(|| "cannot list the namespaces".into(), || namespaces.list_metadata(&params)).await?;
        params.continue_token = page.metadata.continue_.clone().filter(|next| !next.is_empty());
        found.extend(page.items);
        if params.continue_token.is_none() {
            return Ok(found);
        }
    }
}

/// Those that go, and the names of those that a living run may use.
fn sort(
    namespaces: Vec<PartialObjectMeta<Namespace>>,
    before: Timestamp,
    holder: &LeaseState,
    now: Timestamp,
) -> (Vec<Found>, Vec<String>) {
    let mut found = Vec::new();
    let mut spared = Vec::new();
    for namespace in namespaces {
        let name = namespace.name_any();
        let Some(created) = namespace.creation_timestamp().map(|time| time.0) else { continue };
        if RULES.protected(&key(&name)) || name == NAMESPACE || created >= before {
            continue;
        }
        // The API server says only the second in which something was made.
        let after = |since: Timestamp| created.as_second() >= since.as_second();
        let of_holder = holder.holder.is_some() && !holder.expired(now) && holder.since.is_none_or(after);
        if of_holder {
            spared.push(name);
        } else {
            found.push(Found { name, uid: namespace.uid().unwrap_or_default(), created });
        }
    }
    // The oldest first: what is new may not be needed to go at all when the time is over.
    found.sort_by_key(|found| found.created);
    (found, spared)
}

fn key(name: &str) -> ObjectKey {
    ObjectKey { api_version: "v1".into(), kind: "Namespace".into(), namespace: String::new(), name: name.into() }
}

async fn sweep(client: &Client, found: &[Found], limit: Duration, swept: &mut Swept, ui: &Ui) -> Result<()> {
    if !access::may(client, "delete", "", "namespaces").await? {
        return Err(Error::new(Cause::Auth, "may not delete namespaces")
            .next("nothing was changed; ci/sweep.yaml has the role that is needed"));
    }
    let kinds = hurried(client).await?;
    let step = ui.step(format!("sweeping {} namespaces", found.len()));
    let answers = stream::iter(found).map(|found| {
        let kinds = &kinds;
        async move { (found, sweep_one(client, found, kinds).await) }
    });
    let mut answers = std::pin::pin!(answers.buffer_unordered(TOGETHER));
    let mut pending = Pending::default();
    let resource = ApiResource::erase::<Namespace>(&());
    while let Some((found, answer)) = answers.next().await {
        match answer {
            Ok(true) => pending.add(&resource, &found.uid, &key(&found.name)),
            Ok(false) => {}
            Err(error) => {
                // One that is refused keeps no other from going.
                ui.warn(printable(&format!("{} was not deleted: {}", found.name, cluster::describe(&error))));
                pending.add(&resource, &found.uid, &key(&found.name));
            }
        }
    }
    let left = gone::wait(client, pending, limit, &step).await;
    let left: Vec<_> = left.iter().map(|(_, uid, key)| (uid.clone(), key.clone())).collect();
    step.done(format!("{} gone, {} left", found.len() - left.len(), left.len()));
    let still: Vec<&str> = left.iter().map(|(_, key)| key.name.as_str()).collect();
    let gone = found.iter().filter(|found| !still.contains(&found.name.as_str()));
    swept.swept = gone.map(|found| found.name.clone()).collect();
    for (uid, key) in left {
        swept.left.push(Left { reasons: why(client, &uid, &key).await, namespace: key.name });
    }
    Ok(())
}

/// What may take long in a namespace and is asked for at once: pods, with [`GRACE`] because whatever is in a namespace of
/// tests is the tests' own, and custom resources, whose controllers live on. The namespace controller would begin with them only after some seconds, and look again later still.
async fn hurried(client: &Client) -> Result<Vec<Kind>> {
    let custom = |group: &str| group.contains('.') && !group.ends_with(".k8s.io");
    let (kinds, _) = list::discover(client).await?;
    let kinds = kinds.into_iter().filter(|kind| {
        let (group, name) = (&kind.resource.group, &kind.resource.kind);
        kind.namespaced && kind.deletable && (custom(group) || (group.is_empty() && name == "Pod"))
    });
    let allowed = stream::iter(kinds).map(|kind| async move {
        let may = access::may(client, "deletecollection", &kind.resource.group, &kind.resource.plural).await?;
        Ok::<_, Error>(may.then_some(kind))
    });
    allowed.buffered(CONCURRENT).try_filter_map(|kind| async { Ok(kind) }).try_collect().await
}

/// Asks for one namespace; says whether it is still there.
async fn sweep_one(client: &Client, found: &Found, kinds: &[Kind]) -> Result<bool, kube::Error> {
    let namespaces = Api::<Namespace>::all(client.clone());
    let uid = Preconditions { uid: Some(found.uid.clone()), resource_version: None };
    let params = DeleteParams { preconditions: Some(uid), ..DeleteParams::background() };
    match again(|| namespaces.delete(&found.name, &params)).await {
        Err(error) if code(&error) == Some(404) => return Ok(false),
        // Either another one of this name, which is not ours; or it is going already, which it says when asked.
        Err(error) if code(&error) == Some(409) => {
            let now = again(|| namespaces.get_opt(&found.name)).await?;
            let same = now.filter(|now| now.uid().as_deref() == Some(&found.uid));
            if same.is_none_or(|same| same.metadata.deletion_timestamp.is_none()) {
                return Ok(false);
            }
        }
        other => drop(other?),
    }
    // From here on nobody can make anything new in it, nor another one of this name.
    let all = ListParams::default();
    let hurry = stream::iter(kinds).map(|kind| {
        let api = Api::<DynamicObject>::namespaced_with(client.clone(), &found.name, &kind.resource);
        let params = DeleteParams::background();
        let params = if kind.resource.group.is_empty() { params.grace_period(GRACE) } else { params };
        let all = &all;
        // It only saves time: what it misses, the namespace controller does.
        async move { drop(answered(api.delete_collection(&params, all)).await) }
    });
    hurry.buffer_unordered(CONCURRENT).collect::<()>().await;
    Ok(true)
}

/// Why a namespace is still there.
async fn why(client: &Client, uid: &str, key: &ObjectKey) -> Vec<Reason> {
    let namespaces = Api::<Namespace>::all(client.clone());
    let Ok(Some(namespace)) = again(|| namespaces.get_opt(&key.name)).await else { return vec![] };
    let body = serde_json::to_value(&namespace).unwrap_or_default();
    let nothing = Listing::default();
    let object = Object::named(key.clone(), uid);
    reasons::of(&object, &body, &nothing, &Servers::new(&nothing))
}

fn report(swept: &Swept, dry: bool, ui: &Ui) -> Result<()> {
    if ui.output == Output::Json {
        return ui.json(swept);
    }
    let mut lines: Vec<String> = Vec::new();
    let how = if dry { "would go, with everything in it" } else { "gone" };
    lines.extend(swept.swept.iter().map(|name| format!("{name}  ({how})")));
    lines.extend(swept.spared.iter().map(|name| format!("{name}  (stays: the run that holds the cluster made it)")));
    for Left { namespace, reasons } in &swept.left {
        lines.push(format!("{namespace}  (still there)"));
        lines.extend(reasons.iter().map(|reason| format!("    {}", reason.text())));
    }
    if lines.is_empty() {
        lines.push("nothing to sweep".into());
    }
    ui.result(&printable(&lines.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn namespace(name: &str, created: &str) -> PartialObjectMeta<Namespace> {
        let metadata = json!({"name": name, "uid": format!("uid-{name}"), "creationTimestamp": created});
        serde_json::from_value(
            json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": metadata}),
        )
        .unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn names(holder: &LeaseState) -> (Vec<String>, Vec<String>) {
        let all = vec![
            namespace("young", "2026-01-01T11:30:00Z"),
            namespace("middle", "2026-01-01T09:00:00Z"),
            namespace("old", "2026-01-01T01:00:00Z"),
            namespace("kube-system", "2025-01-01T00:00:00Z"),
            namespace("default", "2025-01-01T00:00:00Z"),
            namespace("other-arch", "2025-01-01T00:00:00Z"),
        ];
        let (found, spared) = sort(all, at("2026-01-01T10:00:00Z"), holder, at("2026-01-01T12:00:00Z"));
        (found.into_iter().map(|found| found.name).collect(), spared)
    }

    #[test]
    fn only_the_old_go_and_never_the_clusters_own() {
        assert_eq!(names(&LeaseState::default()), (vec!["old".to_owned(), "middle".to_owned()], vec![]));
    }

    #[test]
    fn what_a_living_run_made_stays() {
        let held = |since: &str, expires: &str| LeaseState {
            holder: Some("r1".into()),
            since: Some(at(since)),
            expires: Some(at(expires)),
            dirty: None,
        };
        let living = held("2026-01-01T08:00:00Z", "2026-01-01T12:10:00Z");
        assert_eq!(names(&living), (vec!["old".to_owned()], vec!["middle".to_owned()]));
        let same_second = held("2026-01-01T09:00:00.5Z", "2026-01-01T12:10:00Z");
        assert_eq!(names(&same_second), names(&living));
        let dead = held("2026-01-01T08:00:00Z", "2026-01-01T11:00:00Z");
        assert_eq!(names(&dead).1, Vec::<String>::new());
    }

    #[test]
    fn what_is_left_is_explained() {
        let reasons = vec![Reason::new(reasons::What::Content, "X", "1 left", "look")];
        let swept =
            Swept { swept: vec!["a".into()], left: vec![Left { namespace: "b".into(), reasons }], ..Swept::default() };
        let json = serde_json::to_value(&swept).unwrap();
        assert_eq!(
            json["left"][0]["reasons"][0],
            json!({"what": "content", "name": "X", "why": "1 left", "next": "look"})
        );
    }
}
