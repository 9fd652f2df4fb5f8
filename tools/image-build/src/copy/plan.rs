//! What is copied where: pure, so that everything that can be wrong with a call is found before the first request.

use std::collections::BTreeMap;

use kit::{Cause, Error, Result};
use oci::Reference;

use crate::{
    manifests, options,
    release::{self, Release},
};

/// What was asked for.
pub(crate) struct Wishes<'a> {
    pub(crate) to: &'a [String],
    pub(crate) tags: &'a [String],
    pub(crate) from: &'a [String],
    pub(crate) component: Option<&'a str>,
}

/// Everything that is copied.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) items: Vec<Item>,
    /// Images that stay where they are, as the release names them.
    pub(crate) left: Vec<String>,
    pub(crate) targets: Vec<Target>,
}

/// An image of the release.
#[derive(Debug)]
pub(crate) struct Item {
    /// As the release names it.
    pub(crate) name: String,
    pub(crate) source: Reference,
    pub(crate) digest: String,
}

/// A repository that is copied to.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) repository: String,
    /// For each item: where it goes, its tags, and its new name in the release.
    pub(crate) images: Vec<Image>,
    /// The release with its new names, and where it goes.
    pub(crate) text: String,
    pub(crate) release: Reference,
    pub(crate) release_tags: Vec<String>,
}

/// An image where it is copied to.
#[derive(Debug, Clone)]
pub(crate) struct Image {
    /// By digest.
    pub(crate) reference: Reference,
    pub(crate) tags: Vec<String>,
    pub(crate) name: String,
}

/// Plans it all.
pub(crate) fn plan(release: &Release, wishes: &Wishes<'_>) -> Result<Plan> {
    let names = release.images()?;
    let component = component(release, wishes)?;
    let homes = homes(release, &names, wishes)?;
    let (mut items, mut paths, mut left) = (Vec::new(), Vec::new(), Vec::new());
    for name in names {
        let source = oci::parse(&name)?;
        let repository = repository(&source);
        let Some(path) = homes.iter().find_map(|home| home.path(&repository)) else {
            left.push(name);
            continue;
        };
        let Some(digest) = source.digest().map(String::from) else {
            let what = format!("{}: {name} is not named by its digest", release.name);
            return Err(Error::new(Cause::Usage, what).next("a release names its images by digest, as `build` does it"));
        };
        items.push(Item { name, source, digest });
        paths.push(path);
    }
    if items.is_empty() {
        let from: Vec<_> = homes.iter().map(|home| home.prefix.as_str()).collect();
        return Err(Error::new(Cause::Usage, format!("{} names no image under {}", release.name, from.join(" or ")))
            .next("say with --from REPO which images belong to the release"));
    }
    let mut targets: Vec<Target> = Vec::new();
    for to in wishes.to {
        let repository = to.trim_end_matches('/').to_owned();
        if targets.iter().any(|target| target.repository == repository) {
            return Err(Error::new(Cause::Usage, format!("--to {repository} is there twice")));
        }
        targets.push(target(release, repository, &items, &paths, &component, wishes.tags)?);
    }
    Ok(Plan { items, left, targets })
}

/// A prefix of repositories whose images belong to the release, and what takes its place under the new one.
struct Home {
    prefix: String,
    below: &'static str,
}

impl Home {
    fn path(&self, repository: &str) -> Option<String> {
        let rest = repository.strip_prefix(&self.prefix)?;
        if !(rest.is_empty() || rest.starts_with('/')) {
            return None;
        }
        Some(format!("{}{rest}", self.below).trim_start_matches('/').to_owned())
    }
}

fn homes(release: &Release, names: &[String], wishes: &Wishes<'_>) -> Result<Vec<Home>> {
    let home = |prefix: &str, below| Home { prefix: prefix.trim_end_matches('/').to_owned(), below };
    if !wishes.from.is_empty() {
        return Ok(wishes.from.iter().map(|from| home(from, "")).collect());
    }
    if let Some(artifact) = &release.artifact
        && let Some((repo, _)) = repository(artifact).rsplit_once("/release/")
    {
        // Where `build` puts what it makes, and what stands in for other images.
        return Ok(vec![home(repo, ""), home(&format!("{}/mirror", artifact.registry()), "mirror")]);
    }
    let mut found: Vec<String> = Vec::new();
    for name in names {
        let repository = repository(&oci::parse(name)?);
        if let Some((repo, _)) = release::import_path(&repository)
            && !found.iter().any(|known| known == repo)
        {
            found.push(repo.to_owned());
        }
    }
    match found.as_slice() {
        [only] => Ok(vec![home(only, "")]),
        _ => {
            let what = format!("{} does not tell which of its images belong to it", release.name);
            let seen = if found.is_empty() { names.join(", ") } else { found.join(", ") };
            Err(Error::new(Cause::Usage, what).next(format!("say it with --from REPO (seen: {seen})")))
        }
    }
}

