//! Reading a layer: decompressed, entry by entry, in bounded memory and time.

use std::io::{self, BufRead, BufReader, Read};

use kit::{Cause, Context, Error, Result};

use crate::Extension;

/// Decompressed bytes of one layer; more is taken as an attack.
const BYTES_LIMIT: u64 = 4 << 30;
/// Entries of all layers of an image together; more is taken as an attack.
pub(crate) const ENTRIES_LIMIT: usize = 400_000;
/// Bytes of their names together.
const NAMES_LIMIT: usize = 32 << 20;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    Directory,
    Symlink(String),
    Hardlink(String),
    Other,
}

/// An entry of a layer: its path as the archive has it, what it is, how large, and how it begins.
#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) path: String,
    pub(crate) kind: Kind,
    pub(crate) size: u64,
    pub(crate) head: Vec<u8>,
    /// Where the archive goes on behind it.
    pub(crate) end: u64,
}

/// Counts entries, so that whoever remembers them does so in bounded memory.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    entries: usize,
    names: usize,
}

impl Tally {
    /// One more, with a name of so many bytes.
    pub(crate) fn add(&mut self, name: usize) -> Result<()> {
        self.entries += 1;
        self.names = self.names.saturating_add(name);
        let many = |what: String| Err(Error::new(Cause::Registry, what));
        if self.entries > ENTRIES_LIMIT {
            return many(format!("it has more than {ENTRIES_LIMIT} entries, which is the limit"));
        }
        if self.names > NAMES_LIMIT {
            return many(format!("its entries have names of more than {} MiB, which is the limit", NAMES_LIMIT >> 20));
        }
        Ok(())
    }
}

/// Calls `visit` for each entry, with as many first bytes of a file as `head` wants for its path, until it says
/// `false`. When it never does, the layer is read to its last byte, also behind the end of the archive: only then
/// can whoever feeds it compare its digest.
///
/// The compression is told by the first bytes, since media types are not always right.
pub(crate) fn entries(
    layer: &mut dyn Read,
    head: impl Fn(&str) -> usize,
    visit: impl FnMut(Entry) -> Result<bool>,
) -> Result<()> {
    if tar_entries(&mut decompress(layer)?, head, visit)? {
        io::copy(layer, &mut io::sink()).cause(Cause::Registry, broken)?;
    }
    Ok(())
}

fn broken() -> &'static str {
    "the archive cannot be read"
}

/// The entries of what is decompressed already; false if `visit` ended it.
pub(crate) fn tar_entries(
    reader: &mut dyn Read,
    head: impl Fn(&str) -> usize,
    mut visit: impl FnMut(Entry) -> Result<bool>,
) -> Result<bool> {
    let mut archive = tar::Archive::new(reader);
    let mut extension = Extension::default();
    // Raw: the library would read a long name of any length into memory.
    for entry in archive.entries().cause(Cause::Registry, broken)?.raw(true) {
        let mut entry = entry.cause(Cause::Registry, broken)?;
        if extension.take(&mut entry).cause(Cause::Registry, broken)? {
            continue;
        }
        let names = std::mem::take(&mut extension);
        let header = entry.header();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let path = names.path.map_or_else(|| text(&entry.path_bytes()), |path| text(&path));
        let link = || match &names.link {
            Some(link) => text(link),
            None => header.link_name_bytes().map(|name| text(&name)).unwrap_or_default(),
        };
        let kind = match header.entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous => Kind::File,
            tar::EntryType::Directory => Kind::Directory,
            tar::EntryType::Symlink => Kind::Symlink(link()),
            tar::EntryType::Link => Kind::Hardlink(link()),
            tar::EntryType::GNUSparse => {
                return Err(Error::new(Cause::Registry, format!("{path}: a sparse file in an archive")));
            }
            _ => Kind::Other,
        };
        let (size, mut first) = (entry.size(), Vec::new());
        let end = entry.raw_file_position().saturating_add(size.next_multiple_of(512));
        if kind == Kind::File {
            entry.take(head(&path) as u64).read_to_end(&mut first).cause(Cause::Registry, broken)?;
        }
        if !visit(Entry { path, kind, size, head: first, end })? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The bytes that gzip or zstd made smaller, at most 4 GiB of them; others as they are.
pub(crate) fn decompress<'a>(layer: &'a mut dyn Read) -> Result<BufReader<Box<dyn Read + 'a>>> {
    let mut buffered = BufReader::with_capacity(64 << 10, layer);
    let start = buffered.fill_buf().cause(Cause::Registry, broken)?;
    let inner: Box<dyn Read + 'a> = match start {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(buffered)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let decoder = zstd::Decoder::with_buffer(buffered).and_then(|mut decoder| {
                // 128 MiB of window: what `zstd --long` makes by default, and a bound on memory.
                decoder.window_log_max(27)?;
                Ok(decoder)
            });
            Box::new(decoder.cause(Cause::Registry, broken)?)
        }
        _ => Box::new(buffered),
    };
    Ok(BufReader::with_capacity(16 << 10, Box::new(Limited { inner, left: BYTES_LIMIT })))
}

