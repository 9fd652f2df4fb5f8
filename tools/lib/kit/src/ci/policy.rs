//! `ci/policy.toml`: what the words in the support matrix require, when to raise an alarm, what is kept.

use serde::Deserialize;

use crate::Platform;

/// `ci/policy.toml`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// The platform that others are compared with.
    pub reference: Platform,
    /// From weak to strong.
    #[serde(default)]
    pub level: Vec<Level>,
    /// When a cell is failing, stale or unknown.
    #[serde(default)]
    pub states: States,
    /// When somebody should look.
    #[serde(default)]
    pub alarms: Alarms,
    /// What is kept of the history.
    #[serde(default)]
    pub retention: Retention,
}

/// What a word in the matrix requires.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Level {
    /// The word.
    pub name: String,
    /// Kinds of evidence.
    pub evidence: Vec<String>,
    /// Suites that count as `e2e`; any if empty.
    #[serde(default)]
    pub suites: Vec<String>,
    /// Whether only native nodes count.
    #[serde(default)]
    pub native: bool,
    /// `published`, if what we built ourselves does not count.
    pub origin: Option<String>,
    /// Days after which evidence no longer counts.
    pub max_age: Option<u32>,
    /// Least number of owners.
    #[serde(default)]
    pub owners: u32,
    /// Least number of machines.
    #[serde(default)]
    pub machines: u32,
    /// How many of the last valid runs of tests must have passed.
    pub pass_rate: Option<PassRate>,
    /// Most tests that may be skipped or excluded.
    pub max_skips: Option<usize>,
    /// Most tests that pass on the reference platform, in the same version, and do not here.
    pub unlike_reference: Option<usize>,
}

/// A share of the last runs that taught us something.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PassRate {
    /// Least share, 0.9 for nine of ten.
    pub least: f64,
    /// Over so many runs, or as many as there are.
    pub last: usize,
}

/// When a cell is what.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct States {
    /// So many native tries in a row that are not good make a cell failing.
    pub failing: u32,
    /// Days after which a cell is stale; the `max_age` of `tested` if it is not said.
    pub stale: Option<u32>,
    /// Days after which what was shown is no longer believed at all; never if it is not said.
    pub unknown: Option<u32>,
}

impl Default for States {
    fn default() -> Self {
        Self { failing: 1, stale: None, unknown: None }
    }
}

/// When somebody should look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Alarms {
    /// Days without a run after which a cell that was tested is silent.
    pub silent: u32,
    /// Hours without any run after which a night was missed.
    pub night: u32,
    /// Days before a claim ends in which that is said.
    pub expiring: u32,
}

impl Default for Alarms {
    fn default() -> Self {
        Self { silent: 3, night: 26, expiring: 2 }
    }
}

/// What is kept of the history.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Retention {
    /// Days after which logs go; never if it is not said.
    pub logs: Option<u32>,
    /// Days after which runs go on which nothing rests; never if it is not said.
    pub runs: Option<u32>,
}
