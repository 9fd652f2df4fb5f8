//! Waiting until a release is ready: by watches, with a reason for each thing that is missing.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use cluster::{
    Kinds, describe,
    explain::{self, Trouble},
    lease::Guard,
    objects::Object,
    watch::{Change, Target, View, watch},
};
use futures::{FutureExt, StreamExt, stream};
use k8s_openapi::api::{
    core::v1::{Event, Namespace, Pod},
    discovery::v1::EndpointSlice,
};
use kit::{
    Cause, Class, Error, Result, Step,
    record::{Nature, Node},
    ui::duration,
};
use kube::{Api, Client, ResourceExt, api::ListParams, runtime::watcher::Event as Seen};
use serde_json::Value;
use tokio::time::{Instant, sleep_until, timeout_at};

use crate::{
    apply::PARALLEL,
    pods, ready,
    webhooks::{self, Answer},
};

/// Names of the two kinds of webhook configurations.
const HOOKS: [&str; 2] = ["MutatingWebhookConfiguration", "ValidatingWebhookConfiguration"];
/// At least that often the state is looked at again: logs are not watched.
const TICK: Duration = Duration::from_secs(5);

/// Nobody tells when a webhook begins to answer: it is asked so often after the last change, and later more rarely.
const ASK: Duration = Duration::from_millis(50);
const ASK_OFTEN: usize = 200;
const ASK_RARELY: Duration = Duration::from_secs(1);

/// What is missing so long is told, and how many things at most.
const AWHILE: Duration = Duration::from_secs(10);
const TOLD: usize = 20;

/// A container without a readiness probe is "ready" the moment it starts, also if it ends at once: it
/// must have run for this long, and longer if it has ended before.
const SETTLED: Duration = Duration::from_secs(2);
const SETTLED_AGAIN: Duration = Duration::from_secs(12);
/// So many times as long on an emulated node: what cannot run there takes seconds to be told.
const EMULATED: i32 = 6;
/// A container that started so long ago by its node's clock need not be watched; clocks differ a little.
const LONG: jiff::SignedDuration = jiff::SignedDuration::from_secs(30);

/// What is waited for, and how it is seen.
pub(crate) struct Wait<'a> {
    pub(crate) client: &'a Client,
    pub(crate) kinds: &'a Kinds,
    pub(crate) objects: Vec<&'a Object>,
    pub(crate) nodes: &'a [Node],
    /// Whether services that the API server calls (webhooks, conversions) are waited for too.
    pub(crate) services: bool,
    pub(crate) limit: Duration,
}

/// Something that is not ready, and why.
type Missing = (String, Trouble);

/// Since when containers without a readiness probe are seen running: by pod, container and restarts.
type Settling = BTreeMap<(String, String, i32), Instant>;

/// Jobs that have done their work: namespace and name.
type Ended = BTreeSet<(String, String)>;

/// Since when something is missing, and the reason that was told.
type Told = BTreeMap<String, (Instant, String)>;

/// What trials of webhooks have shown, and what they need.
#[derive(Default)]
struct Trials {
    /// By the webhook's name: whether it answered, or could not be tried.
    shown: BTreeMap<String, bool>,
    /// Where it is tried, and when that was asked.
    namespaces: Option<(Instant, webhooks::Namespaces)>,
    /// What the last of them lacked.
    missing: Vec<Missing>,
}

/// The last lines that containers wrote, by pod and container, and when they were read.
type Logs = BTreeMap<(String, String), (Instant, String)>;

