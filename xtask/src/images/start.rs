//! Each step image started once on every platform: unpacked, and its programs run by qemu's user emulation, which is
//! called by its path. Nothing is registered with the kernel.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use kit::{Arch, Cause, Context, Error, Platform, Process, Result, Ui, dirs};

use super::{
    programs::Image,
    shape::{self, Part},
};
use crate::tools;

/// Go under emulation takes seconds where it takes none on its own machine.
const LIMIT: Duration = Duration::from_secs(120);
/// The [build.NAME] that holds Debian's static emulators for user programs.
const EMULATORS: &str = "qemu";
/// Where programs lie in an image.
const BIN: [&str; 4] = ["usr/local/bin", "usr/local/go/bin", "usr/bin", "bin"];

/// Runs every command of `starts` in the image; returns how many there are.
///
/// # Errors
/// [`Cause::ImageWrongArch`] with what it said, if one does not end well.
pub(super) fn all(name: &str, image: &Image, platform: &Platform, part: &Part, ui: &Ui) -> Result<usize> {
    let arch = super::arch(platform)?;
    let qemu = emulator(arch, ui)?;
    let step = ui.step(format!("start of {name} on {platform}"));
    let root = tempfile::tempdir().cause(Cause::HostDisk, || "cannot make a temporary folder")?;
    unpack(part, root.path())?;
    for start in &image.starts {
        run(&qemu, root.path(), start).map_err(|error| error.within(format!("step image {name} on {platform}")))?;
    }
    step.done(format!("{} programs", image.starts.len()));
    Ok(image.starts.len())
}

fn run(qemu: &Path, root: &Path, start: &str) -> Result<()> {
    let mut words = start.split_whitespace();
    let program = words.next().unwrap_or_default();
    let found = BIN.iter().find_map(|folder| resolve(root, &Path::new(folder).join(program)));
    let found = found.ok_or_else(|| Error::new(Cause::ImageWrongArch, format!("'{program}' is not in it")))?;
    let mut command = Command::new(qemu);
    // Its dynamic linker and libraries are those of the image.
    command.arg("-L").arg(root).arg(&found).args(words).env_clear().env("HOME", root.join("tmp"));
    command.env("GOROOT", root.join("usr/local/go")).env("PATH", "/nonexistent");
    let process = Process::new(format!("`{start}`"), command).cause(Cause::ImageWrongArch);
    process.limit(LIMIT).run()
}

/// A path in a root, with its links followed as a container sees them.
fn resolve(root: &Path, inside: &Path) -> Option<PathBuf> {
    let mut path = inside.to_path_buf();
    for _ in 0..16 {
        let full = root.join(path.strip_prefix("/").unwrap_or(&path));
        match fs::read_link(&full) {
            Ok(target) if target.is_absolute() => path = target,
            Ok(target) => path = path.parent().unwrap_or(Path::new("")).join(target),
            Err(_) => return full.is_file().then_some(full),
        }
    }
    None
}

/// qemu for user programs of an architecture, out of Debian's package of static ones, in the cache.
fn emulator(arch: &Arch, ui: &Ui) -> Result<PathBuf> {
    let target = dirs::cache()?.join("bin/qemu-user");
    let path = target.join(format!("usr/bin/qemu-{}-static", arch.qemu));
    if path.is_file() {
        return Ok(path);
    }
    let work = tempfile::tempdir().cause(Cause::HostDisk, || "cannot make a temporary folder")?;
    let layout = work.path().join("qemu");
    let mut arguments: Vec<String> = ["base", "build", EMULATORS, "--ci"].map(String::from).into();
    arguments.push(tools::root().join("ci/step-images").display().to_string());
    arguments.extend(["--platform".into(), Platform::host().to_string()]);
    arguments.extend(["--layout".into(), layout.display().to_string()]);
    super::image_build("emulators of user programs", &arguments, ui)?;
    fs::create_dir_all(&target).cause(Cause::HostDisk, || format!("cannot create {}", target.display()))?;
    unpack(&shape::read(&layout)?.part(&Platform::host())?, &target)?;
    if path.is_file() {
        return Ok(path);
    }
    Err(Error::new(Cause::MissingProgram, format!("Debian's emulators lack one for {}", arch.go)))
}

/// Unpacks an image's layers, one over the other.
fn unpack(part: &Part, root: &Path) -> Result<()> {
    for layer in &part.layers {
        let mut command = Command::new("tar");
        command.arg("--extract").arg("--gzip").arg("--no-same-owner").arg("--file").arg(&layer.path);
        command.arg("--directory").arg(root);
        Process::new("tar", command).cause(Cause::HostDisk).limit(Duration::from_secs(300)).run()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_ends_badly_is_named() {
        let root = tempfile::tempdir().unwrap();
        let error = run(Path::new("/bin/false"), root.path(), "ssh -V").unwrap_err();
        assert_eq!((error.cause, error.summary().as_str()), (Cause::ImageWrongArch, "'ssh' is not in it"));
        fs::create_dir_all(root.path().join("usr/bin")).unwrap();
        fs::write(root.path().join("usr/bin/ssh"), "").unwrap();
        let error = run(Path::new("/bin/false"), root.path(), "ssh -V").unwrap_err();
        assert!(error.cause == Cause::ImageWrongArch && error.summary().contains("`ssh -V`"), "{error}");
        run(Path::new("/bin/true"), root.path(), "ssh -V").unwrap();
    }

    #[test]
    fn a_link_is_followed_within_the_image() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("usr/bin")).unwrap();
        fs::write(root.path().join("usr/bin/here"), "").unwrap();
        for (name, target) in [("a", "/usr/bin/here"), ("b", "here"), ("c", "/bin/sh"), ("d", "d")] {
            std::os::unix::fs::symlink(target, root.path().join("usr/bin").join(name)).unwrap();
        }
        let here = Some(root.path().join("usr/bin/here"));
        assert_eq!(resolve(root.path(), Path::new("usr/bin/a")), here);
        assert_eq!(resolve(root.path(), Path::new("usr/bin/b")), here);
        // Not this machine's own shell.
        assert_eq!(resolve(root.path(), Path::new("usr/bin/c")), None);
        assert_eq!(resolve(root.path(), Path::new("usr/bin/d")), None);
    }
}
