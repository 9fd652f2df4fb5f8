//! What goes with a step image that was pushed: a list of what is in it (SPDX) and a statement of what it was made
//! from (SLSA provenance, in-toto). Both are artifacts that refer to the image, and the same for the same image.

use std::{collections::BTreeMap, fs, path::Path, process::Command, time::Duration};

use kit::{Arch, Cause, Context, Process, Result, Ui, digest, rundir};
use serde_json::{Value, json};

use super::{
    programs::{Definitions, Image},
    shape::Shape,
};
use crate::tools;

/// The media types under which they are found (SPDX, in-toto).
const SBOM: &str = "application/spdx+json";
const PROVENANCE: &str = "application/vnd.in-toto+json";
/// No time of ours: the same content has the same digest on every day.
const CREATED: &str = "1970-01-01T00:00:00Z";

/// A package in an image: where it comes from, its name and its version.
type Packages = BTreeMap<(&'static str, String), String>;

/// Writes both beside the layout and attaches them.
pub(super) fn attach(
    reference: &str,
    name: &str,
    folder: &Path,
    shape: &Shape,
    definitions: &Definitions,
    ui: &Ui,
) -> Result<()> {
    for (kind, file, document) in documents(reference, name, shape, definitions)? {
        let path = folder.with_file_name(format!("{name}.{file}"));
        rundir::write_json(&path, &document)?;
        let words = ["attach", reference, "--type", kind].map(String::from);
        let words: Vec<_> = words.into_iter().chain([path.display().to_string()]).collect();
        super::image_build(&format!("{file} of {name}"), &words, ui)?;
    }
    Ok(())
}

/// Both, with type and name of the file.
fn documents(
    reference: &str,
    name: &str,
    shape: &Shape,
    definitions: &Definitions,
) -> Result<[(&'static str, &'static str, Value); 2]> {
    let image = &definitions.image[name];
    let mut packages = debian(shape)?;
    packages.extend(go(image, definitions));
    if let Some(tool) = &image.tool {
        packages.extend(rust(tool)?);
    }
    let subject = reference.split('@').next().unwrap_or(reference);
    Ok([
        (SBOM, "spdx.json", sbom(name, &shape.digest, &packages)),
        (PROVENANCE, "provenance.json", provenance(subject, name, shape, &commit())),
    ])
}

/// Debian's packages, by what lies in the image's first layer for scanners.
fn debian(shape: &Shape) -> Result<Packages> {
    let mut packages = Packages::new();
    for layer in shape.first_layers() {
        let work = tempfile::tempdir().cause(Cause::HostDisk, || "cannot make a temporary folder")?;
        let mut command = Command::new("tar");
        command
            .args(["--extract", "--gzip", "--no-same-owner", "--file"])
            .arg(layer)
            .arg("--directory")
            .arg(work.path());
        command.arg("var/lib/dpkg/status.d");
        Process::new("tar", command).cause(Cause::HostDisk).limit(Duration::from_secs(120)).run()?;
        let entries = fs::read_dir(work.path().join("var/lib/dpkg/status.d")).into_iter().flatten().flatten();
        for entry in entries {
            let text = fs::read_to_string(entry.path()).unwrap_or_default();
            let field = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("").trim();
            packages.insert(("deb/debian", field("Package:").into()), field("Version:").into());
        }
    }
    Ok(packages)
}

fn go(image: &Image, definitions: &Definitions) -> Packages {
    let of = |name: &String| {
        let program = &definitions.program[name];
        let module = program.module.clone().or_else(|| program.package.clone()).unwrap_or_default();
        (("golang", module), program.version.clone().unwrap_or_else(|| "as go.mod says".into()))
    };
    image.programs.iter().map(of).collect()
}

/// The crates that a tool is compiled from, with its own.
fn rust(tool: &str) -> Result<Packages> {
    let target = Arch::host().rust;
    let words = ["tree", "--locked", "--package", tool, "--edges", "normal", "--prefix", "none", "--target", target];
    let command = tools::cargo(&words)?;
    let said =
        Process::new("list of crates", command).cause(Cause::BuildFailure).limit(Duration::from_secs(300)).read()?;
    let line = |line: &str| {
        let mut words = line.split_whitespace();
        let (name, version) = (words.next()?.to_owned(), words.next()?.trim_start_matches('v').to_owned());
        Some((("cargo", name), version))
    };
    Ok(said.lines().filter_map(line).collect())
}

fn commit() -> String {
    let git = tools::git(&["rev-parse", "HEAD"]);
    let said = git.and_then(|command| Process::new("the commit", command).cause(Cause::MissingProgram).read());
    said.map_or_else(|_| "unknown".into(), |said| said.trim().to_owned())
}

/// SPDX 2.3 (`https://spdx.github.io/spdx-spec/v2.3/`).
fn sbom(name: &str, image: &str, packages: &Packages) -> Value {
    let id = |name: &str| {
        let safe: String = name.chars().map(|c| if c.is_ascii_alphanumeric() || c == '.' { c } else { '-' }).collect();
        format!("SPDXRef-{safe}-{}", &digest::hex(name.as_bytes())[..8])
    };
    let each = packages.iter().map(|((kind, package), version)| {
        json!({
            "SPDXID": id(&format!("{kind}-{package}")),
            "name": package,
            "versionInfo": version,
            "downloadLocation": "NOASSERTION",
            "filesAnalyzed": false,
            "externalRefs": [{
                "referenceCategory": "PACKAGE-MANAGER",
                "referenceType": "purl",
                "referenceLocator": format!("pkg:{kind}/{package}@{version}"),
            }],
        })
    });
    let contains = packages.keys().map(|(kind, package)| {
        json!({
            "spdxElementId": "SPDXRef-image",
            "relationshipType": "CONTAINS",
            "relatedSpdxElement": id(&format!("{kind}-{package}")),
        })
    });
    let own = json!({
        "SPDXID": "SPDXRef-image", "name": name, "versionInfo": image, "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
    });
    let describes = json!({
        "spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": "SPDXRef-image",
    });
    json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("step image {name}"),
        "documentNamespace": format!("https://other-arch.dev/spdx/{name}/{}", image.replace(':', "/")),
        "creationInfo": { "created": CREATED, "creators": ["Tool: cargo xtask images"] },
        "packages": std::iter::once(own).chain(each).collect::<Vec<_>>(),
        "relationships": std::iter::once(describes).chain(contains).collect::<Vec<_>>(),
    })
}

