//! A folder that is read-only or full: every tool that was to write into it names it, and ends as for a machine that is
//! not good.

#![allow(clippy::disallowed_methods, reason = "tests start the real programs")]

mod support;

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use support::{program, root};

/// Calls that would write below BAD. What they read lies in GOOD; in BAD there is a copy of GOOD/run. No cluster is
/// behind the kubeconfig, and none is asked.
const CALLS: &[&str] = &[
    "image-build build --component greeter --repo 127.0.0.1:1/x --platform linux/s390x --run-dir BAD/new",
    "image-build build --component greeter --repo 127.0.0.1:1/x --platform linux/s390x --run-dir BAD/run",
    "image-build arch s390x --results-dir BAD/results",
    "image-build arch s390x --stage BAD/run/stages/build.json",
    "cluster-install install --component greeter --run-dir BAD/new --release GOOD/release.yaml --kubeconfig GOOD/kubeconfig",
    "cluster-install install --component greeter --run-dir BAD/run --kubeconfig GOOD/kubeconfig",
    "cluster-install lease take --run-dir BAD/empty --kubeconfig GOOD/kubeconfig",
    "cluster-install cluster list --results-dir BAD/results",
    "cluster-install cluster list --stage BAD/run/stages/install.json",
    "e2e-runner run --component greeter --run-dir BAD/new --kubeconfig GOOD/kubeconfig",
    "e2e-runner run --component greeter --run-dir BAD/run --kubeconfig GOOD/kubeconfig",
    "e2e-runner parse GOOD/stream --out BAD/out",
    "e2e-runner parse GOOD/stream --results-dir BAD/results",
    "e2e-runner parse GOOD/stream --stage BAD/run/stages/e2e.json",
    "cleanup snapshot --component greeter --run-dir BAD/new --kubeconfig GOOD/kubeconfig",
    "cleanup snapshot --component greeter --run-dir BAD/run --kubeconfig GOOD/kubeconfig",
    "cleanup adopt --run-dir BAD/run --runs GOOD --kubeconfig GOOD/kubeconfig",
    // A wrong call, which a wiring would be told of by its stage.
    "cleanup diff --component greeter --run-dir GOOD/none --kubeconfig GOOD/kubeconfig --stage BAD/run/stages/cleanup.json",
    "support-matrix conclude BAD/run",
    "support-matrix conclude BAD/run --status gate=Succeeded",
    "support-matrix conclude BAD/new --status gate=Succeeded",
    "support-matrix record BAD/run --history GOOD/other --index GOOD/other.redb",
    "support-matrix record GOOD/sealed --history BAD/history --index GOOD/other.redb",
    "support-matrix record GOOD/sealed --history GOOD/other --index BAD/index.redb",
    "support-matrix render --history GOOD/history --index GOOD/index.redb --format all --out BAD/matrix",
    "support-matrix site --history GOOD/history --index GOOD/index.redb --out BAD/site",
    "support-matrix render --history GOOD/history --index GOOD/index.redb --results-dir BAD/results",
    "support-matrix render --history GOOD/history --index GOOD/index.redb --stage BAD/run/stages/render.json",
];

/// In a mount namespace of its own: a file system at $BAD with what lies in $SEED, then $HOW, then the call. A run's id that
/// is there and empty is printed: no tool could go on with it.
const IN_A_BAD_FOLDER: &str = r#"
mount -t tmpfs -o size=1m tmpfs "$BAD" && cp -r "$SEED" "$BAD/run" && mkdir "$BAD/empty" || exit 100
case $HOW in
full) cat /dev/zero >"$BAD/rest" 2>/dev/null ;;
*) mount -o remount,ro "$BAD" || exit 100 ;;
esac
"$@"
code=$?
find "$BAD" -name run-id -empty -printf 'EMPTY %p\n'
exit $code
"#;

/// What can be read, made by the tools themselves.
fn make(folder: &Path) {
    let write = |name: &str, text: &str| fs::write(folder.join(name), text).unwrap();
    let user = "{name: x, user: {token: x}}";
    let cluster = "{name: x, cluster: {server: 'https://127.0.0.1:1'}}";
    write(
        "kubeconfig",
        &format!(
            "apiVersion: v1\nkind: Config\nclusters: [{cluster}]\nusers: [{user}]\n\
             contexts: [{{name: x, context: {{cluster: x, user: x}}}}]\ncurrent-context: x\n"
        ),
    );
    write("release.yaml", "apiVersion: v1\nkind: Namespace\nmetadata: {name: greeter-system}\n");
    let of = |action: &str| format!("{{\"Action\":\"{action}\",\"Package\":\"p\",\"Test\":\"TestA\",\"Elapsed\":1}}\n");
    write("stream", &(of("run") + &of("pass")));
    let call = |call: &str| {
        let output = command(call, folder, Path::new("/nonexistent")).output().unwrap();
        assert!(output.status.success(), "{call}: {}", String::from_utf8_lossy(&output.stderr));
    };
    call("image-build arch s390x --stage GOOD/run/stages/build.json");
    call("support-matrix conclude GOOD/run --tests none");
    // What is sealed is not written to again.
    let copied = Command::new("cp").arg("-r").args([folder.join("run"), folder.join("sealed")]).status().unwrap();
    assert!(copied.success());
    call("support-matrix record GOOD/sealed --history GOOD/history --index GOOD/index.redb");
}

fn command(call: &str, good: &Path, bad: &Path) -> Command {
    let call = call.replace("GOOD", &good.display().to_string()).replace("BAD", &bad.display().to_string());
    let mut words = call.split(' ');
    let mut command = Command::new(program(words.next().unwrap()));
    command.args(words).current_dir(root()).env("OTHER_ARCH_CACHE", good.join("cache"));
    command
}

/// What a tool says of a call in such a folder.
fn in_a_bad_folder(how: &str, call: &str, good: &Path, bad: &Path) -> Output {
    let tool = command(call, good, bad);
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", IN_A_BAD_FOLDER, "sh"]).arg(tool.get_program()).args(tool.get_args());
    command.current_dir(root()).env("OTHER_ARCH_CACHE", good.join("cache"));
    command.env("BAD", bad).env("SEED", good.join("run")).env("HOW", how).output().unwrap()
}

#[test]
#[ignore = "needs root: cargo xtask test runs it"]
fn a_folder_that_is_read_only_or_full_is_named_by_every_tool() {
    let world = tempfile::tempdir().unwrap();
    let (good, bad) = (world.path().join("good"), world.path().join("bad"));
    fs::create_dir_all(good.join("run")).unwrap();
    fs::create_dir(&bad).unwrap();
    make(&good);
    let mut wrong = Vec::new();
    for (how, call) in ["read-only", "full"].into_iter().flat_map(|how| CALLS.iter().map(move |call| (how, call))) {
        let output = in_a_bad_folder(how, call, &good, &bad);
        let (said, bad) = (String::from_utf8_lossy(&output.stderr), bad.display().to_string());
        let named = said.lines().any(|line| line.starts_with("error[host-disk]") && line.contains(&bad));
        let empty = String::from_utf8_lossy(&output.stdout).contains("EMPTY ");
        if output.status.code() != Some(3) || !named || empty {
            wrong.push(format!("{how}: {call}: {} (an empty id: {empty})\n{said}", output.status));
        }
    }
    assert!(wrong.is_empty(), "{} calls:\n{}", wrong.len(), wrong.join("\n"));
    // What only asks is answered.
    let asks = "support-matrix conclude BAD/run --tests none --unless-failed --status gate=Succeeded";
    let output = in_a_bad_folder("full", asks, &good, &bad);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}
