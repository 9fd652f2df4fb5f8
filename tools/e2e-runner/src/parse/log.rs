//! A log of bounded size: its beginning and its end are kept, what lies between is left out.
//!
//! A log that stays small never touches the disk before it ends, so thousands of passing tests cost
//! nothing. While a test runs, the end is a ring in the file itself: memory does not grow with output,
//! and all logs that wait in memory share one allowance.

use std::{
    borrow::Cow,
    cell::Cell,
    fs::{self, File},
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};

use kit::{Cause, Context, Result, digest, rundir::slug};

/// How much of a log's beginning is kept.
pub const HEAD: u64 = 256 << 10;
/// How much of its end is kept.
pub const TAIL: u64 = 256 << 10;
/// What all logs of a run may take together before they are kept short.
const ALL: u64 = 256 << 20;
/// And those that are short; beyond that none is kept.
const RESERVE: u64 = 32 << 20;
/// How much is kept of beginning and end of a short one.
const SHORT: u64 = 4 << 10;
/// How much of a log waits in memory.
const BUFFER: usize = 64 << 10;
/// How much of it where many logs wait.
const SMALL: usize = 4 << 10;
/// How much waits in memory before logs are kept small.
const MEMORY: usize = 8 << 20;

/// What the logs of a run take on the disk, all together.
#[derive(Debug)]
pub struct Allowance {
    limit: u64,
    reserve: u64,
    used: AtomicU64,
    short: AtomicUsize,
    gone: AtomicUsize,
}

impl Default for Allowance {
    fn default() -> Self {
        Self::of(ALL, RESERVE)
    }
}

impl Allowance {
    fn of(limit: u64, reserve: u64) -> Self {
        let (used, short, gone) = (AtomicU64::new(0), AtomicUsize::new(0), AtomicUsize::new(0));
        Self { limit, reserve, used, short, gone }
    }

    fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// What is not there because there was more than that, in words.
    #[must_use]
    pub fn cut(&self) -> Option<String> {
        let (short, gone) = (self.short.load(Ordering::Relaxed), self.gone.load(Ordering::Relaxed));
        let kept = (2 * SHORT) >> 10;
        let most = self.limit >> 20;
        let said = format!("{short} were cut to {kept} KiB each, and {gone} are not kept: more than {most} MiB in all");
        (short + gone > 0).then(|| format!("logs of tests: {said}"))
    }
}

/// Where logs go.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    head: u64,
    tail: u64,
    allowance: Arc<Allowance>,
    /// Bytes that wait in memory, of all logs.
    waiting: Cell<usize>,
}

/// A log that is being written.
#[derive(Debug)]
pub struct Log {
    name: String,
    buffer: Vec<u8>,
    written: u64,
    /// How much of its beginning and of its end is kept.
    bounds: (u64, u64),
    file: Option<PathBuf>,
}

impl Log {
    /// Bytes of it on the disk.
    fn kept(&self) -> u64 {
        self.written.min(self.bounds.0 + self.bounds.1)
    }

    /// The end of it that was not written yet.
    #[must_use]
    pub fn in_memory(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.buffer)
    }

    /// The last line that a test wrote itself (`file.go:12: why`), if it is still in memory.
    #[must_use]
    pub fn last_words(&self) -> Option<String> {
        let text = self.in_memory();
        let line = text.lines().rev().find_map(crate::cause::own_words)?;
        Some(line.chars().take(500).collect())
    }
}