/// SLSA provenance v1 in an in-toto statement v1 (`https://slsa.dev/spec/v1.0/provenance`).
fn provenance(subject: &str, name: &str, shape: &Shape, commit: &str) -> Value {
    json!({
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{ "name": subject, "digest": { "sha256": shape.digest.trim_start_matches("sha256:") } }],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "https://other-arch.dev/step-images/v1",
                "externalParameters": { "image": name, "platforms": shape.platforms() },
                "resolvedDependencies": [{ "uri": "git+other-arch", "digest": { "gitCommit": commit } }],
            },
            "runDetails": { "builder": { "id": "https://other-arch.dev/cargo-xtask-images" } },
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_names_every_package_once_and_is_the_same_again() {
        let packages = Packages::from([
            (("deb/debian", "git".to_owned()), "1:2.39.5".to_owned()),
            (("golang", "github.com/google/ko".to_owned()), "v0.19.1".to_owned()),
            (("cargo", "git".to_owned()), "0.1".to_owned()),
        ]);
        let list = sbom("image-build", "sha256:00", &packages);
        let listed = list["packages"].as_array().unwrap();
        assert_eq!(listed.len(), 4);
        let ids: std::collections::BTreeSet<_> = listed.iter().map(|one| one["SPDXID"].as_str().unwrap()).collect();
        assert_eq!(ids.len(), 4);
        assert!(list.to_string().contains("pkg:golang/github.com/google/ko@v0.19.1"));
        assert_eq!(list["relationships"].as_array().unwrap().len(), 4);
        assert_eq!(sbom("image-build", "sha256:00", &packages), list);
    }

    /// A layout of one image with one layer, which holds this package as scanners find it.
    fn layout(folder: &Path, package: &str) -> Shape {
        fs::create_dir_all(folder.join("blobs/sha256")).unwrap();
        let mut layer = tar::Builder::new(flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast()));
        let mut header = tar::Header::new_gnu();
        header.set_size(package.len() as u64);
        header.set_mode(0o644);
        layer.append_data(&mut header, "var/lib/dpkg/status.d/busybox", package.as_bytes()).unwrap();
        let blob = |name: &str, bytes: &[u8]| {
            fs::write(folder.join("blobs/sha256").join(name), bytes).unwrap();
            json!({ "digest": format!("sha256:{name}"), "size": bytes.len() })
        };
        let layer = blob("a1", &layer.into_inner().unwrap().finish().unwrap());
        let manifest = json!({ "config": blob("c0", b"{}"), "layers": [layer] });
        let mut manifest = blob("b2", manifest.to_string().as_bytes());
        manifest["platform"] = json!({ "os": "linux", "architecture": "s390x" });
        let index = blob("d3", json!({ "manifests": [manifest] }).to_string().as_bytes());
        fs::write(folder.join("index.json"), json!({ "manifests": [index] }).to_string()).unwrap();
        super::super::shape::read(folder).unwrap()
    }

    #[test]
    fn what_is_attached_follows_from_the_image_alone() {
        let definitions = Definitions::read(&tools::root().join("ci/step-images")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let of = |place: &str, days: u64| {
            let shape = layout(&folder.path().join(place), "Package: busybox\nVersion: 1:1.35.0-4\n");
            let layer = fs::File::open(shape.first_layers().next().unwrap()).unwrap();
            layer.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(days * 86400)).unwrap();
            let documents = documents("r.example/steps/trigger@sha256:d3", "trigger", &shape, &definitions).unwrap();
            documents.map(|(kind, _, document)| (kind, document.to_string()))
        };
        let first = of("here", 1);
        assert_eq!(of("elsewhere/deep", 20_000), first);
        assert!(first[0].1.contains("pkg:deb/debian/busybox@1:1.35.0-4"), "{}", first[0].1);
        assert!(first[1].1.contains("\"sha256\":\"d3\"") && first[1].1.contains("linux/s390x"), "{}", first[1].1);
    }

    #[test]
    fn a_tool_s_crates_are_those_that_cargo_compiles() {
        let crates = rust("cleanup").unwrap();
        for name in ["cleanup", "kit", "kube", "clap"] {
            assert!(crates.contains_key(&("cargo", name.to_owned())), "{name}");
        }
    }
}
