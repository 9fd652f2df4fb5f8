//! Test programs made by Go from tests/programs, without a cluster: compiling, listing, selecting, running
//! in passes, and everything that a program can do wrong.

#![allow(clippy::disallowed_methods, reason = "tests start the real programs")]

mod support;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use e2e_runner::{
    attempts,
    cause::Judge,
    hung::Limits,
    pace::Pace,
    passes::{Ran, Runner},
    program::Program,
    report::{self, PACKAGE, Row},
    rounds::{Attempts, Before},
    select::Selection,
};
use kit::{Cause, Ui, process::Stopper, record::Status};
use support::World;

const SUITES: &str = "passes = [['-category=serial'], ['-category=parallel']]
[own.suites.smoke]
default = true
tests = ['TestSerial', 'TestParallel', 'TestNowhere']
time_limit = '10m'
[own.suites.wrong]
tests = ['TestSerial', 'TestGone']
[own.suites.none]
";

const SKIPS: &str = "[[skip]]
component = 'own'
tests = ['TestParallel', 'TestSubtests/needs_the_internet']
reason = 'needs the internet'
owner = 'us'
until = '2999-01-01'
";

#[test]
fn sources_that_do_not_compile() {
    let world = World::new("broken", SUITES, "");
    let ended = world.run(&["prepare"]);
    ended.says(
        1,
        &["error[build-failure]: own's tests do not compile", "broken_test.go:4:29: cannot use", "go test -c"],
    );
}

#[test]
fn a_package_without_tests() {
    World::new("none", SUITES, "").run(&["prepare"]).says(4, &["error[nothing-ran]", "has no tests"]);
    World::new("absent", SUITES, "").run(&["prepare"]).says(2, &["has no package ./absent"]);
}

#[test]
fn go_is_not_to_be_had() {
    let world = World::new("test", SUITES, "");
    let output = world.command(&["prepare"]).env("OTHER_ARCH_GO", "/nowhere/go").output().unwrap();
    support::Ended::of(output).says(5, &["error[missing-program]", "OTHER_ARCH_GO names /nowhere/go"]);
}

#[test]
fn what_would_run_is_said_and_what_cannot_is_refused() {
    let world = World::new("test", SUITES, SKIPS);
    world.run(&["prepare"]).says(0, &["x.test", "own: compile the tests done"]);
    let again = world.run(&["prepare", "--output", "json"]);
    again.says(0, &["\"compiled\": false", "\"package\": \"own/test\"", "TestNowhere"]);

    let plan = ["run", "--dry-run"];
    let with = |more: &[&str]| world.run(&[&plan[..], more].concat());
    with(&[]).says(
        0,
        &[
            "# 2 tests of smoke",
            "#   TestParallel: needs the internet",
            "'-test.run=^(TestSerial|TestNowhere)$'",
            "-category=serial\n",
            "-category=parallel\n",
            "export OWN='for linux'",
        ],
    );
    with(&["--tests", "TestSubtests"]).says(0, &["# 1 tests of selection", r"^TestSubtests$/^needs_the_internet$'"]);
    with(&["--suite", "wrong"]).says(2, &["[own.suites.wrong]: no such test in the program: TestGone"]);
    with(&["--suite", "none"]).says(4, &["no tests selected of 9"]);
    with(&["--suite", "other"]).says(2, &["there is no suite 'other'", "smoke"]);
    with(&["--tests", "["]).says(2, &["--tests [: not a regular expression"]);
    with(&["--tests", "TestParallel"]).says(4, &["no tests selected of 9 (1 are left out by ci/skips.toml)"]);
    // However few they are, a test that hangs is ended.
    let limit = |more: &[&str]| {
        let said = with(more).out;
        let found =
            regex::Regex::new(r"-test\.timeout=(\d+)ms").unwrap().captures(&said).map(|found| found[1].to_owned());
        found.unwrap_or_else(|| panic!("{said}")).parse::<u64>().unwrap().div_ceil(60_000)
    };
    assert_eq!(limit(&[]), 10, "the suite's");
    assert_eq!(limit(&["--suite", "smoke", "--tests", "TestSerial"]), 10, "the suite's all the same");
    assert_eq!(limit(&["--tests", "TestSerial"]), 120, "of no suite");
    assert_eq!(limit(&["--tests", "TestSerial", "--slowdown", "3"]), 360, "stretched");
    with(&["--tests", "TestSubtests/good"]).says(0, &["'-test.run=^TestSubtests$/good'"]);
    with(&["--skip", "TestSerial|TestSubtests/good"]).says(0, &["# 1 tests of selection", "^(TestNowhere)$"]);
    with(&["--package", "./test"]).says(2, &["--package is for --kind unit, and this is --kind e2e"]);
    with(&["--script", "x"]).says(2, &["--script is for --kind script, and this is --kind e2e"]);
    with(&["--shard", "1/2"]).says(0, &["# 1 tests of smoke, part 1/2", "#   TestParallel: needs the internet"]);
    with(&["--shard", "2/2"]).says(0, &["# 1 tests of smoke, part 2/2", "# left out: 0"]);
    with(&["--shard", "3/3"]).says(2, &["part 3/3 has no tests: there are only 2"]);
    with(&["--shard", "0/2"]).says(2, &["as in 1/3"]);
    with(&["--only-failed", "/nowhere"]).says(2, &["cannot read /nowhere"]);
    // Where others of its tests ran, that is no fault.
    with(&["--kind", "examples"]).says(4, &["component 'own' has no tests of kind examples", "[own.examples]"]);
    with(&["--kind", "unit"]).says(4, &["component 'own' has no unit tests"]);
    with(&["--kind", "script"]).says(2, &["component 'own' has no script that is meant"]);
}

