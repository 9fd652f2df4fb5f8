//! The lease: one run at a time uses a cluster. Holder is the run's id, so every tool of the run
//! takes it again and renews it; nobody else does until it is released or has expired.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use futures::StreamExt;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kit::{Cause, Error, Result, retry};
use kube::{
    Api, Client, ResourceExt,
    api::PostParams,
    runtime::{WatchStreamExt, watcher::watch_object},
};
use serde::Serialize;

use crate::{KubeContext, NAMESPACE, cause_of, namespace};

/// The lease's name, in [`NAMESPACE`].
pub const LEASE: &str = "run";
/// How long a holder that does not renew it keeps it.
pub const DURATION: Duration = Duration::from_mins(15);
/// How often a working tool renews it.
const RENEW: Duration = Duration::from_mins(1);
/// Names the run whose lease expired: the cluster is dirty until cleanup has adopted it.
const DIRTY: &str = "other-arch/dirty";
/// Names the run that holds it only to look: if it is gone, it has left nothing.
const LOOKS: &str = "other-arch/looks";
/// How long it is tried when others write at the same time, or when cleanup just removes our namespace.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who holds a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseState {
    /// The run that holds it, also when it has expired.
    pub holder: Option<String>,
    /// Since when.
    pub since: Option<Timestamp>,
    /// Until when, unless it is renewed.
    pub expires: Option<Timestamp>,
    /// The run that left the cluster without cleaning it.
    pub dirty: Option<String>,
}

impl LeaseState {
    fn of(lease: &Lease) -> Self {
        let spec = lease.spec.clone().unwrap_or_default();
        let seconds = spec.lease_duration_seconds.unwrap_or(0);
        Self {
            holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
            since: spec.acquire_time.map(|time| time.0),
            expires: spec
                .renew_time
                .and_then(|time| time.0.checked_add(SignedDuration::from_secs(seconds.into())).ok()),
            dirty: lease.annotations().get(DIRTY).cloned(),
        }
    }

    /// Whether a run other than `run` holds it at `now`.
    #[must_use]
    pub fn held_by_another(&self, run: &str, now: Timestamp) -> bool {
        self.holder.as_deref().is_some_and(|holder| holder != run) && !self.expired(now)
    }

    /// Makes sure that `run` may take it at `now`.
    ///
    /// # Errors
    /// [`Cause::LeaseHeld`] saying who holds it since when.
    pub fn free_for(&self, run: &str, now: Timestamp) -> Result<()> {
        if self.held_by_another(run, now) { Err(held(self)) } else { Ok(()) }
    }

    /// Whether its holder has not renewed it in time.
    #[must_use]
    pub fn expired(&self, now: Timestamp) -> bool {
        self.holder.is_some() && self.expires.is_none_or(|expires| expires < now)
    }
}

/// Holds the lease while it lives, renewing it in the background (a tokio runtime must be running).
/// Dropping it stops the renewing and keeps the lease: the run's next tool goes on with it.
pub struct Guard {
    client: Client,
    run: String,
    dirty: Option<String>,
    looks: bool,
    lost: Arc<OnceLock<String>>,
    task: tokio::task::JoinHandle<()>,
}

impl Guard {
    fn new(client: &Client, run: &str, lease: &Lease) -> Self {
        let lost = Arc::new(OnceLock::new());
        let task = tokio::spawn(renew(client.clone(), run.to_owned(), Arc::clone(&lost)));
        let (dirty, looks) = (LeaseState::of(lease).dirty, only_looks(lease, run));
        Self { client: client.clone(), run: run.to_owned(), dirty, looks, lost, task }
    }

    /// The run whose leftovers are in the cluster: its lease expired before it was cleaned.
    #[must_use]
    pub fn dirty(&self) -> Option<&str> {
        self.dirty.as_deref()
    }

    /// Whether the run has not yet been there for more than to look.
    #[must_use]
    pub fn only_looks(&self) -> bool {
        self.looks
    }

    /// Whether it is still ours.
    ///
    /// # Errors
    /// [`Cause::LeaseHeld`] when somebody has taken it from us.
    pub fn check(&self) -> Result<()> {
        self.lost.get().map_or(Ok(()), |why| Err(Error::new(Cause::LeaseHeld, why.clone())))
    }

