//! What two releases differ in: pure.

use std::collections::{BTreeMap, BTreeSet};

use jiff::civil::Date;
use kit::{Platform, ci::Allow, record::Replacement};
use serde::Serialize;

use super::side::{Entry, Row, Side};
use crate::release;

/// Everything that is different, and the losses that nobody allowed.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Diff {
    pub(super) old: String,
    pub(super) new: String,
    pub(super) images: Vec<ImageDiff>,
    /// What a configuration named and `ci/images.toml` put something else in place of.
    pub(super) replacements: Replacements,
    /// Losses that no entry of `ci/allow.toml` allows.
    pub(super) losses: usize,
}

#[derive(Debug, Serialize)]
pub(super) struct Replacements {
    pub(super) old: Vec<Replacement>,
    pub(super) new: Vec<Replacement>,
}

/// What became of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Change {
    Same,
    Changed,
    Added,
    Lost,
}

/// An image in both releases, or in one.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ImageDiff {
    pub(super) image: String,
    pub(super) change: Change,
    /// As the releases name it.
    pub(super) old: Option<String>,
    pub(super) new: Option<String>,
    /// Whether it is called by another name now, beside the place that a release lies in.
    pub(super) moved: bool,
    /// Whether what it is now stands in for what was named.
    pub(super) replaced: bool,
    pub(super) gained: Vec<Platform>,
    pub(super) lost: Vec<Loss>,
    /// Those of both, where something is different.
    pub(super) platforms: Vec<PlatformDiff>,
}

/// A platform that is no longer there.
#[derive(Debug, Serialize)]
pub(super) struct Loss {
    pub(super) platform: Platform,
    /// The reason, where the loss is allowed.
    pub(super) allowed: Option<String>,
}

/// What is different on a platform of both.
#[derive(Debug, Serialize)]
pub(super) struct PlatformDiff {
    pub(super) platform: Platform,
    pub(super) old: Row,
    pub(super) new: Row,
}

/// What may be lost, and what of it was.
pub(super) struct Losses<'a> {
    pub(super) allow: &'a [Allow],
    pub(super) today: Date,
    /// Only these count; all if empty.
    pub(super) platforms: &'a [Platform],
}

impl Losses<'_> {
    fn reason(&self, image: &str, platform: &Platform) -> Option<String> {
        let fits = |allow: &&Allow| {
            allow.image == image
                && allow.until >= self.today
                && (allow.platforms.is_empty() || allow.platforms.iter().any(|asked| oci::offers(platform, asked)))
        };
        self.allow.iter().find(fits).map(|allow| allow.reason.clone())
    }

    fn count(&self, platform: &Platform) -> bool {
        self.platforms.is_empty() || self.platforms.iter().any(|asked| oci::offers(platform, asked))
    }

    /// Entries whose time is over.
    pub(super) fn expired(&self) -> impl Iterator<Item = &Allow> {
        self.allow.iter().filter(|allow| allow.until < self.today)
    }
}

/// Compares two releases, called `names`.
pub(super) fn compare(names: (&str, &str), old: &Side, new: &Side, losses: &Losses<'_>) -> Diff {
    let pairs = pairs(&old.images, &new.images);
    let images: Vec<_> = pairs.into_iter().map(|(image, old, new)| one(image, old, new, losses)).collect();
    let stands_in = |name: &str| new.replacements.iter().any(|replacement| replacement.to == name);
    let images = images.into_iter().map(|image| {
        let replaced = image.new.as_deref().is_some_and(stands_in);
        ImageDiff { replaced, ..image }
    });
    let images: Vec<ImageDiff> = images.collect();
    let lost = images.iter().flat_map(|image| &image.lost).filter(|loss| loss.allowed.is_none()).count();
    Diff {
        old: names.0.into(),
        new: names.1.into(),
        images,
        replacements: Replacements { old: old.replacements.clone(), new: new.replacements.clone() },
        losses: lost,
    }
}

type Pair<'a> = (String, Option<&'a Entry>, Option<&'a Entry>);

