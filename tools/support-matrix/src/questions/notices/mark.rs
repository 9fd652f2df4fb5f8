//! What the last report knew: evidence that comes late changes what was before it, and nobody has said that yet.

use std::{collections::BTreeMap, path::Path};

use jiff::Timestamp;
use kit::{Cause, Error, Result, record::SCHEMA_VERSION, rundir};
use serde::{Deserialize, Serialize};

use crate::model::{Direction, LogEntry, State};

/// Bytes of the file.
const MAX_MARK: u64 = 64 << 20;

/// A report that was made.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Mark {
    schema_version: String,
    /// Until when it spoke.
    pub(super) until: Timestamp,
    /// What each cell was then, as it was known then; nothing if that was not written down.
    cells: Option<BTreeMap<String, Known>>,
}

/// What a cell was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    state: State,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    claim: Option<String>,
}

impl Known {
    fn after(entry: &LogEntry) -> Self {
        Self { state: entry.to, claim: entry.claim.clone() }
    }
}

/// The mark in a file.
///
/// # Errors
/// [`Cause::Usage`] if it is none.
pub(super) fn read(path: &Path) -> Result<Mark> {
    let bytes = rundir::read_limited(path, MAX_MARK)?;
    // A date alone is what earlier versions wrote.
    if let Ok(until) = String::from_utf8_lossy(&bytes).trim().parse() {
        return Ok(Mark { schema_version: SCHEMA_VERSION.into(), until, cells: None });
    }
    rundir::parse(&bytes, &path.display().to_string()).map_err(|error: Error| {
        let what = format!("{} remembers no report", path.display());
        Error::from_source(Cause::Usage, what, error).next("name another file with --mark, or remove it to begin anew")
    })
}

impl Mark {
    /// Of a report that spoke until then and knew this log, which is in the order of time.
    pub(super) fn of(log: &[LogEntry], until: Timestamp) -> Self {
        let cells = log.iter().map(|entry| (entry.cell.clone(), Known::after(entry))).collect();
        Self { schema_version: SCHEMA_VERSION.into(), until, cells: Some(cells) }
    }

    /// # Errors
    /// [`Cause::HostDisk`] if it cannot be written.
    pub(super) fn write(&self, path: &Path) -> Result<()> {
        rundir::write_json(path, self).map(drop)
    }

    /// What of the log, which is in the order of time, was not said yet: what happened since then, and where a cell was
    /// not what it was called, the change that nobody knew of, as a change from what it was called.
    pub(super) fn unsaid(&self, log: Vec<LogEntry>) -> Vec<LogEntry> {
        let (before, mut unsaid): (Vec<_>, Vec<_>) = log.into_iter().partition(|entry| entry.at <= self.until);
        let Some(said) = &self.cells else { return unsaid };
        let last: BTreeMap<_, _> = before.into_iter().map(|entry| (entry.cell.clone(), entry)).collect();
        let mut late: Vec<_> = last.into_values().filter_map(|entry| differs(said.get(&entry.cell), entry)).collect();
        late.sort_by(|a, b| (a.at, &a.cell).cmp(&(b.at, &b.cell)));
        late.append(&mut unsaid);
        late
    }
}

/// An entry as a change from what the cell was called, if it was called something else.
fn differs(said: Option<&Known>, entry: LogEntry) -> Option<LogEntry> {
    if said == Some(&Known::after(&entry)) {
        return None;
    }
    let from = said.map(|known| known.state);
    let claim_before = said.and_then(|known| known.claim.clone());
    let before = (&claim_before.is_some(), from.unwrap_or(State::Unknown));
    let direction = match Direction::between(before, (&entry.claim.is_some(), entry.to)) {
        // How claims follow each other is not known here: the change itself says it.
        Direction::Change if claim_before != entry.claim => entry.direction,
        direction => direction,
    };
    Some(LogEntry { direction, from, claim_before, ..entry })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at: &str, cell: &str, from: Option<State>, to: State) -> LogEntry {
        LogEntry {
            at: at.parse().unwrap(),
            cell: cell.into(),
            component: "p".into(),
            version: "v1".into(),
            platform: "linux/amd64".parse().unwrap(),
            owners: Vec::new(),
            direction: Direction::Change,
            from,
            to,
            claim_before: None,
            claim: None,
            rule: "r".into(),
            reason: "because".into(),
            evidence: None,
            run: None,
        }
    }

    #[test]
    fn what_came_late_is_said_once() {
        let good = entry("2026-01-10T01:00:00Z", "a", None, State::TestedNatively);
        let other = entry("2026-01-10T02:00:00Z", "b", None, State::Built);
        let mark = Mark::of(&[good.clone(), other.clone()], "2026-01-12T08:00:00Z".parse().unwrap());
        // At half past seven it failed; that came at nine.
        let late = entry("2026-01-12T07:30:00Z", "a", Some(State::TestedNatively), State::Failing);
        let new = entry("2026-01-12T09:00:00Z", "b", Some(State::Built), State::Installed);
        let unknown = entry("2026-01-11T00:00:00Z", "c", None, State::Built);
        let log = vec![good, other, unknown, late, new];
        let said: Vec<_> = mark.unsaid(log.clone()).iter().map(|entry| (entry.cell.clone(), entry.to)).collect();
        let expected = [("c", State::Built), ("a", State::Failing), ("b", State::Installed)];
        assert_eq!(said, expected.map(|(cell, state)| (cell.to_owned(), state)));
        assert_eq!(mark.unsaid(log.clone())[1].direction, Direction::Demotion);
        let again = Mark::of(&log, "2026-01-12T10:00:00Z".parse().unwrap());
        assert!(again.unsaid(log).is_empty());
    }

    #[test]
    fn a_date_alone_is_a_mark_too() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mark");
        let log = vec![entry("2026-01-10T01:00:00Z", "a", None, State::Built)];
        std::fs::write(&path, "2026-01-12T08:00:00Z\n").unwrap();
        assert!(read(&path).unwrap().unsaid(log.clone()).is_empty());
        Mark::of(&log, "2026-01-12T08:00:00Z".parse().unwrap()).write(&path).unwrap();
        assert!(read(&path).unwrap().unsaid(log).is_empty());
        for wrong in ["soon", "{}", "{\"schemaVersion\": \"9.0\"}"] {
            std::fs::write(&path, wrong).unwrap();
            assert_eq!(read(&path).map(drop).unwrap_err().cause, Cause::Usage, "{wrong}");
        }
    }
}
