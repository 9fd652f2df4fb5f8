//! `run`: the cluster goes back to its baseline, and the record proves it.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::{Mutex, MutexGuard, PoisonError},
};

use cluster::Guard;
use jiff::Timestamp;
use kit::{
    Cause, Done, Error, Result, RunDir, Ui,
    record::{Baseline, Cleanup, CleanupHistory, ClusterId, Difference, Head, Input, Install, ObjectKey},
    rundir::{self, read_record, write_record},
};

use kube::{Client, api::ApiResource};

use crate::{
    TOOL, VERSION,
    begin::First,
    blockers::Servers,
    budget::{self, Budget, Forced},
    diff, explain, health,
    list::{self, Listing, Object},
    order::{World, plan},
    passes::Passes,
    report,
    scene::{Before, Kept, Now, Place, Scene},
    select::{Chosen, Selection},
    state,
};

/// The record of a cleanup of a part.
const PART: &str = "cleanup-part.json";

/// How to go back.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) place: Place,
    #[command(flatten)]
    pub(crate) selection: Selection,
    /// Print exactly what would go and what would be put back, and change nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Take finalizers off objects of these kinds that do not go within the budget (without a value: of all
    /// kinds); each is recorded
    #[arg(
        long,
        value_name = "KIND,…",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "*",
        value_delimiter = ','
    )]
    pub(crate) force_finalizers: Vec<Forced>,
    /// Clean this cluster although it does not remember the baseline: the UID of its namespace kube-system
    #[arg(long, value_name = "UID")]
    pub(crate) cluster_uid: Option<String>,
    /// How long stages may take, in seconds: objects (all of it), finalizers (the longest wait for those that
    /// somebody may still see to), force [default: objects=300,finalizers=60,force=60]
    #[arg(long, value_name = "STAGE=SECONDS,…", value_delimiter = ',')]
    pub(crate) budget: Vec<budget::Part>,
    /// The runs whose cleanups tell whether the cluster is sick [default: those beside this run]
    #[arg(long, value_name = "DIR")]
    pub(crate) history: Option<PathBuf>,
}

impl RunArgs {
    /// The time of the stages.
    pub(crate) fn budget(&self) -> Budget {
        Budget::with(&self.budget)
    }

    /// Whether finalizers of this kind may go by force.
    pub(crate) fn forces(&self, resource: &ApiResource) -> bool {
        self.force_finalizers.iter().any(|forced| forced.means(resource))
    }

    /// Whether any may.
    pub(crate) fn forces_at_all(&self) -> bool {
        !self.force_finalizers.is_empty()
    }

    /// The command that does the same again.
    fn command(&self) -> String {
        let mut words = self.selection.arguments();
        words.extend(self.force_finalizers.iter().map(|kind| format!("--force-finalizers={kind}")));
        words.extend(self.cluster_uid.iter().flat_map(|uid| ["--cluster-uid".to_owned(), uid.clone()]));
        let words: Vec<_> = words.iter().map(|word| kit::process::quote(word)).collect();
        format!("{} {}", self.place.command("run"), words.join(" ")).trim_end().to_owned()
    }
}

/// What has been done so far, kept apart so that it is recorded also when a signal ends the work.
#[derive(Debug, Default)]
pub(crate) struct Tally(Mutex<Progress>);

#[derive(Debug, Default)]
struct Progress {
    /// Cell, cluster, digest of the baseline if there is one.
    about: Option<(PathBuf, ClusterId, Option<String>)>,
    /// What was selected, in words.
    selection: Option<Vec<String>>,
    /// Nodes that took pods when the baseline was taken, and do not now.
    away: Vec<String>,
    seen: HashMap<String, ObjectKey>,
    left: Vec<String>,
    restored: Vec<ObjectKey>,
    forced: Vec<ObjectKey>,
    recreated: Vec<String>,
    difference: Option<Difference>,
    unproven: Vec<String>,
    ended: bool,
}