impl Folder {
    /// Logs in `path`, which is created when the first one is written.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), head: HEAD, tail: TAIL, allowance: Arc::default(), waiting: Cell::new(0) }
    }

    /// The same for logs that share an allowance with others.
    #[must_use]
    pub fn within(self, allowance: &Arc<Allowance>) -> Self {
        Self { allowance: Arc::clone(allowance), ..self }
    }

    /// What its logs take of.
    #[must_use]
    pub fn allowance(&self) -> Arc<Allowance> {
        Arc::clone(&self.allowance)
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    #[cfg(test)]
    fn bounds(mut self, head: u64, tail: u64) -> Self {
        (self.head, self.tail) = (head, tail);
        self
    }

    /// A log that will have the name of `test`.
    #[must_use]
    pub fn log(&self, test: &str) -> Log {
        Log { name: file_name(test), buffer: Vec::new(), written: 0, bounds: (self.head, self.tail), file: None }
    }

    /// Adds to a log.
    ///
    /// # Errors
    /// [`Cause::HostDisk`] naming the file.
    pub fn write(&self, log: &mut Log, bytes: &[u8]) -> Result<()> {
        log.buffer.extend_from_slice(bytes);
        let waiting = self.waiting.get() + bytes.len();
        self.waiting.set(waiting);
        let room = if waiting > MEMORY { SMALL } else { BUFFER };
        if log.buffer.len() >= room { self.flush(log) } else { Ok(()) }
    }

    /// Forgets a log that nobody needs.
    pub fn discard(&self, log: &Log) {
        self.waiting.set(self.waiting.get().saturating_sub(log.buffer.len()));
        if let Some(file) = &log.file {
            // It lies in a folder of ours and does no harm.
            let _ = fs::remove_file(file);
            self.allowance.used.fetch_sub(log.kept(), Ordering::Relaxed);
        }
    }

    /// Says whether a log that ended stays, once it has been read: it goes if there are too many even of short ones.
    #[must_use]
    pub fn settle(&self, name: String) -> Option<String> {
        if self.allowance.used() <= self.allowance.limit + self.allowance.reserve {
            return Some(name);
        }
        let path = self.path.join(&name);
        let bytes = fs::metadata(&path).map_or(0, |file| file.len());
        if fs::remove_file(&path).is_err() {
            return Some(name);
        }
        let used = self.allowance.used().saturating_sub(bytes);
        self.allowance.used.store(used, Ordering::Relaxed);
        self.allowance.gone.fetch_add(1, Ordering::Relaxed);
        None
    }

    /// Ends a log; returns the file's name in the folder. An empty log has none.
    ///
    /// # Errors
    /// [`Cause::HostDisk`] naming the file.
    pub fn finish(&self, mut log: Log) -> Result<Option<String>> {
        self.flush(&mut log)?;
        let Some(path) = &log.file else { return Ok(None) };
        if log.written > log.kept() {
            let short = log.bounds != (self.head, self.tail);
            self.allowance.short.fetch_add(usize::from(short), Ordering::Relaxed);
            unroll(path, log.written, log.bounds)
                .cause(Cause::HostDisk, || format!("cannot write {}", path.display()))?;
        }
        Ok(path.file_name().map(|name| name.to_string_lossy().into_owned()))
    }

    fn flush(&self, log: &mut Log) -> Result<()> {
        if log.buffer.is_empty() {
            return Ok(());
        }
        let path = match &log.file {
            Some(path) => path.clone(),
            None => {
                if self.allowance.used() >= self.allowance.limit {
                    log.bounds = (SHORT.min(self.head), SHORT.min(self.tail));
                }
                log.file.insert(self.create(&log.name)?).clone()
            }
        };
        let before = log.kept();
        let mut rest = &log.buffer[..];
        let mut store = || -> io::Result<()> {
            let file = File::options().write(true).open(&path)?;
            while !rest.is_empty() {
                let (offset, room) = place(log.written, log.bounds);
                let piece = &rest[..rest.len().min(usize::try_from(room).unwrap_or(usize::MAX))];
                file.write_all_at(piece, offset)?;
                log.written += piece.len() as u64;
                rest = &rest[piece.len()..];
            }
            Ok(())
        };
        store().cause(Cause::HostDisk, || format!("cannot write {}", path.display()))?;
        self.allowance.used.fetch_add(log.kept() - before, Ordering::Relaxed);
        self.waiting.set(self.waiting.get().saturating_sub(log.buffer.len()));
        log.buffer.clear();
        log.buffer.shrink_to(SMALL);
        Ok(())
    }

    fn create(&self, name: &str) -> Result<PathBuf> {
        let create = || -> io::Result<PathBuf> {
            fs::create_dir_all(&self.path)?;
            for n in 1_u64.. {
                let path = self.path.join(if n == 1 { format!("{name}.log") } else { format!("{name}.{n}.log") });
                match File::options().write(true).create_new(true).open(&path) {
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                    Err(error) => return Err(error),
                    Ok(_) => return Ok(path),
                }
            }
            Err(io::Error::other("no name is free"))
        };
        create().cause(Cause::HostDisk, || format!("cannot create a log in {}", self.path.display()))
    }
}

/// Where the byte number `n` of a log with these bounds lies in its file, and how many fit in from there on.
fn place(n: u64, (head, tail): (u64, u64)) -> (u64, u64) {
    if n < head {
        return (n, head - n);
    }
    let in_ring = (n - head) % tail;
    (head + in_ring, tail - in_ring)
}

/// Puts the ring in order and says what is missing before it.
fn unroll(path: &Path, written: u64, (head, tail): (u64, u64)) -> io::Result<()> {
    let file = File::options().read(true).write(true).open(path)?;
    let mut ring = vec![0; usize::try_from(tail).unwrap_or(0)];
    file.read_exact_at(&mut ring, head)?;
    let oldest = usize::try_from((written - head) % tail).unwrap_or(0);
    ring.rotate_left(oldest);
    let note = format!("\n[... {} bytes left out ...]\n", written - head - tail);
    file.write_all_at(note.as_bytes(), head)?;
    file.write_all_at(&ring, head + note.len() as u64)
}

/// A test's name as a file's: readable, and never the same for two tests.
#[must_use]
pub fn file_name(test: &str) -> String {
    let readable = slug(test);
    if readable == test { readable } else { format!("{readable}-{}", &digest::hex(test.as_bytes())[..8]) }
}

