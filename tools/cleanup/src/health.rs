//! Whether a cluster is sick: how its last cleanups ended, from the records of the runs beside this one.

use std::path::{Path, PathBuf};

use jiff::Timestamp;
use kit::{
    Outcome,
    record::{Cleanup, CleanupHistory},
    rundir::read_record,
};

/// So many of the newest cleanups count.
const NEWEST: usize = 10;
/// When so many of them needed a late stage, the cluster is sick.
const SICK: usize = 3;
/// Runs beside this one that are looked at.
const RUNS: usize = 200;
/// A folder with more folders than this is no run, nor of runs.
const FOLDERS: usize = 5000;

/// Whether a cleanup needed more than deleting objects.
#[must_use]
pub(crate) fn is_late(stage: &str) -> bool {
    matches!(stage, "force" | "needs-recreate")
}

/// The history of a cluster: what lies in `beside`, or else beside the run, and this cleanup, which is not written yet.
/// Records that cannot be read, and cleanups that did not come to their end, say nothing.
#[must_use]
pub(crate) fn history(run: &Path, beside: Option<&Path>, cluster: &str, this_stage: &str) -> CleanupHistory {
    let this = run.canonicalize().unwrap_or_else(|_| run.to_owned());
    let beside = beside.map(|beside| beside.canonicalize().unwrap_or_else(|_| beside.to_owned()));
    let mut runs: Vec<PathBuf> = beside.as_deref().or_else(|| this.parent()).map(folders).unwrap_or_default();
    let is_run = |run: &PathBuf| ["run.json", "run-id"].iter().any(|name| run.join(name).is_file());
    runs.retain(|run| *run != this && is_run(run));
    // The names of runs begin with their time.
    runs.sort();
    runs.reverse();
    let mut ended: Vec<(Timestamp, bool)> = Vec::new();
    for cell in runs.iter().take(RUNS).flat_map(|run| cells(run)) {
        let Ok((record, _)) = read_record::<Cleanup>(&cell) else { continue };
        // One that failed may never have looked: then nothing differs in its record.
        let came_to_its_end = record.stage == "needs-recreate" || record.head.outcome == Outcome::Passed;
        if record.cluster.uid == cluster && came_to_its_end {
            ended.push((record.head.finished, is_late(&record.stage)));
        }
    }
    ended.sort();
    ended.reverse();
    judge(std::iter::once(is_late(this_stage)).chain(ended.into_iter().map(|(_, late)| late)))
}

fn judge(newest_first: impl Iterator<Item = bool>) -> CleanupHistory {
    let newest: Vec<bool> = newest_first.take(NEWEST).collect();
    let late = newest.iter().filter(|late| **late).count();
    CleanupHistory { cleanups: newest.len(), late, sick: late >= SICK }
}

/// `<component>/<platform>/<cluster>` below a run.
fn cells(run: &Path) -> Vec<PathBuf> {
    let below = |folders_: Vec<PathBuf>| folders_.iter().flat_map(|folder| folders(folder)).collect::<Vec<_>>();
    below(below(folders(run)))
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()));
    folders.map(|entry| entry.path()).take(FOLDERS).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use kit::{
        record::{ClusterId, Difference, Head},
        rundir::write_record,
    };

    fn record(runs: &Path, run: &str, cluster: &str, stage: &str) {
        let record = Cleanup {
            head: Head::new("cleanup", "0.1.0", run, Timestamp::now()),
            cluster: ClusterId { uid: cluster.into(), name: "n".into(), kubernetes: String::new(), nodes: vec![] },
            stage: stage.into(),
            deleted: BTreeMap::new(),
            restored: vec![],
            forced: vec![],
            selection: vec![],
            recreated: vec![],
            history: None,
            difference: Difference::default(),
        };
        write_record(&runs.join(run).join("greeter/linux-amd64/lab-x"), &record).unwrap();
        std::fs::write(runs.join(run).join("run-id"), run).unwrap();
    }

    #[test]
    fn a_cluster_that_often_needs_force_is_sick() {
        let folder = tempfile::tempdir().unwrap();
        let this = folder.path().join("20260105-000000-000000");
        std::fs::create_dir_all(&this).unwrap();
        let healthy = CleanupHistory { cleanups: 1, late: 0, sick: false };
        let history = |run: &Path, cluster: &str, stage: &str| history(run, None, cluster, stage);
        assert_eq!(history(&this, "u", "objects"), healthy);
        record(folder.path(), "20260101-000000-000000", "u", "force");
        record(folder.path(), "20260102-000000-000000", "other", "force");
        record(folder.path(), "20260103-000000-000000", "u", "needs-recreate");
        assert_eq!(history(&this, "u", "objects"), CleanupHistory { cleanups: 3, late: 2, sick: false });
        assert_eq!(history(&this, "u", "force"), CleanupHistory { cleanups: 3, late: 3, sick: true });
        std::fs::write(folder.path().join("20260101-000000-000000/greeter/linux-amd64/lab-x/cleanup.json"), "{")
            .unwrap();
        assert_eq!(history(&this, "u", "force").late, 2);
        // Runs may lie elsewhere than those that came before them.
        let elsewhere = tempfile::tempdir().unwrap();
        assert_eq!(super::history(elsewhere.path(), Some(folder.path()), "u", "objects").cleanups, 2);
    }

    #[test]
    fn a_cleanup_that_did_not_end_says_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let this = folder.path().join("20260105-000000-000000");
        std::fs::create_dir_all(&this).unwrap();
        record(folder.path(), "20260101-000000-000000", "u", "none");
        let cell = folder.path().join("20260101-000000-000000/greeter/linux-amd64/lab-x");
        let (mut refused, _) = read_record::<Cleanup>(&cell).unwrap();
        refused.head = refused.head.failed(&kit::Error::new(kit::Cause::LeaseHeld, "another run"));
        std::fs::remove_file(cell.join("cleanup.json")).unwrap();
        write_record(&cell, &refused).unwrap();
        assert_eq!(history(&this, None, "u", "objects").cleanups, 1);
    }

    #[test]
    fn old_troubles_are_forgotten() {
        let stages = std::iter::repeat_n(false, NEWEST).chain([true, true, true]);
        assert_eq!(judge(stages), CleanupHistory { cleanups: NEWEST, late: 0, sick: false });
    }
}
