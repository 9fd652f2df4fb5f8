//! `image-build probe`: the image with which cluster-install looks what nodes are.

use std::collections::BTreeMap;

use kit::{
    Cause, Context, Done, Error, Output, Result, Ui,
    ci::{CiOptions, Component},
    record::{ImageKind, Source},
    rundir, source,
};
use oci::Client;

use crate::{
    base, ko, manifests,
    options::{Platforms, Repo},
    show, verify,
};

/// Its sources, in the workspace that `ci/` belongs to.
const SOURCES: &str = "tools/cluster-install/probe";
/// What of them ko is given.
const CONFIG: &str = "config";
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
    let platforms = args.platforms.list();
    args.repo.reference("x")?;
    let program = ko::find(None, ui)?;
    let component = Component { path: Some(SOURCES.into()), config: vec![CONFIG.into()], ..Component::default() };
    let checkout = source::checkout(&ci, &component, ui)?;
    let base = base::make(&ci.images()?, BASE, &platforms, ui)?;
    let target = base.repository(&args.repo)?;
    let digest = oci::run(async { base.push(&Client::new()?, &target).await })?;
    let bases = BTreeMap::from([("default".to_owned(), oci::pinned(&target, &digest).whole())]);
    let folder = tempfile::tempdir().cause(Cause::HostDisk, || "cannot make a temporary folder")?;
    let config = ko::Config::load(&checkout.dir)?.with(&bases, &[])?;
    rundir::write(&folder.path().join("ko.yaml"), config.as_bytes())?;
    let resolve = ko::Resolve {
        program: &program,
        root: &checkout.dir,
        folder: folder.path(),
        repo: args.repo.name(),
        tag: &tag(&checkout.source),
        platforms: &platforms,
        config: &component.config,
        sbom: "none",
        jobs: None,
        go_flags: None,
        others: &[],
    };
    let text = resolve.run(1, ui)?;
    let references = manifests::image_references(&text)?;
    let lost = || Error::new(Cause::BuildFailure, "ko built no image of the probe");
    let reference = references.into_iter().next().ok_or_else(lost)?;
    let images = oci::run(async {
        verify::check_all(&Client::new()?, &[(reference.clone(), ImageKind::Built)], &platforms).await
    })?;
    if let Some(error) = show::problems(&images) {
        return Err(error);
    }
    let digest = images.first().and_then(|image| image.digest.clone()).unwrap_or_default();
    match ui.output {
        Output::Json => ui.json(&serde_json::json!({ "reference": reference, "digest": digest }))?,
        Output::Text => ui.result(&reference)?,
    }
    Ok(Done::good().digest(digest))
}

/// A tag that names the sources.
fn tag(source: &Source) -> String {
    let digest = match source {
        Source::Folder { digest, .. } => digest.trim_start_matches("sha256:"),
        _ => "",
    };
    format!("v-{}", digest.get(..16).unwrap_or(digest))
}
