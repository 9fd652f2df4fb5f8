//! The bases that a component is built on: chosen, made, and compared with the platforms before anything
//! is built. ko builds for the platforms that base and request have in common, and calls that success.

use std::collections::{BTreeMap, BTreeSet};

use kit::{Cause, Error, Platform, Result, Within};
use oci::{Client, Place};

use super::Build;
use crate::{base, ko};

/// References by import path, and `default`.
pub(super) type Bases = BTreeMap<String, String>;

/// The bases by reference: of the call, of ci/components.toml (made and pushed here), or the component's own.
pub(super) fn choose(build: &Build<'_>, config: &ko::Config, client: &Client) -> Result<Bases> {
    let configured = &build.component.bases;
    // With a choice of ours the component's overrides are no longer needed.
    let mut bases = if configured.is_empty() { config.bases() } else { configured.clone() };
    for given in &build.args.bases {
        match given.split_once('=') {
            Some((path, base)) => drop(bases.insert(path.into(), base.into())),
            None => bases = BTreeMap::from([("default".into(), given.clone())]),
        }
    }
    let mut made = BTreeMap::new();
    for base in bases.values().filter(|base| is_build(base)).collect::<BTreeSet<_>>() {
        let image = base::make(build.map, base, &build.platforms, build.ui)?;
        let target = image.repository(&build.args.repo)?;
        let digest = oci::run(image.push(client, &target)).within(|| format!("base {base}"))?;
        made.insert(base.clone(), oci::pinned(&target, &digest).whole());
    }
    Ok(bases.into_iter().map(|(path, base)| (path, made.get(&base).cloned().unwrap_or(base))).collect())
}

/// A name of ci/images.toml; references have a registry or a tag.
fn is_build(base: &str) -> bool {
    !base.contains(['/', ':', '@'])
}

/// Refuses bases that lack a platform, all of them at once.
pub(super) fn check(build: &Build<'_>, bases: &Bases, expected: &BTreeSet<String>, client: &Client) -> Result<()> {
    let needed = bases.iter().filter(|(path, _)| *path == "default" || expected.contains(*path));
    let needed: BTreeMap<&String, &String> = needed.collect();
    let references: BTreeSet<&String> = needed.values().copied().collect();
    let step = build.ui.step("bases");
    let mut lacking = Vec::new();
    for reference in references {
        let place = Place::Registry(client.clone(), oci::parse(reference)?);
        let (_, offered) = oci::run(oci::offered(&place)).within(|| format!("base {reference}"))?;
        let lacks = |asked: &&Platform| !offered.iter().any(|offer| oci::offers(&offer.platform, asked));
        let missing: Vec<_> = build.platforms.iter().filter(lacks).map(ToString::to_string).collect();
        if !missing.is_empty() {
            let users: Vec<_> =
                needed.iter().filter(|(_, base)| **base == reference).map(|(path, _)| path.as_str()).collect();
            let offered: Vec<_> = offered.iter().map(|offer| offer.platform.to_string()).collect();
            lacking.push(format!(
                "base {reference} (for {}) has no {}; it offers {}",
                users.join(", "),
                missing.join(", "),
                offered.join(", ")
            ));
        }
    }
    if let Some(first) = lacking.first() {
        step.failed("");
        let error = Error::new(Cause::ImageMissingPlatform, first.clone());
        let error = if lacking.len() > 1 { error.line(lacking.join("\n")) } else { error };
        return Err(error.next("choose a base that has them: bases in ci/components.toml, or --base"));
    }
    step.done("all have the platforms asked for");
    Ok(())
}
