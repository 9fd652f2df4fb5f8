//! What a lab of this machine says of itself: the part of its `lab.json` that others read.

use std::path::PathBuf;

use kit::{
    Cause, Error, Platform, Result, Within,
    record::Nature,
    rundir::{read_json, slug},
};
use serde::Deserialize;

/// A lab that is up.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lab {
    /// Its name.
    pub name: String,
    /// How far it has come; `ready` when its cluster can be used.
    #[serde(default)]
    pub phase: String,
    /// Its administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// `address:port` of its registry: one name for host, nodes and pods.
    pub registry: String,
    /// Its nodes, which it marks as native or emulated.
    pub nodes: Vec<LabNode>,
}

/// A node as the lab made it.
#[derive(Debug, Clone, Deserialize)]
pub struct LabNode {
    /// Its name in Kubernetes.
    pub name: String,
    /// What it runs.
    pub platform: Platform,
    /// Real or emulated.
    pub nature: Nature,
}

impl Lab {
    /// The lab of that name.
    ///
    /// # Errors
    /// [`Cause::ClusterUnreachable`] if it is not up; [`Cause::Usage`] if its record cannot be read.
    pub fn read(name: &str) -> Result<Self> {
        if slug(name) != name {
            return Err(Error::new(Cause::Usage, format!("'{name}' is not the name of a lab")));
        }
        let path = kit::dirs::cache()?.join("labs").join(name).join("lab.json");
        let up = || {
            if name == "default" { "cargo xtask lab up".into() } else { format!("cargo xtask lab up --name {name}") }
        };
        if !path.exists() {
            return Err(Error::new(Cause::ClusterUnreachable, format!("the lab '{name}' is not up")).next(up()));
        }
        let (lab, _) = read_json::<Self>(&path).within(|| format!("lab '{name}'"))?;
        if !["", "ready"].contains(&lab.phase.as_str()) {
            let what = format!("the lab '{name}' has no cluster yet (it is at '{}')", lab.phase);
            return Err(Error::new(Cause::ClusterUnreachable, what).next(up()));
        }
        Ok(lab)
    }
}
