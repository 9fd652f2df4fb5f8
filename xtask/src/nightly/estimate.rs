//! How long stages took on this machine the last time, so that progress can say how long is left.

use std::{collections::BTreeMap, path::PathBuf, sync::Mutex, time::Duration};

use kit::{Result, dirs, rundir};

/// Seconds by stage, kept in the cache.
pub(crate) struct Estimates {
    path: PathBuf,
    seconds: Mutex<BTreeMap<String, f64>>,
}

impl Estimates {
    pub(crate) fn load() -> Result<Self> {
        let path = dirs::cache()?.join("stage-times.json");
        let read = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Ok(Self { path, seconds: Mutex::new(read.unwrap_or_default()) })
    }

    pub(crate) fn get(&self, key: &str) -> Option<Duration> {
        let seconds = self.seconds.lock().ok()?.get(key).copied()?;
        Duration::try_from_secs_f64(seconds).ok()
    }

    pub(crate) fn put(&self, key: &str, took: Duration) {
        if let Ok(mut seconds) = self.seconds.lock() {
            seconds.insert(key.to_owned(), took.as_secs_f64());
        }
    }

    /// Keeps them for the next run; an estimate that is lost is no harm.
    pub(crate) fn save(&self) {
        if let Ok(seconds) = self.seconds.lock() {
            let _ = serde_json::to_vec_pretty(&*seconds).map(|bytes| rundir::write(&self.path, &bytes));
        }
    }
}
