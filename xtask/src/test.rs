//! `cargo xtask test`: this project's tests in tiers, and when each tier last passed.

use std::{
    collections::BTreeMap,
    io::Write,
    time::{Duration, Instant},
};

use kit::{
    Cause, Context, Done, Error, Output, Process, Result, Ui, process::Stopper, record::EMULATED, rundir, ui::duration,
};
use serde::{Deserialize, Serialize};

use crate::tools;

/// Run this project's own tests
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also what goes wrong in a cluster, and with runs: kills, restarts, everything that hangs
    #[arg(long)]
    faults: bool,
    /// Also everything with Tekton Pipelines (an hour from nothing)
    #[arg(long)]
    tekton: bool,
    /// Also nodes of other architectures under emulation
    #[arg(long)]
    nodes: bool,
    /// Also the support matrix's site in Chromium (needs Debian's chromium and chromium-driver, and npm)
    #[arg(long)]
    browser: bool,
    /// Only this tier
    #[arg(long, value_enum)]
    only: Option<Tier>,
    /// Only tests whose name contains this
    #[arg(value_name = "FILTER")]
    filter: Option<String>,
}

mod labs;
mod side_by_side;

/// A tier of tests, from the quickest to the slowest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Tier {
    /// Functions, and the real binaries against stand-ins
    Unit,
    /// The lab, every tool on it, and greeter from source to matrix
    Lab,
    /// Kills, restarts and whatever hangs, on the lab
    Faults,
    /// The lab's nodes of other architectures
    Nodes,
    /// The support matrix's site in a browser
    Browser,
    /// Tekton Pipelines from source to matrix
    Tekton,
}

/// How a tier ended the last time, in a file that is committed.
#[derive(Debug, Serialize, Deserialize)]
struct Last {
    commit: String,
    date: jiff::Timestamp,
    passed: usize,
    failed: usize,
    seconds: u64,
}

impl Tier {
    const fn name(self) -> &'static str {
        match self {
            Self::Unit => "unit",
            Self::Lab => "lab",
            Self::Faults => "faults",
            Self::Nodes => "nodes",
            Self::Browser => "browser",
            Self::Tekton => "tekton",
        }
    }

    const fn needs_lab(self) -> bool {
        !matches!(self, Self::Unit | Self::Browser)
    }

    /// Where a test that is ignored belongs, by the first of these words in its name: to one tier only.
    fn of(name: &str) -> Self {
        let tiers = [Self::Browser, Self::Faults, Self::Nodes, Self::Tekton];
        tiers.into_iter().find(|tier| name.contains(tier.name())).unwrap_or(Self::Lab)
    }

    /// How many of its test programs run at a time: two cores carry two labs, and no more than one with emulated nodes.
    const fn jobs(self) -> usize {
        if matches!(self, Self::Unit | Self::Lab | Self::Faults) { 2 } else { 1 }
    }
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Done> {
    let mut tiers = vec![Tier::Unit, Tier::Lab];
    if args.faults {
        tiers.push(Tier::Faults);
    }
    if args.nodes {
        tiers.push(Tier::Nodes);
    }
    if args.browser {
        tiers.push(Tier::Browser);
    }
    if args.tekton {
        tiers.push(Tier::Tekton);
    }
    if let Some(only) = args.only {
        tiers = vec![only];
    }
    show_ages(ui);
    // The tests call the tools by their paths.
    tools::build(tools::TOOLS, ui)?;
    let labs = labs::Labs::begin(ui)?;
    let ended = all(&tiers, args.filter.as_deref(), ui);
    kit::signal::forget();
    labs.end(ui);
    let (passed, failed) = ended?;
    match ui.output {
        Output::Text => ui.result(&format!("{passed} passed, {failed} failed"))?,
        Output::Json => ui.json(&remembered())?,
    }
    match (passed, failed) {
        (0, 0) => Err(Error::new(Cause::NothingRan, "no test ran").next("the filter matches no test's name")),
        (_, 0) => Ok(Done::good()),
        _ => Err(Error::new(Cause::Product, format!("{failed} of this project's tests failed"))),
    }
}

