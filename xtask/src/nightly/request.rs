//! What was asked of a nightly, as typed and as checked. Everything that can be wrong is found here, before
//! anything is built.

use std::path::PathBuf;

use kit::{
    Cause, Error, Platform, Result,
    ci::{Ci, CiOptions},
    rundir,
};

use crate::tools;

/// Build, verify, install, test and clean up; then say what is supported
#[derive(clap::Args, Default)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Component of ci/components.toml (may be repeated)
    #[arg(long = "component", value_name = "NAME", default_value = "pipeline")]
    components: Vec<String>,
    /// Platform that is built and verified (may be repeated) [default: those of ci/architectures.toml]
    #[arg(long = "platform", value_name = "OS/ARCH")]
    platforms: Vec<Platform>,
    /// Platform that tests run on (may be repeated) [default: what is native here]
    #[arg(long, value_name = "OS/ARCH")]
    test_on: Vec<Platform>,
    /// Suite of ci/components.toml [default: each component's own]
    #[arg(long, value_name = "NAME")]
    suite: Option<String>,
    /// Test a release that exists, instead of building one: a file, or a reference in a registry
    #[arg(long, value_name = "FILE|REF")]
    release: Option<String>,
    /// Repository that images are pushed to [default: the lab's registry]
    #[arg(long, value_name = "REPO")]
    repo: Option<String>,
    /// A cluster of your own: a kubeconfig, or 'env', or 'in-cluster'
    #[arg(
        long,
        value_name = "PATH|env|in-cluster",
        conflicts_with = "lab",
        requires = "repo",
        help_heading = "Cluster"
    )]
    kubeconfig: Option<String>,
    /// Its context
    #[arg(long, value_name = "NAME", requires = "kubeconfig", help_heading = "Cluster")]
    context: Option<String>,
    /// A lab by its name; it is started, and taken down at the end unless it was up before
    #[arg(long, value_name = "NAME", default_value = "default", help_heading = "Cluster")]
    lab: String,
    /// Folder of this run; with --from the earlier run [default: target/runs/<run id>]
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// Go on from a stage of the run in --run-dir; its earlier records are copied into a new run
    #[arg(long, value_name = "STAGE", value_enum, default_value_t, requires = "run_dir")]
    from: From,
    /// Leave cluster and lab as they are, for debugging
    #[arg(long)]
    keep: bool,
    /// Environment for the tests, such as GREETER_TEST=fail (may be repeated)
    #[arg(long, value_name = "KEY=VALUE")]
    env: Vec<String>,
    /// Where closed runs are kept
    #[arg(long, value_name = "DIR")]
    history: Option<PathBuf>,
    /// Where the matrix is written
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    ci: CiOptions,
}

const EXAMPLES: &str = "\
Examples:
  cargo xtask nightly                                          Tekton Pipelines, four platforms
  cargo xtask nightly --component greeter --platform linux/amd64
  cargo xtask nightly --keep                                   look around afterwards
  cargo xtask nightly --from test --run-dir target/runs/…      run the tests again there
  cargo xtask nightly --kubeconfig s390x.yaml --repo registry.example/tekton --test-on linux/s390x";

/// Stages that a run can go on from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, clap::ValueEnum)]
pub(crate) enum From {
    /// From the beginning
    #[default]
    Build,
    /// With the images of the earlier run
    Install,
    /// With what the earlier run installed and kept
    Test,
    /// Only get the cluster back to the earlier run's baseline
    Cleanup,
}

/// A request that can be carried out.
pub(crate) struct Request {
    pub(crate) ci: Ci,
    pub(crate) components: Vec<String>,
    pub(crate) platforms: Vec<Platform>,
    pub(crate) test_on: Vec<Platform>,
    pub(crate) suite: Option<String>,
    pub(crate) release: Option<String>,
    pub(crate) repo: Option<String>,
    /// The lab's name, unless the cluster is somebody else's.
    pub(crate) lab: Option<String>,
    /// The cluster as options for the tools.
    pub(crate) cluster: Vec<String>,
    pub(crate) run_dir: PathBuf,
    /// The run that this one goes on from.
    pub(crate) earlier: Option<PathBuf>,
    pub(crate) from: From,
    pub(crate) keep: bool,
    pub(crate) env: Vec<String>,
    pub(crate) history: PathBuf,
    pub(crate) out: PathBuf,
}

