//! What is arranged on a cluster around its tests, and undone whatever becomes of them: nodes of other platforms
//! take no pods, and it is seen where the tests' pods really ran.

use std::time::Duration;

use kit::{Cause, Error, Result, Ui};
use tokio::runtime::Runtime;

use crate::{
    place::Place,
    pods::{Pods, Seen},
    report::{self, Row},
};

/// How long nodes are tried to be given back.
const PATIENCE: Duration = Duration::from_secs(30);

/// What was arranged, and what came of it.
#[derive(Debug, Default)]
pub struct Arranged {
    /// Nodes that took no pods meanwhile.
    pub set_aside: Vec<String>,
    /// Pods of the tests.
    pub seen: Seen,
    /// What is wrong with the cluster, or with where the tests ran.
    pub rows: Vec<Row>,
}

/// Does `work` while only nodes of the place's platform take pods. The namespace `known` is the tests' although it is
/// there already.
///
/// # Errors
/// What `work` returns, or why nothing could be arranged.
pub fn around<T>(
    place: &Place,
    run: &str,
    known: Option<&str>,
    runtime: &Runtime,
    ui: &Ui,
    work: impl FnOnce() -> Result<T>,
) -> Result<(T, Arranged)> {
    let mut arranged = Arranged::default();
    let done = runtime.block_on(cluster::interruptible(begin(place, run, known, ui))).and_then(|(set_aside, pods)| {
        arranged.set_aside = set_aside;
        let done = work();
        arranged.seen = runtime.block_on(pods.finish());
        done
    });
    if place.is_mixed()
        && place.here.is_last()
        && let Err(error) = runtime.block_on(give_back(place))
    {
        let why = format!("nodes are still set aside, the next run or cleanup gives them back: {}", error.summary());
        ui.warn(&why);
        arranged.rows.push(report::of_cluster(&place.opened.name, error.cause, why));
    }
    if let Some(strays) = arranged.seen.strays(&place.platform.to_string()) {
        arranged.rows.push(report::of_cluster(&place.opened.name, Cause::Node, strays));
    }
    done.map(|done| (done, arranged))
}

async fn begin(place: &Place, run: &str, known: Option<&str>, ui: &Ui) -> Result<(Vec<String>, Pods)> {
    let client = &place.opened.client;
    let mut names = Vec::new();
    if place.is_mixed() {
        names = cluster::aside::set_aside(client, &place.id, &place.platform, run).await?;
        let list = names.join(", ");
        ui.note(format!("set aside while the tests of {} run: {list}", place.platform));
    }
    Ok((names, Pods::start(client, &place.id, known).await?))
}

/// Tries for a while: the API server may just be on its way back.
async fn give_back(place: &Place) -> Result<()> {
    let late = || Error::new(Cause::ClusterUnreachable, "the cluster does not answer");
    let mut last = None;
    let tries = async {
        for delay in kit::retry::delays() {
            match cluster::aside::give_back(&place.opened.client).await {
                Ok(_) => return Ok(()),
                Err(error) => last = Some(error),
            }
            tokio::time::sleep(delay).await;
        }
        Ok(())
    };
    let done = cluster::within(PATIENCE, late, tries).await;
    done.map_err(|error| last.unwrap_or(error))
}
