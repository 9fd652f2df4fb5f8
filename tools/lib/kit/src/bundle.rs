//! Closed runs. A run directory is sealed by `bundle.json`, the list of its files with size and digest; the
//! digest of that list names the bundle. A history is a folder of bundles, each complete or not there at all.
//!
//! Nothing in a bundle is believed before its digest is checked, and nothing outside the list is read.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use sha2::{Digest, Sha256};

use crate::{
    Cause, Context, Error, Result, RunDir, Within,
    digest::{self, to_hex},
    record::{Bundle, BundleFile, SCHEMA_VERSION},
    rundir, signal,
    ui::is_hostile,
};

/// The list's name in the folder that it seals.
pub const FILE: &str = "bundle.json";

/// More files than this are no run of ours.
const MAX_FILES: usize = 100_000;
/// Bytes of one file.
const MAX_FILE: u64 = 1 << 30;
/// Bytes of all files.
const MAX_TOTAL: u64 = 4 << 30;
/// Folders below each other.
const MAX_DEPTH: usize = 16;
/// Bytes of the list.
const MAX_LIST: u64 = 64 << 20;
/// Bytes of a path: with the folder of any history before it, systems still take it.
const MAX_PATH: usize = 1_000;
/// Beside the list where logs were removed on purpose. It is not part of the bundle.
const SHED: &str = ".logs-removed";
/// What is unfinished begins with this; readers do not see it.
const UNFINISHED: &str = ".new-";
/// After this time an unfinished bundle belongs to a writer that was killed.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

/// A sealed run: in its run directory, or in a history.
#[derive(Debug, Clone)]
pub struct Closed {
    folder: PathBuf,
    digest: String,
    bundle: Bundle,
}

/// Seals `run`: writes its `bundle.json` anew. The same files give the same digest.
///
/// # Errors
/// [`Cause::Usage`], naming the file, for what a bundle cannot hold (symbolic links, devices, names that are not
/// text or would drive a terminal, too much of it); [`Cause::HostDisk`] if the list cannot be written.
pub fn seal(run: &RunDir) -> Result<Closed> {
    let mut files = Vec::new();
    let mut total = 0;
    collect(run.path(), "", 0, &mut files, &mut total)
        .within(|| format!("cannot close run {}", run.path().display()))?;
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let bundle = Bundle { schema_version: SCHEMA_VERSION.into(), run: run.id(), files };
    let digest = rundir::write_json(&run.path().join(FILE), &bundle)?;
    Ok(Closed { folder: run.path().to_path_buf(), digest, bundle })
}

impl Closed {
    /// The bundle in `folder`, whose name must be its digest. Only the list is checked here: each file is when it is
    /// read, all of them by [`Closed::verify`].
    ///
    /// # Errors
    /// [`Cause::Usage`], naming the folder, if it is none, is damaged, or is of a newer schema.
    pub fn open(folder: &Path) -> Result<Self> {
        let within = || format!("cannot use bundle {}", folder.display());
        let bytes = read_list(folder).within(within)?;
        let digest = digest::sha256(&bytes);
        if folder.file_name().is_none_or(|name| *name != *folder_name(&digest)) {
            let found = Error::new(Cause::Usage, format!("damaged: {FILE} has the digest {digest}"));
            return Err(found.within(within()));
        }
        let bundle: Bundle = rundir::parse(&bytes, FILE).within(within)?;
        check_list(&bundle.files).within(within)?;
        Ok(Self { folder: folder.to_path_buf(), digest, bundle })
    }

    /// `sha256:…` of its list: the name of this evidence.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The run's id.
    #[must_use]
    pub fn run(&self) -> &str {
        &self.bundle.run
    }

    /// Where it lies.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its files, sorted by path.
    #[must_use]
    pub fn files(&self) -> &[BundleFile] {
        &self.bundle.files
    }

