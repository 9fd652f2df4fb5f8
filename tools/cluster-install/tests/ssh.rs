//! Clusters that a host makes, over a real sshd: what works, and what a host can do wrong. Whoever stands in for the host's
//! command is a script; a cluster that answers is a stand-in too, but for the one test that needs a lab.

#![allow(clippy::disallowed_methods, reason = "tests start the real programs")]

#[path = "support/api.rs"]
#[allow(dead_code, reason = "shared with other tests")]
mod api;
#[path = "support/night.rs"]
mod night;
#[path = "support/sshd.rs"]
mod sshd;
#[path = "parts/target.rs"]
mod target;

use std::{
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use api::Api;
use kit::Platform;
use night::Night;
use serde_json::{Value, json};
use sshd::{Agent, Ended, World, keygen, proxy, silent};

/// A host's command as the contract has it; `$STATE/run` is its cluster.
const GOOD: &str = r#"
echo "$*" >> "$STATE/calls"
c='"contract":"other-arch-cluster","version":1'
verb=$2; shift 2; [ $# -eq 0 ] || shift
run=; while [ $# -gt 0 ]; do case $1 in --run) run=$2;; esac; shift 2; done
state() { if [ -e "$STATE/run" ]; then echo ready; else echo absent; fi; }
case $verb in
  host) echo "{$c,\"machine\":\"$(uname -m)\",\"implementation\":\"stand-in\",\"kubernetes\":\"v1.37.2\"}";;
  status) echo "{$c,\"state\":\"$(state)\",\"run\":\"$(cat "$STATE/run" 2>/dev/null)\",\"since\":\"2026-01-01T00:00:00Z\"}";;
  create) echo 'making it' >&2; [ -e "$STATE/run" ] || printf %s "$run" > "$STATE/run"
    echo "{$c,\"state\":\"ready\",\"run\":\"$(cat "$STATE/run")\"}";;
  delete) if [ ! -e "$STATE/run" ] || { [ "$run" ] && [ "$run" != "$(cat "$STATE/run")" ]; }; then deleted=false
    else rm "$STATE/run"; deleted=true; fi
    echo "{$c,\"state\":\"$(state)\",\"deleted\":$deleted}";;
  kubeconfig) if [ ! -e "$STATE/run" ]; then echo "{$c,\"error\":{\"message\":\"no cluster\"}}"; exit 3; fi
    cat "$STATE/kubeconfig";;
esac
"#;

/// A host whose cluster answers.
fn good() -> (World, Api) {
    let world = World::new(GOOD);
    let api = cluster(&world, json!({"token": "hunter2"}));
    world.describe("");
    (world, api)
}

/// A cluster that answers, and what the host sends of it.
fn cluster(world: &World, user: Value) -> Api {
    let api = Api::start(kit::Arch::host().go, |_, _| Ok(Vec::new()));
    let kubeconfig = kubeconfig(&api.address, user).to_string();
    let certificate = "-----BEGIN CERTIFICATE-----\nhunter2\n-----END CERTIFICATE-----\n";
    let login = json!({"auths": {"r:5000": {"auth": "hunter2"}}, "credsStore": "evil"}).to_string();
    let sent = json!({"contract": "other-arch-cluster", "version": 1, "kubeconfig": kubeconfig,
        "registryCertificate": certificate, "registryLogin": login});
    world.write("state/kubeconfig", &sent.to_string());
    api
}

