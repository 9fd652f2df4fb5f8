//! `cluster-install cluster`: clusters by name, however one comes by them: borrowed, made by a host that is reached
//! by ssh, by kind, or by the lab. `ci/architectures.toml` describes them; here are the verbs, and what they print.

mod access;
mod borrowed;
mod kind;
mod lab;
mod maker;
mod ssh;
mod state;
mod store;
pub(crate) mod target;

use std::{path::PathBuf, time::Duration};

use cluster::Options;
use kit::{
    Cause, Done, Error, Output, Result, RunDir, Ui,
    ci::{Ci, CiOptions, Cluster, Provider as How},
    record::ClusterId,
};

use access::Access;
use state::{Phase, Seen, State};
use store::Store;

/// How long a cluster that has just been made may take until its API server answers and a node takes pods.
const SETTLE: Duration = Duration::from_secs(300);

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  cluster-install cluster list                     what ci/architectures.toml has
  cluster-install cluster status z-1               is the host there, is the cluster, does it answer
  cluster-install cluster create z-1               make it unless it is there, and fetch its kubeconfig
  cluster-install install --component pipeline $(cluster-install cluster kubeconfig z-1 --options) …
  cluster-install cluster delete z-1               remove it, and all that was fetched

How a cluster is described stands in the head of ci/architectures.toml, what a host has to answer in
ci/hosts/CONTRACT.md.

Exit codes: 0 good; 2 the call or the description is wrong; 3 the host cannot be reached or does not answer as it
should (cause ssh), refuses us (auth), is used by somebody else (lease-held), or the cluster is not there or does not
answer (cluster-unreachable, apiserver, node); 5 ssh, kind or lab is missing.";

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// List the clusters that are described
    List {
        #[command(flatten)]
        ci: CiOptions,
    },
    /// Make a cluster unless it is there, wait until it takes pods, and fetch what is needed to use it
    Create {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        run: Run,
    },
    /// Remove a cluster if it is there, and everything that was fetched; what is borrowed stays
    ///
    /// With --run or --run-dir it is removed only if that run made it. What was fetched goes in any case.
    Delete {
        #[command(flatten)]
        which: Which,
        #[command(flatten)]
        run: Run,
    },
    /// Say whether its host is there, whether the cluster is, and whether it answers
    Status {
        #[command(flatten)]
        which: Which,
    },
    /// Fetch its kubeconfig, and what else is needed to use it, and print the path
    Kubeconfig {
        #[command(flatten)]
        which: Which,
        /// Print the kubeconfig itself
        #[arg(long, conflicts_with = "options")]
        raw: bool,
        /// Print the options by which every tool finds the cluster
        #[arg(long)]
        options: bool,
    },
    /// Remove what was fetched, and leave the cluster as it is
    Forget {
        #[command(flatten)]
        which: Which,
    },
}

#[derive(Debug, clap::Args)]
struct Which {
    /// The cluster, as ci/architectures.toml names it
    name: String,
    #[command(flatten)]
    ci: CiOptions,
}

impl Which {
    /// The folder of a cluster that is described; no other name becomes a path.
    fn store(&self) -> Result<Store> {
        Store::new(self.ci.open()?.cluster(&self.name)?.name.as_deref().unwrap_or_default())
    }
}

#[derive(Debug, clap::Args)]
struct Run {
    /// The run that it is for, by its id
    #[arg(long, value_name = "ID")]
    run: Option<String>,
    /// The run, by its folder
    #[arg(long, value_name = "DIR", conflicts_with = "run")]
    run_dir: Option<PathBuf>,
}

impl Run {
    fn id(&self) -> Result<Option<String>> {
        let id = match (&self.run, &self.run_dir) {
            (Some(run), _) => Some(run.clone()),
            (None, Some(folder)) => Some(RunDir::open(folder)?.id()),
            (None, None) => None,
        };
        match id {
            // It becomes a word of a command on a host.
            Some(id) if kit::rundir::slug(&id) != id || id.starts_with('-') => {
                Err(Error::new(Cause::Usage, format!("'{id}' is not the id of a run")))
            }
            id => Ok(id),
        }
    }
}