impl Tally {
    fn get(&self) -> MutexGuard<'_, Progress> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a look at the cluster found.
    pub(crate) fn saw(&self, now: &Now<'_>) {
        let mut tally = self.get();
        tally.seen.extend(now.added.iter().map(|object| (object.uid.clone(), object.key.clone())));
        tally.left = now.added.iter().map(|object| object.uid.clone()).collect();
        tally.difference = Some(now.difference.clone());
        tally.unproven.clone_from(&now.unproven);
    }

    /// Finalizers of it were removed by force.
    pub(crate) fn forced(&self, key: &ObjectKey) {
        self.get().forced.push(key.clone());
    }

    /// It is made again whenever it goes.
    pub(crate) fn recreated(&self, line: String) {
        self.get().recreated.push(line);
    }

    /// These were put back.
    pub(crate) fn restored(&self, keys: &[ObjectKey]) {
        let mut tally = self.get();
        for key in keys {
            if !tally.restored.contains(key) {
                tally.restored.push(key.clone());
            }
        }
    }

    fn clean(&self) -> bool {
        let tally = self.get();
        tally.unproven.is_empty() && tally.difference.as_ref().is_some_and(Difference::is_empty)
    }

    /// The last stage that was needed. Only work that came to its end can say that more is needed.
    fn stage(&self) -> &'static str {
        let clean = self.clean();
        let tally = self.get();
        let nothing = tally.seen.is_empty() && tally.restored.is_empty();
        match tally.forced.is_empty() {
            // Of a part it is not known whether the rest of the cluster is good.
            _ if tally.ended && !clean && tally.selection.is_none() => "needs-recreate",
            false => "force",
            true if nothing => "none",
            true => "objects",
        }
    }

    fn record(&self, head: Head) -> Option<(PathBuf, Cleanup)> {
        let stage = self.stage().to_owned();
        let tally = self.get();
        let (cell, cluster, baseline) = tally.about.clone()?;
        let mut deleted: BTreeMap<String, usize> = BTreeMap::new();
        for (_, key) in tally.seen.iter().filter(|(uid, _)| !tally.left.contains(uid)) {
            *deleted.entry(key.kind.clone()).or_default() += 1;
        }
        let inputs = baseline.map(|digest| Input { name: "baseline.json".into(), digest }).into_iter().collect();
        let record = Cleanup {
            head: Head { inputs, ..head },
            cluster,
            stage,
            deleted,
            restored: tally.restored.clone(),
            forced: tally.forced.clone(),
            selection: tally.selection.clone().unwrap_or_default(),
            recreated: tally.recreated.clone(),
            history: None,
            difference: tally.difference.clone().unwrap_or_default(),
        };
        Some((cell, record))
    }
}

/// Goes back to the baseline.
///
/// # Errors
/// [`Cause::Usage`] for a cluster that is not the baseline's, or that does not remember it;
/// [`Cause::LeaseHeld`] while another run uses it; [`Cause::Auth`] naming what is not allowed, before
/// anything is deleted; otherwise as [`cluster::cause_of`] says.
pub(crate) fn run(args: &RunArgs, ui: &Ui) -> Result<Done> {
    let started = Timestamp::now();
    let part = args.selection.is_any();
    // A part may be removed where no run has begun.
    let run = if part { RunDir::create(&args.place.run_dir)? } else { RunDir::open(&args.place.run_dir)? };
    if args.dry_run {
        return cluster::block_on(dry_run(args, &run, ui)).map(|()| Done::good());
    }
    let tally = Tally::default();
    tally.get().about = recorded_cell(&args.place, &run);
    tally.get().selection = part.then(Vec::new);
    let result = cluster::block_on(work(args, &run, &tally, ui));
    tally.get().ended = result.is_ok();
    let head = Head::new(TOOL, VERSION, &run.id(), started);
    let head = match &result {
        Ok(()) if tally.clean() => head,
        Ok(()) => head.failed(&not_at_baseline(&tally)).reproduce(args.command()),
        Err(error) => head.failed(error).reproduce(args.command()),
    };
    let Some((cell, mut record)) = tally.record(head) else { return result.map(|()| Done::good()) };
    // A part says nothing about the whole, so it is a record of another name.
    let digest = if part {
        rundir::write_json(&cell.join(PART), &record)?
    } else {
        let history = || health::history(run.path(), args.history.as_deref(), &record.cluster.uid, &record.stage);
        record.history = result.is_ok().then(history);
        write_record(&cell, &record)?
    };
    result?;
    if let Some(CleanupHistory { cleanups, late, sick: true }) = record.history {
        let cluster = &record.cluster.name;
        ui.warn(format!("{cluster} is sick: {late} of its last {cleanups} cleanups needed force or a new cluster"));
    }
    if record.stage == "needs-recreate" {
        ui.warn("needs-recreate: this cluster does not get back; make it anew (a lab: cargo xtask lab down, then up)");
    }
    report::cleanup(&record, ui)?;
    let done = record.head.cause.map_or_else(Done::good, Done::found);
    Ok(done.digest(digest))
}

