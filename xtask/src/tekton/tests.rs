//! `ci/tekton` against the programs that its steps call, and against itself.

mod faults;

use clap::Parser;
use serde_yaml_ng::Value;

use super::{
    lint::{list, names, text},
    *,
};

fn ci() -> Ci {
    Ci::new(tools::root().join("ci"))
}

fn all() -> Vec<render::Document> {
    documents(&folder(&ci())).unwrap()
}

#[test]
fn everything_fits_together() {
    if let Err(error) = check(&ci()) {
        panic!("{error}");
    }
}

/// What a variable of a step may well be.
fn sample(variable: &str) -> &'static str {
    match variable {
        "params.platform" => "linux/s390x",
        "params.platforms" => "linux/amd64,linux/s390x",
        "params.repo" => "registry.example/nightly",
        "params.release" => "registry.example/nightly/release/pipeline@sha256:00",
        "params.statuses[*]" => "install=Succeeded",
        "params.env" => "A=b",
        "params.dashboard" => "https://dashboard.example",
        "steps.record.results.digest" => "sha256:0000",
        "params.tests" => "none",
        "params.kind" => "unit",
        "params.shard" => "2/3",
        _ if variable.ends_with(".path") => "/workspace/x",
        _ => "x",
    }
}

/// The arguments of a step as Tekton gives them, with every variable a good value, or with those that may be empty
/// empty.
fn arguments(step: &Value, defaults: &Value, empty: bool) -> Vec<String> {
    let may_be_empty =
        |name: &str| list(defaults).iter().any(|param| text(&param["name"]) == name && param["default"] == "");
    let fill = |argument: &&Value| {
        let argument = text(argument);
        let Some((before, rest)) = argument.split_once("$(") else { return vec![argument.to_owned()] };
        let (variable, after) = rest.split_once(')').unwrap();
        let name = variable.trim_start_matches("params.");
        match variable {
            "params.statuses[*]" => ["install=Succeeded", "e2e=Failed", "gate=None"].map(String::from).into(),
            _ if empty && may_be_empty(name) => vec![format!("{before}{after}")],
            _ => {
                let after = after.replace("$(params.component)", "greeter").replace("$(params.pipelinerun)", "x");
                vec![format!("{before}{}{after}", sample(variable))]
            }
        }
    };
    list(&step["args"]).iter().flat_map(fill).collect()
}

/// Parses as the program itself does.
fn parse(program: &str, arguments: &[String]) -> Result<(), clap::Error> {
    let words = kit::stage::words(arguments.iter().map(Into::into).collect());
    let words = std::iter::once(program.into()).chain(words);
    match program {
        "image-build" => image_build::Args::try_parse_from(words).map(drop),
        "cluster-install" => cluster_install::Args::try_parse_from(words).map(drop),
        "e2e-runner" => e2e_runner::Args::try_parse_from(words).map(drop),
        "cleanup" => cleanup::Args::try_parse_from(words).map(drop),
        "support-matrix" => support_matrix::Args::try_parse_from(words).map(drop),
        other => panic!("{other} is no tool"),
    }
}

#[test]
fn every_step_s_arguments_are_arguments_of_its_program() {
    let mut parsed = std::collections::BTreeSet::new();
    for document in all().iter().filter(|document| document.kind() == "Task") {
        let spec = &document.value["spec"];
        for step in list(&spec["steps"]) {
            let command = list(&step["command"]).first().map(|word| text(word)).unwrap_or_default();
            let Some(program) = command.strip_prefix("/usr/local/bin/") else { continue };
            assert_eq!(step["image"], format!("step-image://{program}"), "{}", document.file);
            for empty in [false, true] {
                let arguments = arguments(step, &spec["params"], empty);
                if let Err(error) = parse(program, &arguments) {
                    panic!("{}: {program} {}\n{error}", document.file, arguments.join(" "));
                }
            }
            parsed.insert(program.to_owned());
        }
    }
    assert_eq!(parsed.len(), 5, "{parsed:?}");
    assert!(parse("cleanup", &["run".into(), "--no-such-option=x".into()]).is_err());
}