/// A log's text for people and rules: at most what [`HEAD`] and [`TAIL`] leave of it.
#[must_use]
pub fn read(path: &Path) -> String {
    let bytes = kit::rundir::read_limited(path, HEAD + TAIL + 4096).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_log_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path());
        let mut log = folder.log("TestA");
        folder.write(&mut log, b"one\n").unwrap();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0, "not on disk before it ends");
        folder.write(&mut log, b"two\n").unwrap();
        assert_eq!(folder.finish(log).unwrap().unwrap(), "TestA.log");
        assert_eq!(read(&dir.path().join("TestA.log")), "one\ntwo\n");
        assert_eq!(folder.finish(folder.log("TestEmpty")).unwrap(), None);
    }

    #[test]
    fn beginning_and_end_of_a_large_log_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path()).bounds(8 << 10, 5000);
        for lines in [100, 500, 1000, 3000, 12_345_u32] {
            let mut log = folder.log("TestBig");
            let mut text = String::new();
            for n in 0..lines {
                let line = format!("line {n}\n");
                folder.write(&mut log, line.as_bytes()).unwrap();
                text.push_str(&line);
            }
            let name = folder.finish(log).unwrap().unwrap();
            let kept = fs::read_to_string(dir.path().join(name)).unwrap();
            if text.len() <= (8 << 10) + 5000 {
                assert_eq!(kept, text);
            } else {
                let cut = text.len() - (8 << 10) - 5000;
                let end = &text[text.len() - 5000..];
                assert_eq!(kept, format!("{}\n[... {cut} bytes left out ...]\n{end}", &text[..8 << 10]));
            }
        }
    }

    #[test]
    fn many_logs_at_once_do_not_fill_the_memory() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path());
        let mut logs: Vec<_> = (0..1000).map(|n| folder.log(&format!("Test{n}"))).collect();
        for _ in 0..40 {
            for log in &mut logs {
                folder.write(log, &[b'x'; 1000]).unwrap();
            }
        }
        let held: usize = logs.iter().map(|log| log.buffer.capacity()).sum();
        assert!(held < 2 * MEMORY && folder.waiting.get() <= MEMORY + 1000 * SMALL, "{held}");
        let (kept, dropped) = logs.split_at(500);
        dropped.iter().for_each(|log| folder.discard(log));
        let sizes = kept.iter().map(|log| log.written + log.buffer.len() as u64);
        assert!(sizes.sum::<u64>() == 500 * 40_000);
        for log in logs.drain(..500) {
            folder.finish(log).unwrap();
        }
        assert_eq!((folder.waiting.get(), fs::read_dir(dir.path()).unwrap().count()), (0, 500));
    }

    #[test]
    fn all_logs_together_have_a_limit_and_what_was_cut_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let allowance = Arc::new(Allowance::of(1 << 20, 256 << 10));
        let keep = |n: usize, bytes: usize| {
            // Each pass of a program has a folder of its own.
            let folder = Folder::new(dir.path().join(format!("{}", n % 3))).within(&allowance);
            let mut log = folder.log(&format!("Test{n}"));
            folder.write(&mut log, &vec![b'x'; bytes - 5]).unwrap();
            folder.write(&mut log, b"\nlast").unwrap();
            let name = folder.finish(log).unwrap().unwrap();
            assert!(read(&folder.path().join(&name)).ends_with("\nlast"), "it is judged before it may go");
            folder.settle(name)
        };
        assert!((0..10).all(|n| keep(n, 100 << 10).is_some()));
        assert_eq!(allowance.cut(), None);
        let late: Vec<_> = (10..200).map(|n| keep(n, 100 << 10)).collect();
        assert!(late[0].is_some() && late.last().unwrap().is_none());
        let files = (0..3).flat_map(|n| fs::read_dir(dir.path().join(n.to_string())).unwrap());
        let bytes: u64 = files.map(|file| file.unwrap().metadata().unwrap().len()).sum();
        assert!(bytes < (1 << 20) + (300 << 10), "{bytes}");
        let gone = late.iter().filter(|name| name.is_none()).count();
        let said = format!("189 were cut to 8 KiB each, and {gone} are not kept: more than 1 MiB in all");
        assert!(allowance.cut().unwrap().ends_with(&said), "{:?}", allowance.cut());
        // What was never kept takes nothing.
        let used = allowance.used();
        let folder = Folder::new(dir.path()).within(&allowance);
        let mut log = folder.log("TestGood");
        folder.write(&mut log, &vec![b'x'; 100 << 10]).unwrap();
        folder.discard(&log);
        assert_eq!(allowance.used(), used);
    }

    #[test]
    fn names_are_safe_and_different() {
        let names = ["TestA", "TestA/b", "TestA-b", "../../x", "a\nb", "<b>", "", &"x".repeat(10_000)];
        let files: std::collections::BTreeSet<_> = names.iter().map(|name| file_name(name)).collect();
        assert_eq!(files.len(), names.len());
        for file in files {
            assert!(!file.contains(['/', '\n', '<']) && !file.starts_with('.') && file.len() < 120, "{file}");
        }
    }

    #[test]
    fn a_name_that_is_taken_gets_a_number() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::new(dir.path());
        let names = [(); 3].map(|()| {
            let mut log = folder.log("TestA");
            folder.write(&mut log, b"x").unwrap();
            folder.finish(log).unwrap().unwrap()
        });
        assert_eq!(names, ["TestA.log", "TestA.2.log", "TestA.3.log"]);
    }
}
