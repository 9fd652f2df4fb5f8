//! The first half of a copy: everything by digest, in all places, and a look whether it is there.

use std::collections::HashSet;

use futures::{StreamExt, TryStreamExt, stream};
use kit::{Cause, Error, Result};
use oci::{ARTIFACT_TYPE_INPUTS, ARTIFACT_TYPE_RELEASE, Artifact, Client, Document, Place, Pushed, Reference, Tree};

use super::plan::{Image, Item, Plan, Target};

/// Images copied or looked at together; how many transfers there are is the client's affair.
const PARALLEL: usize = 4;
/// Requests about one image at the same time.
const REQUESTS: usize = 8;
/// A signature of an attestation of a signature …
const DEPTH: usize = 4;
/// What may be about one image.
const NOTES: usize = 1000;
/// The tags under which cosign puts what it made of a digest.
const COSIGN: [&str; 3] = [".sig", ".att", ".sbom"];

/// An image of the release with everything that is about it.
pub(super) struct Loaded {
    from: Place,
    pub(super) tree: Tree,
    pub(super) notes: Vec<Note>,
}

/// A signature, an attestation or anything else that is about an image or a part of it.
pub(super) struct Note {
    tree: Tree,
    /// What it refers to, for those that say it themselves.
    subject: Option<String>,
    /// The tag by which it is found, for those of cosign.
    pub(super) tag: Option<String>,
}

impl Note {
    pub(super) fn document(&self) -> &Document {
        &self.tree.top
    }
}

/// Reads what is to be copied, without its blobs.
pub(super) async fn load(client: &Client, plan: &Plan) -> Result<Vec<Loaded>> {
    let loads = stream::iter(&plan.items).map(|item| load_one(client, item));
    loads.buffered(PARALLEL).try_collect().await
}

async fn load_one(client: &Client, item: &Item) -> Result<Loaded> {
    let from = Place::Registry(client.clone(), oci::pinned(&item.source, &item.digest));
    let tree = Tree::read(&from, from.top().await?).await?;
    let mut about: Vec<String> = tree.documents().map(|document| document.digest.clone()).collect();
    let mut seen: HashSet<String> = about.iter().cloned().collect();
    let mut notes: Vec<Note> = Vec::new();
    for _ in 0..DEPTH {
        let finds = stream::iter(&about).map(|digest| notes_about(client, &item.source, digest));
        let found: Vec<Vec<Note>> = finds.buffered(REQUESTS).try_collect().await?;
        about.clear();
        for note in found.into_iter().flatten() {
            if seen.insert(note.tree.top.digest.clone()) {
                about.push(note.tree.top.digest.clone());
                notes.push(note);
            } else if note.tag.is_some() {
                notes.push(note);
            }
        }
        if about.is_empty() {
            return Ok(Loaded { from, tree, notes });
        }
        if notes.len() > NOTES {
            break;
        }
    }
    Err(Error::new(Cause::Registry, format!("{}: more is about it than can be looked through", item.name)))
}

async fn notes_about(client: &Client, source: &Reference, digest: &str) -> Result<Vec<Note>> {
    let mut notes = Vec::new();
    for referrer in oci::referrers(client, &oci::pinned(source, digest), None).await? {
        // What an image was made of is for whoever builds into the repository that it comes from.
        if referrer.artifact_type().as_ref().is_some_and(|kind| kind.to_string() == ARTIFACT_TYPE_INPUTS) {
            continue;
        }
        // A list may name what is gone.
        let reference = oci::pinned(source, referrer.digest().as_ref());
        if let Some(top) = client.find_manifest(&reference).await? {
            let tree = Tree::read(&Place::Registry(client.clone(), reference), top).await?;
            notes.push(Note { tree, subject: Some(digest.to_owned()), tag: None });
        }
    }
    for suffix in COSIGN {
        let reference = oci::digest_tag(source, digest, suffix);
        if let Some(top) = client.find_manifest(&reference).await? {
            let tag = reference.tag().map(String::from);
            let tree = Tree::read(&Place::Registry(client.clone(), reference), top).await?;
            notes.push(Note { tree, subject: None, tag });
        }
    }
    Ok(notes)
}

/// Copies all to all places, by digest.
pub(super) async fn copy(client: &Client, plan: &Plan, loaded: &[Loaded]) -> Result<Pushed> {
    let pairs = plan.targets.iter().flat_map(|target| loaded.iter().zip(&target.images));
    let copies = stream::iter(pairs).map(|(loaded, image)| copy_one(client, loaded, image));
    let copied: Vec<Pushed> = copies.buffer_unordered(PARALLEL).try_collect().await?;
    for target in &plan.targets {
        let artifact = artifact(target);
        let place = oci::pinned(&target.release, &artifact.manifest()?.digest);
        oci::store_artifact(client, &place, &artifact).await?;
    }
    let mut sum = Pushed::default();
    copied.into_iter().for_each(|pushed| sum += pushed);
    Ok(sum)
}

async fn copy_one(client: &Client, loaded: &Loaded, image: &Image) -> Result<Pushed> {
    let mut sum = loaded.tree.push(client, &loaded.from, &image.reference).await?;
    for note in &loaded.notes {
        sum += note.tree.push(client, &loaded.from, &image.reference).await?;
    }
    Ok(sum)
}

/// The release file as an artifact.
pub(super) fn artifact(target: &Target) -> Artifact {
    Artifact::file(ARTIFACT_TYPE_RELEASE, "release.yaml", target.text.as_bytes())
}

/// Looks at all places whether everything is there as it was read.
pub(super) async fn verify(client: &Client, plan: &Plan, loaded: &[Loaded]) -> Result<()> {
    let pairs = plan.targets.iter().flat_map(|target| loaded.iter().zip(&target.images));
    let looks = stream::iter(pairs).map(|(loaded, image)| verify_one(client, loaded, &image.reference));
    looks.buffer_unordered(PARALLEL).try_collect::<()>().await?;
    for target in &plan.targets {
        let place = oci::pinned(&target.release, &artifact(target).manifest()?.digest);
        let (bytes, _) = oci::pull_artifact(client, &place, ARTIFACT_TYPE_RELEASE).await?;
        if bytes != target.text.as_bytes() {
            return Err(Error::new(Cause::Registry, format!("{place} is not the release that was sent there")));
        }
    }
    Ok(())
}

async fn verify_one(client: &Client, loaded: &Loaded, at: &Reference) -> Result<()> {
    for tree in std::iter::once(&loaded.tree).chain(loaded.notes.iter().map(|note| &note.tree)) {
        let reads = stream::iter(tree.documents()).map(|document| async move {
            // Read by digest, which is compared.
            client.manifest(&oci::pinned(at, &document.digest)).await.map(drop)
        });
        reads.buffer_unordered(REQUESTS).try_collect::<()>().await?;
        tree.check_blobs(client, at).await?;
    }
    for note in &loaded.notes {
        let Some(subject) = &note.subject else { continue };
        let listed = oci::referrers(client, &oci::pinned(at, subject), None).await?;
        if !listed.iter().any(|one| one.digest().to_string() == note.tree.top.digest) {
            return Err(gone(at, &note.tree.top.digest, &format!("is not listed as being about {subject}")));
        }
    }
    Ok(())
}

fn gone(at: &Reference, digest: &str, how: &str) -> Error {
    Error::new(Cause::Registry, format!("{at}: {digest} was sent there and {how}"))
}