impl Request {
    /// # Errors
    /// [`Cause::Usage`], naming what is wrong and what there is instead.
    pub(crate) fn check(args: Args) -> Result<Self> {
        let ci = args.ci.open().or_else(|_| Ok(Ci::new(tools::root().join("ci"))))?;
        for name in &args.components {
            let component = ci.component(name)?;
            component.suite(args.suite.as_deref()).map_err(|error| error.within(format!("component '{name}'")))?;
        }
        ci.images()?;
        ci.skips()?;
        ci.policy()?;
        let known = ci.architectures()?.architecture.into_iter().map(|architecture| architecture.platform);
        let platforms = if args.platforms.is_empty() { known.collect() } else { args.platforms };
        let test_on = if args.test_on.is_empty() { vec![Platform::host()] } else { args.test_on };
        if let Some(missing) = test_on.iter().find(|platform| !platforms.contains(platform)) {
            return Err(Error::new(Cause::Usage, format!("{missing} is to be tested but not built"))
                .next(format!("add --platform {missing}, or choose with --test-on")));
        }
        let lab = args.kubeconfig.is_none().then_some(args.lab);
        if let (Some(_), Some(foreign)) = (&lab, test_on.iter().find(|platform| **platform != Platform::host())) {
            return Err(Error::new(Cause::Usage, format!("the lab on this machine has no node of {foreign}")).next(
                format!("name a cluster that has: --kubeconfig FILE --repo REPO; or test on {}", Platform::host()),
            ));
        }
        let mut cluster = Vec::new();
        let mut option = |name: &str, value: Option<&String>| {
            cluster.extend(value.into_iter().flat_map(|value| [name.into(), value.clone()]))
        };
        option("--lab", lab.as_ref());
        option("--kubeconfig", args.kubeconfig.as_ref());
        option("--context", args.context.as_ref());
        let (earlier, run_dir) = match (args.from, args.run_dir) {
            (From::Build, Some(folder)) => (None, folder),
            (_, earlier) => (earlier, tools::root().join("target/runs").join(rundir::new_run_id())),
        };
        if let Some(earlier) = &earlier {
            kit::RunDir::open(earlier)?;
        }
        Ok(Self {
            ci,
            components: args.components,
            platforms,
            test_on,
            suite: args.suite,
            release: args.release,
            repo: args.repo,
            lab,
            cluster,
            run_dir,
            earlier,
            from: args.from,
            keep: args.keep,
            env: args.env,
            history: args.history.unwrap_or_else(|| tools::root().join("target/history")),
            out: args.out.unwrap_or_else(|| tools::root().join("target/matrix")),
        })
    }

    pub(crate) fn ci_args(&self) -> Vec<String> {
        vec!["--ci".into(), self.ci.folder().display().to_string()]
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn check(line: &str) -> Result<Request> {
        Request::check(Line::parse_from(format!("nightly {line}").split_whitespace()).args)
    }

    #[test]
    fn the_defaults_are_tekton_on_all_platforms_tested_where_it_is_native() {
        let request = check("").unwrap();
        assert_eq!(request.components, ["pipeline"]);
        assert!(request.platforms.len() >= 4);
        assert_eq!(request.test_on, [Platform::host()]);
        assert_eq!(request.cluster, ["--lab", "default"]);
    }

    #[test]
    fn a_wrong_call_is_found_before_anything_is_done() {
        for (line, said) in [
            ("--component nosuch", "unknown component 'nosuch'"),
            ("--suite nosuch", "there is no suite 'nosuch'"),
            ("--platform linux/arm64", "is to be tested but not built"),
            ("--platform linux/s390x --test-on linux/s390x", "has no node of linux/s390x"),
            ("--run-dir /no/such/run --from test", "there is no run directory /no/such/run"),
            ("--ci /no/such/folder", "cannot read /no/such/folder/components.toml"),
        ] {
            let error = check(line).err().unwrap();
            assert_eq!(error.cause, Cause::Usage, "{line}");
            assert!(error.to_string().contains(said), "{line}: {error}");
        }
    }

    #[test]
    fn a_cluster_of_ones_own_needs_a_repository_that_it_can_reach() {
        assert!(Line::try_parse_from(["nightly", "--kubeconfig", "x"]).is_err());
        let request = check("--kubeconfig x --repo r/x --platform linux/s390x --test-on linux/s390x").unwrap();
        assert_eq!(request.cluster, ["--kubeconfig", "x"]);
        assert!(request.lab.is_none());
    }
}