#[test]
fn a_run_that_failed_as_a_whole_is_run_again_as_a_whole() {
    let world = World::new("test", SUITES, "");
    let record = |tests: Vec<kit::record::Test>| {
        let head = kit::record::Head::new("e2e-runner", "0", "r", jiff::Timestamp::UNIX_EPOCH);
        let results = kit::record::Results {
            head: head.failed(&kit::Error::new(Cause::ClusterUnreachable, "it does not answer")),
            component: "own".into(),
            version: "devel".into(),
            kind: "e2e".into(),
            suite: "smoke".into(),
            platform: kit::Platform::host(),
            nature: kit::record::Nature::Native,
            cluster: "u".into(),
            release: None,
            counts: Default::default(),
            all_counts: Default::default(),
            conditions: Default::default(),
            tests,
            shard: (1, 1),
            whole: None,
            evidence: None,
        };
        kit::rundir::write_json(&world.path("results.json"), &results).unwrap();
        let place = world.path("results.json").display().to_string();
        world.run(&["run", "--dry-run", "--only-failed", &place])
    };
    record(Vec::new()).says(0, &["# 3 tests of smoke:"]);
    let good = report::row("TestSerial", "own/test", Status::Passed);
    let of_cluster = report::of_cluster("c", Cause::Node, "2 pods ran elsewhere".into()).test;
    record(vec![good.clone(), of_cluster.clone()]).says(0, &["# 3 tests of smoke:"]);
    let bad = report::row("TestParallel", "own/test", Status::Failed);
    record(vec![good, of_cluster, bad]).says(0, &["# 1 tests of selection:", "#   TestParallel"]);
}

