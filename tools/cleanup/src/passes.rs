//! Look, remove, put back, look again: until nothing differs or nothing changes any more.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    time::{Duration, Instant},
};

use cluster::Guard;
use futures::{StreamExt, stream};
use kit::{Result, Ui, record::ObjectKey, ui::printable};
use kube::Client;

use crate::{
    api::CONCURRENT,
    back::{RunArgs, Tally},
    blockers::Servers,
    budget::Budget,
    explain,
    gone::{self, Pending},
    list::{self, Listing, Object},
    order::{Plan, Stage, World, is, plan},
    remove::{self, Asked, Asking, fatal},
    restore::restore,
    rules::RULES,
    scene::{Before, Now},
};

/// Somebody who makes things again faster than we remove them is not fought for ever.
const PASSES: usize = 8;
/// What was asked to go that often, each time another object of the same name, is somebody else's will.
const COMEBACKS: usize = 3;
/// Finalizers without a controller are not waited for.
const NO_CONTROLLER: Duration = Duration::from_secs(5);
/// Pods have one second to end, and the kubelet some to say so.
const PODS: Duration = Duration::from_secs(45);
/// Whatever waits for its namespace or its node. The namespace controller begins after 5 s, and looks again up to 16 s after it found something left.
const NAMESPACES: Duration = Duration::from_secs(45);
/// Provisioners get this long to remove the data of volumes.
const PROVISIONER: Duration = Duration::from_secs(20);
/// Once finalizers are off, an object goes at once.
const FORCED: Duration = Duration::from_secs(10);
/// What others held up may have taken all the time: so long is put back all the same.
const PUT_BACK: Duration = Duration::from_secs(20);

/// The work on one cluster.
pub(crate) struct Passes<'a> {
    client: &'a Client,
    before: &'a Before,
    args: &'a RunArgs,
    installed: Option<&'a [String]>,
    tally: &'a Tally,
    ui: &'a Ui,
    budget: Budget,
    /// When the time of the present stage is over.
    deadline: Instant,
    /// Whether the stage is `force`.
    forcing: bool,
    /// UIDs of what did not go within its budget.
    overdue: HashSet<String>,
    /// How often an object of a name was asked to go, each time another one.
    again: HashMap<ObjectKey, HashSet<String>>,
}

impl<'a> Passes<'a> {
    pub(crate) fn new(
        client: &'a Client,
        before: &'a Before,
        args: &'a RunArgs,
        installed: Option<&'a [String]>,
        tally: &'a Tally,
        ui: &'a Ui,
    ) -> Self {
        let budget = args.budget();
        Self {
            client,
            before,
            args,
            installed,
            tally,
            ui,
            budget,
            deadline: Instant::now() + budget.objects,
            forcing: false,
            overdue: HashSet::new(),
            again: HashMap::new(),
        }
    }

    /// Works until nothing differs or nothing changes any more; returns the last look. The first may have been taken
    /// already.
    pub(crate) async fn run(mut self, guard: &Guard, mut first: Option<Listing>) -> Result<Listing> {
        let mut last = BTreeSet::new();
        for _ in 0..PASSES {
            guard.check()?;
            let listing = match first.take() {
                Some(listing) => listing,
                None => self.look().await?,
            };
            let now = self.before.compare(&listing);
            self.tally.saw(&now);
            if now.is_clean() {
                return Ok(listing);
            }
            let forced = self.force(&listing, &now).await?;
            let seen = signature(&now);
            if !forced && (seen == last || self.late() || self.only_hopeless(&now)) {
                self.name_those_that_come_back(&listing).await;
                return Ok(listing);
            }
            last = seen;
            self.pass(&listing, &now).await?;
        }
        let listing = self.look().await?;
        self.tally.saw(&self.before.compare(&listing));
        self.name_those_that_come_back(&listing).await;
        Ok(listing)
    }

    /// Whether the time of the present stage is over.
    fn late(&self) -> bool {
        Instant::now() >= self.deadline
    }

    async fn look(&self) -> Result<Listing> {
        let step = self.ui.step("looking at the cluster");
        let listing = list::list(self.client, self.before.with()).await?;
        step.done(format!("{} objects", listing.objects.len()));
        Ok(listing)
    }

