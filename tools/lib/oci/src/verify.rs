//! What an image is, platform by platform, compared with what was asked for.

use std::sync::Arc;

use futures::{StreamExt, stream};
use kit::{
    Cause, Error, Platform, Result,
    record::{PlatformRow, Program, Unseen},
};
use oci_spec::image::Descriptor;

use crate::{
    Place,
    deep::{self, Memory},
    document::base_of,
    index::{Entry, Image, config_of, entries, offers, platform_of},
    search, user,
};

/// Platforms of one image that are looked at together.
const PARALLEL: usize = 4;
/// Entries of an index that serve one platform, such as versions of Windows.
const SERVING: usize = 32;

/// What was found of an image.
#[derive(Debug, Clone)]
pub struct Checked {
    /// Of the index, or of the manifest of a plain image, if it could be read; of a file its own.
    pub digest: Option<String>,
    /// The base that the index, or the manifest of a plain image, says it is built on.
    pub base: Option<String>,
    /// One for each platform asked for, in that order; of a file one for each program.
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

/// Compares an image with the platforms asked for: the entry of its index, its config, and the header of
/// the entrypoint's program. Whatever goes wrong is in the rows, with its cause.
pub async fn verify(place: &Place, platforms: &[Platform]) -> Checked {
    look(place, platforms, None).await
}

/// As [`verify`], and reads every program of every layer that `memory` does not know yet.
pub async fn verify_deep(place: &Place, platforms: &[Platform], memory: &Memory) -> Checked {
    look(place, platforms, Some(memory)).await
}

async fn look(place: &Place, platforms: &[Platform], memory: Option<&Memory>) -> Checked {
    let read = async {
        let top = place.top().await?;
        let entries = entries(place, &top).await?;
        Ok::<_, Error>((base_of(&top.annotations()), top.digest, entries))
    };
    match read.await {
        Ok((base, digest, entries)) => {
            let view = View { place, memory, base: base.clone() };
            let rows = stream::iter(platforms).map(|platform| view.platform(&entries, platform));
            Checked { digest: Some(digest), base, rows: rows.buffered(PARALLEL).collect().await }
        }
        Err(error) => {
            let rows = platforms.iter().map(|asked| failed(PlatformRow::new(asked.clone()), &error)).collect();
            Checked { digest: None, base: None, rows }
        }
    }
}

pub(crate) fn wrong(row: PlatformRow, cause: Cause, problem: impl Into<String>) -> PlatformRow {
    PlatformRow { problem: Some(problem.into()), cause: Some(cause), ..row }
}

pub(crate) fn failed(row: PlatformRow, error: &Error) -> PlatformRow {
    wrong(row, error.cause, error.summary())
}

/// An image that is being looked at, and how.
struct View<'a> {
    place: &'a Place,
    memory: Option<&'a Memory>,
    /// What its index says.
    base: Option<String>,
}

