//! The Test Anything Protocol (testanything.org, version 14) as events of `go test -json`, so that what reads those
//! reads these.

use std::collections::HashMap;

use serde_json::{Value, json};

/// Turns lines into events.
pub(super) struct Tap {
    package: String,
    /// The test whose result was read last: what follows, up to the next result, belongs to it.
    open: Option<(String, &'static str)>,
    names: HashMap<String, usize>,
    planned: Option<usize>,
    seen: usize,
    failed: bool,
    bail: Option<String>,
}

/// A line with a result.
struct Point<'a> {
    ok: bool,
    name: &'a str,
    directive: Option<(String, &'a str)>,
}

impl Tap {
    pub(super) fn new(package: &str) -> Self {
        Self {
            package: package.into(),
            open: None,
            names: HashMap::new(),
            planned: None,
            seen: 0,
            failed: false,
            bail: None,
        }
    }

    /// The events of a line.
    pub(super) fn line(&mut self, line: &str) -> Vec<Value> {
        let mut events = Vec::new();
        if let Some(point) = point(line) {
            events.extend(self.close());
            self.seen += 1;
            let name = self.name(point.name);
            let word = match &point.directive {
                Some((word, _)) if word == "SKIP" => "skip",
                // What is still to do may fail, and be good by chance.
                Some((word, _)) if word == "TODO" => "skip",
                _ if point.ok => "pass",
                _ => "fail",
            };
            self.failed |= word == "fail";
            events.push(self.event("run", &name, None));
            events.push(self.event("output", &name, Some(format!("{line}\n"))));
            if let Some((kind, why)) = point.directive.filter(|_| word == "skip") {
                events.push(self.event(
                    "output",
                    &name,
                    Some(format!("    tap.go:1: {} {why}\n", kind.to_lowercase())),
                ));
            } else if word == "fail" {
                // In the form in which a test's own words are known.
                events.push(self.event("output", &name, Some(format!("    tap.go:1: not ok: {name}\n"))));
            }
            self.open = Some((name, word));
            return events;
        }
        if let Some(number) = line.strip_prefix("1..").and_then(|rest| rest.split_whitespace().next()?.parse().ok()) {
            // It says nothing of how anything ended.
            self.planned = Some(number);
            return events;
        }
        if line.starts_with("TAP version ") {
            return events;
        }
        if let Some(why) = line.strip_prefix("Bail out!") {
            self.bail = Some(why.trim().to_owned());
        }
        let test = self.open.as_ref().map(|(name, _)| name.clone()).unwrap_or_default();
        events.push(self.event("output", &test, Some(format!("{line}\n"))));
        events
    }

    /// The events of the end, if the script ended with that exit code.
    pub(super) fn end(mut self, code: i32) -> Vec<Value> {
        let mut events: Vec<_> = self.close().into_iter().collect();
        let missing = self.planned.filter(|planned| *planned != self.seen);
        let why = match (&self.bail, missing) {
            (Some(why), _) => Some(format!("Bail out! {why}")),
            (_, Some(planned)) => Some(format!("the plan says {planned} tests, and {} have a result", self.seen)),
            _ if code != 0 => Some(format!("exit status {code}")),
            _ => None,
        };
        if let Some(why) = &why {
            events.push(self.event("output", "", Some(format!("{why}\n"))));
        }
        let bad = self.failed || why.is_some();
        events.push(self.event("output", "", Some(if bad { "FAIL\n" } else { "PASS\n" }.into())));
        events.push(self.event(if bad { "fail" } else { "pass" }, "", None));
        events
    }

    /// The end of the test whose result was read last.
    pub(super) fn close(&mut self) -> Option<Value> {
        let (name, word) = self.open.take()?;
        Some(self.event(word, &name, None))
    }

    /// A name that no other test has.
    fn name(&mut self, text: &str) -> String {
        let text = if text.is_empty() { format!("test {}", self.seen) } else { text.replace('/', "_") };
        let often = self.names.entry(text.clone()).or_default();
        *often += 1;
        if *often == 1 { text } else { format!("{text} #{often}") }
    }

