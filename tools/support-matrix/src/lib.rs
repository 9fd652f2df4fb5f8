//! support-matrix: closed runs to what is supported, and why.
//!
//! Evidence (`evidence`) is what runs say; cells (`cells`) are what that comes to at a date; claims (`policy`) are
//! what may be said of it; `render` shows it. Nothing here talks to a cluster or a registry.

mod cells;
mod conclude;
mod evidence;
mod history;
pub mod model;
mod policy;
mod render;
mod text;
mod verbs;

use clap::{Parser, Subcommand};
use kit::{Common, Done, Result, Tool, Ui};

pub use conclude::Conclude;
pub use model::schema;
pub use verbs::{Format, Record, Render, Why};

/// Says what is supported, from the evidence of closed runs
#[derive(Debug, Parser)]
#[command(name = "support-matrix", version)]
pub struct Args {
    #[command(subcommand)]
    verb: Verb,
    #[command(flatten)]
    common: Common,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Say what the stages of a run come to, and write stages.json
    #[command(after_help = conclude::EXAMPLES)]
    Conclude(Conclude),
    /// Seal a run directory and keep it in the history
    Record(Record),
    /// Show the matrix
    Render(Render),
    /// Say why a cell is what it is
    Why(Why),
}

impl Tool for Args {
    fn common(&self) -> &Common {
        &self.common
    }
}

/// Does what the arguments say.
///
/// # Errors
/// Usage errors, and what goes wrong with files; see each verb.
pub fn run(args: Args, ui: &Ui) -> Result<Done> {
    match args.verb {
        Verb::Conclude(conclude) => conclude::run(&conclude, ui),
        Verb::Record(record) => verbs::record(&record, ui),
        Verb::Render(render) => verbs::render(&render, ui),
        Verb::Why(why) => verbs::why(&why, ui),
    }
}
