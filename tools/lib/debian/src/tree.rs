//! A root file system in memory, and the layer that it becomes: the same tree gives the same bytes.

use std::{
    collections::{BTreeMap, HashMap},
    io::{Read, Write},
    sync::Arc,
};

use kit::{Cause, Context, Error, Result};

/// Folders that are links into /usr (Debian's merged /usr).
const MERGED: &[&str] = &["bin", "sbin", "lib", "lib32", "lib64", "libx32"];

/// Files by path, relative to the root and without `./`.
#[derive(Default)]
pub struct Tree {
    nodes: BTreeMap<String, Node>,
}

#[derive(Debug, Clone)]
struct Node {
    mode: u32,
    owner: u64,
    kind: Kind,
}

#[derive(Debug, Clone)]
enum Kind {
    Directory,
    /// Shared by all names of a file with several.
    File(Arc<[u8]>),
    Symlink(String),
}

impl Tree {
    /// A folder; those above it come into being too.
    pub fn directory(&mut self, path: &str, mode: u32, owner: u64) {
        self.insert(path, Node { mode, owner, kind: Kind::Directory });
    }

    /// A file that belongs to root.
    pub fn file(&mut self, path: &str, mode: u32, content: impl Into<Arc<[u8]>>) {
        self.insert(path, Node { mode, owner: 0, kind: Kind::File(content.into()) });
    }

    /// A symbolic link.
    pub fn symlink(&mut self, path: &str, target: &str) {
        self.insert(path, Node { mode: 0o777, owner: 0, kind: Kind::Symlink(target.to_owned()) });
    }

    fn insert(&mut self, path: &str, node: Node) {
        let path = place(path);
        let mut parent = path.as_str();
        while let Some((above, _)) = parent.rsplit_once('/') {
            parent = above;
            let folder = Node { mode: 0o755, owner: 0, kind: Kind::Directory };
            self.nodes.entry(parent.to_owned()).or_insert(folder);
        }
        if !path.is_empty() {
            self.nodes.insert(path, node);
        }
    }

    /// Removes a path and all below it.
    pub fn remove(&mut self, path: &str) {
        let path = place(path);
        let below = format!("{path}/");
        self.nodes.retain(|name, _| *name != path && !name.starts_with(&below));
    }

    /// Files below a folder with their content, in order.
    pub fn files_below(&self, folder: &str) -> impl Iterator<Item = (&str, &[u8])> {
        let below = format!("{}/", place(folder));
        self.nodes.iter().filter_map(move |(name, node)| match &node.kind {
            Kind::File(content) if name.starts_with(&below) => Some((name.as_str(), &**content)),
            _ => None,
        })
    }