    /// The file at `path`, if the list has it.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<&BundleFile> {
        let found = self.bundle.files.binary_search_by(|file| file.path.as_str().cmp(path));
        found.ok().map(|index| &self.bundle.files[index])
    }

    /// The bytes of `path`, checked against the list; a file of more than `limit` bytes is refused unread.
    ///
    /// # Errors
    /// [`Cause::Usage`], naming the file, if it is not in the list, too large, or not what the list says.
    pub fn read(&self, path: &str, limit: u64) -> Result<Vec<u8>> {
        let file =
            self.file(path).ok_or_else(|| Error::new(Cause::Usage, format!("bundle {} has no {path}", self.digest)))?;
        if file.size > limit {
            return Err(Error::new(Cause::Usage, format!("{path} has {} bytes, more than {limit}", file.size)));
        }
        let mut bytes = Vec::new();
        self.copy(file, &mut bytes)?;
        Ok(bytes)
    }

    /// Checks every file.
    ///
    /// # Errors
    /// As [`Closed::read`], for the first that is not what the list says.
    pub fn verify(&self) -> Result<()> {
        let shed = self.is_shed();
        let gone = |file: &&BundleFile| shed && is_log(&file.path) && !self.folder.join(&file.path).exists();
        self.files().iter().filter(|file| !gone(file)).try_for_each(|file| self.copy(file, &mut io::sink()))
    }

    /// Says that logs are missing on purpose.
    ///
    /// # Errors
    /// [`Cause::HostDisk`] if that cannot be written.
    pub fn mark_shed(&self) -> Result<()> {
        rundir::write(&self.folder.join(SHED), b"the logs were removed: see [retention] in ci/policy.toml\n").map(drop)
    }

    /// Whether its logs were removed ([`History::shed_logs`]).
    #[must_use]
    pub fn is_shed(&self) -> bool {
        self.folder.join(SHED).is_file()
    }

    fn copy(&self, file: &BundleFile, to: &mut impl Write) -> Result<()> {
        signal::check()?;
        let path = self.folder.join(&file.path);
        let (size, digest) = open_plain(&path).and_then(|from| copy_hashing(from, to, file.size)).map_err(|error| {
            match error.kind() {
                // Writing is to the caller's file; what cannot be read is the bundle's fault.
                io::ErrorKind::StorageFull | io::ErrorKind::FileTooLarge | io::ErrorKind::QuotaExceeded => {
                    Error::from_source(Cause::HostDisk, format!("cannot copy {}", file.path), error)
                }
                _ => Error::from_source(Cause::Usage, format!("cannot read {}", path.display()), error),
            }
        })?;
        if (size, digest.as_str()) != (file.size, file.digest.as_str()) {
            return Err(Error::new(Cause::Usage, format!("damaged: {} is not what {FILE} says", path.display()))
                .line(format!("listed {} bytes, {}; found {size} bytes or more, {digest}", file.size, file.digest)));
        }
        Ok(())
    }
}

/// A folder of bundles.
#[derive(Debug, Clone)]
pub struct History {
    folder: PathBuf,
}

/// What [`History::store`] did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The bundle's folder.
    pub folder: PathBuf,
    /// False if it was there already.
    pub new: bool,
}

impl History {
    /// The history `folder`, which must exist.
    ///
    /// # Errors
    /// [`Cause::Usage`] if it does not.
    pub fn open(folder: impl Into<PathBuf>) -> Result<Self> {
        let folder = folder.into();
        if folder.is_dir() {
            return Ok(Self { folder });
        }
        Err(Error::new(Cause::Usage, format!("there is no history {}", folder.display())))
    }

    /// The history `folder`, created if it is missing.
    ///
    /// # Errors
    /// [`Cause::HostDisk`] if it cannot be.
    pub fn create(folder: impl Into<PathBuf>) -> Result<Self> {
        let folder = folder.into();
        fs::create_dir_all(&folder).cause(Cause::HostDisk, || format!("cannot create {}", folder.display()))?;
        Ok(Self { folder })
    }

