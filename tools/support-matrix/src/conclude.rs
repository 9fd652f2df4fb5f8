//! `support-matrix conclude`: what the stages of a run come to, for wirings that cannot say it themselves: a Tekton
//! Pipeline, a script. Each stage left a file (`--stage`); together they are `stages.json`.

use std::{collections::BTreeSet, path::PathBuf};

use jiff::Timestamp;
use kit::{
    Cause, Done, Error, Outcome, Output, Result, RunDir, Ui,
    record::{Head, Stage, Stages},
    rundir, stage,
    ui::{duration, table},
};

/// As many parts of a stage as anybody has machines.
const MOST_PARTS: u32 = 1000;

pub(crate) const EXAMPLES: &str = "\
Examples:
  support-matrix conclude target/runs/mine
  support-matrix conclude run --status install=Succeeded --status e2e=Failed     as a Tekton Pipeline calls it

Exit codes are those of the whole run: 1 the product is not good, 3 infrastructure, 4 no test ran, and so on.";

/// Says what the stages of a run come to.
#[derive(Debug, clap::Args)]
pub struct Conclude {
    /// The run's folder; each stage has left a file in its folder 'stages'
    run_dir: PathBuf,
    /// How the wiring says that a stage ended: Succeeded, Failed or None, as Tekton's $(tasks.NAME.status) (repeatable);
    /// one that failed and left no file was interrupted
    #[arg(long = "status", value_name = "STAGE=STATUS", num_args = 1..)]
    statuses: Vec<Status>,
    /// The cause of a stage that failed and left no file, if another one is likely (repeatable)
    #[arg(long, value_name = "STAGE=CAUSE")]
    otherwise: Vec<Likely>,
    /// The stage that fails for what the others have found: it has no cause of its own, if they have one
    #[arg(long, value_name = "STAGE")]
    judge: Option<String>,
    /// A stage whose exit code a file holds, as $(steps.step-NAME.exitCode.path) of the same Tekton Task (repeatable): one
    /// that failed and left no file of its own was interrupted
    #[arg(long = "step", value_name = "STAGE=FILE")]
    steps: Vec<Step>,
    /// Whether a run in which no test ran has shown nothing
    #[arg(long, value_enum, value_name = "required|none", default_value_t)]
    tests: Tests,
    /// Exit with 0 if a status says that a stage failed: then the wiring knows already that the run is not good
    #[arg(long)]
    unless_failed: bool,
}

/// Whether a run is to have tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum Tests {
    /// It tests
    #[default]
    Required,
    /// It only builds
    None,
}

/// What a wiring knows of a stage.
#[derive(Debug, Clone)]
struct Status {
    stage: String,
    ended: Ended,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ended {
    Succeeded,
    Failed,
    NotBegun,
}

impl std::str::FromStr for Status {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::new(Cause::Usage, format!("'{text}' is not STAGE=STATUS"))
                .next("the statuses are Succeeded, Failed and None")
        };
        let (stage, status) = text.split_once('=').filter(|(stage, _)| !stage.is_empty()).ok_or_else(wrong)?;
        let ended = match status {
            "Succeeded" | "Completed" => Ended::Succeeded,
            "Failed" => Ended::Failed,
            "None" => Ended::NotBegun,
            _ => return Err(wrong()),
        };
        Ok(Self { stage: stage.into(), ended })
    }
}

/// Where a wiring puts a stage's exit code.
#[derive(Debug, Clone)]
struct Step {
    stage: String,
    file: PathBuf,
}

impl std::str::FromStr for Step {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let split = text.split_once('=').filter(|(stage, file)| !stage.is_empty() && !file.is_empty());
        let step = split.map(|(stage, file)| Self { stage: stage.into(), file: file.into() });
        step.ok_or_else(|| Error::new(Cause::Usage, format!("'{text}' is not STAGE=FILE")))
    }
}

impl Step {
    /// A step that left no exit code did not come to its end.
    fn failed(&self) -> bool {
        std::fs::read_to_string(&self.file).map_or(true, |code| code.trim() != "0")
    }
}

/// The cause of a stage that cannot say it itself.
#[derive(Debug, Clone)]
struct Likely {
    stage: String,
    cause: Cause,
}

impl std::str::FromStr for Likely {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let split = text.split_once('=').filter(|(stage, _)| !stage.is_empty());
        let known = |(stage, name): (&str, &str)| {
            let cause = Cause::ALL.iter().copied().find(|cause| cause.name() == name)?;
            Some(Self { stage: stage.into(), cause })
        };
        split.and_then(known).ok_or_else(|| Error::new(Cause::Usage, format!("'{text}' is not STAGE=CAUSE")))
    }
}

