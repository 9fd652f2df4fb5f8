//! How long stages took on this machine the last time, so that progress can say how long is left; and how many times
//! slower its emulated nodes were, so that tests can be compiled for them ahead.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Mutex,
    time::Duration,
};

use kit::{Result, dirs, rundir};

/// Seconds by stage, and times slower by platform (`slowdown OS/ARCH`), kept in the cache.
pub(crate) struct Estimates {
    path: PathBuf,
    known: BTreeMap<String, f64>,
    new: Mutex<BTreeMap<String, f64>>,
}

impl Estimates {
    pub(crate) fn load() -> Result<Self> {
        Ok(Self::at(dirs::cache()?.join("stage-times.json")))
    }

    fn at(path: PathBuf) -> Self {
        Self { known: read(&path), path, new: Mutex::default() }
    }

    pub(crate) fn get(&self, key: &str) -> Option<Duration> {
        let new = self.new.lock().ok()?.get(key).copied();
        Duration::try_from_secs_f64(new.or_else(|| self.known.get(key).copied())?).ok()
    }

    pub(crate) fn put(&self, key: &str, took: Duration) {
        if let Ok(mut new) = self.new.lock() {
            new.insert(key.to_owned(), took.as_secs_f64());
        }
    }

    /// Keeps them for the next run, beside what runs at the same time have kept; an estimate that is lost is no harm.
    pub(crate) fn save(&self) {
        if let Ok(new) = self.new.lock() {
            let mut all = read(&self.path);
            all.extend(new.clone());
            let _ = serde_json::to_vec_pretty(&all).map(|bytes| rundir::write(&self.path, &bytes));
        }
    }
}

fn read(path: &Path) -> BTreeMap<String, f64> {
    std::fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_at_the_same_time_do_not_forget_each_other() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Estimates::at(folder.path().join("times.json"));
        let (one, two) = (open(), open());
        one.put("install a", Duration::from_secs(1));
        two.put("install b", Duration::from_secs(2));
        assert_eq!((two.get("install b"), two.get("install a")), (Some(Duration::from_secs(2)), None));
        one.save();
        two.save();
        assert_eq!((open().get("install a"), open().get("install b")), (one.get("install a"), two.get("install b")));
    }
}
