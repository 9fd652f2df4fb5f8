//! The root file system that layers make together, as far as it is needed to find one program.
//!
//! Layers are looked at from the top downwards, so what was seen first counts. Symbolic links are followed
//! inside the root only, as containers do.

use std::collections::{HashMap, HashSet};

use kit::{Cause, Error, Result, record::Program};

use crate::{
    header::{HEADER_BYTES, program_header},
    layer::{Entry, Kind, Tally},
};

/// Symbolic links on the way to one file, as Linux has it (`MAXSYMLINKS`).
const LINKS_LIMIT: usize = 40;
/// Longer paths no Linux opens (PATH_MAX).
pub(crate) const PATH_LIMIT: usize = 4096;

/// What is known so far.
#[derive(Default)]
pub(crate) struct Root {
    /// With the number of the layer, from above.
    nodes: HashMap<String, (usize, Node)>,
    /// Deleted by a layer above: nothing below counts, at the path and under it.
    hidden: HashSet<String>,
    /// The same of the layer that is being read, which count for the layers below it only.
    hiding: Vec<String>,
    /// Number of the layer being read: within one layer the last entry counts.
    layer: usize,
    tally: Tally,
    /// Whether capitals do not matter, as on Windows.
    without_case: bool,
}

enum Node {
    Directory,
    Symlink(String),
    Hardlink(String),
    File(Content),
}

/// What a file is, from its beginning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    Program(Program),
    /// A script, and the program that runs it.
    Script(String),
    Other,
}

/// Where a search ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    File(String, Content),
    /// No layer can have it any more.
    Missing,
    /// A layer below may have it.
    Unknown,
}

impl Root {
    /// Of Windows, where capitals do not tell files apart.
    pub(crate) fn without_case() -> Self {
        Self { without_case: true, ..Self::default() }
    }

    /// What a path is remembered by.
    fn key(&self, path: &str) -> String {
        let path = clean(path);
        if self.without_case { path.to_lowercase() } else { path }
    }

    /// Begins the next layer downwards.
    pub(crate) fn next_layer(&mut self) {
        self.hidden.extend(self.hiding.drain(..));
        self.layer += 1;
    }

    /// Takes an entry of the present layer; returns the path if it may be what is looked for.
    pub(crate) fn add(&mut self, entry: Entry) -> Result<Option<String>> {
        let link = if let Kind::Symlink(target) | Kind::Hardlink(target) = &entry.kind { target.len() } else { 0 };
        self.tally.add(entry.path.len() + link)?;
        if entry.path.len().max(link) > PATH_LIMIT {
            let what = format!("the archive has a path of more than {PATH_LIMIT} bytes");
            return Err(Error::new(Cause::Registry, what));
        }
        let path = self.key(&entry.path);
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", &path));
        // Whiteouts: image-spec, layer.md.
        if name == ".wh..wh..opq" {
            self.hiding.push(folder.to_owned());
            return Ok(None);
        }
        if let Some(deleted) = name.strip_prefix(".wh.") {
            self.hiding.push(join(folder, deleted));
            return Ok(None);
        }
        let above = self.nodes.get(&path).is_some_and(|(layer, _)| *layer != self.layer);
        if path.is_empty() || above || self.covered(&path) {
            return Ok(None);
        }
        let node = match entry.kind {
            Kind::Directory => Node::Directory,
            Kind::Symlink(target) => Node::Symlink(target),
            Kind::Hardlink(target) => Node::Hardlink(clean(&target)),
            Kind::File => Node::File(content(&clean(&entry.path), &entry.head)),
            Kind::Other => Node::File(Content::Other),
        };
        self.nodes.insert(path.clone(), (self.layer, node));
        Ok(Some(path))
    }

    /// Whether a layer above deleted the path, or has a file where the path needs a folder.
    fn covered(&self, path: &str) -> bool {
        ancestors(path).any(|part| self.hidden.contains(part))
            || ancestors(path).skip(1).any(|part| {
                self.nodes
                    .get(part)
                    .is_some_and(|(layer, node)| *layer != self.layer && !matches!(node, Node::Directory))
            })
    }

    /// Looks for the file at `path`.
    pub(crate) fn find(&self, path: &str) -> Found {
        let mut todo: Vec<String> = self.parts(path);
        let mut at = String::new();
        let mut links = 0;
        while let Some(part) = todo.pop() {
            if part == ".." {
                at = at.rsplit_once('/').map_or("", |(parent, _)| parent).to_owned();
                continue;
            }
            at = join(&at, &part);
            let (follow, from_root) = match self.nodes.get(&at).map(|(_, node)| node) {
                Some(Node::Symlink(target)) => (target, target.starts_with('/')),
                Some(Node::Hardlink(target)) => (target, true),
                Some(Node::File(content)) if todo.is_empty() => return Found::File(at, content.clone()),
                Some(Node::File(_)) => return Found::Missing,
                Some(Node::Directory) => continue,
                None if todo.is_empty() => {
                    let deleted = ancestors(&at).any(|part| self.hidden.contains(part));
                    return if deleted { Found::Missing } else { Found::Unknown };
                }
                // A folder that no entry names, or one of a layer below.
                None => continue,
            };
            links += 1;
            if links > LINKS_LIMIT {
                return Found::Missing;
            }
            at =
                if from_root { String::new() } else { at.rsplit_once('/').map_or("", |(parent, _)| parent).to_owned() };
            todo.extend(self.parts(follow));
        }
        // It is a folder.
        Found::Missing
    }

    /// The parts of a path, last one first.
    fn parts(&self, path: &str) -> Vec<String> {
        let part = |part: &str| if self.without_case { part.to_lowercase() } else { part.to_owned() };
        path.split('/').rev().filter(|part| !part.is_empty() && *part != ".").map(part).collect()
    }
}

