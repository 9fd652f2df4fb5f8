//! The kernel's initial memory disk: a cpio archive of the kind `newc` (Documentation/driver-api/early-userspace/
//! buffer-format.rst). Several can stand one after the other.

use std::collections::BTreeSet;

const ALIGN: usize = 4;

/// An archive that grows; owner and times are fixed, so the same files give the same bytes.
#[derive(Default)]
pub(crate) struct Archive {
    bytes: Vec<u8>,
    folders: BTreeSet<String>,
    inode: u32,
}

impl Archive {
    /// An empty folder.
    pub(crate) fn folder(&mut self, path: &str) {
        let path = path.trim_matches('/');
        if path.is_empty() || !self.folders.insert(path.to_owned()) {
            return;
        }
        self.parents(path);
        self.entry(path, 0o040_755, &[]);
    }

    /// A file, after the folders above it.
    pub(crate) fn file(&mut self, path: &str, mode: u32, content: &[u8]) {
        let path = path.trim_matches('/');
        self.parents(path);
        self.entry(path, 0o100_000 | mode, content);
    }

    /// The whole archive.
    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn parents(&mut self, path: &str) {
        if let Some((above, _)) = path.rsplit_once('/') {
            self.folder(above);
        }
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.inode += 1;
        let links = if mode & 0o040_000 == 0 { 1 } else { 2 };
        let length = |length: usize| u32::try_from(length).unwrap_or(u32::MAX);
        let fields = [self.inode, mode, 0, 0, links, 0, length(content.len()), 0, 0, 0, 0, length(path.len() + 1), 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(path.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGN), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_come_first_and_everything_is_aligned() {
        let mut archive = Archive::default();
        archive.file("a/b/c", 0o755, b"hello");
        archive.file("a/d", 0o600, b"");
        archive.folder("/e/");
        let bytes = archive.finish();
        assert_eq!(bytes.len() % ALIGN, 0);
        let mut rest = &bytes[..];
        let mut entries = Vec::new();
        while !rest.is_empty() {
            assert_eq!(&rest[..6], b"070701");
            let field = |at: usize| {
                let digits = std::str::from_utf8(&rest[6 + 8 * at..14 + 8 * at]).unwrap();
                usize::from_str_radix(digits, 16).unwrap()
            };
            let (mode, size, name) = (field(1), field(6), field(11));
            let content = (110 + name).next_multiple_of(ALIGN);
            let path = String::from_utf8_lossy(&rest[110..109 + name]).into_owned();
            entries.push((path, mode, rest[content..content + size].to_vec()));
            rest = &rest[(content + size).next_multiple_of(ALIGN)..];
        }
        let expected: [(&str, usize, &[u8]); 6] = [
            ("a", 0o040_755, b""),
            ("a/b", 0o040_755, b""),
            ("a/b/c", 0o100_755, b"hello"),
            ("a/d", 0o100_600, b""),
            ("e", 0o040_755, b""),
            ("TRAILER!!!", 0, b""),
        ];
        assert_eq!(entries, expected.map(|(path, mode, content)| (path.to_owned(), mode, content.to_vec())));
    }
}
