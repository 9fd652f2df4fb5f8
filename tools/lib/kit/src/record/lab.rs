//! `lab.json`: what a lab of this machine is, for everyone who uses it.
//!
//! It lies in the cache (`labs/<name>/lab.json`) and not in a run directory: a lab outlives runs.

use std::{collections::BTreeMap, fmt, net::Ipv4Addr, path::PathBuf, str::FromStr};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Nature;
use crate::{Cause, Error, Result, arch::Platform};

/// Architectures of which a lab can have nodes on any machine, under emulation.
pub const EMULATED: [&str; 3] = ["s390x", "arm64", "ppc64le"];

/// What `lab.json` holds and `lab status --output json` prints.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lab {
    /// `major.minor` of the schema.
    pub schema_version: String,
    /// The lab's name.
    pub name: String,
    /// How far it has come.
    pub phase: LabPhase,
    /// The administrator's kubeconfig, a file.
    pub kubeconfig: PathBuf,
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
    pub nodes: Vec<LabNode>,
    /// The built programs it runs: part and key.
    pub parts: BTreeMap<String, String>,
    /// Since when, RFC 3339.
    pub started: Timestamp,
}

/// How far a lab has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum LabPhase {
    /// `up` has begun; if nobody is at it, it was killed.
    Starting,
    /// Network and registry are there.
    Registry,
    /// The cluster is there as well.
    Ready,
}

/// A node as the lab made it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LabNode {
    /// Its name in Kubernetes.
    pub name: String,
    /// What it runs.
    pub platform: Platform,
    /// Whether it is what its architecture says.
    pub nature: Nature,
    /// The virtual machine that it is; absent for the node that is this machine itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub machine: Option<LabMachine>,
}

/// A virtual machine under qemu's emulation of a whole system.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LabMachine {
    /// Its place among the lab's machines, from 1; addresses and interface follow from it.
    pub number: u8,
    /// Its own address.
    pub address: Ipv4Addr,
    /// Its processors.
    pub cpus: u16,
    /// Its memory in MiB.
    pub memory: u64,
    /// What it boots from: the part of the cache and its key.
    pub disk: String,
}

impl Lab {
    /// The lab's address.
    #[must_use]
    pub const fn address(&self) -> Ipv4Addr {
        self.subnet.lab()
    }

    /// The name of the node that this machine is.
    #[must_use]
    pub fn node(&self) -> &str {
        self.nodes.first().map_or("", |node| &node.name)
    }
}

/// A lab's network, `10.X.Y.0/24`: X and Y.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(into = "String", try_from = "String")]
#[schemars(with = "String")]
pub struct Subnet(pub u8, pub u8);

impl Subnet {
    /// The host's address in it.
    #[must_use]
    pub const fn host(self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.0, self.1, 1)
    }

    /// The lab's address in it.
    #[must_use]
    pub const fn lab(self) -> Ipv4Addr {
        Ipv4Addr::new(10, self.0, self.1, 2)
    }

    /// The address of the node of that number, from 1.
    #[must_use]
    pub const fn node(self, number: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, self.0, self.1, 16 + number)
    }

    /// The host's interface.
    #[must_use]
    pub fn interface(self) -> String {
        format!("oa-{}-{}", self.0, self.1)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "10.{}.{}.0/24", self.0, self.1)
    }
}

impl From<Subnet> for String {
    fn from(subnet: Subnet) -> Self {
        subnet.to_string()
    }
}

impl TryFrom<String> for Subnet {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl FromStr for Subnet {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || {
            Error::new(Cause::Usage, format!("'{text}' is not a lab's subnet"))
                .next("write 10.X.Y.0/24, outside 10.96.0.0/16 and 10.244.0.0/16")
        };
        let address: Ipv4Addr = text.strip_suffix("/24").and_then(|text| text.parse().ok()).ok_or_else(wrong)?;
        match address.octets() {
            // Services and pods have these.
            [10, 96 | 244, _, _] => Err(wrong()),
            [10, x, y, 0] => Ok(Self(x, y)),
            _ => Err(wrong()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subnets_are_read_as_they_are_written() {
        let subnet: Subnet = "10.213.7.0/24".parse().unwrap();
        assert_eq!((subnet.to_string().as_str(), subnet.interface().as_str()), ("10.213.7.0/24", "oa-213-7"));
        for text in ["10.213.7.0", "10.213.7.1/24", "192.168.0.0/24", "10.96.3.0/24", "10.244.0.0/24", ""] {
            assert_eq!(text.parse::<Subnet>().unwrap_err().cause, Cause::Usage, "{text}");
        }
    }
}
