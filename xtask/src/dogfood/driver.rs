//! The cluster that drives: Tekton, what lies in `ci/tekton`, and the ways to what it needs.

use std::{collections::BTreeMap, fs, path::Path, process::Command, thread::JoinHandle, time::Duration};

use kit::{
    Cause, Context, Platform, Process, Result, Ui,
    ci::Ci,
    process::{Finished, Stopper},
};
use serde_json::{Value, json};

use super::{
    Request, Spoilt,
    labs::{Lab, Labs},
    not_done,
    relay::Relay,
};
use crate::{
    images::{self, Made},
    tekton::{self, Place},
    tools,
};

/// Where everything of ours is; not the namespace in which the tools keep the state of a cluster.
pub(super) const NAMESPACE: &str = "other-arch-nightly";
/// Tekton's components that have to be there, in the order in which they are installed.
const TEKTON: [&str; 2] = ["pipeline", "triggers"];

/// A driver that is ready for requests.
pub(super) struct Driver<'a> {
    labs: &'a Labs,
    /// The step images, in the driver's own registry.
    images: Made,
    api_server: Relay,
    _git: Repository,
}

impl<'a> Driver<'a> {
    /// Installs everything.
    pub(super) fn prepare(labs: &'a Labs, platforms: &[Platform], folder: &Path, ui: &Ui) -> Result<Self> {
        let (driver, target) = (&labs.driver, &labs.target);
        let images = images::Args::pushed_to(Platform::host(), format!("{}/steps", driver.registry));
        let (_, images) = images::make(&images, ui)?;
        driver.apply(
            &json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } }).to_string(),
        )?;
        for component in TEKTON {
            install(driver, component, folder, ui)?;
        }
        tekton::features(&|words| driver.kubectl(words), false)?;
        // A listener that begins before its interceptors have their certificate ends, and is begun again after minutes.
        let certificate = "--for=jsonpath={.spec.clientConfig.caBundle}";
        driver.kubectl(&["wait", certificate, "--timeout=180s", "clusterinterceptor/cel"])?;
        // What nodes of the target ask public registries for, as `nightly` does for its lab.
        let mut words = vec!["images".to_owned(), "--repo".into(), target.registry.clone()];
        words.extend(platforms.iter().flat_map(|platform| ["--platform".into(), platform.to_string()]));
        tool("image-build", &words, "stand-ins of public images", ui)?;
        let (api_server, registry) = (Relay::to(driver.host, target.api_server)?, relay_registry(labs)?);
        let git = Repository::serve(driver, folder)?;
        let network = network(driver)?;
        let step = ui.step("ci/tekton");
        driver.apply(&objects(labs, &api_server, &registry, &network)?.to_string())?;
        let place = Place {
            namespace: NAMESPACE.into(),
            repo: format!("{}/nightly", target.registry),
            repository: git.url.clone(),
            storage: "20Gi".into(),
            access_mode: "ReadWriteOnce".into(),
            dashboard: String::new(),
        };
        let ci = Ci::new(tools::root().join("ci"));
        // Tekton's webhook may still be learning its certificate.
        let rendered = tekton::render(tekton::documents(&tekton::folder(&ci))?, &place, &images)?;
        let late = || not_done("Tekton did not take ci/tekton within two minutes");
        let mut last = None;
        kit::retry::until(Duration::from_secs(120), late, || match driver.apply(&rendered) {
            Ok(()) => Ok(Some(())),
            Err(error) if error.cause == Cause::Interrupted => Err(error),
            Err(error) => {
                last = Some(error);
                Ok(None)
            }
        })
        .map_err(|error| last.take().unwrap_or(error))?;
        let wait =
            ["wait", "--for=condition=Ready", "--timeout=180s", "--namespace", NAMESPACE, "eventlistener/other-arch"];
        driver.kubectl(&wait)?;
        step.done("");
        Ok(Self { labs, images, api_server, _git: git })
    }

    /// From now on that is wrong with the target of that place; the next driver puts it right.
    pub(super) fn spoil(&self, how: Spoilt, place: &str) -> Result<()> {
        let (driver, name) = (&self.labs.driver, format!("target-{place}"));
        match how {
            Spoilt::Unreachable => {
                self.api_server.open(false);
                Ok(())
            }
            Spoilt::NoSecret => driver.kubectl(&["delete", "secret", "--namespace", NAMESPACE, &name]).map(drop),
            Spoilt::BadSecret => driver.apply(&secret(place, "clusters: everywhere").to_string()),
        }
    }

    /// Posts what the CronJob of an architecture posts, or what the end of a build posts, by a Job made as theirs; returns
    /// the name of the run that comes of it.
    pub(super) fn fire(&self, asked: &Request<'_>, ui: &Ui) -> Result<String> {
        let (driver, since) = (&self.labs.driver, jiff::Timestamp::now());
        let component = &asked.args.component;
        let mut request = tekton::payload(component, &asked.platforms, std::slice::from_ref(&asked.test_on));
        request["env"] = json!(asked.args.env);
        if asked.args.shards > 1 {
            request["shards"] = json!(asked.args.shards);
        }
        let mut place = "build".to_owned();
        if let Some(release) = &asked.args.release {
            request["release"] = json!(release);
            place = asked.test_on.dir();
        }
        let image = self.images.images.get("trigger").map(String::as_str).unwrap_or_default();
        let job = tekton::job(&request, image, NAMESPACE)?;
        let named = driver.kubectl_with(
            &["create", "--namespace", NAMESPACE, "--filename=-", "--output=jsonpath={.metadata.name}"],
            Some(&job.to_string()),
        )?;
        let name = named.trim().to_owned();
        driver.kubectl(&[
            "wait",
            "--for=condition=Complete",
            "--timeout=240s",
            "--namespace",
            NAMESPACE,
            &format!("job/{name}"),
        ])?;
        let said = driver.kubectl(&["logs", "--namespace", NAMESPACE, &format!("job/{name}")])?;
        ui.note(format!("the EventListener answered: {}", said.trim()));
        super::follow::next(self.labs, component, &place, since, ui)
    }
}

