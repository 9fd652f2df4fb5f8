//! `stale`: what somebody should look at, before a claim is lost in silence.

use clap::Args;
use jiff::SignedDuration;
use kit::{Cause, Done, Output, Result, Ui, ci};

use super::Input;
use crate::{
    model::{Alarm, AlarmKind, Matrix, State},
    policy,
    text::{age, day, many, when},
};

/// Raises an alarm for cells without a run, nights in which nothing ran, and claims that are about to end.
#[derive(Debug, Args)]
pub struct Stale {
    #[command(flatten)]
    input: Input,
}

pub(crate) fn stale(args: &Stale, ui: &Ui) -> Result<Done> {
    let opened = args.input.open(false, ui)?;
    let matrix = opened.matrix(ui)?;
    let found = alarms(&matrix, &opened.rules.policy);
    match ui.output {
        Output::Json => ui.json(&found)?,
        Output::Text if found.is_empty() => ui.result("no alarm")?,
        Output::Text => {
            let line = |alarm: &Alarm| {
                let owners = if alarm.owners.is_empty() { "nobody".into() } else { alarm.owners.join(", ") };
                format!("{} [{owners}]\n", alarm.words)
            };
            ui.result(&found.iter().map(line).collect::<String>())?;
        }
    }
    Ok(if found.is_empty() { Done::good() } else { Done::found(Cause::PolicyRefused) })
}

/// Every alarm, the most general first.
pub(crate) fn alarms(matrix: &Matrix, rules: &ci::Policy) -> Vec<Alarm> {
    let now = matrix.as_of;
    let limits = rules.alarms;
    let mut found = Vec::new();
    let night = SignedDuration::from_hours(i64::from(limits.night));
    let everybody = || {
        let mut owners: Vec<_> = matrix.owners.iter().map(|row| row.owner.clone()).collect();
        owners.retain(|owner| owner != "nobody");
        owners
    };
    match matrix.last_run {
        Some(last) if now.duration_since(last) > night => found.push(Alarm {
            kind: AlarmKind::Night,
            cell: None,
            platform: None,
            owners: everybody(),
            at: Some(last),
            words: format!("nothing ran at all for more than {} h: the last run ended on {}", limits.night, when(last)),
        }),
        Some(_) => {}
        None => found.push(Alarm {
            kind: AlarmKind::Night,
            cell: None,
            platform: None,
            owners: everybody(),
            at: None,
            words: "nothing ran at all, ever".into(),
        }),
    }
    for cell in &matrix.cells {
        let alarm = |kind, at, words| Alarm {
            kind,
            cell: Some(cell.id.clone()),
            platform: Some(cell.platform.clone()),
            owners: cell.owned.owners.clone(),
            at: Some(at),
            words,
        };
        // Of what is unknown for long, or tested in a newer version by now, nobody expects a run. What is said of a
        // release is said in documents, whether there is a newer one or not.
        let (unknown, superseded) = (cell.state == State::Unknown, cell.beside.superseded);
        let (unexpected, unsaid) = (unknown || superseded, unknown || (superseded && cell.line == "main"));
        if let Some(last) = cell.last_run
            && !unexpected
            && now > policy::after(last, limits.silent)
        {
            let words = format!(
                "{}: no run for more than {}, the last was {}",
                cell.id,
                many(limits.silent as usize, "day"),
                age(last, now)
            );
            found.push(alarm(AlarmKind::Silent, last, words));
        }
        let strongest = cell.claims.iter().rev().find(|claim| claim.met);
        if let Some((claim, until)) = strongest.and_then(|claim| Some((claim, claim.until?)))
            && !unsaid
            && until <= policy::after(now, limits.expiring)
        {
            let words = format!("{}: '{}' ends on {} if nothing new comes", cell.id, claim.name, day(until));
            found.push(alarm(AlarmKind::Expiring, until, words));
        }
    }
    found
}
