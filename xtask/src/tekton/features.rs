//! Whether a cluster's Tekton has what `ci/tekton` uses.

use kit::{Cause, Error, Result};
use serde_json::Value;

/// The oldest Tekton Pipelines with what we use: results of steps, projected workspaces, `onError`, `matrix`.
const PIPELINES: (u32, u32) = (1, 0);
/// Served versions that `ci/tekton` is written in.
const SERVED: [(&str, &str); 7] = [
    ("tasks.tekton.dev", "v1"),
    ("pipelines.tekton.dev", "v1"),
    ("pipelineruns.tekton.dev", "v1"),
    ("eventlisteners.triggers.tekton.dev", "v1beta1"),
    ("triggertemplates.triggers.tekton.dev", "v1beta1"),
    ("triggerbindings.triggers.tekton.dev", "v1beta1"),
    ("clusterinterceptors.triggers.tekton.dev", "v1alpha1"),
];
/// Beside them for `--step-actions`.
const ACTIONS: (&str, &str) = ("stepactions.tekton.dev", "v1beta1");

/// Refuses a Tekton that lacks what `ci/tekton` uses, all of it named; StepActions too, if they are wanted. `kubectl` asks
/// its cluster.
///
/// # Errors
/// [`Cause::Usage`] naming it; what `kubectl` returns if the cluster cannot be asked.
pub(crate) fn features(kubectl: &dyn Fn(&[&str]) -> Result<String>, step_actions: bool) -> Result<()> {
    let wanted: Vec<_> = SERVED.into_iter().chain(step_actions.then_some(ACTIONS)).collect();
    let kinds: Vec<_> = wanted.iter().map(|(kind, _)| *kind).collect();
    let ask = [&["get", "customresourcedefinitions", "--ignore-not-found", "--output=json"][..], &kinds].concat();
    let definitions = serde_json::from_str(&kubectl(&ask)?).unwrap_or_default();
    let path = "jsonpath={.data.version}";
    // One that nobody may read is taken as it is.
    let version = kubectl(&["get", "configmap", "pipelines-info", "--namespace", "tekton-pipelines", "--output", path]);
    let path = "jsonpath={.data.enable-api-fields}";
    let fields = kubectl(&["get", "configmap", "feature-flags", "--namespace", "tekton-pipelines", "--output", path]);
    let mut lacks = lacks(&wanted, &definitions, &version.unwrap_or_default());
    // Otherwise it is 'beta', as Tekton has it itself, or more.
    if fields.is_ok_and(|fields| fields.trim() == "stable") {
        lacks.push("matrix (its feature-flags say enable-api-fields: stable)".into());
    }
    if lacks.is_empty() {
        return Ok(());
    }
    Err(Error::new(Cause::Usage, format!("this Tekton lacks what ci/tekton uses: {}", lacks.join(", ")))
        .next("install Tekton Pipelines v1.0.0 or later and Tekton Triggers v0.30.0 or later"))
}

/// What is not there: of definitions as kubectl prints them, one alone or a list, and of a version.
fn lacks(wanted: &[(&str, &str)], definitions: &Value, version: &str) -> Vec<String> {
    let list = definitions["items"].as_array().map_or(std::slice::from_ref(definitions), Vec::as_slice);
    let mut lacks = Vec::new();
    for (kind, wanted) in wanted {
        let definition = list.iter().find(|definition| definition["metadata"]["name"] == *kind);
        let versions = definition.and_then(|definition| definition["spec"]["versions"].as_array());
        let served = versions.into_iter().flatten().filter(|version| version["served"] == true);
        let served: Vec<_> = served.filter_map(|version| version["name"].as_str()).collect();
        if !served.contains(wanted) {
            let served = if served.is_empty() { "nothing".to_owned() } else { served.join(" ") };
            lacks.push(format!("{kind} {wanted} (served: {served})"));
        }
    }
    lacks.extend(too_old(version));
    lacks
}

/// What is wrong with a version of Tekton Pipelines; one that nobody stamped is taken as it is.
fn too_old(version: &str) -> Option<String> {
    let mut numbers = version.trim().strip_prefix('v')?.split('.').map(|part| part.parse::<u32>().ok());
    let found = (numbers.next()??, numbers.next()??);
    let (major, minor) = PIPELINES;
    (found < PIPELINES).then(|| format!("Tekton Pipelines v{major}.{minor} (there is {})", version.trim()))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The definitions of these kinds, each with a version that is served and one that is not.
    fn definitions(kinds: &[(&str, &str)]) -> Value {
        let one = |(kind, version): &(&str, &str)| {
            let versions = json!([{ "name": version, "served": true }, { "name": "v0", "served": false }]);
            json!({ "metadata": { "name": kind }, "spec": { "versions": versions } })
        };
        json!({ "items": kinds.iter().map(one).collect::<Vec<_>>() })
    }

    #[test]
    fn an_old_tekton_is_named_with_what_it_lacks() {
        assert_eq!(too_old("v0.62.1").unwrap(), "Tekton Pipelines v1.0 (there is v0.62.1)");
        for good in ["v1.0.0", "v1.9.0", "v2.0.0", "devel", ""] {
            assert_eq!(lacks(&SERVED, &definitions(&SERVED), good), [""; 0], "{good}");
        }
        let mut old = SERVED;
        old[0].1 = "v1beta1";
        let found = lacks(&SERVED, &definitions(&old[..4]), "v0.62.1");
        assert_eq!(found[0], "tasks.tekton.dev v1 (served: v1beta1)");
        assert_eq!(found[1], "triggertemplates.triggers.tekton.dev v1beta1 (served: nothing)");
        assert_eq!(found.len(), 5, "{found:?}");
        // One alone is no list, and none is nothing.
        assert_eq!(lacks(&SERVED, &definitions(&SERVED[..1])["items"][0], "").len(), 6);
        assert_eq!(lacks(&SERVED, &Value::Null, "").len(), 7);
    }

    #[test]
    fn a_cluster_that_cannot_be_asked_is_no_good_one() {
        let of = |version: &'static str| {
            move |words: &[&str]| match words[2] {
                "pipelines-info" => Ok::<_, Error>(version.to_owned()),
                "feature-flags" => Ok("beta".into()),
                _ => Ok(definitions(&SERVED).to_string()),
            }
        };
        features(&of("v1.9.0"), false).unwrap();
        let error = features(&of("v1.9.0"), true).unwrap_err();
        assert!(error.to_string().contains("stepactions.tekton.dev v1beta1 (served: nothing)"), "{error}");
        let error = features(&of("v0.50.0"), false).unwrap_err();
        assert!(error.cause == Cause::Usage && error.to_string().contains("lacks what ci/tekton uses"), "{error}");
        let stable = |words: &[&str]| match words[2] {
            "feature-flags" => Ok("stable".into()),
            _ => of("v1.9.0")(words),
        };
        let error = features(&stable, false).unwrap_err();
        assert!(error.to_string().contains("matrix (its feature-flags say"), "{error}");
        let away = |_: &[&str]| Err(Error::new(Cause::Apiserver, "away"));
        assert_eq!(features(&away, false).unwrap_err().cause, Cause::Apiserver);
    }
}
