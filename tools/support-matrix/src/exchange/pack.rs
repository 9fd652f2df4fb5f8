//! A bundle as one file: the same bundle gives the same bytes.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::Path,
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use kit::{
    Cause, Context, Error, Result,
    bundle::{self, Closed, is_log},
};

/// Bytes of a file in a bundle that travels.
const MAX_FILE: u64 = 512 << 20;
/// Bytes of all its files.
const MAX_TOTAL: u64 = 1 << 30;
/// Bytes of the list.
const MAX_LIST: u64 = 64 << 20;
/// Bytes of the packed file: what a registry's artifact is read up to.
const MAX_PACKED: usize = 64 << 20;
/// Bytes of a name that does not fit into its own header.
const MAX_NAME: u64 = 4 << 10;

/// Packs `closed`, the list first.
///
/// # Errors
/// [`Cause::Usage`] if the bundle is damaged or too large to travel.
pub(super) fn pack(closed: &Closed, with_logs: bool) -> Result<Vec<u8>> {
    let cannot = || format!("cannot pack {}", closed.digest());
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
    let list = kit::rundir::read_limited(&closed.folder().join(bundle::FILE), MAX_LIST)?;
    append(&mut tar, bundle::FILE, &list).cause(Cause::Internal, cannot)?;
    let shed = closed.is_shed();
    for file in closed.files() {
        let log = is_log(&file.path);
        if log && (!with_logs || (shed && !closed.folder().join(&file.path).exists())) {
            continue;
        }
        let bytes = closed.read(&file.path, MAX_FILE)?;
        append(&mut tar, &file.path, &bytes).cause(Cause::Internal, cannot)?;
        if tar.get_ref().get_ref().len() > MAX_PACKED {
            break;
        }
    }
    let packed = tar.into_inner().and_then(GzEncoder::finish).cause(Cause::Internal, cannot)?;
    if packed.len() > MAX_PACKED {
        let what = format!("bundle {} is larger than {} MiB when packed", closed.digest(), MAX_PACKED >> 20);
        return Err(Error::new(Cause::Usage, what).next("push it with --no-logs"));
    }
    Ok(packed)
}

fn append(tar: &mut tar::Builder<GzEncoder<Vec<u8>>>, path: &str, bytes: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    tar.append_data(&mut header, path, bytes)
}

/// Unpacks into a new folder below `parent`, which is named by the list's digest. Only regular files that the list has
/// are taken, each once and with the size that it says.
///
/// # Errors
/// [`Cause::Usage`] for anything else; [`Cause::HostDisk`] if it cannot be written.
pub(super) fn unpack(packed: &[u8], parent: &Path) -> Result<Closed> {
    let mut archive = tar::Archive::new(GzDecoder::new(packed).take(MAX_TOTAL + MAX_LIST + (64 << 20)));
    let unreadable = || "its archive cannot be read";
    // As they stand there: the library would hold whatever describes an entry in memory, however long that is.
    let mut entries = archive.entries().cause(Cause::Usage, unreadable)?.raw(true);
    let first = member(&mut entries)?.ok_or_else(|| Error::new(Cause::Usage, "its archive is empty"))?;
    let (path, mut first) = first;
    let is_list = path == bundle::FILE && first.header().entry_type().is_file();
    if !is_list || first.size() > MAX_LIST {
        return Err(Error::new(Cause::Usage, format!("its archive does not begin with {}", bundle::FILE)));
    }
    let mut list = Vec::new();
    first.read_to_end(&mut list).cause(Cause::Usage, unreadable)?;
    let folder = parent.join(kit::digest::sha256(&list).replace(':', "-"));
    write(&folder.join(bundle::FILE), &mut list.as_slice(), list.len() as u64)?;
    let closed = Closed::open(&folder)?;
    let total = closed.files().iter().map(|file| file.size).fold(0, u64::saturating_add);
    if total > MAX_TOTAL {
        return Err(Error::new(Cause::Usage, format!("its files have {total} bytes, more than {MAX_TOTAL}")));
    }
    while let Some((path, mut entry)) = member(&mut entries)? {
        kit::signal::check()?;
        let is_file = entry.header().entry_type().is_file();
        let Some(file) = closed.file(&path).filter(|file| is_file && entry.size() == file.size) else {
            return Err(Error::new(Cause::Usage, format!("its archive holds '{path}', which its list does not have")));
        };
        write(&folder.join(&file.path), &mut entry, file.size)?;
    }
    let missing = closed.files().iter().find(|file| !folder.join(&file.path).exists());
    match missing {
        Some(file) if is_log(&file.path) => closed.mark_shed()?,
        Some(file) => return Err(Error::new(Cause::Usage, format!("its archive lacks {}", file.path))),
        None => {}
    }
    Ok(closed)
}

/// The next entry with its path. A long path stands in an entry of its own before it, as [`append`] writes it; whatever
/// else may describe an entry is for the caller to refuse.
fn member<'a, R: Read>(entries: &mut tar::Entries<'a, R>) -> Result<Option<(String, tar::Entry<'a, R>)>> {
    let unreadable = || "its archive cannot be read";
    let mut long: Option<Vec<u8>> = None;
    for entry in entries.by_ref() {
        let mut entry = entry.cause(Cause::Usage, unreadable)?;
        if entry.header().entry_type().is_gnu_longname() && long.is_none() && entry.size() <= MAX_NAME {
            let mut name = Vec::new();
            entry.read_to_end(&mut name).cause(Cause::Usage, unreadable)?;
            name.pop_if(|last| *last == 0);
            long = Some(name);
            continue;
        }
        let name = long.unwrap_or_else(|| entry.header().path_bytes().into_owned());
        let path = String::from_utf8(name).cause(Cause::Usage, || "its archive holds a name that is no text")?;
        return Ok(Some((path, entry)));
    }
    match long {
        None => Ok(None),
        Some(_) => Err(Error::new(Cause::Usage, "its archive ends too early")),
    }
}

