//! The matrix as people and programs want it. Everything here only shows what stands in the model.

mod badge;
mod html;
mod json;
mod markdown;
mod terminal;

use std::collections::BTreeMap;

use jiff::Timestamp;

pub(crate) use badge::badge;
pub(crate) use html::{MACROS, STYLE, anchor, environment, html};
pub(crate) use json::Listed;
pub(crate) use markdown::{escape as escape_markdown, markdown};
pub(crate) use terminal::{terminal, why};

use crate::{
    model::{Cell, Matrix, NodeRow},
    text::{day, list, many, short, when},
};

/// Cells that share component, version and origin: one table each, but for older versions.
fn groups(matrix: &Matrix) -> Vec<&[Cell]> {
    matrix.cells.chunk_by(|a, b| title(a) == title(b)).filter(|cells| !cells[0].beside.older).collect()
}

/// Versions that have no table, newest first, a line for each component and origin.
fn older(matrix: &Matrix) -> Vec<String> {
    let mut all: BTreeMap<(&str, &str), BTreeMap<&str, Option<Timestamp>>> = BTreeMap::new();
    for cell in matrix.cells.iter().filter(|cell| cell.beside.older) {
        let versions = all.entry((cell.component.as_str(), cell.origin.kind.words())).or_default();
        let seen = versions.entry(cell.version.as_str()).or_default();
        *seen = (*seen).max(cell.beside.seen);
    }
    let line = |((component, origin), versions): ((&str, &str), BTreeMap<&str, Option<Timestamp>>)| {
        let mut versions: Vec<_> = versions.into_iter().collect();
        versions.sort_by_key(|(version, seen)| std::cmp::Reverse((*seen, *version)));
        let names: Vec<_> = versions.into_iter().map(|(version, _)| version).collect();
        format!("{component}, {origin}: {}", list(&names, 10))
    };
    all.into_iter().map(line).collect()
}

/// Why those have none.
pub(crate) const OLDER: &str = "newer ones have taken their place, or nothing is known of them any more";

/// `pipeline v1.9.0, built here`.
fn title(cell: &Cell) -> String {
    format!("{} {}, {}", cell.component, cell.version, cell.origin.kind.words())
}

/// What the matrix rests on, in a sentence.
pub(crate) fn basis(matrix: &Matrix) -> String {
    let left_out = match matrix.left_out.len() {
        0 => String::new(),
        count => format!("; {count} left out"),
    };
    let later = match matrix.later {
        0 => String::new(),
        1 => "; a later one does not count".into(),
        count => format!("; {count} later ones do not count"),
    };
    format!("as of {}, from {}{later}{left_out}", when(matrix.as_of), many(matrix.runs, "run"))
}

/// `smoke, 2026-11-23`, or that there was none.
pub(crate) fn last_test(cell: &Cell) -> String {
    match (cell.tested.at, &cell.tested.suite) {
        (Some(at), Some(suite)) => format!("{suite}, {}", day(at)),
        (Some(at), None) => day(at),
        (None, _) => cell.tested.words.clone(),
    }
}

/// `built, verified; owned by nobody`: the axes beside that of tests.
fn axes(cell: &Cell) -> String {
    let at = cell.available.at.map_or_else(String::new, |at| format!(" on {}", day(at)));
    let owners = if cell.owned.owners.is_empty() { "nobody".to_owned() } else { cell.owned.owners.join(", ") };
    format!("{}{at}; owned by {owners}", cell.available.words)
}

/// What `say` says of cells, each once, with the platforms that share it.
fn shared(cells: &[Cell], say: fn(&Cell) -> String) -> Vec<(String, String)> {
    let mut found: Vec<(String, String)> = Vec::new();
    for cell in cells {
        let said = say(cell);
        match found.iter_mut().find(|(_, other)| *other == said) {
            Some((platforms, _)) => *platforms = format!("{platforms}, {}", cell.platform),
            None => found.push((cell.platform.to_string(), said)),
        }
    }
    found
}

/// Why a cell is what it is.
fn reason(cell: &Cell) -> String {
    let claim = if cell.supported.met {
        "Supported".to_owned()
    } else {
        format!("Not supported: {}", cell.supported.reasons.join("; "))
    };
    let evidence = [&cell.tested.evidence, &cell.available.evidence].into_iter().flatten().next();
    let evidence = evidence.map_or_else(String::new, |digest| format!(" Evidence: {}.", short(digest)));
    let nodes: Vec<_> = cell.nodes.iter().filter(|node| node.model.is_some()).map(NodeRow::words).collect();
    let nodes = if nodes.is_empty() { String::new() } else { format!(" Ran on {}.", nodes.join("; ")) };
    let until = cell.changes.as_ref().map_or_else(String::new, |change| {
        format!(" If nothing new comes: {} after {}.", change.words, day(change.at))
    });
    format!("{}.{nodes} {claim}.{until}{evidence}", cell.reason)
}

/// Who lost how many runs to the infrastructure, in lines: platforms, then owners of several.
fn infrastructure(matrix: &Matrix) -> Vec<String> {
    let line = |who: String, runs: usize, lost: usize, share: f64| {
        format!("{who}: {lost} of {} lost to the infrastructure ({:.1} %)", many(runs, "run"), share * 100.0)
    };
    let platforms = matrix.platforms.iter().filter(|row| row.runs > 0).map(|row| {
        let owners = if row.owned.owners.is_empty() { "nobody's".into() } else { row.owned.owners.join(", ") };
        line(format!("{} ({owners})", row.platform), row.runs, row.lost, row.share)
    });
    let owners = matrix.owners.iter().filter(|row| row.runs > 0 && row.platforms.len() > 1);
    let owners = owners.map(|row| line(format!("all of {}", row.owner), row.runs, row.lost, row.share));
    platforms.chain(owners).collect()
}
