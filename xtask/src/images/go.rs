//! What Go brings into step images: programs cross-compiled on this machine, and Go itself for every platform.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use kit::{Arch, Cause, Context, Error, Platform, Process, Result, Ui, digest, dirs, source};
use serde::Deserialize;

use super::programs::{Definitions, Program};
use crate::tools;

const LIMIT: Duration = Duration::from_secs(1800);
/// Where Go publishes itself as modules, which is where `go` gets other versions of itself.
const TOOLCHAIN: &str = "golang.org/toolchain";

/// Folders in the cache.
pub(super) struct Built {
    /// Of everything of this version of Go.
    folder: PathBuf,
    version: String,
}

impl Built {
    fn of(&self, arch: &Arch) -> PathBuf {
        self.folder.join(arch.go)
    }

    /// A program for a platform.
    pub(super) fn program(&self, name: &str, platform: &Platform) -> Result<PathBuf> {
        let bin = self.of(super::arch(platform)?).join("bin").join(name);
        let entries =
            fs::read_dir(&bin).cause(Cause::Internal, || format!("the build did not make {}", bin.display()))?;
        let found = entries.flatten().map(|entry| entry.path().join(name)).filter(|path| path.is_file()).max();
        found.ok_or_else(|| Error::new(Cause::Internal, format!("{} is empty", bin.display())))
    }

    /// A folder that holds `usr/local/go` for a platform.
    pub(super) fn toolchain(&self, platform: &Platform) -> Result<PathBuf> {
        Ok(self.of(super::arch(platform)?).join("go"))
    }
}

