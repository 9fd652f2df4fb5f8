//! The target of a run of `ci/tekton`, made by a host or borrowed, by the arguments of the Tasks.

use serde_json::{Value, json};

use super::{Night, World, api::Api, good, kubeconfig, mode, sshd::Ended};

const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/other-arch/leases/run";

fn by_key<'a>(world: &'a World, run: &str) -> Night<'a> {
    // The one that is described is another machine's.
    world.describe("key = '/no/such/key'");
    Night::new(world, run, &[("ssh-privatekey", &world.read("key"))])
}

/// The Task `target`, which waits so long for another run.
fn take(night: &Night<'_>, wait: &str) -> Ended {
    Ended::of(&mut night.command("target", "target", |word| word.replace("=2h", &format!("={wait}"))))
}

#[test]
fn the_tasks_of_a_run_make_a_cluster_use_it_and_remove_it() {
    let (world, api) = good();
    let night = by_key(&world, "r1");
    night.step("target", "target").says(0, &["z-1 is there for this run"]);
    assert_eq!(std::fs::read_to_string(night.at("results/outcome")).unwrap(), "passed");
    let file = night.at("given/target/kubeconfig");
    assert_eq!((mode(&file), mode(&night.at("given/target"))), (0o600, 0o700));
    assert!(!world.kept(), "it lies in the run's workspace and nowhere else");
    assert_eq!(api.get(LEASE)["spec"]["holderIdentity"], "r1", "until the next Task begins nobody else takes it");
    night.step("lease", "lease").says(0, &["run r1 holds the cluster"]);
    // Tried again.
    night.step("target", "target").says(0, &["z-1 is there for this run"]);
    night.step("lease", "lease").says(0, &[]);

    night.step("finish", "target").says(0, &[]);
    let calls = world.calls();
    assert_eq!(calls.iter().filter(|call| *call == "v1 create z-1 --run r1").count(), 1, "{calls:?}");
    assert_eq!(calls.last().unwrap(), "v1 delete z-1 --run r1");
    assert!(!night.at("given/target").exists() && !world.at("state/run").exists());
    assert_eq!(night.cause("target-release"), Value::Null);
    night.step("finish", "target").says(0, &["came by no target"]);
}

#[test]
fn a_cluster_of_another_run_is_waited_for_and_made_anew_if_that_has_died() {
    let (world, api) = good();
    let (one, two) = (by_key(&world, "r1"), by_key(&world, "r2"));
    take(&one, "1s").says(0, &[]);
    take(&two, "5s").says(3, &["waiting: run r1 holds the cluster", "error[lease-held]"]);
    assert_eq!(two.cause("target"), "lease-held");
    assert!(!two.at("given/target/kubeconfig").exists());
    two.step("finish", "target").says(0, &[]);
    assert_eq!(world.read("state/run"), "r1");

    let mut lease = api.get(LEASE);
    lease["spec"]["renewTime"] = json!("2026-01-01T00:00:00.000000Z");
    api.put(LEASE, lease);
    take(&two, "2m").says(0, &["which has died or does not hold it: it is made anew", "z-1 is there for this run"]);
    assert_eq!(world.read("state/run"), "r2");
    // The other one was not dead after all: what it does not have any more is not removed by it.
    one.step("finish", "target").says(3, &["error[lease-held]", "run r2 holds the cluster"]);
    assert!(world.read("state/run") == "r2" && !one.at("given/target").exists());
    two.step("finish", "target").says(0, &[]);
    assert!(!world.at("state/run").exists());
}

#[test]
fn a_cluster_that_nobody_holds_is_used_and_stays() {
    for (maker, said) in [("by-hand", "made for run by-hand"), ("", "made for an unknown run")] {
        let (world, api) = good();
        let night = by_key(&world, "r1");
        world.write("state/run", maker);
        night.step("target", "target").says(0, &[&format!("was there, {said}: it is used, and stays")]);
        night.step("lease", "lease").says(0, &["run r1 holds the cluster"]);
        night.step("finish", "target").says(0, &[]);
        assert_eq!(world.read("state/run"), maker);
        assert!(api.get(LEASE)["spec"]["holderIdentity"].is_null(), "{}", api.get(LEASE));
        assert!(!night.at("given/target").exists());
    }
}

