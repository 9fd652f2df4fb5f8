//! What was asked of a nightly, as typed and as checked. Everything that can be wrong is found here, before
//! anything is built.

use std::path::{Path, PathBuf};

use kit::{
    Cause, Error, Platform, Result,
    ci::{Ci, CiOptions, Components},
    record::{EMULATED, Record, RunRecord},
    rundir,
};

use crate::tools;

/// Build, verify, install, test and clean up; then say what is supported
#[derive(clap::Args, Default)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Component of ci/components.toml (may be repeated) [default: pipeline]
    #[arg(long = "component", value_name = "NAME")]
    components: Vec<String>,
    /// Platform that is built and verified (may be repeated) [default: those of ci/architectures.toml]
    #[arg(long = "platform", value_name = "OS/ARCH")]
    platforms: Vec<Platform>,
    /// Platform that tests run on (may be repeated); a lab emulates nodes of those that are not native here [default:
    /// what is native here]
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
    /// A lab by its name; it is started, and taken down at the end unless it was up before [default: default]
    #[arg(long, value_name = "NAME", help_heading = "Cluster")]
    lab: Option<String>,
    /// Memory of each emulated node that the lab gets, in MiB [default: the lab's own]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1024..=262_144), help_heading = "Cluster")]
    node_memory: Option<u64>,
    /// Processors of each emulated node that the lab gets [default: the lab's own]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=16), help_heading = "Cluster")]
    node_cpus: Option<u16>,
    /// A cluster of ci/architectures.toml by its name; it is made unless it is there, and removed at the end if this
    /// run made it
    #[arg(long, value_name = "NAME", conflicts_with_all = ["lab", "kubeconfig"], help_heading = "Cluster")]
    cluster: Option<String>,
    /// Folder of this run; with --from the earlier run [default: target/runs/<run id>]
    #[arg(long, value_name = "DIR")]
    run_dir: Option<PathBuf>,
    /// Go on from a stage of the run in --run-dir; its earlier records are copied into a new run
    #[arg(long, value_name = "STAGE", value_enum, default_value_t, requires = "run_dir")]
    from: From,
    /// Leave cluster and lab as they are, for debugging
    #[arg(long)]
    keep: bool,
    /// Build every image; without it those whose inputs have not changed are taken from the registry
    #[arg(long, conflicts_with = "release")]
    rebuild: bool,
    /// Environment for the tests, such as GREETER_TEST=fail; it stands in the records (may be repeated)
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
  cargo xtask nightly --platform linux/s390x --test-on linux/s390x   on an emulated node
  cargo xtask nightly --keep                                   look around afterwards
  cargo xtask nightly --from test --run-dir target/runs/…      run the tests again there
  cargo xtask nightly --kubeconfig s390x.yaml --repo registry.example/tekton --test-on linux/s390x
  cargo xtask nightly --cluster z-1 --repo registry.example/tekton   a host of ci/architectures.toml makes it";

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

impl From {
    /// Whether this file of an earlier run is needed to go on.
    pub(crate) fn needs(self, name: &str) -> bool {
        let built = ["images.json", "release.yaml", "release.notags.yaml"];
        let installed = ["install.json", "baseline.json", "baseline.bodies.jsonl"];
        (self > Self::Build && built.contains(&name)) || (self > Self::Install && installed.contains(&name))
    }
}