fn kubeconfig(server: &str, user: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Config", "current-context": "admin@k",
        "contexts": [{"name": "admin@k", "context": {"cluster": "k", "user": "admin"}}],
        "clusters": [{"name": "k", "cluster": {"server": server}}], "users": [{"name": "admin", "user": user}]})
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn a_cluster_is_made_used_and_removed() {
    let (world, _api) = good();
    Ended::of(&mut world.command(&["cluster", "list", "--ci", "ci"])).says(0, &["z-1", "ssh", "team-z"]);

    // The host is there, and says so without a cluster.
    let ended = world.cluster("status", &["--output", "json"]);
    ended.says(3, &["error[cluster-unreachable]", "z-1 is not there", "cluster create z-1"]);
    let state = ended.json();
    assert_eq!((&state["state"], &state["host"]["reachable"]), (&json!("absent"), &json!(true)));
    assert_eq!(
        (&state["cause"], &state["host"]["implementation"]),
        (&json!("cluster-unreachable"), &json!("stand-in"))
    );
    world.cluster("kubeconfig", &[]).says(3, &["error[cluster-unreachable]", "no cluster"]);

    let ended = world.cluster("create", &["--run", "r1", "--output", "json"]);
    let state = ended.says(0, &[]).json();
    assert_eq!((&state["created"], &state["state"], &state["run"]), (&json!(true), &json!("ready"), &json!("r1")));
    assert_eq!((&state["cluster"]["name"], &state["cluster"]["uid"]), (&json!("z-1"), &json!("uid-of-kube-system")));
    let folder = world.at("cache/clusters/z-1");
    for file in ["kubeconfig", "registryCertificate", "registryLogin"] {
        let path = Path::new(state[file].as_str().unwrap());
        assert!(path.starts_with(&folder), "{}", path.display());
        assert_eq!((mode(path), mode(path.parent().unwrap())), (0o600, 0o700), "{file}");
    }
    let login = std::fs::read_to_string(state["registryLogin"].as_str().unwrap()).unwrap();
    assert!(login.contains("r:5000") && !login.contains("evil"), "a helper would be a program of ours");

    // The arguments are those of every tool.
    let options = world.cluster("kubeconfig", &["--options"]).says(0, &[]).stdout.clone();
    let words: Vec<_> = std::iter::once("status").chain(options.split_whitespace()).collect();
    Ended::of(&mut world.command(&words)).says(0, &["z-1 at", "n1"]);
    world.cluster("status", &[]).says(0, &["is there", "made by run r1", "since 2026", "uid-of-kube-system", "n1"]);

    // It is another run's: it is used, and not removed.
    let state = world.cluster("create", &["--run", "r2", "--output", "json"]).says(0, &[]).json();
    assert_eq!(state["created"], false);
    let state = world.cluster("delete", &["--run", "r2", "--output", "json"]).says(0, &[]).json();
    assert_eq!((&state["deleted"], world.kept()), (&json!(false), false), "what was fetched goes in any case");
    world.cluster("kubeconfig", &[]).says(0, &["clusters/z-1/kubeconfig"]);
    world.cluster("forget", &[]).says(0, &[]);
    assert!(!world.kept());
    world.cluster("status", &[]).says(0, &[]);
    assert!(!world.kept(), "a look leaves nothing");

    let state = world.cluster("delete", &["--run", "r1", "--output", "json"]).says(0, &[]).json();
    assert_eq!(state["deleted"], true);
    let state = world.cluster("delete", &["--output", "json"]).says(0, &[]).json();
    assert_eq!(state["deleted"], false);
}

#[test]
fn another_host_key_ends_it_and_both_are_shown() {
    let (world, _api) = good();
    keygen(&world.at("other"));
    world.describe(&format!("host_keys = ['{}']", world.public("other")));
    let ended = world.cluster("status", &["--output", "json"]);
    let (expected, got) = (world.fingerprint("other"), world.fingerprint("host"));
    let words = [
        "error[ssh]",
        "another host key than the one that is pinned",
        &format!("expected ssh-ed25519 {expected}"),
        &format!("got      ssh-ed25519 {got}"),
        "ask its owner: team-z",
        "ssh.host_keys of [[cluster]] 'z-1'",
    ];
    ended.says(3, &words);
    assert_eq!((&ended.json()["host"]["reachable"], &ended.json()["cause"]), (&json!(false), &json!("ssh")));
    assert!(world.calls().is_empty(), "nothing was asked of it");
    for verb in ["create", "delete", "kubeconfig"] {
        world.cluster(verb, &[]).says(3, &["error[ssh]", "another host key"]);
    }
    // One of several is enough, and a key that is none is the description's fault.
    world.describe(&format!("host_keys = ['{}', '{}']", world.public("other"), world.public("host")));
    world.cluster("create", &[]).says(0, &[]);
    world.describe("host_keys = ['ssh-ed25519 AAAA']");
    world.cluster("status", &[]).says(2, &["error[usage]", "the key is no ssh-ed25519"]);
}