/// Compiles the programs of these images for all architectures, and fetches Go for those that need it.
///
/// # Errors
/// [`Cause::MissingProgram`] without Go, [`Cause::BuildFailure`], [`Cause::Registry`] for what cannot be had.
pub(super) fn build(arches: &[&'static Arch], all: &Definitions, images: &[&str], ui: &Ui) -> Result<Built> {
    let images = || images.iter().map(|name| &all.image[*name]);
    let programs: BTreeSet<_> = images().flat_map(|image| &image.programs).collect();
    let toolchain = images().any(|image| image.go);
    let cache = dirs::cache()?.join("step-images");
    fs::create_dir_all(&cache).cause(Cause::HostDisk, || format!("cannot create {}", cache.display()))?;
    if programs.is_empty() && !toolchain {
        return Ok(Built { folder: cache, version: String::new() });
    }
    let mut command = source::go_command("the step images", &cache)?;
    command.args(["env", "GOVERSION"]);
    let version = Process::new("version of Go", command).cause(Cause::MissingProgram).read()?.trim().to_owned();
    let built = Built { folder: cache.join(&version), version };
    for arch in arches {
        for name in &programs {
            compile(&built, arch, name, &all.program[*name], ui)?;
        }
        if toolchain {
            fetch(&built, arch, ui)?;
        }
    }
    Ok(built)
}

fn compile(built: &Built, arch: &Arch, name: &str, program: &Program, ui: &Ui) -> Result<()> {
    let folder = program.folder.as_ref().map(|folder| tools::root().join(folder));
    let sums = folder.as_ref().map(|folder| source::folder_digest(folder)).transpose()?;
    let key = digest::hex(format!("{program:?}{sums:?}").as_bytes())[..16].to_owned();
    let target = built.of(arch).join("bin").join(name).join(&key);
    if target.join(name).is_file() {
        return Ok(());
    }
    let parent = target.parent().unwrap_or(&target).to_path_buf();
    // What an earlier definition made is not taken for this one's.
    let _ = fs::remove_dir_all(&parent);
    fs::create_dir_all(&parent).cause(Cause::HostDisk, || format!("cannot create {}", parent.display()))?;
    let work = tempfile::tempdir_in(&built.folder).cause(Cause::HostDisk, || "cannot create a temporary folder")?;
    let mut command = go(arch, folder.as_deref().unwrap_or(work.path()))?;
    let flags = format!("-s -w{}", stamp(program, folder.as_deref())?);
    match (&program.module, &program.version, &program.package) {
        (Some(module), Some(version), _) => {
            // `go install` puts what is for another machine below GOPATH only; what it downloads stays shared.
            command.args(["install", "-trimpath", "-ldflags", &flags, &format!("{module}@{version}")]);
            command.env("GOMODCACHE", module_cache(&built.folder)?).env("GOPATH", work.path()).env_remove("GOBIN");
        }
        (_, _, Some(package)) => {
            command.args(["build", "-trimpath", "-ldflags", &flags, "-o"]).arg(work.path().join("bin").join(name));
            command.arg(package);
        }
        _ => return Err(Error::new(Cause::Usage, format!("[program.{name}] names nothing to compile"))),
    }
    let step = ui.step(format!("{name} for {}", arch.go));
    let process = Process::new(format!("build of {name} for {}", arch.go), command).cause(Cause::BuildFailure);
    process.limit(LIMIT).on_line(|_, line| step.set(line)).run()?;
    let bin = work.path().join("bin");
    let found = [bin.join(name), bin.join(format!("linux_{}", arch.go)).join(name)];
    let found = found.iter().find(|path| path.is_file());
    let found = found.ok_or_else(|| Error::new(Cause::Internal, format!("the build of {name} did not make it")))?;
    super::put(found, &target.join(name))?;
    step.done("");
    Ok(())
}

fn go(arch: &Arch, folder: &Path) -> Result<Command> {
    let mut command = source::go_command("the step images", folder)?;
    command.env("CGO_ENABLED", "0").env("GOOS", "linux").env("GOARCH", arch.go).env("GOWORK", "off");
    Ok(command)
}

fn module_cache(folder: &Path) -> Result<String> {
    fs::create_dir_all(folder).cause(Cause::HostDisk, || format!("cannot create {}", folder.display()))?;
    let mut command = source::go_command("the step images", folder)?;
    command.args(["env", "GOMODCACHE"]);
    Ok(Process::new("Go's module cache", command).cause(Cause::MissingProgram).read()?.trim().to_owned())
}

/// What makes a program of Kubernetes tell its version; without it clients see v0.0.0.
fn stamp(program: &Program, folder: Option<&Path>) -> Result<String> {
    let (Some(module), Some(folder)) = (&program.stamp, folder) else { return Ok(String::new()) };
    let path = folder.join("go.mod");
    let text = fs::read_to_string(&path).cause(Cause::Usage, || format!("cannot read {}", path.display()))?;
    let version = text.lines().filter(|line| !line.contains("=>")).find_map(|line| {
        let mut words = line.trim().trim_start_matches("require ").split_whitespace();
        (words.next()? == module).then(|| words.next().map(String::from))?
    });
    let version = version.ok_or_else(|| {
        Error::new(Cause::Usage, format!("{} does not require {module}, whose version is to be told", path.display()))
    })?;
    let mut numbers = version.trim_start_matches('v').split('.').map(String::from);
    let (major, minor) = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    let said = [("gitVersion", version), ("gitMajor", major), ("gitMinor", minor)];
    Ok(said.iter().map(|(name, value)| format!(" -X k8s.io/component-base/version.{name}={value}")).collect())
}

/// What `go mod download -json` says.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Downloaded {
    #[serde(default)]
    dir: PathBuf,
    #[serde(default)]
    error: String,
}

