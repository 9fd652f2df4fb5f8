//! What a node is: native, emulated, or nobody can tell. From what a probe saw on it, what the lab says
//! that made it, and what its owner declares, in this order.
//!
//! The probe (`tools/image-build/probe`) only reports; here is judged. A virtual machine on hardware
//! of its own architecture is native. Where hardware and emulation look the same the answer is unknown.
//! What an emulator says only when it is told to lie is taken as true.

mod machine;
mod rules;

use std::collections::BTreeMap;

use kit::{
    Cause, Context, Error, Platform, Result,
    ci::Declared,
    record::{ClusterId, Nature, Node},
};
use serde::{Deserialize, Serialize};

pub use machine::machine;
pub use rules::judge;

/// The probe's answer is at most so long.
pub const ANSWER_LIMIT: usize = 64 << 10;
/// The major version of answers that are understood.
const MAJOR: &str = "1.";

/// What the probe saw; see its source for what each field is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Facts {
    /// `major.minor` of the answer.
    pub schema_version: String,
    /// What the probe was compiled for.
    pub goarch: String,
    /// `uname -m`, which an emulator of programs makes up.
    pub machine: String,
    /// `uname -r`.
    pub release: String,
    /// The kernel's own architecture, as uname names it; empty before Linux 6.1.
    pub kernel_arch: String,
    /// Bytes of a page.
    pub page_size: u64,
    /// Byte order.
    pub big_endian: bool,
    /// The kernel's name for the processor.
    pub platform: String,
    /// Files mapped beside the probe's own.
    pub mapped: Vec<String>,
    /// The hypervisor's name on x86; empty without one.
    pub hypervisor: Option<String>,
    /// Our words of the kernel's command line.
    pub marks: Vec<String>,
    /// Small files, by path.
    pub files: BTreeMap<String, String>,
    /// Processor time of each round of the work.
    pub work_nanoseconds: Vec<u64>,
    /// Names that it was asked to look up: why each has no address, empty if it has.
    pub names: BTreeMap<String, String>,
    /// Addresses that it was asked to connect to: why it cannot, empty if it can.
    pub connections: BTreeMap<String, String>,
}

/// What was found, and what shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// What it is.
    pub nature: Nature,
    /// In words.
    pub evidence: String,
}

impl Facts {
    /// Reads the probe's answer.
    ///
    /// # Errors
    /// [`Cause::Usage`] if it is none, or a newer one than is understood.
    pub fn parse(text: &str) -> Result<Self> {
        let text = text.trim();
        if text.len() > ANSWER_LIMIT {
            return Err(Error::new(Cause::Usage, format!("the probe's answer is longer than {ANSWER_LIMIT} bytes")));
        }
        let facts: Self = serde_json::from_str(text).cause(Cause::Usage, || "this is no answer of the probe")?;
        if !facts.schema_version.starts_with(MAJOR) {
            let what = format!("the probe answers in version '{}', and 1 is understood", facts.schema_version);
            return Err(Error::new(Cause::Usage, what).next("build it anew: cargo xtask image-build probe"));
        }
        Ok(facts)
    }

    /// How long the work takes: the quickest of its rounds, for what else runs there makes the others longer.
    #[must_use]
    pub fn work(&self) -> Option<u64> {
        self.work_nanoseconds.iter().copied().min().filter(|work| *work > 0)
    }

    /// A file's text, empty if it was not there.
    fn file(&self, path: &str) -> &str {
        self.files.get(path).map_or("", String::as_str)
    }

    /// The value of `name` in a file of `name: value` lines, the last one if there are several.
    fn field(&self, path: &str, name: &str) -> Option<&str> {
        let lines = self.file(path).lines().filter_map(|line| line.split_once(':'));
        let mut values = lines.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim());
        values.rfind(|value| !value.is_empty())
    }
}

/// Puts into `node` what is known of it: what the probe saw, what the lab said before, and what its owner
/// says where these say nothing.
///
/// # Errors
/// [`Cause::Usage`], naming both, if the owner's declaration contradicts what is known.
pub fn settle(node: &mut Node, probed: Option<&Facts>, cluster: &str, declared: Option<&Declared>) -> Result<()> {
    let mut known = Judgement { nature: node.nature, evidence: node.evidence.take().unwrap_or_default() };
    if let Some(facts) = probed {
        node.machine = Some(machine(facts));
        let seen = judge(facts);
        // A lab knows for certain what it emulates. Of its other node it knows that it emulates nothing, and not what the
        // machine is that it runs on itself: that only the probe can tell, or nobody.
        if seen.nature == Nature::Emulated || known.nature != Nature::Emulated {
            known = Judgement { evidence: format!("probe: {}", seen.evidence), ..seen };
        }
    }
    if let (Nature::Unknown, Some(Declared { nature, owner, .. })) = (known.nature, declared) {
        known = Judgement { nature: *nature, evidence: format!("declared by {owner} in ci/architectures.toml") };
    }
    node.nature = known.nature;
    node.evidence = Some(kit::ui::printable(&known.evidence)).filter(|evidence| !evidence.is_empty());
    match declared {
        Some(Declared { nature, owner, .. }) if *nature != known.nature => {
            let (said, is) = (nature.name(), known.nature.name());
            Err(Error::new(Cause::Usage, format!("{owner} declares {cluster} {said}, and node {} is {is}", node.name))
                .line(node.evidence.clone().unwrap_or_default())
                .next("put the [[cluster]] in ci/architectures.toml right"))
        }
        _ => Ok(()),
    }
}

/// The worst of the nodes that take pods of `platform`; nothing if there is none.
#[must_use]
pub fn worst(cluster: &ClusterId, platform: &Platform) -> Option<Nature> {
    cluster.nodes.iter().filter(|node| node.ready && node.platform == *platform).map(|node| node.nature).max()
}

#[cfg(test)]
mod tests;
