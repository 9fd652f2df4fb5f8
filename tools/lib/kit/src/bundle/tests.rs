//! Tests of closing, storing and opening.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt};

use super::*;

struct World {
    _folder: tempfile::TempDir,
    run: RunDir,
    history: History,
}

fn world() -> World {
    let folder = tempfile::tempdir().unwrap();
    let run = RunDir::create(folder.path().join("20260101-000000-abcdef")).unwrap();
    fs::create_dir_all(run.path().join("greeter/logs")).unwrap();
    fs::write(run.path().join("run.json"), "{}").unwrap();
    fs::write(run.path().join("greeter/logs/<script>.log"), "a log").unwrap();
    let history = History::create(folder.path().join("history")).unwrap();
    World { _folder: folder, run, history }
}

fn names(history: &History) -> Vec<String> {
    let entries = fs::read_dir(history.folder()).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_run_survives_closing_and_the_same_run_twice_changes_nothing() {
    let World { _folder, run, history } = world();
    let closed = seal(&run).unwrap();
    assert_eq!(
        closed.files().iter().map(|f| f.path.as_str()).collect::<Vec<_>>(),
        ["greeter/logs/<script>.log", "run-id", "run.json"]
    );
    let stored = history.store(&closed).unwrap();
    assert!(stored.new);
    let again = seal(&run).unwrap();
    assert_eq!(again.digest(), closed.digest());
    assert!(!history.store(&again).unwrap().new);
    let bundles = history.bundles().unwrap();
    let [Ok(opened)] = &bundles[..] else { panic!("{bundles:?}") };
    assert_eq!(opened.read("run.json", 10).unwrap(), b"{}");
    assert_eq!(opened.run(), "20260101-000000-abcdef");
    assert_eq!(opened.digest(), digest::sha256(&fs::read(stored.folder.join(FILE)).unwrap()));
    assert!(opened.read("run.json", 1).is_err());
    assert!(opened.read("other.json", 10).is_err());
    assert_eq!(names(&history).len(), 1);
}

#[test]
fn a_changed_run_is_another_bundle() {
    let World { _folder, run, history } = world();
    let first = seal(&run).unwrap();
    fs::write(run.path().join("stages.json"), "{}").unwrap();
    let second = seal(&run).unwrap();
    assert_ne!(first.digest(), second.digest());
    history.store(&second).unwrap();
    fs::write(run.path().join("run.json"), "{ }").unwrap();
    let error = history.store(&first).unwrap_err();
    assert!(error.to_string().contains("run.json") && error.next.is_some(), "{error}");
    assert_eq!(names(&history).len(), 1, "nothing is left of the failed one");
}

#[test]
fn what_a_bundle_cannot_hold_is_refused_by_name() {
    let refused = |make: &dyn Fn(&Path), named: &str| {
        let World { _folder, run, .. } = world();
        make(run.path());
        let error = seal(&run).unwrap_err();
        assert_eq!(error.cause, Cause::Usage);
        assert!(error.to_string().contains(named), "{error}");
        assert!(!run.path().join(FILE).exists());
    };
    refused(&|run| std::os::unix::fs::symlink("/etc/passwd", run.join("link")).unwrap(), "link");
    refused(&|run| std::os::unix::fs::symlink("/etc", run.join("greeter/etc")).unwrap(), "greeter/etc");
    refused(&|run| drop(std::os::unix::net::UnixListener::bind(run.join("socket")).unwrap()), "socket");
    refused(&|run| fs::write(run.join(OsStr::from_bytes(b"bad\xff")), "").unwrap(), "bad");
    refused(&|run| fs::write(run.join("x\u{1b}[2J"), "").unwrap(), "[2J");
    refused(&|run| fs::write(run.join("x\u{202e}gpj"), "").unwrap(), "gpj");
    refused(&|run| fs::create_dir_all(run.join(["d"; 20].join("/"))).unwrap(), "d/d");
    let long = [&"x".repeat(250)[..]; 4].join("/");
    refused(&|run| fs::create_dir_all(run.join(&long)).unwrap(), "longer path");
    refused(&|run| File::create(run.join("huge")).unwrap().set_len(MAX_FILE + 1).unwrap(), "huge");
}

#[test]
fn damage_is_found_named_and_repaired() {
    let World { _folder, run, history } = world();
    let closed = seal(&run).unwrap();
    let Stored { folder, .. } = history.store(&closed).unwrap();
    let log = folder.join("greeter/logs/<script>.log");
    fs::remove_file(&log).unwrap();
    fs::write(&log, "a lie").unwrap();
    let opened = Closed::open(&folder).unwrap();
    for error in [opened.verify().unwrap_err(), opened.read("greeter/logs/<script>.log", 99).unwrap_err()] {
        assert!(error.to_string().contains("damaged") && error.to_string().contains("<script>.log"), "{error}");
    }
    assert!(history.store(&closed).unwrap().new);
    Closed::open(&folder).unwrap().verify().unwrap();
    assert_eq!(names(&history).len(), 1, "the damaged one is gone");

    fs::remove_file(folder.join(FILE)).unwrap();
    fs::write(folder.join(FILE), "{}").unwrap();
    let error = history.bundles().unwrap().remove(0).unwrap_err();
    assert!(error.to_string().contains("damaged"), "{error}");
}

/// A folder of the history with nothing but a list of these paths.
fn listed(history: &History, paths: &[&str]) -> Result<Closed> {
    let files = paths.iter().map(|path| BundleFile { path: (*path).into(), size: 0, digest: String::new() });
    let bundle = Bundle { schema_version: "1.0".into(), run: "r".into(), files: files.collect() };
    let bytes = serde_json::to_vec(&bundle).unwrap();
    let folder = history.folder().join(folder_name(&digest::sha256(&bytes)));
    rundir::write(&folder.join(FILE), &bytes).unwrap();
    Closed::open(&folder)
}

#[test]
fn a_list_cannot_lead_outside() {
    let World { _folder, history, .. } = world();
    for paths in [&["../x"][..], &["/etc/passwd"], &["a//b"], &["a/./b"], &["b", "a"], &["a", "a"], &["bundle.json"]] {
        assert!(listed(&history, paths).is_err(), "{paths:?}");
    }
    let newer = br#"{"schemaVersion":"2.0","run":"r","files":[]}"#;
    let folder = history.folder().join(folder_name(&digest::sha256(newer)));
    rundir::write(&folder.join(FILE), newer).unwrap();
    assert!(Closed::open(&folder).unwrap_err().to_string().contains("newer"));
}

#[test]
fn a_list_has_only_what_can_be_written_side_by_side() {
    let World { _folder, run, history } = world();
    let (name, deep) = ("x".repeat(250), ["d"; 20].join("/"));
    let long = [name.as_str(); 4].join("/");
    for paths in [
        &["a", "a-b", "a/b/c"][..],
        &["bundle.json/x"],
        &[".logs-removed"],
        &[".logs-removed/x"],
        &[".new-x/a"],
        &["a/.new-x"],
        &[long.as_str()],
        &[deep.as_str()],
    ] {
        let error = listed(&history, paths).unwrap_err();
        assert_eq!(error.cause, Cause::Usage, "{paths:?}: {error}");
    }
    listed(&history, &["a", "a-b", "a.b/bundle.json", "ab/.logs-removed"]).unwrap();
    // Our own mark in a run directory is not part of the run.
    fs::write(run.path().join(SHED), "").unwrap();
    assert!(seal(&run).unwrap().file(SHED).is_none());
}

#[test]
fn readers_do_not_see_what_is_unfinished_and_old_leftovers_go() {
    let World { _folder, run, history } = world();
    for (name, age) in [(".new-young", 0), (".new-old", 2)] {
        let folder = history.folder().join(name);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(FILE), "{}").unwrap();
        File::open(&folder).unwrap().set_modified(SystemTime::now() - age * ABANDONED).unwrap();
    }
    assert!(history.bundles().unwrap().is_empty());
    let stored = history.store(&seal(&run).unwrap()).unwrap();
    assert_eq!(history.digests().unwrap().len(), 1);
    assert!(stored.folder.ends_with(folder_name(&history.digests().unwrap()[0])));
    let mut left = names(&history);
    left.sort();
    assert_eq!(left.len(), 2, "{left:?}");
    assert_eq!(left[0], ".new-young");
}

