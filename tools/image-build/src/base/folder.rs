//! Reading a root file system out of a folder of this machine.

use std::{
    collections::HashMap,
    fs::{self, Metadata},
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use kit::{Cause, Context, Result, Within};

use super::{
    archive::special,
    spool::{About, CAPABILITY, CAPABILITY_BYTES, Spool, wrong},
};

/// Reads a folder with all below it into a spool. Owners and modes are kept.
///
/// # Errors
/// [`Cause::Usage`] naming what cannot be read or cannot be in an image.
pub(crate) fn read(root: &Path, spool: &mut Spool) -> Result<()> {
    let device = metadata(root)?.dev();
    // The first name of files with several.
    let mut names: HashMap<u64, String> = HashMap::new();
    let mut todo = vec![String::new()];
    while let Some(folder) = todo.pop() {
        let path = root.join(&folder);
        let entries = fs::read_dir(&path).and_then(Iterator::collect::<std::io::Result<Vec<_>>>);
        let mut entries = entries.cause(Cause::Usage, || format!("cannot read {}", path.display()))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let path = entry.path();
            let Some(name) = entry.file_name().to_str().map(String::from) else {
                return Err(wrong(format!("the name {} is no UTF-8", path.display())));
            };
            let inside = if folder.is_empty() { name } else { format!("{folder}/{name}") };
            let Some(place) = spool.place(&inside)? else { continue };
            let about = metadata(&path)?;
            if about.dev() != device {
                return Err(wrong(format!("{} is on another file system: something is mounted there", path.display()))
                    .next("unmount it, or leave it out with --drop"));
            }
            add(&path, place, &about, &mut names, spool).within(|| root.display().to_string())?;
            if about.is_dir() {
                todo.push(inside);
            }
        }
    }
    Ok(())
}

fn add(
    path: &Path,
    place: String,
    metadata: &Metadata,
    names: &mut HashMap<u64, String>,
    spool: &mut Spool,
) -> Result<()> {
    let kind = metadata.file_type();
    let failed = || format!("cannot read {}", path.display());
    let about = About {
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid().into(),
        gid: metadata.gid().into(),
        capability: if kind.is_file() { capability(path) } else { None },
    };
    if kind.is_dir() {
        spool.directory(place, about);
    } else if kind.is_symlink() {
        let target = fs::read_link(path).cause(Cause::Usage, failed)?;
        let Some(target) = target.to_str() else {
            return Err(wrong(format!("/{place} is a link to a name that is no UTF-8")));
        };
        spool.symlink(place, target.into(), about)?;
    } else if kind.is_file() {
        if metadata.nlink() > 1 {
            if let Some(first) = names.get(&metadata.ino()) {
                return spool.hardlink(place, first);
            }
            names.insert(metadata.ino(), place.clone());
        }
        let mut file = fs::File::open(path).cause(Cause::Usage, failed)?;
        spool.file(place, about, &mut file)?;
    } else if kind.is_socket() || kind.is_fifo() || kind.is_block_device() || kind.is_char_device() {
        return Err(special(&format!("/{place}")));
    }
    Ok(())
}

fn metadata(path: &Path) -> Result<Metadata> {
    fs::symlink_metadata(path).cause(Cause::Usage, || format!("cannot read {}", path.display()))
}

/// A program's capabilities, where the file system has such things.
fn capability(path: &Path) -> Option<Vec<u8>> {
    let mut value = vec![0; CAPABILITY_BYTES];
    let size = rustix::fs::lgetxattr(path, CAPABILITY, &mut value[..]).ok()?;
    value.truncate(size);
    Some(value)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use oci::Layout;

    use super::*;

    fn fill(root: &Path) {
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        fs::create_dir(root.join("skipped")).unwrap();
        fs::write(root.join("usr/bin/a"), "a").unwrap();
        fs::set_permissions(root.join("usr/bin/a"), fs::Permissions::from_mode(0o4711)).unwrap();
        fs::hard_link(root.join("usr/bin/a"), root.join("b")).unwrap();
        symlink("/nowhere", root.join("link")).unwrap();
        // Whatever stands in the folder that is left out does not matter.
        std::os::unix::net::UnixListener::bind(root.join("skipped/socket")).unwrap();
    }

    #[test]
    fn the_same_folder_elsewhere_is_the_same_layer() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::create(folder.path().join("layout")).unwrap();
        let made = |name: &str| {
            let root = folder.path().join(name);
            fill(&root);
            let mut spool = Spool::new(&["/skipped".to_owned()]).unwrap();
            read(&root, &mut spool).unwrap();
            spool.check(&"linux/s390x".parse().unwrap()).unwrap();
            spool.write(&layout).unwrap()
        };
        let (layer, diff_id) = made("one");
        assert_eq!(made("two"), (layer.clone(), diff_id));
        let file = fs::File::open(layout.path(&layer)).unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
        let about = |entry: std::io::Result<tar::Entry<'_, _>>| {
            let entry = entry.unwrap();
            let (header, path) = (entry.header(), entry.path().unwrap().display().to_string());
            assert_eq!(header.uid().unwrap(), u64::from(fs::metadata(folder.path()).unwrap().uid()));
            format!("{path} {:?} {:o}", header.entry_type(), header.mode().unwrap())
        };
        let found: Vec<_> = archive.entries().unwrap().map(about).collect();
        let umask = fs::metadata(folder.path().join("one/usr")).unwrap().mode() & 0o7777;
        let wanted = [
            "b Regular 4711".to_owned(),
            "link Symlink 777".into(),
            format!("usr/ Directory {umask:o}"),
            format!("usr/bin/ Directory {umask:o}"),
            "usr/bin/a Link 4711".into(),
        ];
        assert_eq!(found, wanted);
        let error = read(&folder.path().join("one"), &mut Spool::new(&[]).unwrap()).unwrap_err();
        assert!(error.cause == Cause::Usage && error.to_string().contains("/skipped/socket is a device"), "{error}");
    }
}
