//! `image-build base combine`: one index of several bases, each manifest as it is; and bases that step in
//! where the others lack a platform.

use std::path::Path;

use kit::{Cause, Context, Done, Error, Platform, Result, Ui, Within};
use oci::{Client, Layout, Part, Place, offers};
use serde_json::{Value, json};

use super::{
    NONROOT,
    image::{self, Listed},
    target::{Row, Target, read},
};

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Bases: references, or folders of OCI layouts
    #[arg(required = true, value_name = "REF")]
    bases: Vec<String>,
    /// Base that is taken for platforms that the others lack; it then runs as user 65532 (repeatable, the first counts)
    #[arg(long, value_name = "REF", requires = "platforms")]
    fallback: Vec<String>,
    /// Only these platforms, all of which have to be there (repeat, or separate with commas) [default: all]
    #[arg(long = "platform", value_name = "P", value_delimiter = ',')]
    platforms: Vec<Platform>,
    #[command(flatten)]
    target: Target,
}

/// A base that was looked at.
struct Base {
    name: String,
    place: Place,
    parts: Vec<Part>,
}

/// A part that is taken.
struct Chosen<'a> {
    base: &'a Base,
    part: &'a Part,
    fallback: bool,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Done> {
    args.target.check()?;
    let client = Client::new()?;
    let step = ui.step("bases");
    let open = |names: &[String]| names.iter().map(|name| Base::open(&client, name)).collect::<Result<Vec<_>>>();
    let (bases, fallbacks) = (open(&args.bases)?, open(&args.fallback)?);
    let chosen = choose(&bases, &fallbacks, &args.platforms)?;
    let temporary = tempfile::tempdir().cause(Cause::HostDisk, || "cannot make a temporary folder")?;
    let layout = Layout::create(temporary.path())?;
    let (mut manifests, mut rows) = (Vec::new(), Vec::new());
    for chosen in &chosen {
        step.set(format!("{} of {}", chosen.part.platform, chosen.base.name));
        let (listed, row) = chosen.take(&layout)?;
        if row.fallback {
            let user = if row.derived_from.is_some() { format!(", as user {NONROOT}") } else { String::new() };
            ui.note(format!("{}: the others lack it, {} steps in{user}", row.platform, row.from));
        }
        manifests.push(listed);
        rows.push(row);
    }
    step.done(format!("{} platforms", rows.len()));
    let index = image::write_index(&layout, manifests)?;
    args.target.deliver(&layout, &index, rows, ui)
}

impl Base {
    fn open(client: &Client, name: &str) -> Result<Self> {
        let place = match Path::new(name).is_dir() {
            true => Place::Layout(Layout::open(name)?),
            false => Place::Registry(client.clone(), oci::parse(name)?),
        };
        let (_, parts) = oci::run(oci::parts(&place)).within(|| format!("base {name}"))?;
        Ok(Self { name: name.to_owned(), place, parts })
    }
}

/// The parts to take, each platform once.
fn choose<'a>(bases: &'a [Base], fallbacks: &'a [Base], asked: &[Platform]) -> Result<Vec<Chosen<'a>>> {
    let wanted = |part: &&Part| asked.is_empty() || asked.iter().any(|asked| offers(&part.platform, asked));
    let mut chosen: Vec<Chosen<'_>> = Vec::new();
    let mut duplicates = Vec::new();
    for base in bases {
        for part in base.parts.iter().filter(wanted) {
            match chosen.iter().find(|other| same(&other.part.platform, &part.platform)) {
                // Some indexes name a manifest twice.
                Some(other)
                    if other.base.name == base.name && other.part.manifest.digest() == part.manifest.digest() => {}
                Some(other) => duplicates.push(format!(
                    "{} is in {} ({}) and in {} ({})",
                    part.platform,
                    other.base.name,
                    other.part.manifest.digest(),
                    base.name,
                    part.manifest.digest()
                )),
                None => chosen.push(Chosen { base, part, fallback: false }),
            }
        }
    }
    if let Some(first) = duplicates.first() {
        let error =
            Error::new(Cause::Usage, first.clone()).next("say with --platform which are wanted, or leave one out");
        return Err(if duplicates.len() > 1 { error.line(duplicates.join("\n")) } else { error });
    }
    let mut missing = Vec::new();
    for asked in asked {
        if chosen.iter().any(|chosen| offers(&chosen.part.platform, asked)) {
            continue;
        }
        let part = fallbacks.iter().find_map(|base| {
            let exact = base.parts.iter().find(|part| part.platform == *asked);
            Some((base, exact.or_else(|| base.parts.iter().find(|part| offers(&part.platform, asked)))?))
        });
        match part {
            Some((base, part)) => chosen.push(Chosen { base, part, fallback: true }),
            None => missing.push(asked.to_string()),
        }
    }
    if !missing.is_empty() {
        let names: Vec<_> = bases.iter().chain(fallbacks).map(|base| base.name.as_str()).collect();
        let what = format!("none of {} has {}", names.join(", "), missing.join(", "));
        return Err(Error::new(Cause::ImageMissingPlatform, what).next("name a base that has it with --fallback"));
    }
    if chosen.is_empty() {
        return Err(Error::new(Cause::ImageMissingPlatform, "the bases offer nothing"));
    }
    Ok(chosen)
}

