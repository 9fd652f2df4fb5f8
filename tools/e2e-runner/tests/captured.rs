//! Streams that real `go test -json` printed (tests/streams/make captures them again), and what becomes
//! of them: totals as Go's own, a summary as the golden files say, and no stream that does harm.
//!
//! `UPDATE_GOLDEN=1 cargo test -p e2e-runner` rewrites the golden files.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command, sync::LazyLock};

use e2e_runner::{
    cause::Judge,
    parse::{Ended, Observer, Parsed, Stream, event, lines::Lines, log::Folder},
    report,
};
use kit::record::{Counts, Results, Status};
use proptest::prelude::*;

fn streams() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/streams")
}

fn names() -> Vec<String> {
    let entries = fs::read_dir(streams()).unwrap().map(|entry| entry.unwrap().path());
    let mut names: Vec<_> = entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    names.sort();
    assert!(names.len() >= 19);
    names
}

/// The rules are made ready once.
static JUDGE: LazyLock<Judge> = LazyLock::new(Judge::default);

fn parse(bytes: &[u8]) -> Parsed {
    let dir = tempfile::tempdir().unwrap();
    let mut stream = Stream::new(Folder::new(dir.path().join("logs")), true, &JUDGE, ());
    let mut lines = Lines::new(bytes, 1 << 20);
    while let Some(line) = lines.next_line().unwrap() {
        stream.line(line).unwrap();
    }
    stream.finish(None).unwrap()
}

/// The totals that Go's events say: each test that began, by its last word.
fn go_totals(text: &str) -> BTreeMap<&'static str, usize> {
    let mut last: BTreeMap<(String, String), &'static str> = BTreeMap::new();
    for line in text.lines() {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        let text = |name: &str| event[name].as_str().unwrap_or_default().to_owned();
        let word = match text("Action").as_str() {
            "run" => "unfinished",
            "pass" => "passed",
            "fail" => "failed",
            "skip" => "skipped",
            _ => continue,
        };
        if !text("Test").is_empty() {
            last.insert((text("Package"), text("Test")), word);
        }
    }
    let mut totals = BTreeMap::from([("unfinished", 0), ("passed", 0), ("failed", 0), ("skipped", 0)]);
    for word in last.into_values() {
        *totals.entry(word).or_default() += 1;
    }
    totals
}

#[test]
fn totals_are_go_s_own() {
    for name in names() {
        let text = fs::read_to_string(streams().join(format!("{name}.json"))).unwrap();
        let go_exit: i32 = fs::read_to_string(streams().join(format!("{name}.exit"))).unwrap().trim().parse().unwrap();
        let rows = report::rows(parse(text.as_bytes()));
        let tests: Vec<_> = rows.iter().map(|row| row.test.clone()).collect();
        let (_, all) = report::count(&tests);
        let go = go_totals(&text);
        // A test without an end failed, never came to its end, or is a benchmark, which has none.
        let ended_by_us = all.asked - go["passed"] - go["failed"] - go["skipped"];
        assert_eq!(ended_by_us, go["unfinished"], "{name}");
        assert_eq!(all.skipped, go["skipped"], "{name}");
        assert!(all.passed >= go["passed"] && all.failed >= go["failed"], "{name}: {all:?} {go:?}");
        if go["unfinished"] == 0 {
            assert_eq!((all.passed, all.failed, all.not_run), (go["passed"], go["failed"], 0), "{name}");
        }
        let exit = report::verdict(&tests).0;
        assert_eq!(exit != kit::Exit::GOOD && exit != kit::Exit::NOTHING_RAN, go_exit != 0, "{name}");
    }
}

/// A number before a word, as in `6 tests, 1 skipped, 2 failures`.
fn counted(text: &str, word: &str) -> usize {
    let found = regex::Regex::new(&format!(r"(\d+) {word}")).unwrap().captures(text);
    found.map_or(0, |found| found[1].parse().unwrap())
}