#[test]
fn a_cluster_that_another_run_took_after_cleanup_stays() {
    let (world, api) = good();
    let (one, two) = (by_key(&world, "r1"), by_key(&world, "r2"));
    one.step("target", "target").says(0, &[]);
    // As cleanup leaves it.
    let mut lease = api.get(LEASE);
    lease["spec"]["holderIdentity"] = Value::Null;
    api.put(LEASE, lease);
    // A place that does not know who made it.
    std::fs::remove_file(world.at("cache/makers/z-1")).unwrap();
    take(&two, "1s").says(0, &["was there, made for run r1: it is used, and stays"]);
    one.step("finish", "target").says(0, &["cluster z-1 stays: another run has taken it"]);
    assert_eq!((world.read("state/run").as_str(), &api.get(LEASE)["spec"]["holderIdentity"]), ("r1", &json!("r2")));
    assert!(!one.at("given/target").exists());
}

#[test]
fn a_cluster_whose_maker_is_gone_is_not_left_for_ever() {
    let (world, api) = good();
    let (one, two) = (by_key(&world, "r1"), by_key(&world, "r2"));
    one.step("target", "target").says(0, &[]);
    // As if it had been killed before it could take the lease.
    api.delete(LEASE);
    take(&two, "5s").says(3, &["waiting: cluster z-1 has just been made for run r1", "error[lease-held]"]);
    let made = std::fs::File::options().write(true).open(world.at("cache/makers/z-1")).unwrap();
    made.set_modified(std::time::SystemTime::now() - std::time::Duration::from_secs(16 * 60)).unwrap();
    take(&two, "2m").says(0, &["was made for run r1, which has died or does not hold it: it is made anew"]);
    assert_eq!(world.read("state/run"), "r2");
    two.step("finish", "target").says(0, &[]);
    assert!(!world.at("state/run").exists());
    assert_eq!(world.read("cache/makers/z-1"), "");
}

#[test]
fn one_run_at_a_time_makes_or_removes_a_cluster() {
    let (world, _api) = good();
    let (one, two) = (by_key(&world, "r1"), by_key(&world, "r2"));
    one.step("target", "target").says(0, &[]);
    let lock = std::fs::File::options().read(true).write(true).open(world.at("cache/makers/z-1")).unwrap();
    lock.lock().unwrap();
    take(&two, "1s").says(3, &["waiting: another run is making or removing cluster z-1", "error[lease-held]"]);
    let release = |word: String| word.replace("=15m", "=1s");
    Ended::of(&mut one.command("finish", "target", release))
        .says(3, &["another run is making or removing cluster z-1"]);
    assert_eq!(world.read("state/run"), "r1");
    // What it is at is none of a run's that has made nothing.
    two.step("finish", "target").says(0, &[]);
    drop(lock);
    one.step("finish", "target").says(0, &[]);
    assert!(!world.at("state/run").exists());
}

#[test]
fn what_is_wrong_with_a_host_is_infrastructure_and_what_is_wrong_with_a_declaration_is_ours() {
    let (world, _api) = good();
    let night = by_key(&world, "r1");
    night.step("target", "target").says(0, &[]);
    world.describe("port = 1");
    night.sources();
    night.step("finish", "target").says(3, &["error[ssh]", "Connection refused", "cause: ssh"]);
    assert_eq!(night.cause("target-release"), "ssh");
    assert!(!night.at("given/target/kubeconfig").exists() && night.at("given/target").exists());
    night.step("target", "target").says(3, &["error[ssh]"]);
    assert_eq!(night.cause("target"), "ssh");
    assert_eq!(std::fs::read_to_string(night.at("results/cause")).unwrap(), "ssh");

    // Done again it would be no better.
    let empty = Night::new(&world, "r2", &[]);
    empty.step("target", "target").says(0, &["error[usage]", "no way to the target", "ssh-privatekey for a host"]);
    assert_eq!(empty.cause("target"), "usage");
    empty.step("finish", "target").says(0, &["came by no target"]);
    let night = by_key(&world, "r3");
    world.write("r3/given/src/ci/architectures.toml", "");
    night.step("target", "target").says(0, &["error[usage]", "is made by a host"]);
    night.step("finish", "target").says(0, &["came by no target"]);
}

#[test]
fn a_borrowed_target_is_reached_through_its_secret() {
    let world = World::new("");
    let api = Api::start(kit::Arch::host().go, |_, _| Ok(Vec::new()));
    let theirs = kubeconfig(&api.address, json!({"token": "hunter2"})).to_string();
    let night = Night::new(&world, "r1", &[("kubeconfig", &theirs)]);
    for _ in 0..2 {
        night.step("target", "target").says(0, &["the target is borrowed"]);
    }
    assert_eq!(std::fs::read_link(night.at("given/target")).unwrap(), night.at("secret"));
    night.step("lease", "lease").says(0, &["run r1 holds the cluster"]);
    night.step("finish", "target").says(0, &["nobody holds the cluster"]);
    assert!(night.at("secret/kubeconfig").exists() && world.calls().is_empty());
}