/// The target's registry under its own name, from inside the driver.
fn relay_registry(labs: &Labs) -> Result<Relay> {
    let port = labs.target.registry.rsplit(':').next().and_then(|port| port.parse().ok()).unwrap_or(5000);
    Relay::to(labs.driver.host, (labs.target.address, port).into())
}

/// Builds a component for this machine and installs it, by our own tools; not where it is installed in that version.
fn install(lab: &Lab, component: &str, folder: &Path, ui: &Ui) -> Result<()> {
    let ci = Ci::new(tools::root().join("ci"));
    let (version, name) = (ci.component(component)?.version().to_owned(), format!("installed-{component}"));
    let path = "jsonpath={.data.version}";
    let there = lab.kubectl(&["get", "configmap", "--namespace", NAMESPACE, &name, "--output", path]);
    if there.is_ok_and(|there| there.trim() == version) {
        return Ok(());
    }
    let (repo, run) = (format!("{}/{component}", lab.registry), folder.join("driver").display().to_string());
    let platform = Platform::host().to_string();
    let words = ["build", "--component", component, "--repo", &repo, "--platform", &platform, "--run-dir", &run];
    tool("image-build", &words.map(String::from), &format!("build of {component} for the driver"), ui)?;
    let words = ["install", "--component", component, "--platform", &platform, "--run-dir", &run, "--lab", &lab.name];
    let installed =
        tool("cluster-install", &words.map(String::from), &format!("install of {component} on the driver"), ui);
    // The driver is nobody's but ours: whoever comes after this run need not wait until its lease expires.
    let words = ["lease", "release", "--run-dir", &run, "--lab", &lab.name];
    if let Err(error) = tool("cluster-install", &words.map(String::from), "release of the driver's lease", ui) {
        ui.warn(format!("the driver's lease has to expire: {error}"));
    }
    installed?;
    let about = json!({ "name": name, "namespace": NAMESPACE });
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": about, "data": { "version": version } });
    lab.apply(&map.to_string())
}

/// A git server for this checkout as it is committed; it ends when it is dropped.
struct Repository {
    url: String,
    stopper: Stopper,
    server: Option<JoinHandle<Result<Finished>>>,
}

impl Drop for Repository {
    fn drop(&mut self) {
        self.stopper.stop();
        // How a server ends that was stopped does not matter.
        let _ = self.server.take().map(JoinHandle::join);
    }
}

impl Repository {
    fn serve(lab: &Lab, folder: &Path) -> Result<Self> {
        let bare = folder.join("git/other-arch.git");
        fs::create_dir_all(&bare).cause(Cause::HostDisk, || format!("cannot create {}", bare.display()))?;
        let path = bare.display().to_string();
        let git = |arguments: &[&str]| -> Result<()> {
            Process::new("git", tools::git(arguments)?).cause(Cause::MissingProgram).run()
        };
        git(&["init", "--quiet", "--bare", "--initial-branch=main", &path])?;
        git(&["push", "--quiet", "--force", &path, "HEAD:refs/heads/main"])?;
        let port = free_port(lab)?;
        let mut command = Command::new("git");
        command.args(["daemon", "--export-all", "--reuseaddr", "--informative-errors"]);
        command.arg(format!("--listen={}", lab.host)).arg(format!("--port={port}"));
        command.arg(format!("--base-path={}", folder.join("git").display())).arg(folder.join("git"));
        let stopper = Stopper::default();
        let stop = stopper.clone();
        let server = std::thread::spawn(move || {
            Process::new("git daemon", command).cause(Cause::MissingProgram).stop_with(&stop).finish()
        });
        Ok(Self { url: format!("git://{}:{port}/other-arch.git", lab.host), stopper, server: Some(server) })
    }
}

