//! `ci/distributions.toml`: how long distributions get security updates.

use std::path::Path;

use jiff::civil::Date;
use serde::{Deserialize, Serialize};

use crate::{Cause, Error, Result};

/// `ci/distributions.toml`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distributions {
    /// All entries.
    #[serde(default)]
    pub distribution: Vec<Distribution>,
}

/// A distribution, or one version of it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distribution {
    /// `ID` of os-release(5), or `windows`.
    pub id: String,
    /// `VERSION_ID` or its beginning; any if there is none.
    pub version: Option<String>,
    /// Last day of its own security updates.
    pub end: Option<Date>,
    /// Last day of others' updates.
    pub extended: Option<Date>,
    /// Whether it has no versions that could end.
    #[serde(default)]
    pub rolling: bool,
    /// Where that is from.
    pub source: String,
}

/// How a distribution's life stands on a day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Life {
    /// It gets its own updates.
    Supported,
    /// Others make updates for it.
    Extended,
    /// Nobody does any more.
    Ended,
    /// There are no versions.
    Rolling,
}

impl Distributions {
    /// The entry for an `ID` and `VERSION_ID`; the one that says most of the version counts.
    #[must_use]
    pub fn find(&self, id: &str, version: Option<&str>) -> Option<&Distribution> {
        let begins = |beginning: &str| {
            let rest = version.and_then(|version| version.strip_prefix(beginning));
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        let fits = |entry: &&Distribution| entry.id == id && entry.version.as_deref().is_none_or(&begins);
        self.distribution.iter().filter(fits).max_by_key(|entry| entry.version.as_ref().map_or(0, String::len))
    }

    /// Refuses entries that say nothing or contradict themselves.
    pub(super) fn check(&self, path: &Path) -> Result<()> {
        for entry in &self.distribution {
            let problem = match (entry.end, entry.extended) {
                (Some(_), _) if entry.rolling => "has an end although it is rolling",
                (None, _) if !entry.rolling => "needs either end or rolling",
                (Some(end), Some(extended)) if extended < end => "is extended to a day before its end",
                _ => continue,
            };
            let version = entry.version.as_deref().unwrap_or("(any version)");
            return Err(Error::new(Cause::Usage, format!("{}: {} {version} {problem}", path.display(), entry.id)));
        }
        Ok(())
    }
}

impl Distribution {
    /// How it stands on a day.
    #[must_use]
    pub fn life(&self, today: Date) -> Life {
        match self.end {
            None => Life::Rolling,
            Some(end) if today <= end => Life::Supported,
            Some(_) if self.extended.is_some_and(|extended| today <= extended) => Life::Extended,
            Some(_) => Life::Ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use crate::{Cause, ci::Ci};

    use super::*;

    #[test]
    fn a_version_is_found_by_its_beginning() {
        let text = "[[distribution]]\nid = 'a'\nversion = '3.2'\nend = '2026-01-01'\nextended = '2027-01-01'\nsource = 'x'\n\
                    [[distribution]]\nid = 'a'\nversion = '3'\nend = '2020-01-01'\nsource = 'x'\n\
                    [[distribution]]\nid = 'b'\nrolling = true\nsource = 'x'\n";
        let table: Distributions = crate::config::parse(text, "x").unwrap();
        let life = |id, version, day| table.find(id, version).map(|entry| entry.life(day));
        assert_eq!(life("a", Some("3.2.1"), date(2026, 1, 1)), Some(Life::Supported));
        assert_eq!(life("a", Some("3.2"), date(2026, 1, 2)), Some(Life::Extended));
        assert_eq!(life("a", Some("3.2"), date(2027, 1, 2)), Some(Life::Ended));
        assert_eq!(life("a", Some("3.20"), date(2019, 1, 1)), Some(Life::Supported));
        assert_eq!(life("a", Some("30"), date(2019, 1, 1)), None);
        assert_eq!(life("a", None, date(2019, 1, 1)), None);
        assert_eq!(life("b", None, date(2099, 1, 1)), Some(Life::Rolling));
    }

    #[test]
    fn entries_that_contradict_themselves_are_named() {
        let folder = tempfile::tempdir().unwrap();
        for (entry, said) in [
            ("rolling = true\nend = '2020-01-01'", "although it is rolling"),
            ("extended = '2020-01-01'", "needs either end or rolling"),
            ("end = '2020-01-02'\nextended = '2020-01-01'", "before its end"),
            ("end = 'soon'", "distributions.toml:4"),
        ] {
            let text = format!("[[distribution]]\nid = 'a'\nsource = 'x'\n{entry}\n");
            std::fs::write(folder.path().join("distributions.toml"), text).unwrap();
            let error = Ci::new(folder.path()).distributions().unwrap_err();
            assert!(error.cause == Cause::Usage && error.to_string().contains(said), "{error}");
        }
        std::fs::remove_file(folder.path().join("distributions.toml")).unwrap();
        assert_eq!(Ci::new(folder.path()).distributions().unwrap(), Distributions::default());
    }
}
