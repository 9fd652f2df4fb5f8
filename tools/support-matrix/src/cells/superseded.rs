//! Versions whose place a newer one has taken: nobody waits for their next run, and the matrix folds them away.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::line;
use crate::model::{Cell, State};

/// Marks cells that a newer version of the same line, tried there since, has superseded, and versions of which only
/// such cells are left, or unknown ones. The newest version of a component always stays.
pub(super) fn mark(cells: &mut [Cell]) {
    let mut streams: BTreeMap<_, Vec<(Order, usize)>> = BTreeMap::new();
    for (index, cell) in cells.iter().enumerate() {
        let (stream, order) = place(cell);
        let key = (cell.component.clone(), stream, cell.platform.clone(), cell.origin.kind);
        streams.entry(key).or_default().push((order, index));
    }
    for mut stream in streams.into_values() {
        stream.sort_by(|a, b| b.0.cmp(&a.0));
        // From the newest on: when newer ones were last tried, on each line of Kubernetes and anywhere.
        let mut tried: BTreeMap<Option<String>, Timestamp> = BTreeMap::new();
        let mut seen: Option<Timestamp> = None;
        for (_, index) in stream {
            let cell = &mut cells[index];
            let kubernetes = cell.kubernetes.as_deref().map(minor);
            cell.beside.superseded = match (&kubernetes, cell.last_run) {
                (Some(_), Some(last)) => tried.get(&kubernetes).is_some_and(|newer| *newer > last),
                _ => seen.is_some() && seen > cell.beside.seen,
            };
            if let Some(last) = cell.last_run {
                let newest = tried.entry(kubernetes).or_insert(last);
                *newest = last.max(*newest);
            }
            seen = seen.max(cell.beside.seen);
        }
    }
    fold(cells);
}

fn fold(cells: &mut [Cell]) {
    let mut versions: BTreeMap<_, BTreeMap<String, (bool, Option<Timestamp>)>> = BTreeMap::new();
    for cell in cells.iter() {
        let of_component = versions.entry((cell.component.clone(), cell.origin.kind)).or_default();
        let (old, seen) = of_component.entry(cell.version.clone()).or_insert((true, None));
        *old &= cell.beside.superseded || cell.state == State::Unknown;
        *seen = (*seen).max(cell.beside.seen);
    }
    for of_component in versions.values_mut() {
        if let Some((_, (old, _))) = of_component.iter_mut().max_by_key(|(_, (_, seen))| *seen) {
            *old = false;
        }
    }
    for cell in cells {
        let of_component = versions.get(&(cell.component.clone(), cell.origin.kind));
        cell.beside.older = of_component.and_then(|all| all.get(&cell.version)).is_some_and(|(old, _)| *old);
    }
}

/// How versions of one line come one after the other.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// By their numbers.
    Release(Version),
    /// By the time that stands in them.
    Stamp(String),
    /// By the day on which they were first heard of.
    Seen(Option<Timestamp>),
    /// It is always the same one.
    Same,
}

/// Version, then that of Kubernetes.
type Order = (Rank, Version);

/// As versions are compared: by their numbers, a candidate before its release.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Version {
    numbers: Vec<u64>,
    whole: bool,
    rest: Vec<Part>,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Word(String),
    Number(u64),
}

impl Version {
    fn of(text: &str) -> Self {
        let text = text.strip_prefix('v').unwrap_or(text);
        let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
        let (numbers, rest) = text.split_at(end);
        let part = |part: &str| part.parse().map_or_else(|_| Part::Word(part.to_owned()), Part::Number);
        Self {
            numbers: numbers.split('.').map(|number| number.parse().unwrap_or_default()).collect(),
            whole: rest.is_empty() || rest.starts_with('+'),
            rest: rest.split(['.', '-', '+']).filter(|rest| !rest.is_empty()).map(part).collect(),
        }
    }
}

/// The line of versions that a version belongs to: releases by their minor version, commits of one kind; any other word
/// is a line of its own.
pub(super) fn stream(version: &str) -> String {
    match line(version) {
        release if release != "main" => release,
        _ if stamp(version).is_some() => "commits by their time".to_owned(),
        _ => match version.rsplit_once('@').filter(|(_, commit)| is_commit(commit)) {
            Some((name, _)) => format!("{name}@"),
            None if is_commit(version) => "commits".to_owned(),
            None => version.to_owned(),
        },
    }
}

/// The line of versions that a cell's belongs to, and its place there. What is no release has no numbers to go by:
/// only commits of one kind come one after the other, and a word is always the same one.
fn place(cell: &Cell) -> (String, Order) {
    let version = cell.version.as_str();
    let stream = stream(version);
    let rank = if cell.line != "main" {
        Rank::Release(Version::of(version))
    } else if let Some(stamp) = stamp(version) {
        Rank::Stamp(stamp.to_owned())
    } else if stream != version {
        Rank::Seen(cell.beside.first_seen)
    } else {
        Rank::Same
    };
    (stream, (rank, Version::of(cell.kubernetes.as_deref().unwrap_or_default())))
}

/// The time in `v0.0.0-20261123101010-0123456789ab`, as Go calls a commit that is no release.
fn stamp(version: &str) -> Option<&str> {
    let (rest, commit) = version.rsplit_once('-')?;
    let stamp = rest.rsplit(['-', '.']).next()?;
    (is_commit(commit) && stamp.len() == 14 && stamp.bytes().all(|b| b.is_ascii_digit())).then_some(stamp)
}

fn is_commit(text: &str) -> bool {
    (7..=64).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// `1.37` of v1.37.2: clusters are brought from one patch to the next, and are the same clusters.
pub(super) fn minor(version: &str) -> String {
    let numbers = Version::of(version).numbers;
    numbers.iter().take(2).map(ToString::to_string).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_one_after_the_other() {
        let order = ["v1.9.0-rc.1", "v1.9.0-rc.2", "v1.9.0-rc.10", "v1.9.0", "v1.9.2", "v1.9.10", "v1.10.0"];
        for pair in order.windows(2) {
            assert!(Version::of(pair[0]) < Version::of(pair[1]), "{pair:?}");
        }
        assert_eq!((minor("v1.37.2+k3s1"), minor("v1.36.4-gke.100")), ("1.37".into(), "1.36".into()));
    }

    #[test]
    fn commits_of_one_kind_are_one_line() {
        for (version, expected) in [
            ("v1.9.3", "v1.9"),
            ("v1.9.0-rc.1", "v1.9"),
            ("devel@0123456789ab", "devel@"),
            ("v0.0.0-20261123101010-0123456789ab", "commits by their time"),
            ("0123456", "commits"),
            ("some-branch", "some-branch"),
        ] {
            assert_eq!(stream(version), expected, "{version}");
        }
    }

    #[test]
    fn a_commit_s_time_is_found() {
        assert_eq!(stamp("v0.0.0-20261123101010-0123456789ab"), Some("20261123101010"));
        assert_eq!(stamp("v1.9.1-0.20261123101010-0123456789ab"), Some("20261123101010"));
        assert_eq!(stamp("v1.9.0-rc.1"), None);
        assert!(is_commit("0123456789ab") && !is_commit("devel") && !is_commit("v1.9.0"));
    }
}
