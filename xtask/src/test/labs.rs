//! Labs of tests that were ended before they could take them down themselves: by Ctrl-C, or by their time limit.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use kit::{Process, Result, Ui};

use crate::tools;

/// How long it may take to take a lab down.
const DOWN: Duration = Duration::from_mins(2);

/// The labs that were there before the tests.
pub(super) struct Labs {
    before: BTreeSet<String>,
}

impl Labs {
    /// Remembers what is there, and takes down what tests of a run that was killed have left.
    pub(super) fn begin(ui: &Ui) -> Result<Self> {
        let there = there(&folder()?);
        let (left, before) = there.into_iter().partition(|name| process_of(name).is_some_and(|pid| !lives(pid)));
        take_down(&left, ui);
        Ok(Self { before })
    }

    /// Takes down those that tests have left since.
    pub(super) fn end(&self, ui: &Ui) {
        let there = folder().map(|folder| there(&folder)).unwrap_or_default();
        let new = there.difference(&self.before).filter(|name| is_a_test_s(name));
        take_down(&new.cloned().collect(), ui);
    }
}

fn folder() -> Result<PathBuf> {
    Ok(kit::dirs::cache()?.join("labs"))
}

/// The names of the labs in a folder of labs.
fn there(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.path().is_dir()).filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// The test process in whose name a lab is: `t123-x` is one of process 123.
fn process_of(name: &str) -> Option<u32> {
    let rest = name.strip_prefix('t')?;
    rest[..rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len())].parse().ok()
}

/// Tests name their labs by their process, or by what they test.
fn is_a_test_s(name: &str) -> bool {
    process_of(name).is_some() || name.ends_with("-test") || name.ends_with("-nodes")
}

fn lives(pid: u32) -> bool {
    Path::new("/proc").join(pid.to_string()).exists()
}

/// A lab that stays is no reason to hide how the tests ended.
fn take_down(names: &BTreeSet<String>, ui: &Ui) {
    for name in names {
        let down = || {
            let mut command = Command::new(tools::path("lab")?);
            command.args(["down", "--purge", "--name", name]);
            Process::new("lab down", command).limit(DOWN).run()
        };
        match down() {
            Ok(_) => ui.note(format!("took down the lab '{name}', which a test had left")),
            Err(error) => {
                ui.warn(format!("the lab '{name}' of a test is left: lab down --purge --name {name}: {error}"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lab_s_name_says_whether_it_is_a_test_s() {
        assert_eq!(
            (process_of("t123-x"), process_of("t7"), process_of("tekton"), process_of("main")),
            (Some(123), Some(7), None, None)
        );
        for (name, tests) in
            [("t123-x", true), ("install-test", true), ("e2e-nodes", true), ("main", false), ("tekton", false)]
        {
            assert_eq!(is_a_test_s(name), tests, "{name}");
        }
        assert!(lives(std::process::id()) && !lives(u32::MAX));
    }

    #[test]
    fn only_folders_are_labs() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("t1")).unwrap();
        std::fs::write(folder.path().join("t1.lock"), "").unwrap();
        assert_eq!(there(folder.path()), BTreeSet::from(["t1".to_owned()]));
        assert!(there(&folder.path().join("none")).is_empty());
    }
}
