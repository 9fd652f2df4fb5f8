//! What an image is, platform by platform, compared with what was asked for.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use kit::{
    Cause, Error, Platform, Result,
    record::{PlatformRow, Program},
};
use oci_spec::image::{Config, Descriptor, ImageConfiguration, ImageIndex, ImageManifest};

use crate::{
    Document, Place,
    document::CONFIG_LIMIT,
    header::HEADER_BYTES,
    is_image, is_index, layer,
    root::{Content, Found, Root},
};

/// Indexes inside indexes, at most so deep.
const DEPTH: usize = 4;
/// Entries of an index and those inside it.
const ENTRIES: usize = 1000;
/// A script's program may be a script; Linux follows four (`BINPRM_MAX_RECURSION`).
const SCRIPTS: usize = 4;

/// What was found of an image.
#[derive(Debug, Clone)]
pub struct Checked {
    /// Of the index, or of the manifest of a plain image, if it could be read.
    pub digest: Option<String>,
    /// One for each platform asked for, in that order.
    pub rows: Vec<PlatformRow>,
}

impl Checked {
    /// The row's problems, with their causes.
    pub fn problems(&self) -> impl Iterator<Item = (&PlatformRow, &str, Cause)> {
        self.rows
            .iter()
            .filter_map(|row| Some((row, row.problem.as_deref()?, row.cause.unwrap_or(Cause::Unclassified))))
    }
}

/// An entry of an index: its platform as the index says it, and its manifest.
pub(crate) struct Entry {
    pub(crate) platform: Platform,
    pub(crate) descriptor: Descriptor,
}

/// A platform that an image offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    /// As the index says it; as its config does, for a plain image.
    pub platform: Platform,
    /// Digest of the manifest.
    pub manifest: String,
}

/// Whether something for `offered` serves who asks for `asked`: what the asker leaves open may be anything,
/// and versions of Windows may be cut short (`10.0.17763`), as ko matches platforms.
#[must_use]
pub fn offers(offered: &Platform, asked: &Platform) -> bool {
    let version = asked.os_version.as_ref().is_none_or(|asked| {
        let rest = offered.os_version.as_ref().and_then(|offered| offered.strip_prefix(asked.as_str()));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    });
    (&offered.os, &offered.arch) == (&asked.os, &asked.arch)
        && (asked.variant.is_none() || offered.variant == asked.variant)
        && version
}

/// The digest of an image, and the platforms that it offers.
///
/// # Errors
/// [`Cause::Auth`] or [`Cause::Registry`] with the image.
pub async fn offered(place: &Place) -> Result<(String, Vec<Offer>)> {
    let top = place.top().await?;
    let offer = |entry: Entry| Offer { platform: entry.platform, manifest: entry.descriptor.digest().to_string() };
    Ok((top.digest.clone(), entries(place, &top).await?.into_iter().map(offer).collect()))
}

/// Compares an image with the platforms asked for: the entry of its index, its config, and the header of
/// the entrypoint's program. Whatever goes wrong is in the rows, with its cause.
pub async fn verify(place: &Place, platforms: &[Platform]) -> Checked {
    let read = async {
        let top = place.top().await?;
        let entries = entries(place, &top).await?;
        Ok::<_, Error>((top.digest, entries))
    };
    match read.await {
        Ok((digest, entries)) => {
            let rows = platforms.iter().map(|platform| check_platform(place, &entries, platform));
            Checked { digest: Some(digest), rows: futures::future::join_all(rows).await }
        }
        Err(error) => {
            Checked { digest: None, rows: platforms.iter().map(|asked| failed(empty(asked), &error)).collect() }
        }
    }
}

fn empty(platform: &Platform) -> PlatformRow {
    PlatformRow {
        platform: platform.clone(),
        manifest: None,
        config: None,
        program: None,
        user: None,
        size: 0,
        problem: None,
        cause: None,
    }
}

fn wrong(row: PlatformRow, cause: Cause, problem: impl Into<String>) -> PlatformRow {
    PlatformRow { problem: Some(problem.into()), cause: Some(cause), ..row }
}

fn failed(row: PlatformRow, error: &Error) -> PlatformRow {
    wrong(row, error.cause, error.summary())
}