/// tests/streams/make has captured what gotestsum v1.13.0 counts. It knows no test that never came to its end: that has
/// failed there. And a package that fails outside of its tests is a failure, or an error, of its own.
#[test]
fn totals_are_gotestsum_s() {
    for name in names() {
        let theirs = fs::read_to_string(streams().join(format!("{name}.gotestsum"))).unwrap();
        let text = fs::read(streams().join(format!("{name}.json"))).unwrap();
        let rows = report::rows(parse(&text));
        let (_, all) = report::count(rows.iter().map(|row| &row.test));
        let packages = rows.iter().filter(|row| row.test.name == report::PACKAGE).count();
        assert_eq!(all.asked, counted(&theirs, "test"), "{name}: {theirs}");
        assert_eq!(all.skipped, counted(&theirs, "skipped"), "{name}: {theirs}");
        let more = match name.as_str() {
            // Go gives a benchmark that passed no end of its own, and there it has failed for that.
            "bench" => 2,
            // There a time-out is a failure of the package as well.
            "timeout" => 1,
            _ => 0,
        };
        let failed = counted(&theirs, "failure");
        assert_eq!(all.failed + all.not_run + packages + more, failed, "{name}: {theirs} {all:?}");
    }
}

/// The text that `go test -v` would have printed, made into events again by Go's own filter.
#[test]
#[expect(clippy::disallowed_methods, reason = "a test beside Go itself")]
fn totals_are_those_of_go_s_own_text_mode() {
    let mut compared = 0;
    for name in names() {
        let json = fs::read_to_string(streams().join(format!("{name}.json"))).unwrap();
        let events: Vec<serde_json::Value> = json.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let packages: std::collections::BTreeSet<_> =
            events.iter().filter_map(|event| event["Package"].as_str()).collect();
        // Go's text of several packages at once belongs to whichever is named; of what does not compile there is none.
        let plain = events.iter().all(|event| event["Action"] != "build-output");
        if packages.len() != 1 || !plain || TEXT_SAYS_LESS.contains(&name.as_str()) {
            continue;
        }
        let text: String = events.iter().filter_map(|event| event["Output"].as_str()).collect();
        let mut child = Command::new("go")
            .args(["tool", "test2json", "-t", "-p", packages.first().unwrap()])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = child.stdin.take().unwrap();
        let writer = std::thread::spawn(move || std::io::Write::write_all(&mut input, text.as_bytes()));
        let again = child.wait_with_output().unwrap().stdout;
        writer.join().unwrap().unwrap();
        let count = |bytes: &[u8]| report::count(report::rows(parse(bytes)).iter().map(|row| &row.test)).1;
        assert_eq!(count(json.as_bytes()), count(&again), "{name}");
        compared += 1;
    }
    assert!(compared >= 8, "{compared}");
}

/// Streams whose text alone does not say what their events say: lines that do not begin at the beginning of a line, and
/// names that Go's text cannot hold.
const TEXT_SAYS_LESS: &[&str] = &["nolines", "subtests"];

#[test]
fn the_summary_is_as_it_was() {
    for name in names() {
        let said = run_parse(&name, &[]);
        let golden = streams().join(format!("{name}.golden"));
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            fs::write(&golden, &said).unwrap();
        }
        let expected = fs::read_to_string(&golden).unwrap_or_default();
        assert_eq!(said, expected, "{name}: UPDATE_GOLDEN=1 rewrites {}", golden.display());
    }
}

