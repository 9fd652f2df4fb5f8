//! Patterns of tests' names as `go test -run` and `-skip` take them (testing/match.go): alternatives, each with a
//! regular expression for each level of a name.

use kit::{Cause, Context, Result};
use regex::Regex;

/// One alternative of a pattern, as in `TestA/sub`.
#[derive(Debug, Clone)]
pub struct Alternative {
    /// The pattern of top-level names.
    pub top: String,
    /// The same, to be matched.
    regex: Regex,
    /// The patterns of the levels below, if there are any.
    pub rest: Option<String>,
}

impl Alternative {
    /// Whether a top-level test fits its first level.
    #[must_use]
    pub fn fits(&self, test: &str) -> bool {
        self.regex.is_match(test)
    }

    /// All levels, as they were written.
    #[must_use]
    pub fn text(&self) -> String {
        self.rest.as_ref().map_or_else(|| self.top.clone(), |rest| format!("{}/{rest}", self.top))
    }
}

/// The alternatives of a pattern that was given to `option`.
///
/// # Errors
/// [`Cause::Usage`] for what is no regular expression.
pub fn read(option: &str, pattern: &str) -> Result<Vec<Alternative>> {
    let regex =
        |level: &str| Regex::new(level).cause(Cause::Usage, || format!("{option} {pattern}: not a regular expression"));
    let alternative = |text: &str| {
        let levels = split(text, '/');
        levels.iter().try_for_each(|level| regex(level).map(drop))?;
        let (top, rest) = levels.split_first().map_or(("", &[][..]), |(top, rest)| (*top, rest));
        let rest = (!rest.is_empty()).then(|| rest.join("/"));
        Ok(Alternative { top: top.to_owned(), regex: regex(top)?, rest })
    };
    split(pattern, '|').into_iter().map(alternative).collect()
}

/// The parts between such characters where they stand outside of brackets, as Go's `splitRegexp` finds them.
#[must_use]
pub fn split(text: &str, at: char) -> Vec<&str> {
    let (mut parts, mut begin) = (Vec::new(), 0);
    // Open brackets, and open parentheses and braces outside of those.
    let (mut class, mut group) = (0_usize, 0_usize);
    let mut escaped = false;
    for (index, c) in text.char_indices() {
        if std::mem::take(&mut escaped) {
            continue;
        }
        match c {
            '\\' => escaped = true,
            '[' => class += 1,
            ']' => class = class.saturating_sub(1),
            '(' | '{' if class == 0 => group += 1,
            ')' | '}' if class == 0 => group = group.saturating_sub(1),
            _ if c == at && class == 0 && group == 0 => {
                parts.push(&text[begin..index]);
                begin = index + c.len_utf8();
            }
            _ => {}
        }
    }
    parts.push(&text[begin..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_split_where_go_splits_them() {
        assert_eq!(split("TestA/a|TestB", '|'), ["TestA/a", "TestB"]);
        assert_eq!(split("Test(A|B)/[a|/]/c", '|'), ["Test(A|B)/[a|/]/c"]);
        assert_eq!(split("Test(A|B)/[a|/]/c", '/'), ["Test(A|B)", "[a|/]", "c"]);
        assert_eq!(split(r"a\/b/c", '/'), [r"a\/b", "c"]);
        assert_eq!(split("TestA,Test.{1,2}", ','), ["TestA", "Test.{1,2}"]);
        assert_eq!(split("", ','), [""]);
        assert_eq!(split("a]/b)/c", '/'), ["a]", "b)", "c"]);
    }

    #[test]
    fn alternatives_have_levels() {
        let found = read("--tests", "TestA/a.c/d|B$").unwrap();
        let said: Vec<_> = found.iter().map(|found| (found.top.as_str(), found.rest.as_deref())).collect();
        assert_eq!(said, [("TestA", Some("a.c/d")), ("B$", None)]);
        assert!(found[0].fits("TestAb") && !found[1].fits("TestBc"));
        assert_eq!(found[0].text(), "TestA/a.c/d");
        for wrong in ["(", "TestA/(", "TestA|["] {
            let error = read("--skip", wrong).unwrap_err();
            assert!(error.cause == Cause::Usage && error.to_string().contains("--skip"), "{error}");
        }
    }
}