#[test]
fn a_stage_as_an_action_is_the_same_call() {
    let tasks = all();
    let actions = actions::actions(&tasks);
    let named: Vec<_> = actions.iter().map(render::Document::name).collect();
    for name in ["build", "tests", "snapshot", "target", "finish-cleanup", "finish-target"] {
        assert!(named.contains(&format!("other-arch-{name}").as_str()), "{named:?}");
    }
    let mut different = named.clone();
    different.sort_unstable();
    different.dedup();
    assert_eq!(different.len(), named.len(), "{named:?}");
    for action in &actions {
        let (spec, name) = (&action.value["spec"], action.name());
        let variables = lint::variables(spec);
        let (params, results) = (names(&spec["params"]), names(&spec["results"]));
        let unknown = variables.iter().find(|variable| match variable.strip_prefix("params.") {
            Some(param) => !params.contains(param),
            None => !results.iter().any(|result| **variable == format!("step.results.{result}.path")),
        });
        assert_eq!(unknown, None, "{name}");
        let idle = params.iter().find(|param| !variables.contains(&format!("params.{param}")));
        assert_eq!(idle, None, "{name}");
        let program = text(list(&spec["command"])[0]).trim_start_matches("/usr/local/bin/").to_owned();
        for empty in [false, true] {
            let arguments = arguments(spec, &spec["params"], empty);
            parse(&program, &arguments).unwrap_or_else(|error| panic!("{name} {}\n{error}", arguments.join(" ")));
        }
    }
}

#[test]
fn a_task_promises_only_results_that_its_tool_writes() {
    for document in all().iter().filter(|document| document.kind() == "Task") {
        let spec = &document.value["spec"];
        let results = list(&spec["results"]);
        let promised = results.iter().filter(|result| result["value"].is_null()).map(|result| text(&result["name"]));
        for name in promised {
            let written = |step: &&Value| {
                let common = list(&step["args"]).iter().any(|word| text(word) == "--results-dir=/tekton/results");
                (common && kit::cli::RESULTS.contains(&name))
                    || lint::variables(step).contains(&format!("results.{name}.path"))
            };
            assert!(list(&spec["steps"]).iter().any(written), "{}: result {name}", document.file);
        }
        for result in results.iter().filter(|result| !result["value"].is_null()) {
            let value = text(&result["value"]).trim_start_matches("$(steps.").trim_end_matches(')');
            let (step, result) = value.split_once(".results.").unwrap();
            let steps = list(&spec["steps"]);
            let step = steps.iter().find(|one| one["name"] == step).unwrap_or_else(|| panic!("no step {step}"));
            assert!(names(&step["results"]).contains(result), "{}: {value}", document.file);
            let folder = format!("--results-dir=/tekton/steps/step-{}/results", text(&step["name"]));
            assert!(list(&step["args"]).iter().any(|argument| text(argument) == folder), "{}", document.file);
        }
    }
}

#[test]
fn every_stage_says_what_came_of_it_and_no_step_is_more_than_it_has_to_be() {
    for document in all().iter().filter(|document| document.kind() == "Task") {
        let spec = &document.value["spec"];
        let context = &spec["stepTemplate"]["securityContext"];
        assert!(context["runAsNonRoot"] == true && context["readOnlyRootFilesystem"] == true, "{}", document.file);
        for step in list(&spec["steps"]) {
            assert!(step["securityContext"].is_null(), "{}: {step:?}", document.file);
        }
        let stage = |step: &&&Value| list(&step["args"]).iter().any(|argument| text(argument).contains("/run/stages/"));
        let steps = list(&spec["steps"]);
        let stages = steps.iter().filter(stage).count();
        let wiring = ["other-arch-sources", "other-arch-start", "other-arch-gate", "other-arch-close"];
        assert_eq!(stages == 0, wiring.contains(&document.name()), "{}", document.file);
    }
}