    fn event(&self, action: &str, test: &str, output: Option<String>) -> Value {
        let mut event = json!({"Time": jiff::Timestamp::now().to_string(), "Action": action, "Package": self.package});
        if !test.is_empty() {
            event["Test"] = test.into();
        }
        if let Some(output) = output {
            event["Output"] = output.into();
        }
        event
    }
}

/// `ok 3 - name # SKIP why`; what is indented is a subtest's, which the line after it sums up.
fn point(line: &str) -> Option<Point<'_>> {
    let (ok, rest) = match (line.strip_prefix("not ok"), line.strip_prefix("ok")) {
        (Some(rest), _) => (false, rest),
        (None, Some(rest)) => (true, rest),
        (None, None) => return None,
    };
    if !(rest.is_empty() || rest.starts_with(' ')) {
        return None;
    }
    let rest = rest.trim_start();
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    let rest = rest[digits..].trim_start();
    let rest = rest.strip_prefix("- ").unwrap_or(rest);
    let (name, directive) = match rest.rsplit_once('#').filter(|(before, _)| !before.ends_with('\\')) {
        Some((name, directive)) => {
            let directive = directive.trim();
            let (word, why) = directive.split_once(char::is_whitespace).unwrap_or((directive, ""));
            // 'skipped' is a skip as well.
            let word = word.to_uppercase();
            let word = if word.starts_with("SKIP") { "SKIP".to_owned() } else { word };
            if word == "SKIP" || word == "TODO" { (name, Some((word, why.trim()))) } else { (rest, None) }
        }
        None => (rest, None),
    };
    Some(Point { ok, name: name.trim(), directive })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cause::Judge,
        parse::{Stream, log::Folder},
        report::{self, PACKAGE},
    };
    use kit::{Cause, record::Status};

    fn rows(text: &str, code: i32) -> Vec<report::Row> {
        let folder = tempfile::tempdir().unwrap();
        let judge = Judge::default();
        let mut stream = Stream::new(Folder::new(folder.path()), true, &judge, ());
        let mut tap = Tap::new("s");
        let events: Vec<_> = text.lines().flat_map(|line| tap.line(line)).collect();
        for event in events.into_iter().chain(tap.end(code)) {
            stream.line(event.to_string().as_bytes()).unwrap();
        }
        report::rows(stream.finish(None).unwrap())
    }

    fn said(text: &str, code: i32) -> Vec<(String, Status, Option<Cause>)> {
        rows(text, code).into_iter().map(|row| (row.test.name, row.test.status, row.test.cause)).collect()
    }

    #[test]
    fn results_names_and_directives() {
        let text = "TAP version 14\n1..6\nok 1 - it greets\nnot ok 2 - it answers\n  ---\n  message: dial tcp: lookup x: no such host\n  ...\n\
            ok 3 # SKIP no internet\nnot ok 4 - later # TODO not yet\nok 5 - it greets\n    ok 1 - inner\n    1..1\nok 6 - a/b \\# c\n";
        let found = said(text, 1);
        let expected = [
            ("it greets", Status::Passed, None),
            ("it answers", Status::Failed, Some(Cause::Dns)),
            ("test 3", Status::Skipped, None),
            ("later", Status::Skipped, None),
            ("it greets #2", Status::Passed, None),
            ("a_b \\# c", Status::Passed, None),
        ];
        assert_eq!(found, expected.map(|(name, status, cause)| (name.to_owned(), status, cause)));
        assert_eq!(rows(text, 1)[2].test.line.as_deref(), Some("tap.go:1: skip no internet"));
    }

    #[test]
    fn a_plan_that_is_not_kept_and_a_script_that_gives_up() {
        let package = |text: &str, code| {
            let all = rows(text, code);
            all.into_iter().find(|row| row.test.name == PACKAGE).and_then(|row| row.test.line)
        };
        assert_eq!(package("1..3\nok 1\n", 0).unwrap(), "the plan says 3 tests, and 1 have a result");
        assert_eq!(package("1..1\nok 1\nBail out! no database\n", 0).unwrap(), "Bail out! no database");
        assert_eq!(package("1..1\nok 1\n", 3).unwrap(), "exit status 3");
        assert_eq!(package("ok 1\n1..1\n", 0), None);
        assert!(said("okay then\nnot okay\n", 0).is_empty(), "that is text");
    }
}
