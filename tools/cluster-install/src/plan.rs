//! `cluster-install plan`: what an installation would do. Nothing is changed: what is there is asked
//! for a try (a dry run), and compared.

use std::path::PathBuf;

use cluster::{FIELD_MANAGER, KubeContext, Options, inventory};
use futures::{StreamExt, TryStreamExt, stream};
use kit::{
    Cause, Done, Error, Output, Platform, Result, RunDir, Ui,
    ci::CiOptions,
    record::{Image, ObjectKey, SCHEMA_VERSION, Setting},
};
use kube::{
    Client,
    api::{Patch, PatchParams},
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    apply::{PARALLEL, Placed},
    diff,
    extras::Extras,
    install, platform, pods, prune,
    record::Progress,
    release::Release,
};

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// The component
    #[arg(long, value_name = "NAME")]
    component: String,
    /// The run's folder, with release.yaml and images.json of the component
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// Look at this file instead
    #[arg(long, value_name = "FILE")]
    release: Option<PathBuf>,
    /// The nodes that are meant [default: those of the cluster, if they are all of one platform]
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// Show new objects in full too
    #[arg(long)]
    full: bool,
    #[command(flatten)]
    extras: Extras,
    #[command(flatten)]
    cluster: Options,
    #[command(flatten)]
    ci: CiOptions,
}

const EXAMPLES: &str = "Examples:
  cluster-install plan --component pipeline --release release.yaml --flags alpha
  cluster-install plan --component pipeline --run-dir target/runs/R --output json

The signs: + new, ~ changed, - removed (an earlier version had it), ! cannot be applied
Exit codes: 0 whatever would change, 2 the call is wrong, 3 the cluster does not answer";

