//! A real Kubernetes on this machine: control plane, one node, DNS, volumes, a registry.
//!
//! Each lab is a process tree in namespaces of its own, so that `down` is one kill and everything that
//! was mounted, configured or started goes with it. See `supervisor` for the inside, `up` and `down`
//! for the outside.

mod cgroups;
mod clients;
mod config;
mod control;
mod down;
mod guest;
pub mod image;
mod layout;
mod leftovers;
mod logs;
mod mirrors;
mod namespace;
mod network;
mod parts;
mod pki;
mod prerequisites;
mod process;
mod programs;
mod ready;
mod record;
mod status;
mod supervisor;
mod up;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use kit::{Common, Done, Platform, Result, Tool, Ui};

pub use control::{ProgramState, State};
pub use record::{Node, Phase, Record, Subnet};

use layout::Layout;

/// A real Kubernetes on this machine.
#[derive(Debug, Parser)]
#[command(name = "lab", version)]
pub struct Args {
    #[command(flatten)]
    common: Common,
    /// Which lab; several can be up at the same time
    #[arg(long, global = true, default_value = "default")]
    name: String,
    #[command(subcommand)]
    verb: Verb,
}

impl Tool for Args {
    fn common(&self) -> &Common {
        &self.common
    }
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Build the lab's programs, without starting anything
    Build {
        /// Also those of emulated nodes of this platform; repeatable
        #[arg(long = "node", value_name = "PLATFORM")]
        nodes: Vec<Platform>,
    },
    /// Start the lab, or go on where an earlier `up` stopped
    ///
    /// In its JSON `fresh` says whether this very call made the lab: then its caller may take it down again. A lab
    /// that was up already, even with nothing but its registry, is not fresh.
    Up(up::Options),
    /// Remove the lab; its registry's images and its logs stay unless --purge
    Down {
        /// Remove images and logs too
        #[arg(long)]
        purge: bool,
    },
    /// Say how the lab is
    Status,
    /// Print the path of the lab's kubeconfig
    Kubeconfig {
        /// Print its content instead
        #[arg(long)]
        raw: bool,
    },
    /// Print the logs of the lab's programs
    Logs {
        /// Only of this program
        program: Option<String>,
        /// Go on until interrupted
        #[arg(long, short)]
        follow: bool,
    },
    /// Run the lab's own kubectl
    #[command(disable_help_flag = true, args = clients::covered())]
    Kubectl {
        /// What it is given
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<String>,
    },
    /// Load an image archive (OCI or Docker) into the node's store
    Load {
        /// The archive
        file: PathBuf,
    },
    /// Kill a program of the lab; it is started again unless --hold
    Kill {
        /// As in `status`
        program: String,
        /// Leave it down until `start`
        #[arg(long)]
        hold: bool,
    },
    /// Start a program that was held or gave up
    Start {
        /// As in `status`
        program: String,
    },
    /// List what labs can leave on a machine, one thing a line
    Leftovers {
        /// Only what belongs to this lab
        #[arg(long, value_name = "NAME")]
        of: Option<String>,
    },
    /// The lab's first process; not for people
    #[command(hide = true)]
    Supervise { cache: PathBuf },
}

/// Does what was asked.
///
/// # Errors
/// With the cause that decides the exit code.
pub fn run(args: Args, ui: &Ui) -> Result<Done> {
    if let Verb::Supervise { cache } = args.verb {
        return supervisor::run(&Layout::at(&args.name, cache)?).map(|()| Done::good());
    }
    let layout = Layout::new(&args.name)?;
    // These need no more than their files; `down` may find that there is nothing to do.
    if !matches!(args.verb, Verb::Build { .. } | Verb::Up(_) | Verb::Down { .. } | Verb::Logs { .. }) {
        prerequisites::root()?;
    }
    match args.verb {
        Verb::Build { nodes } => up::build(&layout, &nodes, ui),
        Verb::Up(options) => up::up(&layout, &options, ui),
        Verb::Down { purge } => down::down(&layout, purge, ui),
        Verb::Status => status::status(&layout, ui),
        Verb::Kubeconfig { raw } => status::kubeconfig(&layout, raw, ui),
        Verb::Logs { program, follow } => logs::print(&layout, program.as_deref(), follow),
        Verb::Kubectl { arguments } => status::kubectl(&layout, &arguments),
        Verb::Load { file } => status::load(&layout, &file, ui),
        Verb::Kill { program, hold } => status::kill(&layout, program, hold, ui),
        Verb::Start { program } => status::start(&layout, program, ui),
        Verb::Leftovers { of } => leftovers::print(&layout, of.as_deref(), ui),
        Verb::Supervise { .. } => Ok(Done::good()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(words: &[&str]) -> (Args, Vec<String>) {
        let args = Args::try_parse_from(words).unwrap_or_else(|error| panic!("{words:?}: {error}"));
        let Verb::Kubectl { arguments } = &args.verb else { panic!("{:?}", args.verb) };
        let given = arguments.clone();
        (args, given)
    }

    #[test]
    fn kubectl_gets_its_arguments_as_they_are() {
        for line in [
            "--output name get nodes",
            "get pods --quiet --name x",
            "-q --help",
            "-h",
            "--name=x get",
            "--results-dir y",
            "exec p -- sh -c x",
            "-o json get -- x",
        ] {
            let words: Vec<_> = line.split(' ').collect();
            let (args, given) = given(&[&["lab", "--name", "other", "kubectl"], &words[..]].concat());
            assert_eq!(given, words);
            assert_eq!((args.name.as_str(), args.common.quiet), ("other", false), "{line}");
        }
    }

    #[test]
    fn the_arguments_fit_together() {
        use clap::CommandFactory;
        Args::command().debug_assert();
    }
}
