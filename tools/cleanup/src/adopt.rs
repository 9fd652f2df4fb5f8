//! `adopt`: takes a cluster for a run. If a run before it was killed there, what that one left goes first, by its own
//! baseline, which lies among the other runs of the place.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use cluster::lease;
use kit::{
    Cause, Done, Error, Outcome, Platform, Result, RunDir, Ui,
    ci::parse_duration,
    record::{Baseline, Install, Record, RunRecord},
    rundir::read_record,
};

use crate::{
    back::{self, RunArgs},
    scene::Place,
    select::Selection,
};

/// For whom, and where others have left their baselines.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct AdoptArgs {
    /// The folder of the run that takes the cluster
    #[arg(long, value_name = "DIR")]
    run_dir: PathBuf,
    /// Where earlier runs lie: each a folder of it, or the folder 'run' of one
    #[arg(long, value_name = "DIR")]
    runs: PathBuf,
    /// Wait so long for a cluster that another run holds, as in 30m [default: fail at once]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    wait_for_lease: Option<Duration>,
    #[command(flatten)]
    cluster: cluster::Options,
}

/// Takes the lease; of a cluster that has to be cleaned first it is free again at the end, for whoever takes it next.
///
/// # Errors
/// [`Cause::LeaseHeld`] while another run uses the cluster, and if what one has left does not go or is not known here;
/// otherwise as [`cluster::cause_of`] says.
pub(crate) fn run(args: &AdoptArgs, ui: &Ui) -> Result<Done> {
    let own = RunDir::create(&args.run_dir)?.id();
    let Some((left, place)) = cluster::block_on(take(args, &own, ui))? else { return Ok(Done::good()) };
    ui.note(format!("cleaning what run {left} left, by its baseline in {}", place.run_dir.display()));
    let command = place.command("run");
    let all = RunArgs {
        place,
        selection: Selection::default(),
        dry_run: false,
        force_finalizers: Vec::new(),
        cluster_uid: None,
        budget: Vec::new(),
        history: None,
    };
    let why = match back::run(&all, ui) {
        Ok(Done { cause: None, .. }) => return Ok(Done::good()),
        Ok(_) => String::new(),
        // It is wrong with what was left, not with this call.
        Err(error) if matches!(error.cause, Cause::Usage | Cause::NotAtBaseline) => format!(": {}", error.summary()),
        Err(error) => return Err(error),
    };
    let what = format!("run {left} left the cluster, and it does not get back to what it was before{why}");
    Err(Error::new(Cause::LeaseHeld, what).next(format!("{command}, or make the cluster anew")))
}

/// The run that has left the cluster dirty, and where its baseline is for; nothing if the cluster is `own` now.
async fn take(args: &AdoptArgs, own: &str, ui: &Ui) -> Result<Option<(String, Place)>> {
    let opened = cluster::open(&args.cluster, ui).await?;
    let client = &opened.client;
    let mut guard = match args.wait_for_lease {
        Some(limit) => lease::wait(client, own, limit, |who| ui.note(format!("waiting: {who}"))).await?,
        None => lease::take(client, own).await?,
    };
    let Some(dirty) = guard.dirty().map(String::from) else {
        ui.note("the lease is taken, and no run has left anything");
        return Ok(None);
    };
    let uid = cluster::identity(&opened).await?.uid;
    match find(&args.runs, &dirty, &uid) {
        Left::Nothing => {
            ui.note(format!("run {dirty} was killed before it had done anything"));
            guard.adopt().await?;
            Ok(None)
        }
        Left::Of { run_dir, component, platform } => {
            guard.release().await?;
            Ok(Some((dirty, Place { run_dir, component, platform, cluster: args.cluster.clone() })))
        }
        Left::Unknown => {
            guard.release().await?;
            let runs = args.runs.display();
            let what = format!("run {dirty} left the cluster without cleaning it, and no baseline of it is in {runs}");
            Err(Error::new(Cause::LeaseHeld, what)
                .next("clean it; or, to take it as it is: cargo xtask cluster-install lease release --force"))
        }
    }
}

/// What is known of a run that was killed.
#[derive(Debug, PartialEq, Eq)]
enum Left {
    /// It has a folder, and had neither a baseline nor anything installed.
    Nothing,
    /// Its newest baseline.
    Of { run_dir: PathBuf, component: String, platform: Platform },
    /// Not even its folder is here, or it installed something without a baseline.
    Unknown,
}

fn find(runs: &Path, run: &str, uid: &str) -> Left {
    let entries = fs::read_dir(runs).into_iter().flatten().flatten().map(|entry| entry.path());
    // A folder without an id would be given one.
    let has_id = |folder: &PathBuf| ["run-id", RunRecord::FILE].iter().any(|file| folder.join(file).is_file());
    let mut known = entries.flat_map(|folder| [folder.join("run"), folder]).filter(has_id);
    let found = known.find_map(|folder| RunDir::open(folder).ok().filter(|found| found.id() == run));
    let Some(found) = found else { return Left::Unknown };
    let (run_dir, cells) = (found.path().to_path_buf(), found.cells());
    let mut newest: Option<(jiff::Timestamp, String, Platform)> = None;
    for cell in &cells {
        let Ok((baseline, _)) = read_record::<Baseline>(cell) else { continue };
        let good = baseline.head.outcome == Outcome::Passed && baseline.cluster.uid == uid;
        let Some((component, platform)) = names(cell).filter(|_| good) else { continue };
        if newest.as_ref().is_none_or(|(at, ..)| *at < baseline.head.finished) {
            newest = Some((baseline.head.finished, component, platform));
        }
    }
    match newest {
        Some((_, component, platform)) => Left::Of { run_dir, component, platform },
        None if cells.iter().any(|cell| cell.join(Install::FILE).exists()) => Left::Unknown,
        None => Left::Nothing,
    }
}

/// Component and platform of a cell, by its folder.
fn names(cell: &Path) -> Option<(String, Platform)> {
    let platform = cell.parent()?;
    let component = platform.parent()?.file_name()?.to_str()?.to_owned();
    Some((component, platform.file_name()?.to_str()?.replace('-', "/").parse().ok()?))
}
