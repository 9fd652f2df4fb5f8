//! Programs in files: plain ones, compressed ones, and those in archives (tar, also in gzip or zstd, and zip).

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

use kit::{Cause, Context, Error, Platform, Result, Within, record::PlatformRow};
use sha2::{Digest, Sha256};

use crate::{
    Checked,
    header::{HEADER_BYTES, least_size, program_header},
    layer::{self, Entry, Kind, Tally},
    root::clean,
    verify::{mismatch, wrong},
};

/// A larger file is not read to its end.
const SIZE_LIMIT: u64 = 4 << 30;
/// Programs of one archive.
const PROGRAMS: usize = 10_000;

/// What a file looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileKind {
    /// It begins as programs do.
    Program,
    /// A tar, or something that gzip or zstd made smaller.
    Archive,
    /// A zip.
    Zip,
    /// Something else, such as a release.
    Other,
}

/// What a file looks like by its first bytes, and by its name where they say nothing.
///
/// # Errors
/// [`Cause::Usage`] if it is no file, cannot be read or is larger than 4 GiB.
pub fn file_kind(path: &Path) -> Result<FileKind> {
    let cannot = || format!("cannot read {}", path.display());
    let meta = path.metadata().cause(Cause::Usage, cannot)?;
    if !meta.is_file() {
        return Err(Error::new(Cause::Usage, format!("{} is neither a file nor a folder", path.display())));
    }
    if meta.len() > SIZE_LIMIT {
        let what = format!("{} is larger than {} GiB, which is the limit", path.display(), SIZE_LIMIT >> 30);
        return Err(Error::new(Cause::Usage, what));
    }
    let mut head = Vec::new();
    let file = File::open(path).cause(Cause::Usage, cannot)?;
    file.take(512).read_to_end(&mut head).cause(Cause::Usage, cannot)?;
    let name = path.to_string_lossy().to_ascii_lowercase();
    let named = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    Ok(match &head[..] {
        [0x7f, b'E', b'L', b'F', ..] | [b'M', b'Z', ..] => FileKind::Program,
        [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd, ..] => FileKind::Archive,
        [b'P', b'K', 3, 4, ..] | [b'P', b'K', 5, 6, ..] => FileKind::Zip,
        head if head.get(257..262) == Some(b"ustar") => FileKind::Archive,
        _ if named(&[".tar", ".tgz", ".gz", ".zst"]) => FileKind::Archive,
        _ if named(&[".zip"]) => FileKind::Zip,
        _ if named(&[".exe"]) => FileKind::Program,
        _ => FileKind::Other,
    })
}

/// Compares every program in a file with a platform: one row each, or one that says that there is none.
///
/// # Errors
/// [`Cause::Usage`] if the file cannot be read, or is not what it seems to be.
pub fn verify_file(path: &Path, platform: &Platform) -> Result<Checked> {
    let mut file = Hashing { inner: File::open(path).cause(Cause::Usage, || unreadable(path))?, hasher: Sha256::new() };
    let mut found = Programs { platform, rows: Vec::new(), tally: Tally::default() };
    let read = match file_kind(path)? {
        FileKind::Zip => zip(path, &mut found),
        FileKind::Archive => archive(path, &mut file, &mut found),
        FileKind::Program | FileKind::Other => plain(path, &mut file, &mut found),
    };
    // What a registry would be to blame for is here a file that the call names.
    read.map_err(usage).within(|| unreadable(path))?;
    io::copy(&mut file, &mut io::sink()).cause(Cause::Usage, || unreadable(path))?;
    if found.rows.is_empty() {
        found.rows.push(wrong(PlatformRow::new(platform.clone()), Cause::Product, "it holds no program"));
    }
    let digest = format!("sha256:{}", kit::digest::to_hex(&file.hasher.finalize()));
    Ok(Checked { digest: Some(digest), base: None, rows: found.rows })
}

fn usage(mut error: Error) -> Error {
    error.cause = Cause::Usage;
    error
}

fn unreadable(path: &Path) -> String {
    format!("cannot read {}", path.display())
}

fn plain(path: &Path, file: &mut impl Read, found: &mut Programs<'_>) -> Result<()> {
    let (head, size) = head_and_size(file)?;
    found.add(&name(path), &head, size, true)
}