/// What every way of coming by a cluster can do. All of it can be done again, and gets to the same end.
trait Provider {
    /// Makes it unless it is there; whether this run made it, now or earlier.
    fn create(&self, run: &str, ui: &Ui) -> Result<bool>;
    /// Removes it, with `run` only if that run made it; whether there was something to remove.
    fn delete(&self, run: Option<&str>, ui: &Ui) -> Result<bool>;
    /// Looks whether it is there. What was seen is written down also if the rest cannot be.
    fn look(&self, seen: &mut Seen, ui: &Ui) -> Result<()>;
    /// What is needed to use it.
    fn access(&self, ui: &Ui) -> Result<Access>;
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Done> {
    match &args.verb {
        Verb::List { ci } => list(&ci.open()?, ui),
        Verb::Create { which, run } => Named::open(which)?.create(run.id()?, ui),
        Verb::Delete { which, run } => {
            let run = run.id()?;
            // What was fetched goes also when there is no way to the cluster any more.
            let store = which.store()?;
            let named = Named::open(which).or_else(|error| store.remove_secrets().and(Err(error)))?;
            named.delete(run.as_deref(), ui)
        }
        Verb::Status { which } => Named::open(which)?.status(ui),
        Verb::Kubeconfig { which, raw, options } => Named::open(which)?.kubeconfig(*raw, *options, ui),
        Verb::Forget { which } => which.store()?.remove_secrets().map(|()| Done::good()),
    }
}

fn list(ci: &Ci, ui: &Ui) -> Result<Done> {
    let all: Vec<_> = ci.clusters()?.iter().map(State::of).collect();
    match ui.output {
        Output::Json => ui.json(&all.iter().map(|state| &state.known).collect::<Vec<_>>())?,
        Output::Text if all.is_empty() => ui.note("no cluster is described in ci/architectures.toml"),
        Output::Text => {
            let head = ["CLUSTER", "BY", "PLATFORM", "OWNER"].map(String::from).to_vec();
            let row = |state: &State| {
                let platform = state.known.platform.as_ref().map_or_else(|| "any".into(), ToString::to_string);
                vec![state.known.name.clone(), state.known.provider.clone(), platform, state.known.owner.clone()]
            };
            ui.result(&kit::ui::table(&[vec![head], all.iter().map(row).collect()].concat()))?;
        }
    }
    Ok(Done::good())
}

/// A cluster of the file.
struct Named {
    entry: Cluster,
    provider: Box<dyn Provider>,
    store: Store,
}

impl Named {
    fn open(which: &Which) -> Result<Self> {
        let ci = which.ci.open()?;
        Self::of(ci.cluster(&which.name)?, &ci, Store::new(&which.name)?)
    }

    /// The cluster of this entry; what is fetched for it lies in `store`.
    fn of(entry: Cluster, ci: &Ci, store: Store) -> Result<Self> {
        let name = store.name();
        let wrong = || Error::new(Cause::Internal, format!("'{name}' cannot be come by"));
        let provider: Box<dyn Provider> = match entry.provider().ok_or_else(wrong)? {
            How::Kubeconfig(borrowed) => Box::new(borrowed::Lender::new(name, borrowed, ci)),
            How::Ssh(_) => Box::new(ssh::Host::new(&entry, &store)?),
            How::Kind(kind) => Box::new(kind::InKind::new(name, kind, ci, &store)?),
            How::Lab(lab) => Box::new(lab::InLab::new(entry.lab_name().unwrap_or_default(), lab, &store)?),
        };
        Ok(Self { entry, provider, store })
    }

    fn create(&self, run: Option<String>, ui: &Ui) -> Result<Done> {
        let run = run.unwrap_or_else(kit::rundir::new_run_id);
        let step = ui.step(format!("cluster {}", self.store.name()));
        let created = self.provider.create(&run, ui)?;
        let mut state = State::of(&self.entry);
        state.place(self.store.keep(&self.provider.access(ui)?)?);
        let next = format!("look at it: cluster-install cluster status {}", self.store.name());
        let id = self.reach(&state.options(), SETTLE, ui).map_err(|error| match error.next {
            None => error.next(next),
            Some(_) => error,
        })?;
        state.known.seen.phase = Phase::Ready;
        state.known.seen.run = created.then_some(run);
        (state.known.created, state.known.cluster) = (Some(created), Some(id));
        step.done(if created { "made" } else { "was there" });
        state.show(ui)?;
        Ok(Done::good())
    }

    fn delete(&self, run: Option<&str>, ui: &Ui) -> Result<Done> {
        let step = ui.step(format!("removal of cluster {}", self.store.name()));
        let deleted = self.provider.delete(run, ui);
        // Also if the host cannot be reached any more.
        let gone = match &deleted {
            // What another run made stays known as that run's.
            Ok(deleted) if *deleted || run.is_none() => self.store.remove(),
            _ => self.store.remove_secrets(),
        };
        let deleted = deleted?;
        gone?;
        step.done(if deleted { "removed" } else { "there was nothing of ours to remove" });
        let mut state = State::of(&self.entry);
        (state.known.deleted, state.known.seen.phase) =
            (Some(deleted), if deleted { Phase::Absent } else { Phase::Unknown });
        if ui.output == Output::Json {
            ui.json(&state.known)?;
        }
        Ok(Done::good())
    }

