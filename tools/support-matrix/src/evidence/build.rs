//! What a build says of each platform: index and contents of every image.

use kit::{
    Cause, Platform,
    record::{Head, Image, ImageKind, Images, Origin, PlatformRow, Source, Unseen},
};

use super::{Attempt, Key, attempts::attempt, run::Found, verdict, verdict_of, why};
use crate::{
    cells::line,
    model::{Level, OriginKind, Verdict},
    text::{clean, list, many},
};

pub(crate) const fn origin(images: &Images) -> OriginKind {
    match images.origin {
        Origin::BuiltHere => OriginKind::BuiltHere,
        Origin::Published => OriginKind::Published,
    }
}

/// The version, with an `@` and the commit where it is that of sources in a folder: those call themselves 'devel' every
/// day. Sources with changes, or outside of git, are named by their content.
pub(crate) fn version(images: &Images) -> String {
    let said = clean(&images.version);
    let Source::Folder { digest, commit, .. } = &images.source else { return said };
    let beginning = |text: &str| {
        let is_hex = text.len() >= 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hex.then(|| text[..12].to_ascii_lowercase())
    };
    let content = || beginning(digest.strip_prefix("sha256:").unwrap_or(digest));
    let which = commit.as_deref().and_then(beginning).or_else(content);
    match which.filter(|_| line(&said) == "main") {
        Some(which) => format!("{said}@{which}"),
        None => said,
    }
}

/// Two statements for each platform that was asked for.
pub(super) fn built(found: &Found<Images>) -> Vec<Attempt> {
    let images = &found.record;
    // Where one platform is bad, all were looked at: asked once, for there may be many of each.
    let bad = images.images.iter().any(|image| images.platforms.iter().any(|other| problem(image, other).is_some()));
    let both = |platform: &Platform| {
        [(Level::Index, index(images, platform, bad)), (Level::Contents, contents(images, platform, bad))].map(
            |(level, (verdict, words))| {
                let key = Key {
                    component: clean(&images.component),
                    version: version(images),
                    origin: origin(images),
                    platform: platform.clone(),
                };
                let release = images.release.as_ref().map(|release| clean(&release.digest));
                Attempt { release, ..attempt(key, Some(level), verdict, words, &images.head, &found.digest) }
            },
        )
    };
    images.platforms.iter().flat_map(both).collect()
}

/// Whether each image's index has the platform.
fn index(images: &Images, platform: &Platform, bad: bool) -> (Verdict, String) {
    let lacks = |image: &&Image| row(image, platform).is_none_or(|row| row.manifest.is_none());
    let missing: Vec<_> = images.images.iter().filter(lacks).collect();
    if missing.is_empty() {
        return unless_unfinished(images, platform, bad, format!("{} for it", many(images.images.len(), "image")));
    }
    let names: Vec<_> = missing.iter().map(|image| clean(&image.name)).collect();
    let causes = missing.iter().map(|image| row(image, platform).and_then(|row| row.cause));
    let words = format!("{} of {} missing: {}", missing.len(), images.images.len(), list(&names, 3));
    (worst(causes, &images.head), words)
}

/// Whether config and program of each image are of the platform.
fn contents(images: &Images, platform: &Platform, bad: bool) -> (Verdict, String) {
    let found = images.images.iter().filter_map(|image| Some((image, problem(image, platform)?)));
    let found: Vec<_> = found.collect();
    if !found.is_empty() {
        let causes = found.iter().map(|(image, _)| row(image, platform).and_then(|row| row.cause));
        let words: Vec<_> = found.iter().map(|(image, problem)| format!("{}: {problem}", clean(&image.name))).collect();
        return (worst(causes, &images.head), list(&words, 3));
    }
    let unseen = |what: Unseen| {
        let of = move |image: &&Image| row(image, platform).and_then(|row| row.unseen) == Some(what);
        images.images.iter().filter(of).map(|image| clean(&image.name)).collect::<Vec<_>>()
    };
    let all = many(images.images.len(), "image");
    let unknown = unseen(Unseen::Program);
    if !unknown.is_empty() {
        // Nothing is wrong with what was seen; it only shows nothing.
        let words = format!("program not looked at in {} of {all}: {}", unknown.len(), list(&unknown, 3));
        return match unless_unfinished(images, platform, bad, words.clone()) {
            (Verdict::Shown, _) => (Verdict::NotTried, words),
            other => other,
        };
    }
    let mut words = format!("{all} verified: config and program");
    match unseen(Unseen::LayerEnd).len() {
        0 => {}
        ends => words.push_str(&format!("; of {ends} not to the end of the layer with the program")),
    }
    unless_unfinished(images, platform, bad, words)
}

fn row<'a>(image: &'a Image, platform: &Platform) -> Option<&'a PlatformRow> {
    image.platforms.iter().find(|row| row.platform == *platform)
}

/// What is wrong with an image on a platform. The record's own word is not enough: what it lists must agree.
fn problem(image: &Image, platform: &Platform) -> Option<String> {
    let Some(row) = row(image, platform) else { return Some("nothing is known of it".into()) };
    // The version of Windows is not part of what is asked for.
    let same = |found: &Platform| {
        (&found.os, &found.arch, &found.variant) == (&platform.os, &platform.arch, &platform.variant)
    };
    match row {
        PlatformRow { problem: Some(problem), .. } => Some(clean(problem)),
        PlatformRow { manifest: None, .. } => Some("the index lacks it".into()),
        PlatformRow { config, .. } if !config.as_ref().is_some_and(same) => {
            Some("its config names another platform".into())
        }
        PlatformRow { program: Some(program), .. } if program.machine != platform.arch => {
            Some("its program is for another machine".into())
        }
        _ => None,
    }
}

/// Good rows of a build that did not come to its end show nothing: not every image is among them. Only if what ended
/// it is a bad row of another platform were all images looked at.
fn unless_unfinished(images: &Images, platform: &Platform, bad: bool, good: String) -> (Verdict, String) {
    let head = &images.head;
    let all = images.origin == Origin::Published || images.images.iter().any(|image| image.kind == ImageKind::Built);
    match verdict(head) {
        Verdict::Shown if !images.images.is_empty() => (Verdict::Shown, good),
        Verdict::Shown | Verdict::NotTried => (Verdict::Infrastructure, "no image was looked at".into()),
        Verdict::Failed if all && bad => (Verdict::Shown, good),
        Verdict::Failed if concerns_others(images, platform) => (Verdict::NotReached, why(head)),
        verdict => (verdict, why(head)),
    }
}

/// A base that lacks one platform ends the build for all of them; the first clause of the message names it.
fn concerns_others(images: &Images, platform: &Platform) -> bool {
    let head = &images.head;
    let about_platforms = matches!(head.cause, Some(Cause::ImageMissingPlatform | Cause::ImageWrongArch));
    let clause = head.message.as_deref().unwrap_or_default().split(';').next().unwrap_or_default();
    let words: Vec<_> = clause.split([' ', ',', ':', '(', ')']).collect();
    let named = |platform: &Platform| words.contains(&platform.to_string().as_str());
    about_platforms && !named(platform) && images.platforms.iter().any(named)
}

/// One bad image is enough, whatever happened to the others. Without a cause of its own the record's counts.
fn worst(causes: impl IntoIterator<Item = Option<Cause>>, head: &Head) -> Verdict {
    let of = |cause: Option<Cause>| cause.or(head.cause).map_or(Verdict::Failed, |cause| verdict_of(cause.class()));
    if causes.into_iter().map(of).any(|verdict| verdict == Verdict::Failed) {
        Verdict::Failed
    } else {
        Verdict::Infrastructure
    }
}
