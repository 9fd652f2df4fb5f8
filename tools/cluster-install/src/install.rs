//! `cluster-install install`: the steps of an installation, in their order.

use std::{path::PathBuf, time::Duration};

use cluster::{
    Kinds, KubeContext, Opened, Options,
    inventory::{self, Inventory},
    lease::{self, Guard},
    nature,
};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kit::{
    Cause, Done, Error, Output, Platform, Result, RunDir, Step, Ui, Within,
    ci::{CiOptions, Declared, parse_duration},
    record::{ClusterId, Image, Install, Nature, SCHEMA_VERSION},
};
use kube::{Api, api::ListParams};

use crate::{
    apply::{self, Counts, Placed},
    images,
    platform::{self, Target},
    pods,
    probe::{self, Look},
    record::{Progress, table},
    release::Release,
    running,
    wait::Wait,
    waves::Wave,
};

/// How long definitions may take to be established: the API server does that by itself.
const ESTABLISH: Duration = Duration::from_secs(60);
/// How long a release may take to become ready, unless somebody says.
const LIMIT: Duration = Duration::from_secs(300);
/// The same on the slowest of nodes.
const SLOW_LIMIT: Duration = Duration::from_secs(1800);
/// An emulated node that is so much slower than this machine kills containers that have not yet started.
const SLOW: f64 = 1.5;
/// How many times as often their liveness probes may fail. One number, so that a measure that is a little different
/// the next time does not change what is installed.
const PATIENT: u64 = 10;