fn archive(path: &Path, file: &mut impl Read, found: &mut Programs<'_>) -> Result<()> {
    let mut unpacked = layer::decompress(file)?;
    let head = head(&mut unpacked)?;
    if head.is_empty() {
        return Err(Error::new(Cause::Usage, "it is empty"));
    }
    // A single program may have been compressed without an archive around it.
    if program_header("", &head).is_some() {
        let size =
            head.len() as u64 + io::copy(&mut unpacked, &mut io::sink()).cause(Cause::Usage, || "it is damaged")?;
        return found.add(&name(path), &head, size, true);
    }
    let mut rest = head.chain(unpacked);
    layer::tar_entries(&mut rest, |_| HEADER_BYTES, |entry| found.entry(&entry).map(|()| true))?;
    // To the end, so that damage behind the archive's end is found as well.
    io::copy(&mut rest, &mut io::sink()).cause(Cause::Usage, || "it is damaged").map(drop)
}

/// The library reads the central directory entry by entry, whatever size it has.
fn zip(path: &Path, found: &mut Programs<'_>) -> Result<()> {
    use ::zip::{ZipReadOptions, read::Config, unstable::read::ZipIterable};
    let open = || File::open(path).map(BufReader::new).cause(Cause::Usage, || "it cannot be opened");
    let damaged = || "it is no whole zip";
    let mut directory = ZipIterable::try_new(open()?, Config::default()).cause(Cause::Usage, damaged)?;
    // Two headers that differ are a way to show one file and to unpack another.
    directory = directory.enforce_header_consistency(true);
    let mut content = open()?;
    for entry in directory.files().cause(Cause::Usage, damaged)? {
        let entry = entry.cause(Cause::Usage, damaged)?;
        let path = String::from_utf8_lossy(entry.name_raw()).into_owned();
        let (kind, size) = (if entry.is_file() { Kind::File } else { Kind::Other }, entry.size());
        let mut first = Vec::new();
        if kind == Kind::File {
            let broken = || format!("{path} in it");
            let file = entry.with_reader(&mut content, ZipReadOptions::default()).cause(Cause::Usage, broken)?;
            first = head(file).within(broken)?;
        }
        found.entry(&Entry { path, kind, size, head: first, end: 0 })?;
    }
    Ok(())
}

fn head(reader: impl Read) -> Result<Vec<u8>> {
    let mut head = Vec::new();
    reader.take(HEADER_BYTES as u64).read_to_end(&mut head).cause(Cause::Usage, || "it is damaged")?;
    Ok(head)
}

fn head_and_size(mut reader: impl Read) -> Result<(Vec<u8>, u64)> {
    let head = head(&mut reader)?;
    let rest = io::copy(&mut reader, &mut io::sink()).cause(Cause::Usage, || "it breaks off")?;
    let size = head.len() as u64 + rest;
    Ok((head, size))
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The programs of a file, with what is wrong with each.
struct Programs<'a> {
    platform: &'a Platform,
    rows: Vec<PlatformRow>,
    tally: Tally,
}

impl Programs<'_> {
    fn entry(&mut self, entry: &Entry) -> Result<()> {
        self.tally.add(entry.path.len())?;
        if entry.kind == Kind::File { self.add(&clean(&entry.path), &entry.head, entry.size, false) } else { Ok(()) }
    }

    /// Takes a file; what `has_to_be` a program and is none is wrong.
    fn add(&mut self, path: &str, head: &[u8], size: u64, has_to_be: bool) -> Result<()> {
        let begins = head.starts_with(b"\x7fELF");
        let row = PlatformRow { size, ..PlatformRow::new(self.platform.clone()) };
        let row = match program_header(path, head) {
            Some(program) => {
                let needs = least_size(head).filter(|needs| *needs > size);
                let problem = mismatch(&program, self.platform);
                let row = PlatformRow { program: Some(program), ..row };
                match (problem, needs) {
                    (Some(problem), _) => wrong(row, Cause::ImageWrongArch, problem),
                    (None, Some(needs)) => {
                        let what = format!("{path} is cut off: it has {size} bytes and needs at least {needs}");
                        wrong(row, Cause::Product, what)
                    }
                    (None, None) => row,
                }
            }
            None if begins && size < 64 => wrong(row, Cause::Product, format!("{path} is cut off in its header")),
            None if has_to_be => wrong(row, Cause::Product, format!("{path} is no program")),
            None => return Ok(()),
        };
        if self.rows.len() >= PROGRAMS {
            return Err(Error::new(Cause::Usage, format!("it has more than {PROGRAMS} programs, which is the limit")));
        }
        self.rows.push(row);
        Ok(())
    }
}

