//! What an image's digest follows from, and the key over it: equal keys mean equal images.
//!
//! Whatever may change an image stands here; what is here and changes nothing only costs a build. What cannot be
//! known (programs with C in them, times and commits that ko's configuration asks for) gives an image no key.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Component, Path},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use kit::{Platform, Result, Within, digest, rundir};
use oci::{Offering, Place};
use serde::Serialize;

use super::{
    super::{Build, bases::Bases},
    kodata,
    packages::{Call, Packages, unknown},
};
use crate::ko::{self, Flags, Settings};

/// One more when something else counts.
const FORMAT: u32 = 1;
/// Arguments of ko that only change what stands in images. Others may do something besides building.
const HARMLESS: [&str; 3] = ["--image-label=", "--image-annotation=", "--image-user="];
/// Variables of Go that say where something is, or how fast it goes.
const ELSEWHERE: &[&str] = &[
    "GOAUTH",
    "GOBIN",
    "GOCACHE",
    "GOCACHEPROG",
    "GOENV",
    "GOFLAGS",
    "GOGC",
    "GOINSECURE",
    "GOMAXPROCS",
    "GOMEMLIMIT",
    "GOMODCACHE",
    "GONOPROXY",
    "GONOSUMDB",
    "GOPATH",
    "GOPRIVATE",
    "GOPROXY",
    "GOROOT",
    "GOSUMDB",
    "GOTELEMETRY",
    "GOTELEMETRYDIR",
    "GOTMPDIR",
    "GOTOOLCHAIN",
    "GOTRACEBACK",
    "GOVCS",
];

/// Keys by import path, or why an image has none.
pub(super) type Keys = BTreeMap<String, Result<String>>;

/// Everything that counts.
#[derive(Serialize)]
struct Inputs<'a> {
    format: u32,
    import: &'a str,
    platforms: BTreeSet<String>,
    ko: &'a str,
    settings: &'a str,
    /// ko's arguments, in their order.
    arguments: &'a [String],
    sbom: &'a str,
    environment: &'a BTreeMap<String, String>,
    /// As ko is told it: its name goes into the image as well.
    base: &'a str,
    base_digest: &'a str,
    kodata: Option<String>,
    /// What Go compiles and links, by how it is called.
    programs: Vec<(&'a Call, String)>,
}

/// The keys of some images.
///
/// # Errors
/// [`Cause::Auth`] or [`Cause::Registry`] for bases, [`Cause::Interrupted`]. What is only not known is in the keys.
pub(super) fn keys(
    build: &Build<'_>,
    program: &Path,
    bases: &Bases,
    images: &BTreeMap<String, Vec<Platform>>,
) -> Result<Keys> {
    let settings = Settings::read(&build.ko_config(bases)?)?;
    let root = &build.checkout.dir;
    if let Err(why) = knowable(build, &settings, root) {
        let why = why.summary();
        return Ok(images.keys().map(|import| (import.clone(), Err(unknown(why.clone())))).collect());
    }
    let (ko, environment) = (ko::identity(program)?, environment());
    let Calls { bases: known, of_image, all } = Calls::new(build, &settings, bases, images)?;
    let listed = list(root, &ko::go_flags(build.args.go_flags.as_deref()), &all)?;
    let arguments = build.args.others();
    let key = |import: &str, platforms: &[Platform]| -> Result<String> {
        let (reference, its) = of_image.get(import).ok_or_else(|| unknown("it has no base"))?;
        let base = known.get(reference).ok_or_else(|| unknown("its base is not known"))?;
        let (mut programs, mut folder) = (Vec::new(), None);
        for call in its {
            let packages = listed.get(call).ok_or_else(|| unknown("Go was not asked"))?;
            let packages = packages.as_ref().map_err(|why| unknown(why.clone()))?;
            programs.push((call, packages.digest(import)?));
            folder = Some(packages.dir(import)?);
        }
        let folder = folder.ok_or_else(|| unknown("its base offers none of its platforms"))?;
        let inputs = Inputs {
            format: FORMAT,
            import,
            platforms: platforms.iter().map(ToString::to_string).collect(),
            ko: &ko,
            settings: &settings.text,
            arguments: &arguments,
            sbom: &build.args.sbom,
            environment: &environment,
            base: reference,
            base_digest: &base.digest,
            kodata: kodata::digest(folder)?,
            programs,
        };
        Ok(digest::hex(&oci::canonical(&inputs)?))
    };
    Ok(images.iter().map(|(import, platforms)| (import.clone(), key(import, platforms))).collect())
}

/// Compiles the packages of some images, each once. ko builds several commands for a platform at the same time, and
/// from scratch each compiles what they share. What does not work here is for ko to explain.
///
/// # Errors
/// [`kit::Cause::Interrupted`].
pub(in crate::build) fn compile(
    build: &Build<'_>,
    bases: &Bases,
    images: &BTreeMap<String, Vec<Platform>>,
) -> Result<()> {
    let compile = || {
        let settings = Settings::read(&build.ko_config(bases)?)?;
        let calls = Calls::new(build, &settings, bases, images)?;
        list(&build.checkout.dir, &ko::go_flags(build.args.go_flags.as_deref()), &calls.all)
    };
    match compile() {
        Err(error) if error.signal.is_some() => Err(error),
        _ => Ok(()),
    }
}

