//! Every program in every layer, remembered by the layer's digest: what a layer holds never changes.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use kit::{
    Cause, Error, Platform, Result,
    record::{Deep, Program},
    rundir,
};
use oci_spec::image::{Descriptor, ImageManifest};
use serde::{Deserialize, Serialize};
use tokio::sync::OnceCell;

use crate::{
    Place, canonical,
    header::program_header,
    layer::{self, Kind, Tally},
    root::clean,
    search,
    user::PASSWD,
    verify::mismatch,
};

/// Of the files in the cache. One more when what is found in a layer changes.
const FORMAT: u32 = 1;
/// Larger files are not ours.
const FILE_LIMIT: u64 = 64 << 20;
/// Programs that are named in a row.
const NAMED: usize = 100;

/// What is known of layers, by digest: in this process, and in a folder if there is one. Cheap to clone.
#[derive(Clone, Default)]
pub struct Memory(Arc<Inner>);

#[derive(Default)]
struct Inner {
    folder: Option<PathBuf>,
    /// A cell for each layer: two images that share one do not read it twice.
    layers: Mutex<HashMap<String, Arc<OnceCell<Arc<Layer>>>>>,
}

/// What a layer holds.
#[derive(Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Layer {
    programs: Vec<Program>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    passwd: Option<String>,
}

/// A layer in a file of the cache.
#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    digest: String,
    /// Of `layer` as canonical JSON: a file that was damaged is not believed.
    check: String,
    layer: Layer,
}

impl Memory {
    /// What `folder` remembers, which is made when there is something to remember. Several processes may share it.
    #[must_use]
    pub fn in_folder(folder: PathBuf) -> Self {
        Self(Arc::new(Inner { folder: Some(folder), layers: Mutex::default() }))
    }

    async fn layer(&self, place: &Place, descriptor: &Descriptor) -> Result<Arc<Layer>> {
        let digest = descriptor.digest().to_string();
        let cell = {
            let mut layers = self.0.layers.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(layers.entry(digest.clone()).or_default())
        };
        let found = cell.get_or_try_init(|| async {
            if let Some(layer) = self.recall(&digest) {
                return Ok(Arc::new(layer));
            }
            let layer = place.blob(descriptor).await?.scan(|reader| read(reader)).await?;
            self.keep(&digest, &layer);
            Ok::<_, Error>(Arc::new(layer))
        });
        found.await.cloned()
    }

    fn path(&self, digest: &str) -> Option<PathBuf> {
        Some(self.0.folder.as_ref()?.join(format!("v{FORMAT}")).join(format!("{}.json", digest.replace(':', "-"))))
    }

    fn recall(&self, digest: &str) -> Option<Layer> {
        let bytes = rundir::read_limited(&self.path(digest)?, FILE_LIMIT).ok()?;
        let stored: Stored = serde_json::from_slice(&bytes).ok()?;
        let good = stored.format == FORMAT && stored.digest == digest && stored.check == check(&stored.layer)?;
        good.then_some(stored.layer)
    }

    /// Without the file the layer is read again next time; that is no reason to fail.
    fn keep(&self, digest: &str, layer: &Layer) {
        let stored = || {
            let (path, check) = (self.path(digest)?, check(layer)?);
            let stored = serde_json::json!({ "format": FORMAT, "digest": digest, "check": check, "layer": layer });
            rundir::write(&path, &canonical(&stored).ok()?).ok()
        };
        let _ = stored();
    }
}

fn check(layer: &Layer) -> Option<String> {
    Some(kit::digest::sha256(&canonical(layer).ok()?))
}

fn read(reader: &mut dyn std::io::Read) -> Result<Layer> {
    let (mut found, mut tally) = (Layer::default(), Tally::default());
    layer::entries(reader, search::head, |entry| {
        let path = clean(&entry.path);
        tally.add(path.len())?;
        if entry.kind != Kind::File {
            return Ok(true);
        }
        if path == PASSWD {
            found.passwd = Some(String::from_utf8_lossy(&entry.head).into_owned());
        } else {
            found.programs.extend(program_header(&format!("/{path}"), &entry.head));
        }
        Ok(true)
    })?;
    Ok(found)
}

/// All programs of all layers of an image for `platform`, and its `/etc/passwd`.
pub(crate) async fn look(
    memory: &Memory,
    place: &Place,
    manifest: &ImageManifest,
    platform: &Platform,
) -> Result<(Deep, Option<String>)> {
    let (mut deep, mut passwd) = (Deep::default(), None);
    for descriptor in search::layers(manifest)? {
        let layer = memory.layer(place, descriptor).await?;
        deep.layers += 1;
        passwd = passwd.or_else(|| layer.passwd.clone());
        for program in layer.programs.iter().filter(|program| (program.format == "pe") == (platform.os == "windows")) {
            deep.programs += 1;
            // Windows runs programs of 32-bit x86 as well (WOW64), and brings some along.
            let also = platform.os == "windows" && program.machine == "386";
            if !also && mismatch(program, platform).is_some() {
                deep.foreign += 1;
                if deep.wrong.len() < NAMED {
                    deep.wrong.push(program.clone());
                }
            }
        }
    }
    Ok((deep, passwd))
}

/// What is wrong with what was found, if anything.
pub(crate) fn problem(deep: &Deep, platform: &Platform) -> Option<Error> {
    let first = deep.wrong.first()?;
    let rest = if deep.foreign > 1 { format!(", and {} more are foreign", deep.foreign - 1) } else { String::new() };
    let said = mismatch(first, platform).unwrap_or_default();
    Some(Error::new(Cause::ImageWrongArch, format!("{said}{rest}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer() -> Layer {
        let program = program_header("/bin/x", &crate::header::tests::elf_bytes(22, 64, kit::arch::ByteOrder::Big));
        Layer { programs: program.into_iter().collect(), passwd: Some("root:x:0:0::/:\n".into()) }
    }

    #[test]
    fn what_is_kept_is_recalled_and_damage_is_not_believed() {
        let folder = tempfile::tempdir().unwrap();
        let memory = Memory::in_folder(folder.path().join("layers"));
        let digest = kit::digest::sha256(b"x");
        assert_eq!(memory.recall(&digest), None);
        memory.keep(&digest, &layer());
        assert_eq!(memory.recall(&digest), Some(layer()));
        let path = memory.path(&digest).unwrap();
        let good = std::fs::read_to_string(&path).unwrap();
        for (from, to) in [("s390x", "amd64"), ("sha256:", "sha256:0"), ("\"format\":1", "\"format\":2"), ("}", "")] {
            let bad = good.replace(from, to);
            assert_ne!(bad, good, "{from}");
            std::fs::write(&path, bad).unwrap();
            assert_eq!(memory.recall(&digest), None, "{from}");
        }
        // Another layer's file under this name.
        let other = kit::digest::sha256(b"y");
        std::fs::write(memory.path(&other).unwrap(), &good).unwrap();
        assert_eq!(memory.recall(&other), None);
    }

    #[test]
    fn several_writers_leave_a_whole_file() {
        let folder = tempfile::tempdir().unwrap();
        let digest = kit::digest::sha256(b"x");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let memory = Memory::in_folder(folder.path().into());
                    for _ in 0..20 {
                        memory.keep(&digest, &layer());
                        assert_eq!(memory.recall(&digest), Some(layer()));
                    }
                });
            }
        });
    }

    #[test]
    fn a_folder_that_cannot_be_made_only_costs_time() {
        let memory = Memory::in_folder("/proc/nowhere".into());
        memory.keep("sha256:0", &layer());
        assert_eq!(memory.recall("sha256:0"), None);
    }
}
