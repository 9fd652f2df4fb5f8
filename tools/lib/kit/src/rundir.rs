//! The run directory: where records lie, how they are written and read.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
};

use serde::Serialize;

use crate::{
    Cause, Context, Error, Outcome, Result,
    arch::Platform,
    digest,
    record::{Baseline, Cleanup, Record, RunRecord, SCHEMA_VERSION},
};

/// A record larger than this is not one of ours.
const RECORD_LIMIT: u64 = 256 << 20;

/// A run's folder.
#[derive(Debug, Clone)]
pub struct RunDir {
    root: PathBuf,
    id: String,
}

/// An id for a run that begins now: sortable, and different on two machines.
#[must_use]
pub fn new_run_id() -> String {
    let now = jiff::Timestamp::now();
    let salt = format!("{}{:?}{now}", std::process::id(), std::thread::current().id());
    format!("{}-{}", now.strftime("%Y%m%d-%H%M%S"), &digest::hex(salt.as_bytes())[..6])
}

fn find_id(root: &Path) -> Result<String> {
    if root.join(RunRecord::FILE).exists() {
        return Ok(read_record::<RunRecord>(root)?.0.head.run);
    }
    let path = root.join("run-id");
    let name = root.canonicalize().ok().and_then(|path| Some(path.file_name()?.to_str()?.to_owned()));
    let fresh = name.filter(|name| is_run_id(name)).unwrap_or_else(new_run_id);
    match fs::File::create_new(&path) {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
            let text = String::from_utf8_lossy(&read_limited(&path, 200)?).trim().to_owned();
            let safe = !text.is_empty() && slug(&text) == text;
            if safe { Ok(text) } else { Err(Error::new(Cause::Usage, format!("{} holds no run id", path.display()))) }
        }
        Ok(mut file) => {
            // On a full disk it would be there and empty, which the next tool could make nothing of.
            if file.write_all(fresh.as_bytes()).is_err() {
                let _ = fs::remove_file(&path);
            }
            Ok(fresh)
        }
        // A folder that cannot be written to is only read; then no other tool has to find the same id.
        Err(_) => Ok(fresh),
    }
}

/// Whether a name has the form of [`new_run_id`].
#[must_use]
pub fn is_run_id(name: &str) -> bool {
    let lengths: Vec<_> = name.split('-').map(str::len).collect();
    lengths == [8, 6, 6] && name.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

impl RunDir {
    /// The folder `root`, which is created if it is missing.
    ///
    /// # Errors
    /// [`Cause::HostDisk`] if it cannot be, or cannot be written to, [`Cause::Usage`] if its id cannot be read.
    pub fn create(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        fs::create_dir_all(&root)
            .cause(Cause::HostDisk, || format!("cannot create run directory {}", root.display()))?;
        let run = Self { id: find_id(&root)?, root };
        run.writable()?;
        Ok(run)
    }

    /// Refuses a folder that is read-only or full, before hours are spent on what could not be kept.
    ///
    /// # Errors
    /// [`Cause::HostDisk`] naming the folder.
    pub fn writable(&self) -> Result<()> {
        let file = tempfile::Builder::new().prefix(".new-").tempfile_in(&self.root);
        // Not empty: a full disk takes names.
        let written = file.and_then(|mut file| {
            file.write_all(&[b' '; 4096])?;
            file.as_file().sync_data()
        });
        written.cause(Cause::HostDisk, || format!("cannot write to run directory {}", self.root.display()))
    }

    /// The folder `root`, which must exist.
    ///
    /// # Errors
    /// [`Cause::Usage`] if it does not, or if its id cannot be read.
    pub fn open(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        if !root.is_dir() {
            return Err(Error::new(Cause::Usage, format!("there is no run directory {}", root.display()))
                .next("see target/runs for those of this workspace"));
        }
        Ok(Self { id: find_id(&root)?, root })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// The run's id: what `run.json` says, otherwise the file `run-id`, which whoever comes first makes. It is not the
    /// folder's name, which is the same for every run in a Tekton workspace.
    #[must_use]
    pub fn id(&self) -> String {
        self.id.clone()
    }

    /// Folder of a component: `images.json`, `release.yaml`.
    #[must_use]
    pub fn component(&self, component: &str) -> PathBuf {
        self.root.join(component)
    }

    /// Folder of a component on a platform of a cluster: `install.json`, `results.json`, …
    #[must_use]
    pub fn cell(&self, component: &str, platform: &Platform, cluster: &str) -> PathBuf {
        self.component(component).join(platform.dir()).join(slug(cluster))
    }

    /// Every folder where a [`Self::cell`] lies.
    #[must_use]
    pub fn cells(&self) -> Vec<PathBuf> {
        let below = |all: &[PathBuf]| -> Vec<PathBuf> { all.iter().flat_map(|folder| folders(folder)).collect() };
        below(&below(&folders(&self.root)))
    }

    /// The cells whose cluster is not known to be back at the baseline that was taken of it.
    #[must_use]
    pub fn unclean(&self) -> Vec<PathBuf> {
        fn good<R: Record>(cell: &Path) -> bool {
            read_record::<R>(cell).is_ok_and(|(record, _)| record.head().outcome == Outcome::Passed)
        }
        self.cells().into_iter().filter(|cell| good::<Baseline>(cell) && !good::<Cleanup>(cell)).collect()
    }
}

fn folders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.is_dir()).collect()
}

