//! `cluster-install probe`: what the nodes of a cluster are, and how fast.

use std::time::Duration;

use cluster::{Options, lease};
use kit::{
    Cause, Done, Output, Platform, Result, Ui,
    ci::{CiOptions, parse_duration},
    record::{Node, SCHEMA_VERSION},
};
use serde::Serialize;

use crate::probe::{self, Look, Seen};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The probe's image, as `image-build probe` prints it
    #[arg(long, value_name = "REF@DIGEST")]
    image: String,
    /// Only nodes of this platform
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<Platform>,
    /// How long it may take on each node
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = parse_duration)]
    timeout: Duration,
    #[command(flatten)]
    cluster: Options,
    #[command(flatten)]
    ci: CiOptions,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Machines {
    schema_version: &'static str,
    cluster: String,
    nodes: Vec<Looked>,
    /// Each round of the work on this machine.
    here_nanoseconds: Vec<u64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Looked {
    #[serde(flatten)]
    node: Node,
    /// Each round of the work.
    work_nanoseconds: Vec<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    slowdown: Option<f64>,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Done> {
    probe::check_image(&args.image)?;
    let declared = probe::declared(&args.ci)?;
    let machines = cluster::block_on(async {
        let opened = cluster::open(&args.cluster, ui).await?;
        let mut id = cluster::identity(&opened).await?;
        let look = Look {
            opened: &opened,
            platform: args.platform.as_ref(),
            image: Some(&args.image),
            arguments: &[],
            declared: &declared,
            limit: args.timeout,
            ui,
        };
        // So that nobody measures while a run works there, and the other way round.
        let guard = lease::look(&opened.client, &holder("probe")).await?;
        let seen = look.at(&mut id).await;
        guard.release().await?;
        Ok(machines(id, &seen?))
    })?;
    match ui.output {
        Output::Json => ui.json(&machines)?,
        Output::Text => ui.result(&text(&machines))?,
    }
    Ok(if machines.nodes.is_empty() { Done::found(Cause::Node) } else { Done::good() })
}

/// A name that no run has, for whoever works without one.
pub(crate) fn holder(what: &str) -> String {
    format!("{what}-{}-{}", std::process::id(), jiff::Timestamp::now().as_millisecond())
}

fn machines(id: kit::record::ClusterId, seen: &Seen) -> Machines {
    let looked = |node: Node| {
        let facts = seen.nodes.get(&node.name)?;
        let slowdown = seen.slowdown_of(&node.name);
        Some(Looked { work_nanoseconds: facts.work_nanoseconds.clone(), slowdown, node })
    };
    Machines {
        schema_version: SCHEMA_VERSION,
        cluster: id.name,
        nodes: id.nodes.into_iter().filter_map(looked).collect(),
        here_nanoseconds: seen.here.as_ref().map(|facts| facts.work_nanoseconds.clone()).unwrap_or_default(),
    }
}

fn text(machines: &Machines) -> String {
    let mut rows =
        vec![["NODE", "PLATFORM", "NATURE", "MACHINE", "PROCESSOR", "PAGES", "SLOWER"].map(String::from).to_vec()];
    let mut evidence = String::new();
    for Looked { node, slowdown, .. } in &machines.nodes {
        let machine = node.machine.as_ref();
        let words = |words: Option<&String>| words.cloned().unwrap_or_else(|| "-".into());
        rows.push(vec![
            node.name.clone(),
            node.platform.to_string(),
            node.nature.name().into(),
            words(machine.and_then(|machine| machine.model.as_ref())),
            words(machine.and_then(|machine| machine.processor.as_ref())),
            machine.map_or_else(|| "-".into(), |machine| machine.page_size.to_string()),
            slowdown.map_or_else(|| "-".into(), |slowdown| format!("{slowdown:.2}")),
        ]);
        evidence += &format!("\n{}: {}", node.name, node.evidence.as_deref().unwrap_or("nobody says what it is"));
    }
    format!("{}{evidence}", kit::ui::table(&rows))
}
