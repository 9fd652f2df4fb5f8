//! Looking for the program that an image starts, in as little of its layers as tells.

use std::sync::{Arc, Mutex, PoisonError};

use kit::{
    Cause, Error, Platform, Result,
    record::{Program, Unseen},
};
use oci_spec::image::{Config, Descriptor, ImageManifest};

use crate::{
    Place,
    document::is_foreign,
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

/// A layer that is not larger is read to its end in any case: nothing less tells for sure that no later entry is the
/// program.
const SURE: u64 = 4 << 20;
/// A larger layer is not read to its end only to see whether it has the program a second time.
const CHEAP: u64 = 16 << 20;
/// Folders of PATH that are looked into.
const FOLDERS: usize = 64;
/// What may follow the last entry of an archive: two empty blocks. One that has more has room for another entry.
const END: u64 = 1024;

/// What a look into the layers brought.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// The program that the image starts; nothing if it names none.
    pub(crate) program: Option<Program>,
    /// What was not looked at.
    pub(crate) unseen: Option<Unseen>,
    /// `/etc/passwd`, if it came by.
    pub(crate) passwd: Option<Vec<u8>>,
}

/// The layers that can be fetched, from the upmost downwards.
pub(crate) fn layers(manifest: &ImageManifest) -> Result<Vec<&Descriptor>> {
    if manifest.layers().len() > LAYERS {
        return Err(Error::new(Cause::Registry, format!("it has more than {LAYERS} layers, which is the limit")));
    }
    Ok(manifest.layers().iter().rev().filter(|descriptor| !is_foreign(descriptor)).collect())
}

/// How much is wanted of a file at this path of a layer.
pub(crate) fn head(path: &str) -> usize {
    if clean(path) == PASSWD { PASSWD_LIMIT } else { HEADER_BYTES }
}

/// Looks for the program that the image starts, by its entrypoint or command.
///
/// # Errors
/// [`Cause::Product`] if it is in none of the layers, unless some of them only their maker distributes;
/// [`Cause::ImageWrongArch`] if it is no program; [`Cause::Registry`] for layers that cannot be read.
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
        root: if platform.os == "windows" { Root::without_case() } else { Root::default() },
        paths: candidates(&word, settings, platform),
        scripts: 0,
        passwd: None,
        whole: false,
        stopped: None,
    }));
    let lock = || search.lock().unwrap_or_else(PoisonError::into_inner);
    let mut unseen = None;
    for descriptor in layers(manifest)? {
        lock().whole = matches!(place, Place::Layout(_)) || descriptor.size() <= SURE;
        let mine = Arc::clone(&search);
        let scan = place.lazy_blob(descriptor, Want::Beginning).await?.scan(move |reader| {
            let mut search = mine.lock().unwrap_or_else(PoisonError::into_inner);
            search.root.next_layer();
            layer::entries(reader, head, |entry| search.visit(entry))
        });
        scan.await?;
        let stopped = lock().stopped.take();
        match stopped {
            Some(end) if goes_on(place, descriptor, end).await? => {
                // Of two entries with the same path the last one counts.
                lock().whole = true;
                let mine = Arc::clone(&search);
                let again = place.blob(descriptor).await?.scan(move |reader| {
                    let mut search = mine.lock().unwrap_or_else(PoisonError::into_inner);
                    layer::entries(reader, head, |entry| search.visit(entry))
                });
                again.await?;
            }
            Some(_) => unseen = Some(Unseen::LayerEnd),
            None => {}
        }
        let answer = lock().answer(false)?;
        if let Some(program) = answer {
            return Ok(Seen { program: Some(program), unseen, passwd: lock().passwd.take() });
        }
    }
    let program = lock().answer(true)?;
    if program.is_none() {
        if !manifest.layers().iter().any(is_foreign) {
            return Err(Error::new(Cause::Product, format!("its entrypoint {word} is in none of its layers")));
        }
        unseen = Some(Unseen::Program);
    }
    Ok(Seen { program, unseen, passwd: lock().passwd.take() })
}

