//! What lies in `ci/tekton` as documents, and as what a cluster is given.

use std::{
    fs,
    path::{Path, PathBuf},
};

use kit::{Cause, Context, Error, Result};
use serde::Deserialize;
use serde_yaml_ng::{Mapping, Value};

use crate::images::Made;

/// What stands for a step image until it is known by digest, as `ko://` stands for what ko builds.
pub(super) const IMAGE: &str = "step-image://";
/// What stands for something that belongs to a place.
const PLACE: &str = "place://";

/// What belongs to a cluster.
#[derive(Debug, Clone)]
pub(crate) struct Place {
    pub(crate) namespace: String,
    pub(crate) repo: String,
    pub(crate) repository: String,
    pub(crate) storage: String,
    pub(crate) access_mode: String,
    /// Where the Dashboard is; empty if there is none.
    pub(crate) dashboard: String,
}

/// A document of `ci/tekton` and its file.
#[derive(Debug, Clone)]
pub(crate) struct Document {
    pub(crate) file: String,
    pub(crate) value: Value,
}

impl Document {
    pub(crate) fn kind(&self) -> &str {
        self.value["kind"].as_str().unwrap_or_default()
    }

    pub(crate) fn name(&self) -> &str {
        self.value["metadata"]["name"].as_str().unwrap_or_default()
    }
}

/// Every document below `ci/tekton`, each Task with what all have, sorted by file.
///
/// # Errors
/// [`Cause::Usage`] naming the file that is no YAML, or a Task that has of its own what is the same for all.
pub(crate) fn documents(folder: &Path) -> Result<Vec<Document>> {
    let common: Value = read(&folder.join("common.yaml"))?.pop().unwrap_or_default();
    let mut files = Vec::new();
    collect(folder, &mut files).cause(Cause::Usage, || format!("cannot read {}", folder.display()))?;
    files.sort();
    let mut all = Vec::new();
    for path in files.iter().filter(|path| path.file_name().is_some_and(|name| name != "common.yaml")) {
        let file = path.strip_prefix(folder).unwrap_or(path).display().to_string();
        for mut value in read(path)? {
            if value["kind"] == "Task" {
                complete(&mut value, &common).map_err(|error| error.within(file.clone()))?;
            }
            all.push(Document { file: file.clone(), value });
        }
    }
    Ok(all)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), files)?;
        } else if entry.path().extension().is_some_and(|extension| extension == "yaml") {
            files.push(entry.path());
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<Value>> {
    let text = fs::read_to_string(path).cause(Cause::Usage, || format!("cannot read {}", path.display()))?;
    let parse =
        |document| Value::deserialize(document).cause(Cause::Usage, || format!("{} is no YAML", path.display()));
    let documents = serde_yaml_ng::Deserializer::from_str(&text).map(parse).collect::<Result<Vec<_>>>()?;
    Ok(documents.into_iter().filter(|value| !value.is_null()).collect())
}

/// Gives a Task what all have; what it says itself comes after it.
fn complete(task: &mut Value, common: &Value) -> Result<()> {
    let Some(spec) = task["spec"].as_mapping_mut() else { return Ok(()) };
    let own = spec.remove("stepTemplate").unwrap_or_default();
    let mut keys = own.as_mapping().into_iter().flat_map(Mapping::keys).filter_map(Value::as_str);
    if let Some(other) = keys.find(|key| *key != "env") {
        return Err(Error::new(Cause::Usage, format!("stepTemplate: a Task has no {other} of its own, only env"))
            .next("what all Tasks have is in ci/tekton/common.yaml; a step may have its own"));
    }
    let mut template = common["stepTemplate"].clone();
    if let Some(env) = own["env"].as_sequence() {
        let list = template["env"].as_sequence().cloned().unwrap_or_default();
        template["env"] = Value::Sequence(list.into_iter().chain(env.iter().cloned()).collect());
    }
    let volumes = spec.remove("volumes").and_then(|volumes| volumes.as_sequence().cloned()).unwrap_or_default();
    let list = common["volumes"].as_sequence().cloned().unwrap_or_default();
    spec.insert("stepTemplate".into(), template);
    spec.insert("volumes".into(), Value::Sequence(list.into_iter().chain(volumes).collect()));
    Ok(())
}

/// These documents for a place, as YAML, and its namespace before them.
///
/// # Errors
/// [`Cause::Usage`] for a step image that was not pushed.
pub(crate) fn render(documents: Vec<Document>, place: &Place, images: &Made) -> Result<String> {
    // First, so that all others find it.
    let labels = "{app.kubernetes.io/part-of: other-arch}";
    let name = &place.namespace;
    let mut text = format!("---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n  labels: {labels}\n");
    for document in documents {
        let mut value = document.value;
        fill(&mut value, &|word| put_in(word, place, images))
            .map_err(|error| error.within(format!("ci/tekton/{}", document.file)))?;
        let cluster_wide = ["ClusterRole", "ClusterRoleBinding"].iter().any(|kind| value["kind"] == *kind);
        if let Some(metadata) = value["metadata"].as_mapping_mut() {
            if !cluster_wide {
                metadata.insert("namespace".into(), place.namespace.clone().into());
            }
            let labels = metadata.entry("labels".into()).or_insert_with(|| Mapping::new().into());
            labels["app.kubernetes.io/part-of"] = "other-arch".into();
        }
        let yaml = serde_yaml_ng::to_string(&value).cause(Cause::Internal, || "cannot write YAML")?;
        text.push_str(&format!("---\n{yaml}"));
    }
    Ok(text)
}

/// Changes every text in a value, keys excepted.
fn fill(value: &mut Value, change: &dyn Fn(&str) -> Result<Option<String>>) -> Result<()> {
    match value {
        Value::String(text) => {
            if let Some(new) = change(text)? {
                *text = new;
            }
            Ok(())
        }
        Value::Sequence(list) => list.iter_mut().try_for_each(|value| fill(value, change)),
        Value::Mapping(map) => map.iter_mut().try_for_each(|(_, value)| fill(value, change)),
        _ => Ok(()),
    }
}

fn put_in(text: &str, place: &Place, images: &Made) -> Result<Option<String>> {
    if let Some(name) = text.strip_prefix(IMAGE) {
        let missing = || {
            Error::new(Cause::Usage, format!("the step image {name} was not pushed"))
                .next("push all of them: cargo xtask images --to REPO")
        };
        return Ok(Some(images.images.get(name).cloned().ok_or_else(missing)?));
    }
    if !text.contains(PLACE) {
        return Ok(None);
    }
    let parts = [
        ("repository", &place.repository),
        ("repo", &place.repo),
        ("namespace", &place.namespace),
        ("storage", &place.storage),
        ("access-mode", &place.access_mode),
        ("dashboard", &place.dashboard),
    ];
    let filled =
        parts.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{PLACE}{name}"), value));
    match filled.contains(PLACE) {
        true => Err(Error::new(Cause::Usage, format!("'{text}' names nothing that belongs to a place"))),
        false => Ok(Some(filled)),
    }
}
