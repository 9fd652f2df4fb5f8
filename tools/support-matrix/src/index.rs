//! The index over a history: what each run says, kept in one file so that nobody reads all bundles again.
//!
//! It is never evidence. It can be deleted at any time and is built again from the bundles; a file that is copied, old
//! or damaged is not believed. What a cell rests on is read from its bundle when the cell is computed (`history`).

mod brief;
mod facts;
mod tests;

use std::{
    cell::Cell,
    collections::HashMap,
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    time::Duration,
};

use kit::{Cause, Context, Error, Result, bundle::Closed, dirs, retry};
use redb::{
    Database, DatabaseError, ReadOnlyTable, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata,
    StorageError, TableDefinition, TableError, WriteTransaction,
};

use crate::model::TestRow;
pub(crate) use brief::{About, Built, Loaded, RunRef, Try};
pub(crate) use facts::{Facts, StageFact};
pub(crate) use tests::TestRun;

/// The version of the file's content. Another version is built anew; a newer one is refused.
const VERSION: u32 = 5;
/// Bytes of the database that are held in memory.
const CACHE: usize = 8 << 20;
/// Another process may be writing.
const PATIENCE: Duration = Duration::from_secs(60);
/// So long waits whoever only adds to it: the next reader does the same from the bundle.
const SHORT_PATIENCE: Duration = Duration::from_secs(2);
/// Runs in one transaction: a kill loses at most these.
pub(crate) const BATCH: usize = 500;

const META: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("meta");
const BRIEFS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("briefs");
const FACTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("facts");
/// By digest and number of the statement, as `DIGEST/NUMBER`.
const TESTS: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("tests");
/// Those that did not simply pass, with all that is shown of them, by the same names.
const LISTED: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("listed");
const NAMES: TableDefinition<'_, &str, u32> = TableDefinition::new("names");
const NUMBERS: TableDefinition<'_, u32, &str> = TableDefinition::new("numbers");

/// An open index. While it is open no other process has it.
pub(crate) struct Index {
    database: Database,
    path: PathBuf,
}

/// The option that names the file.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct IndexOption {
    /// The index over the history, which can be deleted at any time [default: a file in the cache, one for each
    /// history]
    #[arg(long, value_name = "FILE")]
    index: Option<PathBuf>,
}

impl IndexOption {
    /// Opens the index of the history in `folder`.
    ///
    /// # Errors
    /// See [`Index::open`].
    pub(crate) fn open(&self, folder: &Path) -> Result<Index> {
        let path = self.path(folder)?;
        let late = || {
            Error::new(Cause::HostDisk, format!("another process does not let go of the index {}", path.display()))
                .next("wait for it, or use a file of your own with --index")
        };
        Index::open(&path, PATIENCE)?.ok_or_else(late)
    }

    /// The same for somebody who only adds to it; nothing if another process has it.
    ///
    /// # Errors
    /// See [`Index::open`].
    pub(crate) fn open_to_add(&self, folder: &Path) -> Result<Option<Index>> {
        Index::open(&self.path(folder)?, SHORT_PATIENCE)
    }

    fn path(&self, folder: &Path) -> Result<PathBuf> {
        if let Some(path) = &self.index {
            return Ok(path.clone());
        }
        let whole = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_path_buf());
        let name = &kit::digest::hex(whole.as_os_str().as_encoded_bytes())[..16];
        Ok(dirs::cache()?.join("matrix").join(format!("{name}.redb")))
    }
}

impl Index {
    /// The index in the file `path`, made if it is missing and made anew if it is damaged, was copied from elsewhere, or
    /// is of an older version. Nothing if another process does not let go of it.
    ///
    /// # Errors
    /// [`Cause::Usage`] if it is of a newer version or no index: it stays as it was. [`Cause::HostDisk`] if it cannot
    /// be written.
    fn open(path: &Path, patience: Duration) -> Result<Option<Self>> {
        for _ in 0..3 {
            if fs::metadata(path).is_ok_and(|found| found.len() == 0) {
                // What is empty is nobody's.
                forget_file(path)?;
            }
            if !path.exists() {
                make(path)?;
            }
            match database(path, patience)? {
                Opened::Busy => return Ok(None),
                Opened::Good(database) => {
                    let index = Self { database, path: path.to_path_buf() };
                    if index.is_ours()? {
                        return Ok(Some(index));
                    }
                }
                // A file of somebody else is not ours to remove.
                Opened::Damaged(why) if !looks_like_ours(path) => {
                    let error =
                        Error::from_source(Cause::Usage, format!("{} is no index of ours", path.display()), why);
                    return Err(error.next("name another file with --index"));
                }
                Opened::Damaged(_) => {}
            }
            forget_file(path)?;
        }
        Err(Error::new(Cause::HostDisk, format!("cannot make the index {}: others keep removing it", path.display())))
    }

