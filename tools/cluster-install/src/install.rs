//! `cluster-install install`: the steps of an installation, in their order.

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use cluster::{
    Guard, Kinds, KubeContext, Opened, Options,
    inventory::{self, Inventory, Kept},
    lease, nature,
    objects::Object,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kit::{
    Cause, Done, Error, Output, Platform, Result, RunDir, Ui,
    ci::{CiOptions, Component, Declared, parse_duration},
    record::{ClusterId, Image, Install, Nature, ObjectKey, SCHEMA_VERSION},
};
use kube::{Api, api::ListParams};

use crate::{
    apply::{self, Before, Counts, PARALLEL, Placed, States},
    extras::Extras,
    images,
    lease::Patience,
    platform::{self, Target},
    pods,
    probe::{self, Look},
    prune,
    record::{Progress, table},
    release::Release,
    running,
    steps::Steps,
    waves::Wave,
};

/// How long a release may take to become ready, unless somebody says.
const LIMIT: Duration = Duration::from_secs(300);
/// The same on the slowest of nodes.
const SLOW_LIMIT: Duration = Duration::from_secs(1800);
/// An emulated node that is so much slower than this machine kills containers that have not yet started.
const SLOW: f64 = 1.5;
/// How many times as often their liveness probes may fail. One number, so that a measure that is a little different
/// the next time does not change what is installed.
const PATIENT: u64 = 10;

/// The requests of the first round trip ([`Facts::ask`], the lease), each on a connection of its own.
const FIRST: usize = 8;

/// How much of it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Everything: objects are sent, waited for, and what runs is recorded.
    Install,
    /// Objects are sent.
    Apply,
    /// What was sent is waited for, and recorded.
    Wait,
}

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The component
    #[arg(long, value_name = "NAME")]
    pub(crate) component: String,
    /// The run's folder, with release.yaml and images.json of the component; install.json goes there
    #[arg(long, value_name = "DIR")]
    pub(crate) run_dir: PathBuf,
    /// Install this file instead, after its images were verified
    #[arg(long, value_name = "FILE")]
    pub(crate) release: Option<PathBuf>,
    /// The nodes that are meant [default: those of the cluster, if they are all of one platform]
    #[arg(long, value_name = "OS/ARCH")]
    pub(crate) platform: Option<Platform>,
    /// How long it may take to become ready [default: 5m; on nodes that are measured to be slow more, up to 30m]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// The probe's image, as `image-build probe` prints it; without it nobody looks what the nodes are
    #[arg(long, value_name = "REF@DIGEST")]
    probe: Option<String>,
    /// Install without asking first whether the images have programs for the nodes
    #[arg(long)]
    no_image_check: bool,
    /// Take over fields that another manager owns
    #[arg(long)]
    force_conflicts: bool,
    /// Do not ask whether the components that it needs are there
    #[arg(long)]
    no_needs_check: bool,
    #[command(flatten)]
    patience: Patience,
    #[command(flatten)]
    pub(crate) extras: Extras,
    #[command(flatten)]
    pub(crate) cluster: Options,
    #[command(flatten)]
    ci: CiOptions,
}

const EXAMPLES: &str = "Examples:
  cluster-install install --component pipeline --run-dir target/runs/R --flags alpha
  cluster-install install --component triggers --run-dir target/runs/R --release triggers.yaml \\
    --extra interceptors.yaml --registry ghcr.io/tektoncd=10.1.2.3:5000/tektoncd --wait-for-lease 30m
  cluster-install apply --component pipeline --run-dir target/runs/R --set feature-flags.results-from=sidecar-logs

Exit codes: 0 it runs, 1 the component's fault, 2 the call is wrong, 3 the cluster's, the registry's or the
network's fault. What was applied until then stands in install.json";

