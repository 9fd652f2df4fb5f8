//! `cluster-install preflight`: whether a cluster can do the job, said before anything is installed.
//!
//! Each row of the table is one question; who asks it is a file of its own below. What cannot be asked says why:
//! no row is good because nobody looked.

mod access;
mod clock;
mod credentials;
mod hooks;
mod images;
mod limits;
mod network;
mod nodes;
mod room;
mod row;
mod state;
mod storage;

use std::{collections::BTreeSet, path::PathBuf, time::Duration};

use cluster::{Guard, Kinds, Opened, Options};
use kit::{
    Cause, Class, Done, Error, Exit, Output, Platform, Result, RunDir, Ui,
    ci::{Architecture, CiOptions, Cluster, parse_duration},
    record::{ClusterId, Image, Node, SCHEMA_VERSION},
};
use serde::Serialize;

use crate::{
    apply::Placed,
    extras::Extras,
    install, platform, pods,
    probe::{self, Look},
    record::Progress,
    release::Release,
};
use limits::Versions;
use row::{Answer, CHECKS, Row};
use state::Holder;

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The component that is going to be installed
    #[arg(long, value_name = "NAME")]
    component: Option<String>,
    /// The run's folder, with the component's release; the lease is then that run's, and stays with it if
    /// the cluster is fit
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// What is going to be installed, if it is not the run's
    #[arg(long, value_name = "FILE", requires = "component")]
    release: Option<PathBuf>,
    /// The nodes that are meant [default: those of the cluster, if they are all of one platform]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// The probe's image, as `image-build probe` prints it: without it nobody looks what the nodes are, and what
    /// pods reach
    #[arg(long, value_name = "REF@DIGEST")]
    probe: Option<String>,
    /// Least number of ready workers of the platform [default: as ci/architectures.toml says]
    #[arg(long, value_name = "N")]
    workers: Option<u32>,
    /// Versions of Kubernetes that will do: 1.28, or 1.28..1.40 [default: the component's in ci/components.toml]
    #[arg(long, value_name = "RANGE", value_parser = Versions::parse)]
    kubernetes: Option<Versions>,
    /// Only native nodes will do
    #[arg(long)]
    native: bool,
    /// Pods must reach this address
    #[arg(long, value_name = "HOST:PORT")]
    internet: Vec<String>,
    /// How long the run may last: nothing that it needs may expire before
    #[arg(long = "for", value_name = "TIME", default_value = "2h", value_parser = parse_duration)]
    lasts: Duration,
    /// Free disk that each node must have
    #[arg(long, value_name = "BYTES", default_value = "2Gi", value_parser = limits::parse_bytes)]
    disk: u64,
    /// Free memory that each node must have
    #[arg(long, value_name = "BYTES", default_value = "512Mi", value_parser = limits::parse_bytes)]
    memory: u64,
    /// How long each question may take
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    extras: Extras,
    #[command(flatten)]
    cluster: Options,
    #[command(flatten)]
    ci: CiOptions,
}

const EXAMPLES: &str = "Examples:
  cluster-install preflight --kubeconfig z.yaml --context z --platform linux/s390x --native
  cluster-install preflight --component pipeline --run-dir target/runs/R --probe \"$PROBE\" --output json

Exit codes: 0 the cluster can do the job, 3 it cannot (or does not answer), 2 the call is wrong";

/// What a volume is tried with where there is neither a probe nor a release: it need not start.
const ANY_IMAGE: &str = "registry.k8s.io/pause:3.10";

/// The answer as JSON.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    schema_version: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    cluster: Option<ClusterId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<Platform>,
    fit: bool,
    rows: Vec<Row>,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Done> {
    args.cluster.source()?;
    args.probe.as_deref().map_or(Ok(()), probe::check_image)?;
    let asked = Asked::read(args)?;
    let report = cluster::block_on(asked.look(args, ui))?;
    match ui.output {
        Output::Json => ui.json(&report)?,
        Output::Text => ui.result(&text(&report))?,
    }
    let cause = report.rows.iter().find_map(|row| row.cause).map(of_the_cluster);
    // Whatever the cause would count as elsewhere: here it is the cluster that is not fit.
    Ok(cause.map_or_else(Done::good, |cause| Done { exit: Some(Exit::INFRASTRUCTURE), ..Done::found(cause) }))
}