/// All images of an index, those of indexes inside it too, attestations left out.
pub(crate) async fn entries(place: &Place, top: &Document) -> Result<Vec<Entry>> {
    if !is_index(&top.media_type) {
        let config = config_of(place, top).await?.1;
        return Ok(vec![Entry { platform: platform_of(&config), descriptor: own_descriptor(top)? }]);
    }
    let mut found = Vec::new();
    let mut todo = vec![(0, top.clone())];
    let mut seen = HashSet::from([top.digest.clone()]);
    while let Some((depth, document)) = todo.pop() {
        let index: ImageIndex = document.parse()?;
        for descriptor in index.manifests() {
            if found.len() + todo.len() >= ENTRIES || depth >= DEPTH {
                return Err(Error::new(Cause::Registry, format!("{place}: its index is too large or too deep")));
            }
            if is_attestation(descriptor) {
                continue;
            }
            let nested = is_index(descriptor.media_type().as_ref());
            // An index may not hold itself; two platforms may well share an image, rightly or wrongly.
            if nested && !seen.insert(descriptor.digest().to_string()) {
                continue;
            }
            match (nested, descriptor.platform()) {
                (false, Some(platform)) => {
                    let variant = platform.variant().as_deref();
                    let (os, arch) = (platform.os().to_string(), platform.architecture().to_string());
                    let platform = Platform::from_parts(&os, &arch, variant, platform.os_version().as_deref());
                    found.push(Entry { platform, descriptor: descriptor.clone() });
                }
                // Without a platform its config has to tell.
                _ => match place.child(descriptor).await? {
                    Some(inner) if is_index(&inner.media_type) => todo.push((depth + 1, inner)),
                    Some(inner) if is_image(&inner.media_type) => {
                        let config = config_of(place, &inner).await?.1;
                        found.push(Entry { platform: platform_of(&config), descriptor: descriptor.clone() });
                    }
                    _ => {}
                },
            }
        }
    }
    Ok(found)
}

/// What buildx and others put beside images: no platform, or a note what it refers to.
fn is_attestation(descriptor: &Descriptor) -> bool {
    let noted = descriptor.annotations().as_ref().is_some_and(|all| all.contains_key("vnd.docker.reference.type"));
    let unknown = descriptor.platform().as_ref().is_some_and(|platform| {
        platform.os().to_string() == "unknown" || platform.architecture().to_string() == "unknown"
    });
    noted || unknown
}

fn own_descriptor(document: &Document) -> Result<Descriptor> {
    crate::descriptor(document.media_type.as_str().into(), &document.bytes)
}

pub(crate) async fn config_of(place: &Place, document: &Document) -> Result<(ImageManifest, ImageConfiguration)> {
    if !is_image(&document.media_type) {
        return Err(Error::new(Cause::Registry, format!("{place}: '{}' is no image", document.media_type)));
    }
    let manifest: ImageManifest = document.parse()?;
    let bytes = place.blob(manifest.config()).await?.bytes(CONFIG_LIMIT).await?;
    let config = serde_json::from_slice(&bytes)
        .map_err(|error| Error::from_source(Cause::Registry, format!("{place}: its config cannot be read"), error))?;
    Ok((manifest, config))
}

fn platform_of(config: &ImageConfiguration) -> Platform {
    let (os, arch) = (config.os().to_string(), config.architecture().to_string());
    Platform::from_parts(&os, &arch, config.variant().as_deref(), config.os_version().as_deref())
}

async fn check_platform(place: &Place, entries: &[Entry], asked: &Platform) -> PlatformRow {
    let row = empty(asked);
    let exact = entries.iter().find(|entry| entry.platform == *asked);
    let Some(entry) = exact.or_else(|| entries.iter().find(|entry| offers(&entry.platform, asked))) else {
        let offered: Vec<_> = entries.iter().map(|entry| entry.platform.to_string()).collect();
        let offered = if offered.is_empty() { "nothing".into() } else { offered.join(", ") };
        return wrong(row, Cause::ImageMissingPlatform, format!("it has no {asked}; it offers {offered}"));
    };
    let row = PlatformRow { manifest: Some(entry.descriptor.digest().to_string()), ..row };
    let read = async {
        let Some(document) = place.child(&entry.descriptor).await? else {
            let what = format!("its index names {} for {asked}, which is not there", entry.descriptor.digest());
            return Err(Error::new(Cause::ImageMissingPlatform, what));
        };
        config_of(place, &document).await
    };
    match read.await {
        Ok((manifest, config)) => check_image(place, row, &manifest, &config).await,
        Err(error) => failed(row, &error),
    }
}