/// A request that can be carried out.
pub(crate) struct Request {
    pub(crate) ci: Ci,
    pub(crate) components: Vec<String>,
    /// What is installed of them and of what they need, in that order.
    pub(crate) builds: Vec<String>,
    needs: Vec<(String, Vec<String>)>,
    pub(crate) platforms: Vec<Platform>,
    pub(crate) test_on: Vec<Platform>,
    pub(crate) suite: Option<String>,
    pub(crate) release: Option<String>,
    pub(crate) repo: Option<String>,
    /// The lab's name, unless the cluster is somebody else's.
    pub(crate) lab: Option<String>,
    /// The emulated nodes that the lab has to have, and their size, as options of `lab up`.
    pub(crate) node_args: Vec<String>,
    /// Where images lie that the lab's own node gets into its store, if this run makes them and tests there.
    pub(crate) preload: Option<PathBuf>,
    /// The cluster as options for the tools.
    pub(crate) cluster: Vec<String>,
    /// Its name in ci/architectures.toml, if cluster-install comes by it.
    pub(crate) named: Option<String>,
    pub(crate) run_dir: PathBuf,
    /// The run that this one goes on from.
    pub(crate) earlier: Option<PathBuf>,
    pub(crate) from: From,
    pub(crate) keep: bool,
    /// Whether images are built that the registry has.
    pub(crate) rebuild: bool,
    pub(crate) env: Vec<String>,
    pub(crate) history: PathBuf,
    pub(crate) out: PathBuf,
}

impl Request {
    /// # Errors
    /// [`Cause::Usage`], naming what is wrong and what there is instead.
    pub(crate) fn check(args: Args) -> Result<Self> {
        Self::check_as(args, rustix::process::geteuid().is_root())
    }

