//! The folders of runs that need not be kept: what a volume of a Tekton cluster would be full of after some weeks.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use kit::{
    RunDir, Ui,
    bundle::{self, History},
    digest,
};

/// A run that was recorded may have a step or two left.
const SETTLED: Duration = Duration::from_hours(1);
/// What was never recorded, or never cleaned, may still be wanted by cleanup for its baseline; not for ever.
const ABANDONED: Duration = Duration::from_hours(30 * 24);

/// Removes the folders in `runs`, each a run or with one in its folder `run`, that the history holds and whose cluster was
/// cleaned, and those that are old; never that of `own`, which is not over. What cannot be removed is said, and left to
/// the next run.
pub(crate) fn runs(runs: &Path, own: &RunDir, history: &History, ui: &Ui) {
    let entries = fs::read_dir(runs).into_iter().flatten().flatten().map(|entry| entry.path());
    for folder in entries.filter(|folder| folder.is_dir()) {
        let run = Some(folder.join("run")).filter(|run| run.is_dir()).unwrap_or_else(|| folder.clone());
        let old = is_older(&run.join("run-id"), ABANDONED);
        if !old && !is_kept(&run, history) {
            continue;
        }
        // By its id, and not by its path: a workspace may be there twice.
        let goes = |run: RunDir| run.id() != own.id() && (old || run.unclean().is_empty());
        if !RunDir::open(&run).is_ok_and(goes) {
            continue;
        }
        match fs::remove_dir_all(&folder) {
            Ok(()) => ui.note(format!("removed {}", folder.display())),
            Err(error) => ui.warn(format!("cannot remove {}: {error}", folder.display())),
        }
    }
}

fn is_kept(run: &Path, history: &History) -> bool {
    let file = run.join(bundle::FILE);
    let held = |list: Vec<u8>| history.bundle(&digest::sha256(&list)).is_ok_and(|closed| closed.verify().is_ok());
    is_older(&file, SETTLED) && fs::read(&file).is_ok_and(held)
}

fn is_older(file: &Path, age: Duration) -> bool {
    let changed = fs::metadata(file).and_then(|data| data.modified());
    changed.is_ok_and(|changed| SystemTime::now().duration_since(changed).is_ok_and(|found| found > age))
}
