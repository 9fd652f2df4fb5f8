//! The second half of a copy: tags are set, as close together as can be, and put back when one of them fails.

use std::time::{Duration, Instant};

use futures::{StreamExt, stream};
use kit::{Error, Result, Within};
use oci::{Client, Document, Reference};

use super::{
    content::{self, Loaded},
    plan::{Plan, repository},
};

/// Tags set at the same time.
const PARALLEL: usize = 8;

/// What a tag belongs to, in the order in which tags are set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Signatures come first, so that no reader sees an image without its own.
    Note,
    Image,
    /// Whoever reads a release finds all that it names.
    Release,
}

/// A tag that is to be set.
pub(super) struct Change {
    pub(super) stage: Stage,
    pub(super) tag: Reference,
    to: Document,
    before: Option<Document>,
}

impl Change {
    fn is_needed(&self) -> bool {
        self.before.as_ref().is_none_or(|before| before.digest != self.to.digest)
    }
}

/// Finds out what all tags are now.
pub(super) async fn prepare(client: &Client, plan: &Plan, loaded: &[Loaded]) -> Result<Vec<Change>> {
    let mut wanted: Vec<(Stage, Reference, Document)> = Vec::new();
    for target in &plan.targets {
        for (loaded, image) in loaded.iter().zip(&target.images) {
            let at = |tag: &str| oci::parse(&format!("{}:{tag}", repository(&image.reference)));
            for note in &loaded.notes {
                if let Some(tag) = &note.tag {
                    wanted.push((Stage::Note, at(tag)?, note.document().clone()));
                }
            }
            for tag in &image.tags {
                wanted.push((Stage::Image, at(tag)?, loaded.tree.top.clone()));
            }
        }
        let document = content::artifact(target).manifest()?;
        for tag in &target.release_tags {
            let tag = oci::parse(&format!("{}:{tag}", repository(&target.release)))?;
            wanted.push((Stage::Release, tag, document.clone()));
        }
    }
    let reads = stream::iter(wanted).map(|(stage, tag, to)| async move {
        let before = client.find_manifest(&tag).await?;
        Ok(Change { stage, tag, to, before })
    });
    reads.buffered(PARALLEL).collect::<Vec<Result<Change>>>().await.into_iter().collect()
}

/// Sets all tags; after a signal no more of them, but none is left half set. Returns how long readers could see some of the images' tags changed and others not.
pub(super) async fn set(client: &Client, changes: &[Change]) -> Result<Duration> {
    let mut began = None;
    for stage in [Stage::Note, Stage::Image, Stage::Release] {
        let of_stage: Vec<_> = changes.iter().filter(|change| change.stage == stage && change.is_needed()).collect();
        if stage != Stage::Note && !of_stage.is_empty() {
            began.get_or_insert_with(Instant::now);
        }
        let sets = stream::iter(of_stage).map(|change| async {
            kit::signal::check()?;
            client.push_manifest(&change.tag, &change.to).await
        });
        // Those that are on their way come to their end, so that what is put back stays so.
        let ended: Vec<Result<()>> = sets.buffer_unordered(PARALLEL).collect().await;
        ended.into_iter().collect::<Result<()>>()?;
    }
    Ok(began.map_or(Duration::ZERO, |began| began.elapsed()))
}

/// What became of a tag that was put back.
#[derive(Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct PutBack {
    pub(super) tag: String,
    /// What it is now, in words.
    pub(super) state: String,
    /// Whether it is what it was before.
    pub(super) restored: bool,
}

/// Puts back what was set, last things first; what somebody else has set meanwhile stays. Goes on after an error.
pub(super) async fn put_back(client: &Client, changes: &[Change]) -> Vec<PutBack> {
    let mut all = Vec::new();
    for change in changes.iter().rev().filter(|change| change.is_needed()) {
        let (state, restored) = match put_one_back(client, change).await {
            Ok(None) => continue,
            Ok(Some((state, restored))) => (state, restored),
            Err(error) => (format!("may be the new one: {}", error.summary()), false),
        };
        all.push(PutBack { tag: change.tag.whole(), state, restored });
    }
    all
}

async fn put_one_back(client: &Client, change: &Change) -> Result<Option<(String, bool)>, Error> {
    let now = client.find_manifest(&change.tag).await?;
    if now.is_none_or(|now| now.digest != change.to.digest) {
        return Ok(None);
    }
    match &change.before {
        Some(before) => {
            client.push_manifest(&change.tag, before).await.within(|| "cannot be put back")?;
            Ok(Some((format!("is again {}", before.digest), true)))
        }
        None if client.delete_tag(&change.tag).await? => Ok(Some(("is removed".into(), true))),
        None => Ok(Some((format!("stays {}: the registry lets no tag be removed", change.to.digest), false))),
    }
}