/// One way to the target, whatever it is: only who comes by it and who gives it back know of its Secret.
#[test]
fn every_task_finds_the_target_where_the_first_has_left_it() {
    let (mut users, mut keepers) = (0, Vec::new());
    for document in all().iter().filter(|document| document.kind() == "Task") {
        for step in list(&document.value["spec"]["steps"]) {
            let words: Vec<_> = list(&step["args"]).into_iter().map(text).collect();
            // What is said of a run itself goes to the cluster that drives.
            let leads = |word: &&&str| word.starts_with("--kubeconfig=") && **word != "--kubeconfig=in-cluster";
            for word in words.iter().filter(leads) {
                assert_eq!(*word, "--kubeconfig=$(workspaces.run.path)/given/target/kubeconfig", "{}", document.file);
                users += 1;
            }
            if words.iter().any(|word| word.contains("$(workspaces.target.path)")) {
                let folder = "--folder=$(workspaces.run.path)/given/target";
                for word in ["target", "--secret=$(workspaces.target.path)", "--host=$(workspaces.host.path)", folder] {
                    assert!(words.contains(&word), "{}: {word}", document.file);
                }
                keepers.push(format!("{} {}", document.name(), words[1]));
            }
        }
    }
    keepers.sort();
    assert_eq!(keepers, ["other-arch-finish release", "other-arch-target take"]);
    // A component's tests may read all that their Task has: the key to a host is not among it.
    let sees = |document: &render::Document| {
        list(&document.value["spec"]["workspaces"]).iter().any(|one| one["name"] == "host")
    };
    let tasks = all().into_iter().filter(|document| document.kind() == "Task" && sees(document));
    let names: Vec<_> = tasks.map(|document| document.name().to_owned()).collect();
    assert_eq!(names, ["other-arch-finish", "other-arch-target"]);
    assert_eq!(users, 7);
    // What an ended step leaves is heard of.
    let finish = all().into_iter().find(|document| document.name() == "other-arch-finish").unwrap();
    for step in
        list(&finish.value["spec"]["steps"]).iter().filter(|step| ["conclude", "gate"].contains(&text(&step["name"])))
    {
        let heard = |word: &&Value| text(word) == "--step=target-release=$(steps.step-target.exitCode.path)";
        assert!(list(&step["args"]).iter().any(heard), "{step:?}");
    }
}

fn place() -> Place {
    Place {
        namespace: "night".into(),
        repo: "registry.example/n".into(),
        repository: "https://git.example/x".into(),
        storage: "1Gi".into(),
        access_mode: "ReadWriteMany".into(),
        dashboard: "https://dashboard.example".into(),
    }
}

fn made() -> Made {
    let names = ["image-build", "cluster-install", "e2e-runner", "cleanup", "support-matrix", "trigger"];
    Made { images: names.map(|name| (name.to_owned(), format!("r/{name}@sha256:00"))).into() }
}

#[test]
fn what_a_cluster_gets_is_whole() {
    let text = render(all(), &place(), &made()).unwrap();
    for gone in ["step-image://", "place://"] {
        assert!(!text.contains(gone), "{gone} in {text}");
    }
    assert!(text.contains("image: r/cleanup@sha256:00") && text.contains("el-other-arch.night.svc"));
    use serde::Deserialize;
    let documents: Vec<_> =
        serde_yaml_ng::Deserializer::from_str(&text).map(|one| Value::deserialize(one).unwrap()).collect();
    for document in &documents {
        let kind = text_of(&document["kind"]);
        let wide = kind.starts_with("ClusterRole") || kind == "Namespace";
        assert_eq!(document["metadata"]["namespace"].is_null(), wide, "{document:?}");
    }
    assert_eq!((text_of(&documents[0]["kind"]), text_of(&documents[0]["metadata"]["name"])), ("Namespace", "night"));
    // Two namespaces of a cluster do not take each other's rights away.
    let roles = documents.iter().filter(|document| text_of(&document["kind"]).starts_with("ClusterRole"));
    assert!(roles.clone().count() == 2 && roles.into_iter().all(|role| role["metadata"]["name"] == "night-listener"));
    let error = render(all(), &place(), &Made::default()).unwrap_err();
    assert!(error.cause == Cause::Usage && error.to_string().contains("was not pushed"), "{error}");
}

fn text_of(value: &Value) -> &str {
    text(value)
}

