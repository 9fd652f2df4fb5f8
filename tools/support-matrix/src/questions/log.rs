//! `log`: every promotion and demotion, with the rule and the evidence.

use std::cell::Cell;

use clap::Args;
use jiff::Timestamp;
use kit::{Cause, Done, Error, Output, Result, Ui};

use super::{Input, input::parse_date};
use crate::{
    cells,
    model::{Direction, Listing, LogEntry},
    text::{clean, short, when},
};

/// Lists every promotion and demotion, with the rule and the evidence.
#[derive(Debug, Args)]
pub struct Log {
    /// Only cells whose name contains this, as pipeline@v1.9.0 or linux/s390x [default: all]
    cell: Option<String>,
    /// Only what happened after this date
    #[arg(long, value_name = "DATE", value_parser = parse_date)]
    since: Option<Timestamp>,
    #[command(flatten)]
    input: Input,
}

pub(crate) fn log(args: &Log, ui: &Ui) -> Result<Done> {
    let opened = args.input.open(false, ui)?;
    let wanted = args.cell.as_deref().map(super::CellName::new);
    let known = Cell::new(false);
    let take = |entry: &cells::Entry<'_>| {
        let takes = wanted.as_ref().is_none_or(|wanted| wanted.takes(&entry.id(), &entry.key.platform));
        known.set(known.get() || takes);
        takes
    };
    let entries = cells::log(&opened.library, &opened.rules, &take, args.since)?;
    if let Some(unknown) = args.cell.as_deref().filter(|_| !known.get()) {
        let error = Error::new(Cause::Usage, format!("no cell's name contains '{}'", clean(unknown)));
        return Err(error.next("support-matrix render shows what is known"));
    }
    opened.library.warn(ui);
    match ui.output {
        Output::Json => ui.json(&Listing::new(entries))?,
        Output::Text if entries.is_empty() => ui.result("nothing changed")?,
        Output::Text => ui.result(&entries.iter().map(words).collect::<String>())?,
    }
    Ok(Done::good())
}

/// One entry as text.
pub(crate) fn words(entry: &LogEntry) -> String {
    let mark = match entry.direction {
        Direction::Promotion => '+',
        Direction::Demotion => '-',
        Direction::Change => ' ',
    };
    let from = entry.from.map_or("nothing", |state| state.words(None));
    let claim = |claim: &Option<String>| claim.clone().unwrap_or_else(|| "no claim".into());
    let by = match (&entry.run, &entry.evidence) {
        (Some(run), Some(digest)) => format!("run {run}, evidence {}", short(digest)),
        (None, Some(digest)) => format!("by time alone; evidence {}", short(digest)),
        _ => "by time alone".into(),
    };
    format!(
        "{mark} {} {}: {from} ({}) -> {} ({})\n    {}\n    rule: {}\n    {by}\n",
        when(entry.at),
        entry.cell,
        claim(&entry.claim_before),
        entry.to.words(None),
        claim(&entry.claim),
        entry.reason,
        entry.rule,
    )
}