/// The images of both, by name; those that are left over by the last part of their name, where only one of each
/// side has it.
fn pairs<'a>(old: &'a BTreeMap<String, Entry>, new: &'a BTreeMap<String, Entry>) -> Vec<Pair<'a>> {
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let (both, alone): (Vec<&String>, Vec<&String>) =
        names.into_iter().partition(|name| old.contains_key(*name) && new.contains_key(*name));
    let mut pairs: Vec<Pair<'a>> = both.into_iter().map(|name| (name.clone(), old.get(name), new.get(name))).collect();
    let last = |name: &str| name.rsplit('/').next().unwrap_or(name).to_owned();
    let only = |side: &BTreeMap<String, Entry>, part: &str| {
        let mut found = alone.iter().filter(|name| side.contains_key(**name) && last(name) == part);
        match (found.next(), found.next()) {
            (Some(only), None) => Some((*only).clone()),
            _ => None,
        }
    };
    let mut taken = BTreeSet::new();
    for name in &alone {
        if taken.contains(*name) {
            continue;
        }
        let part = last(name);
        match (only(old, &part), only(new, &part)) {
            (Some(before), Some(after)) => {
                taken.extend([before.clone(), after.clone()]);
                pairs.push((after.clone(), old.get(&before), new.get(&after)));
            }
            _ => pairs.push(((*name).clone(), old.get(*name), new.get(*name))),
        }
    }
    pairs.sort_by(|a, b| a.0.cmp(&b.0));
    pairs
}

fn one(image: String, old: Option<&Entry>, new: Option<&Entry>, losses: &Losses<'_>) -> ImageDiff {
    let empty = BTreeMap::new();
    let rows = |entry: Option<&'_ Entry>| entry.map_or_else(|| empty.clone(), |entry| entry.platforms.clone());
    let (before, after) = (rows(old), rows(new));
    let lost: Vec<Loss> = before
        .iter()
        .filter(|(name, row)| !after.contains_key(*name) && losses.count(&row.platform))
        .map(|(_, row)| Loss { platform: row.platform.clone(), allowed: losses.reason(&image, &row.platform) })
        .collect();
    let gained: Vec<Platform> =
        after.iter().filter(|(name, _)| !before.contains_key(*name)).map(|(_, row)| row.platform.clone()).collect();
    let differ = before.iter().filter_map(|(name, old)| {
        let new = after.get(name).filter(|new| *new != old)?;
        Some(PlatformDiff { platform: old.platform.clone(), old: old.clone(), new: new.clone() })
    });
    let platforms: Vec<_> = differ.collect();
    let moved = matches!((old, new), (Some(old), Some(new)) if moved(&old.repository, &new.repository));
    let change = match (old, new) {
        (None, _) => Change::Added,
        (_, None) => Change::Lost,
        _ if moved || !(lost.is_empty() && gained.is_empty() && platforms.is_empty()) => Change::Changed,
        _ => Change::Same,
    };
    let name = |entry: Option<&Entry>| entry.map(|entry| entry.reference.clone());
    ImageDiff { image, change, old: name(old), new: name(new), moved, replaced: false, gained, lost, platforms }
}