pub(crate) fn run(args: &Args, extent: Extent, ui: &Ui) -> Result<Done> {
    // Where images.json and release.yaml are expected, a folder that is not there is a mistake.
    let run = if args.release.is_some() { RunDir::create(&args.run_dir)? } else { RunDir::open(&args.run_dir)? };
    if extent != Extent::Apply {
        run.writable()?;
    }
    args.cluster.source()?;
    args.probe.as_deref().map_or(Ok(()), probe::check_image)?;
    let declared = probe::declared(&args.ci)?;
    let component = component(&args.ci, &args.component)?;
    if let Some(component) = component.as_ref().filter(|_| args.release.is_none()) {
        component.to_install(&args.component)?;
    }
    let mut progress = Progress::new(&args.component, args.platform.as_ref());
    let call = Call { args, extent, ui, run: &run, declared: &declared, component: component.as_ref() };
    let result = release(args, &run).and_then(|release| {
        progress.version.clone_from(&release.version);
        progress.release.clone_from(&release.digest);
        let (release, changes) = args.extras.apply(release, component.as_ref())?;
        progress.inputs.clone_from(&release.inputs);
        progress.objects = release.objects.len();
        progress.changes = changes;
        cluster::block_on(call.install(release, &mut progress))
    });
    if extent == Extent::Apply {
        result.inspect_err(|_| progress.applied.words().into_iter().for_each(|words| ui.warn(words)))?;
        return applied(args, &progress, ui);
    }
    let counts = progress.applied.counts.clone();
    let words = progress.applied.words();
    let written = match &result {
        Ok(written) => Ok(written.clone()),
        Err(error) => progress.write(&run, args.cluster.name(), Err(error)),
    };
    // Why the installation failed is worth more than why its record could not be written.
    result.inspect_err(|_| words.into_iter().for_each(|words| ui.warn(words)))?;
    let Some((record, digest)) = written? else {
        return Err(Error::new(Cause::Internal, "an installation without a record"));
    };
    show(&record, &counts, &run, ui)?;
    Ok(Done::good().digest(digest))
}

fn show(record: &Install, counts: &Counts, run: &RunDir, ui: &Ui) -> Result<()> {
    let folder = run.cell(&record.component, &record.platform, &record.cluster.name);
    match ui.output {
        Output::Json => ui.json(record),
        Output::Text => ui.result(&table(record, counts, &folder)),
    }
}

/// What `apply` says: it leaves no record, for nobody has seen anything run.
fn applied(args: &Args, progress: &Progress, ui: &Ui) -> Result<Done> {
    let counts = &progress.applied.counts;
    match ui.output {
        Output::Json => ui.json(&serde_json::json!({
            "schemaVersion": SCHEMA_VERSION, "component": args.component, "version": progress.version,
            "release": progress.release, "applied": progress.applied.objects, "unchanged": counts.unchanged,
            "pruned": progress.pruned,
        }))?,
        Output::Text => ui.result(&format!(
            "{} {}: {} created, {} changed, {} as they were, {} removed",
            args.component,
            progress.version,
            counts.created,
            counts.changed,
            counts.unchanged,
            progress.pruned.len()
        ))?,
    }
    Ok(Done::good())
}

/// What `ci/components.toml` says of a component; nothing outside a workspace, or of one that it does not know.
///
/// # Errors
/// [`Cause::Usage`] for a file that cannot be read.
pub(crate) fn component(options: &CiOptions, name: &str) -> Result<Option<Component>> {
    match options.open() {
        Ok(ci) if ci.folder().join("components.toml").is_file() => Ok(ci.components()?.remove(name)),
        _ => Ok(None),
    }
}

/// Reads the release. A name that is nowhere in `ci/components.toml` is more likely wrong than not built.
fn release(args: &Args, run: &RunDir) -> Result<Release> {
    if let Some(file) = &args.release {
        return Release::from_file(file, &args.component);
    }
    if !run.component(&args.component).exists() {
        args.ci.open().and_then(|ci| ci.component(&args.component))?;
    }
    Release::from_run(run, &args.component)
}

