//! The guides under docs/: what they name is there, and what they tell to do is done.

#![allow(clippy::disallowed_methods, reason = "tests start the real programs")]

#[path = "support/plumbing.rs"]
mod plumbing;
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpListener,
    path::Path,
    process::{Command, Output},
};

use kit::ci::Ci;
use serde_json::{Value, json};
use support::{World, program, root};

fn guide(name: &str) -> String {
    fs::read_to_string(root().join("docs").join(name)).unwrap()
}

/// The commands of a guide, each with the lines that it goes on in.
fn commands(text: &str) -> Vec<String> {
    let joined = text.replace("\\\n", " ");
    joined.lines().filter_map(|line| line.strip_prefix("$ ")).map(String::from).collect()
}

#[test]
fn what_the_guides_name_is_there() {
    for name in ["bring-your-machine.md", "from-plumbing.md"] {
        let text = guide(name);
        let words: BTreeSet<_> = text.split(|c: char| c.is_whitespace() || "`(),;".contains(c)).collect();
        for path in words.iter().filter(|word| word.starts_with("ci/") || word.starts_with("xtask/")) {
            let path = path.trim_end_matches(['.', ':']);
            assert!(root().join(path).exists(), "{name}: {path}");
        }
    }
    let plumbing = guide("from-plumbing.md");
    let tekton: Vec<_> = ["pipelines/build.yaml", "pipelines/test.yaml", "triggers/listener.yaml"]
        .iter()
        .map(|file| fs::read_to_string(root().join("ci/tekton").join(file)).unwrap())
        .collect();
    for name in ["other-arch-build", "other-arch-test"] {
        assert!(plumbing.contains(name) && tekton.iter().any(|text| text.contains(&format!("name: {name}"))), "{name}");
    }
    let request = plumbing.split('\'').find(|code| code.starts_with("{\"component")).unwrap();
    let request: Value = serde_json::from_str(request).unwrap();
    for field in request.as_object().unwrap().keys() {
        assert!(tekton[2].contains(&format!("body.{field}")), "the listener knows no {field}");
    }
}

/// A file that says where the step images are, of images that nobody made.
fn images(file: &Path) {
    let names = ["image-build", "cluster-install", "e2e-runner", "cleanup", "support-matrix", "trigger"];
    let images: serde_json::Map<_, _> = names.iter().map(|name| ((*name).to_owned(), (*name).into())).collect();
    fs::write(file, json!({ "images": images }).to_string()).unwrap();
}

/// What a cluster is given.
fn rendered() -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("images.json");
    images(&file);
    let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
    command.args(["tekton", "--repo", "r.example/n", "--repository", "https://git.example/x", "--images"]).arg(&file);
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn the_namespace_of_the_guides_is_there_before_anything_else_is() {
    let text = rendered();
    let first = text.split("---\n").nth(1).unwrap();
    assert!(first.contains("kind: Namespace") && first.contains("name: other-arch-nightly"), "{first}");
    // The Secret of the guide for a registry is the one that Tasks look for.
    assert!(guide("from-plumbing.md").contains("secret generic other-arch-registry"));
    assert!(text.contains("secretName: other-arch-registry") || text.contains("name: other-arch-registry"));
}