/// How ko calls Go for some images.
struct Calls<'a> {
    /// Their bases, by reference.
    bases: BTreeMap<&'a str, Offering>,
    /// By import path: the base, and a call for each platform of it that is wanted.
    of_image: BTreeMap<&'a str, (&'a str, BTreeSet<Call>)>,
    /// With the commands of each.
    all: BTreeMap<Call, BTreeSet<String>>,
}

impl<'a> Calls<'a> {
    fn new(
        build: &Build<'_>,
        settings: &Settings,
        bases: &'a Bases,
        images: &'a BTreeMap<String, Vec<Platform>>,
    ) -> Result<Self> {
        let module = module(&build.checkout.dir)?;
        let mut calls = Self { bases: BTreeMap::new(), of_image: BTreeMap::new(), all: BTreeMap::new() };
        for (import, platforms) in images {
            let reference = bases.get(import).or_else(|| bases.get("default")).map_or(ko::DEFAULT_BASE, String::as_str);
            if !calls.bases.contains_key(reference) {
                calls.bases.insert(reference, base(build, reference)?);
            }
            let flags = flags(settings, &module, import);
            let mut its = BTreeSet::new();
            for offered in calls.bases.get(reference).iter().flat_map(|base| base.platforms()) {
                if platforms.iter().any(|asked| oci::offers(&offered, asked)) {
                    its.insert(call(&offered, flags));
                }
            }
            for call in &its {
                calls.all.entry(call.clone()).or_default().insert(import.clone());
            }
            calls.of_image.insert(import, (reference, its));
        }
        Ok(calls)
    }
}

/// Whether what ko does follows from what is looked at.
fn knowable(build: &Build<'_>, settings: &Settings, root: &Path) -> Result<()> {
    let others = build.args.others();
    if let Some(other) = others.iter().find(|word| !HARMLESS.iter().any(|start| word.starts_with(start))) {
        return Err(unknown(format!("ko is given {other}, which may do more than build")));
    }
    let mut all = vec![&settings.default];
    for entry in &settings.builds {
        let outside = |text: &str| {
            Path::new(text).components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir))
        };
        // Another module, whose import paths do not follow from this one's.
        if outside(&entry.dir)
            || outside(&entry.main)
            || (inner(&entry.dir) && root.join(&entry.dir).join("go.mod").is_file())
        {
            return Err(unknown(format!("ko's configuration builds something in {}", entry.dir)));
        }
        all.push(&entry.own);
    }
    for flags in all {
        let words = || flags.env.iter().chain(&flags.flags).chain(&flags.ldflags);
        if let Some(word) = words().find(|word| word.contains("{{")) {
            return Err(unknown(format!("ko's configuration has the template {word}")));
        }
        // Go's linker reads more of them from a file.
        if let Some(word) = flags.ldflags.iter().find(|word| word.split_whitespace().any(|part| part.starts_with('@')))
        {
            return Err(unknown(format!("the linker is given {word}")));
        }
    }
    Ok(())
}

fn inner(dir: &str) -> bool {
    Path::new(dir).components().any(|part| matches!(part, Component::Normal(_)))
}

/// The main module's path.
fn module(root: &Path) -> Result<String> {
    let bytes = rundir::read_limited(&root.join("go.mod"), 1 << 20)?;
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let path = text.lines().find_map(|line| line.trim().strip_prefix("module ")).unwrap_or_default();
    Ok(path.split("//").next().unwrap_or_default().trim().trim_matches(['"', '`']).to_owned())
}

/// The flags for a command: those of its entry in `builds`, or the default ones.
fn flags<'a>(settings: &'a Settings, module: &str, import: &str) -> Choice<'a> {
    let of = |entry: &&ko::Entry| {
        let parts = [entry.dir.as_str(), entry.main.as_str()];
        let mut path = module.to_owned();
        for part in parts.iter().flat_map(|part| Path::new(part).components()) {
            if let Component::Normal(name) = part {
                path = format!("{path}/{}", name.to_string_lossy());
            }
        }
        // `main` may be a file in the folder.
        path == import || path.rsplit_once('/').is_some_and(|(folder, file)| folder == import && file.ends_with(".go"))
    };
    let entry = settings.builds.iter().rfind(of).map(|entry| &entry.own);
    Choice { own: entry, default: &settings.default }
}

#[derive(Clone, Copy)]
struct Choice<'a> {
    own: Option<&'a Flags>,
    default: &'a Flags,
}

impl Choice<'_> {
    fn env(&self) -> &[String] {
        self.own.map(|own| &own.env[..]).filter(|env| !env.is_empty()).unwrap_or(&self.default.env)
    }

    fn flags(&self) -> &[String] {
        self.own.map(|own| &own.flags[..]).filter(|flags| !flags.is_empty()).unwrap_or(&self.default.flags)
    }
}

