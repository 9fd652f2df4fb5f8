//! What a cleanup that is interrupted comes to: by the API server's end, by its own, by a signal.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::{Run, objects::*};

pub(crate) fn the_api_server_restarts_in_the_middle(run: &Run<'_>) {
    run.leave_much("left-restart", 6);
    let working = run.start("run", &[]);
    std::thread::sleep(Duration::from_millis(700));
    run.lab.tool(&["kill", "kube-apiserver"]);
    let ended = working.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(0), "{}", String::from_utf8_lossy(&ended.stderr));
    assert_eq!(run.record()["difference"]["added"].as_array().unwrap().len(), 0);
}

pub(crate) fn killed_and_started_again(run: &Run<'_>) {
    // Something to put back, and something that only goes by force, beside what goes by itself.
    run.back(&[], 0);
    run.apply(&[
        definition("things", "Thing"),
        namespace("kept"),
        config_map("kept", "flags", "stable"),
        config_map("kept", "gone", "here"),
    ]);
    run.served("things");
    let inner = Run::new(run.lab, "killed-inner");
    assert_eq!(inner.tool("snapshot", &[]).code, 0);
    let leave = |name: &str, namespaces: usize| {
        run.leave_much(name, namespaces);
        run.apply(&[thing("default", name, &["left.example.com/wait"]), config_map("kept", "flags", "alpha")]);
        run.lab.kubectl(&["delete", "configmap", "-n", "kept", "gone", "--ignore-not-found"]);
    };
    // One that is killed may have come to its end, and the cluster have forgotten the baseline.
    let uid = run.lab.uid();
    let named = ["--cluster-uid", uid.as_str(), "--budget", "finalizers=1", "--force-finalizers=Thing"];
    leave("left-whole", 6);
    let began = Instant::now();
    let whole = inner.back(&named, 0);
    let took = began.elapsed().as_millis() as u64;
    let mut restored = names(&whole["restored"]);
    restored.sort();
    assert_eq!((restored, names(&whole["forced"])), (vec!["flags".into(), "gone".into()], vec!["left-whole".into()]));
    // Twenty times, spread over all of it, at a random point of each part. The seed is printed, for whoever has to see
    // a failure again.
    let seed = jiff::Timestamp::now().as_nanosecond() as u64;
    eprintln!("killed: seed {seed}, a whole run takes {took} ms");
    let mut state = seed | 1;
    for round in 0..20 {
        // xorshift64 (Marsaglia, 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        if round % 5 == 0 {
            leave(&format!("left-killed-{round}"), 3);
        }
        let (part, begin) = (took / 20 + 1, took * round / 20);
        let mut working = inner.start("run", &named);
        std::thread::sleep(Duration::from_millis(20 + begin + state % part));
        working.kill().unwrap();
        working.wait_with_output().unwrap();
    }
    leave("left-killed-last", 2);
    let working = inner.start("run", &named);
    std::thread::sleep(Duration::from_millis(400));
    run.interrupt(&working);
    assert_eq!(working.wait_with_output().unwrap().status.code(), Some(130));
    let record = inner.record();
    assert_eq!((&record["outcome"], &record["cause"]), (&json!("failed"), &json!("interrupted")));
    inner.back(&named, 0);
    assert_eq!(inner.tool("diff", &[]).code, 0, "at the baseline with what was put back");
    run.lab.forgotten();
    run.back(&["--cluster-uid", &uid], 0);
}

pub(crate) fn an_unreachable_cluster(run: &Run<'_>) {
    run.lab.tool(&["kill", "kube-apiserver", "--hold"]);
    let ended = run.tool("run", &[]);
    run.lab.tool(&["start", "kube-apiserver"]);
    assert_eq!(ended.code, 3, "{}", ended.stderr);
    let record = run.record();
    assert_eq!((&record["cause"], &record["stage"]), (&json!("cluster-unreachable"), &json!("none")));
    run.lab.ready();
    run.back(&[], 0);
}