/// Writes a file that is not there yet.
fn write(path: &Path, from: &mut dyn Read, size: u64) -> Result<()> {
    let mut copy = || -> io::Result<u64> {
        fs::create_dir_all(path.parent().unwrap_or(path))?;
        let mut file = File::create_new(path)?;
        let copied = io::copy(&mut from.take(size), &mut file)?;
        file.flush()?;
        Ok(copied)
    };
    let copied = copy().map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => Error::new(Cause::Usage, format!("its archive holds {} twice", path.display())),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
            Error::from_source(Cause::Usage, "its archive cannot be read", error)
        }
        _ => Error::from_source(Cause::HostDisk, format!("cannot write {}", path.display()), error),
    })?;
    if copied == size { Ok(()) } else { Err(Error::new(Cause::Usage, "its archive ends too early")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn archive(entries: &[(&str, &[u8])]) -> Vec<u8> {
        let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
        for (path, bytes) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_size(bytes.len() as u64);
            header.set_mode(0o644);
            // append_data refuses what leads outside; the name as it is does not.
            let name = path.as_bytes();
            header.as_mut_bytes()[..name.len()].copy_from_slice(name);
            header.set_cksum();
            tar.append(&header, *bytes).unwrap();
        }
        tar.into_inner().unwrap().finish().unwrap()
    }

    fn list(path: &str, content: &[u8]) -> Vec<u8> {
        let digest = kit::digest::sha256(content);
        let file = format!("{{\"path\": {path:?}, \"size\": {}, \"digest\": \"{digest}\"}}", content.len());
        format!("{{\"schemaVersion\": \"1.0\", \"run\": \"r\", \"files\": [{file}]}}").into_bytes()
    }

    #[test]
    fn only_what_the_list_has_is_unpacked() {
        let good = list("a.json", b"{}");
        type Entries<'a> = Vec<(&'a str, &'a [u8])>;
        let cases: [(&str, Entries<'_>); 8] = [
            ("", vec![("bundle.json", &good), ("a.json", b"{}")]),
            ("does not begin with bundle.json", vec![("a.json", b"{}"), ("bundle.json", &good)]),
            ("which its list does not have", vec![("bundle.json", &good), ("../a.json", b"{}")]),
            ("which its list does not have", vec![("bundle.json", &good), ("/etc/passwd", b"{}")]),
            ("which its list does not have", vec![("bundle.json", &good), ("a.json", b"{}"), ("b.json", b"{}")]),
            ("which its list does not have", vec![("bundle.json", &good), ("a.json", b"{ }")]),
            ("twice", vec![("bundle.json", &good), ("a.json", b"{}"), ("a.json", b"{}")]),
            ("lacks a.json", vec![("bundle.json", &good)]),
        ];
        for (said, entries) in cases {
            let folder = tempfile::tempdir().unwrap();
            let found = unpack(&archive(&entries), folder.path());
            match said {
                "" => assert!(found.unwrap().verify().is_ok()),
                said => {
                    let error = found.unwrap_err();
                    assert!(error.cause == Cause::Usage && error.to_string().contains(said), "{said}: {error}");
                }
            }
            assert!(!folder.path().parent().unwrap().join("a.json").exists());
        }
        for outside in ["../../x", "a/../b", "", "bundle.json", ".logs-removed", "a/.new-b"] {
            let folder = tempfile::tempdir().unwrap();
            let bad = list(outside, b"{}");
            assert!(unpack(&archive(&[("bundle.json", &bad)]), folder.path()).is_err(), "{outside}");
        }
        for garbage in [&b""[..], b"garbage", &archive(&[])] {
            let folder = tempfile::tempdir().unwrap();
            assert_eq!(unpack(garbage, folder.path()).unwrap_err().cause, Cause::Usage);
        }
    }
    #[test]
    fn long_names_travel_and_nothing_else_may_describe_a_file() {
        let long = format!("logs/{}.log", "x".repeat(200));
        let good = list(&long, b"a log");
        let made = |kind: Option<(tar::EntryType, &[u8])>| {
            let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
            append(&mut tar, bundle::FILE, &good).unwrap();
            if let Some((kind, bytes)) = kind {
                let mut header = tar::Header::new_ustar();
                header.set_entry_type(kind);
                header.set_size(bytes.len() as u64);
                header.set_cksum();
                tar.append(&header, bytes).unwrap();
            }
            append(&mut tar, &long, b"a log").unwrap();
            let folder = tempfile::tempdir().unwrap();
            unpack(&tar.into_inner().unwrap().finish().unwrap(), folder.path()).and_then(|closed| closed.verify())
        };
        made(None).unwrap();
        // What the library would take in whole, and go on.
        let comment = format!("1000014 comment={}\n", "x".repeat(1_000_000 - 3));
        assert_eq!(comment.len(), 1_000_014);
        let name = vec![b'x'; 100_000];
        for (kind, bytes) in [
            (tar::EntryType::XHeader, comment.as_bytes()),
            (tar::EntryType::XGlobalHeader, comment.as_bytes()),
            (tar::EntryType::GNULongLink, &name),
            (tar::EntryType::GNULongName, &name),
            (tar::EntryType::GNULongName, b"logs/other.log"),
        ] {
            let error = made(Some((kind, bytes))).unwrap_err();
            assert_eq!(error.cause, Cause::Usage, "{kind:?}: {error}");
        }
    }
}
