//! What follows from `ci/architectures.toml` and `ci/components.toml`: a CronJob for each architecture that is tested,
//! and a volume for each place.

use kit::{
    Cause, Context, Platform, Result,
    ci::{Architecture, Ci},
};
use serde_json::{Value, json};

const HEAD: &str = "# Generated from ci/architectures.toml and ci/components.toml by `cargo xtask generate`.\n";
/// Where a build works.
const BUILD: &str = "build";

/// The request that begins a component's night on a platform, as a CronJob sends it: the build is for all platforms,
/// and the same for all architectures.
pub(crate) fn payload(component: &str, platforms: &[Platform], test_on: &[Platform]) -> Value {
    let list = |platforms: &[Platform]| platforms.iter().map(ToString::to_string).collect::<Vec<_>>().join(",");
    json!({ "component": component, "platforms": list(platforms), "testOn": list(test_on) })
}

/// The components that are built every night: those that somebody publishes, that are installed, and that have tests.
pub(super) fn components(ci: &Ci) -> Result<Vec<String>> {
    let all = ci.components()?;
    let nightly = all
        .into_iter()
        .filter(|(_, component)| component.module.is_some() && component.config.is_some() && component.tests.is_some());
    Ok(nightly.map(|(name, _)| name).collect())
}

/// All documents, as YAML.
///
/// # Errors
/// [`Cause::Usage`] if the files are wrong.
pub(super) fn places(ci: &Ci) -> Result<String> {
    let (architectures, components) = (ci.architectures()?.architecture, components(ci)?);
    let mut text = HEAD.to_owned();
    text.push_str(&claim(BUILD));
    for architecture in &architectures {
        text.push_str(&claim(&architecture.platform.dir()));
    }
    for architecture in architectures.iter().filter(|architecture| architecture.schedule.is_some()) {
        let requests = requests(architecture, &components, &architectures);
        text.push_str(&cron(&architecture.platform, architecture.schedule.as_deref().unwrap_or_default(), &requests));
    }
    Ok(text)
}

/// The Job that the CronJob of an architecture starts, for one request.
///
/// # Errors
/// [`Cause::Internal`], never for a CronJob of ours.
pub(crate) fn job(request: &Value, image: &str, namespace: &str) -> Result<Value> {
    let text = cron(&Platform::host(), "", std::slice::from_ref(request));
    let text = text.replace("step-image://trigger", image).replace("place://namespace", namespace);
    let cron: Value = serde_yaml_ng::from_str(&text).cause(Cause::Internal, || "a CronJob that is no YAML")?;
    Ok(json!({
        "apiVersion": "batch/v1", "kind": "Job",
        "metadata": { "generateName": "request-", "namespace": namespace },
        "spec": cron["spec"]["jobTemplate"]["spec"],
    }))
}

fn claim(place: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata:\n  name: other-arch-{place}\nspec:\n  \
         accessModes: [\"place://access-mode\"]\n  resources:\n    requests:\n      storage: \"place://storage\"\n"
    )
}

/// What the CronJob of an architecture asks for: all components, one after the other.
pub(super) fn requests(architecture: &Architecture, components: &[String], all: &[Architecture]) -> Vec<Value> {
    let platforms: Vec<_> = all.iter().map(|architecture| architecture.platform.clone()).collect();
    let test_on = std::slice::from_ref(&architecture.platform);
    components.iter().map(|component| payload(component, &platforms, test_on)).collect()
}

fn cron(platform: &Platform, schedule: &str, requests: &[Value]) -> String {
    let place = platform.dir();
    // As a scalar in quotes, in which YAML knows no other escape.
    let body = |request: &Value| format!("            - '{}'\n", request.to_string().replace('\'', "''"));
    let bodies: String = requests.iter().map(body).collect();
    format!(
        "---
apiVersion: batch/v1
kind: CronJob
metadata:
  name: other-arch-{place}
spec:
  schedule: \"{schedule}\"
  # Runs that share a target wait for its lease; a request is posted in a second.
  concurrencyPolicy: Forbid
  startingDeadlineSeconds: 3600
  jobTemplate:
    spec:
      # It asks until it is heard: begun anew it would ask twice.
      backoffLimit: 0
      activeDeadlineSeconds: 900
      template:
        metadata:
          labels: {{other-arch.dev/place: {place}}}
        spec:
          restartPolicy: Never
          serviceAccountName: other-arch-cron
          automountServiceAccountToken: false
          securityContext:
            runAsNonRoot: true
            runAsUser: 65532
            seccompProfile: {{type: RuntimeDefault}}
          containers:
          - name: request
            image: step-image://trigger
            securityContext:
              readOnlyRootFilesystem: true
              allowPrivilegeEscalation: false
              capabilities: {{drop: [ALL]}}
            command: [/bin/sh, -euc]
            args:
            - |
              for body; do
                until timeout 30 wget -q -Y off -O - --header 'Content-Type: application/json' --post-data \"$body\" \\
                  http://el-other-arch.place://namespace.svc:8080
                do sleep 10; done
              done
            - request
{bodies}"
    )
}
