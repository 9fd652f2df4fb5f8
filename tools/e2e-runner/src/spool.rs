//! Text that waits on disk while it is made: in strands that grow side by side and are read one after the other. Memory
//! holds a little of each, however long they become.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Write},
    os::unix::fs::FileExt,
    path::Path,
};

use kit::{Cause, Context, Result};

/// How much of a strand waits in memory.
const PIECE: usize = 64 << 10;
/// How much of all strands together.
const WAITING: usize = 2 << 20;

/// A file without a name, which goes when it is dropped.
pub struct Spool {
    file: File,
    end: u64,
    strands: BTreeMap<String, Strand>,
    waiting: usize,
}

#[derive(Default)]
struct Strand {
    waiting: String,
    /// Where the rest lies, in order: offset and length.
    pieces: Vec<(u64, usize)>,
}

impl Spool {
    /// On the disk of `folder`, which is created.
    ///
    /// # Errors
    /// [`Cause::HostDisk`] naming the folder.
    pub fn new(folder: &Path) -> Result<Self> {
        let file = std::fs::create_dir_all(folder).and_then(|()| tempfile::tempfile_in(folder));
        let file = file.cause(Cause::HostDisk, || format!("cannot create a file in {}", folder.display()))?;
        Ok(Self { file, end: 0, strands: BTreeMap::new(), waiting: 0 })
    }

    /// Adds to a strand.
    ///
    /// # Errors
    /// [`Cause::HostDisk`] if the disk is full.
    pub fn add(&mut self, name: &str, text: &str) -> Result<()> {
        if !self.strands.contains_key(name) {
            self.strands.insert(name.into(), Strand::default());
        }
        let Some(strand) = self.strands.get_mut(name) else { return Ok(()) };
        strand.waiting.push_str(text);
        self.waiting += text.len();
        let all = self.waiting > WAITING;
        if strand.waiting.len() > PIECE || all {
            self.flush(if all { None } else { Some(name) }).cause(Cause::HostDisk, || "cannot put rows aside")?;
        }
        Ok(())
    }

    /// Writes down what waits of this strand, or of all.
    fn flush(&mut self, only: Option<&str>) -> io::Result<()> {
        for (name, strand) in &mut self.strands {
            if strand.waiting.is_empty() || only.is_some_and(|only| only != name) {
                continue;
            }
            let text = std::mem::take(&mut strand.waiting);
            self.file.write_all_at(text.as_bytes(), self.end)?;
            strand.pieces.push((self.end, text.len()));
            self.end += text.len() as u64;
            self.waiting -= text.len();
        }
        Ok(())
    }

    /// Writes all of a strand to `out`.
    ///
    /// # Errors
    /// [`Cause::HostDisk`] if it cannot be read or written.
    pub fn copy(&self, name: &str, out: &mut dyn Write) -> Result<()> {
        let Some(strand) = self.strands.get(name) else { return Ok(()) };
        let mut copy = || -> io::Result<()> {
            let mut piece = Vec::new();
            for (from, length) in &strand.pieces {
                piece.resize(*length, 0);
                self.file.read_exact_at(&mut piece, *from)?;
                out.write_all(&piece)?;
            }
            out.write_all(strand.waiting.as_bytes())
        };
        copy().cause(Cause::HostDisk, || "cannot bring rows back")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(spool: &Spool, name: &str) -> String {
        let mut text = Vec::new();
        spool.copy(name, &mut text).unwrap();
        String::from_utf8(text).unwrap()
    }

    #[test]
    fn strands_come_back_as_they_were_and_memory_stays_small() {
        let folder = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(&folder.path().join("new")).unwrap();
        let mut expected = vec![String::new(); 300];
        for n in 0..60_000_usize {
            // Some grow quickly, and all of them a little.
            let strand = if n % 3 == 0 { n % 2 } else { n % 300 };
            let text = format!("{n} of strand {strand}, as long as a row{}\n", "-".repeat(n % 90));
            spool.add(&strand.to_string(), &text).unwrap();
            expected[strand].push_str(&text);
            assert!(spool.waiting <= WAITING + 200);
        }
        assert!(spool.end > 0 && expected.iter().map(String::len).sum::<usize>() > 2 * WAITING);
        for (strand, text) in expected.iter().enumerate() {
            assert_eq!(&read(&spool, &strand.to_string()), text, "{strand}");
        }
        assert_eq!(read(&spool, "none"), "");
    }
}