/// Go for an architecture, as Go publishes it, without what no build needs.
fn fetch(built: &Built, arch: &Arch, ui: &Ui) -> Result<()> {
    let target = built.of(arch).join("go");
    if target.join("usr/local/go/VERSION").is_file() {
        return Ok(());
    }
    let step = ui.step(format!("{} for {}", built.version, arch.go));
    let name = format!("{TOOLCHAIN}@v0.0.1-{}.linux-{}", built.version, arch.go);
    fs::create_dir_all(&built.folder).cause(Cause::HostDisk, || format!("cannot create {}", built.folder.display()))?;
    let mut command = source::go_command("the step images", &built.folder)?;
    command.args(["mod", "download", "-json", &name]);
    let mut said = String::new();
    let process = Process::new(format!("download of {name}"), command).limit(LIMIT).on_line(|stream, line| {
        if stream == kit::Stream::Out {
            said.push_str(line);
        }
    });
    let finished = process.finish()?;
    let last = finished.last.join("\n");
    let from = match serde_json::from_str::<Downloaded>(&said) {
        Ok(downloaded) if downloaded.error.is_empty() && finished.good() => downloaded.dir,
        Ok(downloaded) => {
            return Err(Error::new(Cause::Registry, format!("{name} is not to be had")).line(downloaded.error));
        }
        Err(_) => return Err(Error::new(Cause::Registry, format!("{name} is not to be had")).line(last)),
    };
    let work = tempfile::tempdir_in(&built.folder).cause(Cause::HostDisk, || "cannot create a temporary folder")?;
    let root = work.path().join("usr/local/go");
    copy(&from, "", &root).cause(Cause::HostDisk, || format!("cannot copy {}", from.display()))?;
    let parent = target.parent().unwrap_or(&target).to_path_buf();
    let kept = fs::create_dir_all(parent).and_then(|()| fs::rename(work.path(), &target));
    kept.cause(Cause::HostDisk, || format!("cannot create {}", target.display()))?;
    step.done("");
    Ok(())
}

/// Whether a build needs this path of Go: not Go's own tests, and no object files of the race detector or of
/// BoringCrypto, which are for several machines.
fn needed(path: &str) -> bool {
    let below = |folder: &str| path == folder || path.starts_with(&format!("{folder}/"));
    let named = |name: &str| path.split('/').any(|part| part == name);
    !(below("test")
        || below("api")
        || below("doc")
        || below("misc")
        || named("testdata")
        || path.ends_with("_test.go")
        || path.ends_with(".syso"))
}

fn copy(from: &Path, inside: &str, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if inside.is_empty() { name.clone() } else { format!("{inside}/{name}") };
        let (kind, target) = (entry.file_type()?, to.join(&name));
        if !needed(&path) {
            continue;
        }
        if kind.is_dir() {
            copy(&entry.path(), &path, &target)?;
        } else if kind.is_file() {
            fs::copy(entry.path(), &target)?;
            // Modules have no modes; `go` sets them as well when it fetches itself.
            let runs = path.starts_with("bin/") || path.starts_with("pkg/tool/");
            fs::set_permissions(&target, fs::Permissions::from_mode(if runs { 0o755 } else { 0o644 }))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_no_build_needs_of_go_is_left_out() {
        for path in
            ["bin/go", "pkg/tool/linux_s390x/compile", "src/fmt/print.go", "src/cmd/test2json/main.go", "VERSION"]
        {
            assert!(needed(path), "{path}");
        }
        for path in
            ["test", "test/x.go", "src/debug/elf/testdata/a", "src/fmt/print_test.go", "src/runtime/race/a.syso"]
        {
            assert!(!needed(path), "{path}");
        }
    }

    #[test]
    fn kubectl_tells_the_version_that_the_lab_runs() {
        let all = Definitions::read(&tools::root().join("ci/step-images")).unwrap();
        let program = &all.program["kubectl"];
        let folder = tools::root().join(program.folder.as_ref().unwrap());
        let flags = stamp(program, Some(&folder)).unwrap();
        assert!(flags.contains("version.gitVersion=v1.") && flags.contains("version.gitMajor=1"), "{flags}");
        let wrong = Program { stamp: Some("no.such/module".into()), ..program.clone() };
        assert!(stamp(&wrong, Some(&folder)).unwrap_err().to_string().contains("does not require no.such/module"));
    }
}