/// What was asked.
struct Call<'a> {
    args: &'a Args,
    extent: Extent,
    ui: &'a Ui,
    run: &'a RunDir,
    declared: &'a [Declared],
    component: Option<&'a Component>,
}

/// As many connections as are needed at the same time, for the widest wave or for the lists and the lease, beside
/// those of the first requests.
fn connections(objects: &[Object]) -> usize {
    let lists = objects.iter().map(|Object { key, .. }| (&key.api_version, &key.kind, &key.namespace));
    let lists = lists.collect::<BTreeSet<_>>().len() + 2;
    let of = |wave| objects.iter().filter(|object| Wave::of(object) == wave).count();
    Wave::ALL.map(of).into_iter().fold(lists, usize::max).min(PARALLEL).saturating_sub(FIRST).max(1)
}

/// What can be asked of a cluster without knowing anything.
struct Facts {
    id: ClusterId,
    kinds: Kinds,
    kept: Vec<Kept>,
}

impl Facts {
    async fn ask(opened: &Opened) -> Result<Self> {
        let client = &opened.client;
        let (id, kinds, kept) =
            tokio::try_join!(cluster::identity(opened), Kinds::discover(client), inventory::all(client))?;
        Ok(Self { id, kinds, kept })
    }
}

/// What was found before anything is changed.
struct Ground {
    id: ClusterId,
    kinds: Kinds,
    /// What the cluster keeps of this component, and of others.
    earlier: Option<Kept>,
    others: Vec<Kept>,
    target: Target,
    verified: Vec<Image>,
    placed: Vec<Placed>,
    states: States,
}