/// What is wrong with a cluster counts against no product; only an image does that is not what it says.
fn of_the_cluster(cause: Cause) -> Cause {
    match cause {
        Cause::ImageMissingPlatform | Cause::ImageWrongArch => cause,
        // What another run has left.
        Cause::NotAtBaseline => Cause::LeaseHeld,
        // A policy refuses what we ask with.
        cause if cause.class() == Class::Product => Cause::Auth,
        Cause::Unclassified => Cause::Apiserver,
        cause => cause,
    }
}

fn text(report: &Report) -> String {
    let unfit: Vec<_> = report.rows.iter().filter(|row| row.answer == Answer::Unfit).map(|row| row.check).collect();
    let name = report.cluster.as_ref().map_or("the cluster", |cluster| cluster.name.as_str());
    let verdict = match &unfit[..] {
        [] => format!("{name} is fit"),
        unfit => format!("{name} is not fit: {}", unfit.join(", ")),
    };
    format!("{}\n{verdict}", row::table(&report.rows))
}

/// What files say before the cluster is asked.
struct Asked {
    release: Option<Release>,
    /// For the registries that its images come from.
    logins: Option<String>,
    holder: Holder,
    versions: Versions,
    architectures: Vec<Architecture>,
    clusters: Vec<Cluster>,
}

impl Asked {
    fn read(args: &Args) -> Result<Self> {
        let run = args.run_dir.as_deref().map(RunDir::open).transpose()?;
        let release = match (&args.release, &run, &args.component) {
            (Some(file), _, Some(component)) => Some(Release::from_file(file, component)?),
            (None, Some(run), Some(component)) => Some(Release::from_run(run, component)?),
            _ => None,
        };
        let holder = match &run {
            Some(run) => Holder { id: run.id(), run: true },
            None => Holder { id: crate::machines::holder("preflight"), run: false },
        };
        // Outside a workspace nothing is asked that only its files say.
        let component = args.component.as_ref().map(|name| install::component(&args.ci, name)).transpose()?.flatten();
        let changed = release.map(|release| args.extras.apply(release, component.as_ref())).transpose()?;
        let release = changed.map(|(release, _)| release);
        let versions = match (args.kubernetes, component.and_then(|component| component.kubernetes)) {
            (Some(versions), _) => versions,
            (None, Some(text)) => Versions::parse(&text)?,
            (None, None) => Versions::any()?,
        };
        let file = args.ci.open().ok().filter(|ci| ci.folder().join("architectures.toml").is_file());
        let (architectures, clusters) = match file {
            Some(ci) => {
                let all = ci.architectures()?;
                (all.architecture, all.cluster)
            }
            None => (Vec::new(), Vec::new()),
        };
        Ok(Self { release, logins: args.extras.logins()?, holder, versions, architectures, clusters })
    }

    async fn look(self, args: &Args, ui: &Ui) -> Result<Report> {
        let step = ui.step("looking whether the cluster is fit");
        let rows = Rows::default();
        let opened = match cluster::open(&args.cluster, ui).await {
            Ok(opened) => opened,
            Err(error) if matches!(error.cause, Cause::Usage | Cause::Interrupted) => return Err(error),
            Err(error) => {
                return Ok(rows.with([Row::error("api", &error)]).report(None, None, "the cluster does not answer"));
            }
        };
        let mut id = match cluster::identity(&opened).await {
            Ok(id) => id,
            Err(error) => {
                return Ok(rows.with([Row::error("api", &error)]).report(None, None, "the cluster cannot be asked"));
            }
        };
        let version = self.versions.refuse(&id.kubernetes);
        let version = version.map_or_else(
            || Row::fit("version", format!("Kubernetes {}", id.kubernetes)),
            |line| Row::unfit("version", Cause::Apiserver, line),
        );
        let rows = rows.with([Row::fit("api", format!("{} answers", opened.server)), version]);
        let (lease, guard) = state::lease(&opened.client, &self.holder).await;
        let dirty = guard.as_ref().and_then(|guard| guard.dirty().map(String::from));
        let leftovers = state::leftovers(&opened.client, &self.holder, dirty.as_deref()).await;
        let rows = rows.with([lease, leftovers]);
        let (target, rows) = match platform::choose(&id, args.platform.as_ref()) {
            Ok(target) => (Some(target.platform), rows),
            Err(error) => (args.platform.clone(), rows.with([Row::error("workers", &error)])),
        };
        let scene = Scene { args, asked: &self, opened: &opened, ui, free: guard.is_some() };
        let rows = rows.with(scene.rows(&mut id, target.as_ref()).await);
        let report = rows.report(Some(id), target, "another row keeps it from being asked");
        // A run goes on where it is fit, and otherwise gives back what it took for this look.
        let goes_on = |guard: &Guard| self.holder.run && (report.fit || !guard.only_looks());
        if let Some(guard) = guard.filter(|guard| !goes_on(guard))
            && let Err(error) = guard.release().await
        {
            ui.warn(format!("the lease was not given back, it ends by itself in 15 minutes: {error}"));
        }
        step.done("");
        Ok(report)
    }
}

