//! Looking for the program that an image starts, in as little of its layers as tells.

use std::sync::{Arc, Mutex, PoisonError};

use kit::{Cause, Error, Platform, Result, record::Program};
use oci_spec::image::{Config, Descriptor, ImageManifest};

use crate::{
    Place,
    fetch::Want,
    header::HEADER_BYTES,
    layer,
    root::{Content, Found, PATH_LIMIT, Root, clean},
    user::{PASSWD, PASSWD_LIMIT},
};

/// A script's program may be a script; Linux follows four (`BINPRM_MAX_RECURSION`).
const SCRIPTS: usize = 4;
/// Layers of one image; Docker's engine allows 127.
const LAYERS: usize = 500;

/// What a look into the layers brought.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The program that the image starts; nothing if it names none.
    pub(crate) program: Option<Program>,
    /// `/etc/passwd`, if it came by.
    pub(crate) passwd: Option<Vec<u8>>,
}

/// The layers that can be fetched, from the upmost downwards.
pub(crate) fn layers(manifest: &ImageManifest) -> Result<Vec<&Descriptor>> {
    if manifest.layers().len() > LAYERS {
        return Err(Error::new(Cause::Registry, format!("it has more than {LAYERS} layers, which is the limit")));
    }
    let foreign = |descriptor: &&Descriptor| {
        let media_type = descriptor.media_type().to_string();
        media_type.contains("nondistributable") || media_type.contains("foreign")
    };
    Ok(manifest.layers().iter().rev().filter(|descriptor| !foreign(descriptor)).collect())
}

/// How much is wanted of a file at this path of a layer.
pub(crate) fn head(path: &str) -> usize {
    if clean(path) == PASSWD { PASSWD_LIMIT } else { HEADER_BYTES }
}

/// Looks for the program that the image starts, by its entrypoint or command.
pub(crate) async fn program_of(
    place: &Place,
    manifest: &ImageManifest,
    settings: &Config,
    platform: &Platform,
) -> Result<Seen> {
    let words = |list: &Option<Vec<String>>| list.clone().unwrap_or_default().into_iter().next();
    let Some(word) = words(settings.entrypoint()).or_else(|| words(settings.cmd())) else {
        return Ok(Seen::default());
    };
    if word.len() + settings.working_dir().as_ref().map_or(0, String::len) > PATH_LIMIT {
        let what = format!("its entrypoint is a path of more than {PATH_LIMIT} bytes");
        return Err(Error::new(Cause::Product, what));
    }
    let search = Arc::new(Mutex::new(Search {
        root: Root::default(),
        paths: candidates(&word, settings, platform),
        scripts: 0,
        passwd: None,
    }));
    let lock = || search.lock().unwrap_or_else(PoisonError::into_inner);
    for descriptor in layers(manifest)? {
        let mine = Arc::clone(&search);
        let scan = place.lazy_blob(descriptor, Want::Beginning).await?.scan(move |reader| {
            let mut search = mine.lock().unwrap_or_else(PoisonError::into_inner);
            search.root.next_layer();
            layer::entries(reader, head, |entry| search.visit(entry))
        });
        scan.await?;
        let answer = lock().answer(false)?;
        if let Some(program) = answer {
            return Ok(Seen { program: Some(program), passwd: lock().passwd.take() });
        }
    }
    let answer = lock().answer(true)?;
    let missing = || Error::new(Cause::Product, format!("its entrypoint {word} is in none of its layers"));
    Ok(Seen { program: Some(answer.ok_or_else(missing)?), passwd: lock().passwd.take() })
}

/// Where the program may be: the path itself, or the word in each folder of PATH.
fn candidates(word: &str, settings: &Config, platform: &Platform) -> Vec<String> {
    if platform.os == "windows" {
        // Layers of Windows have the drive C: in the folder Files.
        let path = word.split_once(':').map_or(word, |(_, path)| path).replace('\\', "/");
        return vec![format!("/Files/{}", path.trim_start_matches('/'))];
    }
    if word.contains('/') {
        let folder = settings.working_dir().clone().unwrap_or_default();
        return vec![if word.starts_with('/') { word.to_owned() } else { format!("{folder}/{word}") }];
    }
    let path = settings.env().iter().flatten().find_map(|variable| variable.strip_prefix("PATH="));
    let path = path.unwrap_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let folders = path.split(':').take(64).filter(|folder| folder.len() + word.len() < PATH_LIMIT);
    folders.map(|folder| format!("{folder}/{word}")).collect()
}

/// The search for a program through the layers, from the top.
struct Search {
    root: Root,
    /// Tried in this order; the first that is there counts.
    paths: Vec<String>,
    scripts: usize,
    passwd: Option<Vec<u8>>,
}

impl Search {
    /// Takes an entry; false when the answer is known and the rest of the layer need not be read.
    fn visit(&mut self, mut entry: layer::Entry) -> Result<bool> {
        let is_file = entry.kind == layer::Kind::File;
        let passwd = (is_file && clean(&entry.path) == PASSWD).then(|| std::mem::take(&mut entry.head));
        let Some(path) = self.root.add(entry)? else { return Ok(true) };
        self.passwd = passwd.or(self.passwd.take());
        // With links or several candidates the whole layer decides; a plain path is final.
        let final_path = self.paths.len() == 1 && self.paths[0].trim_start_matches('/') == path;
        Ok(!(is_file && final_path && self.answer(false)?.is_some()))
    }

    /// The program, if what was read of the layers decides it; at the `end` what is unknown is missing.
    fn answer(&mut self, end: bool) -> Result<Option<Program>> {
        loop {
            let mut found = None;
            for path in &self.paths {
                match self.root.find(path) {
                    Found::File(path, content) => {
                        found = Some((path, content));
                        break;
                    }
                    Found::Unknown if !end => return Ok(None),
                    Found::Missing | Found::Unknown => {}
                }
            }
            match found {
                None => return Ok(None),
                Some((_, Content::Program(program))) => return Ok(Some(program)),
                Some((_, Content::Script(interpreter))) if self.scripts < SCRIPTS => {
                    self.scripts += 1;
                    self.paths = vec![interpreter];
                }
                Some((path, _)) => {
                    let what = format!("/{path}, which it starts, is no program");
                    return Err(Error::new(Cause::ImageWrongArch, what));
                }
            }
        }
    }
}