    /// Where it lies.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Copies `closed` into the history: a temporary folder, renamed when all is there. Doing it twice changes
    /// nothing, two who do it at once cannot disturb each other, and a damaged copy is replaced.
    ///
    /// # Errors
    /// [`Cause::Usage`] if the run changed since it was sealed, [`Cause::HostDisk`] if it cannot be written. The
    /// history is then as before.
    pub fn store(&self, closed: &Closed) -> Result<Stored> {
        let folder = self.folder.join(folder_name(&closed.digest));
        if is_whole(&folder) {
            return Ok(Stored { folder, new: false });
        }
        let within = || format!("cannot store run {} in {}", closed.run(), self.folder.display());
        let new = self.unfinished().within(within)?;
        fill(new.path(), closed).within(within)?;
        match fs::rename(new.path(), &folder) {
            Ok(()) => {
                // It is no temporary folder any more.
                let _ = new.keep();
                Ok(Stored { folder, new: true })
            }
            // Another writer was faster with the same content.
            Err(_) if is_whole(&folder) => Ok(Stored { folder, new: false }),
            Err(_) if folder.exists() => {
                // It is damaged: exchanged in one step, and gone with the temporary folder.
                let exchanged = renameat_with(CWD, new.path(), CWD, &folder, RenameFlags::EXCHANGE);
                exchanged.cause(Cause::HostDisk, || format!("cannot replace {}", folder.display())).within(within)?;
                Ok(Stored { folder, new: true })
            }
            Err(error) => Err(Error::from_source(Cause::HostDisk, "cannot rename it into place", error)).within(within),
        }
    }

    /// Every bundle, opened or with the reason why it cannot be, in the order of their names.
    ///
    /// # Errors
    /// [`Cause::HostDisk`] if the folder cannot be read.
    pub fn bundles(&self) -> Result<Vec<Result<Closed>>> {
        let read = || -> io::Result<Vec<PathBuf>> {
            fs::read_dir(&self.folder)?.map(|entry| entry.map(|entry| entry.path())).collect()
        };
        let mut folders = read().cause(Cause::HostDisk, || format!("cannot read {}", self.folder.display()))?;
        folders.retain(|folder| folder.file_name().and_then(|name| name.to_str()).is_some_and(is_folder_name));
        folders.sort();
        Ok(folders.iter().map(|folder| Closed::open(folder)).collect())
    }

    /// The digests of all bundles, by the names of their folders alone, sorted. What killed writers left behind long ago
    /// is removed on the way: not when something is stored, which would take longer the more there is.
    ///
    /// # Errors
    /// [`Cause::HostDisk`] if the folder cannot be read.
    pub fn digests(&self) -> Result<Vec<String>> {
        let read = || -> io::Result<Vec<String>> {
            fs::read_dir(&self.folder)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
        };
        let mut names = read().cause(Cause::HostDisk, || format!("cannot read {}", self.folder.display()))?;
        if names.iter().any(|name| name.starts_with(UNFINISHED)) {
            self.sweep();
        }
        names.retain(|name| is_folder_name(name));
        names.sort_unstable();
        names.iter_mut().for_each(|name| name.replace_range(6..7, ":"));
        Ok(names)
    }

    /// The bundle with this digest.
    ///
    /// # Errors
    /// As [`Closed::open`], also if there is none.
    pub fn bundle(&self, digest: &str) -> Result<Closed> {
        Closed::open(&self.folder.join(folder_name(digest)))
    }

    /// A folder for a bundle that comes from elsewhere: in this history, so that it has the space, and seen by no
    /// reader.
    ///
    /// # Errors
    /// [`Cause::HostDisk`] if it cannot be made.
    pub fn arriving(&self) -> Result<tempfile::TempDir> {
        self.unfinished()
    }

    /// Removes a bundle: out of sight in one step, then for good.
    ///
    /// # Errors
    /// [`Cause::HostDisk`]; it is then there as before, or gone and its space is not free yet.
    pub fn remove(&self, digest: &str) -> Result<()> {
        let folder = self.folder.join(folder_name(digest));
        let away = self.unfinished()?;
        let moved = fs::rename(&folder, away.path().join("removed"));
        moved.cause(Cause::HostDisk, || format!("cannot remove {}", folder.display()))?;
        away.close().cause(Cause::HostDisk, || format!("cannot remove all of {}", folder.display()))
    }

