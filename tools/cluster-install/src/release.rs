//! Reading what is to be installed.

use std::path::{Path, PathBuf};

use cluster::objects::{FILE_LIMIT, Object, parse};
use kit::{
    Cause, Context, Error, Result, RunDir, digest,
    record::{Image, Images, Input},
    rundir::{read_limited, read_record},
};

/// A release, read and checked as far as it can be without a cluster.
#[derive(Debug, Clone)]
pub(crate) struct Release {
    /// The component's name.
    pub(crate) component: String,
    /// Its version.
    pub(crate) version: String,
    /// Where it was read from, for messages.
    pub(crate) file: PathBuf,
    /// Digest of the file: the release's identity.
    pub(crate) digest: String,
    /// Its objects.
    pub(crate) objects: Vec<Object>,
    /// Its images with what image-build verified of them; nothing if nobody did.
    pub(crate) images: Option<Vec<Image>>,
    /// What was read, for the record.
    pub(crate) inputs: Vec<Input>,
    /// Whether there are objects in it that are not in its file, whose images nobody has verified.
    pub(crate) added: bool,
}

impl Release {
    /// A file that somebody else made.
    pub(crate) fn from_file(path: &Path, component: &str) -> Result<Self> {
        let (digest, objects) = read_objects(path)?;
        let version = objects.iter().find_map(|object| object.label("app.kubernetes.io/version"));
        Ok(Self {
            component: component.to_owned(),
            version: version.unwrap_or("unknown").to_owned(),
            inputs: vec![Input { name: path.display().to_string(), digest: digest.clone() }],
            file: path.to_owned(),
            digest,
            objects,
            images: None,
            added: false,
        })
    }

    /// What image-build left of the component in the run directory.
    pub(crate) fn from_run(run: &RunDir, component: &str) -> Result<Self> {
        let folder = run.component(component);
        let (images, images_digest) = read_record::<Images>(&folder).map_err(|error| {
            error.next(format!("build it first: cargo xtask image-build build --component {component}"))
        })?;
        let file = folder.join("release.yaml");
        let expected = images.release.as_ref().map(|release| release.digest.as_str());
        if images.head.outcome != kit::Outcome::Passed || expected.is_none() {
            let what = format!("the images of {component} in {} are not good", run.path().display());
            let why = images.head.message.unwrap_or_else(|| "it has no release".into());
            return Err(Error::new(Cause::Usage, what).line(why).next("see images.json there; build them again"));
        }
        let (digest, objects) = read_objects(&file)?;
        if expected != Some(&digest) {
            let what = format!("{} is not the release that images.json is about", file.display());
            return Err(
                Error::new(Cause::Usage, what).line(format!("{digest}, expected {}", expected.unwrap_or_default()))
            );
        }
        let name = |file: &str| format!("{component}/{file}");
        let inputs = vec![
            Input { name: name("images.json"), digest: images_digest },
            Input { name: name("release.yaml"), digest: digest.clone() },
        ];
        Ok(Self {
            component: component.to_owned(),
            version: images.version,
            file,
            digest,
            objects,
            images: Some(images.images),
            inputs,
            added: false,
        })
    }

    /// Its name in messages.
    pub(crate) fn name(&self) -> String {
        self.file.display().to_string()
    }

    /// The namespaces that it makes or uses, once its objects have their place.
    pub(crate) fn namespaces(&self) -> Vec<String> {
        let own = self.objects.iter().filter(|object| object.is("", "Namespace")).map(|object| &object.key.name);
        let used = self.objects.iter().map(|object| &object.key.namespace).filter(|namespace| !namespace.is_empty());
        let all: std::collections::BTreeSet<_> = own.chain(used).cloned().collect();
        all.into_iter().collect()
    }
}

fn read_objects(path: &Path) -> Result<(String, Vec<Object>)> {
    let bytes = read_limited(path, FILE_LIMIT)?;
    let digest = digest::sha256(&bytes);
    let text = String::from_utf8(bytes).cause(Cause::Usage, || format!("{} is not UTF-8", path.display()))?;
    let objects = parse(&text, &path.display().to_string())?;
    if objects.is_empty() {
        return Err(Error::new(Cause::Usage, format!("{} has no objects", path.display())));
    }
    Ok((digest, objects))
}