    /// Prints also what was seen before something failed.
    fn status(&self, ui: &Ui) -> Result<Done> {
        let mut state = State::of(&self.entry);
        let looked = self.provider.look(&mut state.known.seen, ui).and_then(|()| match state.known.seen.phase {
            Phase::Ready => self.answers(&mut state, ui),
            phase => {
                let what = format!("the cluster {} is {}", self.store.name(), phase.word());
                let next = format!("make it: cluster-install cluster create {}", self.store.name());
                let error = Error::new(Cause::ClusterUnreachable, what).next(next);
                Err(state.known.seen.host_message.iter().fold(error, |error, message| error.line(message.clone())))
            }
        });
        if let Err(error) = &looked {
            (state.known.cause, state.known.message) = (Some(error.cause), Some(error.summary()));
        }
        state.show(ui)?;
        looked.map(|()| Done::good())
    }

    /// Asks the cluster itself, by what is fetched for this question only.
    fn answers(&self, state: &mut State, ui: &Ui) -> Result<()> {
        let (access, temporary) = (self.provider.access(ui)?, Store::temporary(self.store.name())?);
        let kept = temporary.keep(&access)?;
        state.known.cluster = Some(self.reach(&kept.options(), Duration::ZERO, ui)?);
        Ok(())
    }

    fn kubeconfig(&self, raw: bool, options: bool, ui: &Ui) -> Result<Done> {
        let mut state = State::of(&self.entry);
        state.place(self.store.keep(&self.provider.access(ui)?)?);
        match (ui.output, &state.known.kubeconfig) {
            (Output::Json, _) => ui.json(&state.known)?,
            (Output::Text, _) if options => ui.result(&state.known.arguments.join(" "))?,
            (Output::Text, Some(path)) if raw => {
                let text = kit::rundir::read_limited(path, 4 << 20)?;
                ui.result(&String::from_utf8_lossy(&text))?;
            }
            (Output::Text, path) => {
                ui.result(&path.as_ref().map_or_else(String::new, |path| path.display().to_string()))?
            }
        }
        Ok(Done::good())
    }

    /// Opens it, and makes sure that a node of its platform takes pods; what heals by itself may take until `limit`.
    fn reach(&self, options: &Options, limit: Duration, ui: &Ui) -> Result<ClusterId> {
        let last = std::cell::RefCell::new(None);
        let late =
            || last.take().unwrap_or_else(|| Error::new(Cause::ClusterUnreachable, "the cluster does not answer"));
        kit::retry::until(limit, late, || {
            let id = cluster::block_on(async { cluster::identity(&cluster::open(options, ui).await?).await });
            match id.and_then(|id| self.takes_pods(id)) {
                Ok(id) => Ok(Some(id)),
                Err(error) if heals(error.cause) => {
                    last.replace(Some(error));
                    Ok(None)
                }
                Err(error) => Err(error),
            }
        })
    }

    fn takes_pods(&self, id: ClusterId) -> Result<ClusterId> {
        let wanted = self.entry.platform.as_ref();
        if id.nodes.iter().any(|node| node.ready && wanted.is_none_or(|wanted| node.platform == *wanted)) {
            return Ok(id);
        }
        let line = |node: &kit::record::Node| {
            format!("{}: {}, {}", node.name, node.platform, if node.ready { "ready" } else { "takes no pods" })
        };
        let lines: Vec<_> = id.nodes.iter().map(line).collect();
        let of = wanted.map_or_else(String::new, |platform| format!(" of {platform}"));
        let what = format!("no node{of} of {} takes pods", self.store.name());
        let known = wanted.is_some_and(|wanted| !id.nodes.is_empty() && id.nodes.iter().all(|n| n.platform != *wanted));
        // Another architecture does not heal.
        Err(Error::new(if known { Cause::Usage } else { Cause::Node }, what).line(lines.join("\n")))
    }
}

/// Whether a cluster that has just been made gets over it.
const fn heals(cause: Cause) -> bool {
    matches!(cause, Cause::ClusterUnreachable | Cause::Apiserver | Cause::Node | Cause::Dns)
}