    fn check_as(args: Args, root: bool) -> Result<Self> {
        let ci = args.ci.open().or_else(|_| Ok(Ci::new(tools::root().join("ci"))))?;
        let earlier = match (&args.run_dir, args.from) {
            (Some(folder), From::Build) if folder.join(RunRecord::FILE).exists() => {
                return Err(Error::new(Cause::Usage, format!("{} is the folder of another run", folder.display()))
                    .next("go on from it with --from, or name another folder"));
            }
            (_, From::Build) => None,
            (folder, _) => folder.clone(),
        };
        let before = earlier.as_ref().map(|folder| read_earlier(folder)).transpose()?;
        let mut components = args.components;
        if components.is_empty() {
            components = before.as_ref().map_or_else(|| vec!["pipeline".into()], |run| run.components.clone());
        }
        let all = ci.components()?;
        let mut needs = Vec::new();
        for name in &components {
            let component = ci.component(name)?;
            let (_, suite) =
                component.suite(args.suite.as_deref()).map_err(|error| error.within(format!("component '{name}'")))?;
            suite
                .limit()
                .and(suite.test_limit())
                .map_err(|error| error.within(format!("{}: component '{name}'", ci.folder().display())))?;
            let mut order = Vec::new();
            collect_needs(name, &all, &mut Vec::new(), &mut order)?;
            order.retain(|name| all.get(name).is_some_and(|component| component.config.is_some()));
            if args.release.is_some() {
                component.to_install(name).map_err(|error| error.within("--release"))?;
            }
            needs.push((name.clone(), order));
        }
        let mut builds: Vec<String> = Vec::new();
        for name in needs.iter().flat_map(|(_, order)| order) {
            if !builds.contains(name) {
                builds.push(name.clone());
            }
        }
        if let Some(wrong) = args.env.iter().find(|pair| !pair.contains('=') || pair.starts_with('=')) {
            return Err(Error::new(Cause::Usage, format!("--env {wrong}: not of the form KEY=VALUE")));
        }
        if args.release.is_some() && components.len() > 1 {
            return Err(Error::new(Cause::Usage, "--release is the release of one component, and several are named"));
        }
        ci.images()?;
        ci.skips()?;
        ci.policy()?;
        let known = ci.architectures()?.architecture.into_iter().map(|architecture| architecture.platform);
        let or_before = |given: Vec<Platform>, earlier: fn(&RunRecord) -> &Vec<Platform>| match &before {
            Some(run) if given.is_empty() => earlier(run).clone(),
            _ => given,
        };
        let mut platforms = or_before(args.platforms, |run| &run.platforms);
        let mut test_on = or_before(args.test_on, |run| &run.test_on);
        let described = args.cluster.as_deref().map(|name| ci.cluster(name)).transpose()?;
        if let Some(platform) =
            described.as_ref().and_then(|cluster| cluster.platform.clone()).filter(|_| test_on.is_empty())
        {
            test_on.push(platform);
        }
        if platforms.is_empty() {
            platforms = known.collect();
        }
        if test_on.is_empty() {
            test_on.push(Platform::host());
        }
        if let Some(missing) = test_on.iter().find(|platform| !platforms.contains(platform)) {
            return Err(Error::new(Cause::Usage, format!("{missing} is to be tested but not built"))
                .next(format!("add --platform {missing}, or choose with --test-on")));
        }
        if let Some(path) = args.kubeconfig.as_ref().filter(|path| !["env", "in-cluster"].contains(&path.as_str())) {
            rundir::read_limited(Path::new(path), 4 << 20).map_err(|error| error.within("--kubeconfig"))?;
        }
        // A lab by another name is a lab.
        let lab = args.lab.or_else(|| described.as_ref()?.lab_name().map(String::from));
        let named = args.cluster.filter(|_| lab.is_none());
        let (kubeconfig, context) = match &named {
            Some(name) if args.repo.is_none() => {
                return Err(Error::new(
                    Cause::Usage,
                    format!("--cluster {name} needs a repository that it can pull from"),
                )
                .next("add --repo REPO"));
            }
            // Where `cluster-install cluster create` puts it.
            Some(name) => {
                let file = kit::dirs::cluster(name)?.join("kubeconfig");
                (Some(file.display().to_string()), Some(name.clone()))
            }
            None => (args.kubeconfig, args.context),
        };
        if let (Some(file), None) = (&kubeconfig, &context) {
            one_context(file)?;
        }
        if kubeconfig.is_none() && lab.is_none() && std::env::var_os("KUBERNETES_SERVICE_HOST").is_some() {
            return Err(Error::new(Cause::Usage, "this is a pod, and no cluster is named")
                .next("--kubeconfig in-cluster for the cluster of this pod, --kubeconfig FILE for another"));
        }
        let lab = kubeconfig.is_none().then(|| lab.unwrap_or_else(|| "default".into()));
        let foreign = test_on.iter().filter(|platform| lab.is_some() && **platform != Platform::host());
        let mut nodes: Vec<Platform> = foreign.cloned().collect();
        for node in described.iter().filter_map(|cluster| cluster.lab.as_ref()).flat_map(|lab| &lab.nodes) {
            if !nodes.contains(node) {
                nodes.push(node.clone());
            }
        }
        if lab.is_some() {
            lab_can_be(&nodes, root)?;
        }
        let mut node_args: Vec<String> = nodes.iter().flat_map(|node| ["--node".into(), node.to_string()]).collect();
        node_args.extend(args.node_memory.iter().flat_map(|memory| ["--node-memory".into(), memory.to_string()]));
        node_args.extend(args.node_cpus.iter().flat_map(|cpus| ["--node-cpus".into(), cpus.to_string()]));
        let mut cluster = Vec::new();
        let mut option = |name: &str, value: Option<&String>| {
            cluster.extend(value.into_iter().flat_map(|value| [name.into(), value.clone()]))
        };
        option("--lab", lab.as_ref());
        option("--kubeconfig", kubeconfig.as_ref());
        option("--context", context.as_ref());
        let run_dir = match (args.from, args.run_dir) {
            (From::Build, Some(folder)) => folder,
            _ => tools::root().join("target/runs").join(rundir::new_run_id()),
        };
        let native = test_on.contains(&Platform::host());
        let preload = lab.as_ref().filter(|_| args.from == From::Build && native);
        let preload = preload.map(|lab| Ok(kit::dirs::cache()?.join("preload").join(lab))).transpose()?;
        Ok(Self {
            ci,
            components,
            builds,
            needs,
            platforms,
            test_on,
            suite: args.suite,
            release: args.release,
            repo: args.repo,
            lab,
            node_args,
            preload,
            cluster,
            named,
            run_dir,
            earlier,
            from: args.from,
            keep: args.keep,
            rebuild: args.rebuild,
            env: args.env,
            history: args.history.unwrap_or_else(|| tools::root().join("target/history")),
            out: args.out.unwrap_or_else(|| tools::root().join("target/matrix")),
        })
    }

