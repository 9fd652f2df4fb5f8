//! The whole chain with Tekton Pipelines: what the README promises, on the real thing.

#![allow(clippy::disallowed_methods, reason = "tests start the real programs")]

mod support;

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use support::{World, cell, root};

#[test]
#[ignore = "needs a lab and up to an hour: cargo xtask test --tekton runs it"]
fn tekton_pipelines_from_source_to_a_matrix() {
    let world = World::new("tekton");
    let ran = world.nightly("run", &[]);
    assert_eq!(ran.code, 0);
    let counts = cell(&ran.run, "pipeline", "results.json")["counts"].clone();
    assert!(counts["passed"].as_u64().unwrap() >= 40, "{counts}");
    assert_eq!(counts["failed"], 0, "{counts}");
    assert_eq!(world.matrix_cell("pipeline", "linux/amd64")["version"], "v1.9.0");
    world.assert_matrix("pipeline", "linux/amd64", &["linux/arm64", "linux/s390x", "linux/ppc64le"]);
}

/// The step images by digest, as `cargo xtask images --to` writes them, of images that nobody made.
fn images(folder: &Path) -> PathBuf {
    let names = ["image-build", "cluster-install", "e2e-runner", "cleanup", "support-matrix", "trigger"];
    let images: serde_json::Map<_, _> = names
        .iter()
        .map(|name| ((*name).to_owned(), format!("r.example/{name}@sha256:{}", "0".repeat(64)).into()))
        .collect();
    let file = folder.join("images.json");
    std::fs::write(&file, serde_json::json!({ "images": images }).to_string()).unwrap();
    file
}

/// With a kubectl that stands in for a cluster's; a real cluster is asked by the test of the guide for plumbing.
#[test]
fn what_an_old_cluster_lacks_is_named_and_nothing_is_printed() {
    let folder = tempfile::tempdir().unwrap();
    let kubectl = folder.path().join("kubectl");
    let said = r#"{"items":[{"metadata":{"name":"tasks.tekton.dev"},
        "spec":{"versions":[{"name":"v1beta1","served":true},{"name":"v1","served":false}]}}]}"#;
    let script = format!("#!/bin/sh\ncase \"$*\" in\n*configmap*) printf v0.62.1 ;;\n*) echo '{said}' ;;\nesac\n");
    std::fs::write(&kubectl, script).unwrap();
    std::fs::set_permissions(&kubectl, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["tekton", "--repo", "r.example/n", "--repository", "https://git.example/x", "--kubeconfig", "x"]);
    let output = command.arg("--images").arg(images(folder.path())).env("PATH", path).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{said}");
    for lacking in [
        "tasks.tekton.dev v1 (served: v1beta1)",
        "triggertemplates.triggers.tekton.dev v1beta1 (served: nothing)",
        "Tekton Pipelines v1.0 (there is v0.62.1)",
        "next: install Tekton Pipelines v1.0.0",
    ] {
        assert!(said.contains(lacking), "{lacking}: {said}");
    }
}

/// Whether Tekton's webhooks take what lies in `ci/tekton`: their own code, of the versions that we install.
#[test]
#[ignore = "compiles Tekton's types, minutes: cargo xtask test --tekton runs it"]
fn tekton_s_own_admission_takes_our_tasks_and_pipelines() {
    let folder = tempfile::tempdir().unwrap();
    let mut render = Command::new(env!("CARGO_BIN_EXE_xtask"));
    render.args(["tekton", "--step-actions", "--repo", "r.example/n", "--repository", "https://git.example/x"]);
    render.arg("--images").arg(images(folder.path()));
    let rendered = render.output().unwrap();
    assert!(rendered.status.success(), "{}", String::from_utf8_lossy(&rendered.stderr));
    let asked = |text: &[u8], requests: &[String]| {
        let mut command = Command::new("go");
        command
            .args(["run", "."])
            .args(requests)
            .current_dir(root().join("fixtures/tekton-admission"))
            .env("GOFLAGS", "-buildvcs=false");
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(text).unwrap();
        let output = child.wait_with_output().unwrap();
        (output.status.success(), String::from_utf8(output.stdout).unwrap())
    };
    let admission = |text: &[u8]| asked(text, &[]);
    // What Tekton's EventListener makes of requests.
    let test = r#""component":"greeter","testOn":"linux/s390x","release":"r.example/x@sha256:0""#;
    let build = r#""component":"greeter","testOn":"linux/s390x","platforms":"linux/s390x""#;
    let expected = [
        (format!("{{{test}}}"), "other-arch-test finish"),
        (format!("{{{test},\"shards\":1}}"), "other-arch-test finish"),
        (format!("{{{test},\"shards\":3}}"), r#"other-arch-test finish ["1/3" "2/3" "3/3"]"#),
        (format!("{{{build},\"shards\":2}}"), r#"other-arch-build close ["1/2" "2/2"]"#),
        (format!("{{{build},\"shards\":4}}"), r#"other-arch-build close ["1/4" "2/4" "3/4" "4/4"]"#),
        (format!("{{{build},\"shards\":5}}"), "refused: FailedPrecondition"),
        (format!("{{{build},\"shards\":\"2\"}}"), "refused: FailedPrecondition"),
        (format!("{{{build},\"shards\":1.5}}"), "refused: FailedPrecondition"),
    ];
    let (_, said) = asked(&rendered.stdout, &expected.clone().map(|(request, _)| request));
    for (request, run) in expected {
        assert!(said.contains(&format!("request {request}: {run}\n")), "{request}: {run}: {said}");
    }
    let (good, said) = admission(&rendered.stdout);
    assert!(good && said.lines().filter(|line| line.ends_with(": good")).count() >= 25, "{said}");
    assert!(said.contains("StepAction other-arch-tests: good"), "{said}");
    let text = String::from_utf8(rendered.stdout).unwrap();
    let (good, said) = admission(text.replacen("runAfter:", "runBefore:", 1).as_bytes());
    assert!(!good && said.contains("refused"), "{said}");
    // Also what the TriggerTemplate makes.
    let (good, said) = admission(text.replacen("fsGroupChangePolicy:", "fsGroupChange:", 1).as_bytes());
    assert!(!good && said.contains("TriggerTemplate other-arch: refused"), "{said}");
}