impl Wait<'_> {
    /// Waits until everything is ready, and returns how many webhooks were seen to answer.
    ///
    /// # Errors
    /// With a line for each thing that is missing: at once for what cannot heal, otherwise when the time is over.
    pub(crate) async fn until_ready(&self, guard: &Guard, step: &Step) -> Result<usize> {
        let targets = self.targets();
        let (mut view, mut changes) = watch(self.client, &targets);
        let mut ended = Ended::new();
        let deadline = Instant::now() + self.limit;
        let mut logs = Logs::new();
        let mut settling = Settling::new();
        let mut trials = Trials::default();
        let mut missing: Vec<Missing> = vec![("cluster".into(), Trouble::new(Cause::Apiserver, "says nothing yet"))];
        let mut told = Told::new();
        let pauses = || std::iter::repeat_n(ASK, ASK_OFTEN).chain(std::iter::repeat(ASK_RARELY));
        let mut again = pauses();
        let mut next = Instant::now() + TICK;
        loop {
            tokio::select! {
                Some(change) = changes.next() => {
                    let mut more = Some(change);
                    // What has come meanwhile is judged together.
                    while let Some(change) = more {
                        note_ended(&targets, &change, &mut ended);
                        view.take(change);
                        more = changes.next().now_or_never().flatten();
                    }
                    again = pauses();
                }
                () = sleep_until(next) => {}
                () = sleep_until(deadline) => return Err(self.late(&missing, view.fault).await),
            }
            guard.check()?;
            next = Instant::now() + TICK;
            if !view.complete() {
                if let Some(trouble) = view.unseen() {
                    missing = vec![("cluster".into(), trouble.clone())];
                    if !trouble.heals {
                        return Err(hopeless(&missing));
                    }
                }
                continue;
            }
            // No answer is waited for longer than for everything.
            if timeout_at(deadline, self.read_logs(&view, &mut logs)).await.is_err() {
                continue;
            }
            missing = self.judge(&view, &logs, &ended);
            if missing.is_empty()
                && let Some((until, unsettled)) = self.unsettled(&view, &mut settling)
            {
                missing = vec![unsettled];
                next = until;
            }
            if missing.is_empty() {
                if let Ok(lacked) = timeout_at(deadline, self.ask_webhooks(&view, &mut trials, step)).await {
                    trials.missing = lacked;
                } else if trials.missing.is_empty() {
                    trials.missing = vec![("webhooks".into(), Trouble::new(Cause::Webhook, "they give no answer"))];
                }
                missing.clone_from(&trials.missing);
                next = Instant::now() + again.next().unwrap_or(TICK);
            }
            if missing.is_empty() {
                return Ok(trials.shown.values().filter(|answered| **answered).count());
            }
            if missing.iter().any(|(_, trouble)| !trouble.heals) {
                return Err(hopeless(&missing));
            }
            tell(&missing, &mut told, step);
            let (what, trouble) = &missing[0];
            step.set(format!("{} not ready; {what}: {}", missing.len(), trouble.line));
        }
    }

    /// What was not ready in time. Of an API server that is away nothing of what it said before is true.
    async fn late(&self, missing: &[Missing], fault: Option<String>) -> Error {
        let asked = tokio::time::timeout(Duration::from_secs(5), self.client.apiserver_version()).await;
        let fault = match asked {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(fault.unwrap_or_else(|| describe(&error))),
            Err(_) => Some(fault.unwrap_or_else(|| "it gives no answer".into())),
        };
        late(missing, fault.as_deref(), self.limit)
    }

    fn targets(&self) -> Vec<Target> {
        let mut wanted: BTreeMap<(&str, &str, String), BTreeSet<&str>> = BTreeMap::new();
        let mut all = |api_version, kind, namespace: &str| {
            wanted.entry((api_version, kind, namespace.to_owned())).or_default();
        };
        for object in &self.objects {
            if pods::has_pods(object) {
                all("v1", "Pod", &object.key.namespace);
                all("v1", "Event", &object.key.namespace);
            }
            for (namespace, _) in self.services_of(object) {
                all("discovery.k8s.io/v1", "EndpointSlice", &namespace);
            }
        }
        for object in self.objects.iter().filter(|object| self.is_watched(object)) {
            let key = (object.key.api_version.as_str(), object.key.kind.as_str(), object.key.namespace.clone());
            wanted.entry(key).or_default().insert(&object.key.name);
        }
        let target = |((api_version, kind, namespace), names): (_, BTreeSet<&str>)| {
            let fields = match names.first() {
                Some(name) if names.len() == 1 && kind != "Pod" => format!("metadata.name={name}"),
                _ => String::new(),
            };
            Some(Target { kind: self.kinds.get(api_version, kind)?.clone(), namespace, fields })
        };
        wanted.into_iter().filter_map(target).collect()
    }

    fn services_of(&self, object: &Object) -> Vec<(String, String)> {
        if self.services { webhooks::services(&object.value) } else { Vec::new() }
    }

    fn is_watched(&self, object: &Object) -> bool {
        ready::is_waited(object.group(), &object.key.kind) || HOOKS.contains(&object.key.kind.as_str())
    }

    /// What is missing, as far as watches tell.
    fn judge(&self, view: &View, logs: &Logs, ended: &Ended) -> Vec<Missing> {
        let pods: Vec<Pod> = view.all("Pod");
        let events: Vec<Event> = view.all("Event");
        let slices: Vec<EndpointSlice> = view.all("EndpointSlice");
        let mut missing = Vec::new();
        for object in self.objects.iter().filter(|object| self.is_watched(object)) {
            let key = &object.key;
            let live = view.get(&key.kind, &key.namespace, &key.name).and_then(|live| serde_json::to_value(live).ok());
            let Some(live) = live else {
                if key.kind == "Job" && ended.contains(&(key.namespace.clone(), key.name.clone())) {
                    continue;
                }
                missing.push((key.to_string(), Trouble::new(Cause::Apiserver, "it is not there")));
                continue;
            };
            let of_pods = || self.trouble_of_pods(object, &pods, &events, logs);
            let trouble = match key.kind.as_str() {
                "Pod" => of_pods(),
                kind => match ready::missing(kind, &live) {
                    Some(own) => Some(of_pods().filter(|_| own.heals).unwrap_or(own)),
                    // What the controller says may be older than what the pods say.
                    None if pods::has_pods(object) && kind != "Job" => of_pods(),
                    None => None,
                },
            };
            missing.extend(trouble.map(|trouble| (key.to_string(), trouble)));
            for (namespace, service) in self.services_of(object) {
                if !slices.iter().any(|slice| webhooks::has_endpoint(slice, &namespace, &service)) {
                    let line = format!("its service {namespace}/{service} has no ready endpoint");
                    missing.push((key.to_string(), Trouble::new(Cause::Webhook, line)));
                }
            }
        }
        // What other things wait for comes first: a webhook is missing because its pod is.
        missing.sort_by_key(|(_, trouble)| (trouble.heals, trouble.cause == Cause::Webhook));
        missing
    }

    /// The trouble of an object's pods, what cannot heal first. Pods of an earlier release may be broken:
    /// the new ones take their place.
    fn trouble_of_pods(&self, object: &Object, pods: &[Pod], events: &[Event], logs: &Logs) -> Option<Trouble> {
        let own = pods.iter().filter(|pod| pods::belongs(pod, object));
        own.filter_map(|pod| {
            let uid = pod.uid().unwrap_or_default();
            let lines: Vec<_> = logs
                .iter()
                .filter(|((owner, _), _)| *owner == uid)
                .map(|((_, container), (_, line))| (container.clone(), line.clone()))
                .collect();
            let platform = self.node_of(pod).map(|node| &node.platform);
            let context = explain::Context { events, logs: &lines, platform, nodes: self.nodes };
            let mut trouble = explain::pod(pod, context)?;
            trouble.heals |= !pods::is_current(pod, object);
            Some(trouble)
        })
        .min_by_key(|trouble| trouble.heals)
    }

    /// The node that a pod is on, of those that are known.
    fn node_of(&self, pod: &Pod) -> Option<&Node> {
        let name = pod.spec.as_ref()?.node_name.as_ref()?;
        self.nodes.iter().find(|node| node.name == *name)
    }

    /// The container that must run longest until it is known to stay, and until when.
    fn unsettled(&self, view: &View, settling: &mut Settling) -> Option<(Instant, Missing)> {
        let pods: Vec<Pod> = view.all("Pod");
        let objects = || self.objects.iter().filter(|object| pods::has_pods(object) && object.key.kind != "Job");
        let mut last = None;
        for (object, pod) in objects().flat_map(|object| pods.iter().map(move |pod| (object, pod))) {
            if !pods::belongs(pod, object) || !pods::is_current(pod, object) {
                continue;
            }
            let slow = match self.node_of(pod) {
                Some(node) if node.nature == Nature::Emulated => EMULATED,
                _ => 1,
            };
            for container in pods::unprobed(pod) {
                let (needed, long) = if container.restarts == 0 { (SETTLED, LONG) } else { (SETTLED_AGAIN, LONG * 2) };
                let now = jiff::Timestamp::now();
                if container.started.is_some_and(|started| now.duration_since(started) > long * slow) {
                    continue;
                }
                let key = (pod.uid().unwrap_or_default(), container.name.clone(), container.restarts);
                let until = *settling.entry(key).or_insert_with(Instant::now) + needed * slow.unsigned_abs();
                if until > Instant::now() && last.as_ref().is_none_or(|(latest, _)| *latest < until) {
                    let ended = container.exit_code.map_or_else(String::new, |code| {
                        format!(" for the {}th time, after exit code {code}", container.restarts + 1)
                    });
                    let line =
                        format!("container {} has only just started{ended}; it has no readiness probe", container.name);
                    last = Some((until, (object.key.to_string(), Trouble::new(Cause::Product, line))));
                }
            }
        }
        last
    }

    /// Reads the logs of containers that fail.
    async fn read_logs(&self, view: &View, logs: &mut Logs) {
        let pods: Vec<Pod> = view.all("Pod");
        let own = pods.iter().filter(|pod| self.objects.iter().any(|object| pods::belongs(pod, object)));
        let old = |key: &(String, String)| logs.get(key).is_none_or(|(read, _)| read.elapsed() > TICK);
        let wanted: Vec<_> = own
            .flat_map(|pod| {
                let uid = pod.uid().unwrap_or_default();
                explain::silent_containers(pod)
                    .into_iter()
                    .map(move |(name, previous)| (pod, (uid.clone(), name), previous))
            })
            .filter(|(_, key, _)| old(key))
            .collect();
        let reads = wanted.into_iter().map(|(pod, key, previous)| async move {
            let line = explain::last_line(self.client, pod, &key.1, previous).await;
            Some((key, (Instant::now(), line?)))
        });
        let read: Vec<_> = stream::iter(reads).buffer_unordered(4).collect().await;
        logs.extend(read.into_iter().flatten());
    }

    /// Tries every webhook that was not tried yet, all at the same time.
    async fn ask_webhooks(&self, view: &View, trials: &mut Trials, step: &Step) -> Vec<Missing> {
        let hooks: Vec<&&Object> =
            self.objects.iter().filter(|object| HOOKS.contains(&object.key.kind.as_str())).collect();
        if hooks.is_empty() {
            return Vec::new();
        }
        let known = trials.namespaces.take().filter(|(asked, _)| asked.elapsed() < TICK);
        let (since, namespaces) = match known {
            Some(known) => known,
            None => match self.namespaces().await {
                Ok(namespaces) => (Instant::now(), namespaces),
                Err(error) => {
                    return vec![("namespaces".into(), Trouble::new(cluster::cause_of(&error), describe(&error)))];
                }
            },
        };
        let mut missing = Vec::new();
        let mut asked = Vec::new();
        for object in hooks {
            let key = &object.key;
            let live =
                view.get(&key.kind, "", &key.name).and_then(|live| serde_json::to_value(live).ok()).unwrap_or_default();
            match webhooks::probes(&live, self.kinds, &namespaces) {
                Ok(probes) => asked.extend(probes.into_iter().map(|probe| (key, probe))),
                Err(trouble) => missing.push((key.to_string(), trouble)),
            }
        }
        trials.namespaces = Some((since, namespaces));
        asked.retain(|(_, probe)| !trials.shown.contains_key(&probe.webhook));
        let answers = asked.into_iter().map(|(key, probe)| async move {
            let answer = webhooks::ask(self.client, &probe).await;
            (key, probe.webhook, answer)
        });
        let answers: Vec<_> = stream::iter(answers).buffer_unordered(PARALLEL).collect().await;
        for (key, webhook, answer) in answers {
            match answer {
                Answer::Answered => drop(trials.shown.insert(webhook, true)),
                Answer::Untried(why) => {
                    step.note(format!("nobody knows whether webhook {webhook} answers, it cannot be tried: {why}"));
                    trials.shown.insert(webhook, false);
                }
                Answer::Missing(trouble) => missing.push((key.to_string(), trouble)),
            }
        }
        missing
    }

    /// Namespaces with their labels, those that everybody knows first.
    async fn namespaces(&self) -> Result<webhooks::Namespaces, kube::Error> {
        let list = Api::<Namespace>::all(self.client.clone()).list(&ListParams::default()).await?;
        let labels = |namespace: &Namespace| serde_json::to_value(namespace.labels()).unwrap_or(Value::Null);
        let mut all: Vec<_> = list.iter().map(|namespace| (namespace.name_any(), labels(namespace))).collect();
        all.sort_by_key(|(name, _)| name != "default");
        Ok(all)
    }
}