#[test]
fn the_workflow_builds_once_and_tests_on_every_machine() {
    let workflow: Value = serde_yaml_ng::from_str(&workflow(&ci()).unwrap()).unwrap();
    let jobs = &workflow["jobs"];
    let steps =
        |job: &str| list(&jobs[job]["steps"]).iter().map(|step| text(&step["run"])).collect::<Vec<_>>().join("\n");
    assert!(steps("build-pipeline").contains("cargo xtask image-build build --component pipeline"));
    // GitHub's machines are Ubuntu's.
    assert!(steps("build-pipeline").contains("sources.list.d/bookworm.sources"));
    assert!(steps("build-pipeline").contains("debian-archive-keyring"));
    // What root made, root goes on with; only then is it everybody's.
    let test = steps("test-pipeline");
    let (before, rest) = test.split_once("<<'END'\n").unwrap();
    let (root, after) = rest.split_once("END\n").unwrap();
    for called in ["lab up", "image-build copy", "nightly --component pipeline"] {
        assert!(root.contains(&format!("cargo xtask {called}")), "{root}");
    }
    assert!(!before.contains("cargo") && !after.contains("cargo"), "{test}");
    assert!(after.starts_with("sudo ") && after.contains("test.sh") && after.contains("sudo chown"), "{test}");
    assert_eq!(jobs["test-pipeline"]["needs"][0], "build-pipeline");
    assert_eq!(jobs["test-pipeline"]["strategy"]["fail-fast"], false);
    let machines = list(&jobs["test-pipeline"]["strategy"]["matrix"]["include"]);
    let machines: Vec<_> = machines.iter().map(|machine| text(&machine["platform"])).collect();
    assert_eq!(jobs["matrix"]["needs"][0], "test-pipeline");
    let joint = steps("matrix");
    for words in ["record /runs --history history", "render --history history --format markdown"] {
        let words: Vec<_> = words.split(' ').map(String::from).collect();
        assert!(joint.contains(&format!("support-matrix {}", words[0])), "{joint}");
        parse("support-matrix", &words).unwrap();
    }
    assert_eq!(machines, ["linux/amd64", "linux/arm64", "linux/s390x", "linux/ppc64le"]);
}

/// A copy of ci/ in which a file has more.
fn with(file: &str, more: &str) -> (tempfile::TempDir, Ci) {
    let folder = tempfile::tempdir().unwrap();
    let ci = folder.path().join("ci");
    std::fs::create_dir(&ci).unwrap();
    for name in ["architectures.toml", "components.toml"] {
        let mut text = std::fs::read_to_string(self::ci().folder().join(name)).unwrap();
        if name == file {
            text.push_str(more);
        }
        std::fs::write(ci.join(name), text).unwrap();
    }
    (folder, Ci::new(ci))
}

/// Lines that are in one text more often than in another.
fn added(before: &str, after: &str) -> Vec<String> {
    let mut left: Vec<_> = before.lines().collect();
    let mut added = Vec::new();
    for line in after.lines() {
        match left.iter().position(|other| *other == line) {
            Some(at) => drop(left.remove(at)),
            None => added.push(line.trim().to_owned()),
        }
    }
    assert!(left.iter().all(|line| line.contains("pipeline") || line.contains("linux/")), "{left:?} went away");
    added
}

#[test]
fn a_job_posts_what_it_was_given_whatever_stands_in_it() {
    let request = serde_json::json!({ "component": "a", "env": "A=it's \"$(this)\" `and` $THAT: #x" });
    let job = job(&request, "image", "night").unwrap();
    let arguments = job["spec"]["template"]["spec"]["containers"][0]["args"].as_array().unwrap();
    assert_eq!(serde_json::from_str::<serde_json::Value>(arguments[2].as_str().unwrap()).unwrap(), request);
}

/// The listener answers a request that its filter refuses as it does every other.
#[test]
fn the_listener_s_filter_takes_every_request_of_ours() {
    let all = all();
    let listener = all.iter().find(|document| document.kind() == "EventListener").unwrap();
    let filter = text(&listener.value["spec"]["triggers"][0]["interceptors"][0]["params"][0]["value"]);
    let rules: Vec<_> = filter
        .split("body.")
        .filter_map(|part| part.split_once(".matches('"))
        .map(|(field, rest)| (field, regex::Regex::new(rest.split_once("')").unwrap().0).unwrap()))
        .collect();
    assert_eq!(rules.len(), 8, "{rules:?}");
    let refused = |request: &serde_json::Value| {
        let of = |field: &str| request[field].as_str().map(String::from);
        rules
            .iter()
            .find(|(field, rule)| of(field).is_some_and(|value| !rule.is_match(&value)))
            .map(|(field, _)| *field)
    };
    let (architectures, components) = (ci().architectures().unwrap().architecture, ci().components().unwrap());
    for name in components.keys() {
        for architecture in &architectures {
            let names = std::slice::from_ref(name);
            for request in places::requests(architecture, names, &architectures) {
                assert_eq!(refused(&request), None, "{request}");
            }
            // As the end of a build asks.
            let digest = format!("sha256:{}", "0".repeat(64));
            let registry = "a-registry-of-somebody.example.org:5000/an/other-arch/nightly";
            let request = serde_json::json!({
                "component": name, "testOn": architecture.platform, "release": format!("{registry}/{name}@{digest}"),
                "probe": format!("{registry}/probe@{digest}"), "suite": "smoke", "env": "GREETER_TEST=fail",
                "revision": "0".repeat(40),
            });
            assert_eq!(refused(&request), None, "{request}");
        }
    }
    assert_eq!(refused(&serde_json::json!({ "component": "x", "suite": "a b" })), Some("suite"));
}

