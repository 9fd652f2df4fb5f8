//! A root file system of any size on its way into a layer: its paths in memory, its files' bytes in a
//! temporary file. Written out it is sorted and without times, so the same content has the same bytes.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::{Read, Seek, SeekFrom, Write},
};

use flate2::{Compression, GzBuilder};
use kit::{Cause, Context, Error, Platform, Result, digest::Hashing};
use oci::{
    Layout,
    spec::{Descriptor, MediaType},
};

/// Bytes of all files of a root; more is taken as an attack.
pub(crate) const BYTES_LIMIT: u64 = 8 << 30;
/// Entries of a root.
pub(crate) const ENTRIES_LIMIT: usize = 400_000;
/// Bytes of their names together, and of what links point to.
const NAMES_LIMIT: usize = 32 << 20;
/// Linux' `PATH_MAX`.
const PATH_LIMIT: usize = 4096;
/// Enough for a program's header.
const HEADER_BYTES: usize = 4096;
/// The attribute that holds a program's capabilities; others do not belong into images.
pub(crate) const CAPABILITY: &str = "security.capability";
/// Capabilities are 24 bytes at most (linux/capability.h, `vfs_ns_cap_data`).
pub(crate) const CAPABILITY_BYTES: usize = 64;

/// What an entry is, beside its content.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    /// Value of [`CAPABILITY`].
    pub(crate) capability: Option<Vec<u8>>,
}

#[derive(Debug, Clone)]
struct Node {
    about: About,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Directory,
    /// Where its bytes are; several names of a file have the same place.
    File {
        offset: u64,
        size: u64,
    },
    Symlink(String),
}

/// A root file system.
pub(crate) struct Spool {
    nodes: BTreeMap<String, Node>,
    content: File,
    end: u64,
    bytes_limit: u64,
    tally: Tally,
    /// Left out with all below.
    drop: Vec<String>,
    /// The first program for each machine.
    programs: BTreeMap<String, String>,
}

impl Spool {
    /// An empty one that leaves out the paths `drop`.
    ///
    /// # Errors
    /// [`Cause::HostDisk`] if there can be no temporary file, [`Cause::Usage`] for a path that is none.
    pub(crate) fn new(drop: &[String]) -> Result<Self> {
        Self::with_limits(drop, BYTES_LIMIT, ENTRIES_LIMIT)
    }

    pub(crate) fn with_limits(drop: &[String], bytes_limit: u64, entries_limit: usize) -> Result<Self> {
        let content = tempfile::tempfile().cause(Cause::HostDisk, || "cannot make a temporary file")?;
        let mut places = Vec::new();
        for path in drop {
            match place(path.trim_start_matches('/'))? {
                empty if empty.is_empty() => {
                    return Err(Error::new(Cause::Usage, format!("'{path}' leaves nothing of a root")));
                }
                path => places.push(path),
            }
        }
        Ok(Self {
            nodes: BTreeMap::new(),
            content,
            end: 0,
            bytes_limit,
            tally: Tally { entries: 0, entries_limit, names: 0 },
            drop: places,
            programs: BTreeMap::new(),
        })
    }

    /// Where an entry called `path` belongs; nothing if it is the root itself or left out.
    ///
    /// # Errors
    /// [`Cause::Usage`] for a path that leads out of the root, too many entries, or too long names of all.
    pub(crate) fn place(&mut self, path: &str) -> Result<Option<String>> {
        let path = place(path)?;
        self.tally.entry(&path)?;
        let below =
            |folder: &String| path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        Ok((!path.is_empty() && !self.drop.iter().any(below)).then_some(path))
    }

    pub(crate) fn directory(&mut self, path: String, about: About) {
        self.nodes.insert(path, Node { about, kind: Kind::Directory });
    }

    pub(crate) fn symlink(&mut self, path: String, target: String, about: About) -> Result<()> {
        if target.len() > PATH_LIMIT || target.is_empty() {
            return Err(wrong(format!("{path} is a link without a target that could be one")));
        }
        self.tally.name(&target)?;
        // Links have no rights of their own; file systems disagree about what they say.
        self.nodes.insert(path, Node { about: About { mode: 0o777, ..about }, kind: Kind::Symlink(target) });
        Ok(())
    }