#[test]
fn an_owner_s_entry_is_one() {
    let text = guide("bring-your-machine.md");
    let entries = text.split("```toml\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let entries: Vec<kit::ci::Architectures> =
        entries.map(|entry| kit::config::parse(entry, "docs").unwrap()).collect();
    assert!(entries[0].cluster[0].ssh.is_some() && entries[1].architecture[0].schedule.is_some());
}

/// A lab that is up, as it says where it is, and a file with its kubeconfig.
fn lab(world: &World, kubeconfig: &Path) -> Value {
    let up = world.tool("lab", &["up", "--name", &world.lab, "--output", "json"]);
    assert!(up.status.success(), "{}", String::from_utf8_lossy(&up.stderr));
    fs::write(kubeconfig, world.tool("lab", &["kubeconfig", "--raw", "--name", &world.lab]).stdout).unwrap();
    serde_json::from_slice(&up.stdout).unwrap()
}

#[test]
#[ignore = "needs a lab, and minutes: cargo xtask test --tekton runs it"]
fn bring_your_machine_on_the_way_to_tekton() {
    let world = World::new("guide");
    let kubeconfig = world.folder.path().join("target.yaml");
    let up = lab(&world, &kubeconfig);
    let registry = up["registry"].as_str().unwrap();
    let platform = kit::Platform::host().to_string();
    let probe = world.tool("image-build", &["probe", "--repo", registry, "--platform", &platform]);
    assert!(probe.status.success(), "{}", String::from_utf8_lossy(&probe.stderr));
    let probe = String::from_utf8(probe.stdout).unwrap();
    let mut seen = 0;
    // The host's part has a test of its own, with an sshd.
    let commands = commands(&guide("bring-your-machine.md"));
    for line in commands.into_iter().filter(|line| !line.contains("cluster-install cluster ")) {
        let line = line.replace("target.yaml", &kubeconfig.display().to_string()).replace("REGISTRY", registry);
        let line = line.replace("PROBE", probe.trim()).replace("linux/s390x", &platform);
        // What a key is only a host can tell.
        let line = line.replace("nightly.key", &kubeconfig.display().to_string());
        let words: Vec<_> = line.split_whitespace().collect();
        match words[..] {
            ["cargo", "xtask", "nightly", ref rest @ ..] => {
                let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
                command.current_dir(root()).arg("nightly").args(rest);
                command.arg("--history").arg(world.folder.path().join("history"));
                command.arg("--out").arg(world.folder.path().join("matrix"));
                command.arg("--run-dir").arg(world.folder.path().join("run"));
                assert_eq!(world.finish("run", command.output().unwrap()).code, 0, "{line}");
            }
            ["cargo", "xtask", tool, ref rest @ ..] => {
                let output = Command::new(program(tool)).current_dir(root()).args(rest).output().unwrap();
                assert!(output.status.success(), "{line}\n{}", String::from_utf8_lossy(&output.stderr));
            }
            ["kubectl", ref rest @ ..] => {
                // The namespace as `cargo xtask tekton` prints it; the rest of that needs a Tekton.
                let namespace = world.folder.path().join("namespace.yaml");
                fs::write(&namespace, rendered().split("---\n").nth(1).unwrap()).unwrap();
                world.kubectl(&["apply", "--filename", &namespace.display().to_string()]);
                world.kubectl(rest);
                world.kubectl(&["delete", "namespace", "other-arch-nightly"]);
            }
            _ => panic!("nobody knows how to run: {line}"),
        }
        seen += 1;
    }
    assert_eq!(seen, 5);
    world.assert_matrix("greeter", &platform, &[]);
}

/// Where the guide for plumbing is followed: a lab with Tekton's definitions, and a folder with what it names.
///
/// There is no Tekton behind the definitions, so objects are taken and nothing runs: names, kinds and what the API server
/// itself says are real. Of the commands `cargo xtask images` is only parsed (it compiles for ten minutes; the test of two
/// labs does it), and so is `kubectl port-forward`; what `curl` posts arrives here, and is held against the listener's
/// filter.
struct Way {
    world: World,
    registry: String,
}

impl Way {
    fn new() -> Self {
        let world = World::new("way");
        let folder = world.folder.path();
        let up = lab(&world, &folder.join("target.yaml"));
        fs::write(folder.join("config.json"), r#"{"auths":{"r.example":{"auth":"eDp5"}}}"#).unwrap();
        images(&folder.join("images.json"));
        fs::create_dir(folder.join("bin")).unwrap();
        let stand_in = |name: &str, script: String| {
            let path = folder.join("bin").join(name);
            fs::write(&path, format!("#!/bin/sh\n{script}")).unwrap();
            fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        };
        let (xtask, lab) = (env!("CARGO_BIN_EXE_xtask"), program("lab"));
        stand_in(
            "cargo",
            format!(
                "case $1-$2 in\nxtask-images) shift; exec '{xtask}' \"$@\" --help ;;\n\
                 xtask-tekton) shift; exec '{xtask}' \"$@\" --images '{}' ;;\nesac\nexit 99\n",
                folder.join("images.json").display()
            ),
        );
        let kubectl = format!("'{}' --name {} kubectl \"$@\"", lab.display(), world.lab);
        stand_in("kubectl", format!("[ \"$1\" = port-forward ] && exec {kubectl} --help\nexec {kubectl}\n"));
        Self { registry: up["registry"].as_str().unwrap().to_owned(), world }
    }

    /// A command of the guide, as a shell runs it.
    fn shell(&self, line: &str) -> Output {
        let folder = self.world.folder.path();
        let line = line.replace("REPO", &self.registry).replace("URL", "https://git.example/other-arch");
        let line = line.replace("FILE", &folder.join("target.yaml").display().to_string());
        let path = format!("{}:{}", folder.join("bin").display(), std::env::var("PATH").unwrap());
        let line = line.trim_end_matches(" &");
        let mut command = Command::new("sh");
        command.args(["-euc", line]).current_dir(folder).env("PATH", path).env("no_proxy", "127.0.0.1");
        command.output().unwrap()
    }

    fn done(&self, line: &str) {
        let output = self.shell(line);
        assert!(output.status.success(), "{line}\n{}", String::from_utf8_lossy(&output.stderr));
    }

    /// Runs one that posts, and returns what arrived.
    fn posted(&self, line: &str) -> Value {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let heard = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut reader, mut length) = (BufReader::new(stream.try_clone().unwrap()), 0);
            let mut json = false;
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).unwrap();
                let line = line.trim().to_lowercase();
                length = line.strip_prefix("content-length: ").map_or(length, |text| text.parse().unwrap());
                json |= line == "content-type: application/json";
                if line.is_empty() {
                    break;
                }
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).unwrap();
            stream.write_all(b"HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n").unwrap();
            assert!(json, "Triggers reads JSON only");
            serde_json::from_slice(&body).unwrap()
        });
        self.done(&line.replace("localhost:8080", &address.to_string()));
        heard.join().unwrap()
    }

    /// The objects that a file names, as they are: by kind and name, those that are not there left out.
    fn objects(&self, file: &str) -> BTreeMap<(String, String), Value> {
        let path = self.world.folder.path().join(file).display().to_string();
        let said = self.world.kubectl(&["get", "--ignore-not-found", "--output=json", "--filename", &path]);
        let list: Value = serde_json::from_str(&said).unwrap();
        let key = |object: &Value| {
            let of = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let about = &object["metadata"];
            (of(&object["kind"]), format!("{}/{}", of(&about["namespace"]), of(&about["name"])))
        };
        list["items"].as_array().unwrap().iter().map(|object| (key(object), as_it_is(object))).collect()
    }

    /// Tekton's definitions, of the versions that `ci/components.toml` has.
    fn define(&self) {
        let ci = Ci::new(root().join("ci"));
        let sources = |component: &str| {
            let component = ci.component(component).unwrap();
            kit::source::checkout(&ci, &component, &kit::Ui::silent()).unwrap().dir.join("config")
        };
        let (pipeline, triggers) = (sources("pipeline").join("300-crds"), sources("triggers"));
        let files = [pipeline, triggers].into_iter().flat_map(|folder| fs::read_dir(folder).unwrap().flatten());
        for file in files.filter(|file| file.file_name().to_string_lossy().starts_with("300-")) {
            self.world.kubectl(&["create", "--filename", &file.path().display().to_string()]);
        }
        self.world.kubectl(&[
            "wait",
            "--for=condition=Established",
            "--timeout=60s",
            "customresourcedefinitions",
            "--all",
        ]);
    }
}