    async fn pass(&mut self, listing: &Listing, now: &Now<'_>) -> Result<()> {
        if self.unblock(listing, now).await? && !now.unproven.is_empty() {
            // What could not be listed may be seen now: first of all it has to be known.
            return Ok(());
        }
        let world = World::new(listing, &now.added, self.installed);
        let plan = plan(&now.added, &world);
        let mut late = Pending::default();
        let mut pending = self.stage(listing, &plan, Stage::Tests).await?;
        let custom = pending.take(|key| world.is_custom(key));
        late.extend(self.wait(Stage::Tests, custom, self.patience(listing, &plan, &world)).await);

        pending.extend(self.stage(listing, &plan, Stage::Admission).await?);
        let mut workloads = self.stage(listing, &plan, Stage::Workloads).await?;
        // Whoever might make again what goes next has to be gone; pods of tests may take their time.
        let pods = workloads.take(|key| is(key, "", "Pod"));
        pending.extend(workloads);
        late.extend(self.wait(Stage::Workloads, pods, PODS).await);

        pending.extend(self.stage(listing, &plan, Stage::Rest).await?);
        // What is late holds up its definition and its namespace: they need not be waited for as long,
        // and hardly at all if the next pass takes the finalizers off.
        let held = !late.is_empty();
        let limit = match held {
            false => self.budget.finalizers.max(NAMESPACES),
            true if self.forces_any(&late) => Duration::from_secs(1),
            true => FORCED,
        };
        let left = self.wait(Stage::Rest, pending, limit).await;
        if !(held && self.forces_any(&late)) {
            late.extend(left);
        }
        self.volumes(listing, &plan).await?;
        self.overdue.extend(late.iter().map(|(_, uid, _)| uid.clone()));
        self.put_back(listing, now).await
    }

    /// Whether finalizers of one of these will go by force.
    fn forces_any(&self, late: &Pending) -> bool {
        late.iter().any(|(resource, ..)| self.args.forces(resource))
    }

    /// Removes what would keep other objects from going. Returns whether there was something.
    async fn unblock(&self, listing: &Listing, now: &Now<'_>) -> Result<bool> {
        let servers = Servers::new(listing);
        let added = now.added.iter().filter_map(|object| Some((*object, servers.blocker(object)?)));
        let added: Vec<(&Object, _)> = added.collect();
        let mut any = false;
        for (object, blocker) in &added {
            self.ui.note(printable(&format!("{} is in the way: {}", object.key, blocker.why())));
        }
        let (definitions, others): (Vec<_>, Vec<_>) =
            added.iter().map(|(object, _)| *object).partition(|object| object.key.kind == "CustomResourceDefinition");
        for definition in definitions {
            let Some(kind) = listing.kind_of(&definition.key) else { continue };
            let stop = remove::stop_conversion(self.client, &kind.resource, definition);
            let Ok(stopped) = tokio::time::timeout_at(self.deadline.into(), stop).await else { continue };
            any |= self.did("stop the conversions of", &definition.key, stopped)?;
        }
        if !others.is_empty() {
            let asked = self.delete(listing, &others, &HashSet::new()).await?;
            any |= !asked.deleted.is_empty();
        }
        // Few objects answer for others: these are looked for in the baseline, and not all of them.
        let blocking = listing.objects.iter().filter_map(|object| Some((object, servers.blocker(object)?)));
        for (object, blocker) in blocking.filter(|(object, _)| self.before.object(&object.key).is_some()) {
            self.ui.warn(printable(&format!(
                "{} is part of the baseline and may block: {}",
                object.key,
                blocker.why()
            )));
        }
        Ok(any)
    }

    /// Whether it was done. That one object is refused is said, and keeps no other from going.
    fn did(&self, what: &str, key: &ObjectKey, answer: Result<(), kube::Error>) -> Result<bool> {
        match answer {
            Ok(()) => Ok(true),
            Err(error) if fatal(&error) => Err(cluster::fail(format!("cannot {what} {key}"), &error)),
            Err(error) => {
                self.ui.warn(printable(&format!("cannot {what} {key}: {}", cluster::describe(&error))));
                Ok(false)
            }
        }
    }