/// The real program over a captured stream. What differs with each capture is taken out.
#[expect(clippy::disallowed_methods, reason = "a test of the program itself")]
fn run_parse(name: &str, more: &[&str]) -> String {
    let file = streams().join(format!("{name}.json"));
    let output = Command::new(env!("CARGO_BIN_EXE_e2e-runner")).arg("parse").arg(file).args(more).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let varies = [(r"\b\d+\.\d+ s\b", "N s"), (r"0x[0-9a-f]+\??", "0xN"), (r"goroutine \d+", "goroutine N")];
    let varies = varies.iter().chain(&[(r"\.go:\d{3,}( \+0xN)?", ".go:N"), (r"\b\d\.\d{3}s\b", "Ns")]);
    let said = varies
        .fold(said, |said, (pattern, by)| regex::Regex::new(pattern).unwrap().replace_all(&said, *by).into_owned());
    format!("{said}exit {}\n", output.status.code().unwrap())
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test of the program itself")]
fn a_filter_that_waits_can_be_ended() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_e2e-runner"))
        .arg("parse")
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let mut input = child.stdin.take().unwrap();
    std::io::Write::write_all(&mut input, b"{\"Action\":\"start\",\"Package\":\"p\"}\n").unwrap();
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert!(Command::new("kill").args(["-TERM", &child.id().to_string()]).status().unwrap().success());
    for _ in 0..100 {
        if let Some(status) = child.try_wait().unwrap() {
            assert_eq!(status.code(), Some(128 + 15));
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    child.kill().unwrap();
    panic!("it still waits for a line");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test of the program itself")]
fn a_line_that_is_too_long_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("stream");
    let event = |action: &str, more: &str| format!("{{\"Action\":\"{action}\",\"Package\":\"p\"{more}}}\n");
    let long = event("output", &format!(",\"Output\":\"{}\"", "x".repeat(9 << 20)));
    let test = |action| event(action, ",\"Test\":\"TestA\"");
    fs::write(&file, [event("start", ""), test("run"), long, test("pass"), event("pass", "")].concat()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_e2e-runner")).arg("parse").arg(file).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("bytes of lines longer than 8 MiB are not read"), "{said}");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test of the program itself")]
fn records_junit_and_logs_are_written() {
    let dir = tempfile::tempdir().unwrap();
    run_parse("interleaved", &["--out", dir.path().to_str().unwrap(), "--component", "x", "--all-logs"]);
    let (results, _) = kit::rundir::read_record::<Results>(dir.path()).unwrap();
    let expected = Counts { asked: 13, passed: 6, failed: 6, skipped: 1, ..Counts::default() };
    assert_eq!(results.counts, expected);
    for test in results.tests.iter().filter(|test| test.status == Status::Failed) {
        let log = fs::read_to_string(dir.path().join(test.log.as_ref().unwrap())).unwrap();
        assert!(test.name == report::PACKAGE || log.contains("=== RUN"), "{}", test.name);
    }
    let text = fs::read_to_string(dir.path().join("results.json")).unwrap();
    assert_eq!(text, format!("{}\n", serde_json::to_string_pretty(&results).unwrap()), "as other records are written");
    let said = run_parse("interleaved", &["--output", "json"]);
    assert_eq!(said.matches("\"name\":").count(), results.tests.len(), "{said}");
    for name in ["interleaved", "empty"] {
        let file = streams().join(format!("{name}.json"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_e2e-runner"));
        command.arg("parse").arg(file).args(["--output", "json", "--out"]).arg(dir.path().join(name));
        let said = String::from_utf8(command.output().unwrap().stdout).unwrap();
        assert_eq!(said, fs::read_to_string(dir.path().join(name).join("results.json")).unwrap());
    }
    let junit = fs::read_to_string(dir.path().join("junit.xml")).unwrap();
    let report = quick_junit::Report::deserialize_from_str(&junit).unwrap();
    let cases: usize = report.test_suites.iter().map(|suite| suite.test_cases.len()).sum();
    assert_eq!((report.tests, cases, report.test_suites.len()), (results.tests.len(), results.tests.len(), 5));
    let suite = r#"<testsuite name="streams/failing" tests="5" skipped="0" errors="1" failures="3">"#;
    assert!(junit.contains(suite), "{junit}");
}

/// Names of tests, as an observer hears of them.
struct Names(Vec<String>);

impl Observer for Names {
    fn ended(&mut self, package: &str, test: &Ended) {
        self.0.push(format!("{package} {}", test.name));
    }
}

#[test]
fn good_tests_need_not_be_kept() {
    let text = fs::read_to_string(streams().join("interleaved.json")).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let (judge, mut names) = (Judge::default(), Names(Vec::new()));
    let mut stream = Stream::new(Folder::new(dir.path()), false, &judge, &mut names).forgetting_good();
    text.lines().try_for_each(|line| stream.line(line.as_bytes())).unwrap();
    let parsed = stream.finish(None).unwrap();
    let all = parse(text.as_bytes());
    let of = |test: &Ended| format!("{} {}", all.packages[test.package].name, test.name);
    assert_eq!(names.0, all.tests.iter().map(of).collect::<Vec<_>>());
    let bad: Vec<_> = all.tests.iter().filter(|test| test.failure.is_some()).map(of).collect();
    assert_eq!(parsed.tests.iter().map(of).collect::<Vec<_>>(), bad);
    assert!(!bad.is_empty() && bad.len() < names.0.len());
}

#[test]
fn a_stream_that_is_cut_says_so() {
    let text = fs::read_to_string(streams().join("parallel.json")).unwrap();
    for at in (0..text.len()).step_by(97) {
        let parsed = parse(&text.as_bytes()[..at]);
        assert_eq!(parsed.truncated, at > 60, "cut at {at}");
        assert!(parsed.tests.len() <= 6);
    }
}

/// What came of a stream of these lines, each as its action, package, test and output.
fn told(lines: &[[&str; 4]]) -> (kit::Exit, Vec<(String, Status, Option<kit::Cause>)>) {
    let event = |[action, package, test, output]: &[&str; 4]| {
        format!("{}\n", serde_json::json!({"Action": action, "Package": package, "Test": test, "Output": output}))
    };
    let text: String = lines.iter().map(event).collect();
    let rows = report::rows(parse(text.as_bytes()));
    let exit = report::verdict(rows.iter().map(|row| &row.test)).0;
    (exit, rows.into_iter().map(|row| (row.test.name, row.test.status, row.test.cause)).collect())
}

#[test]
fn no_part_of_a_stream_is_good() {
    for name in names() {
        let text = fs::read_to_string(streams().join(format!("{name}.json"))).unwrap();
        let whole = text.trim_end().len();
        let ends = text.match_indices('\n').flat_map(|(end, _)| [end - 9, end]);
        for end in ends.filter(|end| *end < whole) {
            let rows = report::rows(parse(&text.as_bytes()[..end]));
            let exit = report::verdict(rows.iter().map(|row| &row.test)).0;
            assert_ne!(exit, kit::Exit::GOOD, "{name} cut at {end}");
        }
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test of the program itself")]
fn a_stream_that_ends_between_two_tests_is_not_good() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cut.json");
    let events = [("start", ""), ("run", "TestA"), ("pass", "TestA")];
    let event = |(action, test)| format!("{}\n", serde_json::json!({"Action": action, "Package": "p", "Test": test}));
    fs::write(&file, events.map(event).concat()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_e2e-runner")).arg("parse").arg(file).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("FAIL p [unclassified]") && said.contains("1 tests: 1 passed"), "{said}");
    assert!(said.contains("the stream ends before the package does"), "{said}");
}

#[test]
fn a_build_that_failed_is_said_if_its_package_never_ends() {
    let failed = serde_json::json!({"Action": "build-fail", "ImportPath": "b [b.test]"});
    let good = [("start", ""), ("run", "TestA"), ("pass", "TestA"), ("pass", "")];
    let event = |(action, test)| format!("{}\n", serde_json::json!({"Action": action, "Package": "a", "Test": test}));
    let rows = report::rows(parse(format!("{failed}\n{}", good.map(event).concat()).as_bytes()));
    assert_eq!((rows[0].test.package.as_str(), rows[0].test.cause), ("b", Some(kit::Cause::BuildFailure)));
}

#[test]
fn a_package_that_comes_twice_is_two_packages() {
    use Status::{Failed, NotRun, Passed};
    let unbuilt = [["start", "p", "", ""], ["output", "p", "", "FAIL\tp [build failed]\n"], ["fail", "p", "", ""]];
    let begin = [["start", "p", "", ""], ["run", "p", "TestA", ""], ["pass", "p", "TestA", ""]];
    let end = [["output", "p", "", "PASS\n"], ["pass", "p", "", ""]];
    let good = [&begin[..], &end].concat();
    let build_failure = Some(kit::Cause::BuildFailure);
    let found = told(&[&unbuilt[..], &good[..]].concat());
    let rows = vec![(report::PACKAGE.to_owned(), Failed, build_failure), ("TestA".into(), Passed, None)];
    assert_eq!(found, (kit::Exit::NOT_GOOD, rows));
    // Cut the second time, with a test that still runs; and between two tests.
    let (exit, rows) = told(&[&good[..], &begin, &[["run", "p", "TestB", ""]]].concat());
    assert_eq!((exit, rows.len()), (kit::Exit::NOT_GOOD, 3));
    assert_eq!(rows[2], ("TestB".into(), NotRun, Some(kit::Cause::Unclassified)));
    let (exit, rows) = told(&[&good[..], &begin].concat());
    assert_eq!((exit, rows[0].2), (kit::Exit::NOT_GOOD, Some(kit::Cause::Unclassified)));
    // Before Go 1.20 nothing says that a package begins, and before 1.24 text says that it does not compile.
    assert_eq!(told(&[&good[..], &begin[1..]].concat()).0, kit::Exit::NOT_GOOD);
    let event = |action| format!("{}\n", serde_json::json!({"Action": action, "Package": "p"}));
    let rows = report::rows(parse(format!("{}{}FAIL\tp [build failed]\n", event("start"), event("pass")).as_bytes()));
    assert_eq!(rows[0].test.cause, build_failure);
}

#[test]
fn a_panic_that_a_test_only_printed_is_no_crash() {
    let (_, rows) = told(&[
        ["start", "p", "", ""],
        ["run", "p", "TestPrints", ""],
        ["output", "p", "TestPrints", "panic: in some container\n"],
        ["fail", "p", "TestPrints", ""],
        ["run", "p", "TestCrashes", ""],
        ["fail", "p", "", ""],
    ]);
    let product = Some(kit::Cause::Product);
    let expected = ["TestPrints", "TestCrashes"].map(|name| (name.to_owned(), Status::Failed, product));
    assert_eq!(rows, expected);
}

#[test]
fn who_waits_for_a_turn_is_not_to_blame() {
    use Status::{Failed, NotRun};
    let (product, late) = (Some(kit::Cause::Product), Some(kit::Cause::TestTimeout));
    let waits =
        |test: &'static str| [["run", "p", test, ""], ["output", "p", test, "=== PAUSE\n"], ["pause", "p", test, ""]];
    let begun =
        [&[["start", "p", "", ""], ["run", "p", "TestRuns", ""]][..], &waits("TestOne"), &waits("TestTwo")].concat();
    let goes_on = [["cont", "p", "TestOne", ""]];
    let dump = [["output", "p", "TestTwo", "SIGQUIT: quit\n"], ["output", "p", "TestTwo", "\ngoroutine 1 [select]:\n"]];
    let end = [["fail", "p", "", ""]];
    let of = |parts: &[&[[&str; 4]]]| told(&parts.concat()).1.into_iter().map(|row| (row.1, row.2)).collect::<Vec<_>>();
    // Without a word, and asked where it was: that is written to the log of whichever printed last.
    assert_eq!(of(&[&begun, &end]), [(Failed, product), (NotRun, product), (NotRun, product)]);
    assert_eq!(of(&[&begun, &dump, &end]), [(Failed, late), (NotRun, late), (NotRun, late)]);
    assert_eq!(of(&[&begun, &goes_on, &end]), [(Failed, product), (Failed, product), (NotRun, product)]);
    let idle = [&begun[..], &[["pass", "p", "TestRuns", ""]]].concat();
    let said = of(&[&idle, &end]);
    assert_eq!(said[1..], [(Status::Passed, None), (NotRun, product), (NotRun, product)], "nobody ran: {said:?}");
}

#[test]
fn a_test_fails_by_the_cause_of_its_subtests() {
    let says = |test: &'static str, line: &'static str| {
        [["run", "p", test, ""], ["output", "p", test, line], ["fail", "p", test, ""]]
    };
    let (away, bad) = ("    x.go:1: etcdserver: request timed out\n", "    x.go:1: wanted 2\n");
    let top = |second| {
        let begin = [["start", "p", "", ""], ["run", "p", "TestA", ""]];
        let talks = [["output", "p", "TestA/3", "    x.go:9: fine\n"]].repeat(9);
        let end = [["fail", "p", "TestA", ""], ["output", "p", "", "FAIL\n"], ["fail", "p", "", ""]];
        let events = [&begin[..], &says("TestA/1", away), &says("TestA/2", second), &talks, &end].concat();
        told(&events).1.into_iter().find(|row| row.0 == "TestA").unwrap().2
    };
    assert_eq!(top(away), Some(kit::Cause::Apiserver), "whatever others say after them");
    assert_eq!(top(bad), Some(kit::Cause::Product), "the strongest");
}

#[test]
fn the_time_of_a_test_begins_with_its_turn() {
    let dir = tempfile::tempdir().unwrap();
    let mut stream = Stream::new(Folder::new(dir.path()), true, &JUDGE, ());
    let events = [("run", 0), ("pause", 1), ("cont", 100), ("cont", 110), ("pass", 130)];
    for (action, second) in events {
        let time = jiff::Timestamp::from_second(second).unwrap().to_string();
        let event = serde_json::json!({"Action": action, "Package": "p", "Test": "TestA", "Time": time});
        stream.line(event.to_string().as_bytes()).unwrap();
    }
    let parsed = stream.finish(None).unwrap();
    assert_eq!((parsed.tests[0].began.as_second(), parsed.tests[0].seconds), (100, 30.0));
}

/// The events of a program that was started elsewhere, and what comes of them.
fn elsewhere(events: &[(&str, &str, &str)]) -> Parsed {
    let dir = tempfile::tempdir().unwrap();
    let judge = Judge::default().of_launcher();
    let mut stream = Stream::new(Folder::new(dir.path().join("logs")), true, &judge, ());
    for (action, test, output) in events {
        let event = serde_json::json!({"Action": action, "Package": "p", "Test": test, "Output": output});
        stream.line(event.to_string().as_bytes()).unwrap();
    }
    stream.finish(None).unwrap()
}

#[test]
fn a_program_that_was_cut_off_elsewhere_has_not_crashed() {
    let error = "error[node]: the pod of the tests was ended: low on memory\n";
    let of = |test| [("run", "TestA", ""), ("run", "TestB", ""), ("output", test, error), ("fail", "", "")];
    for test in ["TestA", "TestB", ""] {
        let parsed = elsewhere(&of(test));
        assert!(!parsed.packages[0].crashed, "{parsed:?}");
        let rows = report::rows(parsed);
        let said: Vec<_> = rows.iter().map(|row| (row.test.name.as_str(), row.test.status, row.test.cause)).collect();
        let node = Some(kit::Cause::Node);
        let expected =
            [(report::PACKAGE, Status::Failed, node), ("TestA", Status::NotRun, node), ("TestB", Status::NotRun, node)];
        assert_eq!(said, expected);
    }
    let killed = "the container was ended: OOMKilled, no memory\n";
    let parsed = elsewhere(&[("run", "TestA", ""), ("output", "TestA", killed), ("fail", "", "")]);
    assert!(parsed.packages[0].crashed);
    let rows = report::rows(parsed);
    assert_eq!((rows[0].test.status, rows[0].test.cause), (Status::Failed, Some(kit::Cause::Product)));
    assert!(rows[0].test.line.as_ref().unwrap().contains("OOMKilled"), "{rows:?}");
}

#[test]
fn hostile_names_stay_in_the_folder() {
    let dir = tempfile::tempdir().unwrap();
    let judge = Judge::default();
    let mut stream = Stream::new(Folder::new(dir.path().join("logs")), true, &judge, ());
    let long = "x".repeat(10_000);
    for name in ["../../../up", "/etc/passwd", "a\nb", "<b>&\u{1b}[2J", "\u{0}", &long, "CON", ".", ".."] {
        for action in ["run", "output", "fail"] {
            let event =
                serde_json::json!({"Action": action, "Package": "../p", "Test": name, "Output": "x\u{0}\u{1b}\n"});
            stream.line(event.to_string().as_bytes()).unwrap();
        }
    }
    let parsed = stream.finish(None).unwrap();
    assert_eq!(parsed.tests.len(), 9);
    assert_eq!(fs::read_dir(dir.path().join("logs")).unwrap().count(), 9);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[test]
fn compiler_words_between_the_events_count_as_well() {
    // As Go printed them before 1.24.
    let text = "# x/y [x/y.test]\n./y_test.go:5:2: undefined: z\nFAIL\tx/y [build failed]\nFAIL\n";
    let rows = report::rows(parse(text.as_bytes()));
    assert_eq!(rows[0].test.cause, Some(kit::Cause::BuildFailure));
    assert_eq!(rows[0].test.line.as_deref(), Some("./y_test.go:5:2: undefined: z"));
    // Of two packages, each its own.
    let text = "# a [a.test]\n./a_test.go:1:1: x\n# b [b.test]\n./b_test.go:2:2: y\nFAIL\ta [build failed]\nFAIL\tb [build failed]\n";
    let rows = report::rows(parse(text.as_bytes()));
    let said: Vec<_> = rows.iter().map(|row| row.test.line.as_deref().unwrap()).collect();
    assert_eq!(said, ["./a_test.go:1:1: x", "./b_test.go:2:2: y"]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..2000)) {
        parse(&bytes);
    }

    #[test]
    fn any_order_of_events_does_no_harm(events in proptest::collection::vec(
        (0_usize..12, 0_usize..3, 0_usize..5, "(?s).{0,20}"), 0..60))
    {
        let actions = ["start", "run", "pause", "cont", "pass", "fail", "skip", "bench", "output", "build-output", "build-fail", "new"];
        let text: String = events.iter().map(|(action, package, test, output)| {
            let test = ["", "TestA", "TestA/b", "TestA/b/c", "TestB"][*test];
            let event = serde_json::json!({
                "Action": actions[*action], "Package": format!("p{package}"), "Test": test,
                "Output": output, "Elapsed": -1.5, "Time": output,
            });
            format!("{event}\n")
        }).collect();
        let rows = report::rows(parse(text.as_bytes()));
        let tests: Vec<_> = rows.iter().map(|row| row.test.clone()).collect();
        let (tops, all) = report::count(&tests);
        for c in [tops, all] {
            prop_assert_eq!(c.asked, c.passed + c.failed + c.flaky + c.skipped + c.excluded + c.not_run);
        }
        let ran = events.iter().filter(|(action, _, test, _)| *action == 1 && *test > 0).count();
        let ended = events.iter().filter(|(action, _, test, _)| (4..7).contains(action) && *test > 0).count();
        prop_assert!(all.asked <= ran + ended);
        prop_assert!(tests.iter().all(|test| event::top(&test.name) == "TestA" || test.name == "TestB" || test.name == report::PACKAGE));
    }
}