/// A name as a folder's name: safe characters as they are; a name that had to be changed gets six digits of its
/// digest, so that two names never share a folder.
#[must_use]
pub fn slug(name: &str) -> String {
    let safe = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '-' };
    let slug: String = name.chars().map(safe).take(80).collect();
    if slug == name && !slug.is_empty() && !slug.starts_with('.') {
        return slug;
    }
    format!("{}-{}", slug.trim_start_matches(['.', '-']), &digest::hex(name.as_bytes())[..6])
}

/// Writes a record to `folder`, atomically, and returns the digest of its bytes.
///
/// # Errors
/// [`Cause::HostDisk`], naming the file; the earlier file stays as it was.
pub fn write_record<R: Record>(folder: &Path, record: &R) -> Result<String> {
    write_json(&folder.join(R::FILE), record)
}

/// Writes any value as JSON, atomically, and returns the digest of its bytes.
///
/// # Errors
/// [`Cause::HostDisk`], naming the file; the earlier file stays as it was.
pub fn write_json(path: &Path, value: &impl Serialize) -> Result<String> {
    write_with(path, |out| {
        let written = serde_json::to_writer_pretty(&mut *out, value);
        let full = written.as_ref().is_err_and(serde_json::Error::is_io);
        let cause = if full { Cause::HostDisk } else { Cause::Internal };
        written.cause(cause, || "it cannot be put into JSON")?;
        out.write_all(b"\n").cause(Cause::HostDisk, || "it cannot be written")
    })
}

