//! `cluster-install target`: the cluster that a run works on, for a wiring that holds a Secret for it: borrowed by a
//! kubeconfig, or made for this run by a host that is reached with an ssh key. Either way its kubeconfig is
//! `FOLDER/kubeconfig` then, and nobody else has to know which it is.

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use cluster::lease;
use jiff::Timestamp;
use kit::{Cause, Context, Done, Error, Platform, Result, RunDir, Ui, ci::CiOptions};

use super::{
    Named, Run, SETTLE, heals,
    maker::{self, Maker},
    state::{Phase, Seen},
    store::{KUBECONFIG, Store},
};
use crate::lease::{self as whose, Patience};

/// As Kubernetes names it in Secrets of type kubernetes.io/ssh-auth.
const KEY: &str = "ssh-privatekey";
/// Between two looks at a cluster that somebody else uses.
const PAUSE: Duration = Duration::from_secs(15);

#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(subcommand)]
    verb: Verb,
}

const EXAMPLES: &str = "\
Examples:
  cluster-install target take --platform linux/s390x --secret secret --folder target --run-dir run
  cluster-install lease take --kubeconfig target/kubeconfig --run-dir run
  cluster-install target release --platform linux/s390x --secret secret --folder target --run-dir run --if-clean

The folder of --secret holds one of two files: 'kubeconfig' of a cluster that is there, or 'ssh-privatekey', with which
the host lets us in that makes the cluster. That is the first of the architecture's 'clusters' in ci/architectures.toml
which is described with 'ssh'.";

#[derive(Debug, clap::Subcommand)]
enum Verb {
    /// Come by the cluster: borrow it, or have it made for this run and hold its lease
    ///
    /// One that is there is waited for while another run holds it. If a run has made it that has died, or that this place
    /// knows of and that does not hold it, it is made anew; otherwise it is used as it is.
    Take {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        patience: Patience,
    },
    /// Give it back: what this run made is removed, and of any other the lease is released
    Release {
        #[command(flatten)]
        target: Target,
        #[command(flatten)]
        patience: Patience,
        /// Keep the lease of a borrowed one if cleanup has not brought it back
        #[arg(long)]
        if_clean: bool,
    },
}

#[derive(Debug, clap::Args)]
struct Target {
    /// The platform that is tested
    #[arg(long, value_name = "OS/ARCH")]
    platform: Platform,
    /// The Secret's files
    #[arg(long, value_name = "DIR")]
    secret: PathBuf,
    /// The Secret's ssh key, where tests do not see it [default: beside the others]
    #[arg(long, value_name = "DIR")]
    host: Option<PathBuf>,
    /// Where the kubeconfig is found: a link to the Secret's files, or a private folder that goes with the cluster
    #[arg(long = "folder", value_name = "DIR")]
    at: PathBuf,
    /// The run's folder
    #[arg(long, value_name = "DIR")]
    run_dir: PathBuf,
    #[command(flatten)]
    ci: CiOptions,
}

/// How a Secret leads to a cluster.
#[derive(Debug, PartialEq, Eq)]
enum Way {
    Borrowed,
    /// By this key.
    Made(PathBuf),
}

impl Way {
    fn of(secret: &Path, host: &Path) -> Result<Self> {
        let key = host.join(KEY);
        match (secret.join(KUBECONFIG).is_file(), key.is_file()) {
            (true, false) => Ok(Self::Borrowed),
            (false, true) => Ok(Self::Made(key)),
            (both, _) => {
                let what = if both { format!("both {KUBECONFIG} and {KEY}") } else { "no way to the target".into() };
                let what = format!("the Secret in {} holds {what}", secret.display());
                let one = format!("{KUBECONFIG} of a cluster that is there, or {KEY} for a host that makes it");
                Err(Error::new(Cause::Usage, what).next(format!("put one into it: {one}")))
            }
        }
    }
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Done> {
    match &args.verb {
        Verb::Take { target, patience } => target.take(patience.limit(), ui)?,
        Verb::Release { target, patience, if_clean } => target.release(patience.limit(), *if_clean, ui)?,
    }
    Ok(Done::good())
}

impl Target {
    fn take(&self, limit: Duration, ui: &Ui) -> Result<()> {
        let way = self.way()?;
        let Way::Made(key) = way else {
            ui.note("the target is borrowed");
            return link(&self.secret, &self.at);
        };
        let (named, run) = (self.named(&key)?, self.run()?);
        // Before anything is made, so that `release` knows also after a kill that there may be something to remove.
        named.store.remove()?;
        named.store.remember(&run)?;
        let mut away = None;
        wait(limit, ui, || {
            let tried = named.attempt(&run, &mut away, ui);
            if !matches!(tried, Ok(Ok(()))) {
                // A cluster that is only waited for is none that anybody here works on.
                named.store.remove_secrets()?;
            }
            tried
        })
    }