struct Limited<R> {
    inner: R,
    left: u64,
}

impl<R: Read> Read for Limited<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.left = self.left.checked_sub(count as u64).ok_or_else(|| {
            io::Error::other(format!(
                "it has more than {} GiB when decompressed, which is the limit",
                BYTES_LIMIT >> 30
            ))
        })?;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;

    fn names(bytes: &[u8]) -> Result<Vec<String>> {
        let mut names = Vec::new();
        entries(
            &mut &bytes[..],
            |_| 8,
            |entry| {
                names.push(entry.path);
                Ok(true)
            },
        )?;
        Ok(names)
    }

    fn sample() -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for name in ["bin/a".to_owned(), format!("deep/{}", "x".repeat(300))] {
            let mut header = tar::Header::new_gnu();
            header.set_size(3);
            builder.append_data(&mut header, name, &b"abc"[..]).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn plain_gzip_and_zstd_are_told_apart() {
        let plain = sample();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&plain).unwrap();
        let zstd = zstd::encode_all(&plain[..], 1).unwrap();
        for bytes in [plain, gzip.finish().unwrap(), zstd] {
            let names = names(&bytes).unwrap();
            assert_eq!((names[0].as_str(), names[1].len()), ("bin/a", 305));
        }
    }

    #[test]
    fn what_is_behind_the_end_of_the_archive_is_read_as_well() {
        let mut bytes = sample();
        bytes.extend([7; 5000]);
        let mut left = &bytes[..];
        entries(&mut left, |_| 8, |_| Ok(true)).unwrap();
        assert_eq!(left.len(), 0);
        let mut left = &bytes[..];
        let mut seen = 0;
        let one = |_| {
            seen += 1;
            Ok(false)
        };
        tar_entries(&mut left, |_| 8, one).unwrap();
        assert!(seen == 1 && left.len() > 5000);
    }

    #[test]
    fn entries_and_names_are_counted_to_a_limit() {
        let mut tally = Tally::default();
        assert!((0..ENTRIES_LIMIT).all(|_| tally.add(1).is_ok()));
        assert!(tally.add(1).unwrap_err().to_string().contains("400000 entries"));
        let mut tally = Tally::default();
        tally.add(NAMES_LIMIT).unwrap();
        assert!(tally.add(1).unwrap_err().to_string().contains("32 MiB"));
    }

    #[test]
    fn a_bomb_is_not_unpacked() {
        let mut limited = Limited { inner: io::repeat(0), left: 1000 };
        let mut out = Vec::new();
        assert!(limited.read_to_end(&mut out).is_err() && out.len() <= 1000);
    }

    #[test]
    fn a_name_without_end_is_refused() {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::GNULongName);
        header.set_size(3 << 20);
        header.set_cksum();
        let mut bytes = header.as_bytes().to_vec();
        bytes.resize(bytes.len() + (3 << 20), b'a');
        assert!(names(&bytes).unwrap_err().to_string().contains("mebibyte"));
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            let _ = names(&bytes);
        }

        #[test]
        fn a_damaged_archive_is_survived(at in 0_usize..2048, value in any::<u8>()) {
            let mut bytes = sample();
            bytes[at] = value;
            let _ = names(&bytes);
        }
    }
}
