//! The bases that a component is built on: chosen, made, and compared with the platforms before anything
//! is built. ko builds for the platforms that base and request have in common, and calls that success.

use std::collections::{BTreeMap, BTreeSet};

use kit::{Platform, Result, Within, ci::Ci};
use oci::Place;

use super::Build;
use crate::{
    base,
    bases::{self, is_build},
    options::once,
};

/// References by import path, and `default`.
pub(super) type Bases = BTreeMap<String, String>;

/// Those that images of `expected` are built on, by name or reference. Others may be what they like.
pub(super) fn needed(build: &Build<'_>, expected: &BTreeMap<String, Vec<Platform>>) -> Bases {
    let mut bases = configured(build);
    let all_have_their_own = expected.keys().all(|import| bases.contains_key(import));
    bases.retain(|path, _| if path == "default" { !all_have_their_own } else { expected.contains_key(path) });
    bases
}

/// The bases by name or reference: of the call, of ci/components.toml, or the component's own.
fn configured(build: &Build<'_>) -> Bases {
    let configured = &build.component.bases;
    // With a choice of ours the component's overrides are no longer needed.
    let mut bases = if configured.is_empty() { build.config.bases() } else { configured.clone() };
    for given in &build.args.bases {
        match given.split_once('=') {
            Some((path, base)) => drop(bases.insert(path.into(), base.into())),
            None => bases = BTreeMap::from([("default".into(), given.clone())]),
        }
    }
    bases
}

/// What `all` means, said once for all images: with a base of ci/images.toml, which is made for any
/// platform, those of ci/architectures.toml; otherwise what the default base offers, as with ko.
pub(super) fn all(build: &Build<'_>, ci: &Ci) -> Result<Vec<Platform>> {
    let bases = configured(build);
    let platforms: Vec<Platform> = match bases.get("default") {
        Some(base) if !is_build(build.map, base) => {
            let place = Place::Registry(build.client.clone(), oci::parse(base)?);
            let offering = oci::run(oci::offered(&place)).within(|| format!("base {base}"))?;
            offering.platforms().into_iter().filter(|platform| platform.row().is_ok()).collect()
        }
        _ => ci.architectures()?.architecture.into_iter().map(|architecture| architecture.platform).collect(),
    };
    Ok(once(&platforms))
}

/// The bases by reference; those of ci/images.toml are made and pushed, for ko takes bases from registries only.
pub(super) fn provide(build: &Build<'_>, bases: Bases) -> Result<Bases> {
    let mut made = BTreeMap::new();
    for base in bases.values().filter(|base| is_build(build.map, base)).collect::<BTreeSet<_>>() {
        let image = base::make(build.map, base, &build.platforms, build.ui)?;
        let target = image.repository(&build.args.repo)?;
        let digest = oci::run(image.push(&build.client, &target)).within(|| format!("base {base}"))?;
        made.insert(base.clone(), oci::pinned(&target, &digest).whole());
    }
    Ok(bases.into_iter().map(|(path, base)| (path, made.get(&base).cloned().unwrap_or(base))).collect())
}

/// Refuses bases that lack a platform, all of them at once; those that are made here have what is asked for, or are not
/// made.
pub(super) fn check(build: &Build<'_>, bases: &Bases, expected: &BTreeMap<String, Vec<Platform>>) -> Result<()> {
    let references: BTreeSet<&String> = bases.values().filter(|base| !is_build(build.map, base)).collect();
    let step = build.ui.step("bases");
    let mut lacking = Vec::new();
    for reference in references {
        let place = Place::Registry(build.client.clone(), oci::parse(reference)?);
        let offering = oci::run(oci::offered(&place)).within(|| format!("base {reference}"))?;
        let lacks = |asked: &&Platform| !offering.has(asked);
        let asked = platforms(build, reference, bases, expected);
        let missing: Vec<_> = asked.iter().filter(lacks).map(ToString::to_string).collect();
        if !missing.is_empty() {
            let users: Vec<_> =
                bases.iter().filter(|(_, base)| *base == reference).map(|(path, _)| path.as_str()).collect();
            let offered: Vec<_> = offering.platforms().iter().map(ToString::to_string).collect();
            lacking.push(bases::lacking(reference, &users, &missing, &offered));
        }
    }
    if let Some(error) = bases::refusal(&lacking) {
        step.failed("");
        return Err(error);
    }
    step.done("all have the platforms asked for");
    Ok(())
}

/// The platforms that are built on a base, in the order asked for.
fn platforms(
    build: &Build<'_>,
    base: &String,
    bases: &Bases,
    expected: &BTreeMap<String, Vec<Platform>>,
) -> Vec<Platform> {
    let its = |import: &String| bases.get(import).or_else(|| bases.get("default")) == Some(base);
    let on_it = |platform: &&Platform| expected.iter().any(|(path, asked)| its(path) && asked.contains(platform));
    build.platforms.iter().filter(on_it).cloned().collect()
}