/// How ko calls Go for a platform that a base offers (`pkg/build/gobuild.go`, buildEnv).
fn call(platform: &Platform, flags: Choice<'_>) -> Call {
    let mut variables = vec![("GOOS".to_owned(), platform.os.clone()), ("GOARCH".into(), platform.arch.clone())];
    match (platform.arch.as_str(), platform.variant.as_deref()) {
        ("arm", Some(variant)) => {
            let number = variant.trim_start_matches('v');
            variables.push(("GOARM".into(), if number == "8" { "7" } else { number }.into()));
        }
        ("amd64", Some(variant)) => variables.push(("GOAMD64".into(), variant.into())),
        _ => {}
    }
    let own = flags.env().iter().filter_map(|pair| pair.split_once('='));
    variables.extend(own.map(|(name, value)| (name.to_owned(), value.to_owned())));
    Call { variables, flags: flags.flags().to_vec() }
}

/// A base as it is now.
fn base(build: &Build<'_>, reference: &str) -> Result<Offering> {
    let place = Place::Registry(build.client.clone(), oci::parse(reference)?);
    oci::run(oci::offered(&place)).within(|| format!("base {reference}"))
}

/// Variables of the caller that reach ko and Go.
fn environment() -> BTreeMap<String, String> {
    let mut command = std::process::Command::new("go");
    kit::source::clean_environment(&mut command);
    let removed: BTreeSet<_> = command.get_envs().filter(|(_, value)| value.is_none()).map(|(name, _)| name).collect();
    let counts = |name: &str| name == "SOURCE_DATE_EPOCH" || (name.starts_with("GO") && !ELSEWHERE.contains(&name));
    let all = std::env::vars_os().filter(|(name, _)| !removed.contains(name.as_os_str()));
    let text = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
    all.map(|(name, value)| (text(name), text(value))).filter(|(name, _)| counts(name)).collect()
}

/// Asks Go about all commands, a platform on each processor; why not stands where there is no answer.
fn list(
    root: &Path,
    go_flags: &str,
    calls: &BTreeMap<Call, BTreeSet<String>>,
) -> Result<BTreeMap<Call, Result<Packages, String>>> {
    let (next, found) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let calls: Vec<_> = calls.iter().collect();
    let work = || {
        while let Some((call, commands)) = calls.get(next.fetch_add(1, Ordering::SeqCst)) {
            let packages = Packages::list(root, go_flags, call, commands);
            found.lock().unwrap_or_else(PoisonError::into_inner).push(((*call).clone(), packages));
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    let answer = |(call, packages): (Call, Result<Packages>)| match packages {
        Err(error) if error.signal.is_some() => Err(error),
        // What Go said, without the call, which is long.
        packages => Ok((call, packages.map_err(|error| error.line.clone().unwrap_or_else(|| error.summary())))),
    };
    found.into_iter().map(answer).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_is_called_as_ko_calls_it() {
        let flags = Flags { env: vec!["A=b".into()], flags: vec!["-tags=x".into()], ldflags: vec![] };
        let choice = Choice { own: None, default: &flags };
        for (platform, more) in [
            ("linux/s390x", None),
            ("linux/arm/v6", Some(("GOARM", "6"))),
            ("linux/arm/v8", Some(("GOARM", "7"))),
            ("linux/amd64/v3", Some(("GOAMD64", "v3"))),
            ("linux/arm64", None),
            ("windows/amd64:10.0.17763.1", None),
        ] {
            let platform: Platform = platform.parse().unwrap();
            let call = call(&platform, choice);
            let mut expected = vec![("GOOS", platform.os.as_str()), ("GOARCH", platform.arch.as_str())];
            expected.extend(more);
            expected.push(("A", "b"));
            let found: Vec<_> = call.variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
            assert_eq!((found, call.flags), (expected, flags.flags.clone()), "{platform}");
        }
    }

    #[test]
    fn a_command_has_the_flags_of_its_entry() {
        let text = "defaultEnv: [D=1]\nbuilds:\n- main: ./cmd/x\n  env: [X=1]\n- dir: tools\n  main: y/main.go\n  env: [Y=1]\n\
                    - env: [ROOT=1]\n- main: cmd/z\n  flags: [-v]\n";
        let settings = Settings::read(text).unwrap();
        for (import, env) in [
            ("e.com/m/cmd/x", "X=1"),
            ("e.com/m/tools/y", "Y=1"),
            ("e.com/m", "ROOT=1"),
            ("e.com/m/cmd/z", "D=1"),
            ("e.com/m/cmd/other", "D=1"),
            ("e.com/other/cmd/x", "D=1"),
        ] {
            assert_eq!(flags(&settings, "e.com/m", import).env(), [env], "{import}");
        }
        assert_eq!(flags(&settings, "e.com/m", "e.com/m/cmd/z").flags(), ["-v"]);
    }

    #[test]
    fn the_main_module_is_read_from_its_file() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["// c\nmodule e.com/x // d\n\ngo 1.24\n", "module \"e.com/x\"\n"] {
            std::fs::write(folder.path().join("go.mod"), text).unwrap();
            assert_eq!(module(folder.path()).unwrap(), "e.com/x");
        }
    }
}
