//! A history's runs: read, checked, and cut at the matrix's date.

use std::collections::BTreeMap;

use jiff::Timestamp;
use kit::{Result, Ui, bundle::History};

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
        let last: BTreeMap<_, _> = self.runs.iter().enumerate().map(|(index, run)| (run.identity(), index)).collect();
        let mut index = 0;
        self.runs.retain(|run| {
            index += 1;
            last.get(&run.identity()) == Some(&(index - 1))
        });
    }
}