impl Call<'_> {
    /// All steps in their order; returns the record and its digest, but of `apply`.
    async fn install(&self, mut release: Release, progress: &mut Progress) -> Result<Option<(Install, String)>> {
        let Self { args, ui, run, .. } = *self;
        let first = async |opened: &Opened| tokio::join!(lease::see(&opened.client), Facts::ask(opened));
        let (opened, (seen, facts)) =
            cluster::open_wide(&args.cluster, connections(&release.objects), ui, first).await?;
        let client = &opened.client;
        let (guard, ground) = self.begin(&opened, &seen?, facts, &release, progress).await?;
        if let Some(earlier) = guard.dirty().map(String::from) {
            guard.release().await?;
            let what = format!("{} is dirty: run {earlier} used it and never cleaned it", opened.name);
            return Err(Error::new(Cause::LeaseHeld, what).next(
                "clean it: cargo xtask cleanup; or, if that is in order: cargo xtask cluster-install lease release --force",
            ));
        }
        let Ground { mut id, kinds, earlier, others, target, verified, mut placed, states } = ground;
        let platform = Some(&target.platform);
        let limit = args.timeout.unwrap_or(LIMIT);
        let (image, declared) = (args.probe.as_deref(), self.declared);
        let look = Look { opened: &opened, platform, image, arguments: &[], declared, limit, ui };
        let seen = look.at(&mut id).await;
        progress.nature = nature::worst(&id, &target.platform).unwrap_or(target.nature);
        progress.cluster = Some(id.clone());
        progress.slowdown = seen?.slowdown();
        fit(&mut placed, &target, progress);
        if progress.patient_probes > 0 {
            let number = progress.patient_probes;
            ui.note(format!(
                "the nodes are emulated and slow: liveness probes of {number} containers get {PATIENT} times as long"
            ));
        }
        release.objects = placed.iter().map(|item| item.object.clone()).collect();
        progress.namespaces = release.namespaces();
        progress.objects = placed.len();
        let surplus = prune::surplus(earlier.as_ref(), &others, &release.objects);
        let mut inventory = inventory_of(&release, run, &target);
        let mut sent = earlier.as_ref().map(|kept| kept.sent.clone()).unwrap_or_default();
        let makes = release.objects.iter().filter(|object| object.is("", "Namespace"));
        let makes = makes.map(|object| object.key.name.clone()).collect();
        let before = Before { states, sent: sent.clone(), makes };
        let known = earlier.as_ref().is_some_and(|kept| kept.inventory.is_like(&inventory));
        let settled = surplus.is_empty() && before.are_settled(&placed);
        let steps = Steps {
            limit: args.timeout.unwrap_or_else(|| patience(progress.slowdown)),
            force: args.force_conflicts,
            waits: self.extent != Extent::Apply,
            ui,
            opened: &opened,
            id: &id,
            kinds: &kinds,
            release: &release,
            guard: &guard,
        };
        if self.extent == Extent::Wait {
            // What was sent and is to be removed stays as whoever applied it has left it.
            inventory = earlier.map_or(inventory, |kept: Kept| kept.inventory);
            steps.wait_for_all().await?;
        } else {
            // Until it is removed, what an earlier version had is ours as well.
            inventory.objects.extend(surplus.iter().cloned());
            // It forgets what was sent: until the end nobody knows. Where nothing is going to be, the end is here.
            if !settled || (self.extent == Extent::Install && !known) {
                inventory::store(client, &inventory).await?;
            }
            steps.apply_and_wait(placed, &before, progress).await?;
            sent = progress.applied.sent.clone();
            guard.check()?;
            progress.pruned = prune::prune(client, &kinds, surplus, ui).await?;
            inventory.objects = release.objects.iter().map(|object| object.key.clone()).collect();
        }
        guard.check()?;
        if self.extent == Extent::Apply {
            if !(settled && known && sent == before.sent) {
                inventory::finish(client, &inventory, &sent, None).await?;
            }
            return Ok(None);
        }
        read_back(&opened, &release, &verified, &target, progress).await?;
        let written = progress.clone().write(run, args.cluster.name(), Ok(()))?;
        if let Some((record, _)) = &written {
            let text = serde_json::to_string(record).unwrap_or_default();
            inventory::finish(client, &inventory, &sent, Some(&text)).await?;
        }
        Ok(written)
    }

    /// Takes the lease, and looks at the cluster. What was seen while another run held it, or may have, is looked at
    /// again.
    async fn begin(
        &self,
        opened: &Opened,
        seen: &lease::Seen,
        facts: Result<Facts>,
        release: &Release,
        progress: &mut Progress,
    ) -> Result<(Guard, Ground)> {
        let Self { args, ui, .. } = *self;
        let (client, holder) = (&opened.client, self.run.id());
        // Inventories without a lease lie in a namespace that was just going.
        let whole = |facts: &Result<Facts>| seen.is_there() || facts.as_ref().is_ok_and(|facts| facts.kept.is_empty());
        let mut facts = Some(facts).filter(|facts| seen.holds_for(&holder) && whole(facts));
        let mut guard = None;
        if seen.held_by_another(&holder) {
            guard = Some(args.patience.take(client, &holder, ui).await?);
        }
        loop {
            let looked = async {
                let facts = match facts.take() {
                    Some(facts) => facts?,
                    None => Facts::ask(opened).await?,
                };
                self.look(opened, facts, release, progress).await
            };
            let mut ground = match looked.await {
                Ok(ground) => ground,
                Err(error) => {
                    // Nothing was changed: the next one need not wait until it expires.
                    if let Some(guard) = guard {
                        guard.release().await?;
                    }
                    return Err(error);
                }
            };
            let states = async {
                match self.extent {
                    Extent::Wait => Ok(States::new()),
                    _ => apply::states(client, &ground.placed, ui).await,
                }
            };
            if let Some(guard) = guard {
                ground.states = states.await?;
                return Ok((guard, ground));
            }
            match tokio::try_join!(lease::take_unwritten(client, &holder, seen), states)? {
                (Some(guard), states) => {
                    ground.states = states;
                    return Ok((guard, ground));
                }
                (None, _) => guard = Some(args.patience.take(client, &holder, ui).await?),
            }
        }
    }

    /// What is there, and where the release's objects belong.
    async fn look(&self, opened: &Opened, facts: Facts, release: &Release, progress: &mut Progress) -> Result<Ground> {
        let Self { args, ui, .. } = *self;
        let Facts { id, mut kinds, kept: mut others } = facts;
        let earlier = others.iter().position(|kept| kept.inventory.component == args.component);
        let earlier = earlier.map(|at| others.swap_remove(at));
        kinds.learn(&release.objects);
        progress.cluster = Some(id.clone());
        let target = platform::choose(&id, args.platform.as_ref())?;
        progress.platform = Some(target.platform.clone());
        progress.nature = target.nature;
        progress.unchecked = args.no_image_check;
        self.check_needs(&others, &opened.name)?;
        let verified = match args.no_image_check {
            false => verified(release, &target, &id, ui).await?,
            true => {
                ui.warn("nobody asks whether the images can run on these nodes (--no-image-check)");
                release.images.clone().unwrap_or_default()
            }
        };
        let mut placed = place(release, &kinds)?;
        args.extras.entrust(&mut placed, &kinds)?;
        Ok(Ground { id, kinds, earlier, others, target, verified, placed, states: States::new() })
    }

    /// What the component needs is installed before it; whether it is, the cluster's other inventories say.
    fn check_needs(&self, others: &[Kept], cluster: &str) -> Result<()> {
        let needs = self.component.filter(|_| !self.args.no_needs_check).map(|component| &component.needs);
        for need in needs.into_iter().flatten() {
            if !others.iter().any(|kept| kept.inventory.component == *need) {
                let what = format!("{} needs {need}, and we have not installed it on {cluster}", self.args.component);
                let next = format!("install it first (--component {need}); if somebody else has: --no-needs-check");
                return Err(Error::new(Cause::Usage, what).next(next));
            }
        }
        Ok(())
    }
}