    /// Another name of a file that came before.
    pub(crate) fn hardlink(&mut self, path: String, target: &str) -> Result<()> {
        let node = match self.nodes.get(&place(target)?) {
            Some(node @ Node { kind: Kind::File { .. }, .. }) => node.clone(),
            _ => return Err(wrong(format!("{path} is another name of {target}, which is no file before it"))),
        };
        self.nodes.insert(path, node);
        Ok(())
    }

    /// A file with its bytes.
    pub(crate) fn file(&mut self, path: String, about: About, bytes: &mut dyn Read) -> Result<()> {
        let left = self.bytes_limit - self.end;
        let mut head = Head { file: &mut self.content, head: Vec::new() };
        let size = std::io::copy(&mut bytes.take(left + 1), &mut head)
            .cause(Cause::Usage, || format!("cannot read {path}"))?;
        if size > left {
            return Err(wrong(format!("its files have more than {} bytes", self.bytes_limit)));
        }
        if let Some(program) = oci::program_header(&path, &head.head) {
            self.programs.entry(program.machine).or_insert_with(|| path.clone());
        }
        self.nodes.insert(path, Node { about, kind: Kind::File { offset: self.end, size } });
        self.end += size;
        Ok(())
    }

    /// Everything belongs to root, can be read by everyone, and be run if its owner may run it.
    pub(crate) fn belongs_to_root(&mut self) {
        for node in self.nodes.values_mut() {
            let runs = matches!(node.kind, Kind::Directory) || node.about.mode & 0o100 != 0;
            node.about = About { mode: if runs { 0o755 } else { 0o644 }, ..About::default() };
        }
    }

    /// Checks what can only be said of the whole: everything lies in folders, and there is something for
    /// the platform if there are programs at all.
    pub(crate) fn check(&mut self, platform: &Platform) -> Result<()> {
        if self.nodes.is_empty() {
            return Err(wrong("it is empty"));
        }
        let mut missing = BTreeSet::new();
        for path in self.nodes.keys() {
            for parent in ancestors(path) {
                match self.nodes.get(parent) {
                    None if missing.insert(parent) => self.tally.entry(parent)?,
                    // What is above it is looked at for itself, or was already.
                    None | Some(Node { kind: Kind::Directory, .. }) => break,
                    Some(_) => return Err(wrong(format!("{path} lies below {parent}, which is no folder"))),
                }
            }
        }
        let missing: Vec<_> = missing.into_iter().map(String::from).collect();
        for parent in missing {
            self.directory(parent, About { mode: 0o755, ..About::default() });
        }
        if !self.programs.is_empty() && !self.programs.contains_key(&platform.arch) {
            let found: Vec<_> =
                self.programs.iter().map(|(machine, path)| format!("{machine} (for instance /{path})")).collect();
            let what = format!("its programs are not for {platform} but for {}", found.join(", "));
            return Err(Error::new(Cause::ImageWrongArch, what));
        }
        Ok(())
    }

    /// Writes it as a layer; returns its descriptor and the digest of what is in it (`diff_id`).
    pub(crate) fn write(&mut self, layout: &Layout) -> Result<(Descriptor, String)> {
        let mut diff_id = String::new();
        let layer = layout.write_with(MediaType::ImageLayerGzip, |out| {
            let failed = || "cannot write a layer";
            // No time and no name in the header, as everywhere here.
            let gzip = GzBuilder::new().mtime(0).write(out, Compression::new(6));
            let mut archive = tar::Builder::new(Hashing::new(gzip));
            self.append(&mut archive).cause(Cause::HostDisk, failed)?;
            let hashed = archive.into_inner().cause(Cause::HostDisk, failed)?;
            let (gzip, digits, _) = hashed.finish();
            gzip.finish().cause(Cause::HostDisk, failed)?;
            diff_id = format!("sha256:{digits}");
            Ok(())
        })?;
        Ok((layer, diff_id))
    }

