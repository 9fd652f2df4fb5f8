//! Parts of a suite on one cluster at the same time. Their tests run beside each other; what is about the whole
//! installation (a later pass, a round with its settings) has the cluster alone, one part after the other; and what is
//! arranged for all of them the last one undoes.
//!
//! They know each other by locks in the cache, which parts on one cluster have in common, as steps of one run in Tekton.
//! A lock goes with its process, however that ends.

use std::{
    fs::{self, File, TryLockError},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use kit::{Cause, Context, Error, Result, Ui, dirs, retry, rundir};

use crate::shard::Shard;

/// Longer than any suite is allowed to take.
const LONGEST: Duration = Duration::from_hours(12);

/// The turns of one part; a whole has nobody to wait for.
#[derive(Debug, Clone, Default)]
pub struct Turns(Option<Arc<Among>>);

#[derive(Debug)]
struct Among {
    folder: PathBuf,
    /// Whether we have the cluster alone already.
    alone: AtomicBool,
    waited: Mutex<Duration>,
}

/// Something that others do not disturb; over when it is dropped.
#[derive(Debug, Default)]
pub struct Turn {
    _file: Option<File>,
    alone: Option<Arc<Among>>,
}

impl Drop for Turn {
    fn drop(&mut self) {
        if let Some(among) = &self.alone {
            among.alone.store(false, Ordering::Relaxed);
        }
    }
}

impl Turns {
    /// Those of this part on the cluster of that UID.
    ///
    /// # Errors
    /// [`Cause::HostDisk`] naming the folder of the locks.
    pub fn new(part: Shard, cluster: &str) -> Result<Self> {
        if !part.is_part() {
            return Ok(Self::default());
        }
        Self::within(&dirs::cache()?.join("parts").join(rundir::slug(cluster)))
    }

    fn within(folder: &Path) -> Result<Self> {
        fs::create_dir_all(folder).cause(Cause::HostDisk, || format!("cannot create {}", folder.display()))?;
        let (alone, waited) = (AtomicBool::new(false), Mutex::default());
        Ok(Self(Some(Arc::new(Among { folder: folder.into(), alone, waited }))))
    }

    /// Enters the cluster; who is the first there has it alone until [`Presence::stay`].
    ///
    /// # Errors
    /// [`Cause::Interrupted`] while it is waited for another first one.
    pub fn enter(&self, ui: &Ui) -> Result<Presence> {
        let Some(among) = &self.0 else { return Ok(Presence { file: None, first: true }) };
        let file = among.open("here")?;
        let first = among.wait("here", ui, || match tried(file.try_lock())? {
            true => Ok(Some(true)),
            false => Ok(tried(file.try_lock_shared())?.then_some(false)),
        })?;
        Ok(Presence { file: Some(file), first })
    }

    /// A turn, together with others of that kind or alone. Who is alone has all of them.
    ///
    /// # Errors
    /// [`Cause::Interrupted`] while others have theirs.
    pub fn take(&self, alone: bool, ui: &Ui) -> Result<Turn> {
        let Some(among) = self.0.as_ref().filter(|among| !among.alone.load(Ordering::Relaxed)) else {
            return Ok(Turn::default());
        };
        let file = among.open("turn")?;
        let began = Instant::now();
        among.wait("turn", ui, || {
            let got = if alone { file.try_lock() } else { file.try_lock_shared() };
            Ok(tried(got)?.then_some(()))
        })?;
        if let Ok(mut waited) = among.waited.lock() {
            *waited += began.elapsed();
        }
        among.alone.store(alone, Ordering::Relaxed);
        Ok(Turn { _file: Some(file), alone: alone.then(|| Arc::clone(among)) })
    }

    /// Whether there may be others.
    #[must_use]
    pub fn is_part(&self) -> bool {
        self.0.is_some()
    }

    /// How long others have kept us from our tests, which have that much longer.
    #[must_use]
    pub fn waited(&self) -> Duration {
        self.0.as_ref().and_then(|among| among.waited.lock().ok().map(|waited| *waited)).unwrap_or_default()
    }
}

impl Among {
    fn open(&self, name: &str) -> Result<File> {
        let path = self.folder.join(format!("{name}.lock"));
        // Over NFS a lock that others share needs to be open for reading, one for itself for writing.
        let opened = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        opened.cause(Cause::HostDisk, || format!("cannot use {}", path.display()))
    }

    fn wait<T>(&self, name: &str, ui: &Ui, mut attempt: impl FnMut() -> Result<Option<T>>) -> Result<T> {
        let late = || {
            let what = format!("another part has kept {} for too long", self.folder.join(name).display());
            Error::new(Cause::Internal, what)
        };
        let mut said = false;
        retry::until(LONGEST, late, || {
            let got = attempt()?;
            if got.is_none() && !std::mem::replace(&mut said, true) {
                ui.note("waiting for other parts of the suite, which have the cluster");
            }
            Ok(got)
        })
    }
}

/// Being there, so that others know.
#[derive(Debug)]
pub struct Presence {
    file: Option<File>,
    first: bool,
}

impl Presence {
    /// Whether nobody was there, so that what a run that was killed has left may be undone.
    #[must_use]
    pub fn is_first(&self) -> bool {
        self.first
    }

    /// From now on beside others.
    ///
    /// # Errors
    /// [`Cause::Interrupted`] while it is waited for another first one.
    pub fn stay(&self) -> Result<()> {
        let Some(file) = self.file.as_ref().filter(|_| self.first) else { return Ok(()) };
        let late = || Error::new(Cause::Internal, "another part keeps the cluster for itself");
        retry::until(LONGEST, late, || Ok(tried(file.try_lock_shared())?.then_some(())))
    }

    /// Leaves; whether nobody else is there. Then nobody comes before this is dropped.
    #[must_use]
    pub fn is_last(&self) -> bool {
        let Some(file) = &self.file else { return true };
        // Two that leave at once must not wait for each other: not all file systems drop what they are to exchange.
        let _ = file.unlock();
        // What cannot be known is undone: the next run would find it otherwise.
        tried(file.try_lock()).unwrap_or(true)
    }
}

fn tried(locked: Result<(), TryLockError>) -> Result<bool> {
    match locked {
        Ok(()) => Ok(true),
        Err(TryLockError::WouldBlock) => Ok(false),
        Err(TryLockError::Error(error)) => Err(error).cause(Cause::HostDisk, || "cannot lock a file of the cache"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether it has to wait.
    fn waits(turns: &Turns, alone: bool) -> bool {
        let file = turns.0.as_ref().unwrap().open("turn").unwrap();
        !tried(if alone { file.try_lock() } else { file.try_lock_shared() }).unwrap()
    }

    #[test]
    fn tests_run_beside_each_other_and_what_changes_the_installation_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (Turns::within(folder.path()).unwrap(), Turns::within(folder.path()).unwrap());
        let turn = one.take(false, &Ui::silent()).unwrap();
        assert!(!waits(&other, false) && waits(&other, true));
        drop(turn);
        let round = one.take(true, &Ui::silent()).unwrap();
        assert!(waits(&other, false) && waits(&other, true));
        // Its own passes have it with it.
        drop((one.take(false, &Ui::silent()).unwrap(), one.take(true, &Ui::silent()).unwrap()));
        assert!(waits(&other, false));
        drop(round);
        assert!(!waits(&other, true));
        drop(one.take(true, &Ui::silent()).unwrap());
        assert!(one.waited() < Duration::from_secs(5) && one.is_part());
    }

    #[test]
    fn the_first_one_finds_what_was_left_and_the_last_one_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let turns = Turns::within(folder.path()).unwrap();
        let first = turns.enter(&Ui::silent()).unwrap();
        let file = turns.0.as_ref().unwrap().open("here").unwrap();
        assert!(first.is_first() && !tried(file.try_lock_shared()).unwrap(), "others wait until it has undone that");
        first.stay().unwrap();
        let second = turns.enter(&Ui::silent()).unwrap();
        assert!(!second.is_first() && !first.is_last());
        assert!(second.is_last() && !first.is_last());
        drop(second);
        assert!(first.is_last());
    }

    #[test]
    fn a_whole_waits_for_nobody() {
        let turns = Turns::new(Shard::default(), "uid").unwrap();
        let here = turns.enter(&Ui::silent()).unwrap();
        assert!(here.is_first() && here.is_last() && !turns.is_part());
        here.stay().unwrap();
        drop((turns.take(true, &Ui::silent()).unwrap(), turns.take(false, &Ui::silent()).unwrap()));
        assert_eq!(turns.waited(), Duration::ZERO);
    }
}