/// Passed and failed of all tiers. While the first ones compile and wait, Go builds what later ones need.
fn all(tiers: &[Tier], filter: Option<&str>, ui: &Ui) -> Result<(usize, usize)> {
    let stopper = Stopper::default();
    std::thread::scope(|threads| {
        let needed = tiers.iter().any(|tier| tier.needs_lab());
        let nodes = if tiers.contains(&Tier::Nodes) { &EMULATED[..] } else { &[] };
        let mut programs = needed.then(|| threads.spawn(|| tools::lab_programs(nodes, &stopper, ui)));
        let (mut passed, mut failed) = (0, 0);
        for tier in tiers {
            if tier.needs_lab()
                && let Some(programs) = programs.take()
            {
                programs.join().map_err(|_| Error::new(Cause::Internal, "the lab's programs: a thread panicked"))??;
            }
            let counts = one(*tier, filter, ui).inspect_err(|_| stopper.stop())?;
            passed += counts.0;
            failed += counts.1;
        }
        Ok((passed, failed))
    })
}

fn one(tier: Tier, filter: Option<&str>, ui: &Ui) -> Result<(usize, usize)> {
    let began = Instant::now();
    let print = |text: &str| {
        let _ = match ui.output {
            Output::Text => write!(std::io::stdout(), "{text}"),
            Output::Json => write!(std::io::stderr(), "{text}"),
        };
    };
    let (passed, failed) = match tier {
        Tier::Unit => side_by_side::plain(tier.jobs(), filter, print, ui)?,
        _ => {
            let wanted = |name: &str| Tier::of(name) == tier && filter.is_none_or(|word| name.contains(word));
            side_by_side::ignored(tier.jobs(), wanted, print, ui)?
        }
    };
    if filter.is_none() {
        remember(tier, passed, failed, began)?;
    }
    ui.note(format!("tier '{}': {passed} passed, {failed} failed in {}", tier.name(), duration(began.elapsed())));
    Ok((passed, failed))
}

/// Passed and failed, from the line with which a test program closes.
fn totals(line: &str) -> Option<(usize, usize)> {
    let rest = line.strip_prefix("test result: ")?.split_once(". ")?.1;
    let mut numbers = rest.split("; ").filter_map(|part| part.split(' ').next()?.parse().ok());
    Some((numbers.next()?, numbers.next()?))
}

fn file() -> std::path::PathBuf {
    tools::root().join("fixtures/last-results.json")
}

fn remembered() -> BTreeMap<String, Last> {
    std::fs::read(file()).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default()
}

fn remember(tier: Tier, passed: usize, failed: usize, began: Instant) -> Result<()> {
    let git = tools::git(&["describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"])?;
    let commit = Process::new("the commit", git).read().unwrap_or_default().trim().to_owned();
    let last = Last { commit, date: jiff::Timestamp::now(), passed, failed, seconds: began.elapsed().as_secs() };
    let mut all = remembered();
    all.insert(tier.name().into(), last);
    let mut text = serde_json::to_string_pretty(&all).cause(Cause::Internal, || "cannot write the results")?;
    text.push('\n');
    rundir::write(&file(), text.as_bytes()).map(drop)
}

fn show_ages(ui: &Ui) {
    for (tier, last) in remembered() {
        let days = jiff::Timestamp::now().duration_since(last.date).as_hours() / 24;
        ui.note(format!(
            "tier '{tier}' last: {} passed, {} failed in {}, {days} days ago at {}",
            last.passed,
            last.failed,
            duration(Duration::from_secs(last.seconds)),
            last.commit
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_program_s_last_line_is_understood() {
        let line = "test result: FAILED. 22 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 2.21s";
        assert_eq!(totals(line), Some((22, 1)));
        assert_eq!(totals("test result: "), None);
    }

    #[test]
    fn a_test_belongs_to_one_tier() {
        for (name, tier) in [
            ("nodes_run_tekton_of_their_own_architecture", Tier::Nodes),
            ("tekton_pipelines_from_source_to_a_matrix", Tier::Tekton),
            ("browser::browser_finds_every_page_accessible", Tier::Browser),
            ("labs_are_side_by_side", Tier::Lab),
            ("faults_of_runs_have_their_cause_and_their_exit_code", Tier::Faults),
        ] {
            assert_eq!(Tier::of(name), tier, "{name}");
        }
    }
}
