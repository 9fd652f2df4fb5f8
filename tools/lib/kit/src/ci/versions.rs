//! Ranges of versions, as files under `ci/` write them.

use std::fmt;

use serde::Deserialize;

use crate::{Cause, Error, Result};

/// Major and minor.
type Minor = (u32, u32);

/// Versions, both ends among them; what comes after the minor version does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Versions {
    from: Minor,
    to: Option<Minor>,
}

impl Versions {
    /// `1.28` for that and newer ones, `1.28..1.40`.
    ///
    /// # Errors
    /// [`Cause::Usage`] if it is none of these.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || {
            Error::new(Cause::Usage, format!("'{text}' names no versions"))
                .next("write for instance 1.28, or 1.28..1.40")
        };
        let (from, to) = match text.split_once("..") {
            Some((from, to)) => (from, Some(minor(to).ok_or_else(wrong)?)),
            None => (text, None),
        };
        let from = minor(from).ok_or_else(wrong)?;
        if to.is_some_and(|to| to < from) { Err(wrong()) } else { Ok(Self { from, to }) }
    }

    /// Whether `v1.37.2+k3s1`, `1.28` is one of them; nothing is said of what is no version.
    #[must_use]
    pub fn hold(self, version: &str) -> Option<bool> {
        let found = minor(version)?;
        Some(found >= self.from && self.to.is_none_or(|to| found <= to))
    }

    /// Whether they go on with what is newer than any version.
    #[must_use]
    pub fn are_open(self) -> bool {
        self.to.is_none()
    }
}

impl TryFrom<String> for Versions {
    type Error = Error;

    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

impl fmt::Display for Versions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to {
            Some(to) => write!(f, "{}.{} to {}.{}", self.from.0, self.from.1, to.0, to.1),
            None => write!(f, "{}.{} or newer", self.from.0, self.from.1),
        }
    }
}

/// Major and minor of `v1.37.2+k3s1`, `1.28`.
fn minor(text: &str) -> Option<Minor> {
    let mut parts = text.trim().trim_start_matches('v').split('.');
    let major = parts.next()?.parse().ok()?;
    let minor: String = parts.next()?.chars().take_while(char::is_ascii_digit).collect();
    Some((major, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_in_range() {
        let hold = |range: &str, version: &str| Versions::parse(range).unwrap().hold(version);
        assert_eq!(hold("1.28", "v1.37.2"), Some(true));
        assert_eq!(hold("1.28..1.37", "v1.37.2+k3s1"), Some(true));
        assert_eq!(hold("1.28", "v1.9.0"), Some(false));
        assert_eq!(hold("1.28..1.36", "v1.37.2"), Some(false));
        assert_eq!(hold("1.28", "v1.27+"), Some(false));
        assert_eq!(hold("1.28", "devel"), None);
        assert!(Versions::parse("1.28").unwrap().are_open() && !Versions::parse("1.2..1.3").unwrap().are_open());
        assert_eq!(Versions::parse("1.28..1.36").unwrap().to_string(), "1.28 to 1.36");
        for wrong in ["", "1", "new", "1.30..1.28", "1.28..", "..1.28"] {
            assert_eq!(Versions::parse(wrong).unwrap_err().cause, Cause::Usage, "{wrong}");
        }
    }
}