    /// Removes the logs of a bundle, and says how many bytes that were. What is left is marked, so that nobody takes
    /// it for damage; its digest stays, and so does every record.
    ///
    /// # Errors
    /// [`Cause::HostDisk`]; doing it again goes on.
    pub fn shed_logs(&self, closed: &Closed) -> Result<u64> {
        closed.mark_shed()?;
        let mut bytes = 0;
        for file in closed.files().iter().filter(|file| is_log(&file.path)) {
            let path = closed.folder.join(&file.path);
            match fs::remove_file(&path) {
                Ok(()) => bytes += file.size,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    return Err(Error::from_source(
                        Cause::HostDisk,
                        format!("cannot remove {}", path.display()),
                        error,
                    ));
                }
            }
        }
        Ok(bytes)
    }

    fn unfinished(&self) -> Result<tempfile::TempDir> {
        let made = tempfile::Builder::new().prefix(UNFINISHED).tempdir_in(&self.folder);
        made.cause(Cause::HostDisk, || format!("cannot create a folder in {}", self.folder.display()))
    }

    /// Removes what killed writers left behind. A failure only leaves it there for the next one.
    fn sweep(&self) {
        let old = |entry: &fs::DirEntry| {
            // The name first: a look at each of many bundles would take longer than storing one.
            if !entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                return false;
            }
            let age = |changed| SystemTime::now().duration_since(changed).ok();
            let changed = entry.metadata().and_then(|metadata| metadata.modified()).ok();
            changed.and_then(age).is_some_and(|age| age > ABANDONED)
        };
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten().filter(old) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// A digest as a folder's name: without the colon, which other systems do not allow.
fn folder_name(digest: &str) -> String {
    digest.replace(':', "-")
}

fn is_folder_name(name: &str) -> bool {
    let digits = |text: &str| text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    name.strip_prefix("sha256-").is_some_and(digits)
}

/// Whether a path in a bundle is a log: what goes first when space is short.
#[must_use]
pub fn is_log(path: &str) -> bool {
    let folders = path.rsplit_once('/').map_or("", |(folders, _)| folders);
    folders.split('/').any(|folder| folder == "logs")
}

fn is_whole(folder: &Path) -> bool {
    Closed::open(folder).and_then(|closed| closed.verify()).is_ok()
}

fn read_list(folder: &Path) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = open_plain(&folder.join(FILE)).and_then(|file| file.take(MAX_LIST + 1).read_to_end(&mut bytes));
    read.cause(Cause::Usage, || format!("cannot read {FILE}"))?;
    if bytes.len() as u64 > MAX_LIST {
        return Err(Error::new(Cause::Usage, format!("{FILE} is larger than {MAX_LIST} bytes")));
    }
    Ok(bytes)
}

fn fill(folder: &Path, closed: &Closed) -> Result<()> {
    let shed = closed.is_shed();
    if shed {
        Closed { folder: folder.to_path_buf(), ..closed.clone() }.mark_shed()?;
    }
    for file in closed.files() {
        if shed && is_log(&file.path) && !closed.folder.join(&file.path).exists() {
            continue;
        }
        let path = folder.join(&file.path);
        let create = || -> io::Result<File> {
            fs::create_dir_all(path.parent().unwrap_or(folder))?;
            File::create_new(&path)
        };
        let mut copy = create().cause(Cause::HostDisk, || format!("cannot write {}", path.display()))?;
        let copied = closed.copy(file, &mut copy);
        copied.map_err(|error| {
            let next = "close the run again when nothing writes to it any more";
            if error.cause == Cause::Usage { error.next(next) } else { error }
        })?;
        let protect = copy.set_permissions(fs::Permissions::from_mode(0o444));
        protect.cause(Cause::HostDisk, || format!("cannot protect {}", path.display()))?;
    }
    let list = folder.join(FILE);
    // Its very bytes: another version of this program may have written them.
    let bytes = read_list(&closed.folder)?;
    if rundir::write(&list, &bytes)? != closed.digest {
        return Err(Error::new(Cause::Usage, format!("{FILE} changed while it was copied")));
    }
    let protect = fs::set_permissions(&list, fs::Permissions::from_mode(0o444))
        .and_then(|()| fs::set_permissions(folder, fs::Permissions::from_mode(0o755)));
    protect.cause(Cause::HostDisk, || format!("cannot protect {}", folder.display()))
}