impl View<'_> {
    /// The row of a platform: of all entries that serve it the first one that is wrong, otherwise the first.
    async fn platform(&self, entries: &[Entry], asked: &Platform) -> PlatformRow {
        let exact = entries.iter().any(|entry| entry.platform == *asked);
        let serves = |entry: &&Entry| if exact { entry.platform == *asked } else { offers(&entry.platform, asked) };
        let mut first = None;
        let mut seen = Vec::new();
        for entry in entries.iter().filter(serves).take(SERVING) {
            if seen.contains(&entry.descriptor.digest()) {
                continue;
            }
            seen.push(entry.descriptor.digest());
            let row = self.entry(entry, asked).await;
            if row.problem.is_some() {
                return row;
            }
            first.get_or_insert(row);
        }
        first.unwrap_or_else(|| {
            let offered: Vec<_> = entries.iter().map(|entry| entry.platform.to_string()).collect();
            let offered = if offered.is_empty() { "nothing".into() } else { offered.join(", ") };
            let what = format!("it has no {asked}; it offers {offered}");
            wrong(PlatformRow::new(asked.clone()), Cause::ImageMissingPlatform, what)
        })
    }

    async fn entry(&self, entry: &Entry, asked: &Platform) -> PlatformRow {
        let row = PlatformRow {
            manifest: Some(entry.descriptor.digest().to_string()),
            entry: entry.declared.then(|| entry.platform.clone()),
            ..PlatformRow::new(asked.clone())
        };
        match self.read(entry, asked).await {
            Ok(image) => self.image(row, &image).await,
            Err(error) => failed(row, &error),
        }
    }

    async fn read(&self, entry: &Entry, asked: &Platform) -> Result<Arc<Image>> {
        if let Some(image) = &entry.image {
            return Ok(Arc::clone(image));
        }
        let Some(document) = self.place.child(&entry.descriptor).await? else {
            let what = format!("its index names {} for {asked}, which is not there", entry.descriptor.digest());
            return Err(Error::new(Cause::ImageMissingPlatform, what));
        };
        config_of(self.place, &document).await.map(Arc::new)
    }

    async fn image(&self, mut row: PlatformRow, image: &Image) -> PlatformRow {
        let (manifest, config) = image;
        let declared = platform_of(config);
        let settings = config.config().clone().unwrap_or_default();
        let blobs = manifest.layers().iter().chain([manifest.config()]);
        row.size = blobs.map(Descriptor::size).fold(0, u64::saturating_add);
        row.user = settings.user().clone().filter(|user| !user.is_empty());
        row.config = Some(declared.clone());
        row.base = manifest.annotations().as_ref().and_then(base_of).or_else(|| self.base.clone());
        row = with_user(row, &declared.os, None);
        if let Some(problem) = contradiction(&row, &declared) {
            return wrong(row, Cause::ImageWrongArch, problem);
        }
        let asked = row.platform.clone();
        match search::program_of(self.place, manifest, &settings, &declared).await {
            Ok(seen) => {
                row = with_user(row, &declared.os, seen.passwd.as_deref());
                (row.program, row.unseen) = (seen.program, seen.unseen);
            }
            Err(error) => return failed(row, &error),
        }
        if let Some(memory) = self.memory {
            match deep::look(memory, self.place, manifest, &asked).await {
                Ok((deep, passwd)) => {
                    row = with_user(row, &declared.os, passwd.as_ref().map(String::as_bytes));
                    row.deep = Some(deep);
                    // Whichever program counts: none of them is foreign, or that is said.
                    row.unseen = row.unseen.filter(|unseen| *unseen != Unseen::LayerEnd);
                }
                Err(error) => return failed(row, &error),
            }
        }
        if let Some(problem) = row.program.as_ref().and_then(|program| mismatch(program, &asked)) {
            return wrong(row, Cause::ImageWrongArch, problem);
        }
        match row.deep.as_ref().and_then(|deep| deep::problem(deep, &asked)) {
            Some(error) => failed(row, &error),
            None => row,
        }
    }
}

/// With what is known of the user; what was known better stays.
fn with_user(row: PlatformRow, os: &str, passwd: Option<&[u8]>) -> PlatformRow {
    let who = user::who(os, row.user.as_deref().unwrap_or_default(), passwd);
    PlatformRow { uid: who.uid.or(row.uid), gid: who.gid.or(row.gid), nonroot: who.nonroot.or(row.nonroot), ..row }
}

/// Where the config says something else than was asked for, or than the index.
fn contradiction(row: &PlatformRow, declared: &Platform) -> Option<String> {
    let asked = &row.platform;
    let other = (&declared.os, &declared.arch) != (&asked.os, &asked.arch)
        || (asked.variant.is_some() && !offers(declared, asked));
    if other {
        return Some(format!("its config says {declared}"));
    }
    // Windows runs only images of its own version, and goes by the index to find one.
    let entry = row.entry.as_ref()?;
    let versions = entry.os_version.is_some() && declared.os_version.is_some();
    (versions && entry.os_version != declared.os_version)
        .then(|| format!("its index says {entry}, its config {declared}"))
}

/// What is wrong with a program for a platform, if anything.
pub(crate) fn mismatch(program: &Program, asked: &Platform) -> Option<String> {
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