#[test]
fn hosts_that_cannot_be_reached() {
    let (world, _api) = good();
    world.describe("host = 'no-such-host.invalid'");
    world
        .cluster("status", &[])
        .says(3, &["error[ssh]", "cannot be reached", "resolve hostname", "ask its owner: team-z"]);
    world.describe("port = 1");
    let ended = world.cluster("create", &[]);
    ended.says(3, &["error[ssh]", "host 127.0.0.1:1 cannot be reached", "Connection refused", "which may pass"]);
    let began = Instant::now();
    world.describe_at(silent(), "limits = { connect = '1s', retry = '1s' }");
    world.cluster("status", &[]).says(3, &["error[ssh]", "cannot be reached", "timed out"]);
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}

#[test]
fn hosts_that_do_not_let_us_in() {
    let (world, _api) = good();
    keygen(&world.at("other"));
    let key = |path: &str| format!("key = '{}'", world.at(path).display());
    world.describe(&key("other"));
    let ended = world.cluster("status", &["--output", "json"]);
    ended.says(
        3,
        &["error[auth]", "does not let", "Permission denied (publickey)", "OTHER_ARCH_SSH_KEY=FILE", "/other"],
    );
    assert_eq!((&ended.json()["cause"], ended.stderr.contains("may pass")), (&json!("auth"), false), "tried once");
    world.write("garbage", "hunter2");
    world.describe(&key("garbage"));
    world.cluster("status", &[]).says(3, &["error[auth]", "Load key"]);
    world.describe(&key("nothing"));
    world.cluster("status", &[]).says(2, &["error[usage]", "ssh's key", "/nothing"]);
    // Without a key there has to be an agent.
    world.describe("");
    let text = world.read("ci/architectures.toml");
    let text: String =
        text.lines().filter(|line| !line.starts_with("key = ")).map(|line| format!("{line}\n")).collect();
    world.write("ci/architectures.toml", &text);
    world.cluster("status", &[]).says(3, &["error[auth]", "neither a key nor an agent"]);
    let agent = Agent::with(&world.at("key"), world.folder.path());
    let create = ["cluster", "create", "z-1", "--ci", "ci"];
    Ended::of(world.command(&create).env("SSH_AUTH_SOCK", &agent.1)).says(0, &[]);
    Ended::of(world.command(&create).env("OTHER_ARCH_SSH_KEY", world.at("key"))).says(0, &[]);
    // As Kubernetes mounts secrets.
    std::fs::set_permissions(world.at("key"), PermissionsExt::from_mode(0o644)).unwrap();
    world.describe("");
    world.cluster("create", &[]).says(0, &[]);
}

