//! The API server's own health while tests run, so that its absence is never taken for a test's failure.

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Namespace;
use kit::{Cause, process::Stopper};
use kube::{Api, Client};
use tokio::task::JoinHandle;

/// How often it is asked.
const INTERVAL: Duration = Duration::from_secs(2);
/// How soon again after a first doubt.
const DOUBT: Duration = Duration::from_millis(500);
/// How long one answer may take.
const ANSWER: Duration = Duration::from_secs(5);
/// How long tests go on without an API server: time for it to restart, not to wait for each test's patience.
const PATIENCE: Duration = Duration::from_secs(90);

/// A time in which the API server did not answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Outage {
    /// The last good answer before it.
    pub from: Timestamp,
    /// The first good answer after it, if there was one.
    pub to: Option<Timestamp>,
    /// What came instead of an answer, first.
    pub why: String,
    /// What kind of fault that is.
    pub cause: Cause,
}

impl Outage {
    /// Whether any of it lies between these times.
    #[must_use]
    pub fn overlaps(&self, from: Timestamp, to: Timestamp) -> bool {
        self.from <= to && self.to.is_none_or(|end| end >= from)
    }

    /// In words.
    #[must_use]
    pub fn describe(&self) -> String {
        let time = |time: Timestamp| time.strftime("%H:%M:%S").to_string();
        let to = self.to.map_or_else(|| "the end".into(), time);
        format!("the API server did not answer between {} and {to} UTC: {}", time(self.from), self.why)
    }
}

/// All that was found, in order of time.
#[derive(Debug, Clone, Default)]
pub struct Outages(Vec<Outage>);

impl Outages {
    /// The first one that any of this time lies in.
    #[must_use]
    pub fn during(&self, from: Timestamp, to: Timestamp) -> Option<&Outage> {
        self.0.iter().find(|outage| outage.overlaps(from, to))
    }

    /// The one that has not ended.
    #[must_use]
    pub fn open(&self) -> Option<&Outage> {
        self.0.last().filter(|outage| outage.to.is_none())
    }

    /// How many there were.
    #[must_use]
    pub fn number(&self) -> usize {
        self.0.len()
    }

    fn record(&mut self, last_good: Timestamp, answer: Result<Timestamp, (Cause, String)>) {
        let open = self.0.last_mut().filter(|outage| outage.to.is_none());
        match (answer, open) {
            (Ok(now), Some(outage)) => outage.to = Some(now),
            (Err((cause, why)), None) => self.0.push(Outage { from: last_good, to: None, why, cause }),
            _ => {}
        }
    }
}

/// Asks the API server again and again.
pub struct Watch {
    found: Arc<Mutex<Outages>>,
    task: JoinHandle<()>,
    client: Client,
}

impl Watch {
    /// Begins, on the present tokio runtime. `stopper` ends the tests if the API server stays away.
    #[must_use]
    pub fn start(client: Client, stopper: Stopper) -> Self {
        let found = Arc::new(Mutex::new(Outages::default()));
        let task = tokio::spawn(watch(client.clone(), Arc::clone(&found), stopper));
        Self { found, task, client }
    }

    /// What was found until now.
    #[must_use]
    pub fn outages(&self) -> Outages {
        self.found.lock().map(|found| found.clone()).unwrap_or_default()
    }

    /// Ends, with a last look: an API server that is away gets a few seconds to come back.
    pub async fn finish(self) -> Outages {
        self.task.abort();
        let mut outages = self.outages();
        let mut last_good = Timestamp::now();
        for delay in kit::retry::delays().take(8) {
            let answer = ask(&self.client).await;
            let good = answer.is_ok();
            outages.record(last_good, answer);
            if good {
                break;
            }
            last_good = Timestamp::now();
            tokio::time::sleep(delay).await;
        }
        outages
    }
}

async fn watch(client: Client, found: Arc<Mutex<Outages>>, stopper: Stopper) {
    let mut last_good = Timestamp::now();
    let mut doubts = 0;
    loop {
        let answer = ask(&client).await;
        // One late answer may be a busy machine's; a connection that is refused is no matter of patience.
        let doubtful = matches!(&answer, Err((cause, _)) if *cause == Cause::Apiserver);
        doubts = if doubtful { doubts + 1 } else { 0 };
        let before = last_good;
        if let Ok(now) = &answer {
            last_good = *now;
        }
        let wait = if answer.is_ok() { INTERVAL } else { DOUBT };
        if doubts != 1
            && let Ok(mut found) = found.lock()
        {
            found.record(before, answer);
            let away = found.open().map(|outage| Timestamp::now().duration_since(outage.from));
            if away.is_some_and(|away| away.as_secs() >= PATIENCE.as_secs().cast_signed()) {
                stopper.stop();
            }
        }
        tokio::time::sleep(wait).await;
    }
}

/// A read that goes through to etcd, and that every user of a cluster may do.
async fn ask(client: &Client) -> Result<Timestamp, (Cause, String)> {
    let namespaces = Api::<Namespace>::all(client.clone());
    match tokio::time::timeout(ANSWER, namespaces.get_metadata("kube-system")).await {
        Err(_) => Err((Cause::Apiserver, format!("no answer within {} s", ANSWER.as_secs()))),
        Ok(Ok(_)) => Ok(Timestamp::now()),
        Ok(Err(error)) => match cluster::cause_of(&error) {
            // It answered, and what it says is no matter of its health.
            Cause::Auth | Cause::Product | Cause::Quota | Cause::Usage => Ok(Timestamp::now()),
            cause => Err((cause, cluster::describe(&error))),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    #[test]
    fn an_outage_lasts_from_good_to_good() {
        let mut found = Outages::default();
        let away = || Err((Cause::ClusterUnreachable, "connection refused".to_owned()));
        found.record(at(0), Ok(at(2)));
        found.record(at(2), away());
        found.record(at(2), away());
        assert!(found.open().is_some());
        found.record(at(2), Ok(at(9)));
        assert_eq!((found.number(), found.open()), (1, None));
        for (from, to, hit) in [(0, 1, false), (0, 3, true), (3, 4, true), (8, 20, true), (10, 20, false)] {
            assert_eq!(found.during(at(from), at(to)).is_some(), hit, "{from} to {to}");
        }
        let said = found.during(at(3), at(4)).unwrap().describe();
        assert!(said.ends_with("connection refused") && said.contains("between"), "{said}");
    }
}
