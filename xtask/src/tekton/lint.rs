//! What Tekton would only say when it runs, or never: names that nobody declares, params that nobody gives, results
//! that nobody writes.

use std::collections::{BTreeMap, BTreeSet};

use kit::Result;
use serde_yaml_ng::Value;

use super::{
    render::{Document, IMAGE},
    runs,
};
use crate::{images::Definitions, tools};

/// Where every Task that uses the target has its Secret.
const TARGET: &str = "/workspace/target";
/// Where Tasks that run tests see what the run works from, within the workspace `run`.
const GIVEN: &str = "/workspace/run/given";

/// All problems, each with its file.
///
/// # Errors
/// [`kit::Cause::Usage`] if the definition of the step images cannot be read.
pub(super) fn problems(documents: &[Document]) -> Result<Vec<String>> {
    let images = Definitions::read(&tools::root().join("ci/step-images"))?;
    let of = |kind: &str| {
        let found = documents.iter().filter(|document| document.kind() == kind);
        found.map(|document| (document.name().to_owned(), &document.value["spec"])).collect::<BTreeMap<_, _>>()
    };
    let (tasks, pipelines) = (of("Task"), of("Pipeline"));
    let mut problems = Vec::new();
    for document in documents {
        let mut found = Vec::new();
        let spec = &document.value["spec"];
        match document.kind() {
            "Task" => task(spec, &images, &mut found),
            "Pipeline" => pipeline(spec, &tasks, &mut found),
            "TriggerTemplate" => {
                template(spec, &pipelines, &of("TriggerBinding"), &mut found);
                accounts(spec, documents, &mut found);
            }
            "TriggerBinding" => binding(spec, &of("EventListener"), &mut found),
            _ => {}
        }
        problems.extend(found.into_iter().map(|what| format!("{} {}: {what}", document.file, document.name())));
    }
    Ok(problems)
}

fn task(spec: &Value, images: &Definitions, found: &mut Vec<String>) {
    let used = variables(spec);
    let declared: BTreeSet<_> = ["params", "workspaces", "results"]
        .iter()
        .flat_map(|list| names(&spec[*list]).into_iter().map(move |name| format!("{list}.{name}")))
        .collect();
    let first_two = |used: &String| used.split('.').take(2).collect::<Vec<_>>().join(".").replace("[*]", "");
    let named = |used: &&String| !used.starts_with("step") && !used.starts_with("context.");
    let used: BTreeSet<_> = used.iter().filter(named).map(first_two).collect();
    found.extend(used.difference(&declared).map(|name| format!("$({name}) is declared nowhere")));
    // Who says where a workspace is mounted wants it there for something else than its path: a link that leads there.
    let placed = list(&spec["workspaces"]).into_iter().filter(|one| !one["mountPath"].is_null());
    let placed: BTreeSet<_> = placed.map(|one| format!("workspaces.{}", text(&one["name"]))).collect();
    // Results are written into Tekton's folder for them, not by name.
    let idle = declared.difference(&used).filter(|name| !name.starts_with("results.") && !placed.contains(*name));
    found.extend(idle.map(|name| format!("{name} is used by no step")));
    linked(spec, found);
    shielded(spec, found);
    for step in list(&spec["steps"]) {
        let name = text(&step["name"]);
        match text(&step["image"]).strip_prefix(IMAGE) {
            Some(image) if images.image.contains_key(image) => {}
            _ => found.push(format!("step {name}: '{}' is no step image", text(&step["image"]))),
        }
        if step["command"].is_null() && step["script"].is_null() {
            found.push(format!("step {name}: without a command Tekton has to ask a registry for the entrypoint"));
        }
    }
}

/// What `cluster-install target take` leaves may be a link: its end has to be in the same place in every Task.
fn linked(spec: &Value, found: &mut Vec<String>) {
    let mut args = list(&spec["steps"]).into_iter().flat_map(|step| list(&step["args"]));
    let uses = args.any(|word| text(word).contains("$(workspaces.run.path)/given/target"));
    let target = list(&spec["workspaces"]).into_iter().find(|one| one["name"] == "target");
    if uses && target.is_none_or(|target| target["mountPath"] != TARGET) {
        found.push(format!("a target is used that may be a link: the workspace target has to be at {TARGET}"));
    }
}

/// What a run works from is mounted once more within the run's folder, so that a component's tests cannot write it: the
/// Task at the run's end has the host's key, and believes what stands there.
fn shielded(spec: &Value, found: &mut Vec<String>) {
    if !list(&spec["steps"]).into_iter().any(|step| text(&step["image"]) == "step-image://e2e-runner") {
        return;
    }
    let mut workspaces = list(&spec["workspaces"]).into_iter();
    let moved = named(&spec["workspaces"], "run").is_none_or(|run| !run["mountPath"].is_null());
    if moved || !workspaces.any(|entry| entry["mountPath"] == GIVEN && entry["readOnly"] == true) {
        found.push(format!("tests could write what the run's end believes: mount {GIVEN} readOnly within run"));
    }
    for hidden in ["host", "runs"].into_iter().filter(|name| named(&spec["workspaces"], name).is_some()) {
        found.push(format!("tests must not see the workspace {hidden}"));
    }
}