#[test]
fn unit_tests_are_listed_from_sources_for_the_platform() {
    let unit = "[own.unit]\npackages = ['./...']\nenv = { OWN = 'for {goarch}' }\nbase = '{registry}/base'\n";
    let world = World::new("test", &format!("{SUITES}{unit}"), SKIPS);
    let with = |more: &[&str]| {
        world.run(&[&["run", "--kind", "unit", "--dry-run", "--platform", "linux/s390x"], more].concat())
    };
    with(&[]).says(
        0,
        &[
            "unit tests as pods on linux/s390x, in {registry}/base",
            "export OWN='for s390x'",
            "tests of own/test:",
            "'-test.run=^(TestSerial|TestOther|TestNowhere|TestSubtests|TestEnvironment|TestProvoked|TestConnects|TestWaits)$'",
            "2 tests of own/pods",
        ],
    );
    let one = with(&["--package", "./test", "--tests", "TestOther"]);
    one.says(0, &["# 1 tests of own/test:", "^(TestOther)$"]);
    assert!(!one.out.contains("own/pods"), "{}", one.out);
    with(&["--package", "./absent"]).says(2, &["error[usage]"]);
    with(&["--shard", "1/2"]).says(2, &["--shard is for --kind e2e or examples, and this is --kind unit"]);
    let but = with(&["--package", "./test", "--tests", "TestS", "--skip", "Serial|TestSubtests/good"]);
    but.says(0, &["# 1 tests of own/test:", "^(TestSubtests)$", "|TestSubtests/good'"]);
    with(&["--package", "./test", "--tags", "none"]).says(0, &["tests of own/test:"]);
    with(&["--tests", "TestGone"]).says(4, &["no unit tests selected"]);
    // A package of which everything is left out is there, and an entry that no package knows is said.
    let skips = "[[skip]]\ncomponent = 'own'\ntests = ['TestPod', 'TestPati*', 'TestNowhere']\nreason = 'to see'\n\
        owner = 'us'\nuntil = '2999-01-01'\n[[skip]]\ncomponent = 'own'\nsuites = ['unit']\ntests = ['TestLost', 'TestOther']\n\
        reason = 'to see'\nowner = 'us'\nuntil = '2999-01-01'\n";
    std::fs::write(world.path("ci/skips.toml"), skips).unwrap();
    let ended = with(&[]);
    ended.says(0, &["# 0 tests of own/pods:\n#   left out: TestPod: to see\n#   left out: TestPatience: to see"]);
    ended.says(0, &["no package of own has a test TestLost"]);
    assert!(!ended.err.contains("has a test TestOther") && !ended.err.contains("has a test TestPod"), "{}", ended.err);
    let one = with(&["--package", "./test"]);
    assert!(!one.err.contains("TestLost"), "one package cannot tell: {}", one.err);
}

/// All tests of tests/programs/own/test.
const ALL: &[&str] = &[
    "TestSerial",
    "TestParallel",
    "TestOther",
    "TestNowhere",
    "TestSubtests",
    "TestEnvironment",
    "TestProvoked",
    "TestConnects",
    "TestWaits",
];

/// The program of tests/programs/own/test, and where its logs go.
struct Made {
    program: Program,
    world: World,
    /// Whether subtests that failed are tried again by themselves.
    by_leaves: bool,
    /// Whether an outage is over when somebody waits for that.
    over: bool,
}

impl Made {
    fn new() -> Self {
        let world = World::new("test", SUITES, "");
        let ended = world.run(&["prepare", "--output", "json"]);
        let said: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
        let tool = Command::new("go").args(["tool", "-n", "test2json"]).output().unwrap();
        let program = Program {
            path: said["program"].as_str().unwrap().into(),
            folder: Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/programs/own/test"),
            package: "own/test".into(),
            go_bin: PathBuf::new(),
            test2json: String::from_utf8(tool.stdout).unwrap().trim().into(),
            compiled: true,
            changes: Vec::new(),
            sources: String::new(),
        };
        Self { program, world, by_leaves: false, over: false }
    }