fn component(release: &Release, wishes: &Wishes<'_>) -> Result<String> {
    let artifact = release.artifact.as_ref().map(repository);
    let named = artifact.as_ref().and_then(|artifact| Some(artifact.rsplit_once("/release/")?.1.to_owned()));
    let recorded = release.record.as_ref().map(|record| record.component.clone());
    wishes.component.map(String::from).or(named).or(recorded).ok_or_else(|| {
        Error::new(Cause::Usage, format!("{} does not tell what it is a release of", release.name))
            .next("say it with --component NAME")
    })
}

fn target(
    release: &Release,
    repository: String,
    items: &[Item],
    paths: &[String],
    component: &str,
    tags: &[String],
) -> Result<Target> {
    let mut images = Vec::new();
    let mut text = release.text.clone();
    let mut taken: BTreeMap<String, &Item> = BTreeMap::new();
    for (item, path) in items.iter().zip(paths) {
        let place = if path.is_empty() { at(&repository)? } else { options::under(&repository, path)? };
        let own = tag_of(&item.name);
        let mut all: Vec<String> = own.iter().cloned().collect();
        for tag in tags {
            let tagged = checked_tag(&place, tag)?;
            if !all.contains(&tagged) {
                all.push(tagged);
            }
        }
        for tag in &all {
            let whole = format!("{}:{tag}", self::repository(&place));
            match taken.insert(whole.clone(), item) {
                Some(other) if other.digest != item.digest => {
                    let what = format!("{} and {} would both become {whole}", other.name, item.name);
                    return Err(Error::new(Cause::Usage, what).next("copy them with --from to different repositories"));
                }
                _ => {}
            }
        }
        let colon = own.map(|tag| format!(":{tag}")).unwrap_or_default();
        let name = format!("{}{colon}@{}", self::repository(&place), item.digest);
        text = manifests::replace(&text, &item.name, &name);
        images.push(Image { reference: oci::pinned(&place, &item.digest), tags: all, name });
    }
    let place = options::under(&repository, &format!("release/{component}"))?;
    let version = release.record.as_ref().map(|record| record.version.clone());
    let own = release.artifact.as_ref().filter(|artifact| artifact.digest().is_none());
    let own = own.and_then(|artifact| artifact.tag().map(String::from));
    let own = own.or(version).or_else(|| manifests::version(&release.text)).map(|version| version.replace('+', "-"));
    let mut release_tags = Vec::new();
    for tag in own.iter().chain(tags) {
        let tag = checked_tag(&place, tag)?;
        if !release_tags.contains(&tag) {
            release_tags.push(tag);
        }
    }
    Ok(Target { repository, images, text, release: place, release_tags })
}

fn at(repository: &str) -> Result<Reference> {
    let (parent, name) = repository.rsplit_once('/').unwrap_or((repository, ""));
    options::under(parent, name)
}

/// The tag of a name that has a digest as well.
fn tag_of(name: &str) -> Option<String> {
    let name = name.split('@').next()?;
    let last = name.rsplit('/').next()?;
    last.split_once(':').map(|(_, tag)| tag.to_owned())
}

fn checked_tag(place: &Reference, tag: &str) -> Result<String> {
    let tagged = oci::parse(&format!("{}:{tag}", repository(place)));
    match tagged {
        Ok(tagged) if tagged.tag() == Some(tag) => Ok(tag.to_owned()),
        _ => Err(Error::new(Cause::Usage, format!("'{tag}' is no tag")).next("as in latest, v1.9 or 2026-11-24")),
    }
}