    /// Asks for these to go, and says what is refused.
    async fn delete(&self, listing: &Listing, objects: &[&Object], going: &HashSet<&str>) -> Result<Asked> {
        let asking =
            Asking { client: self.client, listing, going, deadline: self.deadline, hurry: self.before.is_ours() };
        let asked = asking.delete(objects).await?;
        for (key, why) in &asked.refused {
            self.ui.warn(printable(&format!("{key} was not deleted: {why}")));
        }
        if asked.late > 0 {
            self.ui.warn(format!("{} objects were not asked to go: the time of the stage is over", asked.late));
        }
        Ok(asked)
    }

    /// Asks for one stage, batch after batch.
    async fn stage(&mut self, listing: &Listing, plan: &Plan<'_>, stage: Stage) -> Result<Pending> {
        let mut pending = Pending::default();
        let going = plan.namespaces();
        for objects in plan.stages.get(&stage).into_iter().flat_map(|batches| batches.values()) {
            let asked = self.delete(listing, objects, &going).await?;
            for object in objects {
                self.again.entry(object.key.clone()).or_default().insert(object.uid.clone());
            }
            pending.extend(asked.pending);
        }
        Ok(pending)
    }

    async fn wait(&self, stage: Stage, pending: Pending, limit: Duration) -> Pending {
        if pending.is_empty() {
            return pending;
        }
        let step = self.ui.step(format!("waiting for {}", stage.name()));
        let limit = limit.min(self.deadline.saturating_duration_since(Instant::now()));
        let left = gone::wait(self.client, pending, limit, &step).await;
        let said = if left.is_empty() { String::new() } else { format!("{} are still there", left.len()) };
        step.done(said);
        left
    }

    /// How long the finalizers of custom resources are waited for: as long as the call allows while
    /// somebody may still see to them.
    fn patience(&self, listing: &Listing, plan: &Plan<'_>, world: &World) -> Duration {
        let workloads = plan.stages.get(&Stage::Workloads).into_iter().flat_map(|batches| batches.values().flatten());
        let controllers = workloads.filter(|object| is(&object.key, "", "Pod") && object.deleting.is_none()).count();
        let tests = plan.stages.get(&Stage::Tests).into_iter().flat_map(|batches| batches.values().flatten());
        let foreign =
            tests.filter(|object| world.is_custom(&object.key)).any(|object| self.defined_before(listing, &object.key));
        let limit = self.budget.finalizers;
        if controllers > 0 || foreign { limit } else { limit.min(NO_CONTROLLER) }
    }

    /// Whether the definition of its kind was there before, and so perhaps its controller.
    fn defined_before(&self, listing: &Listing, key: &ObjectKey) -> bool {
        let Some(kind) = listing.kind_of(key) else { return false };
        let name = list::name_of(&kind.resource);
        let definition =
            |key: &ObjectKey| is(key, "apiextensions.k8s.io", "CustomResourceDefinition") && key.name == name;
        self.before.baseline.objects.iter().any(|object| definition(&object.key))
    }

    /// Volumes go last: whoever provided them removes their data, and then the object.
    async fn volumes(&mut self, listing: &Listing, plan: &Plan<'_>) -> Result<()> {
        let Some(batches) = plan.stages.get(&Stage::Volumes) else { return Ok(()) };
        let mut pending = Pending::default();
        for object in batches.values().flatten() {
            let provided = object.view["spec"]["persistentVolumeReclaimPolicy"] == "Delete"
                && object.view["spec"]["claimRef"].is_object();
            if let Some(kind) = listing.kind_of(&object.key).filter(|_| provided) {
                pending.add(&kind.resource, &object.uid, &object.key);
            }
        }
        self.wait(Stage::Volumes, pending, PROVISIONER).await;
        let pending = self.stage(listing, plan, Stage::Volumes).await?;
        let late = self.wait(Stage::Volumes, pending, PROVISIONER).await;
        self.overdue.extend(late.iter().map(|(_, uid, _)| uid.clone()));
        Ok(())
    }

    async fn put_back(&self, listing: &Listing, now: &Now<'_>) -> Result<()> {
        let wanted: Vec<_> = now.difference.missing.iter().chain(&now.difference.changed).cloned().collect();
        let deadline = self.deadline.max(Instant::now() + PUT_BACK);
        let restored = restore(self.client, self.before, listing, &wanted, deadline).await?;
        for key in &restored.done {
            self.ui.note(printable(&format!("put back {key}")));
        }
        for (key, why) in &restored.refused {
            self.ui.warn(printable(&format!("{key} was not put back: {why}")));
        }
        self.tally.restored(&restored.done);
        Ok(())
    }