    /// What is installed for a component: it after those that it needs.
    pub(crate) fn with_needs<'a>(&'a self, component: &str) -> impl Iterator<Item = &'a String> {
        self.needs.iter().filter(move |(name, _)| *name == component).flat_map(|(_, order)| order)
    }

    pub(crate) fn ci_args(&self) -> Vec<String> {
        vec!["--ci".into(), self.ci.folder().display().to_string()]
    }
}

/// Whether a lab with these nodes can be had here at all; the rest it finds out itself.
fn lab_can_be(nodes: &[Platform], root: bool) -> Result<()> {
    let known = |node: &Platform| node.os == "linux" && EMULATED.contains(&node.arch.as_str());
    if let Some(node) = nodes.iter().find(|node| **node != Platform::host() && !known(node)) {
        let known = EMULATED.map(|arch| format!("linux/{arch}")).join(", ");
        return Err(Error::new(Cause::Usage, format!("a lab cannot have a node of {node}"))
            .next(format!("name one of {known}, or a cluster that has such nodes with --kubeconfig")));
    }
    if !root {
        return Err(Error::new(Cause::Usage, "a lab needs root: it makes namespaces, mounts and cgroups")
            .next("run it as root, or use another cluster with --kubeconfig"));
    }
    Ok(())
}

#[cfg(test)]
impl Request {
    /// The request of a command line: for tests.
    pub(super) fn of(line: &str) -> Self {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            args: Args,
        }
        let line: Line = clap::Parser::parse_from(format!("nightly {line}").split_whitespace());
        Self::check(line.args).unwrap_or_else(|error| panic!("{error}"))
    }
}

/// Cleanup refuses a context that nobody named, which may be anybody's cluster: said here, before everything is built. A file
/// that cannot be read is said where it is opened.
fn one_context(file: &str) -> Result<()> {
    let words = ["env", "in-cluster"];
    let Ok(bytes) = rundir::read_limited(Path::new(file), 4 << 20) else { return Ok(()) };
    let config: serde_json::Value = serde_yaml_ng::from_slice(&bytes).unwrap_or_default();
    let contexts = config["contexts"].as_array().map_or(&[][..], Vec::as_slice);
    if words.contains(&file) || contexts.len() < 2 {
        return Ok(());
    }
    let names: Vec<_> = contexts.iter().filter_map(|context| context["name"].as_str()).collect();
    Err(Error::new(Cause::Usage, format!("{file} has {} contexts and none was named", names.len()))
        .next(format!("add --context NAME; its contexts: {}", kit::ui::printable(&names.join(", ")))))
}

/// The earlier run, which must have got so far that it can be gone on from.
fn read_earlier(folder: &Path) -> Result<RunRecord> {
    kit::RunDir::open(folder)?;
    Ok(rundir::read_record::<RunRecord>(folder)?.0)
}

