//! The logs of the lab's programs: printed by `logs`, kept small by the supervisor.
//!
//! Programs append to their logs by themselves. One that has become too long is cut: its last part goes to a
//! second file, and the program goes on at the beginning of the first.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use kit::{Cause, Context, Done, Error, Result};

use crate::layout::Layout;

/// A longer log is cut, in bytes. There is as much again in its second file.
pub(crate) const LIMIT: u64 = 64 << 20;
/// A longer line is printed in pieces, in bytes.
const LINE: u64 = 1 << 20;

/// Cuts the logs of `folder` that are longer than `limit` bytes.
pub(crate) fn rotate(folder: &Path, limit: u64) {
    let logs = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    for log in logs.filter(|path| is_log(path)) {
        if let Err(error) = cut(&log, limit) {
            eprintln!("{} cannot cut {}: {error}", jiff::Timestamp::now(), log.display());
        }
    }
}

fn cut(log: &Path, limit: u64) -> io::Result<()> {
    let length = fs::metadata(log)?.len();
    if length <= limit {
        return Ok(());
    }
    let mut file = File::options().read(true).write(true).open(log)?;
    file.seek(SeekFrom::Start(length - limit))?;
    io::copy(&mut Read::by_ref(&mut file).take(limit), &mut File::create(log.with_extension("old"))?)?;
    // What was written in between is lost; everyone writes at the end, wherever that is.
    file.set_len(0)
}

fn is_log(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "log")
}

/// Prints logs, of one program or all, each line with the program's name.
pub(crate) fn print(layout: &Layout, program: Option<&str>, follow: bool) -> Result<Done> {
    let mut logs = open(layout, program)?;
    let mut print = |all: bool| -> Result<bool> {
        for (name, file) in &mut logs {
            let prefix = if program.is_some() { String::new() } else { format!("{name}: ") };
            match copy(file, &prefix, all, &mut io::stdout().lock()) {
                // The reader has seen enough, as with `| head`.
                Err(error) if error.kind() == ErrorKind::BrokenPipe => return Ok(false),
                other => other.cause(Cause::HostDisk, || format!("cannot print the log of {name}"))?,
            }
        }
        Ok(true)
    };
    let mut wanted = print(!follow)?;
    if follow && wanted {
        let end = || Error::new(Cause::Interrupted, "a year is over");
        kit::retry::until(Duration::from_secs(365 * 86_400), end, || {
            wanted = print(false)?;
            Ok((!wanted).then_some(()))
        })?;
    }
    Ok(Done::good())
}

fn open(layout: &Layout, program: Option<&str>) -> Result<Vec<(String, File)>> {
    let folder = layout.logs();
    let none = || {
        Error::new(Cause::Usage, format!("lab '{}' has no such log in {}", layout.name, folder.display()))
            .next("programs are listed by `lab status --output json`")
    };
    let entries = fs::read_dir(&folder).map_err(|_| none())?;
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(|path| is_log(path)).collect();
    paths.sort();
    let named = paths.into_iter().filter_map(|path| {
        let name = path.file_stem()?.to_str()?.to_owned();
        program.is_none_or(|program| program == name).then(|| File::open(&path).ok().map(|file| (name, file)))?
    });
    let logs: Vec<_> = named.collect();
    if logs.is_empty() { Err(none()) } else { Ok(logs) }
}

/// Prints the lines that have come since the last call; one that has not ended yet only if `all` is wanted.
fn copy(file: &mut File, prefix: &str, all: bool, out: &mut impl Write) -> io::Result<()> {
    if file.metadata()?.len() < file.stream_position()? {
        // It was cut.
        file.rewind()?;
    }
    loop {
        let begin = file.stream_position()?;
        let mut bytes = Vec::new();
        Read::by_ref(file).take(LINE).read_to_end(&mut bytes)?;
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map(|end| end + 1);
        let piece = (all || bytes.len() as u64 == LINE).then_some(bytes.len());
        let Some(end) = whole.or(piece).filter(|end| *end > 0) else {
            file.seek(SeekFrom::Start(begin))?;
            return out.flush();
        };
        file.seek(SeekFrom::Start(begin + end as u64))?;
        for line in String::from_utf8_lossy(&bytes[..end]).lines() {
            writeln!(out, "{prefix}{}", kit::ui::printable(line))?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(file: &mut File, all: bool) -> String {
        let mut out = Vec::new();
        copy(file, "x: ", all, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_byte_is_printed_once_however_the_lines_are() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        let long = "y".repeat(LINE as usize + 10);
        fs::write(&path, format!("a\n{long}\nb\nno end")).unwrap();
        let mut file = File::open(&path).unwrap();
        let early = printed(&mut file, false);
        assert!(early.starts_with("x: a\nx: yyy") && early.ends_with("\nx: b\n"), "{}", early.len());
        assert_eq!(early.matches('y').count(), long.len());
        assert_eq!(printed(&mut file, false), "");
        assert_eq!(printed(&mut file, true), "x: no end\n");
        assert_eq!(printed(&mut file, true), "");
    }

    #[test]
    fn a_log_that_is_too_long_is_cut_under_whoever_writes_and_reads_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.log");
        let mut writer = File::options().create(true).append(true).open(&path).unwrap();
        let mut reader = File::open(&path).unwrap();
        writer.write_all(b"one\ntwo\n").unwrap();
        assert_eq!(printed(&mut reader, false), "x: one\nx: two\n");
        rotate(folder.path(), 8);
        assert_eq!(fs::metadata(&path).unwrap().len(), 8, "not too long");
        rotate(folder.path(), 4);
        writer.write_all(b"new\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "new\n");
        assert_eq!(fs::read_to_string(folder.path().join("x.old")).unwrap(), "two\n");
        assert_eq!(printed(&mut reader, false), "x: new\n");
    }
}