#[derive(Debug, clap::Args)]
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
    #[command(flatten)]
    pub(crate) cluster: Options,
    #[command(flatten)]
    ci: CiOptions,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Done> {
    // Where images.json and release.yaml are expected, a folder that is not there is a mistake.
    let run = if args.release.is_some() { RunDir::create(&args.run_dir)? } else { RunDir::open(&args.run_dir)? };
    args.cluster.source()?;
    args.probe.as_deref().map_or(Ok(()), probe::check_image)?;
    let declared = probe::declared(&args.ci)?;
    let mut progress = Progress::new(&args.component, args.platform.as_ref());
    let result = release(args, &run).and_then(|release| {
        progress.version.clone_from(&release.version);
        progress.release.clone_from(&release.digest);
        progress.inputs.clone_from(&release.inputs);
        progress.objects = release.objects.len();
        cluster::block_on(install(args, &declared, ui, &run, release, &mut progress))
    });
    let counts = progress.counts.clone();
    let written = progress.write(&run, args.cluster.name(), result.as_ref().copied());
    // Why the installation failed is worth more than why its record could not be written.
    result?;
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

async fn install(
    args: &Args,
    declared: &[Declared],
    ui: &Ui,
    run: &RunDir,
    release: Release,
    progress: &mut Progress,
) -> Result<()> {
    let opened = cluster::open(&args.cluster, ui).await?;
    let mut id = cluster::identity(&opened).await?;
    progress.cluster = Some(id.clone());
    let target = platform::choose(&id, args.platform.as_ref())?;
    progress.platform = Some(target.platform.clone());
    progress.nature = target.nature;
    progress.unchecked = args.no_image_check;
    let verified = match args.no_image_check {
        false => verified(&release, &target, &id, ui).await?,
        true => {
            ui.warn("nobody asks whether the images can run on these nodes (--no-image-check)");
            release.images.clone().unwrap_or_default()
        }
    };
    let guard = lease::take(&opened.client, &run.id()).await?;
    if let Some(earlier) = guard.dirty() {
        let what = format!("{} is dirty: run {earlier} used it and never cleaned it", opened.name);
        return Err(Error::new(Cause::LeaseHeld, what).next(
            "clean it: cargo xtask cleanup; or, if that is in order: cargo xtask cluster-install lease release --force",
        ));
    }
    let platform = Some(&target.platform);
    let limit = args.timeout.unwrap_or(LIMIT);
    let look = Look { opened: &opened, platform, image: args.probe.as_deref(), declared, limit, ui };
    let seen = look.at(&mut id).await;
    progress.nature = nature::worst(&id, &target.platform).unwrap_or(target.nature);
    progress.cluster = Some(id.clone());
    progress.slowdown = seen?.slowdown();
    let kinds = kinds(&opened, &release).await?;
    let (release, placed) = place(release, &kinds, &target, progress)?;
    if progress.patient_probes > 0 {
        let number = progress.patient_probes;
        ui.note(format!(
            "the nodes are emulated and slow: liveness probes of {number} containers get {PATIENT} times as long"
        ));
    }
    inventory::store(&opened.client, &inventory_of(&release, run, &target)).await?;
    let limit = args.timeout.unwrap_or_else(|| patience(progress.slowdown));
    let installation =
        Installation { args, limit, ui, opened: &opened, id: &id, kinds: &kinds, release: &release, guard: &guard };
    installation.apply_and_wait(placed, progress).await?;
    installation.read_back(&verified, &target, progress).await
}

/// The release's images, verified for the platform.
async fn verified(release: &Release, target: &Target, id: &ClusterId, ui: &Ui) -> Result<Vec<Image>> {
    let images = match &release.images {
        Some(images) => images.clone(),
        None => {
            let step = ui.step("verifying the images");
            let images = images::verify(&release.objects, &target.platform).await?;
            step.done(format!("{} images", images.len()));
            images
        }
    };
    platform::check_images(&images, target, id)?;
    Ok(images)
}

/// The kinds that the cluster knows and the release defines.
pub(crate) async fn kinds(opened: &Opened, release: &Release) -> Result<Kinds> {
    let mut kinds = Kinds::discover(&opened.client).await?;
    kinds.learn(&release.objects);
    Ok(kinds)
}

/// Gives every object its place, on a mixed cluster its nodes, and on slow emulated nodes the time to start.
pub(crate) fn place(
    mut release: Release,
    kinds: &Kinds,
    target: &Target,
    progress: &mut Progress,
) -> Result<(Release, Vec<Placed>)> {
    let name = release.name();
    let mut placed = Vec::with_capacity(release.objects.len());
    for object in &mut release.objects {
        let kind = kinds.place(object, &name)?;
        if target.mixed {
            pods::restrict(object, &target.platform);
            progress.node_selector.insert(pods::ARCH_LABEL.into(), target.platform.arch.clone());
        }
        if kills_too_soon(progress.nature, progress.slowdown) {
            progress.patient_probes += pods::be_patient(object, PATIENT);
        }
        placed.push(Placed { object: object.clone(), kind });
    }
    progress.namespaces = release.namespaces();
    Ok((release, placed))
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

/// What the last steps of an installation share.
struct Installation<'a> {
    args: &'a Args,
    /// How long it may take to become ready.
    limit: Duration,
    ui: &'a Ui,
    opened: &'a Opened,
    id: &'a ClusterId,
    kinds: &'a Kinds,
    release: &'a Release,
    guard: &'a Guard,
}

impl Installation<'_> {
    /// Sends wave after wave. Before objects of custom kinds are sent, the rest is ready: their webhooks
    /// must answer.
    async fn apply_and_wait(&self, placed: Vec<Placed>, progress: &mut Progress) -> Result<()> {
        let before = apply::versions(&self.opened.client, &placed, self.ui).await?;
        let (total, version) = (placed.len(), &self.release.version);
        let mut waited = false;
        let mut step = Some(self.ui.step(format!("applying {} {version}", self.release.component)));
        for wave in Wave::ALL {
            let items: Vec<_> = placed.iter().filter(|item| Wave::of(&item.object) == wave).cloned().collect();
            if items.is_empty() {
                continue;
            }
            if wave == Wave::Customs {
                end(&mut step, &progress.counts);
                self.wait_for_all().await?;
                waited = true;
            }
            let so_far = progress.counts.created + progress.counts.changed + progress.counts.unchanged;
            let show = |counts: &Counts| {
                if let Some(step) = &step {
                    step.set(format!("{} of {total}", so_far + counts.created + counts.changed + counts.unchanged));
                }
            };
            let force = self.args.force_conflicts;
            let counts = apply::wave(&self.opened.client, items, &before, force, show).await?;
            progress.counts.add(&counts);
            if let (Wave::Foundations, Some(step)) = (wave, &step) {
                self.wait(|wave| wave == Wave::Foundations, ESTABLISH, step).await?;
            }
        }
        end(&mut step, &progress.counts);
        if !waited {
            self.wait_for_all().await?;
        }
        Ok(())
    }

    async fn wait_for_all(&self) -> Result<()> {
        let step = self.ui.step("waiting until it is ready");
        let result = self.wait(|wave| wave != Wave::Customs, self.limit, &step).await;
        match &result {
            Ok(0) => step.done(""),
            Ok(webhooks) => step.done(format!("{webhooks} webhooks answered a trial")),
            Err(_) => step.failed(""),
        }
        result.map(drop)
    }

    async fn wait(&self, of: impl Fn(Wave) -> bool, limit: Duration, step: &Step) -> Result<usize> {
        let objects: Vec<_> = self.release.objects.iter().filter(|object| of(Wave::of(object))).collect();
        let wait = Wait {
            client: &self.opened.client,
            kinds: self.kinds,
            nodes: &self.id.nodes,
            services: objects.iter().any(|object| Wave::of(object) != Wave::Foundations),
            objects,
            limit,
        };
        wait.until_ready(self.guard, step)
            .await
            .within(|| format!("{} {}", self.release.component, self.release.version))
    }

    /// Reads from the pods what runs, and compares it.
    async fn read_back(&self, verified: &[Image], target: &Target, progress: &mut Progress) -> Result<()> {
        let objects = &self.release.objects;
        let mut pods: Vec<Pod> = Vec::new();
        let namespaces = objects.iter().filter(|object| pods::has_pods(object)).map(|object| &object.key.namespace);
        for namespace in namespaces.collect::<std::collections::BTreeSet<_>>() {
            let api = Api::<Pod>::namespaced(self.opened.client.clone(), namespace);
            pods.extend(
                api.list(&ListParams::default()).await.kube(|| format!("cannot list the pods of {namespace}"))?,
            );
        }
        let found = running::find(objects, &pods);
        progress.running = found.iter().map(|found| found.running.clone()).collect();
        running::check(&found, verified, &target.platform).await
    }
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

fn end(step: &mut Option<kit::Step>, counts: &Counts) {
    if let Some(step) = step.take() {
        step.done(format!("{} created, {} changed, {} as they were", counts.created, counts.changed, counts.unchanged));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
