//! Tests of two runs beside each other.

use super::*;
use crate::{report::row, runs::tests::results};

fn test(name: &str, status: Status, cause: Option<Cause>) -> Test {
    Test { cause, ..row(name, "p", status) }
}

fn compared(ours: Vec<Test>, theirs: Vec<Test>) -> Comparison {
    let of = |platform: &str, tests| {
        let results = results("x", platform, tests);
        let found = Found { path: PathBuf::new(), digest: String::new(), results };
        side(vec![found], std::path::Path::new("run")).unwrap()
    };
    let (here, there) = (of("linux/s390x", ours), of("linux/amd64", theirs));
    same_tests(&here, &there).unwrap();
    compare(here.0, &tests(&here.1), there.0, &tests(&there.1))
}

fn names(pairs: &[Pair]) -> Vec<&str> {
    pairs.iter().map(|pair| pair.test.as_str()).collect()
}

#[test]
fn what_fails_on_both_is_not_the_architecture_s() {
    use Status::{Failed, Flaky, NotRun, Passed, Skipped};
    let product = Some(Cause::Product);
    let ours = vec![
        test("TestEndian", Failed, product),
        test("TestEndian/big", Failed, product),
        test("TestBroken", Failed, product),
        test("TestAway", Failed, Some(Cause::Node)),
        test("TestAlone", Failed, Some(Cause::Unclassified)),
        test("TestCut", NotRun, None),
        test("TestGood", Passed, None),
        test("TestSkips", Skipped, None),
        test("TestBetter", Passed, None),
        test("TestThereAway", Failed, product),
    ];
    let theirs = vec![
        test("TestEndian", Passed, None),
        test("TestEndian/big", Passed, None),
        test("TestBroken", Failed, Some(Cause::TestTimeout)),
        test("TestAway", Passed, None),
        test("TestCut", Passed, None),
        test("TestGood", Flaky, Some(Cause::Flaky)),
        test("TestSkips", Passed, None),
        test("TestBetter", Failed, product),
        test("TestThereAway", Failed, Some(Cause::Registry)),
    ];
    let found = compared(ours, theirs);
    assert_eq!(names(&found.only_here), ["TestCut", "TestEndian/big"]);
    assert_eq!(names(&found.both), ["TestBroken"]);
    assert_eq!(names(&found.infrastructure), ["TestAway"]);
    assert_eq!(names(&found.unknown), ["TestAlone", "TestThereAway"]);
    assert_eq!(names(&found.only_there), ["TestBetter"]);
    assert_eq!(names(&found.skipped_here), ["TestSkips"]);
    assert_eq!(found.same, 1);
    assert_eq!((found.verdict().exit().0, found.verdict().cause), (1, Some(Cause::Product)));
    let said = found.summary();
    for words in
        ["failed on linux/s390x only: 2", "not by the architecture: 1\n  TestBroken [product] (there [test-timeout])"]
    {
        assert!(said.contains(words), "'{words}' is not in\n{said}");
    }
}

#[test]
fn what_did_not_run_here_is_not_good_here() {
    use Status::{Failed, NotRun, Passed, Skipped};
    let b = || test("TestB", Passed, None);
    let theirs = vec![
        b(),
        test("TestSuite", Passed, None),
        test("TestSuite/x", Passed, None),
        test("TestSub", Passed, None),
        test("TestSub/deep", Passed, None),
        test("TestStops", Passed, None),
        test("TestStops/later", Passed, None),
        test("TestLeft", Skipped, None),
    ];
    let ours = vec![b(), test("TestSub", Passed, None), test("TestStops", Skipped, None)];
    let found = compared(ours, theirs);
    assert_eq!(names(&found.missing_here), ["TestSub/deep", "TestSuite"]);
    assert_eq!((found.verdict().exit().0, found.verdict().cause), (4, Some(Cause::NothingRan)));
    let said = found.summary();
    for words in
        ["ran on linux/amd64, not there on linux/s390x: 2", "not all that ran on linux/amd64 ran on linux/s390x"]
    {
        assert!(said.contains(words), "'{words}' is not in\n{said}");
    }
    let subtest = compared(vec![b()], vec![b(), test("TestB/17", Passed, None)]);
    assert_eq!((subtest.missing_here.len(), subtest.verdict().exit().0), (1, 0), "it may have another name each time");
    // Both ended at the same failure, and here it came sooner.
    let bad = || test("TestA", Failed, Some(Cause::Product));
    let found = compared(vec![bad(), test("TestB", NotRun, None)], vec![bad(), b()]);
    assert_eq!((names(&found.only_here), found.verdict().cause), (vec!["TestB"], Some(Cause::Unclassified)));
    assert_eq!(found.verdict().exit().0, 1);
    assert!(found.summary().contains("  TestB (not run)\n"), "{}", found.summary());
}

