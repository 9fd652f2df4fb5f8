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

use crate::model::{Cell, Matrix};

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
            let version = cells.iter().max_by_key(|cell| (seen(cell), &cell.version)).map(|cell| &cell.version);
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

/// Part of a cell's name, as people write it: platforms with a `/`.
pub(crate) fn cell_name(text: &str) -> String {
    text.replace("linux/", "linux-").replace("windows/", "windows-")
}

/// When something was last known of a cell.
fn seen(cell: &Cell) -> Option<jiff::Timestamp> {
    cell.runs.first().map(|run| run.finished)
}

/// How much may be said of a cell, to choose the best of several.
pub(crate) fn worth(cell: &Cell) -> (Option<usize>, u8) {
    (cell.claims.iter().rposition(|claim| claim.met), cell.state.worth())
}

#[cfg(test)]
mod tests {
    use super::*;

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
