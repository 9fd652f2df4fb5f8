//! A component's sources as a folder that ko and Go take for a checkout.
//!
//! A Go module is copied out of Go's read-only module cache to a path that stays the same, so that it is
//! the main module there (with its own `replace` lines) and Go's build cache hits on every run.

use std::{
    fs,
    io::Read,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use serde::Deserialize;

use crate::{
    Cause, Context, Error, Process, Result, Ui,
    ci::{Ci, Component},
    digest, dirs, process,
    record::Source,
};

/// Where the sources lie, and what they are.
#[derive(Debug, Clone)]
pub struct Checkout {
    /// The module's root.
    pub dir: PathBuf,
    /// For records.
    pub source: Source,
}

/// The `go` program.
///
/// # Errors
/// [`Cause::MissingProgram`], saying what needs it.
pub fn go(purpose: &str) -> Result<PathBuf> {
    process::find_program("go", "OTHER_ARCH_GO", purpose, "install Go 1.26 or later")
}

/// A `go` command in `dir` whose environment does not change what is built: variables of the caller that
/// do (GOOS, GOARCH, GOFLAGS, GOWORK, …) are taken away, and no commit is stamped in.
///
/// # Errors
/// [`Cause::MissingProgram`], saying what needs it.
pub fn go_command(purpose: &str, dir: &Path) -> Result<Command> {
    let mut command = Command::new(go(purpose)?);
    command.current_dir(dir);
    clean_environment(&mut command);
    Ok(command)
}

/// Takes away what would change what Go builds (ko#274), for Go and for programs that call it.
pub fn clean_environment(command: &mut Command) {
    const CHANGE: &[&str] = &[
        "GOOS",
        "GOARCH",
        "GO386",
        "GOAMD64",
        "GOARM",
        "GOARM64",
        "GOMIPS",
        "GOMIPS64",
        "GOPPC64",
        "GORISCV64",
        "GOEXPERIMENT",
        "GOFIPS140",
        "GOWORK",
        "CGO_ENABLED",
        "CGO_CFLAGS",
        "CGO_LDFLAGS",
        "GO_EXTLINK_ENABLED",
    ];
    for name in CHANGE {
        command.env_remove(name);
    }
    command.env("GOFLAGS", "-buildvcs=false").env("GOTOOLCHAIN", "local");
}

/// Makes the sources of a component available.
///
/// # Errors
/// [`Cause::MissingProgram`] without Go, [`Cause::Registry`] if the module cannot be had,
/// [`Cause::Usage`] for a folder that is not there.
pub fn checkout(ci: &Ci, component: &Component, ui: &Ui) -> Result<Checkout> {
    match (&component.module, &component.version, &component.path) {
        (Some(module), Some(version), _) => module_checkout(module, version, ui),
        (_, _, Some(path)) => {
            let dir = ci.resolve(path);
            if !dir.join("go.mod").is_file() {
                return Err(Error::new(Cause::Usage, format!("{} holds no Go module (go.mod)", dir.display()))
                    .next(format!("see path in {}", ci.folder().join("components.toml").display())));
            }
            let dir = dir.canonicalize().cause(Cause::Usage, || format!("cannot read {}", dir.display()))?;
            let digest = folder_digest(&dir)?;
            let commit = commit(&dir)?;
            Ok(Checkout { dir, source: Source::Folder { path: path.clone(), digest, commit } })
        }
        _ => Err(Error::new(Cause::Usage, "a component needs either module and version, or path")),
    }
}

/// The commit of a folder in a git checkout, and whether its files are those of the commit. Programs do not have it
/// stamped in, so that is where it is kept. Nothing without git.
fn commit(dir: &Path) -> Result<Option<String>> {
    let git = |arguments: &[&str]| {
        let mut command = Command::new("git");
        // What a checkout's own configuration would have run is not wanted here.
        command.args(["-c", "core.fsmonitor=false", "-c", "core.hooksPath=/dev/null"]).args(arguments).current_dir(dir);
        match Process::new("the commit of the sources", command).limit(Duration::from_secs(60)).read() {
            Err(error) if error.signal.is_some() => Err(error),
            said => Ok(said.ok().map(|said| said.trim().to_owned())),
        }
    };
    let Some(commit) = git(&["rev-parse", "--verify", "HEAD"])?.filter(|commit| !commit.is_empty()) else {
        return Ok(None);
    };
    let clean = git(&["status", "--porcelain", "--", "."])?.is_some_and(|changes| changes.is_empty());
    Ok(Some(if clean { commit } else { format!("{commit}-dirty") }))
}

/// What `go mod download -json` says (`go help mod download`).
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Downloaded {
    #[serde(default)]
    dir: PathBuf,
    #[serde(default)]
    sum: String,
    #[serde(default)]
    error: String,
}

fn module_checkout(module: &str, version: &str, ui: &Ui) -> Result<Checkout> {
    let cache = dirs::cache()?.join("src");
    fs::create_dir_all(&cache).cause(Cause::HostDisk, || format!("cannot create {}", cache.display()))?;
    let name = format!("{module}@{version}");
    let mut command = go_command("the sources of a component", &cache)?;
    command.args(["mod", "download", "-json", &name]);
    let mut said = String::new();
    let download = Process::new(format!("download of {name}"), command).cause(Cause::Registry);
    // It says what is wrong in its JSON, with exit code 1.
    let finished = download
        .limit(Duration::from_secs(600))
        .on_line(|stream, line| {
            if stream == process::Stream::Out {
                said.push_str(line);
            }
        })
        .finish()?;
    let downloaded: Option<Downloaded> = serde_json::from_str(&said).ok();
    let downloaded = match downloaded {
        Some(downloaded) if downloaded.error.is_empty() && finished.good() => downloaded,
        other => {
            let line = other.map_or_else(|| finished.last.join("\n"), |downloaded| downloaded.error);
            return Err(Error::new(Cause::Registry, format!("the Go module {name} is not to be had")).line(line));
        }
    };
    let dir = cache.join(&name);
    let sum = dir.with_file_name(format!("{}.sum", dir.file_name().unwrap_or_default().to_string_lossy()));
    // A copy can be written to: by a test, by an editor. Then it is no longer the module.
    if !intact(&dir, &sum) {
        let step = ui.step(format!("copy of {name}"));
        replace_copy(&downloaded.dir, &dir, &sum).map_err(|error| error.within(format!("cannot copy {name}")))?;
        step.done("");
    }
    let source = Source::Module { path: module.into(), version: version.into(), sum: downloaded.sum };
    Ok(Checkout { dir, source })
}

/// A module's archive has nothing of this folder but its list (go.dev/ref/mod, "Module zip files"), and Go would take that
/// for vendored packages, all of which are missing.
const VENDOR: &str = "vendor";

/// Whether `dir` is the copy that was made.
fn intact(dir: &Path, sum: &Path) -> bool {
    let known = fs::read_to_string(sum).is_ok_and(|sum| folder_digest(dir).is_ok_and(|now| now == sum));
    known && dir.is_dir() && !dir.join(VENDOR).is_dir()
}

/// Puts a new copy of `from` at `dir`, and its digest at `sum`.
fn replace_copy(from: &Path, dir: &Path, sum: &Path) -> Result<()> {
    let parent = dir.parent().unwrap_or(dir);
    let disk = || format!("cannot write to {}", parent.display());
    fs::create_dir_all(parent).cause(Cause::HostDisk, disk)?;
    // One at a time; whoever comes later finds it done.
    let lock = fs::File::create(sum.with_extension("lock")).cause(Cause::HostDisk, disk)?;
    lock.lock().cause(Cause::HostDisk, disk)?;
    if intact(dir, sum) {
        return Ok(());
    }
    let new = tempfile::Builder::new().prefix(".new-").tempdir_in(parent).cause(Cause::HostDisk, disk)?;
    let copy = new.path().join("copy");
    copy_writable(from, &copy).cause(Cause::HostDisk, disk)?;
    if copy.join(VENDOR).is_dir() {
        fs::remove_dir_all(copy.join(VENDOR)).cause(Cause::HostDisk, disk)?;
    }
    let digest = folder_digest(&copy)?;
    if dir.exists() {
        fs::rename(dir, new.path().join("old")).cause(Cause::HostDisk, disk)?;
    }
    fs::rename(&copy, dir).cause(Cause::HostDisk, disk)?;
    crate::rundir::write(sum, digest.as_bytes()).map(drop)
}

fn copy_writable(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_writable(&entry.path(), &target)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), &target)?;
            // A module's archive does not say what was executable (go.dev/ref/mod, "Module zip files"): scripts were.
            let script = if is_script(&target)? { 0o111 } else { 0 };
            let mode = fs::metadata(&target)?.permissions().mode();
            fs::set_permissions(&target, fs::Permissions::from_mode(mode | 0o200 | script))?;
        }
    }
    Ok(())
}

