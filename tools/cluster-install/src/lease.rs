//! `cluster-install lease`: who may use the cluster.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use cluster::{Guard, Options, lease};
use jiff::Timestamp;
use kit::{Cause, Done, Error, Output, Result, RunDir, Ui, ci::parse_duration};
use kube::Client;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Say who holds it
    Show(Whose),
    /// Take it, or renew it if the run holds it already; it expires after 15 minutes without a tool that renews it
    Take {
        #[command(flatten)]
        whose: Whose,
        #[command(flatten)]
        patience: Patience,
    },
    /// Give it back
    Release {
        #[command(flatten)]
        whose: Whose,
        /// Keep it if cleanup has not brought the cluster back: then it expires, and whoever comes next knows that
        #[arg(long, requires = "run_dir")]
        if_clean: bool,
        /// Whoever holds it, and forget that the cluster is dirty
        #[arg(long, conflicts_with_all = ["run", "run_dir"])]
        force: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Whose {
    /// The run, by its id
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// The run, by its folder
    #[arg(long, value_name = "DIR", conflicts_with = "run")]
    run_dir: Option<PathBuf>,
    #[command(flatten)]
    cluster: Options,
}

/// How long a cluster that another run holds is waited for.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Patience {
    /// Wait so long for a cluster that another run holds, as in 30m [default: fail at once]
    #[arg(long = "wait-for-lease", alias = "wait", value_name = "TIME", value_parser = parse_duration)]
    wait: Option<Duration>,
}

impl Args {
    /// To give back the cluster of a kubeconfig at the end of a run.
    pub(crate) fn release(run_dir: &Path, kubeconfig: &Path, if_clean: bool) -> Self {
        let cluster = Options { kubeconfig: Some(kubeconfig.display().to_string()), ..Options::default() };
        let whose = Whose { run: None, run_dir: Some(run_dir.into()), cluster };
        Self { verb: Verb::Release { whose, if_clean, force: false } }
    }
}

impl Patience {
    /// How long that is.
    pub(crate) fn limit(&self) -> Duration {
        self.wait.unwrap_or_default()
    }

    /// Takes the lease for `run`, and says who holds it as long as it is waited for.
    ///
    /// # Errors
    /// As [`lease::take`], once the time is over.
    pub(crate) async fn take(&self, client: &Client, run: &str, ui: &Ui) -> Result<Guard> {
        let Some(limit) = self.wait else { return lease::take(client, run).await };
        lease::wait(client, run, limit, |who| ui.note(format!("waiting: {who}"))).await
    }
}

impl Whose {
    fn run(&self) -> Result<String> {
        match (&self.run, &self.run_dir) {
            (Some(run), _) => Ok(run.clone()),
            (None, Some(folder)) => Ok(RunDir::open(folder)?.id()),
            (None, None) => {
                Err(Error::new(Cause::Usage, "whose lease? name a run").next("add --run-dir DIR or --run ID"))
            }
        }
    }
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Done> {
    let (Verb::Show(whose) | Verb::Take { whose, .. } | Verb::Release { whose, .. }) = &args.verb;
    let run = match &args.verb {
        Verb::Show(_) | Verb::Release { force: true, .. } => None,
        Verb::Take { .. } | Verb::Release { .. } => Some(whose.run()?),
    };
    // A run whose id could not be kept would hold the cluster, and nobody could give it back.
    if let (Verb::Take { .. }, None, Some(folder)) = (&args.verb, &whose.run, &whose.run_dir) {
        RunDir::open(folder)?.writable()?;
    }
    let unclean = match (&args.verb, &whose.run_dir) {
        (Verb::Release { if_clean: true, .. }, Some(folder)) => RunDir::open(folder)?.unclean(),
        _ => Vec::new(),
    };
    if let Some(cell) = unclean.first() {
        ui.note(format!("not given back: the run has a baseline in {}, and is not back there", cell.display()));
    }
    let state = cluster::block_on(async {
        let client = cluster::open(&whose.cluster, ui).await?.client;
        match (&args.verb, &run) {
            (Verb::Take { patience, .. }, Some(run)) => drop(patience.take(&client, run, ui).await?),
            (Verb::Release { .. }, run) if unclean.is_empty() => lease::release(&client, run.as_deref()).await?,
            _ => {}
        }
        lease::show(&client).await
    })?;
    match ui.output {
        Output::Json => ui.json(&state)?,
        Output::Text => ui.result(&words(&state))?,
    }
    Ok(Done::good())
}

/// The state of a lease for people.
pub(crate) fn words(state: &lease::LeaseState) -> String {
    let time = |time: Option<Timestamp>| time.map_or_else(|| "?".into(), |time| format!("{time:.0}"));
    let holder = match &state.holder {
        None => "nobody holds the cluster".to_owned(),
        Some(holder) if state.expired(Timestamp::now()) => {
            format!("run {holder} held the cluster; its lease expired at {}", time(state.expires))
        }
        Some(holder) => format!(
            "run {holder} holds the cluster since {}, at least until {}",
            time(state.since),
            time(state.expires)
        ),
    };
    match &state.dirty {
        Some(run) => format!("{holder}\nthe cluster is dirty: run {run} never cleaned it"),
        None => holder,
    }
}