    /// Whether it is what this version wrote, here.
    fn is_ours(&self) -> Result<bool> {
        let read = self.read()?;
        let Some(meta) = table(&read, META, &self.path)? else { return Ok(false) };
        let get = |key: &str| -> Result<Option<Vec<u8>>> {
            Ok(meta.get(key).map_err(|error| self.broken(error))?.map(|found| found.value().to_vec()))
        };
        let version = get("version")?.and_then(|bytes| String::from_utf8(bytes).ok()?.parse::<u32>().ok());
        match version {
            Some(version) if version > VERSION => {
                let what =
                    format!("the index {} is of version {version}, newer than ours, {VERSION}", self.path.display());
                Err(Error::new(Cause::Usage, what)
                    .next("use the version of other-arch that wrote it, or another file with --index"))
            }
            Some(VERSION) => Ok(get("place")?.as_deref() == Some(self.place()?.as_bytes())),
            _ => Ok(false),
        }
    }

    /// A copy has another inode: whoever copied it may have done so while it was written.
    fn place(&self) -> Result<String> {
        let found = fs::metadata(&self.path);
        let found = found.cause(Cause::HostDisk, || format!("cannot look at {}", self.path.display()))?;
        Ok(format!("{}:{}", found.dev(), found.ino()))
    }

    fn mark(&self) -> Result<()> {
        let place = self.place()?;
        self.write(|write| {
            let mut meta = write.open_table(META)?;
            meta.insert("version", VERSION.to_string().as_bytes())?;
            meta.insert("place", place.as_bytes())?;
            for table in [BRIEFS, FACTS, TESTS, LISTED] {
                write.open_table(table)?;
            }
            write.open_table(NAMES)?;
            write.open_table(NUMBERS)?;
            Ok(())
        })
    }

    fn read(&self) -> Result<ReadTransaction> {
        self.database.begin_read().map_err(|error| self.broken(error))
    }

    fn write<T>(&self, work: impl FnOnce(&WriteTransaction) -> Result<T, redb::Error>) -> Result<T> {
        let write = self.database.begin_write().map_err(|error| self.broken(error))?;
        let done = work(&write).map_err(|error| self.broken(error))?;
        write.commit().map_err(|error| self.broken(error))?;
        Ok(done)
    }

    fn broken(&self, error: impl Into<redb::Error>) -> Error {
        let error = error.into();
        let next = match &error {
            redb::Error::Io(_) => "free some space, or name another file with --index",
            _ => "delete it: it is built again from the bundles",
        };
        Error::from_source(Cause::HostDisk, format!("cannot use the index {}", self.path.display()), error).next(next)
    }

    /// Every run, in short, in the order of their digests. What cannot be used of one run leaves that one out, as if it
    /// was never read: whoever asks reads it again from its bundle.
    ///
    /// # Errors
    /// [`Cause::HostDisk`] if the index is damaged.
    pub(crate) fn load(&self) -> Result<Vec<Loaded>> {
        let read = self.read()?;
        let Some(briefs) = table(&read, BRIEFS, &self.path)? else { return Ok(Vec::new()) };
        let mut loader = brief::Loader::default();
        let count = briefs.len().map_err(|error| self.broken(error))?;
        // The file may be damaged: no room for more than anybody has.
        let mut all = Vec::with_capacity(usize::try_from(count).unwrap_or_default().min(100_000));
        for entry in briefs.iter().map_err(|error| self.broken(error))? {
            let (digest, bytes) = entry.map_err(|error| self.broken(error))?;
            all.extend(loader.load(digest.value(), bytes.value()));
        }
        Ok(all)
    }

    /// The same of some runs.
    ///
    /// # Errors
    /// [`Cause::HostDisk`] if the index is damaged.
    pub(crate) fn load_some(&self, digests: &[&String]) -> Result<Vec<Loaded>> {
        let read = self.read()?;
        let Some(briefs) = table(&read, BRIEFS, &self.path)? else { return Ok(Vec::new()) };
        let mut loader = brief::Loader::default();
        let mut all = Vec::with_capacity(digests.len());
        for digest in digests {
            let bytes = briefs.get(digest.as_str()).map_err(|error| self.broken(error))?;
            all.extend(bytes.and_then(|bytes| loader.load(digest, bytes.value())));
        }
        Ok(all)
    }