fn collect(folder: &Path, prefix: &str, depth: usize, files: &mut Vec<BundleFile>, total: &mut u64) -> Result<()> {
    signal::check()?;
    let refuse = |path: &str, why: &str| Err(Error::new(Cause::Usage, format!("{path}: {why}")));
    if depth > MAX_DEPTH {
        return refuse(prefix, "more folders below each other than a run has");
    }
    let entries = fs::read_dir(folder).cause(Cause::Usage, || format!("cannot read {}", folder.display()))?;
    for entry in entries {
        let entry = entry.cause(Cause::Usage, || format!("cannot read {}", folder.display()))?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| is_plain_name(name)) else {
            return refuse(&format!("{prefix}{}", name.to_string_lossy()), "not a name that a bundle can hold");
        };
        // A writer that was killed left this; it was never part of the run. Nor are the list and our mark.
        if name.starts_with(UNFINISHED) || (depth == 0 && is_ours(name)) {
            continue;
        }
        let path = format!("{prefix}{name}");
        if path.len() > MAX_PATH {
            return refuse(&path, "a longer path than a bundle can hold");
        }
        let kind = entry.file_type().cause(Cause::Usage, || format!("cannot read {path}"))?;
        if kind.is_dir() {
            collect(&entry.path(), &format!("{path}/"), depth + 1, files, total)?;
        } else if kind.is_file() {
            let file = open_plain(&entry.path()).and_then(|file| copy_hashing(file, &mut io::sink(), MAX_FILE));
            let (size, digest) = file.cause(Cause::Usage, || format!("cannot read {path}"))?;
            *total += size;
            if size > MAX_FILE || *total > MAX_TOTAL || files.len() == MAX_FILES {
                return refuse(&path, "larger than the files of a run are");
            }
            files.push(BundleFile { path, size, digest });
        } else {
            return refuse(&path, "a symbolic link or device, which a bundle cannot hold");
        }
    }
    Ok(())
}

/// What lies beside a bundle's files and is none of them.
fn is_ours(name: &str) -> bool {
    name == FILE || name == SHED
}

/// Refuses a list that was not written by [`seal`]: paths that lead outside, that cannot be written side by side or have
/// names of ours, twice the same, too much.
fn check_list(files: &[BundleFile]) -> Result<()> {
    let refuse = |why: String| Err(Error::new(Cause::Usage, format!("{FILE}: {why}")));
    if files.len() > MAX_FILES {
        return refuse(format!("lists {} files", files.len()));
    }
    let is_path = |path: &str| {
        path.len() <= MAX_PATH
            && path.split('/').all(|name| is_plain_name(name) && !name.starts_with(UNFINISHED))
            && path.split('/').count() <= MAX_DEPTH + 1
            && !path.split('/').next().is_some_and(is_ours)
    };
    if let Some(file) = files.iter().find(|file| !is_path(&file.path)) {
        return refuse(format!("'{}' is no path inside a run", file.path));
    }
    if let Some(pair) = files.windows(2).find(|pair| pair[0].path >= pair[1].path) {
        return refuse(format!("'{}' is out of order", pair[1].path));
    }
    let is_file = |path: &str| files.binary_search_by(|file| file.path.as_str().cmp(path)).is_ok();
    let below_a_file = |file: &&BundleFile| file.path.match_indices('/').any(|(end, _)| is_file(&file.path[..end]));
    if let Some(file) = files.iter().find(below_a_file) {
        return refuse(format!("'{}' lies below a file", file.path));
    }
    let sizes = files.iter().try_fold(0_u64, |total, file| total.checked_add(file.size).filter(|t| *t <= MAX_TOTAL));
    if sizes.is_none() { refuse("lists more bytes than a run has".into()) } else { Ok(()) }
}

fn is_plain_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..")
        && name.len() <= 255
        && !name.chars().any(|c| c == '/' || c == '\n' || c == '\t' || is_hostile(c))
}

/// Opens a regular file and nothing else: no link is followed, and a pipe does not hold us.
fn open_plain(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = File::options().read(true).custom_flags(flags.bits().cast_signed()).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
}

/// Copies at most one byte more than `limit`; returns how many bytes that were, and their digest.
fn copy_hashing(from: File, to: &mut impl Write, limit: u64) -> io::Result<(u64, String)> {
    let mut from = from.take(limit.saturating_add(1));
    let (mut hasher, mut size, mut buffer) = (Sha256::new(), 0, vec![0; 1 << 16]);
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok((size, format!("sha256:{}", to_hex(&hasher.finalize())))),
            Ok(n) => {
                hasher.update(&buffer[..n]);
                to.write_all(&buffer[..n])?;
                size += n as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