/// What would come of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Change {
    New,
    Changed,
    Unchanged,
    Removed,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Planned {
    #[serde(flatten)]
    key: ObjectKey,
    change: Change,
    /// Line by line.
    #[serde(skip_serializing_if = "String::is_empty")]
    diff: String,
    /// Why it cannot be applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

/// An image that would run.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Runs {
    container: String,
    image: String,
    /// The image for the platform, if somebody has looked.
    #[serde(skip_serializing_if = "Option::is_none")]
    manifest: Option<String>,
    /// Whether it is for the platform, as far as anybody knows.
    verified: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Plan {
    schema_version: &'static str,
    release: String,
    platform: Platform,
    /// Nodes where its pods may run.
    nodes: Vec<String>,
    settings: Vec<Setting>,
    objects: Vec<Planned>,
    images: Vec<Runs>,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Done> {
    let release = match (&args.release, &args.run_dir) {
        (Some(file), _) => Release::from_file(file, &args.component)?,
        (None, Some(run)) => Release::from_run(&RunDir::open(run)?, &args.component)?,
        (None, None) => {
            return Err(
                Error::new(Cause::Usage, "plan what? name a release").next("add --run-dir DIR or --release FILE")
            );
        }
    };
    let component = install::component(&args.ci, &args.component)?;
    let (release, changes) = args.extras.apply(release, component.as_ref())?;
    let plan = cluster::block_on(async {
        let opened = cluster::open(&args.cluster, ui).await?;
        let id = cluster::identity(&opened).await?;
        let target = platform::choose(&id, args.platform.as_ref())?;
        let kinds = install::kinds(&opened, &release).await?;
        let mut kept = inventory::all(&opened.client).await?;
        let earlier = kept.iter().position(|kept| kept.inventory.component == args.component);
        let earlier = earlier.map(|at| kept.swap_remove(at));
        let (digest, known) = (release.digest.clone(), release.images.clone().unwrap_or_default());
        let mut placed = install::place(&release, &kinds)?;
        install::fit(&mut placed, &target, &mut Progress::new(&args.component, None));
        args.extras.entrust(&mut placed, &kinds)?;
        let looks = placed.iter().map(|item| look(&opened.client, item));
        let mut objects: Vec<_> = stream::iter(looks).buffered(PARALLEL).try_collect().await?;
        let all: Vec<_> = placed.into_iter().map(|item| item.object).collect();
        let surplus = prune::surplus(earlier.as_ref(), &kept, &all);
        let removed = |key| Planned { key, change: Change::Removed, diff: String::new(), problem: None };
        objects.extend(surplus.into_iter().map(removed));
        let meant = |node: &&kit::record::Node| node.ready && node.platform == target.platform;
        Ok(Plan {
            schema_version: SCHEMA_VERSION,
            release: digest,
            nodes: id.nodes.iter().filter(meant).map(|node| node.name.clone()).collect(),
            settings: changes.settings,
            images: all.iter().flat_map(|object| runs(object, &known, &target.platform)).collect(),
            platform: target.platform,
            objects,
        })
    })?;
    match ui.output {
        Output::Json => ui.json(&plan)?,
        Output::Text => ui.result(&text(&plan, args.full))?,
    }
    Ok(Done::good())
}

fn runs(object: &cluster::objects::Object, known: &[Image], platform: &Platform) -> Vec<Runs> {
    let of = |(name, image): (String, String)| {
        let digest = image.rsplit_once('@').map(|(_, digest)| digest);
        let same = |known: &&Image| known.reference == image || (digest.is_some() && known.digest.as_deref() == digest);
        let row =
            known.iter().find(same).and_then(|known| known.platforms.iter().find(|row| row.platform == *platform));
        Runs {
            container: format!("{}/{}/{name}", object.key.namespace, object.key.name),
            manifest: row.and_then(|row| row.manifest.clone()),
            verified: row.is_some_and(|row| row.problem.is_none() && row.manifest.is_some()),
            image,
        }
    };
    pods::containers(object).into_iter().map(of).collect()
}

async fn look(client: &Client, item: &Placed) -> Result<Planned, Error> {
    let key = item.object.key.clone();
    let api = item.kind.api(client, &key.namespace);
    // A kind that the release itself defines is not served yet.
    let before = match api.get_opt(&key.name).await {
        Err(kube::Error::Api(status)) if status.code == 404 => None,
        before => before.kube(|| format!("cannot read {key}"))?,
    };
    let before = before.map_or(Value::Null, |before| serde_json::to_value(before).unwrap_or_default());
    let mut params = PatchParams::apply(FIELD_MANAGER);
    params.dry_run = true;
    let tried = api.patch(&key.name, &params, &Patch::Apply(&item.object.value)).await;
    let new = before.is_null();
    let conflict = |error: &kube::Error| matches!(error, kube::Error::Api(status) if status.code == 409);
    let (after, problem) = match tried {
        // What it would become, if somebody says --force-conflicts.
        Err(error) if conflict(&error) => {
            params.force = true;
            let forced = api.patch(&key.name, &params, &Patch::Apply(&item.object.value)).await;
            let forced = forced.kube(|| format!("cannot try {key}"))?;
            (serde_json::to_value(forced).unwrap_or_default(), Some(cluster::describe(&error)))
        }
        Ok(after) => (serde_json::to_value(after).unwrap_or_default(), None),
        // In a namespace, or of a kind, that the release makes first.
        Err(kube::Error::Api(status)) if new && status.code == 404 => (item.object.value.clone(), None),
        Err(error) if new => (item.object.value.clone(), Some(cluster::describe(&error))),
        Err(error) => (before.clone(), Some(cluster::describe(&error))),
    };
    let diff = diff::unified(&before, &after);
    let change = match (new, diff.is_empty() && problem.is_none()) {
        (true, _) => Change::New,
        (false, true) => Change::Unchanged,
        (false, false) => Change::Changed,
    };
    Ok(Planned { key, change, diff, problem })
}

fn text(plan: &Plan, full: bool) -> String {
    let count = |change| plan.objects.iter().filter(|planned| planned.change == change).count();
    let mut text = String::new();
    for planned in plan.objects.iter().filter(|planned| planned.change != Change::Unchanged) {
        let sign = match (&planned.problem, planned.change) {
            (Some(_), _) => '!',
            (None, Change::New) => '+',
            (None, Change::Removed) => '-',
            (None, _) => '~',
        };
        let problem = planned.problem.as_ref().map_or_else(String::new, |problem| format!(": {problem}"));
        text += &format!("{sign} {}{problem}\n", planned.key);
        if planned.change == Change::Changed || full {
            text += &planned.diff;
        }
    }
    for set in &plan.settings {
        text += &format!("set {} {}={}\n", set.config_map, set.key, set.value);
    }
    let mut rows = vec![["CONTAINER", "IMAGE", "VERIFIED"].map(String::from).to_vec()];
    for runs in &plan.images {
        let verified = if runs.verified { format!("for {}", plan.platform) } else { "no".into() };
        rows.push(vec![runs.container.clone(), runs.image.clone(), verified]);
    }
    if rows.len() > 1 {
        text += &format!("\n{}on {}\n\n", kit::ui::table(&rows), plan.nodes.join(", "));
    }
    let removed = match count(Change::Removed) {
        0 => String::new(),
        removed => format!(", {removed} removed"),
    };
    let text = text
        + &format!(
            "{} new, {} changed, {} unchanged{removed}, for {}",
            count(Change::New),
            count(Change::Changed),
            count(Change::Unchanged),
            plan.platform
        );
    kit::ui::printable(&text)
}