    fn release(&self, limit: Duration, if_clean: bool, ui: &Ui) -> Result<()> {
        let Ok(found) = fs::symlink_metadata(&self.at) else {
            ui.note("this run came by no target");
            return Ok(());
        };
        if found.is_symlink() {
            return self.give_back(if_clean, ui);
        }
        // What was fetched goes also when there is no way to the host any more.
        let fetched = Store::at("", absolute(&self.at)?);
        self.remove(limit, if_clean, ui).or_else(|error| fetched.remove_secrets().and(Err(error)))
    }

    /// Releases the lease.
    fn give_back(&self, if_clean: bool, ui: &Ui) -> Result<()> {
        whose::run(&whose::Args::release(&self.run_dir, &self.at.join(KUBECONFIG), if_clean), ui).map(drop)
    }

    /// Removes the cluster if this run made it.
    fn remove(&self, limit: Duration, if_clean: bool, ui: &Ui) -> Result<()> {
        let Way::Made(key) = self.way()? else {
            let secret = self.secret.display();
            return Err(Error::new(
                Cause::Usage,
                format!("the target was made with a key, which {secret} has no more"),
            ));
        };
        let named = self.named(&key)?;
        // Tests cannot write there, as they can where the run's id is.
        let run = named.store.made_by().map_or_else(|| self.run(), Ok)?;
        let mut seen = Seen::default();
        let borrowed = named.provider.look(&mut seen, ui).is_ok()
            && seen.phase == Phase::Ready
            && seen.run.as_ref() != Some(&run)
            && self.at.join(KUBECONFIG).exists();
        let given = if borrowed { self.give_back(if_clean, ui) } else { Ok(()) };
        // A host may still be at work for a call that was killed.
        wait(limit, ui, || named.remove_made(&run, ui))?;
        named.store.remove()?;
        given
    }

    fn way(&self) -> Result<Way> {
        Way::of(&self.secret, self.host.as_ref().unwrap_or(&self.secret))
    }

    fn run(&self) -> Result<String> {
        // Not a new one: it has to be the same for all that the run does.
        RunDir::open(&self.run_dir)?;
        let run = Run { run: None, run_dir: Some(self.run_dir.clone()) };
        run.id()?.ok_or_else(|| Error::new(Cause::Internal, "a run without an id"))
    }