pub(crate) fn run(args: &Conclude, ui: &Ui) -> Result<Done> {
    // A wiring whose first stage failed has nothing to show but that. Who only asks needs no room.
    let asks = args.statuses.is_empty() || (args.unless_failed && args.run_dir.is_dir());
    let run = if asks { RunDir::open(&args.run_dir)? } else { RunDir::create(&args.run_dir)? };
    let mut stages = stage::read(run.path())?;
    add_unheard(&mut stages, args);
    let (cause, exit) = stage::conclude(&stages, &[], args.tests == Tests::Required);
    let head = head(&run, &stages, cause);
    let record = Stages { head: head.clone(), stages: stages.clone() };
    let seal = run.path().join(kit::bundle::FILE);
    // What is sealed stays as it is, unless a wiring is at its end once more; what only asks writes nothing.
    let again = !args.statuses.is_empty();
    if !args.unless_failed && (again || !seal.exists()) {
        rundir::write_record(run.path(), &record)?;
        match std::fs::remove_file(&seal) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::from_source(Cause::HostDisk, format!("cannot remove {}", seal.display()), error));
            }
            _ => {}
        }
    }
    match ui.output {
        Output::Json => ui.json(&record)?,
        Output::Text => ui.result(&text(&stages))?,
    }
    let said =
        cause.map_or_else(|| "good".into(), |cause| format!("{cause} ({})", cause.meaning().trim_end_matches('.')));
    ui.note(format!("run {}: {said}", run.id()));
    if let Some(again) = head.reproduce.filter(|again| !again.is_empty()) {
        ui.note(format!("again: {again}"));
    }
    if args.unless_failed && args.statuses.iter().any(|status| status.ended == Ended::Failed) {
        return Ok(Done::good());
    }
    Ok(Done { cause, exit: Some(exit), ..Done::default() })
}

/// What the wiring knows and no file says: a pod that never ran, or that was killed.
fn add_unheard(stages: &mut Vec<Stage>, args: &Conclude) {
    let statuses = &args.statuses;
    // Where no baseline was taken there is nothing to go back to, and cleanup said so.
    let untouched = statuses.iter().any(|status| status.stage == "snapshot" && status.ended != Ended::Succeeded);
    stages.retain(|stage| !(untouched && stage.name == "cleanup" && stage.cause == Some(Cause::Usage)));
    let tasks = statuses.iter().filter(|status| status.ended == Ended::Failed).map(|status| &status.stage);
    let steps = args.steps.iter().filter(|step| step.failed()).map(|step| &step.stage);
    // The judge comes last: the others are heard then.
    let judge = |name: &&String| args.judge.as_ref() == Some(*name);
    let (judges, others): (Vec<_>, Vec<_>) = tasks.chain(steps).partition(judge);
    for name in others.into_iter().chain(judges) {
        let silent = silent_parts(stages, name);
        let heard = silent.is_empty() && stages.iter().any(|stage| stage.name == *name && stage.cause.is_some());
        let judged = judge(&name) && stage::conclude(stages, &[], args.tests == Tests::Required).0.is_some();
        if heard || judged {
            continue;
        }
        let likely = args.otherwise.iter().find(|likely| likely.stage == *name);
        let cause = likely.map_or(Cause::Interrupted, |likely| likely.cause);
        match silent.is_empty() {
            true => stages.push(unheard(name, None, cause)),
            false => stages.extend(silent.into_iter().map(|part| unheard(name, Some(part), cause))),
        }
    }
}

/// The parts of a stage that left no file, where others did: what those found does not explain them.
fn silent_parts(stages: &[Stage], name: &str) -> Vec<String> {
    let parts = stages.iter().filter(|stage| stage.name == name).filter_map(|stage| stage.part.as_deref());
    let known: BTreeSet<_> = parts.filter_map(stage::part).collect();
    // A file may say anything.
    let of = known.iter().map(|(_, of)| *of).max().filter(|of| *of <= MOST_PARTS).unwrap_or(0);
    let silent = (1..=of).filter(|number| !known.contains(&(*number, of)));
    silent.map(|number| format!("{number}/{of}")).collect()
}

fn unheard(name: &str, part: Option<String>, cause: Cause) -> Stage {
    let now = Timestamp::now();
    Stage {
        name: name.into(),
        component: None,
        platform: None,
        part,
        started: now,
        finished: now,
        outcome: Outcome::Failed,
        cause: Some(cause),
        exit: i32::from(cause.exit().0),
        command: String::new(),
    }
}

fn head(run: &RunDir, stages: &[Stage], cause: Option<Cause>) -> Head {
    let now = Timestamp::now();
    let started = stages.iter().map(|stage| stage.started).min().unwrap_or(now);
    let head = Head::new("support-matrix", env!("CARGO_PKG_VERSION"), &run.id(), started);
    let deciding = stages.iter().find(|stage| cause.is_some() && stage.cause == cause);
    Head {
        outcome: if cause.is_some() { Outcome::Failed } else { Outcome::Passed },
        cause,
        reproduce: deciding.map(|stage| stage.command.clone()),
        ..head
    }
}

fn text(stages: &[Stage]) -> String {
    let mut rows = vec![["stage", "component", "platform", "took", "outcome"].map(String::from).to_vec()];
    for stage in stages {
        let took = stage.finished.duration_since(stage.started).unsigned_abs();
        let words = [Some(stage.name.as_str()), stage.part.as_deref()];
        rows.push(vec![
            words.into_iter().flatten().collect::<Vec<_>>().join(" "),
            stage.component.clone().unwrap_or_default(),
            stage.platform.as_ref().map(ToString::to_string).unwrap_or_default(),
            duration(took),
            stage.cause.map_or_else(|| "good".into(), |cause| cause.to_string()),
        ]);
    }
    kit::ui::printable(&table(&rows))
}
