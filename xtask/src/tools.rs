//! The five tools and the lab, as programs: built by cargo, called by path, arguments passed through.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use clap::Subcommand;
use kit::{Cause, Context, Done, Error, Process, Result, Ui};

/// Every tool, by its one name.
pub(crate) const TOOLS: &[&str] = &["image-build", "cluster-install", "e2e-runner", "cleanup", "support-matrix", "lab"];

/// A tool with arguments of its own. Its `--help` is its own as well.
#[derive(Subcommand)]
pub(crate) enum Passthrough {
    /// Sources -> verified multi-platform images and release.yaml
    #[command(disable_help_flag = true)]
    ImageBuild(Rest),
    /// A cluster and a release -> installed, ready, recorded
    #[command(disable_help_flag = true)]
    ClusterInstall(Rest),
    /// A component's own tests -> results with causes
    #[command(disable_help_flag = true)]
    E2eRunner(Rest),
    /// A used cluster -> back at its baseline, proven by a diff
    #[command(disable_help_flag = true)]
    Cleanup(Rest),
    /// Records -> what is supported, and why
    #[command(disable_help_flag = true)]
    SupportMatrix(Rest),
    /// A real Kubernetes on this machine
    #[command(disable_help_flag = true)]
    Lab(Rest),
}

/// Arguments that are not ours.
#[derive(clap::Args)]
pub(crate) struct Rest {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARGUMENTS")]
    rest: Vec<OsString>,
}

impl Passthrough {
    /// Builds the tool and becomes it.
    pub(crate) fn run(self) -> Result<Done> {
        let (name, rest) = match self {
            Self::ImageBuild(rest) => ("image-build", rest),
            Self::ClusterInstall(rest) => ("cluster-install", rest),
            Self::E2eRunner(rest) => ("e2e-runner", rest),
            Self::Cleanup(rest) => ("cleanup", rest),
            Self::SupportMatrix(rest) => ("support-matrix", rest),
            Self::Lab(rest) => ("lab", rest),
        };
        build(&[name], &Ui::silent())?;
        let mut command = Command::new(path(name)?);
        command.args(rest.rest);
        Err(Process::new(name, command).replace())
    }
}

/// Where a tool's program lies: beside this one.
pub(crate) fn path(tool: &str) -> Result<PathBuf> {
    let own = std::env::current_exe().cause(Cause::Internal, || "cannot find this program's own path")?;
    Ok(own.parent().unwrap_or(Path::new(".")).join(tool))
}

/// Builds tools, which takes minutes the first time and nothing later.
pub(crate) fn build(tools: &[&str], ui: &Ui) -> Result<()> {
    let step = ui.step("cargo build");
    let mut command = cargo();
    command.arg("build");
    // The profile that this very program was built with.
    if path("").is_ok_and(|folder| folder.ends_with("release")) {
        command.arg("--release");
    }
    for tool in tools {
        command.args(["--package", tool]);
    }
    Process::new("build of the tools", command)
        .cause(Cause::BuildFailure)
        .limit(Duration::from_secs(1800))
        .on_line(|_, line| step.set(line.trim()))
        .run()?;
    step.done("");
    Ok(())
}

/// The cargo that runs us, in the workspace's root.
pub(crate) fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root());
    command
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
        (None, 129..) => Some(Cause::Interrupted),
        (None, _) => Some(Cause::Internal),
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