async fn check_image(
    place: &Place,
    mut row: PlatformRow,
    manifest: &ImageManifest,
    config: &ImageConfiguration,
) -> PlatformRow {
    let declared = platform_of(config);
    let settings = config.config().clone().unwrap_or_default();
    row.size = manifest.layers().iter().chain([manifest.config()]).map(Descriptor::size).fold(0, u64::saturating_add);
    row.user = settings.user().clone().filter(|user| !user.is_empty());
    row.config = Some(declared.clone());
    let asked = row.platform.clone();
    if (&declared.os, &declared.arch) != (&asked.os, &asked.arch)
        || (asked.variant.is_some() && !offers(&declared, &asked))
    {
        return wrong(row, Cause::ImageWrongArch, format!("its config says {declared}"));
    }
    match program_of(place, manifest, &settings, &declared).await {
        Ok(None) => row,
        Ok(Some(program)) => {
            row.program = Some(program.clone());
            match mismatch(&program, &asked) {
                Some(problem) => wrong(row, Cause::ImageWrongArch, problem),
                None => row,
            }
        }
        Err(error) => failed(row, &error),
    }
}

/// What is wrong with a program for a platform, if anything.
fn mismatch(program: &Program, asked: &Platform) -> Option<String> {
    let Ok(arch) = asked.row() else { return Some(format!("{} is not in the table of architectures", asked.arch)) };
    let format = if asked.os == "windows" { "pe" } else { "elf" };
    let good = program.format == format
        && program.machine == arch.go
        && program.class == arch.elf_class
        && program.byte_order == arch.byte_order;
    (!good).then(|| {
        let order = serde_json::to_value(program.byte_order).ok();
        let order = order.as_ref().and_then(|order| order.as_str()).unwrap_or_default();
        let Program { path, format, machine, class, .. } = program;
        format!("{path} is a program for {machine} ({format}, {class} bit, {order}-endian)")
    })
}

/// The program that the image starts, by its entrypoint or command; nothing if it names none.
async fn program_of(
    place: &Place,
    manifest: &ImageManifest,
    settings: &Config,
    platform: &Platform,
) -> Result<Option<Program>> {
    let words = |list: &Option<Vec<String>>| list.clone().unwrap_or_default().into_iter().next();
    let Some(word) = words(settings.entrypoint()).or_else(|| words(settings.cmd())) else { return Ok(None) };
    let search = Arc::new(Mutex::new(Search {
        root: Root::default(),
        paths: candidates(&word, settings, platform),
        scripts: 0,
    }));
    for descriptor in manifest.layers().iter().rev() {
        let media_type = descriptor.media_type().to_string();
        if media_type.contains("nondistributable") || media_type.contains("foreign") {
            continue;
        }
        let mine = Arc::clone(&search);
        let scan = place.blob(descriptor).await?.scan(move |reader| {
            let mut search = mine.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
            search.root.next_layer();
            layer::entries(reader, HEADER_BYTES, |entry| search.visit(entry))?;
            Ok(())
        });
        scan.await?;
        let answer = search.lock().unwrap_or_else(std::sync::PoisonError::into_inner).answer(false)?;
        if let Some(program) = answer {
            return Ok(Some(program));
        }
    }
    let answer = search.lock().unwrap_or_else(std::sync::PoisonError::into_inner).answer(true)?;
    answer
        .map(Some)
        .ok_or_else(|| Error::new(Cause::Product, format!("its entrypoint {word} is in none of its layers")))
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
    path.split(':').take(64).map(|folder| format!("{folder}/{word}")).collect()
}

/// The search for a program through the layers, from the top.
struct Search {
    root: Root,
    /// Tried in this order; the first that is there counts.
    paths: Vec<String>,
    scripts: usize,
}

impl Search {
    /// Takes an entry; false when the answer is known and the rest of the layer need not be read.
    fn visit(&mut self, entry: layer::Entry) -> Result<bool> {
        let is_file = entry.kind == layer::Kind::File;
        let Some(path) = self.root.add(entry)? else { return Ok(true) };
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