/// The rows so far; the first answer to a question counts.
#[derive(Default)]
struct Rows(Vec<Row>);

impl Rows {
    fn with(mut self, more: impl IntoIterator<Item = Row>) -> Self {
        for row in more {
            if !self.0.iter().any(|known| known.check == row.check) {
                self.0.push(row);
            }
        }
        self
    }

    /// All rows in their order; `why` nobody answered the others.
    fn report(mut self, cluster: Option<ClusterId>, platform: Option<Platform>, why: &str) -> Report {
        let mut rows = Vec::new();
        for check in CHECKS {
            let found = self.0.iter().position(|row| row.check == check).map(|at| self.0.swap_remove(at));
            rows.push(found.unwrap_or_else(|| Row::not_tried(check, why)));
        }
        let fit = rows.iter().all(|row| row.answer != Answer::Unfit);
        Report { schema_version: SCHEMA_VERSION, cluster, platform, fit, rows }
    }
}

/// What the questions share.
struct Scene<'a> {
    args: &'a Args,
    asked: &'a Asked,
    opened: &'a Opened,
    ui: &'a Ui,
    /// Whether nobody else works there, so that pods may be started.
    free: bool,
}

impl Scene<'_> {
    async fn rows(&self, id: &mut ClusterId, target: Option<&Platform>) -> Vec<Row> {
        let client = &self.opened.client;
        let (kinds, placed) = match self.placed(id, target).await {
            Ok(found) => found,
            Err(error) => return vec![Row::error("access", &error)],
        };
        let before = id.clone();
        let of_target = |node: &&Node| target.is_some_and(|platform| node.platform == *platform);
        let nodes: Vec<&Node> = before.nodes.iter().filter(|node| node.ready).filter(of_target).collect();
        let (access, hooks, clock, room, storage, pulls, looked) = tokio::join!(
            access::row(client, &placed),
            hooks::row(client),
            clock::row(client, &kinds, &nodes),
            room::rows(client, &nodes, self.args.disk, self.args.memory),
            self.storage(target),
            self.pulls(target, &before, &nodes),
            self.probe(id, target),
        );
        let credentials = credentials::row(self.opened, self.asked.logins.as_deref(), self.args.lasts);
        let mut rows = vec![access, hooks, clock, credentials];
        rows.extend(room);
        rows.extend(storage);
        rows.extend(pulls);
        let (seen, error) = looked;
        if let Some(platform) = target {
            let wanted = self.asked.architectures.iter().find(|row| row.platform == *platform);
            let own = self.asked.clusters.iter().filter(|cluster| cluster.is_of(&id.name, &id.uid, platform));
            let own = own.filter_map(|cluster| cluster.workers).max();
            let least = self.args.workers.or(own).or(wanted.map(|wanted| wanted.workers)).unwrap_or(1);
            rows.push(nodes::workers(id, platform, least));
            rows.push(nodes::nature(id, platform, error.as_ref(), self.args.native));
            rows.push(nodes::processor(id, platform, wanted));
        }
        rows.push(network::dns(client, &seen).await);
        rows.push(network::internet(&seen, &self.args.internet));
        rows
    }

    /// The kinds that the cluster knows, and the release's objects in their places.
    async fn placed(&self, id: &ClusterId, target: Option<&Platform>) -> Result<(Kinds, Vec<Placed>)> {
        let Some(release) = &self.asked.release else {
            return Ok((Kinds::discover(&self.opened.client).await?, Vec::new()));
        };
        let kinds = install::kinds(self.opened, release).await?;
        let Some(target) = target.and_then(|platform| platform::choose(id, Some(platform)).ok()) else {
            return Ok((kinds, Vec::new()));
        };
        let mut placed = install::place(release, &kinds)?;
        install::fit(&mut placed, &target, &mut Progress::new(&release.component, None));
        Ok((kinds, placed))
    }

    async fn storage(&self, target: Option<&Platform>) -> Option<Row> {
        let platform = target.filter(|_| self.free)?;
        let image = self.args.probe.clone().or_else(|| self.images().into_iter().next());
        let image = image.unwrap_or_else(|| ANY_IMAGE.into());
        Some(storage::row(&self.opened.client, platform, &image, self.args.timeout).await)
    }

    /// The images that the release's pods name, and those that it hands to its programs, as far as they are for
    /// these nodes.
    fn images(&self) -> BTreeSet<String> {
        let Some(release) = &self.asked.release else { return BTreeSet::new() };
        let for_linux =
            |image: &&Image| image.platforms.is_empty() || image.platforms.iter().any(|row| row.platform.os == "linux");
        let known = release.images.iter().flatten().filter(for_linux).map(|image| image.reference.clone());
        let named = release.objects.iter().flat_map(pods::containers).map(|(_, image)| image);
        known.chain(named).filter(|image| !image.is_empty()).collect()
    }

    async fn pulls(&self, target: Option<&Platform>, id: &ClusterId, nodes: &[&Node]) -> Vec<Row> {
        let Some(platform) = target.filter(|_| self.free && !nodes.is_empty()) else { return Vec::new() };
        let client = &self.opened.client;
        if let Err(error) = cluster::ours::forget(client, images::LABEL).await {
            return vec![Row::error("images", &error)];
        }
        let logins = self.asked.logins.as_deref();
        let mut rows = images::rows(client, &self.images(), nodes, logins, self.args.timeout).await.to_vec();
        // A node pulls an index that lies; who looked into the images knows better.
        let known = self.asked.release.as_ref().and_then(|release| release.images.as_ref());
        if let (Some(known), Ok(target)) = (known, platform::choose(id, Some(platform)))
            && let Err(error) = platform::check_images(known, &target, id)
        {
            rows.retain(|row| row.check != "images");
            rows.push(Row::error("images", &error));
        }
        rows
    }

    /// What the nodes are, and what pods there reach.
    async fn probe(&self, id: &mut ClusterId, target: Option<&Platform>) -> (network::Seen, Option<Error>) {
        let arguments = network::arguments(&self.args.internet);
        let declared: Vec<_> = self.asked.clusters.iter().filter_map(Cluster::declared).collect();
        let look = Look {
            opened: self.opened,
            platform: target,
            image: self.args.probe.as_deref().filter(|_| self.free),
            arguments: &arguments,
            declared: &declared,
            limit: self.args.timeout,
            ui: self.ui,
        };
        let (seen, error) = look.see(id).await;
        (seen.nodes, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_question_has_a_row_and_the_first_answer_counts() {
        let rows =
            Rows::default().with([Row::fit("api", "a"), Row::unfit("dns", Cause::Dns, "b"), Row::fit("dns", "c")]);
        let report = rows.report(None, None, "nobody asked");
        assert_eq!(report.rows.iter().map(|row| row.check).collect::<Vec<_>>(), CHECKS);
        assert!(!report.fit);
        let dns = report.rows.iter().find(|row| row.check == "dns").unwrap();
        assert_eq!((dns.answer, dns.line.as_str()), (Answer::Unfit, "b"));
        let others = report.rows.iter().filter(|row| row.answer == Answer::NotTried).count();
        assert_eq!(others, CHECKS.len() - 2);
        assert!(Rows::default().with([Row::note("api", "a")]).report(None, None, "").fit);
    }
}
