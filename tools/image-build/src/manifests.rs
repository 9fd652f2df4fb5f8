//! A component's configuration: which images it names, and changing them without touching the rest of the
//! text.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::LazyLock,
};

use kit::{Cause, Context, Error, Result, Within, rundir};
use regex::Regex;
use serde::Deserialize;
use serde_yaml_ng::Value;

/// A release file is at most this large.
pub(crate) const RELEASE_LIMIT: u64 = 64 << 20;
/// How ko is asked to build something.
pub(crate) const KO: &str = "ko://";
/// Registries whose images are recognised without a tag, where anything else could be an import path.
const REGISTRIES: &[&str] = &[
    "docker.io",
    "gcr.io",
    "ghcr.io",
    "quay.io",
    "cgr.dev",
    "icr.io",
    "pkg.dev",
    "mcr.microsoft.com",
    "public.ecr.aws",
    "registry.k8s.io",
    "registry.access.redhat.com",
    "registry.redhat.io",
];

/// Everything that ko is asked for: import paths named `ko://…` in the configuration.
///
/// # Errors
/// [`Cause::Usage`] naming a file that is missing or no YAML.
pub(crate) fn ko_references(files: &[PathBuf]) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for path in files {
        each_scalar(&read(path)?, &mut |_, text| {
            found.extend(text.strip_prefix(KO).map(String::from));
        })
        .within(|| path.display().to_string())?;
    }
    Ok(found)
}

/// Every image that the files name without `ko://`.
pub(crate) fn named_images(files: &[PathBuf]) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    for path in files {
        found.extend(image_references(&read(path)?).within(|| path.display().to_string())?);
    }
    Ok(found)
}

/// The files that ko reads when it is given these paths, in its order: YAML and JSON, folders with all below.
pub(crate) fn files(root: &Path, config: &[String]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in config {
        let path = root.join(path);
        if path.is_file() {
            files.push(path);
        } else {
            let mut below = Vec::new();
            collect(&path, &mut below).cause(Cause::Usage, || format!("cannot read {}", path.display()))?;
            below.sort();
            files.extend(below);
        }
    }
    Ok(files)
}

/// One text of all files, as `kubectl apply` takes it.
///
/// # Errors
/// [`Cause::Usage`] naming a file that cannot be read.
pub(crate) fn join(files: &[PathBuf]) -> Result<String> {
    let mut text = String::new();
    for path in files {
        text.push_str(read(path)?.trim_end());
        text.push_str("\n---\n");
    }
    Ok(text)
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let wanted =
            path.extension().is_some_and(|extension| ["yaml", "yml", "json"].map(AsRef::as_ref).contains(&extension));
        if path.is_dir() {
            collect(&path, files)?;
        } else if wanted {
            files.push(path);
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<String> {
    let bytes = rundir::read_limited(path, RELEASE_LIMIT)?;
    String::from_utf8(bytes).cause(Cause::Usage, || format!("{} is not UTF-8", path.display()))
}

/// Every image that a text of YAML documents names: under `image`, and anywhere else (arguments, variables,
/// ConfigMaps) where a registry is named together with a tag or a digest, or one that is known to be one. Schemas of
/// custom resources and examples in ConfigMaps name nothing that runs.
///
/// # Errors
/// [`Cause::Usage`] if it is no YAML.
pub(crate) fn image_references(text: &str) -> Result<BTreeSet<String>> {
    let mut found = BTreeSet::new();
    each_scalar(text, &mut |key, text| {
        if key == "image" && !text.starts_with(KO) && IMAGE.is_match(text) {
            found.insert(text.to_owned());
            return;
        }
        for line in text.lines().filter(|line| !line.trim_start().starts_with('#')) {
            let known = |token: &&str| known_registry(token) && is_image(token) && !is_file(token);
            found.extend(tokens(line).filter(|token| names_registry(token) || known(token)).map(String::from));
        }
    })?;
    Ok(found)
}

static IMAGE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^(?:[A-Za-z0-9.-]+(?::[0-9]+)?/)?[a-z0-9._/-]+(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?$").expect("it is constant")
});

/// The words of a line, without quotes and brackets.
pub(crate) fn tokens(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| c.is_whitespace() || "\"'`,=()[]{}<>|;".contains(c)).filter(|token| !token.is_empty())
}

/// Whether a text has the form of a reference.
pub(crate) fn is_image(text: &str) -> bool {
    IMAGE.is_match(text)
}

/// `REGISTRY/PATH` with a tag or a digest.
pub(crate) fn names_registry(token: &str) -> bool {
    let Some((host, path)) = token.split_once('/') else { return false };
    let host = host.split(':').next().unwrap_or(host);
    let registry = host == "localhost" || (host.contains('.') && !host.starts_with('.'));
    registry && (path.contains(':') || path.contains('@')) && IMAGE.is_match(token)
}

