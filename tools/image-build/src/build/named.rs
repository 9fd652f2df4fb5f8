//! Images that a configuration names and ko does not build: replaced, unused, or looked at as they are.

use std::collections::BTreeSet;

use kit::{
    Result,
    record::{Image, Replacement, Unused},
};

use super::Build;
use crate::{
    base,
    images::{self, Known, Placed, StandIn},
    manifests, verify,
};

/// What became of them.
#[derive(Default)]
pub(super) struct Named {
    pub(super) images: Vec<Image>,
    pub(super) replacements: Vec<Replacement>,
    pub(super) unused: Vec<Unused>,
    stand_ins: Vec<Placed>,
}

/// Makes the stand-ins, and verifies them and what stays as it is. Nothing is pushed.
pub(super) fn look(build: &Build<'_>, names: &BTreeSet<String>) -> Result<Named> {
    let mut named = Named::default();
    let (mut stand_ins, mut themselves) = (Vec::new(), Vec::new());
    for name in names {
        let (known, platforms) = images::lookup(build.map, name, &build.platforms)?;
        match known {
            Known::Build(made) => {
                let made = base::make(build.map, made, &platforms, build.ui)?;
                stand_ins.push(StandIn { name: name.clone(), made, platforms });
            }
            Known::Unused(reason) => named.unused.push(Unused { reference: name.clone(), reason: reason.into() }),
            Known::Itself => themselves.push((name.clone(), platforms)),
        }
    }
    let registry = build.args.repo.registry()?;
    let (placed, found) = oci::run(async {
        let placed = images::place(&build.client, &registry, &stand_ins).await?;
        Ok((placed, verify::check_all(&build.client, &themselves).await?))
    })?;
    for Placed { image, .. } in &placed {
        build.ui.note(format!("{} is replaced by {}", image.name, image.reference));
        named.replacements.push(Replacement { from: image.name.clone(), to: image.reference.clone() });
    }
    named.images = placed.iter().map(|placed| placed.image.clone()).chain(found).collect();
    named.stand_ins = placed;
    for unused in &named.unused {
        build.ui.note(format!("{} is not looked at: {}", unused.reference, unused.reason));
    }
    Ok(named)
}

impl Named {
    /// Pushes the stand-ins.
    pub(super) fn publish(&self, build: &Build<'_>) -> Result<()> {
        oci::run(images::push(&build.client, &self.stand_ins))
    }
}

/// The text with all replacements.
pub(super) fn replace(text: &str, replacements: &[Replacement]) -> String {
    replacements
        .iter()
        .fold(text.to_owned(), |text, replacement| manifests::replace(&text, &replacement.from, &replacement.to))
}