    fn run(&self, tests: &[&str], env: &[(&str, &str)], change: impl FnOnce(&mut Runner<'_>)) -> (Vec<Row>, Ran) {
        let selection = Selection {
            asked: tests.iter().map(ToString::to_string).collect(),
            others: ALL.iter().filter(|test| !tests.contains(test)).map(ToString::to_string).collect(),
            excluded: vec![("TestSubtests/needs_the_internet".into(), "needs the internet".into())],
            ..Selection::default()
        };
        let pass = |category: &str| vec![format!("-category={category}")];
        let mut environment: BTreeMap<String, std::ffi::OsString> =
            BTreeMap::from([("KUBECONFIG".into(), "/k".into()), ("OWN".into(), "for linux".into())]);
        environment.extend(env.iter().map(|(name, value)| ((*name).to_owned(), value.into())));
        environment.insert("PROVOKE_FILE".into(), self.world.path("flaked").into());
        let mut runner = Runner {
            program: &self.program,
            selection: &selection,
            launcher: Vec::new(),
            arguments: vec!["-kubeconfig=/k".into()],
            passes: vec![pass("serial"), pass("parallel")],
            parallel: None,
            environment,
            logs: self.world.path("logs"),
            allowance: std::sync::Arc::default(),
            deadline: None,
            limit: None,
            silence: Duration::from_secs(60),
            limits: Limits::default(),
            max_failures: None,
            stopper: Stopper::default(),
            judge: Judge::default(),
            turns: e2e_runner::turns::Turns::default(),
        };
        change(&mut runner);
        runner.record(&selection.asked).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let ui = Ui::silent();
        let tries = Attempts {
            runner: &runner,
            name: "own",
            before: Before::default(),
            second_attempt: true,
            by_leaves: self.by_leaves,
            judge: &|_| (),
            comes_back: &|| {
                runner.stopper.clear();
                Ok(self.over)
            },
            runtime: &runtime,
            ui: &ui,
        };
        let (mut rows, ran) = tries.run(&selection.asked, "tests").unwrap();
        rows.extend(attempts::left_out(&selection, "own/test"));
        (rows, ran)
    }
}

fn find<'r>(rows: &'r [Row], name: &str) -> &'r kit::record::Test {
    &rows.iter().find(|row| row.test.name == name).unwrap_or_else(|| panic!("{name} is not in {rows:?}")).test
}

fn exit(rows: &[Row]) -> u8 {
    report::verdict(rows.iter().map(|row| &row.test)).0.0
}

#[test]
fn a_program_that_filters_for_itself_runs_what_was_asked() {
    let made = Made::new();
    let asked = ["TestSerial", "TestParallel", "TestNowhere", "TestSubtests", "TestEnvironment"];
    let (rows, _) = made.run(&asked, &[], |_| {});
    for good in ["TestSerial", "TestParallel", "TestSubtests", "TestSubtests/good", "TestEnvironment"] {
        assert_eq!(find(&rows, good).status, Status::Passed, "{good}: {:?}", find(&rows, good));
    }
    assert!(rows.iter().all(|row| row.test.name != "TestOther"), "nobody asked for it");
    let nowhere = find(&rows, "TestNowhere");
    assert_eq!((nowhere.status, nowhere.cause), (Status::NotRun, Some(Cause::Usage)));
    assert!(nowhere.line.as_ref().unwrap().contains("no pass of the test program ran it"), "{nowhere:?}");
    assert_eq!(find(&rows, "TestSubtests/needs_the_internet").status, Status::Skipped);
    let (tops, _) = report::count(rows.iter().map(|row| &row.test));
    assert_eq!((tops.asked, tops.passed, tops.not_run), (5, 4, 1));
    assert_eq!(exit(&rows), 2);
    let secret = [("MY_TOKEN", "s3cret"), ("GOPROXY", "https://me:s3cret@proxy.example")];
    made.run(&asked[..1], &secret, |runner| {
        // What starts it elsewhere needs time of its own, which is not the program's.
        runner.deadline = Some(Instant::now() + Duration::from_secs(700));
        runner.limit = Some(Duration::from_secs(100));
    });
    let command = std::fs::read_to_string(made.world.path("logs/_command.txt")).unwrap();
    assert!(!command.contains("s3cret") && command.contains("export MY_TOKEN='***'"), "{command}");
    assert!(command.contains("-test.timeout=100000ms"), "{command}");
    assert!(command.contains("export OWN='for linux'") && command.contains("-category=parallel"), "{command}");
}