/// Remembers a job that has done its work: it may be gone in the next moment (`ttlSecondsAfterFinished`).
fn note_ended(targets: &[Target], (target, change): &Change, ended: &mut Ended) {
    let (Ok(Seen::Apply(object) | Seen::InitApply(object)), Some(target)) = (change, targets.get(*target)) else {
        return;
    };
    let done = |object| serde_json::to_value(object).is_ok_and(|job| ready::missing("Job", &job).is_none());
    if target.kind.resource.kind == "Job" && done(object) {
        ended.insert((object.namespace().unwrap_or_default(), object.name_any()));
    }
}

/// What is missing for a while gets a line of its own that stays, once for each reason.
fn tell(missing: &[Missing], told: &mut Told, step: &Step) {
    told.retain(|what, _| missing.iter().any(|(name, _)| name == what));
    for (what, trouble) in missing.iter().take(TOLD) {
        let (since, said) = told.entry(what.clone()).or_insert_with(|| (Instant::now(), String::new()));
        if since.elapsed() >= AWHILE && *said != trouble.line {
            step.note(format!("still missing: {what}: {}", trouble.line));
            said.clone_from(&trouble.line);
        }
    }
}

/// The error's cause is that of the one who has to act first: as for many results, the product comes
/// before the machine.
fn error(missing: &[Missing], what: String) -> Error {
    let rank = |trouble: &Trouble| match trouble.cause.class() {
        _ if !trouble.heals => 0,
        Class::Product | Class::Unknown => 1,
        _ => 2,
    };
    let first = missing.iter().map(|(_, trouble)| trouble).min_by_key(|trouble| rank(trouble));
    let lines: Vec<_> = missing.iter().map(|(what, trouble)| format!("{what}: {}", trouble.line)).collect();
    Error::new(first.map_or(Cause::Unclassified, |trouble| trouble.cause), what).line(lines.join("\n"))
}

