//! What an image is before anything is built on it: its platforms, their age, users and distributions.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use kit::{Cause, Error, Platform, Result};
use oci_spec::image::{Descriptor, ImageIndex};

use crate::{
    Offer, Place,
    index::{self, config_of, entries},
    is_index,
    layer::{self, Entry, Kind},
    offers,
    root::clean,
};

/// Where os-release(5) is, the first that is there counts.
const FILES: [&str; 2] = ["etc/os-release", "usr/lib/os-release"];
/// A longer os-release is cut.
const TEXT_LIMIT: usize = 64 << 10;
/// A larger layer is not fetched only to find out which distribution it is.
const LAYER_LIMIT: u64 = 512 << 20;

/// An image, and what it is on the platforms asked for.
#[derive(Debug)]
pub struct Described {
    /// Of the index, or of the manifest of a plain image.
    pub digest: String,
    /// Whether it is a plain image: one manifest without an index.
    pub plain: bool,
    /// Annotations of the index.
    pub annotations: BTreeMap<String, String>,
    /// What it offers.
    pub offers: Vec<Offer>,
    /// One for each platform asked for, in that order; nothing where it does not offer the platform.
    pub asked: Vec<Option<Result<About>>>,
}

/// An image on one platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct About {
    /// As the image says it.
    pub platform: Platform,
    /// Digest of the manifest.
    pub manifest: String,
    /// Media type of the manifest.
    pub media_type: String,
    /// The config's `created`.
    pub created: Option<String>,
    /// The config's `User`.
    pub user: Option<String>,
    /// The text of `/etc/os-release`, if it has one.
    pub os_release: Option<String>,
}

/// Describes an image.
///
/// # Errors
/// [`Cause::Auth`] or [`Cause::Registry`] with the image; what cannot be read of a single platform is in its place.
pub async fn describe(place: &Place, asked: &[Platform]) -> Result<Described> {
    let top = place.top().await?;
    let plain = !is_index(&top.media_type);
    let annotations = match plain {
        true => BTreeMap::new(),
        false => top.parse::<ImageIndex>()?.annotations().clone().unwrap_or_default().into_iter().collect(),
    };
    let all = entries(place, &top).await?;
    let about = asked.iter().map(|asked| {
        let exact = all.iter().find(|entry| entry.platform == *asked);
        let entry = exact.or_else(|| all.iter().find(|entry| offers(&entry.platform, asked)));
        async move {
            match entry {
                Some(entry) => Some(about(place, &entry.platform, &entry.descriptor).await),
                None => None,
            }
        }
    });
    let asked = futures::future::join_all(about).await;
    let offer = |entry: &index::Entry| Offer {
        platform: entry.platform.clone(),
        manifest: entry.descriptor.digest().to_string(),
    };
    Ok(Described { digest: top.digest, plain, annotations, offers: all.iter().map(offer).collect(), asked })
}

async fn about(place: &Place, platform: &Platform, descriptor: &Descriptor) -> Result<About> {
    let document = place.child(descriptor).await?.ok_or_else(|| {
        let what = format!("its index names {} for {platform}, which is not there", descriptor.digest());
        Error::new(Cause::ImageMissingPlatform, what)
    })?;
    let (manifest, config) = config_of(place, &document).await?;
    let user = config.config().as_ref().and_then(|config| config.user().clone());
    let os_release = match platform.os.as_str() {
        "linux" => os_release(place, manifest.layers()).await?,
        _ => None,
    };
    Ok(About {
        platform: platform.clone(),
        manifest: document.digest,
        media_type: document.media_type,
        created: config.created().clone(),
        user: user.filter(|user| !user.is_empty()),
        os_release,
    })
}

/// The text of os-release, from the top layer that has it.
async fn os_release(place: &Place, layers: &[Descriptor]) -> Result<Option<String>> {
    let search = Arc::new(Mutex::new(Search::default()));
    for descriptor in layers.iter().rev() {
        if descriptor.size() > LAYER_LIMIT {
            return Ok(None);
        }
        let mine = Arc::clone(&search);
        let scan = place.blob(descriptor).await?.scan(move |reader| {
            let mut search = mine.lock().unwrap_or_else(PoisonError::into_inner);
            let head = |path: &str| if FILES.contains(&&*clean(path)) { TEXT_LIMIT } else { 0 };
            layer::entries(reader, head, |entry| {
                search.visit(entry);
                Ok(true)
            })?;
            search.end_layer();
            Ok(())
        });
        scan.await?;
        let search = search.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(answer) = search.answer(false) {
            return Ok(answer);
        }
    }
    let search = search.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(search.answer(true).flatten())
}

