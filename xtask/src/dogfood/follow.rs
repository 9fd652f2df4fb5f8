//! PipelineRuns from outside: found, watched to their end, and what they said of it.

use std::{collections::BTreeMap, fs, time::Duration};

use kit::{Cause, Context, Error, Result, Ui, retry};
use serde::Serialize;
use serde_json::Value;

use super::{Cancel, driver::NAMESPACE, labs::Labs, not_done};

/// Longer than anybody waits here; Tekton would end a run after a day.
const LIMIT: Duration = Duration::from_secs(6 * 3600);
/// Until a PipelineRun that was asked for is there.
const BEGIN: Duration = Duration::from_secs(120);

/// A PipelineRun that has ended.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Followed {
    pub(super) name: String,
    pub(super) pipeline: String,
    /// Tekton's word for how it ended.
    pub(super) reason: String,
    /// The results that it shows.
    pub(super) outcome: String,
    pub(super) cause: Option<Cause>,
    pub(super) evidence: Option<String>,
    pub(super) release: Option<String>,
    pub(super) took: String,
    /// How each of its tasks ended.
    pub(super) tasks: Vec<(String, String)>,
    /// Our annotations on it, without what their names begin with.
    pub(super) annotations: BTreeMap<String, String>,
}

/// The run of a component at a place that was started since; it may have ended already.
pub(super) fn next(labs: &Labs, component: &str, place: &str, since: jiff::Timestamp, ui: &Ui) -> Result<String> {
    let selector = format!("other-arch.dev/component={component},other-arch.dev/place={place}");
    let late = || not_done(format!("nobody started a run of {component} at {place}"));
    let found = retry::until(BEGIN, late, || {
        let runs = labs.driver.json(&["get", "pipelineruns", "--namespace", NAMESPACE, "--selector", &selector])?;
        let items = runs["items"].as_array().cloned().unwrap_or_default();
        // Kubernetes counts in seconds.
        let created = |run: &&Value| text(&run["metadata"]["creationTimestamp"]).parse::<jiff::Timestamp>().ok();
        let new = |run: &&Value| created(run).is_some_and(|created| created.as_second() >= since.as_second());
        let newest = items.iter().filter(new).max_by_key(created);
        Ok(newest.map(|run| text(&run["metadata"]["name"])))
    })?;
    ui.note(format!("PipelineRun {found}"));
    Ok(found)
}

/// Watches a run to its end; cancels it while its tests run, if that is wanted.
pub(super) fn to_the_end(labs: &Labs, name: &str, cancel: Option<Cancel>, ui: &Ui) -> Result<Followed> {
    let step = ui.step(name.to_owned());
    let mut cancelled = false;
    let late = || not_done(format!("PipelineRun {name} has not ended in {} hours", LIMIT.as_secs() / 3600));
    let run = retry::until(LIMIT, late, || {
        let run = labs.driver.json(&["get", "pipelinerun", name, "--namespace", NAMESPACE])?;
        let tasks = ended(&task_runs(labs, name)?);
        let shown: Vec<_> = tasks.iter().map(|(task, how)| format!("{task} {how}")).collect();
        step.set(shown.join(", "));
        let testing = tasks.iter().any(|(task, how)| task == "e2e" && how == "Running");
        if let (Some(how), true, false) = (cancel, testing, cancelled) {
            cancelled = true;
            let Some(status) = status(how) else {
                labs.driver.kubectl(&["delete", "pipelinerun", name, "--namespace", NAMESPACE])?;
                return Ok(Some(deleted(run)));
            };
            let patch = format!(r#"{{"spec":{{"status":"{status}"}}}}"#);
            let arguments = ["patch", "pipelinerun", name, "--namespace", NAMESPACE, "--type=merge", "--patch", &patch];
            labs.driver.kubectl(&arguments)?;
        }
        Ok((!run["status"]["completionTime"].is_null()).then_some(run))
    })?;
    let followed = read(name, &run, &task_runs(labs, name)?)?;
    step.done(format!("{} {}", followed.reason, followed.outcome));
    Ok(followed)
}

/// What a PipelineRun's `spec.status` is set to, unless it is deleted.
const fn status(how: Cancel) -> Option<&'static str> {
    match how {
        Cancel::Finally => Some("CancelledRunFinally"),
        Cancel::Now => Some("Cancelled"),
        Cancel::Delete => None,
    }
}

/// A run as it was when it was deleted.
fn deleted(mut run: Value) -> Value {
    run["status"]["conditions"] = serde_json::json!([{ "status": "False", "reason": "Deleted" }]);
    run
}

/// The TaskRuns of a run, in the order in which they began.
fn task_runs(labs: &Labs, run: &str) -> Result<Vec<Value>> {
    let selector = format!("tekton.dev/pipelineRun={run}");
    let list = labs.driver.json(&["get", "taskruns", "--namespace", NAMESPACE, "--selector", &selector])?;
    let mut items = list["items"].as_array().cloned().unwrap_or_default();
    items.sort_by_key(|task| text(&task["status"]["startTime"]));
    Ok(items)
}

fn task_name(task: &Value) -> String {
    text(&task["metadata"]["labels"]["tekton.dev/pipelineTask"])
}