/// `registry/repository`.
pub(crate) fn repository(reference: &Reference) -> String {
    format!("{}/{}", reference.registry(), reference.repository())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest(letter: char) -> String {
        format!("sha256:{}", letter.to_string().repeat(64))
    }

    fn release(text: &str) -> Release {
        Release { name: "release.yaml".into(), text: text.into(), artifact: None, record: None }
    }

    fn wishes<'a>(to: &'a [String], tags: &'a [String], from: &'a [String]) -> Wishes<'a> {
        Wishes { to, tags, from, component: Some("x") }
    }

    fn text() -> String {
        let (a, b) = (digest('a'), digest('b'));
        format!(
            "kind: D\nmetadata: {{labels: {{app.kubernetes.io/version: v1}}}}\nimage: g.io/t/p/e.com/x/cmd/a:v1@{a}\n\
             args: [-s, 'g.io/t/p/e.com/x/cmd/b@{b}', '-shell=cgr.dev/c/sh@{a}']\n"
        )
    }

    #[test]
    fn names_are_rewritten_and_others_stay() {
        let (to, tags) = (["r.io/one".to_owned(), "10.0.0.1:5000/two/".to_owned()], ["latest".to_owned()]);
        let plan = plan(&release(&text()), &wishes(&to, &tags, &[])).unwrap();
        assert_eq!(plan.left, [format!("cgr.dev/c/sh@{}", digest('a'))]);
        let two = &plan.targets[1];
        assert_eq!(two.images[0].name, format!("10.0.0.1:5000/two/e.com/x/cmd/a:v1@{}", digest('a')));
        assert_eq!(
            (&two.images[0].tags, &two.images[1].tags),
            (&vec!["v1".into(), "latest".into()], &vec!["latest".into()])
        );
        assert!(two.text.contains(&format!("'10.0.0.1:5000/two/e.com/x/cmd/b@{}'", digest('b'))), "{}", two.text);
        assert!(two.text.contains("-shell=cgr.dev/c/sh@") && !two.text.contains("g.io"), "{}", two.text);
        assert_eq!(two.release_tags, ["v1", "latest"]);
        assert_eq!(two.release.whole(), "10.0.0.1:5000/two/release/x:latest");
    }

    #[test]
    fn what_build_pushed_is_copied_with_its_stand_ins() {
        let a = digest('a');
        let text =
            format!("kind: D\nimage: 10.0.0.1:5000/o/e.com/x:v1@{a}\nb: 10.0.0.1:5000/mirror/cgr.dev/c/sh@{a}\n");
        let artifact = Some(oci::parse("10.0.0.1:5000/o/release/greeter:v1").unwrap());
        let release = Release { artifact, ..release(&text) };
        let to = ["r.io/new".to_owned()];
        let plan = plan(&release, &Wishes { component: None, ..wishes(&to, &[], &[]) }).unwrap();
        let names: Vec<_> = plan.targets[0].images.iter().map(|image| image.name.clone()).collect();
        assert_eq!(names, [format!("r.io/new/mirror/cgr.dev/c/sh@{a}"), format!("r.io/new/e.com/x:v1@{a}")]);
        assert_eq!(plan.targets[0].release.repository(), "new/release/greeter");
    }

    #[test]
    fn what_cannot_be_meant_is_refused_before_anything_is_done() {
        let to = |name: &str| [name.to_owned()];
        let refused = |text: &str, wishes: &Wishes<'_>| {
            let error = plan(&release(text), wishes).unwrap_err();
            assert_eq!(error.cause, Cause::Usage, "{error}");
            error.to_string()
        };
        let good = text();
        assert!(refused(&good, &wishes(&to("one"), &[], &[])).contains("begin with a registry"));
        assert!(refused(&good, &wishes(&to("r.io/x"), &to("a b"), &[])).contains("is no tag"));
        assert!(refused(&good, &wishes(&to("r.io/x"), &[], &to("q.io"))).contains("names no image under q.io"));
        assert!(refused(&good, &Wishes { component: None, ..wishes(&to("r.io/x"), &[], &[]) }).contains("--component"));
        let twice = ["r.io/x".to_owned(), "r.io/x/".to_owned()];
        assert!(refused(&good, &wishes(&twice, &[], &[])).contains("twice"));
        let tagged = "kind: D\nimage: g.io/t/e.com/x:v1\n";
        assert!(refused(tagged, &wishes(&to("r.io/x"), &[], &[])).contains("not named by its digest"));
        assert!(refused("kind: D\n", &wishes(&to("r.io/x"), &[], &[])).contains("--from"));
        assert!(refused("a: [", &wishes(&to("r.io/x"), &[], &[])).contains("release.yaml: this is no YAML"));
        let bare = format!("kind: D\na: g.io/t@{}\nb: g.io/t@{}\n", digest('a'), digest('b'));
        assert!(refused(&bare, &wishes(&to("r.io/x"), &to("latest"), &to("g.io/t"))).contains("would both become"));
    }
}
