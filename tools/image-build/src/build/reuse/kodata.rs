//! The folder `kodata` beside a command, which ko puts into the image.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use kit::{Result, digest};

use super::packages::unknown;

/// Links to folders inside linked folders, at most so deep: ko goes round in a circle.
const DEPTH: usize = 16;
/// Files; no image has so many.
const FILES: usize = 100_000;

/// A digest over names and contents, links followed as ko follows them; nothing if there is no such folder.
///
/// # Errors
/// What cannot be read: ko will say the same of it, or something else.
pub(super) fn digest(command: &Path) -> Result<Option<String>> {
    let root = command.join("kodata");
    if !root.is_dir() {
        return Ok(None);
    }
    let (mut lines, mut files) = (Vec::new(), 0);
    add(&root, &mut PathBuf::new(), 0, &mut files, &mut lines).map_err(|error| match error {
        Fault::Read(path, error) => unknown(format!("{}: {error}", path.display())),
        Fault::TooMuch => unknown(format!("{} has more than {FILES} files or links in a circle", root.display())),
    })?;
    Ok(Some(digest::sha256(&lines)))
}

enum Fault {
    Read(PathBuf, io::Error),
    TooMuch,
}

fn add(folder: &Path, name: &mut PathBuf, depth: usize, files: &mut usize, lines: &mut Vec<u8>) -> Result<(), Fault> {
    use std::os::unix::ffi::OsStrExt;
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| Fault::Read(path, error)
    };
    let entries = fs::read_dir(folder).map_err(failed(folder))?;
    let mut entries = entries.collect::<Result<Vec<_>, _>>().map_err(failed(folder))?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        *files += 1;
        if *files > FILES || depth > DEPTH {
            return Err(Fault::TooMuch);
        }
        let link = entry.file_type().map_err(failed(&path))?.is_symlink();
        let what = fs::metadata(&path).map_err(failed(&path))?;
        name.push(entry.file_name());
        if what.is_dir() {
            add(&path, name, depth + usize::from(link), files, lines)?;
        } else if what.is_file() {
            let content = digest::sha256_file(&path)
                .map_err(|error| Fault::Read(path.clone(), io::Error::other(error.summary())))?;
            // For Windows ko leaves links out.
            let kind = if link { "link" } else { "file" };
            let bytes = name.as_os_str().as_bytes();
            lines.extend_from_slice(format!("{kind} {content} {} ", bytes.len()).as_bytes());
            lines.extend_from_slice(bytes);
            lines.push(b'\n');
        } else {
            return Err(Fault::Read(path, io::Error::other("it is neither file nor folder")));
        }
        name.pop();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn names_contents_and_what_links_lead_to_count() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        assert_eq!(digest(folder.path()).unwrap(), None);
        fs::create_dir_all(path("kodata/sub")).unwrap();
        fs::write(path("LICENSE"), "free").unwrap();
        fs::write(path("kodata/sub/a"), "a").unwrap();
        symlink("../LICENSE", path("kodata/LICENSE")).unwrap();
        let mut seen = vec![digest(folder.path()).unwrap()];
        let mut changed = |what: &str| {
            let now = digest(folder.path()).unwrap();
            assert!(!seen.contains(&now), "{what}");
            seen.push(now);
        };
        fs::write(path("LICENSE"), "dear").unwrap();
        changed("what a link leads to");
        fs::rename(path("kodata/sub/a"), path("kodata/sub/b")).unwrap();
        changed("a name");
        fs::create_dir(path("else")).unwrap();
        fs::write(path("else/c"), "c").unwrap();
        symlink("../else", path("kodata/else")).unwrap();
        changed("a linked folder");
        fs::write(path("else/c"), "d").unwrap();
        changed("a file in a linked folder");
        assert_eq!(digest(folder.path()).unwrap(), *seen.last().unwrap());
        symlink("nowhere", path("kodata/broken")).unwrap();
        assert!(digest(folder.path()).unwrap_err().to_string().contains("kodata/broken"));
        fs::remove_file(path("kodata/broken")).unwrap();
        symlink(".", path("kodata/circle")).unwrap();
        assert!(digest(folder.path()).unwrap_err().to_string().contains("in a circle"));
    }
}
