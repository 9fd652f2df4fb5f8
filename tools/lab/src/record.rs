//! `lab.json` of a lab: made, read, written. What it holds is defined in `kit::record`, for all who read it.

pub use kit::record::{Lab as Record, LabNode as Node, LabPhase as Phase, Subnet};
use kit::{
    Platform, Result,
    record::{Nature, SCHEMA_VERSION},
};

use crate::layout::Layout;

/// A lab that is about to start.
pub(crate) fn new(layout: &Layout, subnet: Subnet, mirrors: Vec<String>) -> Record {
    let address = subnet.lab();
    // As far as a lab can know: it emulates nothing there. What this machine is a probe finds out.
    let node = Node { name: layout.node(), platform: Platform::host(), nature: Nature::Native, machine: None };
    Record {
        schema_version: SCHEMA_VERSION.into(),
        name: layout.name.clone(),
        phase: Phase::Starting,
        kubeconfig: layout.kubeconfig(),
        api_server: format!("https://{address}:6443"),
        registry: format!("{address}:5000"),
        interface: subnet.interface(),
        subnet,
        mirrors,
        nodes: vec![node],
        parts: Default::default(),
        started: jiff::Timestamp::now(),
    }
}

/// Reads a lab's record, if it has one.
pub(crate) fn read(layout: &Layout) -> Result<Option<Record>> {
    let path = layout.record();
    if !path.exists() {
        return Ok(None);
    }
    kit::rundir::read_json(&path).map(|(record, _)| Some(record))
}

/// Writes it, atomically.
pub(crate) fn write(record: &Record, layout: &Layout) -> Result<()> {
    kit::rundir::write_json(&layout.record(), record).map(drop)
}
