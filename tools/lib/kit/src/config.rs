//! Reading the TOML files under `ci/`: an error names file, line and field.

use std::path::Path;

use serde::de::DeserializeOwned;

use crate::{Cause, Context, Error, Result, rundir::read_limited};

/// Reads a file of at most 4 MiB. Types say `deny_unknown_fields`, so that a misspelt field is found.
///
/// # Errors
/// [`Cause::Usage`] with file, line, column and field.
pub fn read<T: DeserializeOwned>(path: &Path) -> Result<T> {
    let bytes = read_limited(path, 4 << 20)?;
    let text = String::from_utf8(bytes).cause(Cause::Usage, || format!("{} is not UTF-8", path.display()))?;
    parse(&text, &path.display().to_string())
}

/// Reads a text that `name` stands for in errors.
///
/// # Errors
/// As [`read`].
pub fn parse<T: DeserializeOwned>(text: &str, name: &str) -> Result<T> {
    toml::from_str(text).map_err(|error| {
        let place = error.span().map_or_else(String::new, |span| {
            let before = text.get(..span.start).unwrap_or(text);
            let column = before.len() - before.rfind('\n').map_or(0, |newline| newline + 1) + 1;
            format!(":{}:{column}", before.matches('\n').count() + 1)
        });
        let why = error.message().replace('\n', " ");
        // The whole line, because the span of a wrong value does not name its field.
        let at = error.span().and_then(|span| {
            let begin = text.get(..span.start)?.rfind('\n').map_or(0, |newline| newline + 1);
            text.get(begin..)?.lines().next()
        });
        let error = Error::new(Cause::Usage, format!("{name}{place}: {why}"));
        match at {
            Some(at) if !at.is_empty() => error.line(at.chars().take(200).collect::<String>()),
            _ => error,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    #[expect(dead_code, reason = "only read by serde")]
    struct Sample {
        name: String,
        count: u32,
    }

    #[test]
    fn a_wrong_field_is_named_with_its_line() {
        let error = parse::<Sample>("name = 'x'\ncount = 1\ncolour = 2\n", "ci/x.toml").unwrap_err();
        assert_eq!(error.cause, Cause::Usage);
        assert!(error.to_string().starts_with("ci/x.toml:3:1: unknown field `colour`"), "{error}");
        let error = parse::<Sample>("name = 'x'\ncount = 'many'\n", "ci/x.toml").unwrap_err();
        assert!(error.to_string().starts_with("ci/x.toml:2:"), "{error}");
        assert!(error.line.unwrap().contains("count = "));
    }
}
