//! Questions about the matrix. Each answers with text or JSON, and with an exit code that a pipeline can use.

mod alarms;
mod badge;
mod can;
mod claims;
mod diff;
mod input;
mod log;
mod mentions;
mod notices;
mod onboard;

pub(crate) use alarms::{alarms, stale};
pub(crate) use badge::badge;
pub(crate) use can::can;
pub(crate) use claims::claims;
pub(crate) use diff::diff;
pub(crate) use input::{Input, Opened, history_or_default};
pub(crate) use log::log;
pub(crate) use notices::notices;
pub(crate) use onboard::onboard;

pub use alarms::Stale;
pub use badge::Badge;
pub use can::Can;
pub use claims::Claims;
pub use diff::Diff;
pub use log::Log;
pub use notices::NoticesArgs;
pub use onboard::Onboard;

use std::collections::BTreeSet;

use kit::Platform;

use crate::model::{Cell, Matrix, OriginKind};

/// `component` and, after `@`, a version or a line of development.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Which {
    pub(crate) component: String,
    pub(crate) version: Option<String>,
}

impl std::str::FromStr for Which {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (component, version) = match text.split_once('@') {
            Some((component, version)) => (component, Some(version)),
            None => (text, None),
        };
        if component.is_empty() || version.is_some_and(str::is_empty) || text.contains('/') {
            return Err("write a component, or component@version as in pipeline@v1.9.0 or pipeline@main".into());
        }
        Ok(Self { component: component.into(), version: version.map(Into::into) })
    }
}

impl Which {
    /// The cells that are meant: of the version that was named, or of the newest one of the line or of all.
    pub(crate) fn cells<'m>(&self, matrix: &'m Matrix) -> Vec<&'m Cell> {
        let of_component = || matrix.cells.iter().filter(|cell| cell.component == self.component);
        let newest = |cells: Vec<&'m Cell>| -> Vec<&'m Cell> {
            let version = cells.iter().max_by_key(|cell| (cell.beside.seen, &cell.version)).map(|cell| &cell.version);
            cells.iter().copied().filter(|cell| Some(&cell.version) == version).collect()
        };
        let Some(wanted) = &self.version else { return newest(of_component().collect()) };
        let exact: Vec<_> = of_component().filter(|cell| cell.version == *wanted).collect();
        if !exact.is_empty() {
            return exact;
        }
        // 'devel' has a commit with it, and is a new version each time.
        let said = |cell: &&Cell| cell.version.rsplit_once('@').is_some_and(|(said, _)| said == wanted);
        if of_component().any(|cell| said(&cell)) {
            return newest(of_component().filter(said).collect());
        }
        newest(of_component().filter(|cell| cell.line == *wanted).collect())
    }
}

impl std::fmt::Display for Which {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.version {
            Some(version) => write!(f, "{}@{version}", self.component),
            None => write!(f, "{}", self.component),
        }
    }
}

/// Part of a cell's name, as people write it. A platform in it is one, in whichever of its spellings, and not the
/// beginning of another: `linux/arm` is linux/arm/v7, and not linux/arm64.
pub(crate) struct CellName {
    platform: Option<Platform>,
    /// As it stands in cells' names.
    text: String,
    /// Whether a whole part begins and ends with it.
    begins: bool,
    ends: bool,
}

impl CellName {
    pub(crate) fn new(text: &str) -> Self {
        let parts: Vec<&str> = text.split('/').collect();
        for start in 0..parts.len() {
            // The longest that is one: `linux/arm/v7`, `linux/s390x`, `linux-s390x`.
            for end in (start + 1..=parts.len().min(start + 3)).rev() {
                let Some(platform) = platform(&parts[start..end]) else { continue };
                let dir = platform.dir();
                let all = [&parts[..start], &[dir.as_str()], &parts[end..]].concat().join("/");
                let (begins, ends) = (start == 0, end == parts.len());
                return Self { platform: Some(platform), text: all, begins, ends };
            }
        }
        Self { platform: None, text: text.to_owned(), begins: false, ends: false }
    }

