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
    let mut command = std::process::Command::new(std::env::current_exe().cause(Cause::Internal, || "no own path")?);
    command.args(["nightly", "--component", &request.args.component, "--lab", &labs.target.name]);
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

/// What a cell claims, without its times and the names of its evidence.
fn claims(matrix: &Value) -> BTreeMap<String, Value> {
    let cells = matrix["cells"].as_array().cloned().unwrap_or_default();
    let claim = |cell: &Value| {
        let levels = cell["levels"].as_object().cloned().unwrap_or_default();
        let verdicts: BTreeMap<_, _> =
            levels.iter().map(|(name, level)| (name.clone(), level["verdict"].clone())).collect();
        let name =
            format!("{} on {}", cell["component"].as_str().unwrap_or("?"), cell["platform"].as_str().unwrap_or("?"));
        (
            name,
            serde_json::json!({
                "version": cell["version"], "origin": cell["origin"], "state": cell["state"],
                "supported": cell["supported"]["met"], "levels": verdicts,
            }),
        )
    };
    cells.iter().map(claim).collect()
}

fn differences(ours: &Value, theirs: &Value) -> Vec<String> {
    let (ours, theirs) = (claims(ours), claims(theirs));
    let names: std::collections::BTreeSet<_> = ours.keys().chain(theirs.keys()).collect();
    let differ = names.into_iter().filter(|name| ours.get(*name) != theirs.get(*name));
    let nothing = Value::Null;
    let side = |cells: &BTreeMap<String, Value>, name: &str| cells.get(name).unwrap_or(&nothing).to_string();
    differ.map(|name| format!("{name}: {} and not {}", side(&ours, name), side(&theirs, name))).collect()
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
                "tested": tested, "levels": { "e2e": { "verdict": "shown", "evidence": [tested] } },
            }] })
        };
        assert!(differences(&cell("tested", "monday"), &cell("tested", "tuesday")).is_empty());
        let found = differences(&cell("tested", "monday"), &cell("built", "monday"));
        assert!(found.len() == 1 && found[0].starts_with("greeter on linux/amd64: "), "{found:?}");
        assert_eq!(differences(&cell("tested", "monday"), &json!({ "cells": [] })).len(), 1);
    }
}