fn hopeless(missing: &[Missing]) -> Error {
    error(missing, "it cannot become ready".into())
}

fn late(missing: &[Missing], fault: Option<&str>, limit: Duration) -> Error {
    let what = format!("not ready after {}: {} missing", duration(limit), missing.len());
    match fault {
        Some(fault) => {
            let mut error = error(missing, format!("{what}, and the API server is away: {fault}"));
            error.cause = Cause::ClusterUnreachable;
            error
        }
        None => error(missing, what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn missing(cause: Cause, heals: bool) -> Missing {
        ("Deployment.apps/v1 n/web".into(), Trouble { heals, ..Trouble::new(cause, cause.name()) })
    }

    #[test]
    fn the_cause_is_that_of_who_has_to_act() {
        let of = |list: &[Missing]| late(list, None, Duration::from_secs(300)).cause;
        assert_eq!(of(&[missing(Cause::Webhook, true), missing(Cause::Product, true)]), Cause::Product);
        assert_eq!(of(&[missing(Cause::Webhook, true), missing(Cause::Node, true)]), Cause::Webhook);
        assert_eq!(of(&[missing(Cause::Product, true), missing(Cause::ImageWrongArch, false)]), Cause::ImageWrongArch);
        let error = late(&[missing(Cause::Product, true)], Some("connection refused"), Duration::from_secs(300));
        assert_eq!(error.cause, Cause::ClusterUnreachable);
        let text = late(&[missing(Cause::Storage, true)], None, Duration::from_secs(300)).to_string();
        assert!(
            text.contains("not ready after 5 min 00 s: 1 missing\n  > Deployment.apps/v1 n/web: storage"),
            "{text}"
        );
    }
}