/// Whether a name is another one, and not only in another place: ko puts import paths under any repository.
fn moved(old: &str, new: &str) -> bool {
    let path = |name: &str| release::import_path(name).map(|(_, path)| path.to_owned());
    match (path(old), path(new)) {
        (Some(old), Some(new)) => old != new,
        _ => release::without_hash(old) != release::without_hash(new),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::diff::side::slot;

    fn row(platform: &str, user: &str, size: u64) -> Row {
        Row { platform: platform.parse().unwrap(), manifest: None, user: user.into(), base: None, size }
    }

    fn side(images: &[(&str, &str, &[Row])]) -> Side {
        let entry = |(key, repository, rows): &(&str, &str, &[Row])| {
            let platforms = rows.iter().map(|row| (slot(&row.platform), row.clone())).collect();
            let repository = (*repository).to_owned();
            ((*key).to_owned(), Entry { reference: format!("{repository}@x"), repository, platforms })
        };
        Side { images: images.iter().map(entry).collect(), ..Side::default() }
    }

    fn allow(image: &str, platforms: &[&str], until: &str) -> Allow {
        Allow {
            image: image.into(),
            platforms: platforms.iter().map(|platform| platform.parse().unwrap()).collect(),
            reason: "known".into(),
            link: None,
            owner: "us".into(),
            until: until.parse().unwrap(),
        }
    }

    fn losses(allow: &[Allow]) -> Losses<'_> {
        Losses { allow, today: "2026-06-01".parse().unwrap(), platforms: &[] }
    }

    #[test]
    fn a_lost_platform_counts_unless_it_is_allowed_today() {
        let (amd, arm) = (row("linux/amd64", "65532", 9), row("linux/arm64", "65532", 9));
        let old = side(&[("x", "r.io/e.com/x", &[amd.clone(), arm])]);
        let new = side(&[("x", "q.io/e.com/x", &[amd])]);
        for (entries, expected) in [
            (vec![], 1),
            (vec![allow("x", &["linux/arm64"], "2026-06-01")], 0),
            (vec![allow("x", &[], "2027-01-01")], 0),
            (vec![allow("x", &["linux/arm64"], "2026-05-31")], 1),
            (vec![allow("x", &["linux/amd64"], "2027-01-01"), allow("y", &[], "2027-01-01")], 1),
        ] {
            let diff = compare(("a", "b"), &old, &new, &losses(&entries));
            assert_eq!((diff.losses, diff.images[0].change), (expected, Change::Changed), "{entries:?}");
        }
        assert_eq!(losses(&[allow("x", &[], "2026-05-31")]).expired().count(), 1);
        let only = ["linux/amd64".parse().unwrap()];
        let diff = compare(("a", "b"), &old, &new, &Losses { platforms: &only, ..losses(&[]) });
        assert_eq!(diff.losses, 0);
    }

    #[test]
    fn a_revision_of_windows_is_no_other_platform() {
        let windows = |version: &str| row(&format!("windows/amd64:{version}"), "", 1);
        let old = side(&[("x", "r.io/x", &[windows("10.0.17763.1"), windows("10.0.20348.1")])]);
        let new = side(&[("x", "r.io/x", &[windows("10.0.17763.2")])]);
        let entries = [allow("x", &["windows/amd64:10.0.20348"], "2026-06-01")];
        for (entries, expected) in [(&[][..], 1), (&entries[..], 0)] {
            let diff = compare(("a", "b"), &old, &new, &losses(entries));
            let image = &diff.images[0];
            let lost: Vec<_> = image.lost.iter().map(|loss| loss.platform.to_string()).collect();
            assert_eq!(lost, ["windows/amd64:10.0.20348.1"]);
            assert_eq!((image.gained.len(), diff.losses), (0, expected));
        }
    }

    #[test]
    fn what_came_went_and_changed_is_told_apart() {
        let old = side(&[
            ("e.com/gone", "r.io/e.com/gone", &[row("linux/amd64", "", 1), row("linux/arm", "", 1)]),
            ("e.com/same", "r.io/e.com/same", &[row("linux/amd64", "", 1)]),
            ("docker.io/library/busybox", "docker.io/library/busybox", &[row("linux/amd64", "", 5)]),
        ]);
        let new = side(&[
            ("e.com/new", "r.io/e.com/new", &[row("linux/amd64", "", 1)]),
            ("e.com/same", "q.io/e.com/same", &[row("linux/amd64", "", 1)]),
            ("cgr.dev/c/busybox", "cgr.dev/c/busybox", &[row("linux/amd64", "65532", 7)]),
        ]);
        let diff = compare(("a", "b"), &old, &new, &losses(&[]));
        let seen: Vec<_> = diff.images.iter().map(|image| (image.image.as_str(), image.change, image.moved)).collect();
        assert_eq!(
            seen,
            [
                ("cgr.dev/c/busybox", Change::Changed, true),
                ("e.com/gone", Change::Lost, false),
                ("e.com/new", Change::Added, false),
                ("e.com/same", Change::Same, false),
            ]
        );
        assert_eq!((diff.losses, diff.images[0].platforms[0].new.user.as_str()), (2, "65532"));
    }

    #[test]
    fn nothing_is_lost_between_a_release_and_itself() {
        let one = side(&[("x", "r.io/x", &[row("linux/amd64", "", 1)])]);
        let diff = compare(("a", "a"), &one, &one, &losses(&[]));
        assert_eq!((diff.losses, diff.images[0].change), (0, Change::Same));
    }
}