/// The cell whose baseline there is, as long as the cluster has not said which one it is: also a
/// cluster that does not answer gets a record.
fn recorded_cell(place: &Place, run: &RunDir) -> Option<(PathBuf, ClusterId, Option<String>)> {
    let folder = run.component(&rundir::slug(&place.component)).join(place.platform.dir());
    let cells = std::fs::read_dir(folder).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found = cells.filter_map(|cell| {
        let (baseline, digest) = read_record::<Baseline>(&cell).ok()?;
        Some((cell, baseline.cluster, Some(digest)))
    });
    // With several it is not known which one was meant.
    found.next().filter(|_| found.next().is_none())
}

/// The nodes that took pods then and do not now.
fn away(then: &ClusterId, now: &ClusterId) -> Vec<String> {
    let there = |name: &str| now.nodes.iter().any(|node| node.ready && node.name == name);
    let took = then.nodes.iter().filter(|node| node.ready && !there(&node.name));
    took.map(|node| node.name.clone()).collect()
}

/// What is left on a node that is away cannot end: that is the node's doing.
fn not_at_baseline(tally: &Tally) -> Error {
    let tally = tally.get();
    let differ = tally.difference.as_ref().map_or(0, Difference::len);
    let what = if tally.selection.is_some() { "of what was selected are left" } else { "differ from the baseline" };
    let mut message = format!("{differ} objects {what}, {} kinds cannot be looked at", tally.unproven.len());
    for line in &tally.recreated {
        message = format!("{message}; {line}");
    }
    if tally.away.is_empty() {
        return Error::new(Cause::NotAtBaseline, message);
    }
    let (names, next) = (tally.away.join(", "), "bring the nodes back, or remove them, and clean again");
    Error::new(Cause::Node, format!("{message}; away: {names}, so that what runs there does not end")).next(next)
}

async fn work(args: &RunArgs, run: &RunDir, tally: &Tally, ui: &Ui) -> Result<()> {
    let (scene, (kept, first)) = Scene::open_and(&args.place, run, ui, First::ask).await?;
    scene.named(args.cluster_uid.as_deref())?;
    let client = &scene.opened.client;
    let before = before(args, &scene, kept, ui).await?;
    tally.get().about = Some((scene.cell.clone(), scene.id.clone(), before.digest.clone()));
    tally.get().away = away(&before.baseline.cluster, &scene.id);
    if let Some(chosen) = &before.chosen {
        tally.get().selection = Some(chosen.words.clone());
    }
    authorised(args, &scene, &before).await?;
    let (mut guard, listing) = first.take(args, &scene, &before, ui).await?;
    if let Some(dirty) = guard.dirty().filter(|_| before.chosen.is_none()) {
        ui.note(format!("this also cleans what run {dirty} left"));
    }
    let installed = installed(&scene);
    let passes = Passes::new(client, &before, args, installed.as_deref(), tally, ui);
    let listing = passes.run(&guard, listing).await?;
    if !tally.clean() {
        let now = before.compare(&listing);
        report::unproven(&now.unproven, ui);
        explain::remaining(client, &before, &listing, ui).await;
        return Ok(());
    }
    if let Some(chosen) = &before.chosen {
        return part_done(client, chosen, &before, guard, &args.place.component).await;
    }
    if state::forget(client, before.state.as_ref(), &scene.run, &args.place.component).await? {
        return Ok(());
    }
    guard.adopt().await?;
    guard.release().await
}