/// Whether more of a large layer is to be read when the program has been seen, which ended there in the archive. How
/// large the archive is stands at the end of a layer that gzip made (RFC 1952, ISIZE); if nothing follows, as in ko's
/// layers, the program is taken as final. It is not for sure: gzip goes on where one stream ends, and only the last one
/// says its size there.
async fn goes_on(place: &Place, layer: &Descriptor, end: u64) -> Result<bool> {
    let media_type = layer.media_type().to_string();
    let size = if media_type.ends_with("gzip") {
        let tail = place.tail(layer, 4).await?;
        tail.and_then(|tail| Some(u64::from(u32::from_le_bytes(tail.try_into().ok()?))))
    } else {
        media_type.ends_with(".tar").then_some(layer.size())
    };
    let ended = size.and_then(|size| size.checked_sub(end)).is_some_and(|rest| rest <= END);
    Ok(!ended && layer.size() <= CHEAP)
}

/// Where the program may be: the path itself, or the word in each folder of PATH.
fn candidates(word: &str, settings: &Config, platform: &Platform) -> Vec<String> {
    if platform.os == "windows" {
        return windows(word, settings);
    }
    if word.contains('/') {
        let folder = settings.working_dir().clone().unwrap_or_default();
        return vec![if word.starts_with('/') { word.to_owned() } else { format!("{folder}/{word}") }];
    }
    let path = settings.env().iter().flatten().find_map(|variable| variable.strip_prefix("PATH="));
    let path = path.unwrap_or("/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
    let folders = path.split(':').take(FOLDERS).filter(|folder| folder.len() + word.len() < PATH_LIMIT);
    folders.map(|folder| format!("{folder}/{word}")).collect()
}

/// The same for Windows, whose layers have the drive C: in the folder Files: without a folder the word is looked for
/// where the container starts and in PATH, and without an extension as a `.exe` too (CreateProcess). All in small
/// letters, as the root remembers them.
fn windows(word: &str, settings: &Config) -> Vec<String> {
    let path = |text: &str| {
        let text = text.split_once(':').map_or(text, |(_, path)| path).replace('\\', "/");
        text.trim_matches('/').to_lowercase()
    };
    let rooted = word.contains(':') || word.starts_with(['/', '\\']);
    let start = settings.working_dir().clone().unwrap_or_default();
    let mut folders = vec![if rooted { String::new() } else { path(&start) }];
    if !word.contains(['/', '\\', ':']) {
        let named = |variable: &&String| variable.get(..5).is_some_and(|name| name.eq_ignore_ascii_case("PATH="));
        let all = settings.env().iter().flatten().find(named).map(|variable| &variable[5..]);
        let all = all.unwrap_or("C:\\Windows\\System32;C:\\Windows");
        folders.extend(all.split(';').take(FOLDERS).map(path));
    }
    let word = path(word);
    let names = [word.clone(), format!("{word}.exe")];
    let names = &names[..if word.rsplit('/').next().is_some_and(|name| name.contains('.')) { 1 } else { 2 }];
    let short = folders.iter().filter(|folder| folder.len() + word.len() + 16 < PATH_LIMIT);
    let path = |folder: &String, name: &String| clean(&format!("files/{folder}/{name}"));
    short.flat_map(|folder| names.iter().map(move |name| path(folder, name))).collect()
}

/// The search for a program through the layers, from the top.
struct Search {
    root: Root,
    /// Tried in this order; the first that is there counts.
    paths: Vec<String>,
    scripts: usize,
    passwd: Option<Vec<u8>>,
    /// Whether the layer is read to its end, whatever comes.
    whole: bool,
    /// Where in the archive the search ended, if that was before the end.
    stopped: Option<u64>,
}

impl Search {
    /// Takes an entry; false when the answer is known and the rest of the layer need not be read.
    fn visit(&mut self, mut entry: layer::Entry) -> Result<bool> {
        let is_file = entry.kind == layer::Kind::File;
        let end = entry.end;
        let passwd = (is_file && clean(&entry.path) == PASSWD).then(|| std::mem::take(&mut entry.head));
        let Some(path) = self.root.add(entry)? else { return Ok(true) };
        self.passwd = passwd.or(self.passwd.take());
        // With links or several candidates the whole layer decides.
        let plain = self.paths.len() == 1 && self.paths[0].trim_start_matches('/') == path;
        let program = || matches!(self.root.find(&path), Found::File(_, Content::Program(_)));
        if !self.whole && is_file && plain && program() {
            self.stopped = Some(end);
            return Ok(false);
        }
        Ok(true)
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
