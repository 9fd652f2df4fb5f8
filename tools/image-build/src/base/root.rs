//! From a definition and its packages to a root file system.

use std::{fs, path::PathBuf};

use kit::{Cause, Context, Result, Within};

use debian::{
    apt, deb,
    tree::{Tree, merge_usr},
};

use super::definition::Definition;

/// uid and gid of the user without rights, as distroless and Chainguard have it.
const NONROOT: u64 = 65532;

/// Puts the root file system together: what every image has, packages, links, files.
pub(crate) fn assemble(definition: &Definition, debs: &[PathBuf]) -> Result<Tree> {
    let mut tree = Tree::default();
    for path in debs {
        let bytes = fs::read(path).cause(Cause::HostDisk, || format!("cannot read {}", path.display()))?;
        let deb = deb::read(&bytes).within(|| path.display().to_string())?;
        tree.unpack(&deb.data).within(|| path.display().to_string())?;
        // Where scanners look for what is installed in an image without dpkg.
        let field =
            |name: &str| deb.control.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("unknown").trim();
        let status = format!("var/lib/dpkg/status.d/{}", field("Package:"));
        tree.file(&status, 0o644, deb.control.as_bytes());
    }
    if definition.certificates {
        certificates(&mut tree);
    }
    for path in &definition.drop {
        tree.remove(path);
    }
    common(&mut tree);
    for (link, target) in &definition.links {
        tree.remove(link);
        tree.symlink(link, target);
    }
    for (path, text) in &definition.files {
        tree.file(path, 0o644, text.as_bytes());
    }
    merge_usr(&mut tree);
    Ok(tree)
}

/// All certificates of the package ca-certificates in one file, as `update-ca-certificates` writes it.
fn certificates(tree: &mut Tree) {
    let mut bundle = Vec::new();
    for (_, certificate) in tree.files_below("/usr/share/ca-certificates").filter(|(name, _)| name.ends_with(".crt")) {
        bundle.extend_from_slice(certificate.trim_ascii_end());
        bundle.push(b'\n');
    }
    tree.file("/etc/ssl/certs/ca-certificates.crt", 0o644, bundle);
}

/// What every image has.
fn common(tree: &mut Tree) {
    let passwd = format!(
        "root:x:0:0:root:/root:/sbin/nologin\nnobody:x:65534:65534:nobody:/nonexistent:/sbin/nologin\n\
         nonroot:x:{NONROOT}:{NONROOT}:nonroot:/home/nonroot:/sbin/nologin\n"
    );
    let group = format!("root:x:0:\nnobody:x:65534:\nnonroot:x:{NONROOT}:\n");
    tree.file("/etc/passwd", 0o644, passwd.into_bytes());
    tree.file("/etc/group", 0o644, group.into_bytes());
    tree.file("/etc/nsswitch.conf", 0o644, *b"hosts: files dns\n");
    tree.file("/etc/hosts", 0o644, *b"");
    // By it scanners, and `image-build bases`, know whose security updates count.
    let (name, version) = (apt::RELEASE, apt::VERSION);
    let os_release = format!(
        "PRETTY_NAME=\"Debian GNU/Linux {version} ({name})\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"{version}\"\n\
         VERSION=\"{version} ({name})\"\nVERSION_CODENAME={name}\nID=debian\nHOME_URL=\"https://www.debian.org/\"\n"
    );
    tree.file("/etc/os-release", 0o644, os_release.into_bytes());
    tree.directory("/root", 0o700, 0);
    tree.directory("/home/nonroot", 0o755, NONROOT);
    tree.directory("/tmp", 0o1777, 0);
    tree.directory("/var/tmp", 0o1777, 0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_links_and_files_make_a_root() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.deb");
        let files: &[(&str, &[u8])] = &[
            ("./bin/tool", b"x"),
            ("./usr/share/ca-certificates/m/b.crt", b"B\n"),
            ("./usr/share/ca-certificates/m/a.crt", b"A"),
            ("./usr/share/doc/x", b"no"),
        ];
        fs::write(&path, deb::sample(files)).unwrap();
        let definition = Definition {
            certificates: true,
            drop: ["/usr/share".to_owned()].into(),
            links: [("/bin/sh".to_owned(), "/bin/tool".to_owned())].into(),
            files: [("/etc/x".to_owned(), "text".to_owned())].into(),
            ..Definition::default()
        };
        let make = || assemble(&definition, std::slice::from_ref(&path)).unwrap();
        let tree = make();
        let found: Vec<_> = tree.files_below("/etc").collect();
        assert!(found.contains(&("etc/ssl/certs/ca-certificates.crt", &b"A\nB\n"[..])));
        assert!(found.contains(&("etc/x", &b"text"[..])));
        let os_release = found.iter().find(|(path, _)| *path == "etc/os-release").unwrap().1;
        assert!(String::from_utf8_lossy(os_release).contains("VERSION_ID=\"12\"\n"));
        assert_eq!(tree.files_below("/usr/share").count(), 0);
        assert_eq!(tree.files_below("/var/lib/dpkg/status.d").count(), 1);
        assert_eq!(tree.archive().unwrap(), make().archive().unwrap());
    }
}