/// What is known of [`FILES`], from the top layer downwards.
#[derive(Default)]
struct Search {
    known: [Option<State>; 2],
    /// Of the layer that is being read: within one layer the last entry counts.
    own: [Option<State>; 2],
    hidden: [bool; 2],
}

#[derive(Clone)]
enum State {
    Text(String),
    /// A link to a path of the root.
    Link(String),
    Gone,
}

impl Search {
    fn visit(&mut self, entry: Entry) {
        let path = clean(&entry.path);
        for (at, file) in FILES.iter().enumerate() {
            if path == *file {
                self.own[at] = Some(match &entry.kind {
                    Kind::File => State::Text(String::from_utf8_lossy(&entry.head).into_owned()),
                    Kind::Symlink(target) if !target.starts_with('/') => {
                        let folder = file.rsplit_once('/').map_or("", |(folder, _)| folder);
                        State::Link(clean(&format!("{folder}/{target}")))
                    }
                    Kind::Symlink(target) | Kind::Hardlink(target) => State::Link(clean(target)),
                    Kind::Directory | Kind::Other => State::Gone,
                });
            } else if hides(&path, file) {
                self.hidden[at] = true;
            }
        }
    }

    fn end_layer(&mut self) {
        for at in 0..FILES.len() {
            let own = self.own[at].take().or_else(|| self.hidden[at].then_some(State::Gone));
            self.known[at] = self.known[at].take().or(own);
        }
        self.hidden = [false; 2];
    }

    /// The text if it is decided, at the `end` of all layers in any case.
    fn answer(&self, end: bool) -> Option<Option<String>> {
        let second = || match &self.known[1] {
            Some(State::Text(text)) => Some(Some(text.clone())),
            Some(State::Link(_) | State::Gone) => Some(None),
            None => end.then_some(None),
        };
        match &self.known[0] {
            Some(State::Text(text)) => Some(Some(text.clone())),
            Some(State::Link(target)) if target != FILES[1] => Some(None),
            Some(_) => second(),
            None if end => second(),
            None => None,
        }
    }
}

/// Whether a path is a whiteout that takes `file` away from the layers below (image-spec, layer.md).
fn hides(path: &str, file: &str) -> bool {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let below = |folder: &str| folder.is_empty() || file.strip_prefix(folder).is_some_and(|rest| rest.starts_with('/'));
    if name == ".wh..wh..opq" {
        return below(folder);
    }
    name.strip_prefix(".wh.").is_some_and(|name| {
        let gone = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
        gone == file || (!gone.is_empty() && below(&gone))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(layers: &[&[(&str, Kind)]]) -> Option<String> {
        let mut search = Search::default();
        for layer in layers {
            for (path, kind) in *layer {
                search.visit(Entry {
                    path: (*path).into(),
                    kind: kind.clone(),
                    size: 0,
                    head: path.as_bytes().to_vec(),
                    end: 0,
                });
            }
            search.end_layer();
            if let Some(answer) = search.answer(false) {
                return answer;
            }
        }
        search.answer(true).flatten()
    }

    #[test]
    fn os_release_is_found_as_a_container_would_find_it() {
        let link = |target: &str| Kind::Symlink(target.into());
        let usr: (&str, Kind) = ("./usr/lib/os-release", Kind::File);
        let found = |layers: &[&[(&str, Kind)]]| text(layers);
        assert_eq!(found(&[&[("/etc/os-release", Kind::File), usr.clone()]]).unwrap(), "/etc/os-release");
        for target in ["../usr/lib/os-release", "/usr/lib/os-release", "../../../usr/lib/os-release"] {
            assert_eq!(
                found(&[&[("etc/os-release", link(target))], std::slice::from_ref(&usr)]).unwrap(),
                usr.0,
                "{target}"
            );
        }
        // Upper layers win, and hide what is below them.
        assert_eq!(
            found(&[&[("etc/os-release", Kind::File)], &[("./etc/os-release", Kind::File)]]).unwrap(),
            "etc/os-release"
        );
        assert_eq!(
            found(&[&[("etc/.wh.os-release", Kind::File)], &[("etc/os-release", Kind::File), usr.clone()]]).unwrap(),
            usr.0
        );
        for whiteout in [".wh.usr", "usr/.wh.lib", "usr/lib/.wh..wh..opq", ".wh..wh..opq"] {
            let layers: &[&[(&str, Kind)]] = &[&[(whiteout, Kind::File)], std::slice::from_ref(&usr)];
            assert_eq!(found(layers), None, "{whiteout}");
        }
        assert_eq!(found(&[&[("etc/os-release", link("/nowhere"))], std::slice::from_ref(&usr)]), None);
        assert_eq!(found(&[&[("etc/.wh.os-release-x", Kind::File)], std::slice::from_ref(&usr)]).unwrap(), usr.0);
        assert_eq!(found(&[]), None);
    }
}
