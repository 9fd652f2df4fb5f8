//! Releases in a lab's registry, a real one: built, reused, copied to other repositories, verified and compared there.

#![allow(clippy::disallowed_methods, reason = "tests start the real programs")]

mod support;

use std::fs;

use serde_json::Value;
use support::{World, read_json};

/// A lab of which only the registry is up, and a component's images in it.
struct Releases {
    world: World,
    registry: String,
    component: &'static str,
    platforms: &'static str,
}

impl Releases {
    fn new(component: &'static str, platforms: &'static str) -> Self {
        let world = World::new(component);
        let up = world.tool("lab", &["up", "--name", &world.lab, "--until", "registry", "--output", "json"]);
        assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
        let status: Value = serde_json::from_slice(&up.stdout).unwrap();
        let registry = status["registry"].as_str().unwrap().to_owned();
        Self { world, registry, component, platforms }
    }

    fn name(&self, path: &str) -> String {
        format!("{}/{path}", self.registry)
    }

    fn image_build(&self, arguments: &[&str]) -> (String, String) {
        let output = self.world.tool("image-build", arguments);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        println!("{arguments:?}\n{out}{err}");
        assert!(output.status.success(), "{arguments:?}: {err}");
        (out.into_owned(), err.into_owned())
    }

    /// Builds it into the repository `a`; its release and its record.
    fn build(&self, run: &str, more: &[&str]) -> (String, Value) {
        let (folder, repo) = (self.world.folder.path().join(run), self.name("a"));
        let name = folder.display().to_string();
        let all = ["build", "--component", self.component, "--repo", &repo, "--platform", self.platforms];
        self.image_build(&[&all[..], &["--run-dir", &name], more].concat());
        let folder = folder.join(self.component);
        (fs::read_to_string(folder.join("release.yaml")).unwrap(), read_json(&folder.join("images.json")))
    }

    fn built(record: &Value) -> Vec<&Value> {
        let images = record["images"].as_array().unwrap();
        images.iter().filter(|image| image["kind"] == "built").map(|image| &image["digest"]).collect()
    }

    /// Both ways the digests are the same, and what was built is not built again.
    fn reuse(&self) {
        let (release, record) = self.build("release", &[]);
        assert_eq!(record["reused"], Value::Null);
        let (noted, again) = self.build("noted", &["--reuse"]);
        assert_eq!((&noted, again["reused"].as_array()), (&release, None), "nothing was noted before");
        let (reused, third) = self.build("reused", &["--reuse"]);
        assert_eq!(third["reused"].as_array().unwrap().len(), Self::built(&record).len());
        assert_eq!((Self::built(&third), &reused), (Self::built(&record), &release));
        assert!(!self.world.folder.path().join("reused").join(self.component).join("ko.log").exists());
    }

    /// To two repositories, with a tag of its own, and compared there.
    fn copy(&self) {
        let run = self.world.folder.path().join("release").join(self.component).display().to_string();
        let (one, two) = (self.name("one/x"), self.name("two"));
        self.image_build(&["copy", &run, "--to", &one, "--to", &two, "--tag", "latest"]);
        for repo in [&one, &two] {
            let copied = format!("{repo}/release/{}:latest", self.component);
            self.image_build(&["verify", &copied, "--platform", self.platforms, "--nonroot"]);
            let (same, _) = self.image_build(&["diff", &run, &copied]);
            assert!(same.contains("of them the same"), "{same}");
        }
        let copied = format!("{one}/release/{}:latest", self.component);
        let lacking = self.world.tool("image-build", &["verify", &copied, "--platform", "linux/riscv64"]);
        assert_eq!(lacking.status.code(), Some(1));
    }
}

#[test]
#[ignore = "needs a lab: cargo xtask test runs it"]
fn greeter_is_reused_copied_and_verified_in_a_real_registry() {
    let releases = Releases::new("greeter", "linux/amd64,linux/s390x");
    releases.reuse();
    releases.copy();
}

#[test]
#[ignore = "needs a lab and up to an hour: cargo xtask test --tekton runs it"]
fn tekton_pipelines_and_triggers_are_reused_copied_and_verified_in_a_real_registry() {
    for component in ["pipeline", "triggers"] {
        let releases = Releases::new(component, "linux/amd64,linux/arm64,linux/s390x,linux/ppc64le");
        releases.reuse();
        releases.copy();
    }
}
