//! Calls that cannot be good, on any machine: each is refused at once and says why.

use std::{os::unix::fs::PermissionsExt, path::Path, process::Command};

use kit::{Process, process::Finished};

fn lab(arguments: &[&str]) -> Finished {
    let mut command = Command::new(env!("CARGO_BIN_EXE_lab"));
    command.args(arguments);
    Process::new("lab", command).finish().unwrap()
}

#[test]
fn a_wrong_call_says_so() {
    assert_eq!(lab(&["--name", "../x", "status"]).code(), 2);
    assert_eq!(lab(&["up", "--subnet", "10.96.0.0/24"]).code(), 2);
    assert_eq!(lab(&["no-such-verb"]).code(), 2);
    assert_eq!(lab(&["build", "--node", "linux/riscv64"]).code(), 2);
    assert_eq!(lab(&["--name", "none", "supervise", "/no/such/cache"]).code(), 2);
}

#[test]
fn whoever_is_not_root_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let open = |path: &Path| std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    // Where everybody can run it.
    let program = folder.path().join("lab");
    std::fs::copy(env!("CARGO_BIN_EXE_lab"), &program).unwrap();
    open(folder.path());
    open(&program);
    for verb in ["up", "status", "leftovers", "kubeconfig"] {
        let mut command = Command::new("setpriv");
        if rustix::process::geteuid().is_root() {
            command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        }
        command.arg(&program).arg(verb).env("OTHER_ARCH_CACHE", folder.path().join("cache")).current_dir("/");
        let said = Process::new("lab", command).finish().unwrap();
        assert_eq!(said.code(), 2, "{verb}: {said:?}");
        assert!(said.last.concat().contains("needs root"), "{verb}: {said:?}");
    }
}
