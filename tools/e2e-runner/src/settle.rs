//! What holds of all tests on a cluster when they have ended, whatever their kind: what was away meanwhile, and whether
//! the cluster was theirs.

use jiff::Timestamp;
use kit::{Cause, Ui};
use tokio::runtime::Runtime;

use crate::{attempts, health::Watch, place::Place, report, rounds::Came};

/// Lays the cluster's outages over what came of tests, and adds rows for what makes them say nothing.
pub(crate) fn settle(came: &mut Came, place: &Place, watch: Watch, runtime: &Runtime, ui: &Ui) {
    if came.signal.is_none() {
        let outages = runtime.block_on(watch.finish());
        attempts::lay_over(&mut came.rows, &outages, Timestamp::now());
        if let Some(outage) = outages.open() {
            let cause = if outage.cause == Cause::Node { Cause::Node } else { Cause::ClusterUnreachable };
            came.rows.push(report::of_cluster(&place.opened.name, cause, outage.describe()));
        }
        if outages.number() > 0 {
            ui.warn(format!("the API server or a node was away {} times while the tests ran", outages.number()));
        }
    }
    if let Some(Err(error)) = place.lease.as_ref().map(cluster::Guard::check) {
        came.rows.push(report::of_cluster(&place.opened.name, error.cause, error.summary()));
    }
}