fn pipeline(spec: &Value, tasks: &BTreeMap<String, &Value>, found: &mut Vec<String>) {
    let (dag, last) = (list(&spec["tasks"]), list(&spec["finally"]));
    let all: BTreeMap<_, _> = dag.iter().chain(&last).map(|task| (text(&task["name"]), *task)).collect();
    let spec_of = |name: &str| all.get(name).and_then(|task| tasks.get(text(&task["taskRef"]["name"])));
    for used in variables(spec) {
        let one = used.trim_end_matches("[*]");
        let parts: Vec<_> = one.split('.').collect();
        let good = match parts[..] {
            // A list is used as one, and nothing else is.
            ["params", name] => named(&spec["params"], name).is_some_and(|param| is_list(param) == (one != used)),
            // Of a task that runs in parts there are only all results together, which nobody here needs.
            ["tasks" | "finally", task, "results", result] => {
                one == used
                    && spec_of(task).is_some_and(|spec| names(&spec["results"]).contains(result))
                    && all.get(task).is_some_and(|task| task["matrix"].is_null())
            }
            ["tasks", task, "status"] => dag.iter().any(|one| text(&one["name"]) == task),
            ["context", "pipelineRun", "name"] => true,
            _ => false,
        };
        if !good {
            found.push(format!("$({used}) is declared nowhere"));
        }
    }
    let used = variables(spec);
    let idle =
        |kind: &str, name: &str| !used.iter().any(|used| used.trim_end_matches("[*]") == format!("{kind}.{name}"));
    found.extend(
        names(&spec["params"])
            .iter()
            .filter(|name| idle("params", name))
            .map(|name| format!("param {name} is used by no task")),
    );
    for (name, task) in &all {
        let Some(its) = spec_of(name) else {
            found.push(format!("{name}: there is no Task '{}'", text(&task["taskRef"]["name"])));
            continue;
        };
        let parts = list(&task["matrix"]["params"]);
        let given = list(&task["params"]).into_iter().map(|param| (param, false));
        let given: Vec<_> = given.chain(parts.iter().map(|param| (*param, true))).collect();
        for (param, in_parts) in &given {
            let name_of = text(&param["name"]);
            let Some(known) = named(&its["params"], name_of) else { continue };
            if param["value"].is_sequence() != (is_list(known) || *in_parts) || (is_list(known) && *in_parts) {
                found.push(format!("{name}: param {name_of} is a list on one side only"));
            }
        }
        let (given, known) =
            (given.iter().map(|(param, _)| text(&param["name"]).to_owned()).collect(), names(&its["params"]));
        let needed = |entry: &&&Value| entry["default"].is_null();
        let required =
            list(&its["params"]).iter().filter(needed).map(|entry| text(&entry["name"]).to_owned()).collect();
        compare(&format!("{name}: param"), &given, &known, &required, found);
        let (given, known) = (names(&task["workspaces"]), names(&its["workspaces"]));
        let needed = |entry: &&&Value| entry["optional"] != true;
        let required: BTreeSet<_> =
            list(&its["workspaces"]).iter().filter(needed).map(|entry| text(&entry["name"]).to_owned()).collect();
        compare(&format!("{name}: workspace"), &given, &known, &required, found);
        for shield in list(&its["workspaces"]).into_iter().filter(|entry| entry["mountPath"] == GIVEN) {
            let bound = named(&task["workspaces"], text(&shield["name"]));
            let whole = named(&task["workspaces"], "run").is_some_and(|run| run["subPath"].is_null());
            if !whole || bound.is_none_or(|bound| bound["workspace"] != "run" || bound["subPath"] != "given") {
                found.push(format!("{name}: at {GIVEN} belongs the folder given of the workspace run"));
            }
        }
        let of_run = |entry: &&Value| text(entry.get("workspace").unwrap_or(&entry["name"])).to_owned();
        let given = list(&task["workspaces"]).iter().map(of_run).collect();
        compare(&format!("{name}: workspace"), &given, &names(&spec["workspaces"]), &BTreeSet::new(), found);
        let before = list(&task["runAfter"]);
        for other in before.iter().map(|other| text(other)).filter(|other| !all.contains_key(other)) {
            found.push(format!("{name}: runs after '{other}', which there is not"));
        }
    }
    // What is not told of a stage that failed before it could leave a record is not known to anybody.
    for task in &dag {
        let status = format!("tasks.{}.status", text(&task["name"]));
        if !last.is_empty() && !used.contains(&status) {
            found.push(format!("finally does not hear how {} ended", text(&task["name"])));
        }
    }
    if last.is_empty() {
        found.push("nothing is done finally".into());
    }
    runs::gates(spec, tasks, found);
}

