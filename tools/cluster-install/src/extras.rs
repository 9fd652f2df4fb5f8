//! What an installation changes of a release, or adds to it: further files, other registries, logins and
//! certificates for its pods, values of its ConfigMaps. The release's own digest stays what it is; each of
//! these stands in the record.

mod registries;
mod settings;
mod trust;

use std::path::PathBuf;

use cluster::{Kinds, objects::FILE_LIMIT};
use kit::{
    Cause, Context, Error, Result,
    ci::{Component, Settings},
    digest,
    record::{Input, Setting},
    rundir::read_limited,
};

use crate::{apply::Placed, release::Release};
pub(crate) use registries::Rewrite;
use settings::Value;

/// The options.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct Extras {
    /// Objects to install besides the release, as Triggers' interceptors are; may be given several times
    #[arg(long = "extra", value_name = "FILE", help_heading = "Changes to the release")]
    files: Vec<PathBuf>,
    /// Take images whose names begin with FROM from TO instead; may be given several times
    #[arg(long = "registry", value_name = "FROM=TO", value_parser = Rewrite::parse, help_heading = "Changes to the release")]
    registries: Vec<Rewrite>,
    /// Registry logins for the release's pods: a Docker config.json
    #[arg(long, value_name = "FILE", help_heading = "Changes to the release")]
    pull_secret: Option<PathBuf>,
    /// Certificates that the release's pods trust as well: PEM
    #[arg(long, value_name = "FILE", help_heading = "Changes to the release")]
    ca_bundle: Option<PathBuf>,
    /// A set of feature flags of the component: stable, beta, alpha, or what else ci/components.toml names
    #[arg(long, value_name = "SET", help_heading = "Changes to the release")]
    flags: Option<String>,
    /// A value of one of the component's ConfigMaps, as in feature-flags.enable-api-fields=alpha; may be given
    /// several times
    #[arg(long = "set", value_name = "MAP.KEY=VALUE", value_parser = Value::parse, help_heading = "Changes to the release")]
    values: Vec<Value>,
}

/// What was changed, for the record.
#[derive(Debug, Clone, Default)]
pub(crate) struct Changes {
    pub(crate) flags: Option<String>,
    pub(crate) settings: Vec<Setting>,
    pub(crate) registries: Vec<Rewrite>,
}

impl Extras {
    /// Puts files, registries and values into the release. `component` is what `ci/components.toml` says of it, if
    /// it says anything.
    ///
    /// # Errors
    /// [`Cause::Usage`] naming the file, the set or the ConfigMap that is not there.
    pub(crate) fn apply(&self, mut release: Release, component: Option<&Component>) -> Result<(Release, Changes)> {
        for file in &self.files {
            add_file(&mut release, file)?;
        }
        for rewrite in &self.registries {
            rewrite.apply(&mut release)?;
        }
        let mut more = Settings::new();
        for value in &self.values {
            more.entry(value.map.clone()).or_default().insert(value.key.clone(), value.value.clone());
        }
        let wanted = match component {
            Some(component) => component.settings_with(self.flags.as_deref(), &more)?,
            None if self.flags.is_some() => {
                let what = format!("nobody says which flags {} has", release.component);
                return Err(Error::new(Cause::Usage, what).next("name the folder with components.toml: --ci DIR"));
            }
            None => more,
        };
        let settings = settings::apply(&mut release, &wanted)?;
        let changes = Changes { flags: self.flags.clone(), settings, registries: self.registries.clone() };
        Ok((release, changes))
    }

    /// Gives the release's pods logins and certificates, once its objects have their namespaces.
    ///
    /// # Errors
    /// [`Cause::Usage`] for a file that is not what it should be; never with its content.
    pub(crate) fn entrust(&self, placed: &mut Vec<Placed>, kinds: &Kinds) -> Result<()> {
        if let Some(secret) = self.logins()? {
            trust::add_pull_secret(placed, kinds, &secret)?;
        }
        if let Some(file) = &self.ca_bundle {
            let bundle = trust::ca_bundle(file)?;
            trust::add_ca_bundle(placed, kinds, &bundle)?;
        }
        Ok(())
    }

    /// The registry logins, as a Docker config.json.
    ///
    /// # Errors
    /// [`Cause::Usage`] for a file that is none; never with its content.
    pub(crate) fn logins(&self) -> Result<Option<String>> {
        self.pull_secret.as_deref().map(trust::pull_secret).transpose()
    }
}

fn add_file(release: &mut Release, file: &std::path::Path) -> Result<()> {
    let name = file.display().to_string();
    let bytes = read_limited(file, FILE_LIMIT)?;
    release.inputs.push(Input { name: name.clone(), digest: digest::sha256(&bytes) });
    let text = String::from_utf8(bytes).cause(Cause::Usage, || format!("{name} is not UTF-8"))?;
    for object in cluster::objects::parse(&text, &name)? {
        let same = |known: &&cluster::objects::Object| known.is_same_place(&object);
        if let Some(known) = release.objects.iter().find(same) {
            let what = format!("{name}: {} is in {} already", known.key, release.name());
            return Err(Error::new(Cause::Usage, what));
        }
        release.objects.push(object);
    }
    // Nobody has verified what else there is now.
    release.added = true;
    Ok(())
}