/// Whether two platforms would be mistaken for each other: nodes with Windows choose by the first three
/// numbers of its version, the build.
fn same(one: &Platform, other: &Platform) -> bool {
    let build = |platform: &Platform| {
        let version = platform.os_version.as_deref().unwrap_or_default();
        version.splitn(4, '.').take(3).map(String::from).collect::<Vec<_>>()
    };
    (&one.os, &one.arch, &one.variant) == (&other.os, &other.arch, &other.variant) && build(one) == build(other)
}

impl Chosen<'_> {
    /// Brings it into the layout.
    fn take(&self, layout: &Layout) -> Result<(Listed, Row)> {
        let Part { platform, listed, manifest } = self.part;
        let what = || format!("{platform} of {}", self.base.name);
        let document = oci::run(oci::pull(&self.base.place, manifest, layout)).within(what)?;
        let stored = oci::descriptor(document.media_type.as_str().into(), &document.bytes)?;
        let mut entry = Listed { json: listed.clone(), ..Listed::new(platform, stored) };
        let mut row = Row { fallback: self.fallback, ..Row::new(platform, &self.base.name) };
        // On Windows users are called otherwise, and none is root.
        if self.fallback
            && platform.os == "linux"
            && let Some(derived) = without_rights(layout, &document).within(what)?
        {
            let from = document.digest.clone();
            entry.manifest = derived;
            let name = |name: &str| format!("org.opencontainers.image.base.{name}");
            entry.annotations = [(name("name"), self.base.name.clone()), (name("digest"), from.clone())].into();
            row.derived_from = Some(from);
        }
        Ok((entry, row))
    }
}

/// The same image with the user without rights, in the layout; nothing if it has that user already.
fn without_rights(layout: &Layout, document: &oci::Document) -> Result<Option<oci::spec::Descriptor>> {
    let mut manifest: Value = document.parse()?;
    let parsed: oci::spec::ImageManifest = document.parse()?;
    let mut config: Value = read(layout, parsed.config())?;
    let inner = &config["config"];
    if !config.is_object() || !(inner.is_object() || inner.is_null()) {
        return Err(Error::new(Cause::Registry, format!("{} is no config of an image", parsed.config().digest())));
    }
    // A list of its fields is read as a manifest, too.
    if !manifest["config"].is_object() {
        return Err(Error::new(Cause::Registry, format!("{} is no manifest of an image", document.digest)));
    }
    if config["config"]["User"] == NONROOT {
        return Ok(None);
    }
    if config["config"].is_null() {
        config["config"] = json!({});
    }
    config["config"]["User"] = json!(NONROOT);
    // Of the same age as what it is made of: made again it is the same.
    let entry = json!({
        "created": config["created"],
        "created_by": format!("image-build base combine --fallback: USER {NONROOT}"),
        "empty_layer": true,
    });
    match config["history"].as_array_mut() {
        Some(history) => history.push(entry),
        None => config["history"] = json!([entry]),
    }
    let stored = layout.write(parsed.config().media_type().clone(), &oci::canonical(&config)?)?;
    manifest["config"]["digest"] = json!(stored.digest().to_string());
    manifest["config"]["size"] = json!(stored.size());
    // A copy of the config may be in the manifest (image-spec, descriptor.md, `data`).
    if let Some(config) = manifest["config"].as_object_mut() {
        config.remove("data");
    }
    layout.write(document.media_type.as_str().into(), &oci::canonical(&manifest)?).map(Some)
}

#[cfg(test)]
mod tests {
    use oci::spec::MediaType;

    use super::*;

