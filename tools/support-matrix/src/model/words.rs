//! Names and words of the model's enums.

use kit::record::Nature;

use super::{Cell, Evidence, Level, Levels, NodeRow, OriginKind, State, Verdict};
use crate::text::many;

impl Level {
    /// All, from weak to strong.
    pub const ALL: [Self; 7] =
        [Self::Index, Self::Contents, Self::Installs, Self::Unit, Self::E2e, Self::Examples, Self::Upgrade];

    /// The name in files and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Index => "index",
            Self::Contents => "contents",
            Self::Installs => "installs",
            Self::Unit => "unit",
            Self::E2e => "e2e",
            Self::Examples => "examples",
            Self::Upgrade => "upgrade",
        }
    }

    /// By the name in `ci/policy.toml` or of a kind of tests.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        if name == "install" {
            return Some(Self::Installs);
        }
        Self::ALL.into_iter().find(|level| level.name() == name)
    }

    /// Whether it needs a cluster, so that the nature of nodes matters.
    #[must_use]
    pub const fn runs(self) -> bool {
        !matches!(self, Self::Index | Self::Contents)
    }
}

impl Levels {
    /// One of them.
    #[must_use]
    pub const fn get(&self, level: Level) -> &Evidence {
        match level {
            Level::Index => &self.index,
            Level::Contents => &self.contents,
            Level::Installs => &self.installs,
            Level::Unit => &self.unit,
            Level::E2e => &self.e2e,
            Level::Examples => &self.examples,
            Level::Upgrade => &self.upgrade,
        }
    }
}

impl Cell {
    /// The bundles that must be what they say: what its levels rest on, and all that is needed for a yes.
    pub(crate) fn checked(&self) -> impl Iterator<Item = &str> {
        let levels = Level::ALL.into_iter().filter_map(|level| self.levels.get(level).evidence.as_deref());
        let compared = self.compared.iter().map(|compared| compared.evidence.as_str());
        let met = self.claims.iter().filter(|claim| claim.met);
        levels.chain(compared).chain(met.flat_map(|claim| claim.evidence.iter().map(String::as_str)))
    }
}

impl OriginKind {
    /// The name in records and files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::BuiltHere => "built-here",
            Self::Unknown => "unknown",
        }
    }

    /// For people.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Published => "published",
            Self::BuiltHere => "built here",
            Self::Unknown => "origin unknown",
        }
    }
}

impl State {
    /// The name in files.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Failing => "failing",
            Self::TestedNatively => "tested-natively",
            Self::Stale => "stale",
            Self::Infrastructure => "infrastructure",
            Self::TestedNotNatively => "tested-not-natively",
            Self::Installed => "installed",
            Self::Available => "available",
            Self::Built => "built",
            Self::Unknown => "unknown",
        }
    }

    /// How much is shown, to tell a promotion from a demotion.
    #[must_use]
    pub const fn worth(self) -> u8 {
        match self {
            Self::Failing => 0,
            Self::Unknown => 1,
            Self::Infrastructure => 2,
            Self::Stale => 3,
            Self::Built => 4,
            Self::Available => 5,
            Self::Installed => 6,
            Self::TestedNotNatively => 7,
            Self::TestedNatively => 8,
        }
    }

    /// Whether anything is known: who knows nothing has not lost anything.
    #[must_use]
    pub const fn is_known(self) -> bool {
        !matches!(self, Self::Unknown | Self::Infrastructure)
    }

    /// For people; `nature` is that of the nodes that tests ran on, if it is at hand.
    #[must_use]
    pub const fn words(self, nature: Option<Nature>) -> &'static str {
        match self {
            Self::Failing => "failing",
            Self::TestedNatively => "tested natively",
            Self::Stale => "stale",
            Self::Infrastructure => "infrastructure",
            Self::TestedNotNatively => match nature {
                Some(Nature::Emulated) => "tested, emulated",
                Some(_) => "tested, nodes of unknown nature",
                None => "tested, not natively",
            },
            Self::Installed => "installed, not tested",
            Self::Available => "available, not tested",
            Self::Built => "built and verified, not tested",
            Self::Unknown => "unknown",
        }
    }
}

impl Verdict {
    /// For people.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Shown => "shown",
            Self::Failed => "failed",
            Self::NotNative => "shown, not natively",
            Self::FailedNotNative => "failed, not natively",
            Self::Infrastructure => "infrastructure",
            Self::NotReached => "not reached",
            Self::NotTried => "not tried",
        }
    }
}

impl NodeRow {
    /// `2 emulated nodes, QEMU 8561, z15, 4 KiB pages`.
    #[must_use]
    pub fn words(&self) -> String {
        let page = self.page_size.map(|bytes| match bytes {
            1024.. => format!("{} KiB pages", bytes / 1024),
            bytes => format!("pages of {bytes} bytes"),
        });
        let parts = [
            Some(many(self.count, &format!("{} node", self.nature.name()))),
            self.model.clone(),
            self.processor.clone(),
            page,
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_calls_unknown_what_is_emulated() {
        let words = |nature| State::TestedNotNatively.words(nature);
        assert_eq!(words(None), "tested, not natively");
        assert_eq!(words(Some(Nature::Emulated)), "tested, emulated");
        assert_eq!(words(Some(Nature::Unknown)), "tested, nodes of unknown nature");
    }
}