fn free_port(lab: &Lab) -> Result<u16> {
    let listener = std::net::TcpListener::bind((lab.host, 0));
    let port = listener.and_then(|listener| listener.local_addr()).map(|address| address.port());
    port.cause(Cause::Node, || format!("cannot listen on {}", lab.host))
}

/// The environment that leads steps to what this machine lends.
fn network(lab: &Lab) -> Result<BTreeMap<&'static str, String>> {
    let mut command = kit::source::go_command("the module cache", &tools::root())?;
    command.args(["env", "GOMODCACHE"]);
    let cache = Process::new("Go's module cache", command).cause(Cause::MissingProgram).read()?;
    let modules = Relay::files(lab.host, Path::new(cache.trim()).join("cache/download"))?;
    let proxy = Relay::proxy(lab.host)?;
    Ok(BTreeMap::from([
        ("GOPROXY", format!("http://{}", modules.address())),
        // What lies in the module cache of this machine was checked when it came.
        ("GOSUMDB", "off".into()),
        // Lower case, as apt reads it: clients of Kubernetes must not take it for theirs.
        ("http_proxy", format!("http://{}", proxy.address())),
        ("no_proxy", "10.0.0.0/8,localhost,127.0.0.1,.svc,.cluster.local".into()),
    ]))
}

/// What belongs to this place: the environment, the target's kubeconfig, and its addresses, which the driver's nodes
/// translate to the relays of this machine. So everybody calls the target and its registry the same.
fn objects(labs: &Labs, api: &Relay, registry: &Relay, network: &BTreeMap<&'static str, String>) -> Result<Value> {
    let kubeconfig = labs.target.lab(&["kubeconfig", "--raw"], &[])?;
    let ports = [("api", labs.target.api_server.port(), api), ("registry", 5000, registry)];
    let service_ports: Vec<_> = ports.iter().map(|(name, port, _)| json!({ "name": name, "port": port })).collect();
    let ends: Vec<_> = ports.iter().map(|(name, _, to)| json!({ "name": name, "port": to.address().port() })).collect();
    let about = |name: &str| json!({ "name": name, "namespace": NAMESPACE });
    let architectures = Ci::new(tools::root().join("ci")).architectures()?.architecture;
    let secrets = architectures.iter().map(|one| secret(&one.platform.dir(), &kubeconfig));
    let mut items = vec![
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": about("other-arch-environment"), "data": network,
        }),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": about("target"),
            "spec": { "ports": service_ports, "externalIPs": [labs.target.address.to_string()] },
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": "target", "namespace": NAMESPACE, "labels": { "kubernetes.io/service-name": "target" },
            },
            "addressType": "IPv4", "ports": ends,
            "endpoints": [{ "addresses": [labs.driver.host.to_string()], "conditions": { "ready": true } }],
        }),
    ];
    items.extend(secrets);
    Ok(json!({ "apiVersion": "v1", "kind": "List", "items": items }))
}

/// What leads to the target of a place.
fn secret(place: &str, kubeconfig: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "stringData": { "kubeconfig": kubeconfig },
        "metadata": { "name": format!("target-{place}"), "namespace": NAMESPACE },
    })
}

/// Runs a tool of ours on this machine.
pub(super) fn tool(name: &str, words: &[String], what: &str, ui: &Ui) -> Result<()> {
    let step = ui.step(what);
    let mut command = Command::new(tools::path(name)?);
    command.args(words).current_dir(tools::root());
    let mut last = Vec::new();
    let finished = Process::new(what, command)
        .limit(Duration::from_secs(5400))
        .on_line(|_, line| {
            step.set(line);
            last.push(line.to_owned());
        })
        .finish()?;
    if finished.good() {
        step.done("");
        return Ok(());
    }
    step.failed("");
    last.drain(..last.len().saturating_sub(20));
    let cause = match finished.code() {
        1 => Cause::Unclassified,
        2 => Cause::Usage,
        5 => Cause::MissingProgram,
        _ => Cause::Internal,
    };
    Err(tools::failure(what, cause, &last))
}
