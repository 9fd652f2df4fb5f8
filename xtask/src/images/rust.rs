//! The tools as static programs for other architectures: by rustup's targets where they are there, otherwise by the
//! compiler, the standard library's sources and the cross linker of Debian's packages.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use kit::{Arch, Cause, Context, Error, Platform, Process, Result, Ui};

use crate::tools;

/// A whole workspace for another architecture, its standard library included, on two busy cores.
const LIMIT: Duration = Duration::from_secs(3600);
/// Where Debian's packages put theirs, beside rustup's.
const DEBIAN: [&str; 2] = ["/usr/bin/cargo", "/usr/bin/rustc"];
/// What the standard library is built from.
const SOURCES: &str = "/usr/lib/rustlib/src/rust/library/std/Cargo.toml";

/// Where the programs are.
pub(super) struct Built(PathBuf);

impl Built {
    /// The program of a tool for a platform.
    pub(super) fn program(&self, tool: &str, platform: &Platform) -> Result<PathBuf> {
        let path = self.0.join(super::arch(platform)?.rust).join("step").join(tool);
        if path.is_file() {
            return Ok(path);
        }
        Err(Error::new(Cause::Internal, format!("the build did not make {}", path.display())))
    }
}

/// Compiles tools for all architectures.
///
/// # Errors
/// [`Cause::MissingProgram`] naming everything that has to be installed, [`Cause::BuildFailure`].
pub(super) fn build(arches: &[&'static Arch], wanted: &[&str], ui: &Ui) -> Result<Built> {
    let built = Built(tools::root().join("target/step"));
    if wanted.is_empty() {
        return Ok(built);
    }
    let ways = arches.iter().map(|arch| Ok((*arch, way(arch)?))).collect::<Result<Vec<_>>>()?;
    let missing: Vec<_> = ways.iter().flat_map(|(arch, way)| packages(arch, *way)).collect();
    install(missing, ui)?;
    for (arch, way) in ways {
        let step = ui.step(format!("tools for {}", arch.go));
        let process =
            Process::new(format!("build of the tools for {}", arch.go), command(arch, way, wanted, &built.0)?);
        process.cause(Cause::BuildFailure).limit(LIMIT).on_line(|_, line| step.set(line.trim())).run()?;
        step.done(match way {
            Way::Rustup => "with rustup's target",
            Way::Debian => "with Debian's packages",
        });
    }
    Ok(built)
}

/// Where compiler and standard library come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    Rustup,
    Debian,
}

fn way(arch: &Arch) -> Result<Way> {
    let mut command = Command::new(std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into()));
    command.args(["--print", "target-libdir", "--target", arch.rust]).current_dir(tools::root());
    let folder = Process::new("rustc's targets", command).cause(Cause::MissingProgram).read()?;
    let entries = std::fs::read_dir(folder.trim()).into_iter().flatten().flatten();
    let has_std = entries.into_iter().any(|entry| entry.file_name().to_string_lossy().starts_with("libstd-"));
    Ok(if has_std { Way::Rustup } else { Way::Debian })
}

/// GNU's name of the architecture's tools.
fn gnu(arch: &Arch) -> String {
    arch.rust.replace("-unknown", "")
}

/// Debian's packages that are needed and not there.
fn packages(arch: &Arch, way: Way) -> Vec<String> {
    let mut packages = Vec::new();
    let there = |path: &str| Path::new(path).exists();
    if way == Way::Debian {
        let parts = [(DEBIAN[0], "cargo-web"), (DEBIAN[1], "rustc-web"), (SOURCES, "rust-web-src")];
        packages.extend(parts.iter().filter(|(path, _)| !there(path)).map(|(_, package)| (*package).to_owned()));
    }
    if arch != Arch::host() {
        let gnu = gnu(arch);
        if !there(&format!("/usr/bin/{gnu}-gcc")) {
            packages.push(format!("gcc-{}", gnu.replace('_', "-")));
        }
        if !there(&format!("/usr/{gnu}/include/stdio.h")) {
            packages.push(format!("libc6-dev-{}-cross", arch.debian));
        }
    }
    packages
}

fn install(mut packages: Vec<String>, ui: &Ui) -> Result<()> {
    packages.sort();
    packages.dedup();
    if packages.is_empty() {
        return Ok(());
    }
    let next = format!("as root: apt-get install --no-install-recommends {}", packages.join(" "));
    let lacking = || Error::new(Cause::MissingProgram, format!("compiling for them needs {}", packages.join(", ")));
    let mut who = Command::new("id");
    who.arg("-u");
    let root = Process::new("who we are", who).read().is_ok_and(|said| said.trim() == "0");
    if !root || !Path::new("/usr/bin/apt-get").exists() {
        return Err(lacking().next(format!("{next}; or, for each target, rustup target add")));
    }
    let step = ui.step(format!("installation of {}", packages.join(", ")));
    let apt = |arguments: &[&str]| {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive").args(["-o", "DPkg::Lock::Timeout=300"]).args(arguments);
        let process = Process::new("installation of Debian's packages", command).cause(Cause::MissingProgram);
        process.limit(Duration::from_secs(1800)).on_line(|_, line| step.set(line)).run()
    };
    let names = packages.iter().map(String::as_str);
    let install: Vec<_> = ["install", "--yes", "--no-install-recommends"].into_iter().chain(names).collect();
    let installed = apt(&install).or_else(|_| apt(&["update"]).and_then(|()| apt(&install)));
    installed.map_err(|error| error.within(lacking().summary()).next(next))?;
    step.done("");
    Ok(())
}