    /// The cluster, with what is fetched for it in our folder.
    fn named(&self, key: &Path) -> Result<Named> {
        let ci = self.ci.open()?;
        let mut entry = ci.made_for(&self.platform)?;
        if let Some(ssh) = &mut entry.ssh {
            ssh.key = Some(absolute(key)?.display().to_string());
        }
        let store = Store::at(entry.name.as_deref().unwrap_or_default(), absolute(&self.at)?);
        Named::of(entry, &ci, store)
    }
}

impl Named {
    /// One try to have the cluster for `run`; the inner error says why it has to be waited for. `away` is since when
    /// somebody else's does not answer.
    fn attempt(&self, run: &str, away: &mut Option<Instant>, ui: &Ui) -> Result<Result<()>> {
        let name = self.store.name();
        let held = |what: String| Ok(Err(Error::new(Cause::LeaseHeld, what)));
        let Some(maker) = Maker::lock(name)? else { return Ok(Err(self.is_busy())) };
        let mut seen = Seen::default();
        self.provider.look(&mut seen, &Ui::silent())?;
        let of = seen.run.as_ref().map_or_else(|| " for an unknown run".into(), |run| format!(" for run {run}"));
        // Nobody can have renewed a lease there; whether it is broken the host knows.
        let lost = away.is_some_and(|since| since.elapsed() > lease::DURATION);
        match seen.phase {
            Phase::Ready if !lost => {}
            Phase::Creating | Phase::Deleting => return held(format!("cluster {name} is {}{of}", seen.phase.word())),
            _ => {
                let before = maker.run()?.unwrap_or_default();
                maker.remember(run)?;
                match self.provider.create(run, ui) {
                    Ok(true) => {
                        // From now on it has as long as a lease to take that, also if it has to be tried again.
                        maker.remember(run)?;
                        seen.run = Some(run.to_owned());
                    }
                    Ok(false) => {
                        maker.remember(&before)?;
                        return held(format!("cluster {name} is there, and another run's"));
                    }
                    Err(error) if error.cause == Cause::LeaseHeld => {
                        maker.remember(&before)?;
                        return Ok(Err(error));
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        let ours = seen.run.as_deref() == Some(run);
        let known = (seen.run.is_some() && seen.run == maker.run()?).then(|| maker.age());
        let error = match self.hold(run, seen.run.as_deref(), known, ui) {
            Ok(false) => {
                let stays = || format!("cluster {name} was there, made{of}: it is used, and stays");
                ui.note(if ours { format!("cluster {name} is there for this run") } else { stays() });
                return Ok(Ok(()));
            }
            Ok(true) => {
                ui.note(format!("cluster {name} was made{of}, which has died or does not hold it: it is made anew"));
                match self.provider.delete(seen.run.as_deref(), ui) {
                    Ok(_) => return held(format!("cluster {name} is made anew")),
                    Err(error) => error,
                }
            }
            Err(error) => error,
        };
        let silent = !ours && heals(error.cause);
        *away = silent.then(|| away.unwrap_or_else(Instant::now));
        if silent || error.cause == Cause::LeaseHeld { Ok(Err(error)) } else { Err(error) }
    }

    /// One try to remove what `run` has made; the inner error says why it has to be waited for.
    fn remove_made(&self, run: &str, ui: &Ui) -> Result<Result<()>> {
        let name = self.store.name();
        let maker = match Maker::lock(name) {
            // Nothing of ours is left where another run has begun since.
            Ok(None) if maker::last(name)?.as_deref() != Some(run) => return Ok(Ok(())),
            Ok(None) => return Ok(Err(self.is_busy())),
            Ok(maker) => maker,
            Err(error) => {
                ui.warn(format!("cluster {name} is removed although nobody can be kept out: {error}"));
                None
            }
        };
        let mut seen = Seen::default();
        // What cannot be asked cannot be removed either, and `delete` says so.
        let looked = self.provider.look(&mut seen, &Ui::silent()).is_ok();
        let ours = seen.run.as_deref() == Some(run);
        if looked && seen.run.is_some() && !ours {
            return Ok(Ok(()));
        }
        // Cleanup gave the lease back: who took it since keeps the cluster.
        if looked && seen.phase == Phase::Ready && ours && self.is_taken(run) {
            ui.warn(format!("cluster {name} stays: another run has taken it"));
            return Ok(Ok(()));
        }
        match self.delete(Some(run), ui) {
            Err(error) if error.cause == Cause::LeaseHeld => return Ok(Err(error)),
            deleted => deleted?,
        };
        let forget = |maker: &Maker| if maker.run()?.as_deref() == Some(run) { maker.remember("") } else { Ok(()) };
        if let Some(Err(error)) = maker.as_ref().map(forget) {
            ui.warn(format!("cluster {name} is gone, and still counts as made by run {run}: {error}"));
        }
        Ok(Ok(()))
    }

    /// Whether another run holds the cluster; if not, `run` does now. One that does not answer nobody can use.
    fn is_taken(&self, run: &str) -> bool {
        let silent = Ui::silent();
        let take = || {
            let options = self.store.keep(&self.provider.access(&silent)?)?.options();
            cluster::block_on(async {
                let client = cluster::open(&options, &silent).await?.client;
                lease::take(&client, run).await.map(drop)
            })
        };
        take().is_err_and(|error: Error| error.cause == Cause::LeaseHeld)
    }

    fn is_busy(&self) -> Error {
        let what = format!("another run is making or removing cluster {}", self.store.name());
        Error::new(Cause::LeaseHeld, what)
    }

    /// Takes the lease for `run`; not of a cluster that its maker has left to nobody, and then says so. A maker that is
    /// known here was at it so long ago.
    fn hold(&self, run: &str, maker: Option<&str>, known: Option<Duration>, ui: &Ui) -> Result<bool> {
        let (ours, silent) = (maker == Some(run), Ui::silent());
        // Of somebody else's it is asked again and again.
        let ui = if ours { ui } else { &silent };
        let options = self.store.keep(&self.provider.access(ui)?)?.options();
        self.reach(&options, if ours { SETTLE } else { Duration::ZERO }, ui)?;
        cluster::block_on(async {
            let client = cluster::open(&options, ui).await?.client;
            if !ours {
                let (lease, now) = (lease::show(&client).await?, Timestamp::now());
                if is_left(&lease, maker, known, now) {
                    return Ok(true);
                }
                if let (Some(maker), Some(_), true) = (maker, known, is_free(&lease, now)) {
                    let what = format!("cluster {} has just been made for run {maker}", self.store.name());
                    return Err(Error::new(Cause::LeaseHeld, what));
                }
            }
            lease::take(&client, run).await.map(|_| false)
        })
    }
}

/// Whether nobody would remove a cluster: nobody holds it, and its maker, which would, has held it and not given it back,
/// or is known here and has not held it for as long as a lease lasts. Who made one by hand does not leave it.
fn is_left(lease: &lease::LeaseState, maker: Option<&str>, known: Option<Duration>, now: Timestamp) -> bool {
    let held = |maker| [&lease.holder, &lease.dirty].iter().any(|run| run.as_deref() == Some(maker));
    let late = known.is_some_and(|age| age > lease::DURATION);
    is_free(lease, now) && maker.is_some_and(|maker| late || held(maker))
}

fn is_free(lease: &lease::LeaseState, now: Timestamp) -> bool {
    lease.holder.is_none() || lease.expired(now)
}

/// Tries until it is done, at most `limit`, and says why it waits, once for each reason.
fn wait(limit: Duration, ui: &Ui, mut attempt: impl FnMut() -> Result<Result<()>>) -> Result<()> {
    let (began, mut said) = (Instant::now(), String::new());
    loop {
        let Err(error) = attempt()? else { return Ok(()) };
        let left = limit.saturating_sub(began.elapsed());
        if left.is_zero() {
            return Err(error);
        }
        if said != error.summary() {
            said = error.summary();
            ui.note(format!("waiting: {said}"));
        }
        let over = || Error::new(Cause::LeaseHeld, "over");
        let paused = kit::retry::until::<()>(PAUSE.min(left), over, || Ok(None));
        paused.or_else(|error| if error.cause == Cause::Interrupted { Err(error) } else { Ok(()) })?;
    }
}

/// Makes `folder` lead to a Secret's files: they are copied nowhere.
fn link(secret: &Path, folder: &Path) -> Result<()> {
    let secret = absolute(secret)?;
    let make = || -> std::io::Result<()> {
        match fs::symlink_metadata(folder) {
            Ok(found) if found.is_symlink() => fs::remove_file(folder)?,
            Ok(_) => fs::remove_dir_all(folder)?,
            Err(_) => fs::create_dir_all(folder.parent().unwrap_or(folder))?,
        }
        std::os::unix::fs::symlink(&secret, folder)
    };
    make().cause(Cause::HostDisk, || format!("cannot make {}", folder.display()))
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).cause(Cause::Usage, || format!("'{}' is no path", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_leads_one_way() {
        let folder = tempfile::tempdir().unwrap();
        let secret = folder.path();
        let said = |wanted: &str| {
            let error = Way::of(secret, secret).unwrap_err();
            assert!(error.cause == Cause::Usage && error.to_string().contains(wanted), "{error}");
        };
        said("no way to the target");
        fs::write(secret.join(KEY), "x").unwrap();
        assert_eq!(Way::of(secret, secret).unwrap(), Way::Made(secret.join(KEY)));
        assert_eq!(Way::of(&secret.join("other"), secret).unwrap(), Way::Made(secret.join(KEY)));
        fs::write(secret.join(KUBECONFIG), "x").unwrap();
        said("both kubeconfig and ssh-privatekey");
        fs::remove_file(secret.join(KEY)).unwrap();
        assert_eq!(Way::of(secret, secret).unwrap(), Way::Borrowed);
    }

    #[test]
    fn a_borrowed_kubeconfig_is_not_copied() {
        let folder = tempfile::tempdir().unwrap();
        let (secret, at) = (folder.path().join("secret"), folder.path().join("run/target"));
        fs::create_dir(&secret).unwrap();
        fs::write(secret.join(KUBECONFIG), "hunter2").unwrap();
        link(&secret, &at).unwrap();
        // Tried again, also where something was made before.
        link(&secret, &at).unwrap();
        fs::remove_file(&at).unwrap();
        fs::create_dir(&at).unwrap();
        fs::write(at.join(KUBECONFIG), "old").unwrap();
        link(&secret, &at).unwrap();
        assert_eq!(fs::read_link(&at).unwrap(), secret);
        assert_eq!(fs::read_to_string(at.join(KUBECONFIG)).unwrap(), "hunter2");
    }

    #[test]
    fn a_cluster_is_left_by_a_maker_that_held_it_to_the_end_or_that_is_known() {
        let at = |minute: i64| Timestamp::from_second(1_800_000_000 + minute * 60).unwrap();
        let held = |holder: Option<&str>, dirty: Option<&str>| lease::LeaseState {
            holder: holder.map(String::from),
            since: Some(at(0)),
            expires: Some(at(15)),
            dirty: dirty.map(String::from),
        };
        for (holder, dirty, maker, minute, left) in [
            (Some("a"), None, Some("a"), 16, true),
            (Some("a"), None, Some("a"), 14, false),
            // It is not the maker's any more.
            (Some("b"), None, Some("a"), 16, false),
            (Some("b"), Some("a"), Some("a"), 14, false),
            (Some("b"), Some("a"), Some("a"), 16, true),
            // Somebody looked at what it left, and let it be.
            (None, Some("a"), Some("a"), 16, true),
            // Given back, or never taken: whoever made it may be about to use it.
            (None, None, Some("a"), 16, false),
            (Some("a"), None, None, 16, false),
            (None, None, None, 16, false),
        ] {
            let said = is_left(&held(holder, dirty), maker, None, at(minute));
            assert_eq!(said, left, "{holder:?} {dirty:?} {maker:?} {minute}");
        }
        let known = |minutes: u64| Some(Duration::from_secs(60 * minutes));
        assert!(is_left(&held(None, None), Some("a"), known(16), at(0)));
        assert!(!is_left(&held(None, None), Some("a"), known(14), at(0)), "it may be about to take it");
        assert!(!is_left(&held(Some("b"), None), Some("a"), known(16), at(14)));
    }

    #[test]
    fn what_does_not_come_is_waited_for_so_long() {
        let held = || Ok(Err(Error::new(Cause::LeaseHeld, "somebody has it")));
        let mut tries = 0;
        let error = wait(Duration::ZERO, &Ui::silent(), || {
            tries += 1;
            held()
        });
        assert_eq!((error.unwrap_err().cause, tries), (Cause::LeaseHeld, 1));
        let mut left = 2;
        let done = wait(Duration::from_millis(300), &Ui::silent(), || {
            left -= 1;
            if left == 0 { Ok(Ok(())) } else { held() }
        });
        assert!(done.is_ok() && left == 0);
        let failed = wait(Duration::from_secs(9), &Ui::silent(), || Err(Error::new(Cause::Ssh, "gone")));
        assert_eq!(failed.unwrap_err().cause, Cause::Ssh);
    }
}
