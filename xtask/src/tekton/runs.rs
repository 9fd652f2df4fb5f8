//! What Tekton's controller would make of a run: whether its pods find a node, whether `finally` is reached, whether
//! somebody fails for what a Task found. Admission looks at none of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use kit::ci::parse_duration;
use serde_yaml_ng::Value;

use super::lint::{list, names, text, variables};

/// The Task that fails for what others have found.
const GATE: &str = "other-arch-gate";

/// What is wrong with a PipelineRun of this Pipeline.
pub(super) fn run(run: &Value, name: &str, pipeline: &Value, found: &mut Vec<String>) {
    nodes(run, name, pipeline, found);
    times(run, name, pipeline, found);
}

/// A Task's pods are bound to the node of an assistant, which Tekton starts for each claim. Both are named by a
/// workspace: the assistant by the last of the PipelineRun's on that claim, the pods by the last of their Task's on
/// any. Where these differ the pods wait for an assistant that nobody starts.
fn nodes(run: &Value, name: &str, pipeline: &Value, found: &mut Vec<String>) {
    let mut claims = BTreeMap::new();
    let mut assistants = BTreeMap::new();
    for workspace in list(&run["workspaces"]) {
        let claim = text(&workspace["persistentVolumeClaim"]["claimName"]);
        if !claim.is_empty() {
            claims.insert(text(&workspace["name"]), claim);
            assistants.insert(claim, text(&workspace["name"]));
        }
    }
    for task in all(pipeline) {
        let bound = |workspace: &&Value| match text(&workspace["workspace"]) {
            "" => claims.get_key_value(text(&workspace["name"])),
            other => claims.get_key_value(other),
        };
        let workspaces = list(&task["workspaces"]);
        let Some((last, claim)) = workspaces.iter().filter_map(bound).next_back() else { continue };
        if assistants.get(claim) != Some(last) {
            let (task, wanted) = (text(&task["name"]), assistants.get(claim).copied().unwrap_or_default());
            found.push(format!(
                "{task} of {name}: its pod would find no node: its last workspace on the volume is {last}, \
                 and the PipelineRun's is {wanted}"
            ));
        }
    }
}

/// When `timeouts.tasks` is over, Tekton Pipelines v1.9 ends a run without its `finally`, or in the middle of it.
fn times(run: &Value, name: &str, pipeline: &Value, found: &mut Vec<String>) {
    let length = |value: &Value| parse_duration(text(value)).ok();
    let limit = |key: &str| length(&run["timeouts"][key]);
    let (Some(whole), Some(tasks), Some(last)) = (limit("pipeline"), limit("tasks"), limit("finally")) else {
        found.push("timeouts: pipeline, tasks and finally are not all set".into());
        return;
    };
    let mut longest = |key: &str| {
        let mut sum = Duration::ZERO;
        for task in list(&pipeline[key]) {
            let tries = task["retries"].as_u64().and_then(|more| u32::try_from(more).ok()).unwrap_or(0) + 1;
            match length(&task["timeout"]) {
                Some(time) => sum += time * tries,
                None => found.push(format!("{} of {name} has no timeout", text(&task["name"]))),
            }
        }
        sum
    };
    let (dag, end) = (longest("tasks"), longest("finally"));
    for (what, needs, has) in [
        ("timeouts.finally is shorter than its finally", end, last),
        ("timeouts.tasks is shorter than its tasks and finally", dag + end, tasks),
        ("timeouts.pipeline is shorter than tasks and finally", tasks + last, whole),
    ] {
        if needs > has {
            found.push(format!("{name}: {what}, which may take {}", kit::ui::duration(needs)));
        }
    }
}

/// Whether every task runs when all is good, and a gate whichever of them finds something.
pub(super) fn gates(pipeline: &Value, tasks: &BTreeMap<String, &Value>, found: &mut Vec<String>) {
    let dag = list(&pipeline["tasks"]);
    let reference = |task: &Value| text(&task["taskRef"]["name"]).to_owned();
    let good = course(&dag, None);
    let idle = dag.iter().map(|task| text(&task["name"])).filter(|name| !good.contains(name));
    found.extend(idle.map(|name| format!("{name} never runs")));
    let says =
        |task: &&&Value| tasks.get(&reference(task)).is_some_and(|spec| names(&spec["results"]).contains("outcome"));
    for name in dag.iter().filter(says).map(|task| text(&task["name"])) {
        let ran = course(&dag, Some(name));
        if !dag.iter().any(|task| reference(task) == GATE && ran.contains(text(&task["name"]))) {
            found.push(format!("no gate runs when {name} has found something: the run would be a good one"));
        }
    }
}