    fn append(&mut self, archive: &mut tar::Builder<impl Write>) -> std::io::Result<()> {
        let mut first_names: BTreeMap<u64, &str> = BTreeMap::new();
        for (path, node) in &self.nodes {
            if let Some(value) = &node.about.capability {
                archive.append_pax_extensions([(&*format!("SCHILY.xattr.{CAPABILITY}"), &value[..])])?;
            }
            let mut header = tar::Header::new_gnu();
            header.set_mode(node.about.mode & 0o7777);
            header.set_uid(node.about.uid);
            header.set_gid(node.about.gid);
            header.set_mtime(0);
            header.set_size(0);
            match &node.kind {
                Kind::Directory => {
                    header.set_entry_type(tar::EntryType::Directory);
                    archive.append_data(&mut header, format!("{path}/"), &b""[..])?;
                }
                Kind::Symlink(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    archive.append_link(&mut header, path, target)?;
                }
                Kind::File { offset, size } => match first_names.get(offset).filter(|_| *size > 0) {
                    Some(first) => {
                        header.set_entry_type(tar::EntryType::Link);
                        archive.append_link(&mut header, path, first)?;
                    }
                    None => {
                        first_names.insert(*offset, path);
                        header.set_size(*size);
                        self.content.seek(SeekFrom::Start(*offset))?;
                        archive.append_data(&mut header, path, (&self.content).take(*size))?;
                    }
                },
            }
        }
        Ok(())
    }
}

/// Counts what stays in memory.
struct Tally {
    entries: usize,
    entries_limit: usize,
    names: usize,
}

impl Tally {
    /// One more entry with this path.
    fn entry(&mut self, path: &str) -> Result<()> {
        self.entries += 1;
        if self.entries > self.entries_limit {
            return Err(wrong(format!("it has more than {} entries", self.entries_limit)));
        }
        self.name(path)
    }

    fn name(&mut self, name: &str) -> Result<()> {
        self.names += name.len();
        if self.names > NAMES_LIMIT {
            return Err(wrong(format!("its entries have names of more than {} MiB", NAMES_LIMIT >> 20)));
        }
        Ok(())
    }
}

/// Keeps the first bytes of what is written.
struct Head<'a> {
    file: &'a mut File,
    head: Vec<u8>,
}

impl Write for Head<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.file.write(bytes)?;
        let wanted = HEADER_BYTES.saturating_sub(self.head.len()).min(written);
        self.head.extend_from_slice(&bytes[..wanted]);
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.file.flush()
    }
}

/// What is wrong with a root.
pub(crate) fn wrong(what: impl Into<String>) -> Error {
    Error::new(Cause::Usage, what)
}

/// A path of an archive relative to the root; empty for the root itself.
fn place(path: &str) -> Result<String> {
    let shown = || path.chars().take(200).collect::<String>();
    if path.starts_with('/') {
        return Err(wrong(format!("{} is an absolute path", shown())));
    }
    if path.len() > PATH_LIMIT {
        return Err(wrong(format!("{}… is longer than {PATH_LIMIT} bytes", shown())));
    }
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => return Err(wrong(format!("{} leads out of the root", shown()))),
            part if part.starts_with(".wh.") => {
                return Err(wrong(format!("{} would delete something of another layer", shown())));
            }
            part => parts.push(part),
        }
    }
    Ok(parts.join("/"))
}

/// The folders above a path.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(path.rsplit_once('/'), |(parent, _)| parent.rsplit_once('/')).map(|(parent, _)| parent)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A root with these folders only.
    fn spool(paths: &[String], entries_limit: usize) -> Result<Spool> {
        let mut spool = Spool::with_limits(&[], 0, entries_limit)?;
        for path in paths {
            if let Some(place) = spool.place(path)? {
                spool.directory(place, About::default());
            }
        }
        spool.check(&"linux/s390x".parse().unwrap())?;
        Ok(spool)
    }

    #[test]
    fn folders_that_no_entry_brings_count_once_and_to_the_limits() {
        let deep = "a/".repeat(2000);
        let paths: Vec<_> = (0..3).map(|at| format!("{deep}{at}")).collect();
        assert_eq!(spool(&paths, 2003).unwrap().nodes.len(), 2003);
        let Err(error) = spool(&paths, 2002) else { panic!("not refused") };
        assert_eq!(error.summary(), "it has more than 2002 entries");
        let paths: Vec<_> = (0..9).map(|at| format!("{at}/{deep}")).collect();
        let Err(error) = spool(&paths, ENTRIES_LIMIT) else { panic!("not refused") };
        assert_eq!(error.summary(), "its entries have names of more than 32 MiB");
    }

    #[test]
    fn what_links_point_to_is_bounded() {
        let mut spool = Spool::new(&[]).unwrap();
        let link = |at: usize| spool.symlink(at.to_string(), "x".repeat(PATH_LIMIT), About::default());
        let most = NAMES_LIMIT / PATH_LIMIT;
        assert_eq!((0..2 * most).map(link).take_while(Result::is_ok).count(), most);
    }
}
