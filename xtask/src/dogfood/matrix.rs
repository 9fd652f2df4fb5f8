//! The matrix of the driver's runs, and whether it is the one that `cargo xtask nightly` computes.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use kit::{Cause, Context, Result, Ui};
use serde_json::Value;

use super::{
    Request,
    driver::{NAMESPACE, tool},
    labs::Labs,
};
use crate::tools;

/// Gathers the runs that the driver's volumes keep into one history, and renders its matrix; returns its folder.
pub(super) fn collect(labs: &Labs, folder: &Path) -> Result<PathBuf> {
    let history = folder.join("history");
    let claims = labs.driver.json(&["get", "persistentvolumeclaims", "--namespace", NAMESPACE])?;
    for claim in claims["items"].as_array().into_iter().flatten() {
        let Some(volume) = claim["spec"]["volumeName"].as_str() else { continue };
        let volume = labs.driver.json(&["get", "persistentvolume", volume])?;
        let path = labs.driver.volume(volume["spec"]["hostPath"]["path"].as_str().unwrap_or_default())?;
        copy(&path.join("cache/history"), &history)
            .cause(Cause::HostDisk, || format!("cannot copy {}", path.display()))?;
    }
    Ok(history)
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    let Ok(entries) = fs::read_dir(from) else { return Ok(()) };
    fs::create_dir_all(to)?;
    for entry in entries {
        let entry = entry?;
        let target = to.join(entry.file_name());
        match entry.file_type()?.is_dir() {
            true => copy(&entry.path(), &target)?,
            false => drop(fs::copy(entry.path(), target)?),
        }
    }
    Ok(())
}

/// Runs a nightly on the same input and target, and names what its matrix says differently.
pub(super) fn compare(request: &Request<'_>, labs: &Labs, history: &Path, ui: &Ui) -> Result<Vec<String>> {
    let out = request.folder.join("matrix");
    let words = ["render", "--format", "all", "--history"].map(String::from).into_iter();
    let words: Vec<_> =
        words.chain([history.display().to_string(), "--out".into(), out.display().to_string()]).collect();
    tool("support-matrix", &words, "matrix of the driver's runs", ui)?;
    let nightly = request.folder.join("nightly");
    let mut command = std::process::Command::new(tools::path("xtask")?);
    command.args(["nightly", "--component", &request.args.component, "--lab", &labs.target.name]);
    // Where the driver's images are: the names of bases are part of what is compared.
    command.arg("--repo").arg(format!("{}/nightly", labs.target.registry));
    command.arg("--run-dir").arg(nightly.join("run")).arg("--history").arg(nightly.join("history"));
    command.arg("--out").arg(nightly.join("matrix")).args(["--test-on", &request.test_on.to_string()]);
    command.args(request.platforms.iter().flat_map(|platform| ["--platform".to_owned(), platform.to_string()]));
    if !request.args.env.is_empty() {
        command.args(["--env", &request.args.env]);
    }
    command.current_dir(tools::root());
    let step = ui.step("nightly on the same input");
    let process = kit::Process::new("nightly", command).limit(std::time::Duration::from_secs(4 * 3600));
    // Its exit code says what the tests say; the matrix is compared whatever that is.
    let finished = process.on_line(|_, line| step.set(line)).finish()?;
    step.done(format!("exit code {}", finished.code()));
    let (ours, theirs) = (read(&out)?, read(&nightly.join("matrix"))?);
    Ok(differences(&ours, &theirs))
}

fn read(folder: &Path) -> Result<Value> {
    let path = folder.join("matrix.json");
    let bytes = kit::rundir::read_limited(&path, 64 << 20)?;
    serde_json::from_slice(&bytes).cause(Cause::Internal, || format!("{} is no matrix", path.display()))
}

/// What each cell claims, without its times and the names of its evidence, by version and by what it is of.
fn claims(matrix: &Value) -> BTreeMap<(String, String), Value> {
    let cells = matrix["cells"].as_array().cloned().unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or("?").to_owned();
    let claim = |cell: &Value| {
        let levels = cell["levels"].as_object().cloned().unwrap_or_default();
        let verdicts: BTreeMap<_, _> =
            levels.iter().map(|(name, level)| (name.clone(), level["verdict"].clone())).collect();
        let (platform, origin) = (text(&cell["platform"]), text(&cell["origin"]["kind"]));
        let name = format!("{} on {platform}, {origin}", text(&cell["component"]));
        let said = serde_json::json!({
            "origin": cell["origin"], "state": cell["state"], "supported": cell["supported"]["met"], "levels": verdicts,
        });
        ((text(&cell["version"]), name), said)
    };
    cells.iter().map(claim).collect()
}

/// Of the versions that a nightly has tried, and of the levels that it has: the driver may have kept older ones, and tries
/// more kinds of tests.
fn differences(ours: &Value, theirs: &Value) -> Vec<String> {
    let (mut ours, mut theirs) = (claims(ours), claims(theirs));
    if theirs.is_empty() {
        return vec!["nightly's matrix is empty".into()];
    }
    ours.retain(|(version, _), _| theirs.keys().any(|(there, _)| there == version));
    for (key, cell) in &mut theirs {
        let untried: Vec<_> =
            cell["levels"].as_object().into_iter().flatten().filter(|(_, is)| *is == "not-tried").collect();
        let untried: Vec<_> = untried.into_iter().map(|(level, _)| level.clone()).collect();
        for side in [Some(cell), ours.get_mut(key)].into_iter().flatten() {
            if let Some(levels) = side["levels"].as_object_mut() {
                levels.retain(|level, _| !untried.contains(level));
            }
        }
    }
    let keys: std::collections::BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let nothing = Value::Null;
    let differ = keys.into_iter().filter(|key| ours.get(*key) != theirs.get(*key));
    differ
        .map(|key| {
            let side = |cells: &BTreeMap<_, Value>| cells.get(key).unwrap_or(&nothing).to_string();
            format!("{}, {}: {} and not {}", key.1, key.0, side(&ours), side(&theirs))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_claimed_is_compared() {
        let cell = |state: &str, tested: &str| {
            json!({ "cells": [{
                "component": "greeter", "platform": "linux/amd64", "version": "v1", "state": state,
                "origin": { "kind": "built-here" },
                "tested": tested, "levels": { "e2e": { "verdict": "shown", "evidence": [tested] } },
            }] })
        };
        assert!(differences(&cell("tested", "monday"), &cell("tested", "tuesday")).is_empty());
        let found = differences(&cell("tested", "monday"), &cell("built", "monday"));
        assert!(found.len() == 1 && found[0].starts_with("greeter on linux/amd64, built-here, v1: "), "{found:?}");
        assert_eq!(differences(&json!({ "cells": [] }), &cell("tested", "monday")).len(), 1);
        assert_eq!(differences(&cell("tested", "monday"), &json!({ "cells": [] })).len(), 1);
    }

    #[test]
    fn what_the_nightly_has_not_tried_is_not_compared() {
        let cell = |version: &str, unit: &str, e2e: &str| {
            json!({
                "component": "greeter", "platform": "linux/amd64", "version": version, "state": "tested",
                "levels": { "e2e": { "verdict": e2e }, "unit": { "verdict": unit } },
            })
        };
        let theirs = json!({ "cells": [cell("v2", "not-tried", "shown")] });
        let ours = |e2e: &str| json!({ "cells": [cell("v1", "shown", "failed"), cell("v2", "shown", e2e)] });
        assert!(differences(&ours("shown"), &theirs).is_empty());
        assert_eq!(differences(&ours("failed"), &theirs).len(), 1);
    }
}
