//! `image-build probe`: the image with which cluster-install looks what nodes are.

use std::{collections::BTreeMap, path::PathBuf};

use kit::{Cause, Context, Done, Error, Output, Result, Ui, ci::CiOptions, digest, dirs, rundir};
use oci::{Client, Inbox, Place};

use crate::{
    base, ko,
    options::{Platforms, Repo},
    show, verify,
};

macro_rules! sources {
    ($($file:literal),+) => { &[$(($file, include_str!(concat!("../probe/", $file)))),+] };
}

/// Its sources, which this program carries: whoever has an own `ci/` folder has no copy of them.
const SOURCES: &[(&str, &str)] = sources!(
    "cpuid_amd64.s",
    "facts.go",
    "go.mod",
    "hypervisor_amd64.go",
    "hypervisor_other.go",
    "main.go",
    "network.go",
    "work.go"
);
/// Its import path.
const IMPORT: &str = "other-arch/probe";
/// The `[build.NAME]` of ci/images.toml that it stands on.
const BASE: &str = "static";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    repo: Repo,
    #[command(flatten)]
    platforms: Platforms,
    #[command(flatten)]
    ci: CiOptions,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Done> {
    let ci = args.ci.open()?;
    let mut platforms = Vec::new();
    for platform in args.platforms.list() {
        if !platforms.contains(&platform) {
            platforms.push(platform);
        }
    }
    args.repo.reference("x")?;
    let program = ko::find(None, ui)?;
    let (root, key) = sources()?;
    let base = base::make(&ci.images()?, BASE, &platforms, ui)?;
    let target = base.repository(&args.repo)?;
    let client = Client::new()?;
    let digest = oci::run(base.push(&client, &target))?;
    let bases = BTreeMap::from([("default".to_owned(), oci::pinned(&target, &digest).whole())]);
    let folder = tempfile::tempdir().cause(Cause::HostDisk, || "cannot make a temporary folder")?;
    let config = ko::Config::load(&root)?.with(&bases, &[])?;
    rundir::write(&folder.path().join("ko.yaml"), config.as_bytes())?;
    // Nobody sees what is not verified.
    let inbox = oci::run(Inbox::open(folder.path().join("layout")))?;
    let tag = format!("v-{key}");
    let resolve = ko::Resolve {
        program: &program,
        root: &root,
        folder: folder.path(),
        repo: &args.repo.below(inbox.name()),
        naming: ko::Naming::Preserve,
        tags: std::slice::from_ref(&tag),
        platforms: &platforms,
        images: &[IMPORT.to_owned()].into(),
        sbom: "none",
        jobs: None,
        go_flags: None,
        others: &[],
    };
    let answer = resolve.run(ui)?.remove(IMPORT).unwrap_or_default();
    let (layout, received) = (inbox.layout().clone(), inbox.received());
    drop(inbox);
    let built = received.into_iter().find(|received| answer.ends_with(&format!("@{}", received.image.digest())));
    let built = built.ok_or_else(|| Error::new(Cause::BuildFailure, "ko built no image for the probe"))?.image;
    let target = args.repo.reference(&format!("{IMPORT}:{tag}"))?;
    let digest = built.digest().to_string();
    let reference = format!("{}@{digest}", target.whole());
    oci::run(async {
        let image = verify::check_built(&Place::Layout(layout.choose(&built)), &reference, &platforms).await;
        match show::problems(&[image]) {
            Some(error) => Err(error),
            None => oci::copy(&client, &layout, &built, &target).await.map(drop),
        }
    })?;
    match ui.output {
        Output::Json => ui.json(&serde_json::json!({ "reference": reference, "digest": digest }))?,
        Output::Text => ui.result(&reference)?,
    }
    Ok(Done::good().digest(digest).reference(Some(reference)))
}

/// Puts the sources into the cache; returns their folder and what names their content.
fn sources() -> Result<(PathBuf, String)> {
    let text: String = SOURCES.iter().map(|(name, text)| format!("{name}\0{}\0{text}", text.len())).collect();
    let key = digest::hex(text.as_bytes())[..16].to_owned();
    let folder = dirs::cache()?.join("src").join(format!("probe-{key}"));
    for (name, text) in SOURCES {
        rundir::write(&folder.join(name), text.as_bytes())?;
    }
    Ok((folder, key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_sources_is_carried() {
        let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("probe");
        let mut found: Vec<_> = std::fs::read_dir(&root)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.is_file())
            .map(|path| path.strip_prefix(&root).unwrap().display().to_string())
            .filter(|name| !name.ends_with("_test.go"))
            .collect();
        found.sort();
        assert_eq!(found, SOURCES.iter().map(|(name, _)| (*name).to_owned()).collect::<Vec<_>>());
    }
}
