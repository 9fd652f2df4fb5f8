//! JUnit's XML as events of `go test -json`, so that what reads those reads these.

use std::{collections::HashMap, path::Path};

use kit::{Cause, Context, Result, rundir};
use quick_junit::{Report, TestCase, TestCaseStatus};
use serde_json::{Value, json};

/// A larger file is no report of tests.
const LIMIT: u64 = 64 << 20;

/// The events of a report.
///
/// # Errors
/// [`Cause::Usage`] if it is none.
pub(super) fn events(path: &Path) -> Result<Vec<Value>> {
    let bytes = rundir::read_limited(path, LIMIT)?;
    let text = String::from_utf8_lossy(&bytes);
    // Many programs write a suite without the frame around it.
    let framed = if text.contains("<testsuites") { text.into_owned() } else { frame(&text) };
    let report = Report::deserialize_from_str(&framed);
    let report = report.cause(Cause::Usage, || format!("{} is no JUnit XML", path.display()))?;
    let mut events = Vec::new();
    for suite in &report.test_suites {
        let (mut bad, mut names) = (false, HashMap::new());
        for case in &suite.test_cases {
            bad |= matches!(case.status, TestCaseStatus::NonSuccess { .. });
            events.extend(of_case(suite.name.as_str(), case, &mut names));
        }
        let package = |action: &str, output: Option<&str>| event(suite.name.as_str(), "", action, output, None);
        events.push(package("output", Some(if bad { "FAIL\n" } else { "PASS\n" })));
        events.push(package(if bad { "fail" } else { "pass" }, None));
    }
    Ok(events)
}

fn frame(text: &str) -> String {
    let begin = text.find("<testsuite").unwrap_or(0);
    let suites = &text[begin..];
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>{suites}</testsuites>")
}

fn of_case(suite: &str, case: &TestCase, names: &mut HashMap<String, usize>) -> Vec<Value> {
    let class = case.classname.as_ref().map(|class| class.as_str()).filter(|class| *class != suite);
    let name = class.map_or_else(|| case.name.as_str().to_owned(), |class| format!("{class}.{}", case.name.as_str()));
    // In Go's names a slash means a subtest.
    let name = name.replace('/', "_");
    let often = names.entry(name.clone()).or_insert(0);
    *often += 1;
    let name = if *often == 1 { name } else { format!("{name} #{often}") };
    let text =
        |text: &Option<quick_junit::XmlString>| text.as_ref().map(|text| text.as_str().to_owned()).unwrap_or_default();
    let (action, words) = match &case.status {
        TestCaseStatus::Success { .. } => ("pass", String::new()),
        TestCaseStatus::Skipped { message, description, .. } => ("skip", text(message) + &text(description)),
        TestCaseStatus::NonSuccess { message, description, .. } => {
            ("fail", format!("{}\n{}", text(message), text(description)))
        }
    };
    let mut events = vec![event(suite, &name, "run", None, None)];
    for output in [&case.system_out, &case.system_err].into_iter().flatten() {
        events.push(event(suite, &name, "output", Some(&format!("{}\n", output.as_str())), None));
    }
    let mut lines = words.lines().map(str::trim_end).filter(|line| !line.is_empty());
    if let Some(first) = lines.next() {
        // In the form in which a test's own words are known.
        let said = lines.fold(format!("    junit.go:1: {first}\n"), |said, line| said + "        " + line + "\n");
        events.push(event(suite, &name, "output", Some(&said), None));
    }
    events.push(event(suite, &name, action, None, case.time.map(|time| time.as_secs_f64())));
    events
}

fn event(package: &str, test: &str, action: &str, output: Option<&str>, elapsed: Option<f64>) -> Value {
    let mut event = json!({"Time": jiff::Timestamp::now().to_string(), "Action": action, "Package": package});
    for (name, value) in [("Test", (!test.is_empty()).then_some(test)), ("Output", output)] {
        if let Some(value) = value {
            event[name] = value.into();
        }
    }
    if let Some(elapsed) = elapsed {
        event["Elapsed"] = elapsed.into();
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_becomes_events_with_or_without_its_frame() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("r.xml");
        let suite = r#"<testsuite name="s" tests="3" failures="1" errors="0">
            <testcase name="a/b" classname="s" time="1.5"/>
            <testcase name="bad" classname="c"><failure message="wanted 2">got 1
at x</failure></testcase>
            <testcase name="off" classname="c"><skipped message="no internet"/></testcase></testsuite>"#;
        for text in
            [suite.to_owned(), format!("<?xml version=\"1.0\"?>\n{suite}"), format!("<testsuites>{suite}</testsuites>")]
        {
            std::fs::write(&path, text).unwrap();
            let events = events(&path).unwrap();
            let ends: Vec<_> = events
                .iter()
                .filter(|event| !["run", "output"].contains(&event["Action"].as_str().unwrap()))
                .map(|event| (event["Test"].as_str().unwrap_or(""), event["Action"].as_str().unwrap()))
                .collect();
            assert_eq!(ends, [("a_b", "pass"), ("c.bad", "fail"), ("c.off", "skip"), ("", "fail")]);
            assert!(
                events.iter().any(|event| event["Output"] == "    junit.go:1: wanted 2\n        got 1\n        at x\n")
            );
            assert_eq!(events[1]["Elapsed"], 1.5);
        }
        for bad in ["", "no xml", "<testsuite", "<a/>"] {
            std::fs::write(&path, bad).unwrap();
            let found = events(&path);
            assert!(found.is_err() || found.unwrap().is_empty(), "{bad}");
        }
    }
}
