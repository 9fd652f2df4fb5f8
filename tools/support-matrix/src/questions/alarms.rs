//! `stale`: what somebody should look at, before a claim is lost in silence.

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use kit::{Cause, Done, Output, Result, Ui};

use super::Input;
use crate::{
    cells::Rules,
    model::{Alarm, AlarmKind, Cell, Listing, Matrix, State},
    policy,
    text::{age, day, many, when},
};

/// Raises an alarm for nights in which nothing ran, platforms on which nothing ever did, cells of which nothing was learnt
/// for long, and claims that are about to end or have ended.
#[derive(Debug, Args)]
pub struct Stale {
    #[command(flatten)]
    input: Input,
}

pub(crate) fn stale(args: &Stale, ui: &Ui) -> Result<Done> {
    let opened = args.input.open(false, ui)?;
    let matrix = opened.matrix(ui)?;
    let found = alarms(&matrix, &opened.rules);
    let quiet = found.is_empty();
    match ui.output {
        Output::Json => ui.json(&Listing::new(found))?,
        Output::Text if quiet => ui.result("no alarm")?,
        Output::Text => {
            let line = |alarm: &Alarm| {
                let owners = if alarm.owners.is_empty() { "nobody".into() } else { alarm.owners.join(", ") };
                format!("{} [{owners}]\n", alarm.words)
            };
            ui.result(&found.iter().map(line).collect::<String>())?;
        }
    }
    Ok(if quiet { Done::good() } else { Done::found(Cause::PolicyRefused) })
}

/// Every alarm, the most general first.
pub(crate) fn alarms(matrix: &Matrix, rules: &Rules) -> Vec<Alarm> {
    let limits = rules.policy.alarms;
    let mut found: Vec<_> = night(matrix, limits.night).into_iter().collect();
    found.extend(never(matrix, rules));
    for cell in &matrix.cells {
        found.extend(silent(cell, matrix.as_of, limits.silent));
        found.extend(ended(cell));
        found.extend(ending(cell, matrix.as_of, limits.expiring));
    }
    found
}

/// Nothing ran at all.
fn night(matrix: &Matrix, hours: u32) -> Option<Alarm> {
    let mut owners: Vec<_> = matrix.owners.iter().map(|row| row.owner.clone()).collect();
    owners.retain(|owner| owner != "nobody");
    let words = match matrix.last_run {
        Some(last) if matrix.as_of.duration_since(last) > SignedDuration::from_hours(i64::from(hours)) => {
            format!("nothing ran at all for more than {hours} h: the last run ended on {}", when(last))
        }
        Some(_) => return None,
        None => "nothing ran at all, ever".into(),
    };
    Some(Alarm { kind: AlarmKind::Night, cell: None, platform: None, owners, at: matrix.last_run, words })
}

/// Platforms with a schedule on which nothing was ever tried: no cell of theirs can be missed.
fn never<'r>(matrix: &'r Matrix, rules: &'r Rules) -> impl Iterator<Item = Alarm> + 'r {
    let scheduled = rules.architectures.architecture.iter().filter(|architecture| architecture.schedule.is_some());
    scheduled.filter_map(|architecture| {
        let row = matrix.platforms.iter().find(|row| row.platform == architecture.platform && row.runs == 0)?;
        Some(Alarm {
            kind: AlarmKind::Never,
            cell: None,
            platform: Some(row.platform.clone()),
            owners: row.owned.owners.clone(),
            at: None,
            words: format!("{}: ci/architectures.toml has a schedule for it, and nothing ever ran there", row.platform),
        })
    })
}

/// A cell of which nothing was learnt for so many days: what the infrastructure lost taught nothing.
fn silent(cell: &Cell, now: Timestamp, days: u32) -> Option<Alarm> {
    // Of what is unknown for long, or tested in a newer version by now, nobody expects a run.
    let expected = cell.state != State::Unknown && !cell.beside.superseded;
    let last = cell.beside.learnt.filter(|last| expected && now > policy::after(*last, days))?;
    let many = many(days as usize, "day");
    let words = match cell.last_run {
        Some(tried) if tried > last => format!(
            "{}: nothing was learnt since {}, for more than {many}; the last try was {}",
            cell.id,
            day(last),
            age(tried, now)
        ),
        _ => format!("{}: no run for more than {many}, the last was {}", cell.id, age(last, now)),
    };
    Some(of_cell(AlarmKind::Silent, cell, last, words))
}

/// The strongest claim that has ended although nothing but age speaks against it, unless a stronger one is made.
fn ended(cell: &Cell) -> Option<Alarm> {
    let expected = cell.state != State::Unknown && !cell.beside.superseded;
    let claim = cell.claims.iter().rev().find(|claim| claim.met || claim.expired.is_some()).filter(|_| expected)?;
    let end = claim.expired?;
    let words = format!("{}: '{}' ended on {}", cell.id, claim.name, day(end));
    Some(of_cell(AlarmKind::Expired, cell, end, words))
}

/// The strongest claim that is made, if it is about to end.
fn ending(cell: &Cell, now: Timestamp, days: u32) -> Option<Alarm> {
    // What is said of a release is said in documents, whether there is a newer one or not.
    let unsaid = cell.state == State::Unknown || (cell.beside.superseded && cell.line == "main");
    let claim = cell.claims.iter().rev().find(|claim| claim.met).filter(|_| !unsaid)?;
    let until = claim.until.filter(|until| *until <= policy::after(now, days))?;
    let words = format!("{}: '{}' ends on {} if nothing new comes", cell.id, claim.name, day(until));
    Some(of_cell(AlarmKind::Expiring, cell, until, words))
}

fn of_cell(kind: AlarmKind, cell: &Cell, at: Timestamp, words: String) -> Alarm {
    Alarm {
        kind,
        cell: Some(cell.id.clone()),
        platform: Some(cell.platform.clone()),
        owners: cell.owned.owners.clone(),
        at: Some(at),
        words,
    }
}
