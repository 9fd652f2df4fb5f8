//! Platforms in records. They become names of cells, files and links, and stand in every rendering as they are: what
//! is no plain word does not come in.

use kit::{Cause, Error, Platform, Result};

use super::run::Run;
use crate::text::clean;

/// Refuses a run whose records speak of a platform that cannot be one.
///
/// # Errors
/// [`Cause::Usage`], naming it.
pub(super) fn check(run: &Run) -> Result<()> {
    let asked = run.asked.iter().flat_map(|asked| asked.platforms.iter().chain(&asked.test_on));
    let stages = run.stages().iter().filter_map(|stage| stage.platform.as_ref());
    let built = run.builds.iter().flat_map(|found| &found.record.platforms);
    let tried = run.tried.iter().flat_map(|tried| {
        let install = tried.install.iter().map(|found| &found.record.platform);
        install.chain(tried.results.iter().map(|tests| &tests.found.record.platform))
    });
    match asked.chain(stages).chain(built).chain(tried).find(|platform| !is_plain(platform)) {
        None => Ok(()),
        Some(platform) => {
            let name = clean(&platform.to_string());
            Err(Error::new(Cause::Usage, format!("a record speaks of '{name}', which is no platform")))
        }
    }
}

/// Whether all its parts are plain words. A hyphen is none of theirs: it stands between them in a cell's name.
pub(crate) fn is_plain(platform: &Platform) -> bool {
    let plain =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_'));
    let Platform { os, arch, variant, os_version } = platform;
    let more = [variant, os_version].into_iter().flatten();
    [os, arch].into_iter().chain(more).all(|part| plain(part))
}
