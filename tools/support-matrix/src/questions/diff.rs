//! `diff`: two versions, or two dates, side by side.

use std::collections::BTreeMap;

use clap::Args;
use jiff::Timestamp;
use kit::{Cause, Done, Error, Output, Platform, Result, Ui};

use super::{Input, Which, input::parse_date, worth};
use crate::model::{Cell, Difference, Direction, Listing, Matrix, Side};

/// Compares two versions, or two dates.
#[derive(Debug, Args)]
pub struct Diff {
    /// A date as 2026-11-01, or component@version
    before: Point,
    /// Another one of the same kind
    after: Point,
    /// Also what is the same on both sides
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    input: Input,
}

#[derive(Debug, Clone)]
enum Point {
    Date(Timestamp),
    Version(Which),
}

impl std::str::FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Ok(date) = parse_date(text) {
            return Ok(Self::Date(date));
        }
        let which: Which = text.parse().map_err(|error| format!("neither a date nor a version: {error}"))?;
        Ok(Self::Version(which))
    }
}

pub(crate) fn diff(args: &Diff, ui: &Ui) -> Result<Done> {
    let opened = args.input.open(false, ui)?;
    let mut found = match (&args.before, &args.after) {
        (Point::Date(before), Point::Date(after)) => {
            let (before, after) = (opened.matrix_at(*before)?, opened.matrix_at(*after)?);
            sides(&before.cells.iter().collect::<Vec<_>>(), &after.cells.iter().collect::<Vec<_>>(), &|cell| {
                cell.id.clone()
            })
        }
        (Point::Version(before), Point::Version(after)) => {
            let matrix = opened.matrix(ui)?;
            let cells = |which: &Which| known(which, &matrix);
            // The cluster's version may differ as well: what counts is what can be said at best.
            sides(&best(cells(before)?), &best(cells(after)?), &|cell| cell.platform.to_string())
        }
        _ => return Err(Error::new(Cause::Usage, "a date and a version cannot be compared: name two of one kind")),
    };
    opened.library.warn(ui);
    let lost = found.iter().any(|difference| difference.direction == Direction::Demotion);
    found.retain(|difference| args.all || !same(difference));
    match ui.output {
        Output::Json => ui.json(&Listing::new(found))?,
        Output::Text => ui.result(&words(&found))?,
    }
    Ok(if lost { Done::found(Cause::PolicyRefused) } else { Done::good() })
}

fn known<'m>(which: &Which, matrix: &'m Matrix) -> Result<Vec<&'m Cell>> {
    let cells = which.cells(matrix);
    if !cells.is_empty() {
        return Ok(cells);
    }
    let known: std::collections::BTreeSet<_> =
        matrix.cells.iter().map(|cell| format!("{}@{}", cell.component, cell.version)).collect();
    let known: Vec<_> = known.into_iter().collect();
    Err(Error::new(Cause::Usage, format!("no run says anything of {which}"))
        .next(format!("there is evidence of {}", crate::text::list(&known, 20))))
}

fn best(cells: Vec<&Cell>) -> Vec<&Cell> {
    let mut best: BTreeMap<&Platform, &Cell> = BTreeMap::new();
    for cell in cells {
        let known = best.entry(&cell.platform).or_insert(cell);
        if worth(cell) > worth(known) {
            *known = cell;
        }
    }
    best.into_values().collect()
}

fn sides(before: &[&Cell], after: &[&Cell], name: &dyn Fn(&Cell) -> String) -> Vec<Difference> {
    let mut both: BTreeMap<String, (Option<&Cell>, Option<&Cell>)> = BTreeMap::new();
    before.iter().for_each(|cell| both.entry(name(cell)).or_default().0 = Some(cell));
    after.iter().for_each(|cell| both.entry(name(cell)).or_default().1 = Some(cell));
    let mut found = Vec::new();
    for (name, (before, after)) in both {
        let Some(platform) = after.or(before).map(|cell| cell.platform.clone()) else { continue };
        let direction = match (before, after) {
            (Some(before), Some(after)) => {
                Direction::between((&worth(before).0, before.state), (&worth(after).0, after.state))
            }
            (None, _) => Direction::Promotion,
            (Some(_), None) => Direction::Demotion,
        };
        found.push(Difference { name, platform, direction, before: before.map(side), after: after.map(side) });
    }
    found
}

fn side(cell: &Cell) -> Side {
    Side {
        cell: cell.id.clone(),
        state: cell.state,
        words: cell.state_words.clone(),
        claim: cell.claim.clone(),
        reason: cell.reason.clone(),
    }
}

fn same(difference: &Difference) -> bool {
    match (&difference.before, &difference.after) {
        (Some(before), Some(after)) => (before.state, &before.claim) == (after.state, &after.claim),
        _ => false,
    }
}

fn words(found: &[Difference]) -> String {
    if found.is_empty() {
        return "no difference\n".into();
    }
    let mut text = String::new();
    for difference in found {
        let mark = match difference.direction {
            Direction::Promotion => '+',
            Direction::Demotion => '-',
            Direction::Change => ' ',
        };
        let side = |side: &Option<Side>| {
            side.as_ref().map_or_else(
                || "nothing".to_owned(),
                |side| format!("{} ({})", side.words, side.claim.as_deref().unwrap_or("no claim")),
            )
        };
        let (before, after) = (side(&difference.before), side(&difference.after));
        text.push_str(&format!("{mark} {}: {before} -> {after}\n", difference.name));
        if let Some(after) = difference.after.as_ref().filter(|_| !same(difference)) {
            text.push_str(&format!("    {}\n", after.reason));
        }
    }
    text
}