/// Puts `name` behind everything that it needs.
fn collect_needs(name: &str, all: &Components, above: &mut Vec<String>, order: &mut Vec<String>) -> Result<()> {
    if above.iter().any(|other| other == name) {
        let what = format!("components need each other in a circle: {} -> {name}", above.join(" -> "));
        return Err(Error::new(Cause::Usage, what).next("see 'needs' in ci/components.toml"));
    }
    if order.iter().any(|other| other == name) {
        return Ok(());
    }
    above.push(name.to_owned());
    for need in all.get(name).map(|component| component.needs.as_slice()).unwrap_or_default() {
        collect_needs(need, all, above, order)?;
    }
    above.pop();
    order.push(name.to_owned());
    Ok(())
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
        check_as(line, true)
    }

    fn check_as(line: &str, root: bool) -> Result<Request> {
        Request::check_as(Line::parse_from(format!("nightly {line}").split_whitespace()).args, root)
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
            ("--platform linux/riscv64 --test-on linux/riscv64", "a lab cannot have a node of linux/riscv64"),
            ("--env NOTHING", "not of the form KEY=VALUE"),
            ("--kubeconfig /no/such/file --repo r", "cannot read /no/such/file"),
            ("--run-dir /no/such/run --from test", "there is no run directory /no/such/run"),
            ("--ci /no/such/folder", "cannot read /no/such/folder/components.toml"),
        ] {
            let error = check(line).err().unwrap();
            assert_eq!(error.cause, Cause::Usage, "{line}");
            assert!(error.to_string().contains(said), "{line}: {error}");
        }
    }

    #[test]
    fn a_tool_that_is_not_installed_is_tested_with_what_it_needs() {
        let request = check("--component cli").unwrap();
        assert_eq!(
            (request.components.join(" "), request.builds.join(" ")),
            ("cli".into(), "pipeline triggers".into())
        );
        assert_eq!(request.with_needs("cli").map(String::as_str).collect::<Vec<_>>(), ["pipeline", "triggers"]);
        let both = check("--component cli --component pipeline").unwrap();
        assert_eq!((both.builds.join(" "), both.with_needs("pipeline").count()), ("pipeline triggers".into(), 1));
        let error = check("--component cli --release x.yaml").err().unwrap();
        assert!(error.to_string().contains("there is nothing of cli to install"), "{error}");
    }

    #[test]
    fn a_lab_needs_root_and_another_cluster_does_not() {
        let error = check_as("", false).err().unwrap();
        assert!(error.cause == Cause::Usage && error.to_string().contains("needs root"), "{error}");
        let file = tempfile::NamedTempFile::new().unwrap();
        check_as(&format!("--kubeconfig {} --repo r/x", file.path().display()), false).unwrap();
    }

    #[test]
    fn a_run_is_gone_on_from_with_all_that_cleanup_needs() {
        for from in [From::Test, From::Cleanup] {
            assert!(["install.json", "baseline.json", "baseline.bodies.jsonl"].iter().all(|file| from.needs(file)));
        }
        assert!(!From::Install.needs("baseline.bodies.jsonl"));
    }

    #[test]
    fn what_is_not_native_here_is_tested_on_emulated_nodes_of_the_lab() {
        let foreign = if Platform::host().arch == "s390x" { "linux/arm64" } else { "linux/s390x" };
        let request = check(&format!("--test-on {foreign} --test-on {}", Platform::host())).unwrap();
        assert_eq!(request.node_args, ["--node", foreign]);
        let sized =
            check(&format!("--platform {foreign} --test-on {foreign} --node-memory 2048 --node-cpus 1")).unwrap();
        assert_eq!(sized.node_args.join(" "), format!("--node {foreign} --node-memory 2048 --node-cpus 1"));
        assert!(check("").unwrap().node_args.is_empty());
        let file = tempfile::NamedTempFile::new().unwrap();
        let own = format!("--kubeconfig {} --repo r/x --test-on {foreign}", file.path().display());
        assert!(check(&own).unwrap().node_args.is_empty());
    }

    #[test]
    fn a_cluster_of_ones_own_needs_a_repository_that_it_can_reach() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let path = file.path().to_str().unwrap();
        assert!(Line::try_parse_from(["nightly", "--kubeconfig", path]).is_err());
        let line = format!("--kubeconfig {path} --repo r/x --platform linux/s390x --test-on linux/s390x");
        let request = check(&line).unwrap();
        assert_eq!(request.cluster, ["--kubeconfig", path]);
        assert!(request.lab.is_none());
        std::fs::write(path, "contexts: [{name: a}, {name: b}]").unwrap();
        let error = check(&line).err().unwrap();
        assert!(error.cause == Cause::Usage && error.to_string().contains("its contexts: a, b"), "{error}");
        assert!(check(&format!("{line} --context b")).is_ok());
    }

    #[test]
    fn a_cluster_of_the_file_is_named() {
        let ci = tempfile::tempdir().unwrap();
        let own = tools::root().join("ci");
        for file in ["components.toml", "images.toml", "skips.toml", "policy.toml"] {
            std::fs::copy(own.join(file), ci.path().join(file)).unwrap();
        }
        let text = "[[architecture]]\nplatform = 'linux/s390x'\n\
                    [[cluster]]\nname = 'z-1'\nplatform = 'linux/s390x'\nowner = 'me'\nkind = {}\n\
                    [[cluster]]\nname = 'lab-two'\nowner = 'me'\nlab = { nodes = ['linux/s390x'] }\n";
        std::fs::write(ci.path().join("architectures.toml"), text).unwrap();
        let check = |line: &str| check(&format!("--ci {} {line}", ci.path().display()));
        let request = check("--cluster z-1 --repo r/x").unwrap();
        assert_eq!((request.named.as_deref(), request.lab), (Some("z-1"), None));
        assert_eq!(request.test_on, ["linux/s390x".parse().unwrap()]);
        assert_eq!(
            (request.cluster[0].as_str(), &request.cluster[2..]),
            ("--kubeconfig", &["--context", "z-1"].map(String::from)[..])
        );
        assert!(request.cluster[1].ends_with("clusters/z-1/kubeconfig"), "{:?}", request.cluster);
        let lab = check(&format!("--cluster lab-two --platform {0} --test-on {0}", Platform::host())).unwrap();
        assert_eq!((lab.named, lab.lab.as_deref(), lab.cluster.join(" ").as_str()), (None, Some("two"), "--lab two"));
        assert_eq!(lab.node_args, ["--node", "linux/s390x"]);
        for (line, said) in [("--cluster z-1", "add --repo"), ("--cluster z-2 --repo r", "z-1, lab-two")] {
            let error = check(line).err().unwrap();
            assert!(error.cause == Cause::Usage && error.to_string().contains(said), "{error}");
        }
        assert!(Line::try_parse_from(["nightly", "--cluster", "z-1", "--lab", "x"]).is_err());
    }

    #[test]
    fn an_earlier_run_says_what_it_was_about_and_is_not_written_over() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().to_str().unwrap();
        let mut record = serde_json::json!({
            "schemaVersion": "1.0", "tool": "nightly", "toolVersion": "0", "run": "r1", "outcome": "passed",
            "started": "2026-01-01T00:00:00Z", "finished": "2026-01-01T00:00:00Z", "components": ["greeter"],
            "platforms": [Platform::host().to_string()], "testOn": [Platform::host().to_string()], "cluster": "lab-x"
        });
        let write =
            |record: &serde_json::Value| std::fs::write(folder.path().join("run.json"), record.to_string()).unwrap();
        write(&record);
        let request = check(&format!("--from test --run-dir {path}")).unwrap();
        assert_eq!((request.components, request.platforms), (vec!["greeter".to_owned()], vec![Platform::host()]));
        assert!(check(&format!("--run-dir {path}")).err().unwrap().to_string().contains("of another run"));
        record["schemaVersion"] = "9.0".into();
        write(&record);
        let error = check(&format!("--from test --run-dir {path}")).err().unwrap();
        assert!(error.cause == Cause::Usage && error.to_string().contains("newer than ours"), "{error}");
    }

    #[test]
    fn what_a_component_needs_comes_first_and_a_circle_is_named() {
        let text = "a = { config = [], path = 'a', needs = ['b', 'c'] }\nb = { config = [], path = 'b', needs = ['c'] }\n\
                    c = { config = [], path = 'c' }\nd = { config = [], path = 'd', needs = ['d'] }\n";
        let all: Components = kit::config::parse(text, "x").unwrap();
        let mut order = Vec::new();
        collect_needs("a", &all, &mut Vec::new(), &mut order).unwrap();
        assert_eq!(order, ["c", "b", "a"]);
        let error = collect_needs("d", &all, &mut Vec::new(), &mut order).unwrap_err();
        assert!(error.to_string().contains("in a circle: d -> d"), "{error}");
    }
}