/// Writes a file of any size atomically, piece by piece, and returns the digest of its bytes.
///
/// # Errors
/// What `fill` returns, or [`Cause::HostDisk`], naming the file; the earlier file stays as it was.
pub fn write_with(path: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<String> {
    stage_with(path, fill)?.keep()
}

/// Writes a file atomically (temporary file in the same folder, synced, then renamed), creating the
/// folder, and returns the digest of its bytes.
///
/// # Errors
/// [`Cause::HostDisk`], naming the file; the earlier file stays as it was.
pub fn write(path: &Path, bytes: &[u8]) -> Result<String> {
    stage(path, bytes)?.keep()
}

/// A file that is written, but not yet to be found under its name. Dropped, it goes away again.
#[derive(Debug)]
pub struct Staged {
    file: tempfile::NamedTempFile,
    path: PathBuf,
    digest: String,
}

impl Staged {
    /// Gives it its name, atomically, and returns the digest of its bytes.
    ///
    /// # Errors
    /// [`Cause::HostDisk`], naming the file; the earlier file stays as it was.
    pub fn keep(self) -> Result<String> {
        let kept = self.file.persist(&self.path).map_err(|error| error.error);
        kept.cause(Cause::HostDisk, || format!("cannot write {}", self.path.display()))?;
        Ok(self.digest)
    }
}

/// The first half of [`write()`]: all that may well fail, before something else is done that the file is about.
///
/// # Errors
/// [`Cause::HostDisk`], naming the file; the earlier file stays as it was.
pub fn stage(path: &Path, bytes: &[u8]) -> Result<Staged> {
    stage_with(path, |out| out.write_all(bytes).cause(Cause::HostDisk, || "it cannot be written"))
}

/// As [`stage`], for content that `fill` writes piece by piece: a large text never lies in memory as a whole.
///
/// # Errors
/// As [`stage`], and what `fill` returns.
pub fn stage_with(path: &Path, fill: impl FnOnce(&mut dyn Write) -> Result<()>) -> Result<Staged> {
    let failed = || format!("cannot write {}", path.display());
    let file = temporary(path).cause(Cause::HostDisk, failed)?;
    let mut out = std::io::BufWriter::with_capacity(64 << 10, digest::Hashing::new(file));
    fill(&mut out).map_err(|error| error.within(failed()))?;
    let hashing = out.into_inner().map_err(std::io::IntoInnerError::into_error).cause(Cause::HostDisk, failed)?;
    let (file, digits, _) = hashing.finish();
    file.as_file().sync_all().cause(Cause::HostDisk, failed)?;
    Ok(Staged { file, path: path.to_owned(), digest: format!("sha256:{digits}") })
}

/// An empty file beside `path`, whose folder is created.
fn temporary(path: &Path) -> std::io::Result<tempfile::NamedTempFile> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if fs::symlink_metadata(path).is_ok_and(|data| data.is_dir()) {
        return Err(std::io::ErrorKind::IsADirectory.into());
    }
    fs::create_dir_all(folder)?;
    let file = tempfile::Builder::new().prefix(".new-").tempfile_in(folder)?;
    // tempfile makes files private; records are for everyone who may read the folder.
    file.as_file().set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644))?;
    Ok(file)
}

/// Reads the record of type `R` in `folder`, with the digest of its bytes.
///
/// # Errors
/// [`Cause::Usage`], naming the file, if it is missing, is no such record, or is of a newer major version.
pub fn read_record<R: Record>(folder: &Path) -> Result<(R, String)> {
    read_json(&folder.join(R::FILE))
}

/// As [`read_record`], for a file by its path.
///
/// # Errors
/// As [`read_record`].
pub fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<(T, String)> {
    let bytes = read_limited(path, RECORD_LIMIT)?;
    let value = parse(&bytes, &path.display().to_string())?;
    Ok((value, digest::sha256(&bytes)))
}

/// Reads a record's bytes; `name` stands for them in errors.
///
/// # Errors
/// As [`read_record`].
pub fn parse<T: serde::de::DeserializeOwned>(bytes: &[u8], name: &str) -> Result<T> {
    check_version(bytes).map_err(|error| error.within(format!("cannot use {name}")))?;
    serde_json::from_slice(bytes).cause(Cause::Usage, || format!("{name} is not such a record"))
}

/// Reads a file that must not be larger than `limit` bytes.
///
/// # Errors
/// [`Cause::Usage`] naming the file.
pub fn read_limited(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = fs::File::open(path).and_then(|file| file.take(limit + 1).read_to_end(&mut bytes));
    read.cause(Cause::Usage, || format!("cannot read {}", path.display()))?;
    if bytes.len() as u64 > limit {
        return Err(Error::new(Cause::Usage, format!("{} is larger than {limit} bytes", path.display())));
    }
    Ok(bytes)
}