/// How each of them stands.
fn ended(tasks: &[Value]) -> Vec<(String, String)> {
    tasks.iter().map(|task| (task_name(task), text(&task["status"]["conditions"][0]["reason"]))).collect()
}

fn read(name: &str, run: &Value, tasks: &[Value]) -> Result<Followed> {
    let status = &run["status"];
    // Tekton shows no results of a Task that failed; it has them all the same.
    let last = tasks.iter().find(|task| ["finish", "close"].contains(&task_name(task).as_str()));
    let shown = [Some(status), last.map(|task| &task["status"])].into_iter().flatten();
    let results: Vec<_> = shown.filter_map(|status| status["results"].as_array()).flatten().collect();
    let result = |wanted: &str| {
        let found = results.iter().find(|result| result["name"] == wanted).map(|result| text(&result["value"]));
        found.filter(|value| !value.is_empty())
    };
    let reason = text(&status["conditions"][0]["reason"]);
    let said = result("cause").map(|cause| {
        let known = kit::Cause::ALL.iter().copied().find(|one| one.name() == cause);
        known.ok_or_else(|| Error::new(Cause::Internal, format!("PipelineRun {name} has the cause '{cause}'")))
    });
    let good = status["conditions"][0]["status"] == "True";
    // A run that was ended hard says nothing.
    let cause = said.transpose()?.or((!good).then_some(Cause::Interrupted));
    let time = |field: &str| text(&status[field]).parse::<jiff::Timestamp>().ok();
    let took = time("startTime").zip(time("completionTime")).map(|(from, to)| to.duration_since(from).unsigned_abs());
    Ok(Followed {
        name: name.into(),
        pipeline: text(&run["spec"]["pipelineRef"]["name"]),
        reason,
        outcome: result("outcome").unwrap_or_default(),
        cause,
        evidence: result("evidence"),
        release: result("release"),
        took: took.map(kit::ui::duration).unwrap_or_default(),
        tasks: ended(tasks),
        annotations: annotations(run),
    })
}

fn annotations(run: &Value) -> BTreeMap<String, String> {
    let all = run["metadata"]["annotations"].as_object().into_iter().flatten();
    all.filter_map(|(name, value)| Some((name.strip_prefix("other-arch.dev/")?.to_owned(), text(value)))).collect()
}

/// Keeps what a person would look at: the run, its TaskRuns, the log of each step.
pub(super) fn keep(labs: &Labs, name: &str, folder: &std::path::Path) -> Result<()> {
    let selector = format!("tekton.dev/pipelineRun={name}");
    let list = labs.driver.kubectl(&[
        "get",
        "pipelinerun,taskrun,pod",
        "--namespace",
        NAMESPACE,
        "--selector",
        &selector,
        "--output=yaml",
    ])?;
    let logs = labs.driver.kubectl(&[
        "logs",
        "--namespace",
        NAMESPACE,
        "--selector",
        &selector,
        "--all-containers",
        "--prefix",
        "--tail=-1",
        "--max-log-requests=100",
    ]);
    let write = |file: &str, text: &str| {
        let path = folder.join(format!("{name}.{file}"));
        fs::write(&path, text).cause(Cause::HostDisk, || format!("cannot write {}", path.display()))
    };
    write("yaml", &list)?;
    write("log", &logs.unwrap_or_else(|error| error.to_string()))
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_run_says_is_its_cause_and_a_run_that_says_nothing_was_stopped() {
        let run = |status: &str, results: Value| {
            json!({
                "metadata": { "annotations": { "other-arch.dev/cause": "product", "x": "y" } },
                "spec": { "pipelineRef": { "name": "other-arch-test" } },
                "status": {
                    "conditions": [{ "status": status, "reason": "Failed" }], "results": results,
                    "startTime": "2026-01-01T00:00:00Z", "completionTime": "2026-01-01T00:01:05Z",
                },
            })
        };
        let results = json!([{ "name": "cause", "value": "product" }, { "name": "outcome", "value": "failed" }]);
        let red = read("x", &run("False", results), &[]).unwrap();
        assert_eq!((red.cause, red.outcome.as_str()), (Some(Cause::Product), "failed"));
        assert_eq!(red.annotations, [("cause".into(), "product".into())].into());
        let results = json!([{ "name": "cause", "value": "" }, { "name": "outcome", "value": "passed" }]);
        assert_eq!(read("x", &run("True", results), &[]).unwrap().cause, None);
        assert_eq!(read("x", &run("False", json!([])), &[]).unwrap().cause, Some(Cause::Interrupted));
        // The task that fails because the target cannot be brought back says why.
        let finish = json!({
            "metadata": { "labels": { "tekton.dev/pipelineTask": "finish" } },
            "status": { "conditions": [{ "reason": "Failed" }], "results": [
                { "name": "cause", "value": "not-at-baseline" }, { "name": "outcome", "value": "failed" },
            ] },
        });
        let left = read("x", &run("False", json!([])), &[finish]).unwrap();
        assert_eq!((left.cause, left.outcome.as_str()), (Some(Cause::NotAtBaseline), "failed"));
        assert_eq!(left.tasks, [("finish".to_owned(), "Failed".to_owned())]);
        let wrong = json!([{ "name": "cause", "value": "bad luck" }]);
        assert_eq!(read("x", &run("False", wrong), &[]).unwrap_err().cause, Cause::Internal);
    }
}