/// `REGISTRY/PATH` of a registry that is known to be one.
pub(crate) fn known_registry(token: &str) -> bool {
    let Some((host, path)) = token.split_once('/') else { return false };
    let known = |registry: &str| host.strip_suffix(registry).is_some_and(|sub| sub.is_empty() || sub.ends_with('.'));
    REGISTRIES.iter().any(|registry| known(registry)) && !path.is_empty()
}

/// `github.com/x/y/file.go:12`, as in messages, looks like a tag; so do names of files.
pub(crate) fn is_file(reference: &str) -> bool {
    let path = reference.split('@').next().unwrap_or(reference);
    let path = path.rsplit('/').next().unwrap_or(path).split(':').next().unwrap_or(path);
    [".go", ".yaml", ".yml", ".json", ".sh", ".md", ".tgz", ".tar.gz"].iter().any(|end| path.ends_with(end))
}

/// What is in front of a comment, in languages that begin one by `#`.
pub(crate) fn uncommented(line: &str) -> &str {
    if line.trim_start().starts_with('#') {
        return "";
    }
    line.split_once(" #").map_or(line, |(before, _)| before)
}

/// Calls `visit` with each string and the key that it stands under.
fn each_scalar(text: &str, visit: &mut dyn FnMut(&str, &str)) -> Result<()> {
    for document in serde_yaml_ng::Deserializer::from_str(text) {
        let value = Value::deserialize(document).cause(Cause::Usage, || "this is no YAML")?;
        if value.get("kind").and_then(Value::as_str) != Some("CustomResourceDefinition") {
            walk("", &value, visit);
        }
    }
    Ok(())
}