/// What a selection's end means for our own state: an inventory goes with its installation, a baseline stays.
async fn part_done(client: &Client, chosen: &Chosen, before: &Before, guard: Guard, component: &str) -> Result<()> {
    let component = if chosen.installation { component } else { "" };
    let nothing_left = state::forget(client, None, "", component).await?;
    // With a baseline the run goes on, and holds the cluster.
    if nothing_left || before.state.is_some() { Ok(()) } else { guard.release().await }
}

/// What the cluster is compared with: the baseline, or a part that the call selects.
async fn before(args: &RunArgs, scene: &Scene, kept: Kept, ui: &Ui) -> Result<Before> {
    match args.selection.resolve(&scene.opened.client, &args.place.component).await? {
        Some(chosen) => scene.part(kept, chosen, ui),
        None => {
            let before = scene.at(kept)?;
            same_version(&before.baseline.cluster.kubernetes, &scene.id.kubernetes)?;
            Ok(before)
        }
    }
}

/// An upgrade changes much of what Kubernetes itself keeps in a cluster, and nobody wants that put back.
fn same_version(then: &str, now: &str) -> Result<()> {
    let minor = |version: &str| version.trim_start_matches('v').split('.').take(2).collect::<Vec<_>>().join(".");
    if minor(then) == minor(now) {
        return Ok(());
    }
    let what = format!("the baseline is of Kubernetes {then}, and the cluster has {now} now");
    Err(Error::new(Cause::Usage, what).next(
        "what the upgrade changed would be put back; look with `cleanup diff`, remove a part (--inventory, --label, …), and take a new snapshot",
    ))
}

/// A cluster is only cleaned if it remembers the baseline, or if the call names it.
async fn authorised(args: &RunArgs, scene: &Scene, before: &Before) -> Result<()> {
    let uid = &scene.id.uid;
    match &args.cluster_uid {
        Some(named) if named != uid => {
            Err(Error::new(Cause::Usage, format!("--cluster-uid names cluster {named}, and this is cluster {uid}")))
        }
        Some(_) => Ok(()),
        None if before.state.is_some() => Ok(()),
        // Something of ours is installed there, and of ours something is to go.
        None if before.digest.is_none()
            && before.is_ours()
            && !cluster::inventory::list(&scene.opened.client).await?.is_empty() =>
        {
            Ok(())
        }
        // A cleanup that was done already is no reason to fail when it is asked for again.
        None if before.compare(&list::list(&scene.opened.client, before.with()).await?).is_clean() => Ok(()),
        None => {
            let lacks = match before.digest {
                Some(_) => "does not remember this baseline",
                None if before.is_ours() => "holds no inventory of ours",
                None => "is not named, and a label or an age alone may select what is not ours",
            };
            Err(Error::new(Cause::Usage, format!("cluster {uid} ({}) {lacks}", scene.id.name))
                .next(format!("if it is really the one to clean: --cluster-uid {uid}")))
        }
    }
}

/// The namespaces that the component was installed into, if its install was recorded.
fn installed(scene: &Scene) -> Option<Vec<String>> {
    read_record::<Install>(&scene.cell).ok().map(|(install, _)| install.namespaces).filter(|names| !names.is_empty())
}

async fn dry_run(args: &RunArgs, run: &RunDir, ui: &Ui) -> Result<()> {
    let (scene, kept) = Scene::open_and(&args.place, run, ui, Kept::read).await?;
    let before = before(args, &scene, kept, ui).await?;
    let listing = diff::look(&scene, &before, ui).await?;
    let now = before.compare(&listing);
    show_plan(&scene, &before, &listing, &now, ui)
}