#[test]
fn hosts_that_answer_with_something_else() {
    let answer = |text: &str, code: i32| {
        format!("echo \"$*\" >> \"$STATE/calls\"\nprintf '%s' '{text}'\necho said so >&2\nexit {code}\n")
    };
    let good = r#"{"contract":"other-arch-cluster","version":1"#;
    for (script, words) in [
        (answer("Welcome to z1!", 0), &["no JSON of the contract", "line 1 column 1", "said so"][..]),
        (answer("", 0), &["no JSON of the contract"]),
        (answer("\x1b[2J\x07", 1), &["no JSON of the contract", "\\u{1b}[2J"]),
        (answer(&format!("{good}}}").replace(":1", ":7"), 0), &["speaks version 7 of the contract, and we speak 1"]),
        (answer(&format!("{good},\"versions\":[2,3]}}"), 4), &["speaks version 2, 3", "newer other-arch"]),
        (answer(&format!("{good}}}"), 9), &["exit code 9 and does not say why"]),
        (answer(&format!("{good}}}"), 255), &["exit code 255 and does not say why"]),
        (answer("sh: other-arch-cluster: not found", 127), &["has no command 'other-arch-cluster'", "CONTRACT.md"]),
    ] {
        let world = World::new(&script);
        world.describe("");
        world.cluster("status", &[]).says(3, &[&["error[ssh]"], words].concat());
        assert_eq!(world.calls().len(), 1, "an answer is no fault of the connection: {script}");
    }
    let fault = |cause: &str, code: i32| {
        answer(&format!("{good},\"error\":{{\"cause\":\"{cause}\",\"message\":\"no space left\"}}}}"), code)
    };
    for (script, cause) in
        [(fault("host-disk", 1), "host-disk"), (fault("product", 1), "ssh"), (fault("ssh", 5), "lease-held")]
    {
        let world = World::new(&script);
        world.describe("");
        world.cluster("status", &[]).says(3, &[&format!("error[{cause}]"), "no space left", "said so"]);
    }
    let world = World::new(&answer(&format!("{good},\"machine\":\"vax\"}}"), 0));
    world.describe("");
    world.cluster("create", &[]).says(2, &["error[usage]", "is a machine of vax"]);
}

#[test]
fn hosts_that_never_end() {
    let world = World::new("echo \"$*\" >> \"$STATE/calls\"\nexec sleep 20\n");
    world.describe("limits = { connect = '5s', retry = '1s', answer = '3s' }");
    let ended = world.cluster("status", &[]);
    ended.says(3, &["error[ssh]", "did not end it within 3 s", "ask its owner: team-z"]);
    assert!(ended.took < Duration::from_secs(60), "{:?}", ended.took);
    assert!(world.calls().len() <= 1, "what was too slow once is not asked again");

    let host = GOOD.replace("create)", "create) sleep 20;;\n  never)");
    let world = World::new(&host);
    world.describe("limits = { connect = '20s', retry = '1s', answer = '60s', create = '3s' }");
    let ended = world.cluster("create", &[]);
    ended.says(3, &["error[ssh]", "making of the cluster", "did not end it within 3 s"]);
    assert!(ended.took < Duration::from_secs(90), "{:?}", ended.took);

    for flood in ["yes", "tr '\\0' x < /dev/zero", "yes hunter >&2", "tr '\\0' '\\033' < /dev/zero >&2"] {
        let world = World::new(flood);
        world.describe("limits = { answer = '60s' }");
        let ended = world.cluster("status", &[]);
        ended.says(3, &["error[ssh]", "says more than"]);
        assert!(ended.stderr.len() < 100_000, "{flood}");
    }
}

#[test]
fn a_kubeconfig_that_wants_more_than_a_connection() {
    let world = World::new(GOOD);
    world.describe("");
    let touch = format!("touch {}", world.at("ran").display());
    let exec =
        json!({"exec": {"apiVersion": "client.authentication.k8s.io/v1", "command": "sh", "args": ["-c", touch]}});
    for (user, word) in
        [(exec, "would run a program"), (json!({"tokenFile": "/etc/passwd"}), "names a file of this machine")]
    {
        let _api = cluster(&world, user);
        for verb in ["create", "status", "kubeconfig"] {
            world.cluster(verb, &[]).says(3, &["error[ssh]", word]);
            assert!(!world.kept() && !world.at("ran").exists());
        }
    }
    for (what, word) in [(json!("hunter2"), "is none"), (json!(null), "sends no kubeconfig")] {
        let sent = json!({"contract": "other-arch-cluster", "version": 1, "kubeconfig": what});
        world.write("state/kubeconfig", &sent.to_string());
        world.cluster("kubeconfig", &[]).says(3, &["error[ssh]", word]);
    }
    // Nobody listens where the cluster should be: it is the cluster, and not the host.
    let gone = kubeconfig("http://127.0.0.1:1", json!({"token": "hunter2"})).to_string();
    world.write(
        "state/kubeconfig",
        &json!({"contract": "other-arch-cluster", "version": 1, "kubeconfig": gone}).to_string(),
    );
    let ended = world.cluster("status", &["--output", "json"]);
    ended.says(3, &["error[cluster-unreachable]", "refused"]);
    assert_eq!((&ended.json()["host"]["reachable"], &ended.json()["state"]), (&json!(true), &json!("ready")));
}

