//! Processes as they really behave: shells that print, hang, fork and ignore signals.

use super::*;

fn sh(script: &str) -> Process<'static> {
    // A shell cannot trap what was ignored when it began, as signals are in the background of another shell.
    let mut command = Command::new("env");
    command.args(["--default-signal=INT,QUIT", "sh", "-c", script]);
    Process::new("the script", command)
}

#[test]
fn reads_standard_output() {
    assert_eq!(sh("echo one; echo two >&2; printf three").read().unwrap(), "one\nthree\n");
}

#[test]
fn the_error_has_the_last_lines_and_no_secret() {
    let error = sh("echo no hunter2 here >&2; exit 7").secret("hunter2").cause(Cause::Registry).run().unwrap_err();
    assert_eq!(error.cause, Cause::Registry);
    assert_eq!(error.line.as_deref(), Some("no *** here"));
    assert!(error.to_string().contains("exit code 7"), "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
}

#[test]
fn a_time_limit_ends_the_whole_group() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let script = format!("sleep 100 & echo $! > {}; wait", file.path().display());
    let finished = sh(&script).limit(Duration::from_millis(300)).finish().unwrap();
    assert!(finished.timed_out);
    let pid = std::fs::read_to_string(file.path()).unwrap();
    let gone = || {
        let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
        Ok((state.is_empty() || state.contains(") Z ")).then_some(()))
    };
    crate::retry::until(Duration::from_secs(5), || Error::new(Cause::Internal, "it lives"), gone).unwrap();
}

#[test]
fn a_process_that_ignores_the_request_is_killed() {
    let process = sh("trap '' TERM; while :; do sleep 0.1; done").limit(Duration::from_millis(100));
    let finished = process.grace(Duration::from_millis(100)).finish().unwrap();
    assert_eq!(finished.code(), 128 + 9);
}

#[test]
fn silence_ends_it_with_the_signal_that_was_chosen() {
    let script = "trap 'echo asked; exit 3' QUIT; echo ready; while :; do :; done";
    let mut lines = Vec::new();
    let process = sh(script).silence(Duration::from_millis(1500)).ask_with(Signal::QUIT);
    let finished = process.on_line(|_, line| lines.push(line.to_owned())).finish().unwrap();
    assert!(finished.silent && finished.timed_out);
    assert_eq!((finished.code(), lines.join(" ").as_str()), (3, "ready asked"));
}

#[test]
fn it_can_be_stopped_from_elsewhere() {
    let stopper = Stopper::default();
    let stop = stopper.clone();
    let process = sh("echo ready; sleep 60").stop_with(&stopper).on_line(move |_, _| stop.stop());
    assert!(process.finish().unwrap().stopped);
    // It is stopped still.
    assert!(sh("sleep 60").stop_with(&stopper).finish().unwrap().stopped);
}

#[test]
fn a_process_that_prints_faster_than_we_read_is_ended_in_time() {
    let began = Instant::now();
    #[allow(clippy::disallowed_methods, reason = "a slow reader")]
    let slow = |_: Stream, _: &str| std::thread::sleep(Duration::from_micros(20));
    let finished = sh("exec yes").limit(Duration::from_millis(300)).on_line(slow).finish().unwrap();
    assert!(finished.timed_out && began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
}

#[test]
fn a_missing_folder_is_no_missing_program() {
    let mut command = Command::new("sh");
    command.current_dir("/no/such/folder");
    let error = Process::new("the check", command).run().unwrap_err();
    assert_eq!(error.cause, Cause::Usage);
    assert!(error.to_string().contains("/no/such/folder"), "{error}");
}

#[test]
fn someone_left_behind_does_not_hold_us() {
    let began = Instant::now();
    sh("sleep 60 & echo started").run().unwrap();
    assert!(began.elapsed() < Duration::from_secs(20));
}

#[test]
fn a_missing_program_has_its_own_cause() {
    let error = Process::new("the check", Command::new("no-such-program")).run().unwrap_err();
    assert_eq!(error.cause, Cause::MissingProgram);
    assert!(error.to_string().contains("no-such-program"));
}

#[test]
fn words_are_quoted_as_a_shell_needs_it() {
    assert_eq!(quote("--repo=10.0.0.1:5000/x"), "--repo=10.0.0.1:5000/x");
    assert_eq!(quote("it's"), r"'it'\''s'");
    assert_eq!(quote(""), "''");
}