#[test]
fn what_failed_as_a_whole_counts_as_well() {
    use Status::{Failed, Passed};
    let package = |package: &str, cause| Test { package: package.into(), ..test(PACKAGE, Failed, Some(cause)) };
    let good = || test("TestA", Passed, None);
    let verdict = |ours: Vec<Test>, theirs: Vec<Test>| compared(ours, theirs).verdict().cause;
    assert_eq!(verdict(vec![good(), package("q", Cause::BuildFailure)], vec![good()]), Some(Cause::BuildFailure));
    let found = compared(vec![package("p", Cause::BuildFailure), good()], vec![good()]);
    assert_eq!((found.only_here.len(), found.only_here[0].there), (1, Some(Passed)), "its tests ran there");
    assert!(found.summary().contains("  p [build-failure]\n"), "{}", found.summary());
    let both = || vec![package("q", Cause::BuildFailure), good()];
    assert_eq!((verdict(both(), both()), compared(both(), both()).both.len()), (None, 1));
    assert_eq!(verdict(vec![good(), package("c", Cause::Node)], vec![good()]), Some(Cause::Node));
    let twice = vec![good(), package("c", Cause::Node), package("c", Cause::PolicyRefused)];
    assert_eq!(verdict(twice, vec![good()]), Some(Cause::PolicyRefused), "each counts");
    let found = compared(vec![good()], vec![good(), package("c", Cause::Node)]);
    assert_eq!((found.only_there.len(), found.verdict().exit().0), (1, 0));
}

#[test]
fn a_run_that_never_came_to_its_tests_says_so() {
    let of = |tests: Vec<Test>, cause| {
        let mut results = results("x", "linux/s390x", tests);
        results.head = results.head.clone().failed(&Error::new(cause, "the cluster is away"));
        side(vec![Found { path: PathBuf::new(), digest: String::new(), results }], "run".as_ref()).unwrap().1
    };
    let rows = of(vec![], Cause::ClusterUnreachable);
    let said = tests(&rows);
    let row = said.values().next().unwrap();
    assert_eq!((row.cause, row.line.as_deref()), (Some(Cause::ClusterUnreachable), Some("the cluster is away")));
    let bad = vec![test("TestA", Status::Failed, Some(Cause::Product))];
    assert_eq!(tests(&of(bad, Cause::Product)).len(), 1, "its tests say it");
}

#[test]
fn what_lacks_the_architecture_is_excused_by_nothing() {
    use Status::{Failed, NotRun};
    for cause in [Cause::ImageWrongArch, Cause::ImageMissingPlatform] {
        for (here, there) in [(Failed, Cause::Product), (Failed, cause), (NotRun, Cause::Product)] {
            let found = compared(vec![test("TestA", here, Some(cause))], vec![test("TestA", Failed, Some(there))]);
            assert_eq!((names(&found.only_here), found.both.len()), (vec!["TestA"], 0), "{cause} {there}");
            assert_eq!(found.verdict().exit().0, 1);
        }
    }
}

#[test]
fn exit_codes() {
    use Status::{Failed, Passed};
    let bad = |cause| test("TestA", Failed, Some(cause));
    let good = || test("TestA", Passed, None);
    let code = |ours, theirs| compared(vec![ours, test("TestB", Passed, None)], theirs).verdict().exit().0;
    let b = || test("TestB", Passed, None);
    assert_eq!(code(good(), vec![good(), b()]), 0);
    assert_eq!(code(bad(Cause::Product), vec![bad(Cause::Product), b()]), 0);
    assert_eq!(code(bad(Cause::Product), vec![good(), b()]), 1);
    assert_eq!(code(bad(Cause::Product), vec![b()]), 1, "nothing there excuses it");
    assert_eq!(code(bad(Cause::Apiserver), vec![good(), b()]), 3);
    assert_eq!(code(good(), vec![]), 4, "nothing was compared");
}

#[test]
fn other_tests_are_refused() {
    let of = |platform: &str, version: &str, sources: &str| {
        let mut results = results("x", platform, vec![test("TestA", Status::Passed, None)]);
        results.version = version.into();
        results.head.inputs.push(kit::record::Input { name: SOURCES.into(), digest: sources.into() });
        results
    };
    let found = |results| Found { path: PathBuf::new(), digest: String::new(), results };
    let one = |version, sources| side(vec![found(of("linux/amd64", version, sources))], "run".as_ref()).unwrap();
    assert!(same_tests(&one("v1", "h1:a"), &one("v1", "h1:a")).is_ok());
    for (version, sources) in [("v2", "h1:a"), ("v1", "h1:b")] {
        let error = same_tests(&one("v1", "h1:a"), &one(version, sources)).unwrap_err();
        assert!(error.cause == Cause::Usage && error.to_string().contains("not of the same"), "{error}");
    }
    let two = vec![found(of("linux/amd64", "v1", "a")), found(of("linux/s390x", "v1", "a"))];
    let error = side(two, "run".as_ref()).unwrap_err();
    assert!(error.to_string().contains("on linux/amd64 and of x v1 on linux/s390x"), "{error}");
}