/// As Tekton Triggers does it: text into text.
#[test]
fn a_number_of_shards_becomes_the_list_of_that_length_and_no_number_none() {
    let all = all();
    let of = |kind: &str| all.iter().find(|one| one.kind() == kind).unwrap();
    let interceptor = &of("EventListener").value["spec"]["triggers"][0]["interceptors"][0];
    let overlays = list(&interceptor["params"][1]["value"]);
    let bindings = list(&of("TriggerBinding").value["spec"]["params"]);
    let template = serde_json::to_string(&of("TriggerTemplate").value["spec"]["resourcetemplates"][0]).unwrap();
    let rule =
        regex::Regex::new(r"^has\(body\.shards\) && body\.shards == (\d) \? '([a-z-]+)' : '([a-z-]+)'$").unwrap();
    for shards in [None, Some(1), Some(2), Some(3), Some(4)] {
        let mut text = template.clone();
        for overlay in &overlays {
            let Some(said) = rule.captures(self::text(&overlay["expression"])) else { continue };
            let value = if Some(said[1].parse().unwrap()) == shards { &said[2] } else { &said[3] };
            let extension = format!("$(extensions.{})", self::text(&overlay["key"]));
            let binding = bindings.iter().find(|binding| binding["value"] == extension.as_str()).unwrap();
            text = text.replace(&format!("$(tt.params.{})", self::text(&binding["name"])), value);
        }
        let run: serde_json::Value = serde_json::from_str(&text).unwrap();
        let params = run["spec"]["params"].as_array().unwrap();
        let lists: Vec<_> =
            params.iter().filter(|param| param["name"] == "shards").map(|param| &param["value"]).collect();
        let expected: Vec<_> = shards.filter(|of| *of > 1).map(parts).into_iter().collect();
        assert_eq!(lists, expected.iter().collect::<Vec<_>>(), "{shards:?}");
        let mut names: Vec<_> = params.iter().map(|param| param["name"].as_str().unwrap()).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|two| two[0] != two[1]), "{names:?}");
    }
    // As many as the filter lets pass, and one without being asked.
    let filter = self::text(&interceptor["params"][0]["value"]);
    assert!(filter.contains("body.shards in [1, 2, 3, 4])"), "{filter}");
    for document in all.iter().filter(|one| one.kind() == "Pipeline") {
        let params = list(&document.value["spec"]["params"]);
        let shards = params.iter().find(|param| param["name"] == "shards").unwrap();
        assert_eq!(serde_json::to_value(&shards["default"]).unwrap(), parts(1), "{}", document.file);
    }
}

/// All parts, as e2e-runner takes each.
fn parts(of: u32) -> serde_json::Value {
    (1..=of).map(|number| format!("{number}/{of}")).collect()
}

