//! A history's runs: read, checked, and cut at the matrix's date.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kit::{
    Result, Ui,
    bundle::History,
    record::{Record, RunRecord},
};

use crate::{
    evidence::{self, Run},
    model::LeftOut,
    text::{clean, when},
};

/// What a history holds at a date.
#[derive(Default)]
pub(crate) struct Known {
    /// Runs, in the order in which they ended.
    pub(crate) runs: Vec<Run>,
    /// What is not counted.
    pub(crate) left_out: Vec<LeftOut>,
}

/// Reads every bundle; `thorough` also checks the files that no claim rests on.
///
/// # Errors
/// If the history cannot be read. What is wrong with one bundle only leaves that one out.
pub(crate) fn read(history: &History, as_of: Timestamp, thorough: bool, ui: &Ui) -> Result<Known> {
    let mut known = Known { runs: Vec::new(), left_out: Vec::new() };
    let bundles = history.bundles()?;
    let step = (bundles.len() > 200).then(|| ui.step(format!("reading {} runs", bundles.len())));
    let all = bundles.len();
    for (index, closed) in bundles.into_iter().enumerate() {
        kit::signal::check()?;
        let mut name = String::new();
        let run = closed.and_then(|closed| {
            name = closed.digest().to_owned();
            if thorough {
                closed.verify()?;
            }
            evidence::read(closed)
        });
        match run {
            Ok(run) if run.finished > as_of => {
                let fault = run.finished > Timestamp::now();
                let reason = format!("run {} ended on {}", clean(run.closed.run()), when(run.finished));
                let why = if fault { "which lies in the future" } else { "after this matrix's date" };
                known.left_out.push(LeftOut { bundle: name, reason: format!("{reason}, {why}"), fault });
            }
            Ok(run) => known.runs.push(run),
            Err(error) => {
                known.left_out.push(LeftOut { bundle: name, reason: clean(&error.summary()), fault: true });
            }
        }
        if let Some(step) = &step {
            step.set(format!("{index} of {all}"));
        }
    }
    if let Some(step) = step {
        step.done("");
    }
    known.supersede();
    Ok(known)
}

impl Known {
    /// Of a run that was recorded, went on, and was recorded again, the last recording counts.
    fn supersede(&mut self) {
        self.runs.sort_by_key(|run| (run.finished, run.closed.files().len(), run.closed.digest().to_owned()));
        let mut later: BTreeMap<String, Vec<Run>> = BTreeMap::new();
        // From the last to the first, so that each meets only what came after it.
        for run in std::mem::take(&mut self.runs).into_iter().rev() {
            let same = later.entry(run.closed.run().to_owned()).or_default();
            if !same.last().is_some_and(|after| went_on(&run, after)) {
                same.push(run);
            }
        }
        self.runs = later.into_values().flatten().collect();
        self.runs.sort_by_key(|run| (run.finished, run.closed.digest().to_owned()));
    }
}

/// Whether `after` is the same run, later. The name alone does not say so: a pipeline's workspace always has the same.
fn went_on(run: &Run, after: &Run) -> bool {
    let asked = |run: &Run| run.closed.file(RunRecord::FILE).map(|file| file.digest.clone());
    match (asked(run), asked(after)) {
        (Some(before), Some(after)) => before == after,
        (None, None) => {
            let mut records = run.closed.files().iter().filter(|file| file.path.ends_with(".json"));
            records.all(|file| after.closed.file(&file.path).is_some_and(|found| found.digest == file.digest))
        }
        _ => false,
    }
}
