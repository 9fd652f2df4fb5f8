//! What tests of the whole chain share: a world of their own (a lab, a history, run directories) that goes with
//! them, also after a panic.

#![allow(clippy::disallowed_methods, reason = "tests start the real programs")]
#![allow(dead_code, reason = "each test program uses a part")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;
use tempfile::TempDir;

/// A lab by a name of its own, and folders.
pub(crate) struct World {
    pub(crate) lab: String,
    pub(crate) folder: TempDir,
}

/// How a run ended.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    pub(crate) run: PathBuf,
}

impl World {
    pub(crate) fn new(name: &str) -> Self {
        let folder = tempfile::Builder::new().prefix("other-arch-").tempdir().unwrap();
        Self { lab: format!("t{}-{name}", std::process::id()), folder }
    }

    /// `cargo xtask nightly` in this world, as a command.
    pub(crate) fn command(&self, run: &str, arguments: &[&str]) -> Command {
        let folder = self.folder.path();
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command.current_dir(root()).arg("nightly").args(["--lab", &self.lab]);
        command.arg("--history").arg(folder.join("history")).arg("--out").arg(folder.join("matrix"));
        if !arguments.contains(&"--from") {
            command.arg("--run-dir").arg(folder.join(run));
        }
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a nightly to its end.
    pub(crate) fn nightly(&self, run: &str, arguments: &[&str]) -> Ran {
        self.finish(run, self.command(run, arguments).output().unwrap())
    }

    pub(crate) fn finish(&self, run: &str, output: Output) -> Ran {
        let ran = Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            run: self.folder.path().join(run),
        };
        println!("--- {run}: exit {}\n{}\n{}", ran.code, ran.stdout, ran.stderr);
        ran
    }

    /// A copy of `ci/` in which a file's text is changed.
    pub(crate) fn ci(&self, name: &str, file: &str, from: &str, to: &str) -> PathBuf {
        let ci = self.folder.path().join(name).join("ci");
        fs::create_dir_all(&ci).unwrap();
        for entry in fs::read_dir(root().join("ci")).unwrap() {
            let entry = entry.unwrap();
            if entry.path().extension().is_some_and(|extension| extension == "toml") {
                fs::copy(entry.path(), ci.join(entry.file_name())).unwrap();
            }
        }
        // Paths of components are relative to the folder that holds ci/.
        std::os::unix::fs::symlink(root().join("fixtures"), self.folder.path().join(name).join("fixtures")).unwrap();
        let text = fs::read_to_string(ci.join(file)).unwrap();
        assert!(text.contains(from), "{file} has no '{from}'");
        fs::write(ci.join(file), text.replacen(from, to, 1)).unwrap();
        ci
    }

    /// Any tool of the workspace.
    pub(crate) fn tool(&self, tool: &str, arguments: &[&str]) -> Output {
        Command::new(program(tool)).current_dir(root()).args(arguments).output().unwrap()
    }

    /// What the lab's kubectl says, which must go well.
    pub(crate) fn kubectl(&self, arguments: &[&str]) -> String {
        let output = self.tool("lab", &[&["--name", &self.lab, "kubectl"], arguments].concat());
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// What of the lab is on the machine.
    pub(crate) fn left(&self) -> String {
        String::from_utf8(self.tool("lab", &["leftovers", "--of", &self.lab]).stdout).unwrap()
    }

    /// What the matrix says of a component on a platform.
    pub(crate) fn matrix_cell(&self, component: &str, platform: &str) -> Value {
        let matrix = read_json(&self.folder.path().join("matrix/matrix.json"));
        let cells = matrix["cells"].as_array().unwrap();
        let found = cells.iter().find(|cell| cell["component"] == component && cell["platform"] == platform);
        found.unwrap_or_else(|| panic!("no cell of {component} on {platform} in {matrix}")).clone()
    }

    /// Asserts that what stands in the matrix is what a good run has shown: one platform tested natively, the
    /// others built and verified and no more than that.
    pub(crate) fn assert_matrix(&self, component: &str, tested: &str, built: &[&str]) {
        let cell = self.matrix_cell(component, tested);
        assert_eq!(cell["state"], "tested-natively", "{cell}");
        let counts = &cell["tested"]["counts"];
        assert!(counts["passed"].as_u64() >= Some(5) && counts["failed"] == 0, "{cell}");
        for level in ["contents", "installs", "e2e"] {
            assert_eq!(cell["levels"][level]["verdict"], "shown", "{level}: {cell}");
        }
        for platform in built {
            let cell = self.matrix_cell(component, platform);
            assert_eq!(cell["state"], "built", "{cell}");
            assert_eq!(cell["levels"]["contents"]["verdict"], "shown", "{cell}");
            assert_eq!(cell["tested"]["words"], "never", "{cell}");
        }
    }
}

impl Ran {
    /// The run's folder as it was said, for a run that goes on from another.
    pub(crate) fn folder(&self) -> PathBuf {
        let line = self.stderr.lines().find(|line| line.contains(" run 2") && line.contains(" in /")).unwrap();
        PathBuf::from(line.split_once(" in ").unwrap().1.trim())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let down = self.tool("lab", &["down", "--name", &self.lab, "--purge"]);
        if !down.status.success() {
            eprintln!("lab {} is still there: {}", self.lab, String::from_utf8_lossy(&down.stderr));
        }
    }
}

/// Ends with the test, so that nothing is left behind when an assertion fails.
pub(crate) struct Killed(pub(crate) Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

pub(crate) fn program(tool: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_xtask")).parent().unwrap().join(tool)
}

pub(crate) fn read_json(path: &Path) -> Value {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The record of a component on this machine's architecture in a run.
pub(crate) fn cell(run: &Path, component: &str, record: &str) -> Value {
    let platforms = fs::read_dir(run.join(component)).unwrap().flatten().map(|entry| entry.path());
    let clusters = platforms.filter(|path| path.is_dir()).flat_map(|path| fs::read_dir(path).unwrap().flatten());
    let found = clusters.map(|cluster| cluster.path().join(record)).find(|path| path.is_file());
    read_json(&found.unwrap_or_else(|| panic!("no {record} in {}", run.display())))
}