#[test]
fn one_step_of_a_run_has_a_token_and_may_only_write_on_pipelineruns() {
    let all = all();
    let mut with = Vec::new();
    for document in all.iter().filter(|document| document.kind() == "Task") {
        let spec = &document.value["spec"];
        let tokens = list(&spec["volumes"]).into_iter().filter(|volume| {
            list(&volume["projected"]["sources"]).iter().any(|source| !source["serviceAccountToken"].is_null())
        });
        let tokens: Vec<_> = tokens.map(|volume| text(&volume["name"])).collect();
        for step in list(&spec["steps"]) {
            let mounts = list(&step["volumeMounts"]);
            if mounts.iter().any(|mount| tokens.contains(&text(&mount["name"]))) {
                with.push((document.name(), text(&step["name"])));
            }
        }
        let common = list(&spec["stepTemplate"]["volumeMounts"]);
        assert!(!common.iter().any(|mount| tokens.contains(&text(&mount["name"]))), "{}", document.file);
    }
    with.sort_unstable();
    assert_eq!(with, [("other-arch-close", "annotate"), ("other-arch-finish", "annotate")]);
    let find = |kind: &str, name: &str| all.iter().find(|one| one.kind() == kind && one.name() == name).unwrap();
    for account in all.iter().filter(|one| one.kind() == "ServiceAccount" && one.name() != "other-arch-listener") {
        assert_eq!(account.value["automountServiceAccountToken"], false, "{}", account.name());
    }
    let rules = serde_json::to_value(&find("Role", "other-arch-end").value["rules"]).unwrap();
    let expected = serde_json::json!([{
        "apiGroups": ["tekton.dev"], "resources": ["pipelineruns"], "verbs": ["patch"],
    }]);
    assert_eq!(rules, expected);
    let run = &find("TriggerTemplate", "other-arch").value["spec"]["resourcetemplates"][0]["spec"];
    assert_eq!(run["taskRunTemplate"]["podTemplate"]["automountServiceAccountToken"], false);
    assert_eq!(list(&run["taskRunSpecs"]).len(), 1);
    // The name of the Task that has it, in each Pipeline.
    let filter = &find("EventListener", "other-arch").value["spec"]["triggers"][0]["interceptors"][0]["params"][1];
    let end = list(&filter["value"]).into_iter().find(|overlay| overlay["key"] == "end").unwrap();
    assert_eq!(text(&end["expression"]), "has(body.release) ? 'finish' : 'close'");
    for (pipeline, task) in [("other-arch-test", "finish"), ("other-arch-build", "close")] {
        assert_eq!(find("Pipeline", pipeline).value["spec"]["finally"][0]["name"], task);
    }
}

#[test]
fn a_task_has_nothing_of_its_own_that_all_have() {
    let folder = tempfile::tempdir().unwrap();
    let task = "kind: Task\nspec: {stepTemplate: {env: [], workingDir: /tmp}}\n";
    std::fs::write(folder.path().join("common.yaml"), "stepTemplate: {env: []}\n").unwrap();
    std::fs::write(folder.path().join("own.yaml"), task).unwrap();
    let error = documents(folder.path()).unwrap_err();
    assert!(error.cause == Cause::Usage && error.to_string().contains("own.yaml: stepTemplate"), "{error}");
    assert!(error.to_string().contains("no workingDir of its own"), "{error}");
}

#[test]
fn an_architecture_more_is_an_edit_of_one_file() {
    let (_folder, more) = with(
        "architectures.toml",
        "\n[[architecture]]\nplatform = 'linux/riscv64'\nschedule = '7 3 * * *'\nrunner = 'my-riscv'\n",
    );
    let places = added(&places::places(&ci()).unwrap(), &places::places(&more).unwrap()).join("\n");
    for said in ["name: other-arch-linux-riscv64", "kind: PersistentVolumeClaim", "kind: CronJob", "\"7 3 * * *\""] {
        assert!(places.contains(said), "{said}: {places}");
    }
    assert!(places.contains(r#""testOn":"linux/riscv64""#), "{places}");
    let workflow = added(&workflow(&ci()).unwrap(), &workflow(&more).unwrap()).join("\n");
    assert!(workflow.contains("- {platform: linux/riscv64, name: linux-riscv64, runner: my-riscv}"), "{workflow}");
}

#[test]
fn a_component_more_is_an_edit_of_one_file() {
    let component = "\n[extra]\nmodule = 'example.org/extra'\nversion = 'v1.0.0'\nconfig = ['config']\n\n[extra.tests]\n\
                     package = './test'\npasses = [[]]\n\n[extra.suites.smoke]\ndefault = true\nall = true\n";
    let (_folder, more) = with("components.toml", component);
    let places = added(&places::places(&ci()).unwrap(), &places::places(&more).unwrap()).join("\n");
    assert!(places.contains(r#"- '{"component":"extra","#), "{places}");
    let workflow = added(&workflow(&ci()).unwrap(), &workflow(&more).unwrap()).join("\n");
    assert!(workflow.contains("build-extra:") && workflow.contains("test-extra:"), "{workflow}");
}
