//! Images that a configuration names and ko does not build: replaced, unused, or looked at as they are.

use std::collections::BTreeSet;

use kit::{
    Result,
    record::{Image, ImageKind, Replacement, Unused},
};

use super::Build;
use crate::{
    base,
    images::{self, Known},
    manifests, verify,
};

/// What became of them.
#[derive(Default)]
pub(super) struct Named {
    pub(super) images: Vec<Image>,
    pub(super) replacements: Vec<Replacement>,
    pub(super) unused: Vec<Unused>,
}

/// Makes and pushes the stand-ins, and verifies what stays as it is.
pub(super) fn provide(build: &Build<'_>, names: &BTreeSet<String>) -> Result<Named> {
    let mut named = Named::default();
    let (mut stand_ins, mut themselves) = (Vec::new(), Vec::new());
    for name in names {
        match images::lookup(build.map, name, &build.platforms)? {
            Known::Build(made) => {
                stand_ins.push((name.clone(), base::make(build.map, made, &build.platforms, build.ui)?))
            }
            Known::Unused(reason) => named.unused.push(Unused { reference: name.clone(), reason: reason.into() }),
            Known::Itself => themselves.push((name.clone(), ImageKind::Referenced)),
        }
    }
    let registry = build.args.repo.registry()?;
    named.images = oci::run(async {
        let mut found = images::push(&build.client, &registry, &stand_ins, &build.platforms).await?;
        found.extend(verify::check_all(&build.client, &themselves, &build.platforms).await?);
        Ok(found)
    })?;
    for image in named.images.iter().take(stand_ins.len()) {
        build.ui.note(format!("{} is replaced by {}", image.name, image.reference));
        named.replacements.push(Replacement { from: image.name.clone(), to: image.reference.clone() });
    }
    for unused in &named.unused {
        build.ui.note(format!("{} is not looked at: {}", unused.reference, unused.reason));
    }
    Ok(named)
}

/// The text with all replacements.
pub(super) fn replace(text: &str, replacements: &[Replacement]) -> String {
    replacements
        .iter()
        .fold(text.to_owned(), |text, replacement| manifests::replace(&text, &replacement.from, &replacement.to))
}