/// The release's images, verified for the platform; of what was added to it only those that nobody knows.
async fn verified(release: &Release, target: &Target, id: &ClusterId, ui: &Ui) -> Result<Vec<Image>> {
    let mut images = release.images.clone().unwrap_or_default();
    if release.images.is_none() || release.added {
        let step = ui.step("verifying the images");
        images.extend(images::verify(&release.objects, &images, &target.platform).await?);
        step.done(format!("{} images", images.len()));
    }
    platform::check_images(&images, target, id)?;
    Ok(images)
}

/// The kinds that the cluster knows and the release defines.
pub(crate) async fn kinds(opened: &Opened, release: &Release) -> Result<Kinds> {
    let mut kinds = Kinds::discover(&opened.client).await?;
    kinds.learn(&release.objects);
    Ok(kinds)
}

/// Gives every object its place.
///
/// # Errors
/// [`Cause::Usage`] for a kind that nobody knows, and for an object that is there twice: with the default namespace
/// and without one.
pub(crate) fn place(release: &Release, kinds: &Kinds) -> Result<Vec<Placed>> {
    let name = release.name();
    let mut placed = Vec::with_capacity(release.objects.len());
    let mut known = BTreeSet::new();
    for object in &release.objects {
        let mut object = object.clone();
        let kind = kinds.place(&mut object, &name)?;
        if !known.insert((object.group().to_owned(), ObjectKey { api_version: String::new(), ..object.key.clone() })) {
            return Err(Error::new(Cause::Usage, format!("{name}: {} is there twice", object.key)));
        }
        placed.push(Placed { object, kind });
    }
    Ok(placed)
}

/// Gives pods their nodes on a mixed cluster, and the time to start on slow emulated nodes.
pub(crate) fn fit(placed: &mut [Placed], target: &Target, progress: &mut Progress) {
    for Placed { object, .. } in placed {
        if target.mixed {
            pods::restrict(object, &target.platform);
            progress.node_selector.insert(pods::ARCH_LABEL.into(), target.platform.arch.clone());
        }
        if kills_too_soon(progress.nature, progress.slowdown) {
            progress.patient_probes += pods::be_patient(object, PATIENT);
        }
    }
}