    /// Cleanup has removed what an earlier run left: the cluster is not dirty any more.
    ///
    /// # Errors
    /// As [`crate::cause_of`] says.
    pub async fn adopt(&mut self) -> Result<()> {
        let seen = read(&self.client).await?;
        update(&self.client, seen, |lease| {
            lease.annotations_mut().remove(DIRTY);
            Ok(())
        })
        .await?;
        self.dirty = None;
        Ok(())
    }

    /// Gives the cluster back.
    ///
    /// # Errors
    /// As [`crate::cause_of`] says.
    pub async fn release(self) -> Result<()> {
        self.task.abort();
        release(&self.client, Some(&self.run)).await
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Takes the lease for `run`, or takes it again if that run holds it, and keeps renewing it.
///
/// # Errors
/// [`Cause::LeaseHeld`] saying who holds it since when, or as [`crate::cause_of`] says.
pub async fn take(client: &Client, run: &str) -> Result<Guard> {
    let seen = see(client).await?;
    take_seen(client, run, seen).await
}

/// A lease as it was read.
#[derive(Debug, Clone)]
pub struct Seen {
    lease: Option<Lease>,
    /// Whether its namespace is on its way out, and the lease with it: written now, it would be lost in a moment.
    going: bool,
    /// How long that took.
    took: Duration,
}

impl Seen {
    /// Who holds the cluster.
    #[must_use]
    pub fn state(&self) -> LeaseState {
        self.lease.as_ref().filter(|_| !self.going).map(LeaseState::of).unwrap_or_default()
    }

    /// Whether a run other than `run` held it then.
    #[must_use]
    pub fn held_by_another(&self, run: &str) -> bool {
        self.state().held_by_another(run, Timestamp::now())
    }

    /// Whether what was read of the cluster at the same time holds, although it may have been read a moment before
    /// the lease: no other run can have had the cluster then. A run that already has it had it before its tools began;
    /// and where there is no lease, none was there for as long as a namespace at least takes to go. A lease that is
    /// there and free may just have become so.
    #[must_use]
    pub fn holds_for(&self, run: &str) -> bool {
        match &self.lease {
            Some(lease) => !self.going && LeaseState::of(lease).holder.as_deref() == Some(run),
            None => !self.going && self.took < namespace::LINGERS,
        }
    }

    /// Whether there is a lease at all, free or held.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.lease.is_some()
    }

    /// The lease once its namespace is none that goes.
    async fn settled(self, client: &Client) -> Result<Option<Lease>> {
        if !self.going {
            return Ok(self.lease);
        }
        namespace::settled(client).await?;
        read(client).await
    }
}

/// Reads the lease, to look at it and to take it later with one request.
///
/// # Errors
/// As [`crate::cause_of`] says.
pub async fn see(client: &Client) -> Result<Seen> {
    let began = Instant::now();
    let (lease, going) = tokio::try_join!(read(client), namespace::going(client))?;
    Ok(Seen { lease, going, took: began.elapsed() })
}

/// As [`take`], of a lease that was read; if somebody has written it since, it is read again.
///
/// # Errors
/// As [`take`].
pub async fn take_seen(client: &Client, run: &str, seen: Seen) -> Result<Guard> {
    let seen = seen.settled(client).await?;
    let lease = update(client, seen, |lease| claim(lease, run, Aim::Work, Timestamp::now())).await?;
    Ok(Guard::new(client, run, &lease))
}

/// As [`take`], for who only looks: if it is killed, and never was more than that, the cluster is as clean as before.
///
/// # Errors
/// As [`take`].
pub async fn look(client: &Client, run: &str) -> Result<Guard> {
    let seen = see(client).await?.settled(client).await?;
    let lease = update(client, seen, |lease| claim(lease, run, Aim::Look, Timestamp::now())).await?;
    Ok(Guard::new(client, run, &lease))
}

/// As [`take`], if nobody has written the lease since it was seen: then what was read of the cluster since holds,
/// for nobody else may have changed it. Nothing if somebody has.
///
/// # Errors
/// As [`take`].
pub async fn take_unwritten(client: &Client, run: &str, seen: &Seen) -> Result<Option<Guard>> {
    if seen.going {
        return Ok(None);
    }
    let mut lease = seen.lease.clone().unwrap_or_default();
    claim(&mut lease, run, Aim::Work, Timestamp::now())?;
    // It is replaced as the version that was seen, or not at all.
    match write(client, lease, seen.lease.is_none()).await {
        Ok(lease) => Ok(Some(Guard::new(client, run, &lease))),
        Err(error) if passes(&error) => Ok(None),
        Err(error) => Err(error).kube(|| "cannot write the lease"),
    }
}

/// As [`take`], and while another run holds the lease waits until it is given back or expires, at most `limit`.
/// `say` is told who holds it, once for each.
///
/// # Errors
/// As [`take`], once the time is over.
pub async fn wait(client: &Client, run: &str, limit: Duration, say: impl Fn(&str)) -> Result<Guard> {
    let deadline = tokio::time::Instant::now() + limit;
    let mut changes = std::pin::pin!(watch_object(leases(client), LEASE).default_backoff());
    let mut told = None;
    loop {
        let error = match take(client, run).await {
            Err(error) if error.cause == Cause::LeaseHeld && tokio::time::Instant::now() < deadline => error,
            other => return other,
        };
        let state = show(client).await?;
        if told != state.holder {
            say(&error.summary());
            told.clone_from(&state.holder);
        }
        // Nobody writes a lease that expires.
        let left = state.expires.map(|expires| expires.duration_since(Timestamp::now()));
        let left = left.and_then(|left| Duration::try_from(left).ok()).unwrap_or_default() + Duration::from_millis(100);
        tokio::select! {
            Some(_) = changes.next() => {}
            () = tokio::time::sleep(left) => {}
            () = tokio::time::sleep_until(deadline) => {}
        }
    }
}

/// Who holds the cluster.
///
/// # Errors
/// As [`crate::cause_of`] says.
pub async fn show(client: &Client) -> Result<LeaseState> {
    Ok(see(client).await?.state())
}

/// Releases the lease if `run` holds it; without a run, whoever holds it, and forgets that the
/// cluster is dirty.
///
/// # Errors
/// [`Cause::LeaseHeld`] if another run holds it, or as [`crate::cause_of`] says.
pub async fn release(client: &Client, run: Option<&str>) -> Result<()> {
    let seen = read(client).await?;
    if seen.is_none() {
        return Ok(());
    }
    let now = Timestamp::now();
    let free = |lease: &mut Lease| {
        let state = LeaseState::of(lease);
        match run {
            Some(run) => state.free_for(run, now)?,
            None => drop(lease.annotations_mut().remove(DIRTY)),
        }
        lease.annotations_mut().remove(LOOKS);
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = None;
        spec.acquire_time = None;
        spec.renew_time = None;
        Ok(())
    };
    update(client, seen, free).await.map(drop)
}

fn leases(client: &Client) -> Api<Lease> {
    Api::namespaced(client.clone(), NAMESPACE)
}

async fn read(client: &Client) -> Result<Option<Lease>> {
    let leases = leases(client);
    patient(|| leases.get_opt(LEASE)).await.kube(|| "cannot read the lease")
}

/// Asks also an API server that is away for a moment: who gives a cluster back has nobody after it to do so.
pub(crate) async fn patient<T, F>(mut ask: impl FnMut() -> F) -> Result<T, kube::Error>
where
    F: Future<Output = Result<T, kube::Error>>,
{
    let deadline = Instant::now() + PATIENCE;
    let mut delays = retry::delays();
    loop {
        let error = match ask().await {
            Err(error) if away(&error) => error,
            answer => return answer,
        };
        let delay = delays.next().unwrap_or(PATIENCE);
        if Instant::now() + delay > deadline {
            return Err(error);
        }
        tokio::time::sleep(delay).await;
    }
}

/// Changes and writes a lease that was read, or reads it again if somebody else wrote meanwhile.
async fn update(client: &Client, mut seen: Option<Lease>, change: impl Fn(&mut Lease) -> Result<()>) -> Result<Lease> {
    let deadline = Instant::now() + PATIENCE;
    let mut delays = retry::delays();
    loop {
        let fresh = seen.is_none();
        let mut lease = seen.take().unwrap_or_default();
        change(&mut lease)?;
        let error = match write(client, lease, fresh).await {
            Ok(lease) => return Ok(lease),
            Err(error) => error,
        };
        let delay = delays.next().unwrap_or(PATIENCE);
        if !passes(&error) || Instant::now() + delay > deadline {
            return Err(error).kube(|| "cannot write the lease");
        }
        tokio::time::sleep(delay).await;
        seen = read(client).await?;
    }
}

async fn write(client: &Client, mut lease: Lease, fresh: bool) -> Result<Lease, kube::Error> {
    if fresh {
        lease.metadata.name = Some(LEASE.into());
        let (leases, params) = (leases(client), PostParams::default());
        let create = || leases.create(&params, &lease);
        // Both at once: an API server that does not know the namespace of what is to be created looks again after
        // 50 ms (kubernetes/apiserver, plugin/namespace/lifecycle, missingNamespaceWait).
        match tokio::join!(namespace::create(client), create()) {
            (made, Err(kube::Error::Api(status))) if status.code == 404 => {
                made?;
                create().await
            }
            (_, created) => created,
        }
    } else {
        leases(client).replace(LEASE, &PostParams::default(), &lease).await
    }
}

/// Whether the next attempt to write may be better: somebody else wrote first, or our namespace is just going.
fn passes(error: &kube::Error) -> bool {
    let code = |wanted| matches!(error, kube::Error::Api(status) if status.code == wanted);
    code(409) || code(404) || cause_of(error) == Cause::NotAtBaseline || away(error)
}

/// Whether the API server may answer when it is asked again: it restarts, or is busy.
fn away(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => matches!(status.code, 408 | 429 | 500..=504) && cause_of(error) != Cause::Webhook,
        error => matches!(cause_of(error), Cause::ClusterUnreachable | Cause::Apiserver),
    }
}