fn content(path: &str, head: &[u8]) -> Content {
    if let Some(program) = program_header(&format!("/{path}"), &head[..head.len().min(HEADER_BYTES)]) {
        return Content::Program(program);
    }
    // As much as Linux looks at (BINPRM_BUF_SIZE).
    let script =
        head[..head.len().min(256)].strip_prefix(b"#!").and_then(|rest| rest.split(|byte| *byte == b'\n').next());
    let interpreter = script.and_then(|line| {
        let line = String::from_utf8_lossy(line).into_owned();
        line.split_whitespace().next().map(String::from)
    });
    interpreter.map_or(Content::Other, Content::Script)
}

/// A path of an archive relative to the root: `.`, `..` and slashes that lead nowhere are taken away.
pub(crate) fn clean(path: &str) -> String {
    let mut clean: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                clean.pop();
            }
            part => clean.push(part),
        }
    }
    clean.join("/")
}

fn join(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

/// The path and all folders above it, without the root.
fn ancestors(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| path.rsplit_once('/').map(|(parent, _)| parent))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::layer::ENTRIES_LIMIT;

    fn entry(path: &str, kind: Kind) -> Entry {
        let head = if kind == Kind::File { b"#!/bin/x -e\n".to_vec() } else { vec![] };
        Entry { path: path.into(), kind, size: head.len() as u64, head, end: 0 }
    }

    fn root(layers: &[&[(&str, Kind)]]) -> Root {
        let mut root = Root::default();
        for layer in layers {
            root.next_layer();
            for (path, kind) in *layer {
                root.add(entry(path, kind.clone())).unwrap();
            }
        }
        root.next_layer();
        root
    }

    fn link(target: &str) -> Kind {
        Kind::Symlink(target.into())
    }

    #[test]
    fn links_are_followed_inside_the_root() {
        let root = root(&[&[
            ("./bin", link("usr/bin")),
            ("usr/bin/sh", link("../../../../../lib/dash")),
            ("lib/dash", Kind::File),
            ("loop", link("loop")),
            ("usr/bin/same", Kind::Hardlink("./lib/dash".into())),
        ]]);
        for path in ["/bin/sh", "bin/./sh", "/usr/bin/sh", "/bin/same"] {
            assert!(
                matches!(root.find(path), Found::File(at, Content::Script(by)) if at == "lib/dash" && by == "/bin/x")
            );
        }
        assert_eq!(root.find("/loop"), Found::Missing);
        assert_eq!(root.find("/lib/dash/x"), Found::Missing);
        assert_eq!(root.find("/bin/other"), Found::Unknown);
    }

    #[test]
    fn upper_layers_win_and_whiteouts_hide() {
        let top: &[_] = &[
            ("app", Kind::File),
            ("gone/.wh.a", Kind::File),
            ("clear/.wh..wh..opq", Kind::File),
            ("clear/b", Kind::File),
        ];
        let bottom: &[_] =
            &[("app", link("gone/a")), ("gone/a", Kind::File), ("clear/c", Kind::File), ("app/x", Kind::File)];
        let root = root(&[top, bottom]);
        assert!(matches!(root.find("/app"), Found::File(at, _) if at == "app"));
        assert_eq!(root.find("/gone/a"), Found::Missing);
        assert_eq!(root.find("/clear/c"), Found::Missing);
        assert!(matches!(root.find("/clear/b"), Found::File(..)));
    }

    #[test]
    fn entries_without_end_are_refused() {
        let mut root = Root::default();
        let added = (0..=ENTRIES_LIMIT).try_for_each(|_| root.add(entry("d/.wh.x", Kind::File)).map(drop));
        assert!(added.unwrap_err().to_string().contains("entries"));
    }

    #[test]
    fn a_path_that_climbs_out_stays_inside() {
        assert_eq!(clean("/../../etc/./passwd"), "etc/passwd");
        let root = root(&[&[("../../x", Kind::File)]]);
        assert!(matches!(root.find("/../x"), Found::File(..)));
    }

    /// Paths of a few parts, so that they meet.
    fn path() -> impl Strategy<Value = String> {
        proptest::collection::vec(
            proptest::sample::select(vec!["a", "b", "..", ".", "", ".wh.a", ".wh..wh..opq"]),
            1..5,
        )
        .prop_map(|parts| parts.join("/"))
    }

    fn kind() -> impl Strategy<Value = Kind> {
        prop_oneof![
            Just(Kind::File),
            Just(Kind::Directory),
            Just(Kind::Other),
            path().prop_map(Kind::Symlink),
            path().prop_map(|path| Kind::Symlink(format!("/{path}"))),
            path().prop_map(Kind::Hardlink),
        ]
    }

    proptest! {
        #[test]
        fn whatever_layers_hold_a_search_ends_inside(
            layers in proptest::collection::vec(proptest::collection::vec((path(), kind()), 0..8), 1..4), wanted in path(),
        ) {
            let mut root = Root::default();
            for layer in layers {
                root.next_layer();
                for (path, kind) in layer {
                    root.add(entry(&path, kind)).unwrap();
                }
                let before = root.find(&wanted);
                if let Found::File(at, _) = &before {
                    prop_assert!(!at.split('/').any(|part| part == ".." || part.is_empty()), "{}", at);
                }
                root.next_layer();
                // What is decided stays, whatever a layer below holds.
                if before != Found::Unknown {
                    root.add(entry(&wanted, Kind::File)).unwrap();
                    prop_assert_eq!(root.find(&wanted), before);
                }
            }
        }
    }
}
