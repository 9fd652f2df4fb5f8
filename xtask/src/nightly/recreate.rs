//! A cluster that cleanup could not bring back is made anew, where it is ours to make, so that what comes next begins
//! clean. How one comes by it is cluster-install's business, and the lab's.

use kit::{Platform, RunDir, record::Cleanup, rundir};

use super::{request::Request, stages::Work};

/// What a cell's cleanup asks for: the cluster in words, how it goes, how it is made again. Nothing if it was brought back,
/// or if it is somebody else's. Of a cluster by name only that which this run made goes.
pub(super) fn works(
    request: &Request,
    run: &RunDir,
    component: &str,
    platform: &Platform,
) -> Option<(String, [Work; 2])> {
    // Its context has its name.
    let folder = match (&request.lab, &request.named) {
        (Some(lab), _) => format!("lab-{lab}"),
        (None, Some(name)) => rundir::slug(name),
        (None, None) => return None,
    };
    let cleaned = rundir::read_record::<Cleanup>(&run.cell(component, platform, &folder));
    if cleaned.is_err() || cleaned.is_ok_and(|(record, _)| record.stage != "needs-recreate") {
        return None;
    }
    let work = |tool, args: &[&str]| Work::new("recreate", tool, args).unrecorded();
    let images = request.ci.folder().join("images.toml").display().to_string();
    Some(match (&request.lab, &request.named) {
        (Some(lab), _) => {
            let up = work("lab", &["up", "--name", lab, "--images", &images]).args(&request.node_args);
            (format!("lab '{lab}'"), [work("lab", &["down", "--name", lab]), up])
        }
        (None, name) => {
            let name = name.as_deref()?;
            let cluster = |verb| {
                let args = ["cluster", verb, name, "--run", &run.id()];
                work("cluster-install", &args).args(&request.ci_args())
            };
            (format!("cluster {name}"), [cluster("delete"), cluster("create")])
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A cleanup's record of that stage in the cell.
    fn cleaned(run: &RunDir, cluster: &str, stage: &str) {
        let cell = run.cell("greeter", &Platform::host(), cluster);
        std::fs::create_dir_all(&cell).unwrap();
        let record = serde_json::json!({
            "schemaVersion": "1.0", "tool": "cleanup", "toolVersion": "0", "run": run.id(), "outcome": "failed",
            "cause": "not-at-baseline", "started": "2026-01-01T00:00:00Z", "finished": "2026-01-01T00:00:00Z",
            "cluster": {"uid": "u", "name": cluster, "kubernetes": "v1.37.2", "nodes": []}, "stage": stage,
            "deleted": {}, "restored": [], "forced": [], "difference": {"added": [], "missing": [], "changed": []}
        });
        std::fs::write(cell.join("cleanup.json"), record.to_string()).unwrap();
    }

    #[test]
    fn a_cluster_that_does_not_get_back_is_made_anew_by_whoever_makes_it() {
        let folder = tempfile::tempdir().unwrap();
        let run = RunDir::create(folder.path().join("run")).unwrap();
        let mut request = Request::of("--lab two");
        let commands = |request: &Request| {
            let works = works(request, &run, "greeter", &Platform::host());
            works.map(|(_, works)| works.map(|work| work.command()))
        };
        assert_eq!(commands(&request), None, "there is no record");
        cleaned(&run, "lab-two", "needs-recreate");
        let [down, up] = commands(&request).unwrap();
        assert_eq!(down, "cargo xtask lab down --name two");
        assert!(up.starts_with("cargo xtask lab up --name two --images "), "{up}");
        (request.lab, request.named) = (None, Some("z-1".into()));
        cleaned(&run, "z-1", "force");
        assert_eq!(commands(&request), None, "it was brought back");
        cleaned(&run, "z-1", "needs-recreate");
        let [delete, create] = commands(&request).unwrap();
        let of_run = format!("z-1 --run {}", run.id());
        assert!(delete.starts_with(&format!("cargo xtask cluster-install cluster delete {of_run}")), "{delete}");
        assert!(create.starts_with(&format!("cargo xtask cluster-install cluster create {of_run}")), "{create}");
        request.named = None;
        assert_eq!(commands(&request), None, "another's stays");
    }
}
