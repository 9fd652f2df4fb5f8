//! What the questions are answered with, as JSON: `schemas/matrix-*.json`.

use std::cmp::Ordering;

use jiff::Timestamp;
use kit::Platform;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Change, OriginKind, OwnerRow, SCHEMA_VERSION, State};

/// `can`: whether something may be said of a version on a platform.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// `major.minor` of this schema: that of the matrix.
    pub schema_version: String,
    /// Of which component.
    pub component: String,
    /// Of which version: what was asked for, or the newest one of the line that was.
    pub version: String,
    /// On which platform.
    pub platform: Platform,
    /// What was asked: a claim of `ci/policy.toml`.
    pub claim: String,
    /// The answer.
    pub yes: bool,
    /// Why; if not, what is missing.
    pub reasons: Vec<String>,
    /// The cell that decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cell: Option<String>,
    /// Who built its images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<OriginKind>,
    /// Other cells of that version on that platform which are failing, by name.
    #[serde(default)]
    pub failing: Vec<String>,
    /// Its state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Digest of the bundle that it rests on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// Until when, if nothing new comes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// The moment that it speaks of.
    pub as_of: Timestamp,
}

/// What `log`, `diff`, `claims` and `stale` list.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Listing<T> {
    /// `major.minor` of this schema: that of the matrix.
    pub schema_version: String,
    /// One by one.
    pub items: Vec<T>,
}

impl<T> Listing<T> {
    pub(crate) fn new(items: Vec<T>) -> Self {
        Self { schema_version: SCHEMA_VERSION.into(), items }
    }
}

/// Whether something got better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Direction {
    /// More may be said than before.
    Promotion,
    /// Less may be said than before.
    Demotion,
    /// Something else is said.
    Change,
}

impl Direction {
    /// From what was shown before to what is now: how much may be claimed, and the state. Where no claim moved, to know
    /// nothing is neither better nor worse.
    pub(crate) fn between<C: Ord>(before: (&C, State), after: (&C, State)) -> Self {
        let known = before.1.is_known() && after.1.is_known();
        match (after.0.cmp(before.0), after.1.worth().cmp(&before.1.worth())) {
            (Ordering::Greater, _) => Self::Promotion,
            (Ordering::Less, _) => Self::Demotion,
            (Ordering::Equal, Ordering::Greater) if known => Self::Promotion,
            (Ordering::Equal, Ordering::Less) if known => Self::Demotion,
            (Ordering::Equal, _) => Self::Change,
        }
    }
}

/// `log`: one change of one cell.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LogEntry {
    /// When.
    pub at: Timestamp,
    /// Which cell.
    pub cell: String,
    /// Its component.
    pub component: String,
    /// Its version.
    pub version: String,
    /// Its platform.
    pub platform: Platform,
    /// Who answers for that.
    pub owners: Vec<String>,
    /// Better or worse.
    pub direction: Direction,
    /// What it was; nothing the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<State>,
    /// What it became.
    pub to: State,
    /// The strongest claim before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim_before: Option<String>,
    /// The strongest claim after.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// The rule of `ci/policy.toml` that decided.
    pub rule: String,
    /// What was seen, in words.
    pub reason: String,
    /// Digest of the bundle that decided; where time alone did, of the one that got old.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// The run that decided; nothing where time alone did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<String>,
}

/// `diff`: a platform of a component on both sides.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Difference {
    /// What is compared.
    pub name: String,
    /// Its platform.
    pub platform: Platform,
    /// Better or worse.
    pub direction: Direction,
    /// Before; nothing if it was not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<Side>,
    /// After; nothing if it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Side>,
}

/// One side of a difference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Side {
    /// The cell.
    pub cell: String,
    /// Its state.
    pub state: State,
    /// The same for people.
    pub words: String,
    /// The strongest claim that is met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claim: Option<String>,
    /// Why.
    pub reason: String,
}

/// `claims`: a sentence or an annotation that says something of an architecture.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimFound {
    /// In which file.
    pub file: String,
    /// In which line, from 1.
    pub line: usize,
    /// The line.
    pub text: String,
    /// How it is said.
    pub kind: ClaimKind,
    /// Of which platform.
    pub platform: Platform,
    /// Of which components; of any if it is empty.
    pub components: Vec<String>,
    /// What it takes for that to be true: a claim of `ci/policy.toml`.
    pub requires: String,
    /// Whether there is evidence for it.
    pub shown: bool,
    /// Which, or why not.
    pub why: String,
    /// The cell that shows it, or comes nearest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cell: Option<String>,
}

/// How a claim is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClaimKind {
    /// The annotation `tekton.dev/platforms`.
    Annotation,
    /// Words.
    Prose,
}

/// `stale`: something that somebody should look at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Alarm {
    /// What kind.
    pub kind: AlarmKind,
    /// Which cell; nothing if it is about everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cell: Option<String>,
    /// On which platform.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub platform: Option<Platform>,
    /// Who answers for it.
    pub owners: Vec<String>,
    /// Since when, or when it will be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// In words.
    pub words: String,
}

/// Kinds of alarms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum AlarmKind {
    /// In a whole night nothing ran at all.
    Night,
    /// A platform has a schedule, and nothing was ever tried there.
    Never,
    /// From a cell nothing was learnt for longer than its rule allows.
    Silent,
    /// A claim is about to end.
    Expiring,
    /// A claim has ended by age.
    Expired,
}

/// `notices`: what changed since the last report, for each owner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Notices {
    /// `major.minor` of this schema: that of the matrix.
    pub schema_version: String,
    /// The moment of the last report; nothing the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// The moment of this one.
    pub until: Timestamp,
    /// One for each owner who has something to know.
    pub notices: Vec<Notice>,
}

/// What one owner should know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Notice {
    /// Who, with the share of runs that the infrastructure lost.
    #[serde(flatten)]
    pub owner: OwnerRow,
    /// What changed.
    pub changes: Vec<LogEntry>,
    /// What somebody should look at.
    pub alarms: Vec<Alarm>,
    /// What will change within a week by time alone.
    pub coming: Vec<Coming>,
}

/// A change that time brings.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Coming {
    /// Of which cell.
    pub cell: String,
    /// What.
    pub change: Change,
}

/// `onboard`: what a new architecture needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Onboarding {
    /// `major.minor` of this schema: that of the matrix.
    pub schema_version: String,
    /// Which.
    pub platform: Platform,
    /// Whether nothing is missing.
    pub ready: bool,
    /// One by one.
    pub needs: Vec<Need>,
}

/// One thing that a new architecture needs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Need {
    /// What.
    pub name: String,
    /// Whether it is there.
    pub met: bool,
    /// What is known of it.
    pub words: String,
    /// What to do about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_knows_nothing_has_lost_nothing() {
        let between =
            |claims: (u8, u8), states: (State, State)| Direction::between((&claims.0, states.0), (&claims.1, states.1));
        use State::{Built, Failing, Infrastructure, Installed, Stale, Unknown};
        for states in [(Failing, Unknown), (Stale, Unknown), (Unknown, Failing), (Built, Infrastructure)] {
            assert_eq!(between((1, 1), states), Direction::Change, "{states:?}");
            assert_eq!(between((1, 0), states), Direction::Demotion, "{states:?}");
        }
        assert_eq!(between((0, 0), (Failing, Stale)), Direction::Promotion);
        assert_eq!(between((0, 0), (Installed, Built)), Direction::Demotion);
        assert_eq!(between((0, 1), (Installed, Built)), Direction::Promotion);
    }
}
