//! Reading a root file system out of a tar archive that nobody here made.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read},
    path::Path,
};

use kit::{Cause, Context, Error, Result, Within};
use oci::Extension;

use super::spool::{About, BYTES_LIMIT, CAPABILITY, CAPABILITY_BYTES, Spool, wrong};

/// Of a whole archive when decompressed: files, and as much again for headers, padding and repeated entries.
const ARCHIVE_LIMIT: u64 = 2 * BYTES_LIMIT;
/// What xz may take to decompress: more than its highest level needs.
const XZ_MEMORY: u64 = 128 << 20;

/// Reads an archive, plain or compressed by gzip, zstd or xz, into a spool.
///
/// # Errors
/// [`Cause::Usage`] naming the archive and the entry that cannot be.
pub(crate) fn read(path: &Path, spool: &mut Spool) -> Result<()> {
    let shown = || path.display().to_string();
    let file = File::open(path).cause(Cause::Usage, || format!("cannot read {}", path.display()))?;
    let reader = decompress(BufReader::with_capacity(64 << 10, file)).within(shown)?;
    unpack(&mut reader.take(ARCHIVE_LIMIT), spool).within(shown)
}

fn decompress(mut reader: BufReader<File>) -> Result<Box<dyn Read>> {
    let broken = || "it cannot be read";
    let start = reader.fill_buf().cause(Cause::Usage, broken)?;
    Ok(match start {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(reader)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => {
            let mut decoder = zstd::Decoder::with_buffer(reader).cause(Cause::Usage, broken)?;
            // As for layers: what `zstd --long` makes by default, and a bound on memory.
            decoder.window_log_max(27).cause(Cause::Usage, broken)?;
            Box::new(decoder)
        }
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => {
            let stream = xz2::stream::Stream::new_stream_decoder(XZ_MEMORY, 0).cause(Cause::Usage, broken)?;
            Box::new(xz2::bufread::XzDecoder::new_stream(reader, stream))
        }
        [b'B', b'Z', b'h', ..] => return Err(wrong("it is compressed by bzip2: use gzip, zstd or xz")),
        _ => Box::new(reader),
    })
}

/// Reads a plain archive.
pub(crate) fn unpack(reader: &mut dyn Read, spool: &mut Spool) -> Result<()> {
    let broken = || "it is no tar archive, or a damaged one";
    let mut archive = tar::Archive::new(reader);
    let mut extension = Extension::default();
    // Raw: the library would read a long name of any length into memory.
    for entry in archive.entries().cause(Cause::Usage, broken)?.raw(true) {
        let mut entry = entry.cause(Cause::Usage, broken)?;
        if extension.take(&mut entry).cause(Cause::Usage, || "what it says of an entry cannot be used")? {
            continue;
        }
        let names = std::mem::take(&mut extension);
        let said = said(&names)?;
        let path = match names.path {
            Some(path) => text(&path)?,
            None => text(&entry.path_bytes())?,
        };
        let Some(place) = spool.place(&path)? else { continue };
        let header = entry.header().clone();
        let number = |number: std::io::Result<u64>| number.cause(Cause::Usage, || format!("{path}: {}", broken()));
        let about = About {
            mode: header.mode().cause(Cause::Usage, || format!("{path}: {}", broken()))? & 0o7777,
            uid: said.uid.map_or_else(|| number(header.uid()), Ok)?,
            gid: said.gid.map_or_else(|| number(header.gid()), Ok)?,
            capability: said.capability,
        };
        let link = match names.link {
            Some(link) => text(&link)?,
            None => text(&header.link_name_bytes().unwrap_or_default())?,
        };
        match header.entry_type() {
            tar::EntryType::Regular | tar::EntryType::Continuous => spool.file(place, about, &mut entry)?,
            tar::EntryType::Directory => spool.directory(place, about),
            tar::EntryType::Symlink => spool.symlink(place, link, about)?,
            tar::EntryType::Link => spool.hardlink(place, &link)?,
            tar::EntryType::Char | tar::EntryType::Block | tar::EntryType::Fifo => return Err(special(&path)),
            other => {
                return Err(wrong(format!("{path} is of a kind that no image has ({:?})", other.as_byte() as char)));
            }
        }
    }
    Ok(())
}

