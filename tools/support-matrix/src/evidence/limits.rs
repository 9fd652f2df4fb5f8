//! How much one run may say. What is computed from records must not be much larger than they are.

use kit::{Cause, Error, Platform, Result};

use super::run::Run;
use crate::text::many;

/// Statements of one run.
pub(super) const MAX_TRIES: usize = 4_000;
/// Platforms of one record.
const MAX_PLATFORMS: usize = 200;
/// Stages of one run.
const MAX_STAGES: usize = 10_000;

/// Refuses a run with more folders than statements can come of. Cheap: it is asked while they are read.
pub(super) fn check_folders(run: &Run) -> Result<()> {
    within(run.builds.len() + run.tried.len(), MAX_TRIES, "folder with records")?;
    within(run.heard.len(), MAX_STAGES, "stage")
}

/// Refuses a run that says more than any run of ours.
pub(super) fn check(run: &Run) -> Result<()> {
    let platforms = |all: &[Platform]| within(all.len(), MAX_PLATFORMS, "platform");
    let mut tries = 0;
    for found in &run.builds {
        platforms(&found.record.platforms)?;
        tries += 1 + 2 * found.record.platforms.len();
    }
    if let Some(asked) = &run.asked {
        platforms(&asked.test_on)?;
        tries += asked.components.len().saturating_mul(2 * asked.test_on.len());
    }
    tries += run.tried.iter().map(|tried| 2 + tried.results.len()).sum::<usize>();
    within(run.stages().len(), MAX_STAGES, "stage")?;
    within(tries, MAX_TRIES, "statement")
}

fn within(count: usize, most: usize, what: &str) -> Result<()> {
    if count <= most {
        return Ok(());
    }
    Err(Error::new(Cause::Usage, format!("it holds {}, more than {most}", many(count, what))))
}