    fn base(name: &str, platforms: &[&str]) -> Base {
        let part = |text: &&str| {
            let platform: Platform = text.parse().unwrap();
            let manifest = oci::descriptor("x/y".into(), format!("{name} {text}").as_bytes()).unwrap();
            Part { listed: oci::platform_json(&platform), platform, manifest }
        };
        let place = Place::Layout(Layout::create(tempfile::tempdir().unwrap().path()).unwrap());
        Base { name: name.into(), place, parts: platforms.iter().map(part).collect() }
    }

    fn names(chosen: Result<Vec<Chosen<'_>>>) -> Result<Vec<String>> {
        let name = |chosen: Chosen<'_>| {
            format!("{} {}{}", chosen.base.name, chosen.part.platform, if chosen.fallback { " instead" } else { "" })
        };
        Ok(chosen?.into_iter().map(name).collect())
    }

    fn platforms(list: &[&str]) -> Vec<Platform> {
        list.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_platform_that_two_bases_have_is_refused_with_both() {
        let windows = ["windows/amd64:10.0.17763.1", "windows/amd64:10.0.20348.1"];
        let bases = [base("l", &["linux/amd64", "linux/s390x"]), base("w", &windows)];
        assert_eq!(names(choose(&bases, &[], &[])).unwrap().len(), 4);
        let bases = [base("l", &["linux/amd64", "linux/arm64"]), base("m", &["linux/arm64/v8", "linux/amd64"])];
        let error = names(choose(&bases, &[], &[])).unwrap_err();
        assert_eq!(error.cause, Cause::Usage);
        let line = error.line.unwrap();
        for said in ["linux/arm64 is in l (sha256:", "linux/amd64 is in l", "in m (sha256:"] {
            assert!(line.contains(said), "{line}");
        }
        let bases = [base("v", &windows[..1]), base("w", &["windows/amd64:10.0.17763.9"])];
        assert_eq!(names(choose(&bases, &[], &[])).unwrap_err().cause, Cause::Usage);
        let asked = platforms(&["windows/amd64:10.0.17763.9"]);
        assert_eq!(names(choose(&bases, &[], &asked)).unwrap(), ["w windows/amd64:10.0.17763.9"]);
    }

    #[test]
    fn a_fallback_steps_in_only_where_something_is_lacking() {
        let bases = [base("l", &["linux/amd64"])];
        let fallbacks = [base("f", &["linux/amd64", "linux/s390x"]), base("g", &["linux/s390x", "linux/ppc64le"])];
        let asked = platforms(&["linux/s390x", "linux/amd64", "linux/ppc64le"]);
        let wanted = ["l linux/amd64", "f linux/s390x instead", "g linux/ppc64le instead"];
        assert_eq!(names(choose(&bases, &fallbacks, &asked)).unwrap(), wanted);
        let asked = platforms(&["linux/riscv64", "linux/arm64", "linux/amd64"]);
        let error = names(choose(&bases, &fallbacks, &asked)).unwrap_err();
        assert_eq!(error.cause, Cause::ImageMissingPlatform);
        assert_eq!(error.summary(), "none of l, f, g has linux/riscv64, linux/arm64");
    }

    #[test]
    fn a_fallback_whose_config_is_none_is_refused_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::create(folder.path()).unwrap();
        let write = |config: &str| layout.write(MediaType::ImageConfig, config.as_bytes()).unwrap();
        let derived = |manifest: &Value| {
            let document = oci::Document::new(serde_json::to_vec(manifest).unwrap(), MediaType::ImageManifest.as_ref());
            without_rights(&layout, &document)
        };
        let manifest = |config: &oci::spec::Descriptor| json!({ "schemaVersion": 2, "config": config, "layers": [] });
        for text in ["[]", "\"x\"", "7", "null", "{\"config\":[]}", "{\"config\":\"x\"}"] {
            let config = write(text);
            let error = derived(&manifest(&config)).unwrap_err();
            assert_eq!(error.cause, Cause::Registry, "{text}");
            assert_eq!(error.summary(), format!("{} is no config of an image", config.digest()), "{text}");
        }
        for text in ["{}", "{\"config\":null}", "{\"config\":{\"User\":\"root\"}}"] {
            assert!(derived(&manifest(&write(text))).unwrap().is_some(), "{text}");
        }
        let list = json!([2, null, null, write("{}"), [], null, null]);
        let error = derived(&list).unwrap_err();
        assert!(error.cause == Cause::Registry && error.summary().ends_with("is no manifest of an image"), "{error}");
    }
}