    /// Everything that one run says.
    ///
    /// # Errors
    /// [`Cause::HostDisk`] if the index is damaged or does not know the run.
    pub(crate) fn facts(&self, digest: &str) -> Result<Facts> {
        let read = self.read()?;
        let facts = table(&read, FACTS, &self.path)?;
        let found = match &facts {
            Some(facts) => facts.get(digest).map_err(|error| self.broken(error))?,
            None => None,
        };
        let bytes = found.ok_or_else(|| self.garbled(digest))?;
        serde_json::from_slice(bytes.value()).map_err(|_| self.garbled(digest))
    }

    /// The tests of one statement of a run, with numbers for their names; empty if it had none.
    ///
    /// # Errors
    /// [`Cause::HostDisk`] if the index is damaged.
    pub(crate) fn tests(&self, digest: &str, number: u16) -> Result<Vec<TestRun>> {
        let read = self.read()?;
        let Some(all) = table(&read, TESTS, &self.path)? else { return Ok(Vec::new()) };
        let found = all.get(format!("{digest}/{number}").as_str()).map_err(|error| self.broken(error))?;
        Ok(found.map(|bytes| tests::decode(bytes.value())).unwrap_or_default())
    }

    /// The tests of one statement of a run that did not simply pass, with all that is shown of them.
    ///
    /// # Errors
    /// [`Cause::HostDisk`] if the index is damaged.
    pub(crate) fn listed(&self, digest: &str, number: u16) -> Result<Vec<TestRow>> {
        let read = self.read()?;
        let Some(all) = table(&read, LISTED, &self.path)? else { return Ok(Vec::new()) };
        let found = all.get(format!("{digest}/{number}").as_str()).map_err(|error| self.broken(error))?;
        let Some(bytes) = found else { return Ok(Vec::new()) };
        serde_json::from_slice(bytes.value()).map_err(|_| self.garbled(digest))
    }

    /// The name of a test by its number.
    ///
    /// # Errors
    /// [`Cause::HostDisk`] if the index is damaged.
    pub(crate) fn name(&self, number: u32) -> Result<String> {
        let read = self.read()?;
        let numbers = table(&read, NUMBERS, &self.path)?;
        let found = match &numbers {
            Some(numbers) => numbers.get(number).map_err(|error| self.broken(error))?,
            None => None,
        };
        Ok(found.map_or_else(|| format!("test {number}"), |name| name.value().to_owned()))
    }

    /// Adds runs, all of them or none.
    ///
    /// # Errors
    /// [`Cause::HostDisk`] if they cannot be written.
    pub(crate) fn add(&self, all: &[Facts]) -> Result<()> {
        self.write(|write| {
            let mut briefs = write.open_table(BRIEFS)?;
            let mut facts = write.open_table(FACTS)?;
            let mut test_runs = write.open_table(TESTS)?;
            let mut listed = write.open_table(LISTED)?;
            let mut names = write.open_table(NAMES)?;
            let mut numbers = write.open_table(NUMBERS)?;
            let mut known: HashMap<String, u32> = HashMap::new();
            let mut next = numbers.last()?.map_or(0, |(number, _)| number.value().saturating_add(1));
            for run in all {
                for (number, attempt) in run.attempts.iter().enumerate().filter(|(_, attempt)| !attempt.all.is_empty())
                {
                    let mut rows = Vec::with_capacity(attempt.all.len());
                    for test in &attempt.all {
                        let name = match known.get(&test.name) {
                            Some(number) => *number,
                            None => {
                                let found = names.get(test.name.as_str())?.map(|number| number.value());
                                let name = match found {
                                    Some(number) => number,
                                    None => {
                                        names.insert(test.name.as_str(), next)?;
                                        numbers.insert(next, test.name.as_str())?;
                                        next += 1;
                                        next - 1
                                    }
                                };
                                known.insert(test.name.clone(), name);
                                name
                            }
                        };
                        rows.push(TestRun::new(name, test));
                    }
                    test_runs.insert(format!("{}/{number}", run.digest).as_str(), tests::encode(&rows).as_slice())?;
                }
                for (number, attempt) in
                    run.attempts.iter().enumerate().filter(|(_, attempt)| !attempt.tests.is_empty())
                {
                    let bytes = serde_json::to_vec(&attempt.tests).unwrap_or_default();
                    listed.insert(format!("{}/{number}", run.digest).as_str(), bytes.as_slice())?;
                }
                let bytes = serde_json::to_vec(run).unwrap_or_default();
                facts.insert(run.digest.as_str(), bytes.as_slice())?;
                briefs.insert(run.digest.as_str(), brief::store(run).as_slice())?;
            }
            Ok(())
        })
    }

