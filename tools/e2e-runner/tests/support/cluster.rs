//! A component of tests/programs on the stand-in for a cluster.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use kit::record::Results;
use serde_json::json;

use crate::{
    api::Api,
    support::{Ended, World},
};

/// A cluster and the files of a test.
pub(crate) struct Cluster {
    pub(crate) world: World,
    pub(crate) api: Api,
}

impl Cluster {
    pub(crate) fn new(world: World) -> Self {
        Self { world, api: Api::start() }
    }

    /// `e2e-runner run` with a run directory of that name.
    pub(crate) fn command(&self, run: &str, words: &[&str]) -> Command {
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            "clusters": [{"name": "c", "cluster": {"server": self.api.address}}], "users": [{"name": "u", "user": {}}],
        });
        let path = self.world.path("kubeconfig");
        std::fs::write(&path, config.to_string()).unwrap();
        let run = self.world.path(run).display().to_string();
        let mut command = self.world.command(&[&["run", "--run-dir", &run], words].concat());
        command.arg("--kubeconfig").arg(&path).env("NO_PROXY", "127.0.0.1");
        command
    }

    pub(crate) fn run(&self, run: &str, words: &[&str]) -> Ended {
        Ended::of(self.command(run, words).output().unwrap())
    }

    /// Starts it, and waits until the cluster shows that it is so far.
    pub(crate) fn start(&self, run: &str, words: &[&str], so_far: impl Fn(&Api) -> bool) -> Child {
        let child = self.command(run, words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let deadline = Instant::now() + Duration::from_secs(120);
        while !so_far(&self.api) {
            assert!(Instant::now() < deadline, "it never got so far");
            std::thread::sleep(Duration::from_millis(100));
        }
        // The test itself begins a moment later.
        std::thread::sleep(Duration::from_secs(1));
        child
    }

    /// What a run left, that said it is of the platform of this machine unless another is named.
    pub(crate) fn results(&self, run: &str, platform: Option<&str>) -> Results {
        let platform = platform.map_or_else(kit::Platform::host, |platform| platform.parse().unwrap());
        let cell = kit::RunDir::open(self.world.path(run)).unwrap().cell("own", &platform, "c");
        kit::rundir::read_record(&cell).unwrap().0
    }

    /// The lease of a run that was killed is over at last.
    pub(crate) fn expire_lease(&self) {
        let lease = "/apis/coordination.k8s.io/v1/namespaces/other-arch/leases/run";
        let mut expired = self.api.get(lease);
        expired["spec"]["renewTime"] = "2026-01-01T00:00:00.000000Z".into();
        self.api.put(lease, expired);
    }
}

pub(crate) fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}