/// The build as a command. Paths of this machine are not in what comes out, so another machine makes the same.
fn command(arch: &Arch, way: Way, wanted: &[&str], target: &Path) -> Result<Command> {
    let mut command = match way {
        Way::Rustup => tools::cargo(&["build"])?,
        Way::Debian => {
            let mut command = Command::new(DEBIAN[0]);
            // Ours says which of rustup's compilers is meant.
            command.env_remove("RUSTUP_TOOLCHAIN").env_remove("RUSTC_WRAPPER").env("RUSTC", DEBIAN[1]);
            command.current_dir(tools::root()).env("RUSTC_BOOTSTRAP", "1").arg("build");
            command.arg("-Zbuild-std=std,panic_unwind");
            command
        }
    };
    command.args(["--profile", "step", "--locked", "--target", arch.rust]).env("CARGO_TARGET_DIR", target);
    for tool in wanted {
        command.args(["--package", tool]);
    }
    let upper = arch.rust.replace('-', "_").to_uppercase();
    let root = tools::root();
    let home = std::env::var("CARGO_HOME").or_else(|_| std::env::var("HOME").map(|home| format!("{home}/.cargo")));
    let home = home.cause(Cause::Usage, || "neither CARGO_HOME nor HOME is set")?;
    let flags = format!(
        "-C target-feature=+crt-static --remap-path-prefix={}=/src --remap-path-prefix={home}=/cargo",
        root.display()
    );
    command.env(format!("CARGO_TARGET_{upper}_RUSTFLAGS"), flags).env_remove("RUSTFLAGS");
    if arch != Arch::host() {
        let (gnu, lower) = (gnu(arch), arch.rust.replace('-', "_"));
        command.env(format!("CARGO_TARGET_{upper}_LINKER"), format!("{gnu}-gcc"));
        command.env(format!("CC_{lower}"), format!("{gnu}-gcc")).env(format!("AR_{lower}"), format!("{gnu}-ar"));
    }
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(command: &Command) -> (String, Vec<(String, String)>) {
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<_> = words.map(|word| word.to_string_lossy().into_owned()).collect();
        let env = command.get_envs().filter_map(|(name, value)| {
            Some((name.to_string_lossy().into_owned(), value?.to_string_lossy().into_owned()))
        });
        (words.join(" "), env.collect())
    }

    #[test]
    fn an_architecture_without_a_target_is_compiled_by_debian_s_packages() {
        let arch = Arch::find("ppc64le").unwrap();
        let (line, env) = words(&command(arch, Way::Debian, &["cleanup"], Path::new("/t")).unwrap());
        assert_eq!(
            line,
            "/usr/bin/cargo build -Zbuild-std=std,panic_unwind --profile step --locked --target \
             powerpc64le-unknown-linux-gnu --package cleanup"
        );
        let has = |name: &str, value: &str| env.iter().any(|(key, found)| key == name && found.contains(value));
        assert!(has("CARGO_TARGET_POWERPC64LE_UNKNOWN_LINUX_GNU_LINKER", "powerpc64le-linux-gnu-gcc"), "{env:?}");
        assert!(has("CC_powerpc64le_unknown_linux_gnu", "powerpc64le-linux-gnu-gcc"), "{env:?}");
        assert!(has("CARGO_TARGET_POWERPC64LE_UNKNOWN_LINUX_GNU_RUSTFLAGS", "+crt-static"), "{env:?}");
        assert!(has("RUSTC_BOOTSTRAP", "1") && has("RUSTC", "/usr/bin/rustc"), "{env:?}");
    }

    #[test]
    fn with_rustup_s_target_the_workspace_s_own_compiler_does_it() {
        let arch = Arch::find("s390x").unwrap();
        let (line, env) = words(&command(arch, Way::Rustup, &["cleanup"], Path::new("/t")).unwrap());
        assert!(line.ends_with("build --profile step --locked --target s390x-unknown-linux-gnu --package cleanup"));
        assert!(!env.iter().any(|(name, _)| name == "RUSTC_BOOTSTRAP"), "{env:?}");
        // rustup has the target that this program was compiled for.
        assert_eq!(way(Arch::host()).unwrap(), Way::Rustup);
    }

    #[test]
    fn debian_s_names_of_packages_are_its_own() {
        assert_eq!(gnu(Arch::find("arm64").unwrap()), "aarch64-linux-gnu");
        assert!(packages(Arch::host(), Way::Rustup).is_empty());
        let arch = Arch { rust: "vax_1-unknown-linux-gnu", debian: "vax", ..*Arch::find("ppc64le").unwrap() };
        assert_eq!(packages(&arch, Way::Rustup), ["gcc-vax-1-linux-gnu", "libc6-dev-vax-cross"]);
    }
}