    /// Forgets runs whose bundles are gone.
    ///
    /// # Errors
    /// [`Cause::HostDisk`] if that cannot be written.
    pub(crate) fn forget(&self, digests: &[String]) -> Result<()> {
        if digests.is_empty() {
            return Ok(());
        }
        self.write(|write| {
            let mut briefs = write.open_table(BRIEFS)?;
            let mut facts = write.open_table(FACTS)?;
            let (mut tests, mut listed) = (write.open_table(TESTS)?, write.open_table(LISTED)?);
            for digest in digests {
                briefs.remove(digest.as_str())?;
                facts.remove(digest.as_str())?;
                for table in [&mut tests, &mut listed] {
                    let of_run = format!("{digest}/")..format!("{digest}0");
                    table.retain_in::<&str, _>(of_run.start.as_str()..of_run.end.as_str(), |_, _| false)?;
                }
            }
            Ok(())
        })
    }

    fn garbled(&self, digest: &str) -> Error {
        Error::new(Cause::HostDisk, format!("the index {} says nothing usable of {digest}", self.path.display()))
            .next("delete it: it is built again from the bundles")
    }
}

enum Opened {
    Good(Database),
    Damaged(DatabaseError),
    /// Another process has it.
    Busy,
}

/// Makes an empty index: whole, or not there at all.
fn make(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let cannot = || format!("cannot make the index {}", path.display());
    fs::create_dir_all(folder).cause(Cause::HostDisk, || format!("cannot create {}", folder.display()))?;
    let new = tempfile::Builder::new().prefix(".new-").tempfile_in(folder).cause(Cause::HostDisk, cannot)?;
    let new = new.into_temp_path();
    let database = Database::create(&new).cause(Cause::HostDisk, cannot)?;
    let index = Index { database, path: new.to_path_buf() };
    index.mark()?;
    drop(index);
    match new.persist_noclobber(path) {
        // Somebody else was faster: theirs is as good.
        Err(error) if error.error.kind() != std::io::ErrorKind::AlreadyExists => {
            Err(Error::from_source(Cause::HostDisk, cannot(), error.error))
        }
        _ => Ok(()),
    }
}

fn forget_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            let what = format!("cannot remove the outdated index {}", path.display());
            Err(Error::from_source(Cause::HostDisk, what, error))
        }
        _ => Ok(()),
    }
}

fn database(path: &Path, patience: Duration) -> Result<Opened> {
    let busy = Cell::new(false);
    let late = || {
        busy.set(true);
        Error::new(Cause::HostDisk, format!("another process has the index {}", path.display()))
    };
    let opened = retry::until(patience, late, || match Database::builder().set_cache_size(CACHE).create(path) {
        Ok(database) => Ok(Some(Opened::Good(database))),
        Err(DatabaseError::DatabaseAlreadyOpen) => Ok(None),
        Err(DatabaseError::Storage(StorageError::Io(error))) if error.kind() != std::io::ErrorKind::InvalidData => {
            Err(Error::from_source(Cause::HostDisk, format!("cannot open the index {}", path.display()), error))
        }
        Err(error) => Ok(Some(Opened::Damaged(error))),
    });
    if busy.get() { Ok(Opened::Busy) } else { opened }
}

/// redb's files begin with its name; of ours at least that much is left.
fn looks_like_ours(path: &Path) -> bool {
    let mut start = [0; 4];
    let read = fs::File::open(path).and_then(|mut file| std::io::Read::read_exact(&mut file, &mut start));
    read.is_ok() && start == *b"redb"
}

fn table<K: redb::Key + 'static, V: redb::Value + 'static>(
    read: &ReadTransaction,
    definition: TableDefinition<'_, K, V>,
    path: &Path,
) -> Result<Option<ReadOnlyTable<K, V>>> {
    match read.open_table(definition) {
        Ok(table) => Ok(Some(table)),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => {
            let what = format!("cannot use the index {}", path.display());
            Err(Error::from_source(Cause::HostDisk, what, error).next("delete it: it is built again from the bundles"))
        }
    }
}

/// What a bundle says, for the index.
///
/// # Errors
/// As [`crate::evidence::read`].
pub(crate) fn facts(closed: Closed) -> Result<Facts> {
    Ok(Facts::of(&crate::evidence::read(closed)?))
}
