//! The distribution that a base is of, and how long it gets updates.

use std::{collections::BTreeMap, fmt};

use jiff::{Timestamp, civil::Date, tz::TimeZone};
use kit::ci::{Distributions, Life};
use oci::About;
use serde::Serialize;

/// As os-release(5) names it, with what `ci/distributions.toml` knows of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Distribution {
    pub(super) id: String,
    pub(super) version: Option<String>,
    pub(super) name: Option<String>,
    /// Last day of its own updates.
    pub(super) end: Option<Date>,
    /// Last day of others' updates.
    pub(super) extended: Option<Date>,
    /// Nothing if the table does not know it.
    pub(super) life: Option<Life>,
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.id)?;
        self.version.as_ref().map_or(Ok(()), |version| write!(f, " {version}"))
    }
}

impl Distribution {
    /// Its end of life in words.
    pub(super) fn end_of_life(&self) -> String {
        let date = |date: Option<Date>| date.map_or_else(|| "unknown".into(), |date| date.to_string());
        match self.life {
            None => "unknown".into(),
            Some(Life::Rolling) => "rolling".into(),
            Some(Life::Supported) => date(self.end),
            Some(Life::Extended) => format!("{}, extended to {}", date(self.end), date(self.extended)),
            Some(Life::Ended) => format!("ended {}", date(self.extended.or(self.end))),
        }
    }
}

/// The distribution of an image, if it says one.
pub(super) fn of(about: &About, known: &Distributions, now: Timestamp) -> Option<Distribution> {
    let (id, version, name) = if about.platform.os == "windows" {
        ("windows".to_owned(), about.platform.os_version.clone(), None)
    } else {
        let mut fields = parse(about.os_release.as_deref()?);
        // os-release(5): without ID it is linux.
        (
            fields.remove("ID").unwrap_or_else(|| "linux".into()),
            fields.remove("VERSION_ID"),
            fields.remove("PRETTY_NAME"),
        )
    };
    let entry = known.find(&id, version.as_deref());
    let today = now.to_zoned(TimeZone::UTC).date();
    Some(Distribution {
        end: entry.and_then(|entry| entry.end),
        extended: entry.and_then(|entry| entry.extended),
        life: entry.map(|entry| entry.life(today)),
        id,
        version,
        name,
    })
}

/// The variables of os-release(5), which are assigned as in a shell.
fn parse(text: &str) -> BTreeMap<String, String> {
    let assignment = |line: &str| {
        let (name, value) = line.trim().split_once('=')?;
        let is_name =
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_uppercase() || b"_0123456789".contains(&byte));
        let value = unquote(value.trim());
        (is_name && !value.is_empty()).then(|| (name.to_owned(), value))
    };
    text.lines().filter_map(assignment).collect()
}

fn unquote(value: &str) -> String {
    let inner = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
    let mut result = String::new();
    let mut chars = inner.unwrap_or(value).chars();
    while let Some(c) = chars.next() {
        // A backslash takes the next character as it is.
        let c = if c == '\\' && !value.starts_with('\'') { chars.next().unwrap_or(c) } else { c };
        result.push(c);
    }
    result
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn about(platform: &str, os_release: Option<&str>) -> About {
        About {
            platform: platform.parse().unwrap(),
            manifest: String::new(),
            media_type: String::new(),
            created: None,
            user: None,
            os_release: os_release.map(String::from),
        }
    }

    fn known() -> Distributions {
        let text = "[[distribution]]\nid = 'debian'\nversion = '12'\nend = '2026-07-11'\nextended = '2028-06-30'\nsource = 'x'\n\
                    [[distribution]]\nid = 'wolfi'\nrolling = true\nsource = 'x'\n\
                    [[distribution]]\nid = 'windows'\nversion = '10.0.17763'\nend = '2024-01-09'\nsource = 'x'\n";
        kit::config::parse(text, "x").unwrap()
    }

    #[test]
    fn ages_of_distributions_are_said_and_what_is_unknown_is_said_as_unknown() {
        let said = |platform: &str, os_release: Option<&str>, day: &str| {
            let now = format!("{day}T12:00:00Z").parse().unwrap();
            of(&about(platform, os_release), &known(), now).map(|found| format!("{found}: {}", found.end_of_life()))
        };
        let debian = Some("PRETTY_NAME=\"Distroless\"\nNAME=\"Debian GNU/Linux\"\nID=\"debian\"\nVERSION_ID=\"12\"\n");
        for (day, wanted) in [
            ("2026-07-11", "debian 12: 2026-07-11"),
            ("2026-07-12", "debian 12: 2026-07-11, extended to 2028-06-30"),
            ("2028-07-01", "debian 12: ended 2028-06-30"),
        ] {
            assert_eq!(said("linux/s390x", debian, day).unwrap(), wanted);
        }
        assert_eq!(
            said("linux/amd64", Some("ID=wolfi\nVERSION_ID=20230201"), "2026-01-01").unwrap(),
            "wolfi 20230201: rolling"
        );
        assert_eq!(said("linux/amd64", Some("ID=debian\n"), "2026-01-01").unwrap(), "debian: unknown");
        assert_eq!(said("linux/amd64", Some("junk"), "2026-01-01").unwrap(), "linux: unknown");
        assert_eq!(said("linux/amd64", None, "2026-01-01"), None);
        let windows = said("windows/amd64:10.0.17763.1", None, "2026-01-01").unwrap();
        assert_eq!(windows, "windows 10.0.17763.1: ended 2024-01-09");
    }

    #[test]
    fn values_are_read_as_a_shell_reads_them() {
        let fields = parse("A=\"a \\\"b\\\"\"\nB='c\\d'\n# C=x\nD=\nlower=x\n  E=f  \nnonsense\nG=\"\\\n");
        let found: Vec<_> = fields.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(found, ["A=a \"b\"", "B=c\\d", "E=f", "G=\"\\"]);
    }

    proptest! {
        #[test]
        fn any_text_is_survived(text in "([A-Z]|=|\"|'|\\\\|\n|é| ){0,60}") {
            parse(&text);
        }
    }
}