/// How a task came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Went {
    Ran,
    /// Its own `when` kept it from running.
    When,
    /// Something else did.
    Other,
}

/// The tasks that run if the outcome of `failing` is 'failed' and all others are good, by the rules of Tekton's
/// `pkg/reconciler/pipelinerun/resources`: first `when`, in which the results stay the text that they are as long as one
/// that the task asks for is missing; then a parent that was skipped, unless its `when` was why; then missing results.
fn course<'a>(dag: &[&'a Value], failing: Option<&str>) -> BTreeSet<&'a str> {
    let mut went: BTreeMap<&str, Went> = BTreeMap::new();
    let next = |went: &BTreeMap<&str, Went>| {
        let ready = |task: &&&'a Value| {
            let known = |name: &str| went.contains_key(name);
            !known(text(&task["name"])) && after(task).iter().chain(&asked(task)).all(|parent| known(parent))
        };
        dag.iter().find(ready).copied()
    };
    while let Some(task) = next(&went) {
        let ran = |parent: &String| went.get(parent.as_str()) == Some(&Went::Ran);
        let resolved = asked(task).iter().all(ran);
        let value = |input: &str| match input.trim_start_matches("$(").split('.').collect::<Vec<_>>()[..] {
            ["params", ..] => "given".to_owned(),
            ["tasks", name, "results", ..] if resolved => {
                if failing == Some(name) {
                    "failed".into()
                } else {
                    "passed".into()
                }
            }
            _ => input.to_owned(),
        };
        let allows = |when: &&Value| {
            let input = value(text(&when["input"]));
            list(&when["values"]).iter().any(|one| text(one) == input) == (text(&when["operator"]) == "in")
        };
        let parents = after(task).into_iter().chain(asked(task));
        let skipped = |parent: String| went.get(parent.as_str()) == Some(&Went::Other);
        let how = if !list(&task["when"]).iter().all(allows) {
            Went::When
        } else if parents.into_iter().any(skipped) || !resolved {
            Went::Other
        } else {
            Went::Ran
        };
        went.insert(text(&task["name"]), how);
    }
    went.into_iter().filter(|(_, how)| *how == Went::Ran).map(|(name, _)| name).collect()
}

/// The tasks that it runs after.
fn after(task: &Value) -> BTreeSet<String> {
    list(&task["runAfter"]).iter().map(|name| text(name).to_owned()).collect()
}

/// The tasks whose results it asks for.
fn asked(task: &Value) -> BTreeSet<String> {
    let of = |used: &String| Some(used.strip_prefix("tasks.")?.split_once(".results.")?.0.to_owned());
    variables(task).iter().filter_map(of).collect()
}

fn all(pipeline: &Value) -> Vec<&Value> {
    [list(&pipeline["tasks"]), list(&pipeline["finally"])].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Tekton's own TestReconcileWithWhenExpressions.
    #[test]
    fn what_runs_after_a_task_that_its_when_has_skipped_runs() {
        let dag: Value = serde_yaml_ng::from_str(
            "- {name: a, when: [{input: foo, operator: in, values: [bar]}]}
- {name: b, runAfter: [a]}
- {name: c, runAfter: [a], when: [{input: foo, operator: in, values: [bar]}]}
- {name: d, runAfter: [c]}
- {name: e, when: [{input: $(tasks.a.results.r), operator: in, values: [passed]}]}
- {name: f, runAfter: [e]}
- {name: g, params: [{name: p, value: $(tasks.a.results.r)}]}
- {name: h, runAfter: [g]}
",
        )
        .unwrap();
        assert_eq!(course(&list(&dag), None), ["b", "d", "f"].into());
    }
}
