//! Options that several verbs have.

use kit::{Cause, Error, Platform, Result};
use oci::Reference;

/// Where images are pushed.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Repo {
    /// Repository that images are pushed under, as in 10.1.2.3:5000/other-arch
    #[arg(long, env = "KO_DOCKER_REPO", value_name = "REPO")]
    repo: String,
}

impl Repo {
    /// The repository's name, without a slash at its end.
    pub(crate) fn name(&self) -> &str {
        self.repo.trim_end_matches('/')
    }

    /// The registry that it is in.
    pub(crate) fn registry(&self) -> Result<String> {
        Ok(self.reference("x")?.registry().to_owned())
    }

    /// The same repository in another registry, which `registry` names with all that stands before its own path.
    pub(crate) fn below(&self, registry: &str) -> String {
        match self.name().split_once('/') {
            Some((_, path)) => format!("{registry}/{path}"),
            None => registry.to_owned(),
        }
    }

    /// A repository under it, with a tag if `path` has one.
    pub(crate) fn reference(&self, path: &str) -> Result<Reference> {
        under(&self.repo, path)
    }
}

/// A repository under another, which has to begin with a registry; with a tag if `path` has one.
pub(crate) fn under(repo: &str, path: &str) -> Result<Reference> {
    let host = repo.split('/').next().unwrap_or_default();
    if !(host.contains(['.', ':']) || host == "localhost") {
        return Err(Error::new(Cause::Usage, format!("'{repo}' does not begin with a registry"))
            .next("write REGISTRY/PATH, for instance 10.1.2.3:5000/other-arch"));
    }
    oci::parse(&format!("{}/{path}", repo.trim_end_matches('/')))
}

/// Platforms that are built and verified.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Platforms {
    /// Platform that is wanted: os/architecture[/variant] (repeat, or separate with commas)
    #[arg(long = "platform", value_name = "P", required = true, value_delimiter = ',')]
    platforms: Vec<Platform>,
}

impl Platforms {
    /// Each once, in the order asked for.
    pub(crate) fn list(&self) -> Vec<Platform> {
        once(&self.platforms)
    }
}

/// Platforms to build for, as ko knows them.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct BuildPlatforms {
    /// Platform to build for: os/architecture[/variant] (repeat, or separate with commas); one alone gives plain
    /// images without an index; 'all': those of ci/architectures.toml, or all that the default base has; 'linux' or
    /// 'windows': those of them
    #[arg(long = "platform", value_name = "P", required = true, value_delimiter = ',', value_parser = Asked::parse)]
    platforms: Vec<Asked>,
}

#[derive(Debug, Clone)]
enum Asked {
    All,
    Os(String),
    One(Platform),
}

impl Asked {
    fn parse(text: &str) -> Result<Self> {
        match text {
            "all" => Ok(Self::All),
            "linux" | "windows" => Ok(Self::Os(text.into())),
            platform => platform.parse().map(Self::One),
        }
    }
}

impl BuildPlatforms {
    /// Each once, in the order asked for; nothing if that follows from what there is.
    pub(crate) fn list(&self) -> Option<Vec<Platform>> {
        let named = |asked: &Asked| match asked {
            Asked::All | Asked::Os(_) => None,
            Asked::One(platform) => Some(platform.clone()),
        };
        self.platforms.iter().map(named).collect::<Option<Vec<_>>>().map(|platforms| once(&platforms))
    }

    /// The same where `all` are there.
    pub(crate) fn of(&self, all: &[Platform]) -> Vec<Platform> {
        let meant = |asked: &Asked| match asked {
            Asked::All => all.to_vec(),
            Asked::Os(os) => all.iter().filter(|platform| platform.os == *os).cloned().collect(),
            Asked::One(platform) => vec![platform.clone()],
        };
        once(&self.platforms.iter().flat_map(meant).collect::<Vec<_>>())
    }
}

impl std::fmt::Display for BuildPlatforms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let name = |asked: &Asked| match asked {
            Asked::All => "all".to_owned(),
            Asked::Os(os) => os.clone(),
            Asked::One(platform) => platform.to_string(),
        };
        f.write_str(&self.platforms.iter().map(name).collect::<Vec<_>>().join(","))
    }
}

/// Each once, in the same order.
pub(crate) fn once(platforms: &[Platform]) -> Vec<Platform> {
    let mut list: Vec<Platform> = Vec::new();
    for platform in platforms {
        if !list.contains(platform) {
            list.push(platform.clone());
        }
    }
    list
}