fn walk(key: &str, value: &Value, visit: &mut dyn FnMut(&str, &str)) {
    match value {
        Value::String(text) => visit(key, text),
        Value::Sequence(values) => values.iter().for_each(|value| walk(key, value, visit)),
        Value::Mapping(map) => {
            for (key, value) in map {
                let key = key.as_str().unwrap_or_default();
                if key != "_example" {
                    walk(key, value, visit);
                }
            }
        }
        Value::Tagged(tagged) => walk(key, &tagged.value, visit),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Puts `to` in the place of `from` wherever it stands as a whole.
pub(crate) fn replace(text: &str, from: &str, to: &str) -> String {
    let part_of_reference = |c: char| c.is_ascii_alphanumeric() || "-._/:@".contains(c);
    let mut result = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(from) {
        let (before, after) = (&rest[..at], &rest[at + from.len()..]);
        let whole = !before.ends_with(part_of_reference) && !after.starts_with(part_of_reference);
        result.push_str(before);
        result.push_str(if whole { to } else { from });
        rest = after;
    }
    result + rest
}

/// Writes the version where the sources have `devel` as a label's, an annotation's or a ConfigMap's whole
/// value; returns how many there were.
pub(crate) fn set_version(text: &str, version: &str) -> (String, usize) {
    static DEVEL: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r#"(?m)^(\s*["']?[A-Za-z0-9./_-]+["']?:[ \t]+)(?:devel|"devel"|'devel')[ \t]*$"#)
            .expect("it is constant")
    });
    let count = DEVEL.find_iter(text).count();
    (DEVEL.replace_all(text, |found: &regex::Captures<'_>| format!("{}\"{version}\"", &found[1])).into_owned(), count)
}

/// The version that the objects of a release say in their labels.
pub(crate) fn version(text: &str) -> Option<String> {
    let label = |document: serde_yaml_ng::Deserializer<'_>| {
        let value = Value::deserialize(document).ok()?;
        value.get("metadata")?.get("labels")?.get("app.kubernetes.io/version")?.as_str().map(String::from)
    };
    serde_yaml_ng::Deserializer::from_str(text).find_map(label)
}

/// The text with all references that have a digest by that alone.
pub(crate) fn without_tags(text: &str) -> String {
    static TAGGED: LazyLock<Regex> = LazyLock::new(|| {
        let name = r"((?:[A-Za-z0-9.-]+(?::[0-9]+)?/)?[a-z0-9._/-]+)";
        Regex::new(&format!("{name}:[A-Za-z0-9_][A-Za-z0-9_.-]{{0,127}}(@sha256:[0-9a-f]{{64}})"))
            .expect("it is constant")
    });
    TAGGED.replace_all(text, "$1$2").into_owned()
}

/// Every digest that stands in a text, in its order.
pub(crate) fn digests(text: &str) -> Vec<&str> {
    static DIGEST: LazyLock<Regex> = LazyLock::new(|| Regex::new("sha256:[0-9a-f]{64}").expect("it is constant"));
    DIGEST.find_iter(text).map(|found| found.as_str()).collect()
}

/// How many Kubernetes objects a text holds; an error if a document is none.
pub(crate) fn count_objects(text: &str) -> Result<usize> {
    let mut count = 0;
    for document in serde_yaml_ng::Deserializer::from_str(text) {
        let value = Value::deserialize(document).cause(Cause::Internal, || "the release is no YAML")?;
        match value {
            Value::Null => {}
            value if value.get("kind").is_some() => count += 1,
            _ => return Err(Error::new(Cause::Usage, "a document of the release has no kind")),
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "@sha256:19f02276bf8dbdd62f069b922f10c65262cc34b710eea26ff928129a736be791";

    #[test]
    fn images_are_found_where_they_run_and_only_there() {
        let text = format!(
            r#"
kind: Deployment
spec:
  containers:
  - image: ko://example.com/cmd/x
    args: ["-shell-image", "cgr.dev/chainguard/busybox{DIGEST}", "-u=https://example.com/a:b", "-i=gcr.io/p/i:v1",
      "-plain=cgr.dev/chainguard/git", "https://gcr.io/p/no", "github.com/x/y", "quay.io/x/file.yaml"]
    env: [{{name: A, value: "localhost/x:1"}}]
  - image: busybox
  - image: $(params.image)
---
kind: ConfigMap
data:
  _example: |
    image: gcr.io/no/example:1
  text: |
    # gcr.io/no/comment:1
    default: quay.io/yes/config:2
    cidr: 10.0.0.0/8
---
kind: CustomResourceDefinition
spec: {{image: "gcr.io/no/schema:1"}}
"#
        );
        let found = image_references(&text).unwrap();
        let busybox = format!("cgr.dev/chainguard/busybox{DIGEST}");
        let wanted =
            ["busybox", &busybox, "cgr.dev/chainguard/git", "gcr.io/p/i:v1", "localhost/x:1", "quay.io/yes/config:2"];
        assert_eq!(found.iter().map(String::as_str).collect::<Vec<_>>(), wanted);
    }

    #[test]
    fn only_whole_references_are_replaced() {
        let text = "a: gcr.io/x:1\nb: gcr.io/x:12\nc: my/gcr.io/x:1 'gcr.io/x:1'";
        assert_eq!(replace(text, "gcr.io/x:1", "r/y"), "a: r/y\nb: gcr.io/x:12\nc: my/gcr.io/x:1 'r/y'");
    }

    #[test]
    fn devel_becomes_the_version_where_it_is_a_value() {
        let text =
            "  version: \"devel\"\n  a.b/c-d: devel\n  note: see devel\n  x: https://a/devel/b\n  version: 'devel' \n";
        let (text, count) = set_version(text, "v1");
        assert_eq!(count, 3);
        assert_eq!(
            text,
            "  version: \"v1\"\n  a.b/c-d: \"v1\"\n  note: see devel\n  x: https://a/devel/b\n  version: \"v1\"\n"
        );
    }

    #[test]
    fn tags_go_and_digests_stay() {
        let text =
            format!("a: r:5000/x/y:v1.9.0{DIGEST} b: r:5000/x/z{DIGEST} c: '10.1.2.3:5000/x:v1{DIGEST}' d: x:v1");
        let bare = format!("a: r:5000/x/y{DIGEST} b: r:5000/x/z{DIGEST} c: '10.1.2.3:5000/x{DIGEST}' d: x:v1");
        assert_eq!(without_tags(&text), bare);
    }

    #[test]
    fn expected_images_come_from_the_files_that_ko_reads() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("deep")).unwrap();
        fs::write(folder.path().join("deep/a.yml"), "kind: A\nx: [\"ko://e.com/a\", {image: \"ko://e.com/b\"}]\n")
            .unwrap();
        fs::write(folder.path().join("b.json"), r#"{"kind":"B","image":"r.io/z:1"}"#).unwrap();
        fs::write(folder.path().join("c.go"), "ko://no").unwrap();
        let files = files(folder.path(), &[".".into()]).unwrap();
        assert_eq!(ko_references(&files).unwrap(), ["e.com/a", "e.com/b"].map(String::from).into());
        assert_eq!(named_images(&files).unwrap(), ["r.io/z:1"].map(String::from).into());
        fs::write(folder.path().join("d.yaml"), "a: [").unwrap();
        let error = ko_references(&[folder.path().join("d.yaml")]).unwrap_err();
        assert!(error.to_string().contains("d.yaml"), "{error}");
    }

    #[test]
    fn objects_are_counted() {
        assert_eq!(count_objects("---\n---\nkind: A\n---\nkind: B\n").unwrap(), 2);
        assert!(count_objects("x: 1").is_err());
    }
}