    /// Unpacks an archive over what is there. Devices are left out.
    pub fn unpack(&mut self, archive: &[u8]) -> Result<()> {
        let broken = || "an archive of a package cannot be read";
        for entry in tar::Archive::new(archive).entries().cause(Cause::Registry, broken)? {
            let mut entry = entry.cause(Cause::Registry, broken)?;
            let path = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let link =
                entry.link_name_bytes().map(|name| String::from_utf8_lossy(&name).into_owned()).unwrap_or_default();
            let mode = entry.header().mode().cause(Cause::Registry, broken)? & 0o7777;
            match entry.header().entry_type() {
                tar::EntryType::Directory if self.is_directory(&path) => {}
                tar::EntryType::Directory => self.directory(&path, mode, 0),
                tar::EntryType::Regular => {
                    let mut content = Vec::new();
                    entry.read_to_end(&mut content).cause(Cause::Registry, broken)?;
                    self.file(&path, mode, content);
                }
                tar::EntryType::Symlink => self.symlink(&path, &link),
                tar::EntryType::Link => {
                    let target = self.nodes.get(&place(&link)).cloned();
                    let node = target.ok_or_else(|| {
                        Error::new(Cause::Registry, format!("{path} is another name of {link}, which is missing"))
                    })?;
                    self.insert(&path, node);
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn is_directory(&self, path: &str) -> bool {
        let path = place(path);
        path.is_empty() || matches!(self.nodes.get(&path), Some(Node { kind: Kind::Directory, .. }))
    }

    /// As a tar archive: sorted, without times.
    pub fn archive(&self) -> Result<Vec<u8>> {
        let failed = || "cannot write a layer";
        let mut builder = tar::Builder::new(Vec::new());
        let mut first_names: HashMap<*const u8, &str> = HashMap::new();
        for (path, node) in &self.nodes {
            let mut header = tar::Header::new_gnu();
            header.set_mode(node.mode);
            header.set_uid(node.owner);
            header.set_gid(node.owner);
            header.set_mtime(0);
            header.set_size(0);
            match &node.kind {
                Kind::Directory => {
                    header.set_entry_type(tar::EntryType::Directory);
                    builder.append_data(&mut header, format!("{path}/"), &b""[..])
                }
                Kind::Symlink(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    builder.append_link(&mut header, path, target)
                }
                Kind::File(content) => match first_names.get(&content.as_ptr()).filter(|_| !content.is_empty()) {
                    Some(first) => {
                        header.set_entry_type(tar::EntryType::Link);
                        builder.append_link(&mut header, path, first)
                    }
                    None => {
                        first_names.insert(content.as_ptr(), path);
                        header.set_size(content.len() as u64);
                        builder.append_data(&mut header, path, &content[..])
                    }
                },
            }
            .cause(Cause::Internal, failed)?;
        }
        builder.into_inner().cause(Cause::Internal, failed)
    }
}

/// Compresses, without a time or a name in the header.
pub fn gzip(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = flate2::GzBuilder::new().mtime(0).write(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(bytes).and_then(|()| encoder.finish()).cause(Cause::Internal, || "cannot compress a layer")
}

/// Where a path lies: relative to the root, with /bin and its like inside /usr.
fn place(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            part => parts.push(part),
        }
    }
    if parts.len() > 1 && MERGED.contains(&parts[0]) {
        parts.insert(0, "usr");
    }
    parts.join("/")
}

/// The links that make /bin and its like part of /usr, for those folders that the tree has.
pub fn merge_usr(tree: &mut Tree) {
    for name in MERGED {
        tree.remove(name);
        if *name != "lib32" && *name != "libx32" {
            tree.directory(&format!("usr/{name}"), 0o755, 0);
        }
        if tree.is_directory(&format!("usr/{name}")) {
            tree.symlink(name, &format!("usr/{name}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(archive: &[u8]) -> Vec<String> {
        let mut archive = tar::Archive::new(archive);
        archive.entries().unwrap().map(|entry| entry.unwrap().path().unwrap().display().to_string()).collect()
    }

    #[test]
    fn parents_come_first_and_bin_is_in_usr() {
        let mut tree = Tree::default();
        tree.file("./bin/x", 0o755, *b"x");
        tree.file("/etc/deep/y", 0o644, *b"y");
        merge_usr(&mut tree);
        let names = names(&tree.archive().unwrap());
        assert_eq!(
            names,
            [
                "bin",
                "etc/",
                "etc/deep/",
                "etc/deep/y",
                "lib",
                "lib64",
                "sbin",
                "usr/",
                "usr/bin/",
                "usr/bin/x",
                "usr/lib/",
                "usr/lib64/",
                "usr/sbin/"
            ]
        );
    }

    #[test]
    fn a_file_with_two_names_is_stored_once_and_order_does_not_matter() {
        let mut archive = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_size(4);
        header.set_mode(0o755);
        header.set_mtime(99);
        archive.append_data(&mut header, "./z", &b"data"[..]).unwrap();
        header.set_size(0);
        header.set_entry_type(tar::EntryType::Link);
        archive.append_link(&mut header, "./a", "./z").unwrap();
        let archive = archive.into_inner().unwrap();
        let mut tree = Tree::default();
        tree.unpack(&archive).unwrap();
        let bytes = tree.archive().unwrap();
        assert_eq!(names(&bytes), ["a", "z"]);
        let mut reread = Tree::default();
        reread.unpack(&bytes).unwrap();
        assert_eq!(gzip(&bytes).unwrap(), gzip(&reread.archive().unwrap()).unwrap());
    }

    #[test]
    fn removing_takes_all_below_and_nothing_beside() {
        let mut tree = Tree::default();
        for path in ["usr/share/doc/a", "usr/share/docs", "/lib/x"] {
            tree.file(path, 0o644, *b"");
        }
        tree.remove("/usr/share/doc");
        tree.remove("/lib/x");
        assert_eq!(names(&tree.archive().unwrap()), ["usr/", "usr/lib/", "usr/share/", "usr/share/docs"]);
    }
}