/// Takes the digest of what is read.
struct Hashing<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..count]);
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use kit::arch::ByteOrder;
    use proptest::prelude::*;

    use super::*;
    use crate::header::tests::elf_bytes;

    fn s390x() -> Vec<u8> {
        elf_bytes(22, 64, ByteOrder::Big)
    }

    fn check(name: &str, bytes: &[u8], platform: &str) -> Result<Checked> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        verify_file(&path, &platform.parse().unwrap())
    }

    fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (path, bytes) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            builder.append_data(&mut header, path, *bytes).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(bytes).unwrap();
        gzip.finish().unwrap()
    }

    fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = ::zip::ZipWriter::new(io::Cursor::new(Vec::new()));
        for (path, bytes) in files {
            writer.start_file(*path, ::zip::write::SimpleFileOptions::default()).unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }

    #[test]
    fn programs_are_found_in_every_kind_of_file() {
        let files: &[(&str, &[u8])] = &[("LICENSE", b"Apache"), ("./tkn", &s390x())];
        let zstd = zstd::encode_all(&tar(files)[..], 1).unwrap();
        for (name, bytes) in [
            ("tkn", s390x()),
            ("tkn.tar", tar(files)),
            ("tkn.tgz", gzip(&tar(files))),
            ("tkn.tar.zst", zstd),
            ("tkn.zip", zip(files)),
            ("tkn.gz", gzip(&s390x())),
        ] {
            let good = check(name, &bytes, "linux/s390x").unwrap();
            assert_eq!(good.rows.len(), 1, "{name}");
            let row = &good.rows[0];
            assert!(row.problem.is_none() && row.size == 64, "{name}: {row:?}");
            assert_eq!(good.digest, Some(kit::digest::sha256(&bytes)), "{name}");
            let bad = check(name, &bytes, "linux/amd64").unwrap();
            assert_eq!(bad.rows[0].cause, Some(Cause::ImageWrongArch), "{name}");
            assert!(bad.rows[0].problem.as_ref().unwrap().contains("is a program for s390x"), "{name}");
        }
    }

    #[test]
    fn what_holds_no_program_or_half_of_one_is_wrong() {
        let text: &[(&str, &[u8])] = &[("README", b"x")];
        for (name, bytes, said) in [
            ("a.tar", tar(text), "it holds no program"),
            ("a.zip", zip(text), "it holds no program"),
            ("a.exe", b"text".to_vec(), "a.exe is no program"),
            ("a", s390x()[..40].to_vec(), "a is cut off in its header"),
            ("a", b"\x7fELF".to_vec(), "a is cut off in its header"),
        ] {
            let row = check(name, &bytes, "linux/s390x").unwrap().rows.remove(0);
            assert_eq!((row.cause, row.problem.as_deref()), (Some(Cause::Product), Some(said)), "{name}");
        }
        let whole = std::fs::read(std::env::current_exe().unwrap()).unwrap();
        let row = check("x", &whole[..whole.len() / 2], &Platform::host().to_string()).unwrap().rows.remove(0);
        assert!(row.problem.as_ref().unwrap().starts_with("x is cut off: it has"), "{row:?}");
        assert!(check("x", &whole, &Platform::host().to_string()).unwrap().rows[0].problem.is_none());
    }

    #[test]
    fn damaged_archives_are_named() {
        let files: &[(&str, &[u8])] = &[("tkn", &s390x()), ("more", &[7; 3000])];
        for (name, bytes) in [
            ("a.tar", tar(files)),
            ("a.tar.gz", gzip(&tar(files))),
            ("a.zip", zip(files)),
            ("b.tar.gz", b"text".to_vec()),
        ] {
            let cut = &bytes[..bytes.len() * 2 / 3];
            assert!(check(name, b"", "linux/s390x").is_err(), "{name}");
            let error = check(name, cut, "linux/s390x").unwrap_err();
            assert!(error.cause == Cause::Usage && error.to_string().contains(name), "{error}");
        }
        let missing = verify_file(Path::new("/nowhere/a.tar"), &Platform::host()).unwrap_err();
        assert!(missing.cause == Cause::Usage && missing.to_string().contains("/nowhere/a.tar"), "{missing}");
        assert!(file_kind(Path::new("/dev/zero")).unwrap_err().to_string().contains("neither a file nor a folder"));
    }

    proptest! {
        #[test]
        fn any_archive_is_survived(
            start in 0..4_usize, bytes in proptest::collection::vec(any::<u8>(), 0..2000), at in 0..2000_usize, value: u8,
        ) {
            let files: &[(&str, &[u8])] = &[("tkn", &s390x()), ("more", &[7; 600])];
            let mut damaged = [tar(files), gzip(&tar(files)), zip(files), bytes][start].clone();
            if let Some(byte) = damaged.get_mut(at) {
                *byte = value;
            }
            for name in ["a.tar", "a.zip", "a"] {
                let _ = check(name, &damaged, "linux/s390x");
            }
        }
    }
}