fn is_script(file: &Path) -> std::io::Result<bool> {
    let mut start = Vec::new();
    fs::File::open(file)?.take(2).read_to_end(&mut start)?;
    Ok(start == b"#!")
}

/// `sha256:…` over names and contents of all files, in order; hidden files and folders and symbolic links are
/// left out.
///
/// # Errors
/// [`Cause::Usage`] naming what cannot be read.
pub fn folder_digest(dir: &Path) -> Result<String> {
    let mut files = Vec::new();
    collect(dir, &mut files).cause(Cause::Usage, || format!("cannot read {}", dir.display()))?;
    files.sort();
    let mut lines = String::new();
    for file in files {
        let name = file.strip_prefix(dir).unwrap_or(&file).to_string_lossy().into_owned();
        lines.push_str(&format!("{} {name}\n", digest::sha256_file(&file)?));
    }
    Ok(digest::sha256(lines.as_bytes()))
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let kind = entry.file_type()?;
        if entry.file_name().to_string_lossy().starts_with('.') {
            continue;
        }
        if kind.is_dir() {
            collect(&entry.path(), files)?;
        } else if kind.is_file() {
            files.push(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_s_digest_follows_names_and_contents() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("pkg")).unwrap();
        fs::write(dir.path().join("pkg/a.go"), "package a").unwrap();
        let first = folder_digest(dir.path()).unwrap();
        assert_eq!(first, folder_digest(dir.path()).unwrap());
        fs::rename(dir.path().join("pkg/a.go"), dir.path().join("pkg/b.go")).unwrap();
        let second = folder_digest(dir.path()).unwrap();
        assert_ne!(first, second);
        fs::write(dir.path().join("pkg/b.go"), "package b").unwrap();
        assert_ne!(second, folder_digest(dir.path()).unwrap());
    }

    #[test]
    fn a_checkout_says_its_commit_and_whether_it_was_changed() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(commit(dir.path()).unwrap(), None);
        let git = |arguments: &[&str]| {
            let mut command = Command::new("git");
            command
                .args(["-c", "user.name=x", "-c", "user.email=x@example.com"])
                .args(arguments)
                .current_dir(dir.path());
            Process::new("git", command).run().unwrap();
        };
        fs::write(dir.path().join("a"), "a").unwrap();
        git(&["init", "-q"]);
        git(&["add", "."]);
        git(&["commit", "-q", "-m", "x"]);
        let first = commit(dir.path()).unwrap().unwrap();
        assert!(first.len() >= 40 && first.bytes().all(|b| b.is_ascii_hexdigit()), "{first}");
        fs::write(dir.path().join("a"), "b").unwrap();
        assert_eq!(commit(dir.path()).unwrap().unwrap(), format!("{first}-dirty"));
    }

    #[test]
    fn a_module_is_copied_without_its_list_of_vendored_packages() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (dir, sum) = (to.path().join("m@v1"), to.path().join("m@v1.sum"));
        fs::create_dir(from.path().join("vendor")).unwrap();
        fs::write(from.path().join("vendor/modules.txt"), "# example.com/x v1.0.0").unwrap();
        fs::write(from.path().join("go.mod"), "module m").unwrap();
        replace_copy(from.path(), &dir, &sum).unwrap();
        assert!(dir.join("go.mod").is_file() && !dir.join("vendor").exists() && intact(&dir, &sum));
        // One that was made with it is made anew.
        fs::create_dir(dir.join("vendor")).unwrap();
        fs::write(&sum, folder_digest(&dir).unwrap()).unwrap();
        assert!(!intact(&dir, &sum));
        replace_copy(from.path(), &dir, &sum).unwrap();
        assert!(!dir.join("vendor").exists() && intact(&dir, &sum));
    }

    #[test]
    fn a_read_only_tree_is_copied_writable_and_scripts_executable() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for (name, text, before, after) in
            [("x", "x", 0o555, 0o755), ("text", "#", 0o444, 0o644), ("script", "#!/bin/sh\n", 0o444, 0o755)]
        {
            let file = from.path().join(name);
            fs::write(&file, text).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(before)).unwrap();
            let copy = to.path().join(name);
            copy_writable(from.path(), &copy).unwrap();
            let mode = fs::metadata(copy.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, after, "{name}");
        }
    }
}