#[test]
fn many_writers_at_once_leave_one_bundle() {
    let World { _folder, run, history } = world();
    let closed = seal(&run).unwrap();
    let write = || history.store(&closed).map(|stored| usize::from(stored.new));
    let new: usize = std::thread::scope(|scope| {
        let writers: Vec<_> = (0..8).map(|_| scope.spawn(write)).collect();
        writers.into_iter().map(|writer| writer.join().unwrap().unwrap()).sum()
    });
    assert_eq!(new, 1);
    assert_eq!(names(&history).len(), 1);
    history.bundles().unwrap().remove(0).unwrap().verify().unwrap();
}

#[test]
fn logs_can_go_on_purpose_and_nothing_else_without_being_missed() {
    let World { _folder, run, history } = world();
    fs::create_dir_all(run.path().join("a/logs")).unwrap();
    fs::write(run.path().join("a/logs/x.log"), "12345").unwrap();
    fs::write(run.path().join("a/kept.json"), "{}").unwrap();
    let closed = seal(&run).unwrap();
    history.store(&closed).unwrap();
    let stored = history.bundle(closed.digest()).unwrap();
    assert_eq!(history.shed_logs(&stored).unwrap(), 10);
    assert_eq!(history.shed_logs(&stored).unwrap(), 0);
    assert!(stored.is_shed() && stored.verify().is_ok() && stored.read("a/logs/x.log", 10).is_err());
    assert!(!history.store(&closed).unwrap().new, "it is there already");
    // A copy of it is one without logs as well.
    let other = History::create(history.folder().parent().unwrap().join("other")).unwrap();
    assert!(other.store(&stored).unwrap().new);
    assert!(other.bundle(closed.digest()).unwrap().is_shed());
    fs::remove_file(stored.folder().join("a/kept.json")).unwrap();
    assert!(stored.verify().is_err());
    history.remove(closed.digest()).unwrap();
    assert!(history.digests().unwrap().is_empty() && names(&history).is_empty());
    assert!(is_log("a/logs/x") && is_log("logs/x") && !is_log("logs") && !is_log("a/logs.json"));
}
