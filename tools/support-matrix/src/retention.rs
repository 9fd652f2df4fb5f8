//! What is kept of a history, by rule: what a claim rests on stays; logs go first, then runs on which nothing rests.

use std::collections::BTreeSet;

use clap::Args;
use kit::{Cause, Done, Error, Output, Result, Ui, bundle::is_log};
use serde::Serialize;

use crate::{
    model::Matrix,
    policy,
    questions::Input,
    text::{many, short},
};

/// Removes what [retention] in ci/policy.toml does not keep.
#[derive(Debug, Args)]
pub struct Prune {
    /// Only say what would go
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    input: Input,
}

/// What `prune` says with `--output json`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Pruned {
    dry_run: bool,
    /// Runs that went, or would.
    runs: Vec<String>,
    /// Runs whose logs went, or would.
    logs: Vec<String>,
    bytes: u64,
    /// Runs that a cell rests on.
    kept: usize,
}

pub(crate) fn prune(args: &Prune, ui: &Ui) -> Result<Done> {
    let opened = args.input.open(false, ui)?;
    let matrix = opened.matrix(ui)?;
    let rule = opened.rules.policy.retention;
    if rule.logs.is_none() && rule.runs.is_none() {
        return Err(Error::new(Cause::Usage, "ci/policy.toml has no [retention]: everything is kept")
            .next("add [retention] with logs = DAYS and runs = DAYS"));
    }
    // Whatever has something wrong with it may be what a claim rested on: a person decides about that.
    if matrix.left_out.iter().any(|left| left.fault) {
        return Err(Error::new(Cause::Usage, "the history holds damaged evidence, so nobody knows what rests on what")
            .next("support-matrix render --strict, and remove or fetch again what it names"));
    }
    let rests = resting(&matrix);
    let old = |at, days: Option<u32>| days.is_some_and(|days| opened.rules.now > policy::after(at, days));
    let mut pruned = Pruned { dry_run: args.dry_run, runs: Vec::new(), logs: Vec::new(), bytes: 0, kept: rests.len() };
    let history = opened.library.history()?;
    for loaded in opened.library.all() {
        kit::signal::check()?;
        let run = &loaded.run;
        if rests.contains(&*run.digest) || run.finished > opened.rules.now {
            continue;
        }
        let closed = history.bundle(&run.digest)?;
        let size = |log: bool| {
            closed.files().iter().filter(|file| !log || is_log(&file.path)).map(|file| file.size).sum::<u64>()
        };
        if old(run.finished, rule.runs) {
            pruned.runs.push(run.digest.to_string());
            pruned.bytes += size(false);
            if !args.dry_run {
                history.remove(&run.digest)?;
            }
        } else if old(run.finished, rule.logs) && !closed.is_shed() && size(true) > 0 {
            pruned.logs.push(run.digest.to_string());
            pruned.bytes += size(true);
            if !args.dry_run {
                history.shed_logs(&closed)?;
            }
        }
    }
    match ui.output {
        Output::Json => ui.json(&pruned)?,
        Output::Text => {
            let would = if args.dry_run { "would go" } else { "gone" };
            let mut text = format!(
                "{} and the logs of {}: {would}, {:.1} MB; {} on which a cell rests stay\n",
                many(pruned.runs.len(), "run"),
                many(pruned.logs.len(), "run"),
                pruned.bytes as f64 / 1e6,
                many(pruned.kept, "run"),
            );
            pruned.runs.iter().for_each(|digest| text.push_str(&format!("  run {}\n", short(digest))));
            pruned.logs.iter().for_each(|digest| text.push_str(&format!("  logs of {}\n", short(digest))));
            ui.result(&text)?;
        }
    }
    Ok(Done::good())
}

/// Bundles that decide something of a cell.
fn resting(matrix: &Matrix) -> BTreeSet<String> {
    matrix.cells.iter().flat_map(|cell| cell.evidence.iter().cloned()).collect()
}