fn show_plan(scene: &Scene, before: &Before, listing: &Listing, now: &Now<'_>, ui: &Ui) -> Result<()> {
    let world = World::new(listing, &now.added, installed(scene).as_deref());
    let servers = Servers::new(listing);
    let first = |object: &Object| servers.blocker(object).map(|blocker| blocker.why());
    report::plan(&plan(&now.added, &world), &now.difference, before, &first, ui)?;
    report::unproven(&now.unproven, ui);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::tests::object;

    fn now(added: Vec<&crate::list::Object>) -> Now<'_> {
        let keys = added.iter().map(|object| object.key.clone()).collect();
        Now { difference: Difference { added: keys, ..Difference::default() }, added, unproven: vec![] }
    }

    #[test]
    fn the_stage_is_the_last_that_was_needed() {
        let tally = Tally::default();
        assert_eq!(tally.stage(), "none");
        tally.get().ended = true;
        assert_eq!(tally.stage(), "needs-recreate", "nothing seen is nothing proven");
        tally.saw(&now(vec![]));
        assert_eq!(tally.stage(), "none");
        let pod = object("Pod.v1 n/p", "1");
        tally.saw(&now(vec![&pod]));
        assert_eq!(tally.stage(), "needs-recreate");
        tally.saw(&now(vec![]));
        assert_eq!(tally.stage(), "objects");
        tally.forced(&pod.key);
        assert_eq!(tally.stage(), "force");
        tally.saw(&now(vec![&pod]));
        assert_eq!(tally.stage(), "needs-recreate");
        tally.get().selection = Some(vec![]);
        assert_eq!(tally.stage(), "force", "a part does not condemn the cluster");
    }

    #[test]
    fn a_baseline_of_another_kubernetes_is_not_gone_back_to() {
        for (then, now, good) in [
            ("v1.37.2", "v1.37.2", true),
            ("v1.37.1", "v1.37.4-gke.100", true),
            ("v1.36.1", "v1.37.2", false),
            ("v1.37.2", "v1.36.1", false),
        ] {
            let same = same_version(then, now);
            assert_eq!(same.is_ok(), good, "{then} {now}");
            if let Err(error) = same {
                assert_eq!(error.cause, Cause::Usage);
                assert!(error.to_string().contains(then) && error.to_string().contains(now), "{error}");
            }
        }
    }

    #[test]
    fn what_is_left_on_a_node_that_is_away_is_the_nodes_doing() {
        let cluster = |ready: &[(&str, bool)]| -> ClusterId {
            let node = |(name, ready): &(&str, bool)| {
                serde_json::json!({"name": name, "ready": ready,
                "platform": "linux/s390x", "nature": "unknown", "kubelet": "", "kernel": ""})
            };
            let nodes: Vec<_> = ready.iter().map(node).collect();
            serde_json::from_value(serde_json::json!({"uid": "u", "name": "n", "kubernetes": "", "nodes": nodes}))
                .unwrap()
        };
        let then = cluster(&[("a", true), ("b", false), ("c", true)]);
        assert_eq!(away(&then, &cluster(&[("a", true), ("b", false), ("c", false)])), ["c"]);
        assert_eq!(away(&then, &cluster(&[("a", true)])), ["c"]);
        let tally = Tally::default();
        assert_eq!(not_at_baseline(&tally).cause, Cause::NotAtBaseline);
        tally.get().away = vec!["c".into()];
        let error = not_at_baseline(&tally);
        assert_eq!(error.cause, Cause::Node);
        assert!(error.to_string().contains("away: c"), "{error}");
    }

    #[test]
    fn what_went_is_counted_by_kind() {
        let tally = Tally::default();
        let id = ClusterId { uid: "u".into(), name: "n".into(), kubernetes: String::new(), nodes: vec![] };
        tally.get().about = Some((PathBuf::new(), id, Some("sha256:0".into())));
        let (one, two, stays) = (object("Pod.v1 n/a", "1"), object("Pod.v1 n/b", "2"), object("Secret.v1 n/s", "3"));
        tally.saw(&now(vec![&one, &two, &stays]));
        tally.saw(&now(vec![&stays]));
        let (_, record) = tally.record(Head::new(TOOL, VERSION, "r", Timestamp::now())).unwrap();
        assert_eq!(record.deleted, BTreeMap::from([("Pod".to_owned(), 2)]));
        assert_eq!(record.difference.added, [stays.key]);
    }
}