#[test]
fn a_connection_that_fails_is_tried_again() {
    let (world, _api) = good();
    world.describe_at(proxy(world.port, 3, None), "limits = { retry = '20s' }");
    world.cluster("status", &[]).says(3, &["which may pass", "error[cluster-unreachable]"]);
    assert_eq!(world.calls().len(), 2, "{:?}", world.calls());
}

#[test]
fn a_connection_that_breaks_is_made_again_and_nothing_is_made_twice() {
    // The first `create` goes on when its connection is cut, and ends when the second one waits for it.
    let host = format!(
        "if [ \"$2\" = create ]; then echo \"$*\" >> \"$STATE/calls\"\n\
         case \"$*\" in *--wait*) touch \"$STATE/waits\"; while [ ! -e \"$STATE/run\" ]; do sleep 0.1; done;;\n\
         *) trap '' HUP PIPE; echo x >> \"$STATE/made\"; while [ ! -e \"$STATE/waits\" ]; do sleep 0.1; done\n\
         printf %s r1 > \"$STATE/run\";; esac; fi\n{GOOD}"
    );
    let world = World::new(&host);
    let _api = cluster(&world, json!({"token": "hunter2"}));
    let port = proxy(world.port, 0, Some(world.at("state/made")));
    world.describe_at(port, "limits = { retry = '20s', create = '60s' }");
    let ended = world.cluster("create", &["--run", "r1", "--output", "json"]);
    ended.says(0, &["it is asked again"]);
    assert_eq!((&ended.json()["created"], world.read("state/made").as_str()), (&json!(true), "x\n"));
    let calls = world.calls();
    assert!(calls.iter().any(|call| call == "v1 create z-1 --run r1 --wait 60"), "{calls:?}");
}

#[test]
fn hosts_behind_a_jump_host() {
    let (world, _api) = good();
    let jump = |key: &str, port: u16| {
        format!(
            "jump = {{ host = '127.0.0.1', port = {port}, user = '{}', host_keys = ['{}'] }}",
            world.user,
            world.public(key)
        )
    };
    world.describe(&jump("host", world.port));
    world.cluster("create", &[]).says(0, &[]);
    keygen(&world.at("other"));
    world.describe(&jump("other", world.port));
    world
        .cluster("status", &[])
        .says(3, &["error[ssh]", "jump host 127.0.0.1", "another host key", "ssh.jump.host_keys"]);
    world.describe(&jump("host", 1));
    world.cluster("status", &[]).says(3, &["error[ssh]", "jump host 127.0.0.1:1 cannot be reached", "refused"]);
    world.describe(&format!("port = 1\n{}", jump("host", world.port)));
    world.cluster("status", &[]).says(3, &["error[ssh]", " host 127.0.0.1:1 cannot be reached", "open failed"]);
    world.describe(&format!("host_keys = ['{}']\n{}", world.public("other"), jump("host", world.port)));
    world.cluster("status", &[]).says(3, &["error[ssh]", ": host 127.0.0.1", "another host key"]);
}