/// What somebody takes the lease for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Aim {
    /// To change the cluster.
    Work,
    /// To look at it.
    Look,
    /// What it was taken for before.
    Renew,
}

/// What the lease becomes when `run` takes it at `now`.
fn claim(lease: &mut Lease, run: &str, aim: Aim, now: Timestamp) -> Result<()> {
    let state = LeaseState::of(lease);
    state.free_for(run, now)?;
    let same = state.holder.as_deref() == Some(run);
    if !same && let Some(expired) = &state.holder {
        let looked = lease.annotations_mut().remove(LOOKS);
        if looked.as_ref() != Some(expired) {
            lease.annotations_mut().insert(DIRTY.into(), expired.clone());
        }
    }
    match aim {
        Aim::Work => drop(lease.annotations_mut().remove(LOOKS)),
        // A run that has worked there does not become one that only looks.
        Aim::Look if !same => drop(lease.annotations_mut().insert(LOOKS.into(), run.to_owned())),
        Aim::Look | Aim::Renew => {}
    }
    let before = lease.spec.take().unwrap_or_default();
    lease.spec = Some(LeaseSpec {
        holder_identity: Some(run.to_owned()),
        acquire_time: if same { before.acquire_time } else { Some(MicroTime(now)) },
        renew_time: Some(MicroTime(now)),
        lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
        lease_transitions: Some(before.lease_transitions.unwrap_or(0) + i32::from(!same)),
        ..before
    });
    Ok(())
}

