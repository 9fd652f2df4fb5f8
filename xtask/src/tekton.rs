//! `cargo xtask tekton`: what lies in `ci/tekton` for a cluster, and whether it fits together.
//!
//! Tasks, Pipelines and Triggers are written by hand. Put in are the step images by digest, what every Task has
//! (`common.yaml`), and what belongs to a place: namespace, repositories. CronJobs and volumes follow from
//! `ci/architectures.toml` and `ci/components.toml`.

mod actions;
mod features;
mod lint;
pub(crate) mod places;
mod render;
mod runs;
mod workflow;

use std::{path::PathBuf, process::Command, time::Duration};

use kit::{Cause, Done, Error, Process, Result, Ui, ci::Ci};

use crate::{images::Made, tools};

pub(crate) use features::features;
pub(crate) use places::{job, payload};
pub(crate) use render::{Place, documents, render};
pub(crate) use workflow::workflow;

const EXAMPLES: &str = "\
Examples:
  cargo xtask images --to registry.example/other-arch/steps
  cargo xtask tekton --repo registry.example/nightly --repository https://git.example/other-arch --kubeconfig driver.yaml
  cargo xtask tekton --repo … --repository … --step-actions --lab NAME
  cargo xtask tekton --check

With --kubeconfig or --lab it is an error, and nothing is printed, if the Tekton of that cluster lacks what is used. The
namespace then needs a Secret target-OS-ARCH for each platform that is tested, with the target's kubeconfig under that
name, or as ssh-privatekey the key to the host of ci/architectures.toml that makes the target for each run; and for a
registry that asks who one is a Secret other-arch-registry of type kubernetes.io/dockerconfigjson.";

/// Print the Tasks, Pipelines and Triggers for a cluster, or check them
#[derive(clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Check that steps, Tasks, Pipelines and Triggers fit together; print nothing
    #[arg(long, conflicts_with_all = ["repo", "repository"])]
    check: bool,
    /// Repository that images are pushed under
    #[arg(long, value_name = "REPO", required_unless_present = "check")]
    repo: Option<String>,
    /// The git repository that holds ci/, as steps reach it
    #[arg(long, value_name = "URL", required_unless_present = "check")]
    repository: Option<String>,
    /// The namespace
    #[arg(long, value_name = "NAME", default_value = "other-arch-nightly")]
    namespace: String,
    /// URL of the Tekton Dashboard: evidence then links to its run
    #[arg(long, value_name = "URL", default_value = "")]
    dashboard: String,
    /// Look first whether the Tekton of this cluster has what is used
    #[arg(long, value_name = "PATH", conflicts_with_all = ["check", "lab"])]
    kubeconfig: Option<PathBuf>,
    /// The context in that kubeconfig
    #[arg(long, value_name = "NAME", requires = "kubeconfig")]
    context: Option<String>,
    /// The same for a lab of this machine
    #[arg(long, value_name = "NAME", conflicts_with = "check")]
    lab: Option<String>,
    /// Size of each target's volume, for caches and runs
    #[arg(long, value_name = "QUANTITY", default_value = "20Gi")]
    storage: String,
    /// How a volume is mounted: ReadWriteMany where the cluster has several nodes and two runs may use one at once
    #[arg(long, value_name = "MODE", default_value = "ReadWriteOnce", value_parser = ["ReadWriteOnce", "ReadWriteMany"])]
    access_mode: String,
    /// Print each stage as a StepAction as well, for Tasks of one's own, which bring folders, /tmp and what
    /// other-arch-environment says; the cluster has to serve them
    #[arg(long, conflicts_with = "check")]
    step_actions: bool,
    /// The step images by digest, as `cargo xtask images --to` writes them [default: target/images/images.json]
    #[arg(long, value_name = "FILE")]
    images: Option<PathBuf>,
}

impl Args {
    /// Asks the cluster that is named.
    fn kubectl(&self, words: &[&str]) -> Result<String> {
        let mut command = match &self.lab {
            Some(_) => Command::new(tools::path("lab")?),
            None => Command::new("kubectl"),
        };
        if let Some(name) = &self.lab {
            command.args(["--name", name, "kubectl"]);
        }
        if let Some(path) = &self.kubeconfig {
            command.arg("--kubeconfig").arg(path);
        }
        command.args(self.context.iter().flat_map(|context| ["--context", context])).args(words);
        let process = Process::new("kubectl", command).cause(Cause::Apiserver);
        process.limit(Duration::from_secs(60)).read()
    }
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Done> {
    if args.lab.is_some() {
        tools::build(tools::TOOLS, ui)?;
    }
    let ci = Ci::new(tools::root().join("ci"));
    if args.check {
        check(&ci)?;
        ui.note("ci/tekton fits together");
        return Ok(Done::good());
    }
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let place = Place {
        namespace: args.namespace.clone(),
        repo: text(&args.repo),
        repository: text(&args.repository),
        storage: args.storage.clone(),
        access_mode: args.access_mode.clone(),
        dashboard: args.dashboard.clone(),
    };
    if args.kubeconfig.is_some() || args.lab.is_some() {
        features(&|words| args.kubectl(words), args.step_actions)?;
    }
    let mut documents = documents(&folder(&ci))?;
    if args.step_actions {
        documents.extend(actions::actions(&documents));
    }
    ui.result(render(documents, &place, &Made::read(args.images.as_deref())?)?.trim_end())?;
    Ok(Done::good())
}

/// Everything that can be wrong with `ci/tekton` by itself.
///
/// # Errors
/// [`Cause::PolicyRefused`] naming all of it.
pub(crate) fn check(ci: &Ci) -> Result<()> {
    let mut problems = lint::problems(&documents(&folder(ci))?)?;
    for (path, text) in generated(ci)? {
        if std::fs::read_to_string(&path).ok().as_ref() != Some(&text) {
            problems.push(format!("{} is not what ci/*.toml say: cargo xtask generate", path.display()));
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::new(Cause::PolicyRefused, format!("ci/tekton does not fit together in {} places", problems.len()))
        .line(problems.join("\n")))
}

/// What is generated from `ci/*.toml`, with where it lies.
///
/// # Errors
/// [`Cause::Usage`] if they are wrong.
pub(crate) fn generated(ci: &Ci) -> Result<Vec<(PathBuf, String)>> {
    let (root, folder) = (ci.folder().parent().unwrap_or(ci.folder()).to_path_buf(), folder(ci));
    Ok(vec![
        (folder.join("generated/places.yaml"), places::places(ci)?),
        (root.join(".github/workflows/nightly.yaml"), workflow(ci)?),
    ])
}

/// Where they lie.
pub(crate) fn folder(ci: &Ci) -> PathBuf {
    ci.folder().join("tekton")
}

#[cfg(test)]
mod tests;
