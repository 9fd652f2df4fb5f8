//! `cluster-install plan`: what an installation would do. Nothing is changed: what is there is asked
//! for a try (a dry run), and compared.

use std::path::PathBuf;

use cluster::{FIELD_MANAGER, KubeContext, Options};
use futures::{StreamExt, TryStreamExt, stream};
use kit::{
    Cause, Done, Error, Output, Platform, Result, RunDir, Ui,
    record::{ObjectKey, SCHEMA_VERSION},
};
use kube::{
    Client,
    api::{DynamicObject, Patch, PatchParams},
};
use serde::Serialize;
use serde_json::Value;

use crate::{
    apply::{PARALLEL, Placed},
    install, platform,
    record::Progress,
    release::Release,
};

#[derive(Debug, clap::Args)]
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
    #[command(flatten)]
    cluster: Options,
}

/// What would come of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Change {
    New,
    Changed,
    Unchanged,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Planned {
    #[serde(flatten)]
    key: ObjectKey,
    change: Change,
    /// Why it cannot be applied.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Plan {
    schema_version: &'static str,
    release: String,
    platform: Platform,
    objects: Vec<Planned>,
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
    let plan = cluster::block_on(async {
        let opened = cluster::open(&args.cluster, ui).await?;
        let id = cluster::identity(&opened).await?;
        let target = platform::choose(&id, args.platform.as_ref())?;
        let kinds = install::kinds(&opened, &release).await?;
        let digest = release.digest.clone();
        let (_, placed) = install::place(release, &kinds, &target, &mut Progress::new(&args.component, None))?;
        let looks = placed.iter().map(|item| look(&opened.client, item));
        let objects = stream::iter(looks).buffered(PARALLEL).try_collect().await?;
        Ok(Plan { schema_version: SCHEMA_VERSION, release: digest, platform: target.platform, objects })
    })?;
    match ui.output {
        Output::Json => ui.json(&plan)?,
        Output::Text => ui.result(&text(&plan))?,
    }
    Ok(Done::good())
}

async fn look(client: &Client, item: &Placed) -> Result<Planned, Error> {
    let key = item.object.key.clone();
    let api = item.kind.api(client, &key.namespace);
    let Some(before) = api.get_opt(&key.name).await.kube(|| format!("cannot read {key}"))? else {
        return Ok(Planned { key, change: Change::New, problem: None });
    };
    let mut params = PatchParams::apply(FIELD_MANAGER);
    params.dry_run = true;
    let (change, problem) = match api.patch(&key.name, &params, &Patch::Apply(&item.object.value)).await {
        Ok(after) if content(&before) == content(&after) => (Change::Unchanged, None),
        Ok(_) => (Change::Changed, None),
        Err(error) => (Change::Changed, Some(cluster::describe(&error))),
    };
    Ok(Planned { key, change, problem })
}

/// An object without what the API server keeps for itself.
fn content(object: &DynamicObject) -> Value {
    let mut value = serde_json::to_value(object).unwrap_or_default();
    if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in ["managedFields", "resourceVersion", "generation"] {
            metadata.remove(field);
        }
    }
    value
}

fn text(plan: &Plan) -> String {
    let count = |change| plan.objects.iter().filter(|planned| planned.change == change).count();
    let mut text = String::new();
    for planned in plan.objects.iter().filter(|planned| planned.change != Change::Unchanged) {
        let sign = if planned.change == Change::New { '+' } else { '~' };
        let problem = planned.problem.as_ref().map_or_else(String::new, |problem| format!(": {problem}"));
        text += &format!("{sign} {}{problem}\n", planned.key);
    }
    text + &format!(
        "{} new, {} changed, {} unchanged, for {}",
        count(Change::New),
        count(Change::Changed),
        count(Change::Unchanged),
        plan.platform
    )
}