fn only_looks(lease: &Lease, run: &str) -> bool {
    lease.annotations().get(LOOKS).is_some_and(|looks| looks == run)
}

fn held(state: &LeaseState) -> Error {
    let holder = state.holder.as_deref().unwrap_or("nobody");
    let time = |time: Option<Timestamp>| time.map_or_else(|| "?".into(), |time| format!("{time:.0}"));
    let what =
        format!("run {holder} holds the cluster since {}, at least until {}", time(state.since), time(state.expires));
    Error::new(Cause::LeaseHeld, what)
        .next("wait for it; or, if it is surely gone: cargo xtask cluster-install lease release --force")
}

/// Renews until the lease is not ours any more. An API server that is away for a while is no reason to stop.
async fn renew(client: Client, run: String, lost: Arc<OnceLock<String>>) {
    loop {
        tokio::time::sleep(RENEW).await;
        let still = async {
            let seen = read(&client).await?;
            update(&client, seen, |lease| match LeaseState::of(lease).holder {
                Some(holder) if holder == run => claim(lease, &run, Aim::Renew, Timestamp::now()),
                other => {
                    let other = other.map_or_else(|| "nobody".into(), |other| format!("run {other}"));
                    Err(Error::new(Cause::LeaseHeld, format!("the lease of run {run} was taken: {other} has it now")))
                }
            })
            .await
        };
        if let Err(error) = still.await
            && error.cause == Cause::LeaseHeld
        {
            let _ = lost.set(error.summary());
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(minute: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + minute * 60).unwrap()
    }

    #[test]
    fn one_run_at_a_time() {
        let mut lease = Lease::default();
        claim(&mut lease, "r1", Aim::Work, at(0)).unwrap();
        let error = claim(&mut lease, "r2", Aim::Work, at(14)).unwrap_err();
        assert_eq!(error.cause, Cause::LeaseHeld);
        assert!(error.to_string().contains("run r1 holds the cluster since 2027"), "{error}");
        assert_eq!(LeaseState::of(&lease).dirty, None);
    }

    #[test]
    fn the_same_run_renews() {
        let mut lease = Lease::default();
        claim(&mut lease, "r1", Aim::Work, at(0)).unwrap();
        claim(&mut lease, "r1", Aim::Work, at(10)).unwrap();
        let state = LeaseState::of(&lease);
        assert_eq!((state.since, state.expires), (Some(at(0)), Some(at(25))));
        assert_eq!(lease.spec.unwrap().lease_transitions, Some(1));
        assert!(state.held_by_another("r2", at(24)) && !state.held_by_another("r1", at(24)));
    }

    #[test]
    fn an_expired_holder_leaves_a_dirty_cluster() {
        let mut lease = Lease::default();
        claim(&mut lease, "r1", Aim::Work, at(0)).unwrap();
        claim(&mut lease, "r2", Aim::Work, at(16)).unwrap();
        let state = LeaseState::of(&lease);
        assert_eq!(state.holder.as_deref(), Some("r2"));
        assert_eq!(state.dirty.as_deref(), Some("r1"));
    }

    #[test]
    fn an_api_server_that_restarts_is_asked_again() {
        let api =
            |code, message: &str| kube::Error::Api(Box::new(kube::core::Status::failure(message, "x").with_code(code)));
        assert!(away(&api(503, "starting")) && away(&kube::Error::Service(std::io::Error::other("refused").into())));
        assert!(!away(&api(403, "forbidden: no")) && !away(&api(500, "failed calling webhook \"x\"")));
        assert!(passes(&api(409, "conflict")) && !away(&api(409, "conflict")));
    }

    #[test]
    fn who_only_looked_leaves_nothing() {
        let mut lease = Lease::default();
        claim(&mut lease, "looks", Aim::Look, at(0)).unwrap();
        claim(&mut lease, "looks", Aim::Renew, at(5)).unwrap();
        assert!(only_looks(&lease, "looks") && !only_looks(&lease, "r1"));
        claim(&mut lease, "r1", Aim::Work, at(30)).unwrap();
        assert_eq!(LeaseState::of(&lease).dirty, None);
        // It works there, and looks again before it is gone.
        claim(&mut lease, "r1", Aim::Look, at(31)).unwrap();
        assert!(!only_looks(&lease, "r1"));
        claim(&mut lease, "r2", Aim::Look, at(60)).unwrap();
        assert_eq!(LeaseState::of(&lease).dirty.as_deref(), Some("r1"));
        // The run that looked goes to work.
        let mut lease = Lease::default();
        claim(&mut lease, "r3", Aim::Look, at(0)).unwrap();
        claim(&mut lease, "r3", Aim::Work, at(1)).unwrap();
        claim(&mut lease, "r4", Aim::Work, at(30)).unwrap();
        assert_eq!(LeaseState::of(&lease).dirty.as_deref(), Some("r3"));
    }

    #[test]
    fn a_lease_without_times_is_expired() {
        let lease = Lease {
            spec: Some(LeaseSpec { holder_identity: Some("x".into()), ..LeaseSpec::default() }),
            ..Lease::default()
        };
        assert!(LeaseState::of(&lease).expired(at(0)));
    }
}