fn compare(
    what: &str,
    given: &BTreeSet<String>,
    known: &BTreeSet<String>,
    required: &BTreeSet<String>,
    found: &mut Vec<String>,
) {
    found.extend(given.difference(known).map(|name| format!("{what} {name} is declared nowhere")));
    found.extend(required.difference(given).map(|name| format!("{what} {name} is missing")));
}

fn template(
    spec: &Value,
    pipelines: &BTreeMap<String, &Value>,
    bindings: &BTreeMap<String, &Value>,
    found: &mut Vec<String>,
) {
    let declared = names(&spec["params"]);
    let used: BTreeSet<_> = variables(&spec["resourcetemplates"])
        .iter()
        .filter_map(|used| Some(used.strip_prefix("tt.params.")?.to_owned()))
        .collect();
    compare("param", &used, &declared, &declared, found);
    let bound: BTreeSet<_> = bindings.values().flat_map(|binding| names(&binding["params"])).collect();
    compare("the binding's param", &bound, &declared, &declared, found);
    for run in list(&spec["resourcetemplates"]) {
        let run = &run["spec"];
        for (name, pipeline) in pipelines {
            runs::run(run, name, pipeline, found);
            for (kind, key) in [("params", "default"), ("workspaces", "optional")] {
                let given = names(&run[kind]);
                let required = list(&pipeline[kind]).into_iter().filter(|entry| entry[key].is_null());
                let missing = required.map(|entry| text(&entry["name"])).filter(|name| !given.contains(*name));
                found.extend(missing.map(|missing| format!("{kind}: {missing} of {name} is missing")));
            }
        }
    }
}

/// A pod of an account that is not there does not begin, in silence.
fn accounts(spec: &Value, documents: &[Document], found: &mut Vec<String>) {
    let there = |name: &str| documents.iter().any(|one| one.kind() == "ServiceAccount" && one.name() == name);
    for run in list(&spec["resourcetemplates"]) {
        let tasks = list(&run["spec"]["taskRunSpecs"]).into_iter().map(|task| &task["serviceAccountName"]);
        let named = tasks.chain([&run["spec"]["taskRunTemplate"]["serviceAccountName"]]).map(text);
        found.extend(named.filter(|name| !there(name)).map(|name| format!("there is no ServiceAccount '{name}'")));
    }
}

fn binding(spec: &Value, listeners: &BTreeMap<String, &Value>, found: &mut Vec<String>) {
    let interceptors = listeners.values().flat_map(|listener| list(&listener["triggers"]));
    let interceptors = interceptors.flat_map(|trigger| list(&trigger["interceptors"]));
    let params = interceptors.flat_map(|interceptor| list(&interceptor["params"]));
    let overlays = params.filter(|param| param["name"] == "overlays").flat_map(|param| list(&param["value"]));
    let keys: BTreeSet<_> = overlays.map(|overlay| text(&overlay["key"]).to_owned()).collect();
    let used: BTreeSet<_> =
        variables(spec).iter().filter_map(|used| Some(used.strip_prefix("extensions.")?.to_owned())).collect();
    compare("extension", &used, &keys, &keys, found);
}

pub(super) fn list(value: &Value) -> Vec<&Value> {
    value.as_sequence().map(|list| list.iter().collect()).unwrap_or_default()
}

/// The entry of that name.
fn named<'a>(entries: &'a Value, name: &str) -> Option<&'a Value> {
    list(entries).into_iter().find(|entry| text(&entry["name"]) == name)
}

/// Whether a declared param is one.
fn is_list(param: &Value) -> bool {
    param["type"] == "array"
}

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub(super) fn names(value: &Value) -> BTreeSet<String> {
    list(value).iter().map(|entry| text(&entry["name"]).to_owned()).collect()
}

/// What stands between `$(` and `)` anywhere in a value. A shell's own `$(…)` has spaces.
pub(super) fn variables(value: &Value) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    match value {
        Value::String(text) => {
            for part in text.split("$(").skip(1) {
                let name = part.split(')').next().unwrap_or_default();
                if !name.contains(' ') && name.contains('.') {
                    found.insert(name.to_owned());
                }
            }
        }
        Value::Sequence(list) => list.iter().for_each(|value| found.extend(variables(value))),
        Value::Mapping(map) => map.values().for_each(|value| found.extend(variables(value))),
        _ => {}
    }
    found
}