#[test]
fn hosts_of_today() {
    let k8smanager = "echo \"$*\" >> \"$STATE/calls\"\ncase $1 in create) cp \"$STATE\"/ready/* \"$STATE/share/\";; \
                      delete) rm \"$STATE\"/share/*;; *) exit 9;; esac\n";
    let world = World::with(&[("k8smanager", k8smanager)]);
    let api = Api::start(kit::Arch::host().go, |_, _| Ok(Vec::new()));
    for folder in ["state/share", "state/ready"] {
        std::fs::create_dir(world.at(folder)).unwrap();
    }
    world.write("state/ready/config", &kubeconfig(&api.address, json!({"token": "hunter2"})).to_string());
    world.write("state/ready/cert.pem", "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n");
    world.write(
        "state/ready/config.json",
        r#"{"auths": {"r:5000": {"auth": "hunter2"}}, "credHelpers": {"r": "evil"}}"#,
    );
    world.describe(&format!("k8smanager = {{ share = '{}' }}", world.at("state/share").display()));
    world.cluster("status", &[]).says(3, &["error[cluster-unreachable]", "is there", "k8smanager", "not there"]);
    world.cluster("kubeconfig", &[]).says(3, &["error[cluster-unreachable]", "share/config"]);
    let state = world.cluster("create", &["--run", "r1", "--output", "json"]).says(0, &[]).json();
    assert_eq!((&state["created"], &state["cluster"]["name"]), (&json!(true), &json!("z-1")));
    for file in ["kubeconfig", "registryCertificate", "registryLogin"] {
        assert_eq!(mode(Path::new(state[file].as_str().unwrap())), 0o600, "{file}");
    }
    world.cluster("status", &[]).says(0, &["made by run r1", "n1"]);
    world.cluster("delete", &["--run", "r2"]).says(0, &["nothing of ours"]);
    world.cluster("create", &["--run", "r1"]).says(0, &[]);
    // Somebody has made another one since: it is none of the run's.
    let ours = world.read("state/share/config");
    world.write("state/share/config", &ours.replace("hunter2", "hunter3"));
    let status = world.cluster("status", &[]);
    assert!(!status.says(0, &["n1"]).stdout.contains("made by"));
    world.cluster("delete", &["--run", "r1"]).says(0, &["nothing of ours"]);
    world.write("state/share/config", &ours);
    world.cluster("delete", &["--run", "r1"]).says(0, &[]);
    assert_eq!((world.calls().join(" "), world.kept()), ("create create delete".into(), false));
    // Files of every size are bounded, and a command that fails says what it said.
    world.write("state/share/config", &"x".repeat(2 << 20));
    world.cluster("kubeconfig", &[]).says(3, &["error[ssh]", "says more than"]);
    std::fs::remove_file(world.at("bin/k8smanager")).unwrap();
    world.cluster("create", &[]).says(3, &["error[ssh]", "k8smanager create: exit code 127", "not found"]);
}

#[test]
fn a_signal_ends_it_and_what_it_had_begun() {
    let world = World::new(&GOOD.replace("create)", "create) echo $$ > \"$STATE/pid\"; sleep 20;;\n  never)"));
    world.describe("");
    let mut child = world.command(&["cluster", "create", "z-1", "--ci", "ci"]).spawn().unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    while !world.at("state/pid").exists() {
        assert!(Instant::now() < until, "it does not begin");
        std::thread::sleep(Duration::from_millis(50));
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(143));
}

#[test]
fn a_borrowed_cluster_is_used_by_its_context_and_stays() {
    let world = World::new("");
    let api = Api::start(kit::Arch::host().go, |_, _| Ok(Vec::new()));
    let mut config = kubeconfig("http://127.0.0.1:1", json!({"token": "hunter2"}));
    config["contexts"].as_array_mut().unwrap().push(json!({"name": "z", "context": {"cluster": "z", "user": "admin"}}));
    config["clusters"].as_array_mut().unwrap().push(json!({"name": "z", "cluster": {"server": api.address}}));
    world.write("theirs", &config.to_string());
    let describe = |context: &str, platform: &str| {
        let text = format!(
            "[[cluster]]\nname = 'z-1'\nowner = 'me'\nplatform = '{platform}'\nkubeconfig = {{ path = 'theirs', context = '{context}' }}\n"
        );
        world.write("ci/architectures.toml", &text);
    };
    let host = Platform::host().to_string();
    describe("z", &host);
    let state = world.cluster("create", &["--output", "json"]).says(0, &[]).json();
    assert_eq!((&state["created"], &state["cluster"]["name"]), (&json!(false), &json!("z-1")));
    let copy = std::fs::read_to_string(state["kubeconfig"].as_str().unwrap()).unwrap();
    assert!(
        copy.contains("hunter2") && !copy.contains("127.0.0.1:1\"") && !copy.contains("admin@k"),
        "one context, one cluster"
    );
    assert_eq!(mode(Path::new(state["kubeconfig"].as_str().unwrap())), 0o600);
    world.cluster("status", &[]).says(0, &["n1"]);
    world.cluster("delete", &[]).says(0, &["is borrowed and stays"]);
    assert!(!world.kept() && world.at("theirs").exists());
    // Never the current one by accident, and never another architecture.
    describe("y", &host);
    world.cluster("create", &[]).says(2, &["no context 'y'"]);
    describe("z", "linux/s390x");
    let wrong = world.cluster("create", &[]);
    wrong.says(2, &["no node of linux/s390x of z-1 takes pods", "n1: linux/"]);
    assert!(wrong.took < Duration::from_secs(100), "another architecture does not heal");
    describe("admin@k", &host);
    world.cluster("status", &[]).says(3, &["error[cluster-unreachable]", "refused"]);
}