/// Why a device, a pipe or a socket is refused.
pub(crate) fn special(path: &str) -> Error {
    wrong(format!("{path} is a device, a pipe or a socket, which no image may bring"))
        .next("leave it out with --drop, as in --drop /dev; container runtimes make /dev themselves")
}

fn text(bytes: &[u8]) -> Result<String> {
    let text = str::from_utf8(bytes).map_err(|_| {
        let shown: String = String::from_utf8_lossy(bytes).chars().take(200).collect();
        wrong(format!("the name '{shown}' is no UTF-8"))
    })?;
    Ok(text.trim_end_matches('\0').to_owned())
}

/// Owners and rights that pax records say.
#[derive(Default)]
struct Said {
    uid: Option<u64>,
    gid: Option<u64>,
    capability: Option<Vec<u8>>,
}

fn said(extension: &Extension) -> Result<Said> {
    if extension.malformed {
        return Err(wrong("its pax records cannot be read"));
    }
    let number = |value: &[u8]| {
        let parsed = str::from_utf8(value).ok().and_then(|text| text.parse().ok());
        parsed.ok_or_else(|| wrong("an owner in its pax records is no number"))
    };
    let mut said = Said::default();
    for (key, value) in &extension.records {
        match key.as_slice() {
            b"uid" => said.uid = Some(number(value)?),
            b"gid" => said.gid = Some(number(value)?),
            key if key.strip_prefix(b"SCHILY.xattr.") == Some(CAPABILITY.as_bytes()) => {
                if value.len() > CAPABILITY_BYTES {
                    return Err(wrong(format!("it has a capability of more than {CAPABILITY_BYTES} bytes")));
                }
                said.capability = Some(value.clone());
            }
            _ => {}
        }
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Write};

    use oci::Layout;
    use proptest::prelude::*;
    use tar::EntryType;

    use super::*;

    type Part = dyn Fn(&mut Vec<u8>);
    type Compress = dyn Fn(&[u8]) -> Vec<u8>;

    /// An entry with whatever name, as no library would write it.
    fn entry(archive: &mut Vec<u8>, name: &[u8], kind: EntryType, content: &[u8], change: impl Fn(&mut tar::Header)) {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name);
        header.set_entry_type(kind);
        header.set_size(content.len() as u64);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(77);
        change(&mut header);
        header.set_cksum();
        archive.extend_from_slice(header.as_bytes());
        archive.extend_from_slice(content);
        archive.resize(archive.len().next_multiple_of(512), 0);
    }

    fn one(name: &str, kind: EntryType) -> Vec<u8> {
        let mut archive = Vec::new();
        entry(&mut archive, name.as_bytes(), kind, b"", |header| header.set_link_name("x").unwrap());
        archive
    }

    fn spooled(archive: &[u8]) -> Result<Spool> {
        let mut spool = Spool::with_limits(&["/dev".to_owned()], 2000, 5)?;
        unpack(&mut &*archive, &mut spool)?;
        spool.check(&"linux/s390x".parse().unwrap())?;
        Ok(spool)
    }

    /// Path, kind, mode, owners, content or target of each entry of the layer.
    fn layer(spool: &mut Spool) -> (String, Vec<String>) {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::create(folder.path()).unwrap();
        let (descriptor, diff_id) = spool.write(&layout).unwrap();
        let mut bytes = Vec::new();
        let file = File::open(layout.path(&descriptor)).unwrap();
        flate2::read::GzDecoder::new(file).read_to_end(&mut bytes).unwrap();
        assert_eq!(kit::digest::sha256(&bytes), diff_id);
        let mut found = Vec::new();
        for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let capability: Vec<_> = entry
                .pax_extensions()
                .unwrap()
                .into_iter()
                .flatten()
                .flatten()
                .map(|record| record.key().unwrap().to_owned())
                .collect();
            let mut content = String::new();
            entry.read_to_string(&mut content).unwrap();
            let header = entry.header();
            assert_eq!(header.mtime().unwrap(), 0);
            let link = entry.link_name().unwrap().map_or_else(String::new, |link| format!("->{}", link.display()));
            found.push(format!(
                "{} {:?} {:o} {}:{} {content}{link}{}",
                entry.path().unwrap().display(),
                header.entry_type(),
                header.mode().unwrap(),
                header.uid().unwrap(),
                header.gid().unwrap(),
                capability.join("")
            ));
        }
        (descriptor.digest().to_string(), found)
    }

    #[test]
    fn owners_and_modes_are_kept_and_times_and_order_are_not() {
        let pax = b"40 SCHILY.xattr.security.capability=abc\n18 uid=4000000000\n10 a.b=cd\n";
        let parts: [&Part; 3] = [
            &|archive| entry(archive, b"./", EntryType::Directory, b"", |_| {}),
            &|archive| {
                entry(archive, b"pax", EntryType::XHeader, pax, |_| {});
                entry(archive, b"./b/ping", EntryType::Regular, b"x", |header| {
                    header.set_mode(0o4755);
                    header.set_gid(7);
                });
                entry(archive, b"./a", EntryType::Link, b"", |header| header.set_link_name("./b/ping").unwrap());
            },
            &|archive| {
                entry(archive, b"c", EntryType::Symlink, b"", |header| {
                    header.set_link_name("/b/../../ping").unwrap();
                    header.set_mtime(99);
                })
            },
        ];
        let made = |order: [usize; 3]| {
            let mut archive = Vec::new();
            order.iter().for_each(|part| parts[*part](&mut archive));
            layer(&mut spooled(&archive).unwrap())
        };
        let (digest, found) = made([0, 1, 2]);
        let file = "4755 4000000000:7";
        let wanted = [
            format!("a Regular {file} xSCHILY.xattr.security.capability"),
            "b/ Directory 755 0:0 ".into(),
            format!("b/ping Link {file} ->aSCHILY.xattr.security.capability"),
            "c Symlink 777 0:0 ->/b/../../ping".into(),
        ];
        assert_eq!(found, wanted);
        assert_eq!(made([2, 1, 0]).0, digest);
    }

    #[test]
    fn what_is_no_root_is_refused_by_name() {
        let mut cases: BTreeMap<&str, Vec<u8>> = BTreeMap::from([
            ("../x leads out of the root", one("../x", EntryType::Regular)),
            ("a/../../x leads out of the root", one("a/../../x", EntryType::Symlink)),
            ("/etc/x is an absolute path", one("/etc/x", EntryType::Regular)),
            ("mem is a device", one("mem", EntryType::Char)),
            ("disk is a device", one("disk", EntryType::Block)),
            ("pipe is a device, a pipe", one("pipe", EntryType::Fifo)),
            (".wh.etc would delete something", one(".wh.etc", EntryType::Regular)),
            ("hard is another name of x", one("hard", EntryType::Link)),
            ("odd is of a kind that no image has ('V')", one("odd", EntryType::new(b'V'))),
            ("no tar archive, or a damaged one", b"nonsense".repeat(100)),
            ("it is empty", one("dev/null", EntryType::Char)),
        ]);
        let mut below = one("a", EntryType::Symlink);
        below.extend(one("a/b", EntryType::Regular));
        cases.insert("a/b lies below a, which is no folder", below);
        cases
            .insert("more than 5 entries", (0..6).flat_map(|at| one(&format!("{at}"), EntryType::Directory)).collect());
        let mut name = Vec::new();
        entry(&mut name, b"caf\xe9", EntryType::Regular, b"", |_| {});
        cases.insert("is no UTF-8", name);
        let mut large = Vec::new();
        entry(&mut large, b"large", EntryType::Regular, &[0; 2001], |_| {});
        cases.insert("more than 2000 bytes", large);
        let mut cut = Vec::new();
        entry(&mut cut, b"cut", EntryType::Regular, &[0; 1000], |_| {});
        cut.truncate(700);
        cases.insert("no tar archive, or a damaged one: unexpected EOF", cut);
        let mut long = Vec::new();
        entry(&mut long, b"long", EntryType::GNULongName, &vec![b'a'; 3 << 20], |_| {});
        cases.insert("a name of more than a mebibyte", long);
        let capability = format!("103 SCHILY.xattr.security.capability={}\n", "x".repeat(65));
        for (record, said) in [
            (capability.as_str(), "a capability of more than 64 bytes"),
            ("20 GNU.sparse.map=1\n", "a sparse file"),
            ("10 size=1\n", "more than 8 GiB"),
            ("9 uid=-1\n", "no number"),
        ] {
            let mut pax = Vec::new();
            entry(&mut pax, b"pax", EntryType::XHeader, record.as_bytes(), |_| {});
            entry(&mut pax, b"file", EntryType::Regular, b"", |_| {});
            cases.insert(said, pax);
        }
        for (said, archive) in cases {
            let Err(error) = spooled(&archive) else { panic!("not refused: {said}") };
            assert_eq!(error.cause, Cause::Usage, "{error}");
            assert!(error.to_string().contains(said), "{said}: {error}");
        }
    }

    #[test]
    fn a_root_for_another_machine_is_told_by_its_programs() {
        let mut header = vec![0; 64];
        header[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
        (header[18], header[20]) = (62, 1);
        let mut archive = Vec::new();
        entry(&mut archive, b"bin/sh", EntryType::Regular, &header, |_| {});
        let Err(error) = spooled(&archive) else { panic!("not refused") };
        assert_eq!(error.cause, Cause::ImageWrongArch);
        assert_eq!(error.summary(), "its programs are not for linux/s390x but for amd64 (for instance /bin/sh)");
    }

    #[test]
    fn compressions_are_told_by_their_beginning_and_a_bomb_is_not_unpacked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("root");
        let good = one("a", EntryType::Directory);
        let mut bomb = Vec::new();
        entry(&mut bomb, b"bomb", EntryType::Regular, &vec![0; 4 << 20], |_| {});
        let gzip = |bytes: &[u8]| {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        let xz = |bytes: &[u8]| {
            let mut encoder = xz2::write::XzEncoder::new(Vec::new(), 6);
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        };
        let zstd = |bytes: &[u8]| zstd::encode_all(bytes, 3).unwrap();
        let plain = |bytes: &[u8]| bytes.to_vec();
        let compressions: [&Compress; 4] = [&plain, &gzip, &xz, &zstd];
        for compress in compressions {
            let mut spool = Spool::with_limits(&[], 2000, 5).unwrap();
            std::fs::write(&path, compress(&good)).unwrap();
            read(&path, &mut spool).unwrap();
            std::fs::write(&path, compress(&bomb)).unwrap();
            let error = read(&path, &mut spool).unwrap_err();
            assert!(error.to_string().contains("more than 2000 bytes"), "{error}");
        }
        std::fs::write(&path, b"BZh91AY").unwrap();
        let error = read(&path, &mut Spool::new(&[]).unwrap()).unwrap_err();
        assert!(error.to_string().contains("bzip2"), "{error}");
    }

    proptest! {
        #[test]
        fn a_damaged_archive_is_survived(at in 0_usize..3000, value in any::<u8>()) {
            let mut archive = Vec::new();
            entry(&mut archive, b"pax", EntryType::XHeader, b"10 path=y\n", |_| {});
            entry(&mut archive, b"a/b", EntryType::Regular, b"abc", |_| {});
            entry(&mut archive, b"c", EntryType::Link, b"", |header| header.set_link_name("y").unwrap());
            if let Some(byte) = archive.get_mut(at) {
                *byte = value;
            }
            let _ = spooled(&archive);
        }
    }
}
