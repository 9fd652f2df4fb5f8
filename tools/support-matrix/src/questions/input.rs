//! What every question is answered from: a history, its index, the configuration and a date.

use std::path::PathBuf;

use clap::Args;
use jiff::{Timestamp, civil::Date, tz::TimeZone};
use kit::{
    Result, Ui,
    bundle::History,
    ci::{Ci, CiOptions, Components},
    dirs,
};

use crate::{
    cells::{Rules, compute},
    history::Library,
    index::IndexOption,
    model::Matrix,
    policy::Suites,
};

/// What a matrix is computed from.
#[derive(Debug, Args)]
pub(crate) struct Input {
    /// Where closed runs are kept [default: target/history of the workspace]
    #[arg(long, value_name = "DIR")]
    history: Option<PathBuf>,
    #[command(flatten)]
    index: IndexOption,
    #[command(flatten)]
    ci: CiOptions,
    /// The date that it speaks of, as 2026-11-23 (its end, UTC) or 2026-11-23T12:00:00Z [default: now]
    #[arg(long, value_name = "DATE", value_parser = parse_date)]
    as_of: Option<Timestamp>,
}

/// The same, opened.
pub(crate) struct Opened {
    pub(crate) library: Library,
    pub(crate) rules: Rules,
    pub(crate) ci: Ci,
}

/// A date or a moment.
///
/// # Errors
/// In words, if it is neither.
pub(crate) fn parse_date(text: &str) -> Result<Timestamp, String> {
    let end_of = |date: Date| {
        date.tomorrow()
            .ok()?
            .to_zoned(TimeZone::UTC)
            .ok()?
            .timestamp()
            .checked_sub(jiff::SignedDuration::from_secs(1))
            .ok()
    };
    let day = || text.parse::<Date>().ok().and_then(end_of);
    text.parse().ok().or_else(day).ok_or_else(|| "neither a date as 2026-11-23 nor a time as RFC 3339 writes it".into())
}

/// The history that is named, or that of the workspace.
///
/// # Errors
/// [`kit::Cause::Usage`] outside a workspace.
pub(crate) fn history_or_default(folder: Option<&PathBuf>) -> Result<PathBuf> {
    folder.map_or_else(|| Ok(dirs::workspace()?.join("target/history")), |folder| Ok(folder.clone()))
}

impl Input {
    /// Opens everything; `thorough` checks every file of every bundle.
    ///
    /// # Errors
    /// [`kit::Cause::Usage`] for files that cannot be used; if the index cannot be.
    pub(crate) fn open(&self, thorough: bool, ui: &Ui) -> Result<Opened> {
        let folder = history_or_default(self.history.as_ref())?;
        let ci = self.ci.open()?;
        let policy = ci.policy()?;
        // A matrix can be made where nothing is built: then only the policy's suites are known.
        let known = ci.folder().join("components.toml").exists();
        let components = if known { ci.components()? } else { Components::new() };
        let rules = Rules {
            architectures: ci.architectures()?,
            suites: Suites::new(&policy, &components),
            policy,
            now: self.as_of.unwrap_or_else(Timestamp::now),
        };
        let library = match History::open(&folder) {
            Ok(history) => Library::open(history, self.index.open(&folder)?, thorough, ui)?,
            // Nothing was recorded yet; a folder that was named and is not there is a mistake.
            Err(_) if self.history.is_none() => Library::empty(),
            Err(error) => return Err(error),
        };
        Ok(Opened { library, rules, ci })
    }
}

impl Opened {
    /// The matrix, and on standard error what had to be left out of it.
    ///
    /// # Errors
    /// See [`compute`].
    pub(crate) fn matrix(&self, ui: &Ui) -> Result<Matrix> {
        let matrix = compute(&self.library, &self.rules)?;
        self.library.warn(ui);
        Ok(matrix)
    }

    /// The matrix at another date.
    ///
    /// # Errors
    /// See [`compute`].
    pub(crate) fn matrix_at(&self, now: Timestamp) -> Result<Matrix> {
        compute(&self.library, &Rules { now, ..self.rules.clone() })
    }
}