    /// Takes the finalizers off what did not go within its budget, if the call says so of its kind.
    async fn force(&mut self, listing: &Listing, now: &Now<'_>) -> Result<bool> {
        if !self.args.forces_at_all() || (self.forcing && self.late()) {
            return Ok(false);
        }
        // A definition's finalizer stands for its objects: without it they would stay in the store, unseen.
        let definition = |object: &Object| is(&object.key, "apiextensions.k8s.io", "CustomResourceDefinition");
        let over = self.late();
        let stuck = |object: &&&Object| {
            let held = object.deleting.is_some() && !object.finalizers.is_empty();
            let overdue = over || self.overdue.contains(&object.uid);
            held && overdue && !definition(object) && !RULES.protected(&object.key)
        };
        let stuck = now.added.iter().filter(stuck).filter_map(|object| Some((*object, listing.kind_of(&object.key)?)));
        let stuck: Vec<_> = stuck.filter(|(_, kind)| self.args.forces(&kind.resource)).collect();
        if stuck.is_empty() {
            return Ok(false);
        }
        if !self.forcing {
            self.forcing = true;
            self.deadline = Instant::now() + self.budget.force;
        }
        for (object, _) in &stuck {
            let finalizers = object.finalizers.join(", ");
            self.ui.warn(printable(&format!("{}: removing its finalizers by force: {finalizers}", object.key)));
        }
        let (client, deadline) = (self.client, self.deadline);
        let answers = stream::iter(stuck).map(|(object, kind)| async move {
            let force = remove::force(client, &kind.resource, &object.uid, &object.key);
            (object, kind, tokio::time::timeout_at(deadline.into(), force).await)
        });
        let answers: Vec<_> = answers.buffer_unordered(CONCURRENT).collect().await;
        let mut pending = Pending::default();
        for (object, kind, answer) in answers {
            // What was not answered in time is looked at again, or its time is over.
            let Ok(forced) = answer else { continue };
            if !self.did("take the finalizers off", &object.key, forced)? {
                continue;
            }
            self.tally.forced(&object.key);
            self.overdue.remove(&object.uid);
            pending.add(&kind.resource, &object.uid, &object.key);
        }
        let any = !pending.is_empty();
        self.wait(Stage::Rest, pending, FORCED).await;
        Ok(any)
    }

    /// Whether everything that is left has had its time, by itself or in a namespace that had, or is made again
    /// whenever it goes.
    fn only_hopeless(&self, now: &Now<'_>) -> bool {
        let late = |object: &&&Object| self.overdue.contains(&object.uid);
        let namespaces: HashSet<_> = now.added.iter().filter(late).map(|object| object.key.name.as_str()).collect();
        let had_time = |object: &&Object| {
            late(&object) || namespaces.contains(object.key.namespace.as_str()) || self.comes_back(&object.key)
        };
        !now.added.is_empty() && now.unproven.is_empty() && now.added.iter().all(had_time)
    }

    fn comes_back(&self, key: &ObjectKey) -> bool {
        self.again.get(key).is_some_and(|uids| uids.len() >= COMEBACKS)
    }

    /// Says who makes again what we delete: the object itself tells who wrote it.
    async fn name_those_that_come_back(&self, listing: &Listing) {
        for object in listing.objects.iter().filter(|object| self.comes_back(&object.key)) {
            let times = self.again.get(&object.key).map_or(0, HashSet::len);
            let by = match listing.kind_of(&object.key) {
                Some(kind) => explain::writers(self.client, &kind.resource, &object.key).await,
                None => String::new(),
            };
            let by = if by.is_empty() { "nobody knows by whom".into() } else { format!("written by {by}") };
            let line = format!("{} was deleted {times} times and made again each time, {by}", object.key);
            self.ui.warn(printable(&line));
            self.tally.recreated(line);
        }
    }
}

/// What makes one look different from the next.
fn signature(now: &Now<'_>) -> BTreeSet<String> {
    let added = now.added.iter().map(|object| object.uid.clone());
    let others = now.difference.missing.iter().chain(&now.difference.changed).map(ToString::to_string);
    added.chain(others).chain(now.unproven.iter().cloned()).collect()
}
