//! Which run of this place has made a cluster, and that one at a time makes or removes it: not all hosts know that.

use std::{
    fs::{self, File, TryLockError},
    io::{Read, Seek, Write},
    time::Duration,
};

use kit::{Cause, Context, Result, dirs};

/// Longer than the id of any run.
const LONGEST: u64 = 256;

/// The right to make or remove a cluster, until it is dropped; a kill drops it too.
pub(super) struct Maker {
    file: File,
    shown: String,
}

impl Maker {
    /// Nothing if another one is at it.
    pub(super) fn lock(cluster: &str) -> Result<Option<Self>> {
        let path = dirs::maker(cluster)?;
        let shown = path.display().to_string();
        let open = || -> std::io::Result<File> {
            fs::create_dir_all(path.parent().unwrap_or(&path))?;
            File::options().read(true).write(true).create(true).truncate(false).open(&path)
        };
        let file = open().cause(Cause::HostDisk, || format!("cannot use {shown}"))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self { file, shown })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error).cause(Cause::HostDisk, || format!("cannot lock {shown}")),
        }
    }

    /// The run that has begun to make it last, unless that has removed it.
    pub(super) fn run(&self) -> Result<Option<String>> {
        let read = (&self.file).rewind().and_then(|()| content(&self.file));
        read.cause(Cause::HostDisk, || format!("cannot read {}", self.shown))
    }

    /// How long ago that run was at it; what cannot be known is long ago.
    pub(super) fn age(&self) -> Duration {
        let age = self.file.metadata().and_then(|file| file.modified()).map(|at| at.elapsed().unwrap_or_default());
        age.unwrap_or(Duration::MAX)
    }

    /// `run` is at making it now; nobody if it is empty.
    pub(super) fn remember(&self, run: &str) -> Result<()> {
        let write = || -> std::io::Result<()> {
            (&self.file).rewind()?;
            self.file.set_len(0)?;
            (&self.file).write_all(run.as_bytes())?;
            self.file.sync_data()
        };
        write().cause(Cause::HostDisk, || format!("cannot write {}", self.shown))
    }
}

/// The run that has begun to make it last, whoever has the lock.
pub(super) fn last(cluster: &str) -> Result<Option<String>> {
    let path = dirs::maker(cluster)?;
    let read = File::open(&path).and_then(|file| content(&file));
    read.cause(Cause::HostDisk, || format!("cannot read {}", path.display()))
}

fn content(file: &File) -> std::io::Result<Option<String>> {
    let mut run = String::new();
    file.take(LONGEST).read_to_string(&mut run)?;
    Ok(Some(run).filter(|run| !run.is_empty()))
}
