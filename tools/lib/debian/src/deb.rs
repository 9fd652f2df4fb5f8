//! Reading Debian's packages: an ar archive that holds two tar archives (deb(5)).

use std::io::Read;

use kit::{Cause, Context, Error, Result};

/// Decompressed bytes of one package; more is taken as an attack.
const BYTES_LIMIT: u64 = 2 << 30;

/// The members of a package that matter.
pub struct Deb {
    /// Name, version and so on, as dpkg keeps them.
    pub control: String,
    /// The files, as a tar archive.
    pub data: Vec<u8>,
}

/// Takes a package apart.
///
/// # Errors
/// [`Cause::Registry`] if it is damaged.
pub fn read(bytes: &[u8]) -> Result<Deb> {
    let (mut control, mut data) = (None, None);
    for (name, member) in members(bytes)? {
        match name.split_once(".tar") {
            Some(("control", compression)) => control = Some(decompress(compression, member)?),
            Some(("data", compression)) => data = Some(decompress(compression, member)?),
            _ => {}
        }
    }
    let missing = |what: &str| Error::new(Cause::Registry, format!("a package without {what}"));
    let control = control_text(&control.ok_or_else(|| missing("control archive"))?)?;
    Ok(Deb { control, data: data.ok_or_else(|| missing("data archive"))? })
}

fn members(bytes: &[u8]) -> Result<Vec<(String, &[u8])>> {
    let damaged = || Error::new(Cause::Registry, "a package that is no ar archive");
    let mut rest = bytes.strip_prefix(b"!<arch>\n").ok_or_else(damaged)?;
    let mut members = Vec::new();
    while rest.len() >= 60 {
        let (header, after) = rest.split_at(60);
        let text = |range: std::ops::Range<usize>| String::from_utf8_lossy(&header[range]).trim().to_owned();
        let size: usize = text(48..58).parse().map_err(|_| damaged())?;
        let member = after.get(..size).ok_or_else(damaged)?;
        members.push((text(0..16).trim_end_matches('/').to_owned(), member));
        rest = after.get(size + size % 2..).unwrap_or_default();
    }
    Ok(members)
}

fn decompress(compression: &str, bytes: &[u8]) -> Result<Vec<u8>> {
    let broken = || "a package that cannot be decompressed";
    let mut reader: Box<dyn Read> = match compression {
        "" => Box::new(bytes),
        ".gz" => Box::new(flate2::read::MultiGzDecoder::new(bytes)),
        ".xz" => Box::new(xz2::read::XzDecoder::new_multi_decoder(bytes)),
        ".zst" => Box::new(zstd::Decoder::new(bytes).cause(Cause::Registry, broken)?),
        other => return Err(Error::new(Cause::Registry, format!("a package compressed as '{other}'"))),
    };
    let mut plain = Vec::new();
    reader.by_ref().take(BYTES_LIMIT + 1).read_to_end(&mut plain).cause(Cause::Registry, broken)?;
    if plain.len() as u64 > BYTES_LIMIT {
        return Err(Error::new(Cause::Registry, format!("a package of more than {BYTES_LIMIT} bytes")));
    }
    Ok(plain)
}

fn control_text(archive: &[u8]) -> Result<String> {
    let broken = || "a package whose control archive cannot be read";
    for entry in tar::Archive::new(archive).entries().cause(Cause::Registry, broken)? {
        let mut entry = entry.cause(Cause::Registry, broken)?;
        if [&b"./control"[..], b"control"].contains(&entry.path_bytes().as_ref()) {
            let mut text = String::new();
            entry.by_ref().take(1 << 20).read_to_string(&mut text).cause(Cause::Registry, broken)?;
            return Ok(text);
        }
    }
    Err(Error::new(Cause::Registry, "a package without control file"))
}

/// A member of an ar archive.
fn member(name: &str, content: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{name:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", 0, 0, 0, 100_644, content.len()).into_bytes();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len() + content.len() % 2, b'\n');
    bytes
}

/// A package with a control file and these files: for tests, here and of those who use this crate.
///
/// # Panics
/// If an archive of them cannot be made in memory.
#[must_use]
pub fn sample(files: &[(&str, &[u8])]) -> Vec<u8> {
    let archive = |files: &[(&str, &[u8])]| {
        let mut builder = tar::Builder::new(Vec::new());
        for (name, content) in files {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(0o755);
            header.set_entry_type(tar::EntryType::Regular);
            builder.append_data(&mut header, name, *content).unwrap();
        }
        builder.into_inner().unwrap()
    };
    let control = archive(&[("./control", b"Package: sample\nVersion: 1\n")]);
    let data = zstd::encode_all(&archive(files)[..], 1).unwrap();
    [
        &b"!<arch>\n"[..],
        &member("debian-binary", b"2.0\n"),
        &member("control.tar", &control),
        &member("data.tar.zst", &data),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_package_is_taken_apart() {
        let deb = read(&sample(&[("./bin/x", b"y")])).unwrap();
        assert!(deb.control.contains("Package: sample"));
        assert!(deb.data.len() >= 1024);
    }

    proptest! {
        #[test]
        fn any_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            let _ = read(&bytes);
            let _ = read(&[&b"!<arch>\n"[..], &bytes].concat());
        }

        #[test]
        fn a_damaged_package_is_survived(at in 0_usize..1200, value in any::<u8>()) {
            let mut bytes = sample(&[("./bin/x", b"y")]);
            let at = at % bytes.len();
            bytes[at] = value;
            let _ = read(&bytes);
        }
    }
}