    /// Whether it is part of the name `id` of a cell on `platform`.
    pub(crate) fn takes(&self, id: &str, platform: &Platform) -> bool {
        let whole = |(at, _): (usize, &str)| {
            let (before, after) = (&id[..at], &id[at + self.text.len()..]);
            (!self.begins || before.is_empty() || before.ends_with('/'))
                && (!self.ends || after.is_empty() || after.starts_with('/'))
        };
        self.platform.as_ref().is_none_or(|wanted| wanted == platform) && id.match_indices(&self.text).any(whole)
    }
}

/// The platform that these parts of a name are.
fn platform(parts: &[&str]) -> Option<Platform> {
    let text = match parts {
        // As the folder and the cell's name write it.
        [one] => one.replace('-', "/"),
        [_, arch, version] if version.contains('.') || arch.contains('-') => return None,
        several => several.join("/"),
    };
    text.parse().ok()
}

/// Leaves the cells of that origin. Without one, what we built speaks for itself only: where somebody looked at the
/// release that the project published, on that platform, that is what is asked about.
pub(crate) fn of_origin(cells: &mut Vec<&Cell>, origin: Option<OriginKind>) {
    let published: BTreeSet<_> = cells
        .iter()
        .filter(|cell| cell.origin.kind == OriginKind::Published)
        .map(|cell| (cell.component.clone(), cell.version.clone(), cell.platform.clone()))
        .collect();
    cells.retain(|cell| match origin {
        Some(wanted) => cell.origin.kind == wanted,
        None => {
            cell.origin.kind == OriginKind::Published
                || !published.contains(&(cell.component.clone(), cell.version.clone(), cell.platform.clone()))
        }
    });
}

/// `published`, `built-here` or `unknown`.
pub(crate) fn parse_origin(text: &str) -> Result<OriginKind, String> {
    let all = [OriginKind::Published, OriginKind::BuiltHere, OriginKind::Unknown];
    all.into_iter().find(|kind| kind.name() == text).ok_or_else(|| "published, built-here or unknown".into())
}

/// How much may be said of a cell, to choose the best of several.
pub(crate) fn worth(cell: &Cell) -> (Option<usize>, u8) {
    (cell.claims.iter().rposition(|claim| claim.met), cell.state.worth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_platform_in_a_cell_s_name_is_that_platform() {
        let takes = |text: &str, on: &str| {
            let platform: Platform = on.parse().unwrap();
            let id = format!("pipeline@v1.9.0/{}/v1.37.2/built-here", platform.dir());
            CellName::new(text).takes(&id, &platform)
        };
        for (text, on) in [
            ("pipeline@v1.9.0/linux/arm/v7", "linux/arm"),
            ("pipeline@v1.9.0/linux/arm", "linux/arm/v7"),
            ("linux/arm", "linux/arm/v7"),
            ("linux-arm-v7", "linux/arm/v7"),
            ("linux-arm", "linux/arm/v7"),
            ("linux/aarch64", "linux/arm64"),
            ("linux/arm64/v8", "linux/arm64"),
            ("v1.9.0/linux/s390x/v1.37", "linux/s390x"),
            ("pipeline@v1.9.0/linux-s390x/v1.37.2/built-here", "linux/s390x"),
            ("pipeline@v1", "linux/s390x"),
            ("s390", "linux/s390x"),
            ("", "linux/s390x"),
        ] {
            assert!(takes(text, on), "{text} {on}");
        }
        for (text, on) in [
            ("pipeline@v1.9.0/linux/arm", "linux/arm64"),
            ("linux-arm", "linux/arm64"),
            ("linux/arm/v6", "linux/arm/v7"),
            ("linux/amd64", "linux/s390x"),
            ("triggers@v1.9.0/linux/s390x", "linux/s390x"),
            ("v1.9.0/linux/s390x/v1.36", "linux/s390x"),
        ] {
            assert!(!takes(text, on), "{text} {on}");
        }
    }

    #[test]
    fn a_component_and_its_version() {
        let which = |text: &str| text.parse::<Which>();
        assert_eq!(which("pipeline@v1.9.0").unwrap().version.as_deref(), Some("v1.9.0"));
        assert_eq!(which("pipeline").unwrap().version, None);
        for wrong in ["", "@v1", "pipeline@", "pipeline@v1/linux/arm64"] {
            assert!(which(wrong).is_err(), "{wrong}");
        }
    }
}
