//! support-matrix: closed runs to what is supported, and why.
//!
//! Evidence (`evidence`) is what runs say; the index (`index`, `history`) is what makes many of them quick to read;
//! cells (`cells`) are what that comes to at a date; claims (`policy`) are what may be said of it; `questions`, `render`
//! and `site` show it; `exchange` carries it between machines through a registry. Nothing here talks to a cluster.

mod cells;
mod conclude;
mod evidence;
mod exchange;
mod history;
mod index;
mod kept;
pub mod model;
mod policy;
mod questions;
mod render;
mod retention;
mod site;
mod text;
mod tidy;
mod verbs;

use clap::{Parser, Subcommand};
use kit::{Common, Done, Result, Tool, Ui};

pub use conclude::Conclude;
pub use exchange::{Pull, Push};
pub use model::{schema, schemas};
pub use questions::{Badge, Can, Claims, Diff, Log, NoticesArgs, Onboard, Stale};
pub use retention::Prune;
pub use site::Site;
pub use verbs::{Format, Record, Render, Why};

const EXAMPLES: &str = "\
Examples:
  support-matrix record target/runs/RUN                      keep a run as evidence
  support-matrix render --format markdown                    the matrix for a document
  support-matrix can pipeline@v1.9.0 linux/s390x             exit code 0 if it is supported, 1 if not, and why
  support-matrix why pipeline@v1.9.0/linux/s390x --as-of 2026-11-01
  support-matrix diff pipeline@v1.8.0 pipeline@v1.9.0        1 if anything was lost
  support-matrix claims README.md docs                       1 if a claim has no evidence
  support-matrix stale                                       1 if somebody should look
  support-matrix notices --mark last-report                  what changed, per owner, as Markdown
  support-matrix site --out public                           pages that need no server
  support-matrix push --release ghcr.io/me/pipeline:v1.9.0   evidence beside the release
  support-matrix pull ghcr.io/me/pipeline:v1.9.0             evidence of others

Exit codes: 0 good or yes; 1 no, or something that a gate should stop at; 2 the call, a file or evidence is wrong;
3 a disk or a registry; 4 there is nothing to say.";

/// Says what is supported, from the evidence of closed runs
#[derive(Debug, Parser)]
#[command(name = "support-matrix", version, after_help = EXAMPLES)]
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
    /// Write the matrix, its cells, runs and owners as a static site
    Site(Site),
    /// Say why a cell is what it is
    Why(Why),
    /// Say whether a version is supported on a platform: 0 or 1, and why
    Can(Can),
    /// Compare two versions, or two dates
    Diff(Diff),
    /// List every promotion and demotion, with the rule and the evidence
    Log(Log),
    /// Find what documents say of architectures, and what of it has no evidence
    Claims(Claims),
    /// Raise an alarm: nights without a run, platforms and cells without any, claims that end or have ended
    Stale(Stale),
    /// Say what changed since the last report, for each owner
    Notices(NoticesArgs),
    /// Say what is missing before an architecture can be supported
    Onboard(Onboard),
    /// Write a badge as SVG
    Badge(Badge),
    /// Push evidence into a registry, beside the release that it is about
    Push(Push),
    /// Pull the evidence about a release out of a registry
    Pull(Pull),
    /// Remove what the rule of retention does not keep
    Prune(Prune),
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
        Verb::Site(site) => site::site(&site, ui),
        Verb::Why(why) => verbs::why(&why, ui),
        Verb::Can(can) => questions::can(&can, ui),
        Verb::Diff(diff) => questions::diff(&diff, ui),
        Verb::Log(log) => questions::log(&log, ui),
        Verb::Claims(claims) => questions::claims(&claims, ui),
        Verb::Stale(stale) => questions::stale(&stale, ui),
        Verb::Notices(notices) => questions::notices(&notices, ui),
        Verb::Onboard(onboard) => questions::onboard(&onboard, ui),
        Verb::Badge(badge) => questions::badge(&badge, ui),
        Verb::Push(push) => exchange::push(&push, ui),
        Verb::Pull(pull) => exchange::pull(&pull, ui),
        Verb::Prune(prune) => retention::prune(&prune, ui),
    }
}
