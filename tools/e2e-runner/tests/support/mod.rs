//! A `ci` folder that names the components in tests/programs, and the real program.

use std::{
    fmt::Write,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// The real program.
pub(crate) const TOOL: &str = env!("CARGO_BIN_EXE_e2e-runner");

/// Files of a test, which go with it. What Go has compiled stays in Go's own cache.
pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    labs: bool,
}

/// How the program ended and what it said.
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl World {
    /// Component `own` in this package, with the suites and passes of `more`.
    pub(crate) fn new(package: &str, more: &str, skips: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/own");
        let mut text = format!("[own]\npath = '{}'\nconfig = []\n", sources.display());
        let args = "args = ['-kubeconfig={kubeconfig}']\nenv = { OWN = 'for linux' }";
        writeln!(text, "[own.tests]\npackage = './{package}'\n{args}\n{more}").unwrap();
        std::fs::create_dir(folder.path().join("ci")).unwrap();
        std::fs::write(folder.path().join("ci/components.toml"), text).unwrap();
        std::fs::write(folder.path().join("ci/skips.toml"), skips).unwrap();
        Self { folder, labs: false }
    }

    /// The program with this world's files.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(TOOL);
        command.args(words).arg("--ci").arg(self.folder.path().join("ci")).args(["--component", "own"]);
        if !self.labs {
            command.env("OTHER_ARCH_CACHE", self.folder.path().join("cache"));
        }
        command
    }

    /// The same with the user's own cache, where the labs are.
    #[allow(dead_code, reason = "not every test has a lab")]
    pub(crate) fn with_labs(self) -> Self {
        Self { labs: true, ..self }
    }

    #[allow(dead_code, reason = "not every test needs it")]
    pub(crate) fn run(&self, words: &[&str]) -> Ended {
        Ended::of(self.command(words).output().unwrap())
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

impl Ended {
    pub(crate) fn of(output: Output) -> Self {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Self { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }

    /// Fails unless it ended so, and said all of this.
    #[track_caller]
    pub(crate) fn says(&self, code: i32, words: &[&str]) {
        let said = format!("{}{}", self.out, self.err);
        assert_eq!(self.code, code, "{said}");
        for word in words {
            assert!(said.contains(word), "'{word}' is not in:\n{said}");
        }
    }
}