#[test]
fn kind_is_called_with_files_of_ours() {
    let kind = r#"echo "$* KUBECONFIG=$KUBECONFIG" >> "$STATE/calls"
case "$1 $2" in
  "get clusters") cat "$STATE/clusters" 2>/dev/null || true;;
  "create cluster") echo "$4" >> "$STATE/clusters";;
  "delete cluster") rm "$STATE/clusters";;
  "get kubeconfig") cat "$STATE/config";;
esac
"#;
    let world = World::with(&[("kind", kind)]);
    let api = Api::start(kit::Arch::host().go, |_, _| Ok(Vec::new()));
    world.write("state/config", &kubeconfig(&api.address, json!({"token": "hunter2"})).to_string());
    world.write(
        "ci/architectures.toml",
        "[[cluster]]\nname = 'z-1'\nowner = 'me'\nkind = { image = 'kindest/node@sha256:0' }\n",
    );
    let call = |verb: &str, more: &[&str]| {
        let mut command = world.command(&[&["cluster", verb, "z-1", "--ci", "ci", "--output", "json"], more].concat());
        Ended::of(command.env("OTHER_ARCH_KIND", world.at("bin/kind")).env("KUBECONFIG", "/theirs"))
    };
    call("status", &[]).says(3, &["error[cluster-unreachable]"]);
    let state = call("create", &["--run", "r1"]).says(0, &[]).json();
    assert_eq!((&state["created"], &state["cluster"]["name"]), (&json!(true), &json!("z-1")));
    assert_eq!(call("create", &["--run", "r2"]).says(0, &[]).json()["created"], false);
    assert_eq!(call("delete", &["--run", "r2"]).says(0, &[]).json()["deleted"], false);
    call("create", &["--run", "r1"]).says(0, &[]);
    assert_eq!(call("delete", &[]).says(0, &[]).json()["deleted"], true);
    let calls = world.read("state/calls");
    assert!(
        calls.contains("create cluster --name z-1 --kubeconfig") && calls.contains("--image kindest/node@sha256:0")
    );
    assert!(!calls.contains("/theirs"), "{calls}");
    let mut command = world.command(&["cluster", "status", "z-1", "--ci", "ci"]);
    Ended::of(command.env("PATH", "/nonexistent")).says(5, &["error[missing-program]", "needs 'kind'"]);
}

#[test]
fn names_that_are_not_described() {
    let world = World::new("");
    world.describe("");
    let call = |args: &[&str]| Ended::of(&mut world.command(&[&["cluster"], args, &["--ci", "ci"]].concat()));
    call(&["status", "z-2"]).says(2, &["unknown cluster 'z-2'", "z-1"]);
    call(&["create", "z-1", "--run", "../x"]).says(2, &["is not the id of a run"]);
    call(&["create", "z-1", "--run", "x; rm"]).says(2, &["is not the id of a run"]);
    world.describe("user = 'u -oProxyCommand=x'");
    call(&["status", "z-1"]).says(2, &["is neither a host nor a user"]);
}
