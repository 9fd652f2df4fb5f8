//! Labs of tests that were ended before they could take them down themselves: by Ctrl-C, or by their time limit.
//!
//! What was there before a run of the tests is written down, so that the next one knows what a killed one has left.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use kit::{Cause, Context, Process, Result, Ui, rundir};

use crate::tools;

/// How long it may take to take a lab down.
const DOWN: Duration = Duration::from_mins(2);
/// The labs of tests that are named by what they test; all others are named by their process: `t123-x`.
const NAMES: &[&str] = &["install-test", "install-nodes", "cleanup-test", "e2e-test", "e2e-nodes"];
/// A list of labs is not longer.
const LIST: u64 = 1 << 20;

/// The labs that were there before the tests.
pub(super) struct Labs {
    before: BTreeSet<String>,
    /// Where they are written down, by the number of our process.
    file: PathBuf,
}

impl Labs {
    /// Writes down what is there, and takes down what runs that were killed have left.
    pub(super) fn begin(ui: &Ui) -> Result<Self> {
        let folder = runs()?;
        fs::create_dir_all(&folder).cause(Cause::HostDisk, || format!("cannot create {}", folder.display()))?;
        for (_, file) in others(&folder).into_iter().filter(|(pid, _)| !lives(*pid)) {
            let known = rundir::read_limited(&file, LIST)?;
            let before = String::from_utf8_lossy(&known).lines().map(String::from).collect();
            Self { before, file }.end(ui);
        }
        let (before, file) = (there(&labs()?), folder.join(std::process::id().to_string()));
        let list: String = before.iter().map(|name| format!("{name}\n")).collect();
        rundir::write(&file, list.as_bytes())?;
        Ok(Self { before, file })
    }

    /// Takes down those that tests have left since.
    pub(super) fn end(&self, ui: &Ui) {
        let there = labs().map(|folder| there(&folder)).unwrap_or_default();
        let folder = self.file.parent().unwrap_or(Path::new("."));
        let alone = !others(folder).iter().any(|(pid, _)| *pid != std::process::id() && lives(*pid));
        take_down(&left(&there, &self.before, alone, lives), ui);
        // One that stays is read again by the next run.
        let _ = fs::remove_file(&self.file);
    }
}

/// Which labs tests have left: new ones, of processes that live no more; of names that all runs share only if this is
/// the only one.
fn left(
    there: &BTreeSet<String>,
    before: &BTreeSet<String>,
    alone: bool,
    lives: impl Fn(u32) -> bool,
) -> BTreeSet<String> {
    let is_left = |name: &&String| match process_of(name) {
        Some(pid) => !lives(pid),
        None => alone && NAMES.contains(&name.as_str()),
    };
    there.difference(before).filter(is_left).cloned().collect()
}

fn labs() -> Result<PathBuf> {
    Ok(kit::dirs::cache()?.join("labs"))
}

fn runs() -> Result<PathBuf> {
    Ok(kit::dirs::cache()?.join("test-runs"))
}

/// The runs of tests that are written down: process and file.
fn others(folder: &Path) -> Vec<(u32, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path()))).collect()
}

/// The names of the labs in a folder of labs.
fn there(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().is_dir()).filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// The test process in whose name a lab is: `t123-x` is one of process 123.
fn process_of(name: &str) -> Option<u32> {
    let rest = name.strip_prefix('t')?;
    rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())].parse().ok()
}

fn lives(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// A lab that stays is no reason to hide how the tests ended; who presses Ctrl-C again does not want to wait.
fn take_down(names: &BTreeSet<String>, ui: &Ui) {
    for name in names {
        let down = || {
            kit::signal::check()?;
            let mut command = Command::new(tools::path("lab")?);
            command.args(["down", "--purge", "--name", name]);
            Process::new("lab down", command).limit(DOWN).run()
        };
        match down() {
            Ok(_) => ui.note(format!("took down the lab '{name}', which a test had left")),
            Err(error) => {
                ui.warn(format!("the lab '{name}' of a test is left: lab down --purge --name {name}: {error}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn only_new_labs_of_tests_that_have_ended_are_left() {
        let there = set(&["t7-old", "t8-x", "t9-dead", "install-test", "my-test", "tekton", "main"]);
        let before = set(&["t7-old", "main"]);
        let lives = |pid| pid == 8;
        assert_eq!(left(&there, &before, true, lives), set(&["install-test", "t9-dead"]));
        assert_eq!(left(&there, &before, false, lives), set(&["t9-dead"]), "another run of the tests may have it");
        assert!(super::lives(std::process::id()) && !super::lives(u32::MAX));
    }

    #[test]
    fn only_folders_are_labs_and_only_numbers_are_runs() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("t1")).unwrap();
        fs::write(folder.path().join("t1.lock"), "").unwrap();
        fs::write(folder.path().join("12"), "").unwrap();
        assert_eq!(there(folder.path()), set(&["t1"]));
        assert_eq!(others(folder.path()), [(12, folder.path().join("12"))]);
        assert!(there(&folder.path().join("none")).is_empty() && others(&folder.path().join("none")).is_empty());
    }
}
