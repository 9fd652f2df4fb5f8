//! The guides under docs/: what they name is there, and what they tell to do is done.

#![allow(clippy::disallowed_methods, reason = "tests start the real programs")]

mod support;

use std::{collections::BTreeSet, fs, process::Command};

use support::{World, program, root};

fn guide(name: &str) -> String {
    fs::read_to_string(root().join("docs").join(name)).unwrap()
}

/// The commands of a guide, one a line.
fn commands(text: &str) -> Vec<String> {
    text.lines().filter_map(|line| line.strip_prefix("$ ")).map(String::from).collect()
}

#[test]
fn what_the_guides_name_is_there() {
    for name in ["bring-your-machine.md", "from-plumbing.md"] {
        let text = guide(name);
        let words: BTreeSet<_> = text.split(|c: char| c.is_whitespace() || "`(),;".contains(c)).collect();
        for path in words.iter().filter(|word| word.starts_with("ci/") || word.starts_with("xtask/")) {
            let path = path.trim_end_matches(['.', ':']);
            assert!(root().join(path).exists(), "{name}: {path}");
        }
    }
    let plumbing = guide("from-plumbing.md");
    let tekton: Vec<_> = ["pipelines/build.yaml", "pipelines/test.yaml", "triggers/listener.yaml"]
        .iter()
        .map(|file| fs::read_to_string(root().join("ci/tekton").join(file)).unwrap())
        .collect();
    for name in ["other-arch-build", "other-arch-test"] {
        assert!(plumbing.contains(name) && tekton.iter().any(|text| text.contains(&format!("name: {name}"))), "{name}");
    }
    let request = plumbing.split('`').find(|code| code.starts_with('{')).unwrap();
    let request: serde_json::Value = serde_json::from_str(request).unwrap();
    for field in request.as_object().unwrap().keys() {
        assert!(tekton[2].contains(&format!("body.{field}")), "the listener knows no {field}");
    }
}

/// What a cluster is given, with images that nobody made.
fn rendered() -> String {
    let folder = tempfile::tempdir().unwrap();
    let names = ["image-build", "cluster-install", "e2e-runner", "cleanup", "support-matrix", "trigger"];
    let images: serde_json::Map<_, _> = names.iter().map(|name| ((*name).to_owned(), (*name).into())).collect();
    let file = folder.path().join("images.json");
    fs::write(&file, serde_json::json!({ "images": images }).to_string()).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["tekton", "--repo", "r.example/n", "--repository", "https://git.example/x", "--images"]).arg(&file);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_namespace_of_the_guides_is_there_before_anything_else_is() {
    let text = rendered();
    let first = text.split("---\n").nth(1).unwrap();
    assert!(first.contains("kind: Namespace") && first.contains("name: other-arch-nightly"), "{first}");
    // The Secret of the guide for a registry is the one that Tasks look for.
    assert!(guide("from-plumbing.md").contains("secret generic other-arch-registry"));
    assert!(text.contains("secretName: other-arch-registry") || text.contains("name: other-arch-registry"));
}

#[test]
fn an_owner_s_entry_is_one() {
    let text = guide("bring-your-machine.md");
    let entries = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let entries: Vec<kit::ci::Architectures> =
        entries.map(|entry| kit::config::parse(entry, "docs").unwrap()).collect();
    assert!(entries[0].cluster[0].ssh.is_some() && entries[1].architecture[0].schedule.is_some());
}

#[test]
#[ignore = "needs a lab, and minutes: cargo xtask test --tekton runs it"]
fn bring_your_machine_on_the_way_to_tekton() {
    let world = World::new("guide");
    let up = world.tool("lab", &["up", "--name", &world.lab, "--output", "json"]);
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    let up: serde_json::Value = serde_json::from_slice(&up.stdout).unwrap();
    let registry = up["registry"].as_str().unwrap();
    let kubeconfig = world.folder.path().join("target.yaml");
    let raw = world.tool("lab", &["kubeconfig", "--raw", "--name", &world.lab]);
    fs::write(&kubeconfig, raw.stdout).unwrap();
    let platform = kit::Platform::host().to_string();
    let probe = world.tool("image-build", &["probe", "--repo", registry, "--platform", &platform]);
    assert!(probe.status.success(), "{}", String::from_utf8_lossy(&probe.stderr));
    let probe = String::from_utf8(probe.stdout).unwrap();
    let kubectl = |arguments: &[&str]| {
        let output = world.tool("lab", &[&["--name", &world.lab, "kubectl"], arguments].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    let mut seen = 0;
    // The host's part has a test of its own, with an sshd.
    let commands = commands(&guide("bring-your-machine.md"));
    for line in commands.into_iter().filter(|line| !line.contains("cluster-install cluster ")) {
        let line = line.replace("target.yaml", &kubeconfig.display().to_string()).replace("REGISTRY", registry);
        let line = line.replace("PROBE", probe.trim()).replace("linux/s390x", &platform);
        // What a key is only a host can tell.
        let line = line.replace("nightly.key", &kubeconfig.display().to_string());
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["cargo", "xtask", "nightly", ref rest @ ..] => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
                command.current_dir(root()).arg("nightly").args(rest);
                command.arg("--history").arg(world.folder.path().join("history"));
                command.arg("--out").arg(world.folder.path().join("matrix"));
                command.arg("--run-dir").arg(world.folder.path().join("run"));
                assert_eq!(world.finish("run", command.output().unwrap()).code, 0, "{line}");
            }
            ["cargo", "xtask", tool, ref rest @ ..] => {
                let output = Command::new(program(tool)).current_dir(root()).args(rest).output().unwrap();
                assert!(output.status.success(), "{line}\n{}", String::from_utf8_lossy(&output.stderr));
            }
            ["kubectl", ref rest @ ..] => {
                // The namespace as `cargo xtask tekton` prints it; the rest of that needs a Tekton.
                let namespace = world.folder.path().join("namespace.yaml");
                fs::write(&namespace, rendered().split("---\n").nth(1).unwrap()).unwrap();
                kubectl(&["apply", "--filename", &namespace.display().to_string()]);
                kubectl(rest);
                kubectl(&["delete", "namespace", "other-arch-nightly"]);
            }
            _ => panic!("nobody knows how to run: {line}"),
        }
        seen += 1;
    }
    assert_eq!(seen, 5);
    world.assert_matrix("greeter", &platform, &[]);
}
