//! How long each stage of a cleanup may take, and whose finalizers may go by force. Pure.

use std::{str::FromStr, time::Duration};

use kube::api::ApiResource;

/// The time of the stages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Budget {
    /// All of the stage `objects`: whatever is left then is taken by force, or needs a new cluster.
    pub objects: Duration,
    /// Within it, the longest wait for finalizers that somebody may still see to.
    pub finalizers: Duration,
    /// All of the stage `force`.
    pub force: Duration,
}

impl Default for Budget {
    fn default() -> Self {
        let [objects, finalizers, force] = [300, 60, 60].map(Duration::from_secs);
        Self { objects, finalizers, force }
    }
}

/// One `NAME=SECONDS` of the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    name: &'static str,
    limit: Duration,
}

impl FromStr for Part {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || "a budget is objects=SECONDS, finalizers=SECONDS or force=SECONDS, each from 1 to 86400".to_owned();
        let (name, seconds) = text.split_once('=').ok_or_else(wrong)?;
        let name = ["objects", "finalizers", "force"].into_iter().find(|known| *known == name).ok_or_else(wrong)?;
        let seconds = seconds.parse().ok().filter(|seconds| (1..=86_400).contains(seconds)).ok_or_else(wrong)?;
        Ok(Self { name, limit: Duration::from_secs(seconds) })
    }
}

impl Budget {
    /// The usual one with these parts; the last of a name counts.
    #[must_use]
    pub(crate) fn with(parts: &[Part]) -> Self {
        let mut budget = Self::default();
        for part in parts {
            match part.name {
                "objects" => budget.objects = part.limit,
                "finalizers" => budget.finalizers = part.limit,
                _ => budget.force = part.limit,
            }
        }
        budget
    }
}

/// Which kinds may lose their finalizers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Forced(String);

impl FromStr for Forced {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let name = text == "*" || text.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || c == '-');
        if text.is_empty() || !name {
            return Err(
                "name kinds as kubectl does: PipelineRun, pipelineruns, pipelineruns.tekton.dev; * for all".into()
            );
        }
        Ok(Self(text.into()))
    }
}

impl std::fmt::Display for Forced {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Forced {
    /// Whether it means this kind.
    #[must_use]
    pub(crate) fn means(&self, resource: &ApiResource) -> bool {
        let (name, group) = self.0.split_once('.').map_or((self.0.as_str(), None), |(name, group)| (name, Some(group)));
        let named = name.eq_ignore_ascii_case(&resource.kind) || name.eq_ignore_ascii_case(&resource.plural);
        self.0 == "*" || (named && group.is_none_or(|group| group == resource.group))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_are_named() {
        let parts: Vec<Part> =
            ["objects=10", "force=5", "objects=20"].iter().map(|text| text.parse().unwrap()).collect();
        let budget = Budget::with(&parts);
        assert_eq!([budget.objects, budget.finalizers, budget.force].map(|time| time.as_secs()), [20, 60, 5]);
        for wrong in ["", "10", "objects", "objects=", "objects=0", "objects=x", "other=5", "force=86401", "force=-1"] {
            assert!(wrong.parse::<Part>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn force_is_for_the_kinds_that_are_named() {
        let runs = ApiResource {
            group: "tekton.dev".into(),
            version: "v1".into(),
            api_version: "tekton.dev/v1".into(),
            kind: "PipelineRun".into(),
            plural: "pipelineruns".into(),
        };
        for (name, means) in [
            ("*", true),
            ("PipelineRun", true),
            ("pipelineruns", true),
            ("pipelineruns.tekton.dev", true),
            ("pipelineruns.example.com", false),
            ("TaskRun", false),
            ("tekton.dev", false),
        ] {
            assert_eq!(name.parse::<Forced>().unwrap().means(&runs), means, "{name}");
        }
        for wrong in ["", "a b", "a,b", "../x"] {
            assert!(wrong.parse::<Forced>().is_err(), "{wrong}");
        }
    }
}
