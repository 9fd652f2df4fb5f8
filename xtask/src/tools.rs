//! The five tools and the lab, as programs: built by cargo, called by path, arguments passed through.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    time::Duration,
};

use clap::Subcommand;
use kit::{Cause, Context, Error, Process, Result, Ui, process::Stopper};
use xshell::{Shell, cmd};

/// Every tool, by its one name.
pub(crate) const TOOLS: &[&str] = &["image-build", "cluster-install", "e2e-runner", "cleanup", "support-matrix", "lab"];

/// The tools in our help; their arguments never come here, see [`called`].
#[derive(Subcommand)]
pub(crate) enum Passthrough {
    /// Sources -> verified multi-platform images and release.yaml
    ImageBuild,
    /// A cluster and a release -> installed, ready, recorded
    ClusterInstall,
    /// A component's own tests -> results with causes
    E2eRunner,
    /// A used cluster -> back at its baseline, proven by a diff
    Cleanup,
    /// Records -> what is supported, and why
    SupportMatrix,
    /// A real Kubernetes on this machine
    Lab,
}

/// The tool that our first word names, and the words that are its own.
pub(crate) fn called() -> Option<(&'static str, Vec<OsString>)> {
    let mut words = std::env::args_os().skip(1);
    let first = words.next()?;
    let tool = TOOLS.iter().find(|tool| first == **tool)?;
    Some((tool, words.collect()))
}

/// Builds the tools and becomes this one. All of them: built alone it would need its libraries with other features, so
/// that each tool compiled them anew, and again after the next `nightly`.
pub(crate) fn become_tool(tool: &str, arguments: Vec<OsString>) -> ExitCode {
    kit::signal::install();
    let error = match build(TOOLS, &Ui::silent()).and_then(|()| path(tool)) {
        Ok(path) => {
            let mut command = Command::new(path);
            command.args(arguments);
            Process::new(tool, command).replace()
        }
        Err(error) => error,
    };
    kit::cli::report(&Ui::silent(), &error);
    ExitCode::from(error.exit().0)
}

/// Where a tool's program lies: beside this one.
pub(crate) fn path(tool: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().cause(Cause::Internal, || "cannot find this program's own path")?;
    Ok(own.parent().unwrap_or(Path::new(".")).join(tool))
}

/// Builds tools, which takes minutes the first time and nothing later.
pub(crate) fn build(tools: &[&str], ui: &Ui) -> Result<()> {
    let step = ui.step("cargo build");
    let mut arguments = vec!["build"];
    // The profile that this very program was built with.
    if path("").is_ok_and(|folder| folder.ends_with("release")) {
        arguments.push("--release");
    }
    for tool in tools {
        arguments.extend(["--package", tool]);
    }
    Process::new("build of the tools", cargo(&arguments)?)
        .cause(Cause::BuildFailure)
        .limit(Duration::from_secs(1800))
        .on_line(|_, line| step.set(line.trim()))
        .run()?;
    step.done("");
    Ok(())
}

/// Builds the lab's programs, and those of nodes of other architectures, which takes minutes the first time and nothing
/// later; what else runs goes first.
pub(crate) fn lab_programs(nodes: &[&str], stopper: &Stopper, ui: &Ui) -> Result<()> {
    let step = ui.step("the lab's programs");
    let lab = path("lab")?;
    let nodes = nodes.iter().flat_map(|arch| ["--node".to_owned(), format!("linux/{arch}")]);
    let command = in_root(|shell| cmd!(shell, "nice -n 5 {lab} build {nodes...}").into())?;
    Process::new("build of the lab's programs", command)
        .cause(Cause::BuildFailure)
        .limit(Duration::from_secs(3600))
        .stop_with(stopper)
        .on_line(|_, line| step.set(undated(line.trim())))
        .run()?;
    step.done("");
    Ok(())
}

/// The cargo that runs us, in the workspace's root.
pub(crate) fn cargo(arguments: &[&str]) -> Result<Command> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    in_root(|shell| cmd!(shell, "{cargo} {arguments...}").into())
}

/// git, in the workspace's root.
pub(crate) fn git(arguments: &[&str]) -> Result<Command> {
    in_root(|shell| cmd!(shell, "git {arguments...}").into())
}

fn in_root(command: impl FnOnce(&Shell) -> Command) -> Result<Command> {
    let shell = Shell::new().cause(Cause::Usage, || "cannot work in this folder")?;
    shell.change_dir(root());
    Ok(command(&shell))
}

/// The workspace's root.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_path_buf()
}

/// The cause that a tool reported in its results folder, or what its exit code says where it could not.
pub(crate) fn cause_of(results: &Path, exit: i32) -> Option<Cause> {
    let said = std::fs::read_to_string(results.join("cause")).unwrap_or_default();
    let known = Cause::ALL.iter().copied().find(|cause| cause.name() == said.trim());
    match (known, exit) {
        (Some(cause), _) => Some(cause),
        (None, 0) => None,
        (None, 1) => Some(Cause::Unclassified),
        (None, 2) => Some(Cause::Usage),
        (None, 4) => Some(Cause::NothingRan),
        (None, 5) => Some(Cause::MissingProgram),
        (None, 129 | 130 | 143) => Some(Cause::Interrupted),
        (None, _) => Some(Cause::Internal),
    }
}

/// A tool's line without the time at its beginning: ours has one already.
pub(crate) fn undated(line: &str) -> &str {
    match line.split_once(' ') {
        Some((time, rest)) if time.len() == 8 && time.bytes().all(|b| b.is_ascii_digit() || b == b':') => rest,
        _ => line,
    }
}

/// An error for a tool that could not do its work, by what it reported.
pub(crate) fn failure(what: &str, cause: Cause, last: &[String]) -> Error {
    Error::new(cause, format!("{what} failed")).line(last.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_that_could_not_say_its_cause_has_one_by_its_exit_code() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(cause_of(folder.path(), 0), None);
        assert_eq!(cause_of(folder.path(), 101), Some(Cause::Internal));
        assert_eq!(cause_of(folder.path(), 130), Some(Cause::Interrupted));
        std::fs::write(folder.path().join("cause"), "image-missing-platform").unwrap();
        assert_eq!(cause_of(folder.path(), 1), Some(Cause::ImageMissingPlatform));
    }
}
