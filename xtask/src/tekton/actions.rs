//! The verbs that are stages as StepActions, for Tasks of one's own: made of our Tasks, so that there is one place in
//! which the arguments of a tool stand.

use std::collections::BTreeSet;

use serde_yaml_ng::{Mapping, Value};

use super::{
    lint::{list, text},
    render::Document,
};

/// Where a Task has its results; an action's caller says where its own are.
const RESULTS: &str = "--results-dir=/tekton/results";

/// An action for each step that calls a tool in these Tasks, named by the Task, and by the step where there are several.
pub(super) fn actions(documents: &[Document]) -> Vec<Document> {
    let tasks = documents.iter().filter(|document| document.kind() == "Task");
    tasks.flat_map(of_task).collect()
}

fn of_task(task: &Document) -> Vec<Document> {
    let steps: Vec<_> = list(&task.value["spec"]["steps"]).into_iter().filter(|step| is_stage(step)).collect();
    let name = |step: &Value| match steps.len() {
        1 => task.name().to_owned(),
        _ => format!("{}-{}", task.name(), text(&step["name"])),
    };
    steps
        .iter()
        .map(|step| Document { file: task.file.clone(), value: action(&name(step), &task.value, step) })
        .collect()
}

/// Whether a step calls a tool and leaves a stage's file.
fn is_stage(step: &Value) -> bool {
    let calls = list(&step["command"]).first().is_some_and(|word| text(word).starts_with("/usr/local/bin/"));
    calls && list(&step["args"]).iter().any(|word| text(word).starts_with("--stage="))
}

/// Folders come as parameters: an action knows no workspaces.
fn action(name: &str, task: &Value, step: &Value) -> Value {
    let spec = &task["spec"];
    let (mut used, mut uses_results) = (BTreeSet::new(), false);
    let mut change = |word: &Value| {
        let word = text(word);
        if word == RESULTS {
            uses_results = true;
            return Value::from("--results-dir=$(params.results)");
        }
        let mut changed = word.replace("$(results.", "$(step.results.");
        for workspace in list(&spec["workspaces"]).iter().map(|one| text(&one["name"])) {
            let (path, param) = (format!("$(workspaces.{workspace}.path)"), format!("$(params.{workspace}-folder)"));
            if changed.contains(&path) {
                changed = changed.replace(&path, &param);
                used.insert(workspace.to_owned());
            }
        }
        Value::from(changed)
    };
    let args: Vec<_> = list(&step["args"]).into_iter().map(&mut change).collect();
    let variables = list(&spec["stepTemplate"]["env"]).into_iter();
    let with = |variable: &Value| entry([("name", variable["name"].clone()), ("value", change(&variable["value"]))]);
    let env: Vec<_> = variables.map(with).collect();
    let named = |param: &&Value| {
        let variable = format!("$(params.{}", text(&param["name"]));
        args.iter().chain(env.iter().map(|one| &one["value"])).any(|word| text(word).contains(&variable))
    };
    let mut params: Vec<_> = list(&spec["params"]).into_iter().filter(named).cloned().collect();
    for workspace in list(&spec["workspaces"]).into_iter().filter(|one| used.contains(text(&one["name"]))) {
        let (name, what) = (text(&workspace["name"]), text(&workspace["description"]));
        let description = if what.is_empty() { format!("The folder {name}.") } else { format!("A folder: {what}") };
        let name = format!("{name}-folder");
        let mut param = entry([("name", name.into()), ("description", description.into())]);
        if workspace["optional"] == true {
            param["default"] = "".into();
        }
        params.push(param);
    }
    if uses_results {
        let description = "A folder for outcome, cause and digest; empty if nobody wants them.";
        let param = [("name", "results".into()), ("description", description.into()), ("default", "".into())];
        params.push(entry(param));
    }
    let written = |result: &&Value| {
        let path = format!("$(step.results.{}.path)", text(&result["name"]));
        args.iter().any(|word| text(word).contains(&path))
    };
    let results = list(&spec["results"]).into_iter().filter(written).cloned().collect();
    // The root of an action's file system cannot be read-only: it may mount nothing by itself, not even /tmp.
    let mut context = spec["stepTemplate"]["securityContext"].clone();
    if let Some(context) = context.as_mapping_mut() {
        context.remove("readOnlyRootFilesystem");
    }
    let spec = entry([
        ("description", described(name, task)),
        ("params", Value::Sequence(params)),
        ("results", Value::Sequence(results)),
        ("image", step["image"].clone()),
        ("command", step["command"].clone()),
        ("args", Value::Sequence(args)),
        ("env", Value::Sequence(env)),
        ("securityContext", context),
    ]);
    entry([
        ("apiVersion", "tekton.dev/v1beta1".into()),
        ("kind", "StepAction".into()),
        ("metadata", entry([("name", name.into())])),
        ("spec", spec),
    ])
}

/// A Task's description is that of all its steps.
fn described(name: &str, task: &Value) -> Value {
    let (whole, of) = (&task["spec"]["description"], text(&task["metadata"]["name"]));
    if name == of { whole.clone() } else { format!("A step of the Task {of}.").into() }
}

fn entry<const N: usize>(fields: [(&str, Value); N]) -> Value {
    Value::Mapping(fields.into_iter().map(|(key, value)| (key.into(), value)).collect::<Mapping>())
}
