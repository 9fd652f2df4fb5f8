//! `cluster-install status`: which cluster it is, what is there, who holds it.

use cluster::{Options, inventory, lease};
use kit::{
    Cause, Done, Output, Result, Ui,
    record::{ClusterId, SCHEMA_VERSION},
};
use serde::Serialize;

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    cluster: Options,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Status {
    schema_version: &'static str,
    server: String,
    cluster: ClusterId,
    lease: lease::LeaseState,
    installed: Vec<inventory::Inventory>,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Done> {
    let status = cluster::block_on(async {
        let opened = cluster::open(&args.cluster, ui).await?;
        Ok(Status {
            schema_version: SCHEMA_VERSION,
            cluster: cluster::identity(&opened).await?,
            lease: lease::show(&opened.client).await?,
            installed: inventory::list(&opened.client).await?,
            server: opened.server,
        })
    })?;
    match ui.output {
        Output::Json => ui.json(&status)?,
        Output::Text => ui.result(&text(&status))?,
    }
    let usable = status.cluster.nodes.iter().any(|node| node.ready);
    Ok(if usable { Done::good() } else { Done::found(Cause::Node) })
}

fn text(status: &Status) -> String {
    let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect::<Vec<_>>();
    let cluster = &status.cluster;
    let mut rows = vec![row(&["NODE", "PLATFORM", "NATURE", "STATE", "KUBELET", "KERNEL"])];
    for node in &cluster.nodes {
        let state = if node.ready { "ready" } else { "takes no pods" };
        rows.push(row(&[
            &node.name,
            &node.platform.to_string(),
            node.nature.name(),
            state,
            &node.kubelet,
            &node.kernel,
        ]));
    }
    let mut text = format!(
        "{} at {}: Kubernetes {}, UID {}\n\n{}\n{}\n",
        cluster.name,
        status.server,
        cluster.kubernetes,
        cluster.uid,
        kit::ui::table(&rows),
        crate::lease::words(&status.lease)
    );
    for found in &status.installed {
        text += &format!(
            "{} {} for {}: {} objects, by run {} at {:.0}\n",
            found.component,
            found.version,
            found.platform,
            found.objects.len(),
            found.run,
            found.installed
        );
    }
    if status.installed.is_empty() {
        text += "nothing of ours is installed\n";
    }
    text
}
