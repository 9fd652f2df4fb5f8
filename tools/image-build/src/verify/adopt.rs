//! A release that exists becomes part of a run, as if it had been built there.

use jiff::Timestamp;
use kit::{
    Cause, Error, Result, RunDir,
    process::quote,
    record::{Head, Images, Origin, Release, Source},
    rundir,
};

use super::{Args, Found};
use crate::{manifests, release};

/// Writes images.json, and release.yaml if all of it is good; nothing without a run. Returns the release's
/// digest.
pub(super) fn adopt(args: &Args, started: Timestamp, found: &Found, error: Option<&Error>) -> Result<Option<String>> {
    let (Some(folder), Some(component)) = (&args.run_dir, &args.component) else { return Ok(None) };
    if rundir::slug(component) != *component {
        return Err(Error::new(Cause::Usage, format!("'{component}' is no name of a component")));
    }
    let run = RunDir::create(folder)?;
    let folder = run.component(component);
    release::forget(&folder)?;
    let release = match (&found.release, error) {
        (Some(release), None) => {
            let text = release.text();
            let objects = manifests::count_objects(&text)?;
            rundir::write(&folder.join("release.notags.yaml"), manifests::without_tags(&text).as_bytes())?;
            let digest = rundir::write(&folder.join("release.yaml"), &release.bytes)?;
            Some(Release { digest, objects, artifact: release.artifact.as_ref().map(oci::Reference::whole) })
        }
        _ => None,
    };
    let no_release = || Error::new(Cause::Usage, format!("{} is no release", args.what.join(", ")));
    let missing = (error.is_none() && release.is_none()).then(no_release);
    let head = Head::new("image-build", env!("CARGO_PKG_VERSION"), &run.id(), started).reproduce(reproduce(args));
    let head = match error.or(missing.as_ref()) {
        Some(error) => head.failed(error),
        None => head,
    };
    let digest = release.as_ref().map(|release| release.digest.clone());
    let record = Images {
        head,
        component: component.clone(),
        version: found
            .release
            .as_ref()
            .and_then(|release| manifests::version(&release.text()))
            .unwrap_or_else(|| "unknown".into()),
        source: Source::Release { reference: args.what.join(" ") },
        origin: origin(found),
        platforms: args.platforms.list(),
        images: found.images.clone(),
        reused: Vec::new(),
        replacements: Vec::new(),
        unused: found.unused.clone(),
        release,
    };
    rundir::write_record(&folder, &record)?;
    missing.map_or(Ok(digest), Err)
}

/// A project publishes neither our artifacts nor images in a registry of a private network.
fn origin(found: &Found) -> Origin {
    let artifact = found.release.as_ref().is_some_and(|release| release.artifact.is_some());
    let private = |name: &str| oci::parse(name).is_ok_and(|reference| oci::insecure(reference.registry()));
    if artifact || found.images.iter().any(|image| private(&image.name)) {
        Origin::BuiltHere
    } else {
        Origin::Published
    }
}

fn reproduce(args: &Args) -> String {
    let platforms: Vec<_> = args.platforms.list().iter().map(ToString::to_string).collect();
    let what: Vec<_> = args.what.iter().map(|what| quote(what).to_string()).collect();
    let mut command = format!("image-build verify {} --platform {}", what.join(" "), quote(&platforms.join(",")));
    for (flag, given) in [(" --deep", args.deep), (" --nonroot", args.nonroot)] {
        command.push_str(if given { flag } else { "" });
    }
    command
}