#[test]
fn what_a_test_does_wrong_has_its_cause() {
    let made = Made::new();
    let provoked = |how: &str, change: fn(&mut Runner<'_>)| {
        let (rows, ran) = made.run(&["TestSerial", "TestProvoked"], &[("PROVOKE", how)], change);
        (find(&rows, "TestProvoked").clone(), exit(&rows), ran)
    };
    let (test, code, _) = provoked("fail", |_| {});
    assert_eq!((test.status, test.cause, test.attempts, code), (Status::Failed, Some(Cause::Product), 2, 1));
    assert!(test.line.unwrap().ends_with("told to fail"));
    let (test, code, _) = provoked("flake", |_| {});
    assert_eq!((test.status, test.cause, test.attempts, code), (Status::Flaky, Some(Cause::Flaky), 2, 0));
    for (how, line) in [("panic", "panic: told to panic"), ("exit", "without a word (exit status 7)")] {
        let (test, code, _) = provoked(how, |_| {});
        assert_eq!((test.status, test.cause, test.attempts, code), (Status::Failed, Some(Cause::Product), 1, 1));
        assert!(test.line.as_ref().unwrap().contains(line), "{test:?}");
    }
    let (test, code, _) = provoked("hang", |runner| runner.deadline = Some(Instant::now() + Duration::from_secs(8)));
    assert_eq!((test.status, test.cause, test.attempts, code), (Status::Failed, Some(Cause::TestTimeout), 1, 1));
    let log = std::fs::read_to_string(made.world.path(test.log.as_ref().unwrap())).unwrap();
    assert!(log.contains("own/test.TestProvoked("), "the log says where it hangs");
    let (test, _, _) = provoked("hang", |runner| runner.silence = Duration::from_secs(1));
    assert_eq!(test.cause, Some(Cause::TestTimeout), "{test:?}");
    assert_eq!(test.line.as_deref(), Some("TestProvoked ran longest when nothing was printed for 1.0 s"));
    let (test, code, _) = provoked("hang", |runner| runner.stopper.stop());
    assert_eq!((test.cause, code), (Some(Cause::ClusterUnreachable), 3), "{test:?}");
}

#[test]
fn a_test_that_hangs_silently_takes_nobody_with_it_either() {
    let made = Made::new();
    let asked = ["TestSerial", "TestParallel", "TestProvoked"];
    let (rows, ran) = made.run(&asked, &[("PROVOKE", "hang")], |runner| runner.silence = Duration::from_secs(1));
    let hung = find(&rows, "TestProvoked");
    assert_eq!((hung.status, hung.cause, hung.attempts), (Status::Failed, Some(Cause::TestTimeout), 1));
    assert_eq!((find(&rows, "TestParallel").status, ran.stopped), (Status::Passed, None), "{rows:?}");
}

#[test]
fn a_test_that_hangs_takes_nobody_with_it() {
    let made = Made::new();
    let second = Some(Duration::from_secs(1));
    let asked = ["TestSerial", "TestParallel", "TestProvoked"];
    let (rows, ran) = made.run(&asked, &[("PROVOKE", "hang")], |runner| {
        runner.limits = Limits::new(second, None, &[], &Pace::default());
    });
    let hung = find(&rows, "TestProvoked");
    assert_eq!((hung.status, hung.cause, hung.attempts), (Status::Failed, Some(Cause::TestTimeout), 1));
    assert_eq!(hung.line.as_deref(), Some("TestProvoked took longer than one test may: 1.0 s"));
    let log = std::fs::read_to_string(made.world.path(hung.log.as_ref().unwrap())).unwrap();
    assert!(log.contains("own/test.TestProvoked("), "the log says where it hangs: {log}");
    // It waited for its turn, which came in another program.
    let other = find(&rows, "TestParallel");
    assert_eq!((other.status, other.attempts), (Status::Passed, 1), "{other:?}");
    assert_eq!((rows.len(), ran.stopped, ran.streams.len()), (4, None, 3), "{rows:?}");
    assert_eq!(exit(&rows), 1);
    // It has hung also where its end is the failure that is one too many.
    let (rows, _) = made.run(&["TestOther", "TestProvoked"], &[("PROVOKE", "hang")], |runner| {
        runner.limits = Limits::new(second, None, &[], &Pace::default());
        runner.max_failures = Some(2);
    });
    assert_eq!(find(&rows, "TestProvoked").cause, Some(Cause::TestTimeout));
}

