//! `lab.json`: what a lab is, for everyone who uses it.

use std::{collections::BTreeMap, net::Ipv4Addr};

use kit::{
    Platform, Result,
    record::{Nature, SCHEMA_VERSION},
};
use serde::{Deserialize, Serialize};

use crate::{layout::Layout, network::Subnet};

/// How far a lab has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// `up` has begun; if nobody is at it, it was killed.
    Starting,
    /// Network and registry are there.
    Registry,
    /// The cluster is there as well.
    Ready,
}

/// A node of the lab.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name in Kubernetes.
    pub name: String,
    /// What it runs.
    pub platform: Platform,
    /// Whether it is what its architecture says.
    pub nature: Nature,
}

/// What `lab.json` holds and `status --output json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    /// As in all our records.
    pub schema_version: String,
    /// The lab's name.
    pub name: String,
    /// How far it has come.
    pub phase: Phase,
    /// The administrator's kubeconfig, a file.
    pub kubeconfig: String,
    /// `https://address:port` of the API server, the same for host, nodes and pods.
    pub api_server: String,
    /// `address:port` of the registry (plain HTTP), the same for host, nodes and pods.
    pub registry: String,
    /// The network between host and lab.
    pub subnet: Subnet,
    /// The host's interface of it.
    pub interface: String,
    /// Public registries that the lab's own registry answers for, under `mirror/<host>/`.
    pub mirrors: Vec<String>,
    /// Its nodes.
    pub nodes: Vec<Node>,
    /// The built programs it runs: part and key.
    pub parts: BTreeMap<String, String>,
    /// Since when, RFC 3339.
    pub started: jiff::Timestamp,
}

impl Record {
    /// A lab that is about to start.
    pub(crate) fn new(layout: &Layout, subnet: Subnet, mirrors: Vec<String>) -> Self {
        let address: Ipv4Addr = subnet.lab();
        let node = Node { name: layout.node(), platform: Platform::host(), nature: Nature::Native };
        Self {
            schema_version: SCHEMA_VERSION.into(),
            name: layout.name.clone(),
            phase: Phase::Starting,
            kubeconfig: layout.kubeconfig().display().to_string(),
            api_server: format!("https://{address}:6443"),
            registry: format!("{address}:5000"),
            interface: subnet.interface(),
            subnet,
            mirrors,
            nodes: vec![node],
            parts: BTreeMap::new(),
            started: jiff::Timestamp::now(),
        }
    }

    /// The lab's address.
    pub(crate) fn address(&self) -> Ipv4Addr {
        self.subnet.lab()
    }

    /// The node that this machine is.
    pub(crate) fn node(&self) -> &str {
        self.nodes.first().map_or("", |node| &node.name)
    }

    /// Reads a lab's record, if it has one.
    pub(crate) fn read(layout: &Layout) -> Result<Option<Self>> {
        let path = layout.record();
        if !path.exists() {
            return Ok(None);
        }
        kit::rundir::read_json(&path).map(|(record, _)| Some(record))
    }

    /// Writes it, atomically.
    pub(crate) fn write(&self, layout: &Layout) -> Result<()> {
        kit::rundir::write_json(&layout.record(), self).map(drop)
    }
}