fn inventory_of(release: &Release, run: &RunDir, target: &Target) -> Inventory {
    Inventory {
        schema_version: SCHEMA_VERSION.into(),
        component: release.component.clone(),
        version: release.version.clone(),
        release: release.digest.clone(),
        run: run.id(),
        platform: target.platform.clone(),
        installed: Timestamp::now(),
        objects: release.objects.iter().map(|object| object.key.clone()).collect(),
    }
}

/// Reads from the pods what runs, and compares it.
async fn read_back(
    opened: &Opened,
    release: &Release,
    verified: &[Image],
    target: &Target,
    progress: &mut Progress,
) -> Result<()> {
    let objects = &release.objects;
    let mut pods: Vec<Pod> = Vec::new();
    let namespaces = objects.iter().filter(|object| pods::has_pods(object)).map(|object| &object.key.namespace);
    for namespace in namespaces.collect::<BTreeSet<_>>() {
        let api = Api::<Pod>::namespaced(opened.client.clone(), namespace);
        pods.extend(api.list(&ListParams::default()).await.kube(|| format!("cannot list the pods of {namespace}"))?);
    }
    let found = running::find(objects, &pods);
    progress.running = found.iter().map(|found| found.running.clone()).collect();
    running::check(&found, verified, &target.platform, progress.unchecked).await
}

/// How long a release may take to become ready on nodes that are so much slower than this machine: what takes a minute
/// here may take twenty there, and would be called the component's fault.
fn patience(slowdown: Option<f64>) -> Duration {
    let times = slowdown.filter(|times| times.is_finite()).unwrap_or(1.0).max(1.0);
    LIMIT.mul_f64(times.min(SLOW_LIMIT.div_duration_f64(LIMIT)))
}

/// Whether containers would be killed for what only the emulation is to blame for. What native nodes do stays what the
/// release says.
fn kills_too_soon(nature: Nature, slowdown: Option<f64>) -> bool {
    nature == Nature::Emulated && slowdown.is_some_and(|slowdown| slowdown >= SLOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_for_each_request_at_the_same_time() {
        let objects = |kind: &str, count| {
            let one = |number| format!("---\n{{apiVersion: v1, kind: {kind}, metadata: {{name: a{number}}}}}\n");
            cluster::objects::parse(&(0..count).map(one).collect::<String>(), "r").unwrap()
        };
        let wide = |objects: &[Object]| connections(objects) + FIRST;
        assert_eq!(wide(&objects("ConfigMap", 59)), 59);
        assert_eq!(wide(&objects("ConfigMap", 1000)), PARALLEL);
        assert_eq!(connections(&objects("ConfigMap", 1)), 1);
        let kinds: Vec<_> = (0..20).flat_map(|number| objects(&format!("Kind{number}"), 1)).collect();
        let halves = [kinds, objects("Namespace", 12)].concat();
        assert_eq!(wide(&halves), 21 + 2);
    }

    #[test]
    fn slow_nodes_get_more_time_and_not_for_ever() {
        for (slowdown, seconds) in [(None, 300), (Some(1.0), 300), (Some(2.0), 600), (Some(24.4), 1800)] {
            assert_eq!(patience(slowdown).as_secs(), seconds, "{slowdown:?}");
        }
        assert_eq!((patience(Some(f64::NAN)), patience(Some(0.0))), (LIMIT, LIMIT));
        assert!(kills_too_soon(Nature::Emulated, Some(15.8)));
        for (nature, slowdown) in
            [(Nature::Native, Some(15.8)), (Nature::Emulated, Some(1.2)), (Nature::Emulated, None)]
        {
            assert!(!kills_too_soon(nature, slowdown), "{nature:?} {slowdown:?}");
        }
    }
}