#[test]
fn what_an_outage_stopped_runs_once_more_when_it_is_over() {
    let mut made = Made::new();
    let asked = ["TestSerial", "TestParallel", "TestProvoked", "TestSubtests"];
    let run = |made: &Made| {
        let stalls = made.world.path("flaked");
        let _ = std::fs::remove_file(&stalls);
        made.run(&asked, &[("PROVOKE", "stall")], |runner| {
            let stopper = runner.stopper.clone();
            std::thread::spawn(move || {
                let late = Instant::now() + Duration::from_secs(60);
                while !stalls.exists() && Instant::now() < late {
                    std::thread::sleep(Duration::from_millis(50));
                }
                std::thread::sleep(Duration::from_millis(200));
                stopper.stop();
            });
        })
    };
    let (rows, _) = run(&made);
    let away = Some(Cause::ClusterUnreachable);
    assert_eq!((find(&rows, "TestProvoked").cause, find(&rows, "TestParallel").cause), (away, away));
    assert_eq!(
        (find(&rows, "TestProvoked").status, find(&rows, "TestParallel").status),
        (Status::Failed, Status::NotRun)
    );
    assert_eq!(exit(&rows), 3);
    made.over = true;
    let (rows, ran) = run(&made);
    let stalled = find(&rows, "TestProvoked");
    assert_eq!((stalled.status, stalled.attempts), (Status::Flaky, 2), "{rows:?}");
    assert!(stalled.line.as_ref().unwrap().starts_with("cluster-unreachable: "), "{stalled:?}");
    let waited = find(&rows, "TestParallel");
    assert_eq!((waited.status, find(&rows, "TestSerial").attempts), (Status::Passed, 1), "{waited:?}");
    assert_eq!((ran.stopped, exit(&rows)), (None, 0));
}

#[test]
fn a_subtest_that_failed_can_run_again_by_itself() {
    let made = Made { by_leaves: true, ..Made::new() };
    let (rows, _) = made.run(&["TestProvoked", "TestParallel"], &[("PROVOKE", "leaf")], |_| {});
    let said: Vec<_> =
        ["TestProvoked", "TestProvoked/good", "TestProvoked/more/two"].map(|name| find(&rows, name)).into();
    let said: Vec<_> = said.iter().map(|test| (test.status, test.attempts)).collect();
    // Its TestMain sets a -test.run of its own.
    assert_eq!(said, [(Status::Flaky, 2), (Status::Passed, 1), (Status::Flaky, 2)], "{rows:?}");
    assert_eq!(exit(&rows), 0);
}

#[test]
fn output_that_ends_early_is_nobody_s_wrong_call() {
    let mut made = Made::new();
    let real = made.program.test2json.display().to_string();
    let filter = |name: &str, script: String| {
        use std::os::unix::fs::PermissionsExt;
        let file = made.world.path(name);
        std::fs::write(&file, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o755)).unwrap();
        file
    };
    // Between two tests.
    let first = r#"sed '/"Action":"pass",.*"Test":"TestSerial"/q'"#;
    let killed = filter("killed", format!("{real} \"$@\" | {first}; kill -9 $$"));
    let mute = filter("mute", "exit 1".into());
    made.program.test2json = killed;
    let (rows, ran) = made.run(&["TestSerial", "TestEnvironment", "TestParallel"], &[], |_| {});
    assert_eq!(find(&rows, "TestSerial").status, Status::Passed);
    for name in ["TestEnvironment", "TestParallel"] {
        let test = find(&rows, name);
        assert_eq!((test.status, test.cause), (Status::NotRun, Some(Cause::Unclassified)), "{test:?}");
        assert_eq!(test.line.as_deref(), Some("the test program's output ended early (exit code 137)"));
    }
    assert_eq!((exit(&rows), ran.streams.len()), (1, 1));
    made.program.test2json = mute;
    let (rows, _) = made.run(&["TestSerial"], &[], |_| {});
    assert_eq!((find(&rows, "TestSerial").cause, exit(&rows)), (Some(Cause::Unclassified), 1));
}

#[test]
fn a_flood_of_output_fills_neither_memory_nor_disk() {
    let made = Made::new();
    let (rows, _) = made.run(&["TestProvoked"], &[("PROVOKE", "flood")], |_| {});
    let test = find(&rows, "TestProvoked");
    assert!(test.line.as_ref().unwrap().ends_with("after the flood"), "{test:?}");
    let log = std::fs::read_to_string(made.world.path(test.log.as_ref().unwrap())).unwrap();
    assert!(log.len() < 600 << 10, "{}", log.len());
    assert!(log.starts_with("=== RUN   TestProvoked\n0 a line") && log.contains(" bytes left out ...]"));
    assert!(log.contains("399999 a line"));
}