fn check_version(bytes: &[u8]) -> Result<()> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Versioned {
        schema_version: String,
    }
    let Versioned { schema_version: found } =
        serde_json::from_slice(bytes).cause(Cause::Usage, || "it has no schemaVersion")?;
    let major = |version: &str| version.split('.').next().and_then(|major| major.parse::<u32>().ok());
    match (major(&found), major(SCHEMA_VERSION)) {
        (Some(theirs), Some(ours)) if theirs <= ours => Ok(()),
        (Some(_), _) => {
            Err(Error::new(Cause::Usage, format!("its schema {found} is newer than ours, {SCHEMA_VERSION}"))
                .next("use the version of other-arch that wrote it, or a newer one"))
        }
        (None, _) => Err(Error::new(Cause::Usage, format!("'{found}' is not a schema version"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Head, Stages};

    fn stages() -> Stages {
        Stages { head: Head::new("test", "0.1.0", "run", jiff::Timestamp::now()), stages: vec![] }
    }

    #[test]
    fn a_record_survives_a_round_trip_and_leaves_no_temporary_file() {
        let folder = tempfile::tempdir().unwrap();
        let written = write_record(folder.path(), &stages()).unwrap();
        let (read, digest) = read_record::<Stages>(folder.path()).unwrap();
        assert_eq!(written, digest);
        assert_eq!(read.head.run, "run");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_newer_major_version_is_refused_and_a_newer_minor_one_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let mut record = stages();
        for (version, good) in [("1.9", true), ("2.0", false), ("x", false), ("0.9", true)] {
            record.head.schema_version = version.into();
            write_record(folder.path(), &record).unwrap();
            let read = read_record::<Stages>(folder.path());
            assert_eq!(read.is_ok(), good, "{version}: {read:?}");
            if let Err(error) = read {
                assert_eq!(error.cause, Cause::Usage);
                assert!(error.to_string().contains("stages.json"), "{error}");
            }
        }
    }

    #[test]
    fn a_run_keeps_its_id_wherever_its_folder_lies() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path().join("workspace")).unwrap();
        assert!(is_run_id(&run.id()));
        assert_eq!(RunDir::open(run.path()).unwrap().id(), run.id());
        let named = RunDir::create(folder.path().join("20261123-094113-5801e3")).unwrap();
        assert_eq!(named.id(), "20261123-094113-5801e3");
        fs::write(run.path().join("run-id"), "../x").unwrap();
        assert_eq!(RunDir::open(run.path()).unwrap_err().cause, Cause::Usage);
    }

    #[test]
    fn what_is_written_in_pieces_is_whole_or_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("deep/x.xml");
        let digest =
            write_with(&path, |out| out.write_all(b"ab").and(out.write_all(b"c")).cause(Cause::HostDisk, || ""));
        assert_eq!((fs::read(&path).unwrap(), digest.unwrap()), (b"abc".to_vec(), digest::sha256(b"abc")));
        let error = write_with(&path, |out| {
            out.write_all(b"half").cause(Cause::HostDisk, || "")?;
            Err(Error::new(Cause::Internal, "no more"))
        });
        assert!(error.unwrap_err().to_string().contains("x.xml: no more"));
        assert_eq!(fs::read(&path).unwrap(), b"abc");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn damage_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let missing = read_record::<Stages>(folder.path()).unwrap_err();
        assert!(missing.to_string().contains("stages.json"), "{missing}");
        fs::write(folder.path().join("stages.json"), "{\"schemaVersion\":\"1.0\", \"tool\":").unwrap();
        assert!(read_record::<Stages>(folder.path()).is_err());
    }

    #[test]
    fn a_hostile_name_stays_inside() {
        assert_eq!(slug("lab-default"), "lab-default");
        assert!(
            slug("../../etc").starts_with("-..-etc-") || slug("../../etc").starts_with("etc-"),
            "{}",
            slug("../../etc")
        );
        assert_ne!(slug("arn:aws:eks/x"), slug("arn:aws:eks:x"));
        assert!(!slug("").is_empty() && !slug("..").contains(".."));
    }
}
