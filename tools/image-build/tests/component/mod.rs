//! A component, a registry with its base, and a ko that stands in for the real one.

#![allow(dead_code, reason = "each test file uses a part of it")]

#[path = "../folder/mod.rs"]
mod folder;
#[path = "../ko/mod.rs"]
pub(crate) mod ko;

use std::{fs, ops::Deref, process::Command};

use serde_json::Value;

pub(crate) use folder::Ended;
use folder::Folder;

use crate::support::{Made, Registry, index};

pub(crate) const ALL: &[&str] = &["amd64", "arm64", "s390x", "ppc64le"];
pub(crate) const PLATFORMS: &str = "linux/amd64,linux/arm64,linux/s390x,linux/ppc64le";
pub(crate) const SHELL: &str =
    "cgr.dev/x/busybox@sha256:19f02276bf8dbdd62f069b922f10c65262cc34b710eea26ff928129a736be791";
pub(crate) const WINDOWS: &str =
    "mcr.microsoft.com/x:win@sha256:b6d5ff841b78bdf2dfed7550000fd4f3437385b8fa686ec0f010be24777654d6";

/// A component `e.com/x`, a registry with its base, and a ko that pushes what the test prepared.
pub(crate) struct World {
    folder: Folder,
    pub(crate) registry: Registry,
}

impl Deref for World {
    type Target = Folder;

    fn deref(&self) -> &Folder {
        &self.folder
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let world = Self { folder: Folder::new(), registry: Registry::start() };
        world.write("ci/components.toml", "[x]\npath = 'x'\nconfig = ['config']\n");
        let images = format!(
            "[[image]]\nnames = ['{SHELL}']\nbuild = 'shell'\n[[image]]\nnames = ['{WINDOWS}']\nunused = 'only Windows'\n\
             [build.shell]\nfiles = {{ '/etc/x' = 'y' }}\nuser = '65532:65532'\n"
        );
        world.write("ci/images.toml", images);
        world.write("x/go.mod", "module e.com/x\n");
        world.write("x/config/a.yaml", config("ko://e.com/x/cmd/x"));
        world.ko("");
        world.push("base", ALL);
        world.build("x", ALL);
        world
    }

    /// A ko that begins with these commands.
    pub(crate) fn ko(&self, first: &str) {
        self.program("bin/ko", &ko::script(&self.path(""), first));
    }

    pub(crate) fn push(&self, repository: &str, arches: &[&str]) -> String {
        let manifests: Vec<_> =
            arches.iter().map(|arch| Made::new(arch, arch).push(&self.registry, repository)).collect();
        index(&self.registry, repository, "v1", &manifests)["digest"].as_str().unwrap().to_owned()
    }

    /// Lets ko have built `e.com/x/cmd/PROGRAM` for these architectures.
    pub(crate) fn build(&self, program: &str, arches: &[&str]) {
        let platforms: Vec<_> = arches.iter().map(|arch| (*arch, *arch)).collect();
        ko::built(&self.path(""), &format!("e.com/x/cmd/{program}"), &platforms);
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = self.folder.command(args);
        command.env("OTHER_ARCH_KO", self.path("bin/ko"));
        command
    }

    pub(crate) fn run(&self, args: &[&str], env: &[(&str, &str)]) -> Ended {
        let ko = self.name("bin/ko");
        self.folder.run_with(args, &[&[("OTHER_ARCH_KO", ko.as_str())], env].concat())
    }

    pub(crate) fn build_args(&self, more: &[&str]) -> Vec<String> {
        let host = &self.registry.host;
        let mut args = vec![
            "build".into(),
            "--component=x".into(),
            format!("--ci={}", self.name("ci")),
            format!("--run-dir={}", self.name("run")),
        ];
        args.extend([format!("--repo={host}/repo"), format!("--base={host}/base:v1")]);
        if !more.contains(&"--platform") {
            args.push(format!("--platform={PLATFORMS}"));
        }
        args.extend(more.iter().map(ToString::to_string));
        args
    }

    pub(crate) fn build_with(&self, more: &[&str], env: &[(&str, &str)]) -> Ended {
        self.run(&self.build_args(more).iter().map(String::as_str).collect::<Vec<_>>(), env)
    }

    pub(crate) fn record(&self) -> Value {
        serde_json::from_slice(&fs::read(self.path("run/x/images.json")).unwrap()).unwrap()
    }

    pub(crate) fn release(&self) -> Option<String> {
        fs::read_to_string(self.path("run/x/release.yaml")).ok()
    }
}

pub(crate) fn config(image: &str) -> String {
    format!(
        "# A comment\nkind: Deployment\nmetadata:\n  labels:\n    app.kubernetes.io/version: \"devel\"\nspec:\n  containers:\n  - image: {image}\n    \
         args: [\"-shell-image\", \"{SHELL}\", \"-win\", \"{WINDOWS}\"]\n"
    )
}