/// An object without what the API server and controllers write beside it; whether it was made anew its UID says.
fn as_it_is(object: &Value) -> Value {
    let mut rest = object.clone();
    let about = rest.as_object_mut().unwrap().remove("metadata").unwrap();
    rest.as_object_mut().unwrap().remove("status");
    // A volume is found for a claim at some time.
    rest.get_mut("spec").and_then(Value::as_object_mut).map(|spec| spec.remove("volumeName"));
    rest["uid"] = about["uid"].clone();
    rest["name"] = about["name"].clone();
    rest
}

/// What each line of the guide's table says, by the words that it begins with: what there is of plumbing's, and of ours.
fn replacements(theirs: &[Value], ours: &[Value], secret: &Value) -> Vec<(&'static str, bool)> {
    fn all<'a>(objects: &'a [Value], kind: &'a str) -> Vec<&'a Value> {
        objects.iter().filter(|object| object["kind"] == kind).collect()
    }
    let task = |objects: &[Value], name: &str| {
        all(objects, "Task").into_iter().find(|task| task["name"] == name).map(ToString::to_string).unwrap_or_default()
    };
    let counts = |kind: &str| (all(theirs, kind).len(), all(ours, kind).len());
    let triggers = |objects: &[Value]| all(objects, "EventListener")[0]["spec"]["triggers"].as_array().unwrap().len();
    let (ci, text) = (Ci::new(root().join("ci")), fs::read_to_string(root().join("ci/components.toml")).unwrap());
    let scheduled = ci.architectures().unwrap().architecture.iter().filter(|one| one.schedule.is_some()).count();
    let components = ci.components().unwrap();
    let nightly =
        components.iter().filter(|(_, one)| one.module.is_some() && one.config.is_some() && one.tests.is_some());
    let nightly: BTreeSet<_> = nightly.map(|(name, _)| name.clone()).collect();
    let asked = |cron: &Value| -> BTreeSet<String> {
        let arguments = &cron["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"][0]["args"];
        let requests = arguments.as_array().unwrap().iter().filter_map(|word| word.as_str()?.strip_prefix('{'));
        let requests = requests.map(|rest| serde_json::from_str::<Value>(&format!("{{{rest}")).unwrap());
        requests.map(|request| request["component"].as_str().unwrap().to_owned()).collect()
    };
    let named = nightly.iter().all(|name| guide("from-plumbing.md").contains(&format!("today is `{name}`")));
    let pipelines = all(ours, "Pipeline");
    let names: BTreeSet<_> = pipelines.iter().map(|pipeline| pipeline["name"].as_str().unwrap()).collect();
    let results = |object: &Value| {
        let results = object["spec"]["results"].as_array().unwrap().iter();
        let results: Vec<_> = results.map(|result| result["name"].as_str().unwrap()).collect();
        results.contains(&"outcome") && results.contains(&"cause")
    };
    let finish = all(ours, "Task").into_iter().find(|task| task["name"] == "other-arch-finish").unwrap();
    let [target, lease, install, sources] =
        ["target", "lease", "install", "sources"].map(|name| task(ours, &format!("other-arch-{name}")));
    let template = all(ours, "TriggerTemplate")[0].to_string();
    vec![
        (
            "12 CronJobs",
            counts("CronJob") == (12, scheduled)
                && named
                && all(ours, "CronJob").iter().all(|one| asked(one) == nightly),
        ),
        ("an EventListener with 12 triggers", (triggers(theirs), triggers(ours)) == (12, 1)),
        (
            "one TriggerTemplate of",
            counts("TriggerTemplate") == (12, 1) && names == BTreeSet::from(["other-arch-build", "other-arch-test"]),
        ),
        (
            "Secrets with an ssh key",
            all(theirs, "Secret").iter().all(|secret| secret["data"]["privatekey"].is_string())
                && counts("Secret").0 == plumbing::PLACES.len()
                && secret["data"]["kubeconfig"].is_string()
                && template.contains(r#""key":"ssh-privatekey""#)
                && template.contains("target-$(tt.params.place)"),
        ),
        (
            "create cluster",
            !task(theirs, "create-delete-k8s-cluster-s390x").is_empty()
                && target.contains(r#""target","take""#)
                && lease.contains(r#""lease","take""#)
                && lease.contains(r#""adopt""#),
        ),
        (
            "deploy the release",
            !task(theirs, "deploy-tekton-component-nightly").is_empty()
                && install.contains(r#""install""#)
                && pipelines.iter().all(|pipeline| pipeline.to_string().contains(r#""name":"release""#)),
        ),
        ("clone `main`", !task(theirs, "git-clone").is_empty() && sources.contains(r#""name":"commit""#)),
        ("a patch of feature flags", text.contains(".rounds.settings.feature-flags]")),
        (
            "cli's suites",
            text.contains("[cli.suites.task]") && text.contains("[cli.builds]") && !nightly.contains("cli"),
        ),
        (
            "a task that deletes",
            !task(theirs, "cleanup-tekton-nightly").is_empty() && finish["spec"]["steps"][0]["args"][0] == "run",
        ),
        (
            "the last 20 runs",
            ["\"record\"", "\"push\"", "--dashboard="].iter().all(|word| finish.to_string().contains(word)),
        ),
        ("red", results(finish) && pipelines.iter().all(|pipeline| results(pipeline))),
    ]
}

#[test]
#[ignore = "needs a lab: cargo xtask test runs it"]
fn coming_from_plumbing_both_are_side_by_side() {
    let way = Way::new();
    let text = guide("from-plumbing.md");
    let commands = commands(&text);
    let prints = commands.iter().find(|line| line.contains("xtask tekton")).unwrap();
    // What this cluster lacks is named, and there is nothing that could be applied.
    let refused = |lacking: &str| {
        let output = way.shell(prints);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && said.contains(lacking), "{said}");
        assert_eq!(fs::read(way.world.folder.path().join("nightly.yaml")).unwrap().len(), 0);
    };
    refused("tasks.tekton.dev v1 (served: nothing)");
    way.define();
    way.world.kubectl(&["create", "namespace", "tekton-pipelines"]);
    let info = ["configmap", "pipelines-info", "--namespace", "tekton-pipelines"];
    way.world.kubectl(&[&["create"], &info[..], &["--from-literal=version=v0.62.1"]].concat());
    refused("Tekton Pipelines v1.0 (there is v0.62.1)");
    way.world.kubectl(&[&["delete"], &info[..]].concat());

    let list = json!({ "apiVersion": "v1", "kind": "List", "items": plumbing::objects() });
    fs::write(way.world.folder.path().join("plumbing.json"), list.to_string()).unwrap();
    way.done("kubectl apply --filename plumbing.json");
    let theirs = way.objects("plumbing.json");
    assert_eq!(theirs.len(), plumbing::objects().len());
    let leaves = commands.iter().position(|line| line.starts_with("kubectl patch")).unwrap();
    let mut request = None;
    for line in &commands[..leaves] {
        match line.starts_with("curl ") {
            true => request = Some(way.posted(line)),
            false => way.done(line),
        }
    }
    // Nothing of theirs was made anew or changed, and nothing of ours has a name of theirs, in whatever namespace.
    assert_eq!(way.objects("plumbing.json"), theirs);
    let ours = way.objects("nightly.yaml");
    let bare = |(kind, name): &(String, String)| (kind.clone(), name.split_once('/').unwrap().1.to_owned());
    let names: BTreeSet<_> = theirs.keys().map(bare).collect();
    assert!(ours.len() > 30 && !ours.keys().any(|key| names.contains(&bare(key))), "{:?}", ours.keys());
    assert!(!names.contains(&("Service".into(), "el-other-arch".into())));
    // Nor the other way round: plumbing is deployed again and again.
    way.done("kubectl apply --filename plumbing.json");
    assert_eq!(way.objects("nightly.yaml"), ours);

    let of = |objects: &BTreeMap<_, Value>| objects.values().cloned().collect::<Vec<_>>();
    let secret = ["get", "secret", "target-linux-s390x", "--namespace", "other-arch-nightly", "--output=json"];
    let secret = serde_json::from_str(&way.world.kubectl(&secret)).unwrap();
    let checked = replacements(&of(&theirs), &of(&ours), &secret);
    let lines: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("| ")).skip(1).collect();
    assert_eq!(lines.len(), checked.len(), "a line that nobody checks");
    for (line, (begins, good)) in lines.iter().zip(&checked) {
        assert!(line.starts_with(begins) && *good, "{begins}: {line}");
    }
    let listener = ours.values().find(|object| object["kind"] == "EventListener").unwrap();
    let filter = listener["spec"]["triggers"][0]["interceptors"][0]["params"][0]["value"].as_str().unwrap();
    for (field, value) in request.unwrap().as_object().unwrap() {
        let rule = filter.split(&format!("body.{field}.matches('")).nth(1).unwrap().split("')").next().unwrap();
        assert!(regex::Regex::new(rule).unwrap().is_match(value.as_str().unwrap()), "{field}: {value} is not {rule}");
    }

    // One CronJob of theirs rests, then goes; all others, and ours, stay as they are.
    let replaced = ("CronJob".to_owned(), "default/nightly-test-trigger-pipeline-s390x".to_owned());
    way.done(&commands[leaves]);
    let mut left = way.objects("plumbing.json");
    assert_eq!(left[&replaced]["spec"]["suspend"], true);
    left.get_mut(&replaced).unwrap()["spec"]["suspend"] = json!(false);
    assert_eq!(left, theirs);
    commands[leaves + 1..].iter().for_each(|line| way.done(line));
    left.remove(&replaced);
    assert_eq!((way.objects("plumbing.json"), way.objects("nightly.yaml")), (left, ours));
}
