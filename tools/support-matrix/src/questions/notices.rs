//! `notices`: what changed since the last report, for each owner, ready to be sent.

mod mark;

use std::path::PathBuf;

use clap::Args;
use jiff::Timestamp;
use kit::{Cause, Done, Error, Output, Result, Ui};

use super::{Input, alarms, input::parse_date};
use crate::{
    cells,
    model::{Alarm, Coming, Direction, LogEntry, Matrix, Notice, Notices, OwnerRow, SCHEMA_VERSION},
    policy,
    render::escape_markdown as escape,
    text::{day, short, when},
};

/// Days ahead in which a change by time alone is announced.
const AHEAD: u32 = 7;

/// Says what changed since the last report, for each owner, as Markdown or JSON.
#[derive(Debug, Args)]
pub struct NoticesArgs {
    /// Since this date
    #[arg(long, value_name = "DATE", value_parser = parse_date, conflicts_with = "mark")]
    since: Option<Timestamp>,
    /// Since the report that this file remembers, also what came late; this report is written into it when it is out
    #[arg(long, value_name = "FILE")]
    mark: Option<PathBuf>,
    /// For this owner only
    #[arg(long, conflicts_with = "mark")]
    owner: Option<String>,
    #[command(flatten)]
    input: Input,
}

pub(crate) fn notices(args: &NoticesArgs, ui: &Ui) -> Result<Done> {
    let marked = args.mark.as_deref().filter(|path| path.exists()).map(mark::read).transpose()?;
    let since = marked.as_ref().map_or(args.since, |marked| Some(marked.until));
    let opened = args.input.open(false, ui)?;
    let matrix = opened.matrix(ui)?;
    if let Some(since) = since.filter(|since| *since > matrix.as_of) {
        let what = format!("the last report is of {}, after this one", when(since));
        return Err(Error::new(Cause::Usage, what).next("name another file with --mark, or a later --as-of"));
    }
    let all = cells::log(&opened.library, &opened.rules, &|_| true, None)?;
    let new = mark::Mark::of(&all, matrix.as_of);
    let changes = match &marked {
        Some(marked) => marked.unsaid(all),
        None => all.into_iter().filter(|entry| since.is_none_or(|since| entry.at > since)).collect(),
    };
    let alarms = alarms(&matrix, &opened.rules);
    let mut report = Notices { schema_version: SCHEMA_VERSION.into(), since, until: matrix.as_of, notices: Vec::new() };
    for row in &matrix.owners {
        let notice = notice(row, &matrix, &changes, &alarms);
        let silent = notice.changes.is_empty() && notice.alarms.is_empty() && notice.coming.is_empty();
        if !silent && args.owner.as_ref().is_none_or(|owner| *owner == row.owner) {
            report.notices.push(notice);
        }
    }
    match ui.output {
        Output::Json => ui.json(&report)?,
        Output::Text => ui.result(&markdown(&report))?,
    }
    if let Some(path) = &args.mark {
        new.write(path)?;
    }
    Ok(Done::good())
}

fn notice(row: &OwnerRow, matrix: &Matrix, changes: &[LogEntry], alarms: &[Alarm]) -> Notice {
    let soon = policy::after(matrix.as_of, AHEAD);
    let mine = |platform: &kit::Platform| row.platforms.contains(platform);
    let coming = matrix.cells.iter().filter(|cell| mine(&cell.platform)).filter_map(|cell| {
        let change = cell.changes.clone().filter(|change| change.at <= soon)?;
        Some(Coming { cell: cell.id.clone(), change })
    });
    let about = |alarm: &&Alarm| alarm.platform.as_ref().is_none_or(mine);
    Notice {
        owner: row.clone(),
        changes: changes.iter().filter(|entry| mine(&entry.platform)).cloned().collect(),
        alarms: alarms.iter().filter(about).cloned().collect(),
        coming: coming.collect(),
    }
}

fn markdown(report: &Notices) -> String {
    let since = report.since.map_or_else(|| "the beginning".into(), when);
    let mut text = format!("# Support matrix: what changed from {since} to {}\n", when(report.until));
    if report.notices.is_empty() {
        text.push_str("\nNothing.\n");
    }
    for notice in &report.notices {
        let platforms: Vec<_> = notice.owner.platforms.iter().map(ToString::to_string).collect();
        text.push_str(&format!("\n## {} ({})\n\n", escape(&notice.owner.owner), escape(&platforms.join(", "))));
        if notice.owner.runs > 0 {
            let share = notice.owner.share * 100.0;
            text.push_str(&format!(
                "{} of {} runs were lost to the infrastructure ({share:.1} %).\n\n",
                notice.owner.lost, notice.owner.runs
            ));
        }
        for alarm in &notice.alarms {
            text.push_str(&format!("- **Alarm**: {}\n", escape(&alarm.words)));
        }
        for entry in &notice.changes {
            text.push_str(&change(entry));
        }
        for coming in &notice.coming {
            text.push_str(&format!(
                "- **Coming** on {}: {} will be {}: {}\n",
                day(coming.change.at),
                escape(&coming.cell),
                escape(&coming.change.words),
                escape(&coming.change.why)
            ));
        }
    }
    text
}

fn change(entry: &LogEntry) -> String {
    let word = match entry.direction {
        Direction::Promotion => "Promoted",
        Direction::Demotion => "Demoted",
        Direction::Change => "Changed",
    };
    let from = entry.from.map_or("nothing", |state| state.words(None));
    let evidence = entry.evidence.as_deref().map_or_else(String::new, |digest| format!(" Evidence {}.", short(digest)));
    format!(
        "- **{word}** on {}: {} from {from} to {}: {}. Rule: {}.{evidence}\n",
        day(entry.at),
        escape(&entry.cell),
        entry.to.words(None),
        escape(&entry.reason),
        escape(&entry.rule)
    )
}