#[test]
fn so_many_failures_can_end_it() {
    let made = Made::new();
    // The second failure comes when another test hangs.
    let env = [("OWN", "wrong"), ("PROVOKE", "hang")];
    let asked = ["TestEnvironment", "TestOther", "TestProvoked"];
    let (rows, ran) = made.run(&asked, &env, |runner| runner.max_failures = Some(2));
    assert_eq!(find(&rows, "TestEnvironment").status, Status::Failed);
    assert_eq!(find(&rows, "TestOther").status, Status::Failed);
    let test = find(&rows, "TestProvoked");
    assert_eq!((test.status, test.cause), (Status::NotRun, None), "{test:?}");
    assert_eq!(test.line.as_deref(), Some("--max-failures, and 2 tests had failed"));
    assert_eq!((ran.streams.len(), exit(&rows)), (2, 1));
    // A test that runs when it is enough has not failed.
    let asked = ["TestOther", "TestProvoked"];
    let (rows, _) = made.run(&asked, &[("PROVOKE", "hang")], |runner| {
        runner.passes.remove(0);
        runner.max_failures = Some(1);
    });
    assert_eq!(find(&rows, "TestOther").status, Status::Failed);
}

#[test]
fn the_first_failure_can_end_it() {
    let made = Made::new();
    let env = [("OWN", "wrong")];
    let (rows, ran) = made.run(&["TestEnvironment", "TestParallel"], &env, |runner| runner.max_failures = Some(1));
    assert_eq!(find(&rows, "TestEnvironment").status, Status::Failed);
    let other = find(&rows, "TestParallel");
    assert_eq!((other.status, other.cause), (Status::NotRun, None));
    assert_eq!((ran.streams.len(), other.line.as_deref()), (1, Some("--fail-fast, and TestEnvironment failed")));
    assert_eq!(exit(&rows), 1);
}

/// Stands in for `in-pod`: so many times it says why it cannot run the program.
const LAUNCHER: &str = r#"n=$(cat "$COUNT" 2>/dev/null || echo 0)
echo $((n + 1)) >"$COUNT"
if [ "$n" -lt "$FAILS" ]; then
    echo "error[$CAUSE]: the pod of the tests: no" >&2
    exit 3
fi
exec "$@"
"#;

#[test]
fn what_a_program_runs_on_is_tried_again_if_time_may_heal_it() {
    let made = Made::new();
    let launcher = made.world.path("launcher");
    std::fs::write(&launcher, LAUNCHER).unwrap();
    let run = |cause: &str, fails: &str| {
        let count = made.world.path(cause);
        let env = [("COUNT", count.to_str().unwrap()), ("CAUSE", cause), ("FAILS", fails), ("PATH", "/usr/bin:/bin")];
        let (rows, _) = made.run(&["TestSerial", "TestSubtests"], &env, |runner| {
            runner.launcher = vec!["/bin/sh".into(), launcher.display().to_string()];
            runner.passes = vec![vec![]];
            runner.judge = Judge::default().of_launcher();
        });
        (rows, std::fs::read_to_string(count).unwrap().trim().to_owned())
    };
    let (rows, count) = run("image-pull", "1");
    let package = find(&rows, PACKAGE);
    assert_eq!((package.status, package.attempts, count.as_str()), (Status::Flaky, 2, "2"), "{package:?}");
    for name in ["TestSerial", "TestSubtests", "TestSubtests/good"] {
        assert_eq!((find(&rows, name).status, find(&rows, name).attempts), (Status::Passed, 1), "{name}");
    }
    assert_eq!(exit(&rows), 0);
    let (rows, count) = run("host-disk", "1");
    assert_eq!((exit(&rows), count.as_str()), (3, "1"));
    let test = find(&rows, "TestSerial");
    assert_eq!((test.status, test.cause), (Status::NotRun, Some(Cause::HostDisk)));
}
