//! `cluster-install annotate`: what a run came to, on the PipelineRun that it is in Tekton, where its Dashboard shows it.
//!
//! It is written with one patch and nothing is read, so that whoever does it needs no other right. Tekton's controller
//! leaves annotations that it does not know as they are.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use cluster::{KubeContext, Options};
use kit::{
    Cause, Done, Error, Outcome, Output, Result, Ui,
    record::{Head, Stages},
    rundir,
};
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};

/// What the names of our annotations begin with, as our labels on a PipelineRun.
const PREFIX: &str = "other-arch.dev/";
/// Nothing depends on it, and the end of a run has other things to do.
const LIMIT: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The run's folder, in which `support-matrix conclude` has said what it came to
    #[arg(long, value_name = "DIR")]
    run_dir: PathBuf,
    /// The PipelineRun
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = pipeline_run)]
    pipelinerun: (String, String),
    /// A file with the digest of the recorded run; it is not there if the run was not recorded
    #[arg(long, value_name = "FILE")]
    evidence: Option<PathBuf>,
    /// A file with the exit code of what a good run needs as well, and the cause if that has failed
    #[arg(long, value_name = "CAUSE=FILE", value_parser = need)]
    needs: Vec<(Cause, PathBuf)>,
    #[command(flatten)]
    cluster: Options,
}

fn pipeline_run(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('/').filter(|(namespace, name)| {
        let good = |part: &str| !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || "-.".contains(c));
        good(namespace) && good(name)
    });
    parts.map(|(namespace, name)| (namespace.into(), name.into())).ok_or_else(|| "write NAMESPACE/NAME".into())
}

fn need(text: &str) -> Result<(Cause, PathBuf), String> {
    let split = text.split_once('=');
    let known = split.and_then(|(name, file)| {
        Some((Cause::ALL.iter().copied().find(|cause| cause.name() == name)?, PathBuf::from(file)))
    });
    known.ok_or_else(|| "write CAUSE=FILE".into())
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Done> {
    let (Stages { head, .. }, _) = rundir::read_record::<Stages>(&args.run_dir)?;
    let head = with_needs(head, &args.needs);
    let read = |path: &PathBuf| rundir::read_limited(path, 1 << 10).ok();
    let evidence = args.evidence.as_ref().and_then(read).unwrap_or_default();
    let annotations = annotations(&head, String::from_utf8_lossy(&evidence).trim());
    let (namespace, name) = &args.pipelinerun;
    let late = || Error::new(Cause::Apiserver, format!("no answer in {} s", LIMIT.as_secs()));
    cluster::block_on(cluster::within(LIMIT, late, async {
        let client = cluster::open(&args.cluster, ui).await?.client;
        write(client, namespace, name, &annotations).await
    }))?;
    match ui.output {
        Output::Json => ui.json(&annotations)?,
        Output::Text => ui.note(format!("annotated: PipelineRun {namespace}/{name}")),
    }
    Ok(Done::good())
}

/// A run is not good either if something that it needs has failed, or never ended.
fn with_needs(head: Head, needs: &[(Cause, PathBuf)]) -> Head {
    let done = |file: &Path| rundir::read_limited(file, 16).is_ok_and(|code| code.trim_ascii() == b"0");
    match needs.iter().find(|(_, file)| !done(file)) {
        Some((cause, _)) if head.outcome == Outcome::Passed => {
            Head { outcome: Outcome::Failed, cause: Some(*cause), ..head }
        }
        _ => head,
    }
}

/// All of them, also those that are to go: an earlier try may have known less.
fn annotations(head: &Head, evidence: &str) -> Value {
    let outcome = serde_json::to_value(head.outcome).unwrap_or_default();
    let evidence = Some(evidence).filter(|digest| !digest.is_empty());
    json!({
        format!("{PREFIX}outcome"): outcome,
        format!("{PREFIX}cause"): head.cause.map(kit::Cause::name),
        format!("{PREFIX}evidence"): evidence,
    })
}

async fn write(client: Client, namespace: &str, name: &str, annotations: &Value) -> Result<()> {
    let resource = ApiResource {
        group: "tekton.dev".into(),
        version: "v1".into(),
        api_version: "tekton.dev/v1".into(),
        kind: "PipelineRun".into(),
        plural: "pipelineruns".into(),
    };
    let api = Api::<DynamicObject>::namespaced_with(client, namespace, &resource);
    let patch = json!({ "metadata": { "annotations": annotations } });
    let written = api.patch_metadata(name, &PatchParams::default(), &Patch::Merge(&patch)).await;
    match written {
        Err(kube::Error::Api(status)) if status.code == 404 => {
            Err(Error::new(Cause::Usage, format!("there is no PipelineRun {namespace}/{name}")))
        }
        written => written.map(drop).kube(|| format!("cannot annotate PipelineRun {namespace}/{name}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_run_came_to_is_said_and_what_is_not_so_any_more_goes() {
        let head = Head::new("support-matrix", "1", "run", jiff::Timestamp::now());
        let good = annotations(&head, "sha256:0");
        assert_eq!(
            good,
            json!({
                "other-arch.dev/outcome": "passed", "other-arch.dev/cause": null, "other-arch.dev/evidence": "sha256:0",
            })
        );
        let failed = Head { outcome: Outcome::Failed, cause: Some(Cause::ImagePull), ..head };
        let said = annotations(&failed, "");
        assert_eq!(said["other-arch.dev/cause"], "image-pull");
        assert_eq!(said["other-arch.dev/evidence"], Value::Null);
    }

    #[test]
    fn a_good_run_whose_evidence_was_not_kept_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, code: &str| {
            std::fs::write(folder.path().join(name), code).unwrap();
            need(&format!("registry={}", folder.path().join(name).display())).unwrap()
        };
        let (good, bad) = (file("good", "0"), file("bad", "3\n"));
        let killed = (Cause::HostDisk, folder.path().join("none"));
        let head = || Head::new("support-matrix", "1", "run", jiff::Timestamp::now());
        let cause = |head, needs: &[_]| with_needs(head, needs).cause;
        assert_eq!(cause(head(), std::slice::from_ref(&good)), None);
        assert_eq!(cause(head(), &[good.clone(), bad.clone()]), Some(Cause::Registry));
        assert_eq!(cause(head(), &[killed, bad.clone()]), Some(Cause::HostDisk));
        let failed = Head { outcome: Outcome::Failed, cause: Some(Cause::Product), ..head() };
        assert_eq!(cause(failed, &[bad]), Some(Cause::Product), "that comes first");
        assert!(need("registry").is_err() && need("nothing=x").is_err());
    }

    #[test]
    fn a_pipelinerun_is_named_with_its_namespace() {
        assert_eq!(pipeline_run("night/greeter-build-x.1"), Ok(("night".into(), "greeter-build-x.1".into())));
        for wrong in ["", "x", "/x", "x/", "a/b/c", "a/..%2f"] {
            assert!(pipeline_run(wrong).is_err(), "{wrong}");
        }
    }
}
