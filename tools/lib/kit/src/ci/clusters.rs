//! `[[cluster]]` in `ci/architectures.toml`: clusters by name, how each is come by, and what its owner says of it.

use std::{path::Path, time::Duration};

use serde::{Deserialize, Deserializer};

use super::{Architectures, Ci, Declared, declared, parse_duration};
use crate::{Cause, Error, Platform, Result, record::Nature, rundir::slug};

/// A cluster of the file: how it is come by, what its nodes are, or both.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cluster {
    /// As records and `cluster-install cluster` name it.
    pub name: Option<String>,
    /// The UID of its namespace `kube-system`.
    pub uid: Option<String>,
    /// What its nodes run; what its owner declares is of these nodes only.
    pub platform: Option<Platform>,
    /// What its nodes are, for where no probe can tell.
    pub nature: Option<Nature>,
    /// Least number of its workers, if it is another than its architecture's.
    pub workers: Option<u32>,
    /// Who answers for it.
    pub owner: String,
    /// It is there, and lent to us.
    pub kubeconfig: Option<Borrowed>,
    /// A host makes it.
    pub ssh: Option<Ssh>,
    /// kind makes it on this machine.
    pub kind: Option<Kind>,
    /// The lab makes it on this machine.
    pub lab: Option<LabCluster>,
}

/// A cluster of somebody's kubeconfig.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Borrowed {
    /// The file (`~/` is the user's home, a relative path begins at the folder above `ci/`), or `env` for `$KUBECONFIG`.
    pub path: String,
    /// The context in it. There is no default, so that it is never another by accident.
    pub context: String,
}

/// A host that makes the cluster, reached by ssh.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ssh {
    /// Its name or address.
    pub host: String,
    /// Its port.
    #[serde(default = "ssh_port")]
    pub port: u16,
    /// Who we are there.
    pub user: String,
    /// Its public keys, `TYPE BASE64` each, as its owner gave them: no other host is taken for it.
    pub host_keys: Vec<String>,
    /// The host in between.
    pub jump: Option<Jump>,
    /// The file with our key (`~/` is the user's home); without it the keys of the agent.
    pub key: Option<String>,
    /// The command there that speaks the contract.
    #[serde(default = "contract_command")]
    pub command: String,
    /// It does not speak the contract: it has `k8smanager`.
    pub k8smanager: Option<K8sManager>,
    /// `https://…` under which its API server is reached from here, if not the one in its kubeconfig.
    pub api_server: Option<String>,
    /// How long things may take.
    #[serde(default)]
    pub limits: Limits,
}

/// A host on the way.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jump {
    /// Its name or address.
    pub host: String,
    /// Its port.
    #[serde(default = "ssh_port")]
    pub port: u16,
    /// Who we are there.
    pub user: String,
    /// Its public keys.
    pub host_keys: Vec<String>,
}

/// A host of the nightly tests that were there before the contract.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct K8sManager {
    /// The folder with `config`, `cert.pem` and `config.json`; known for linux/s390x and linux/ppc64le.
    pub share: Option<String>,
}

/// How long a host may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// To connect, up to the end of the key exchange.
    #[serde(deserialize_with = "duration")]
    pub connect: Duration,
    /// How long it is tried again when a connection cannot be made or breaks.
    #[serde(deserialize_with = "duration")]
    pub retry: Duration,
    /// To answer a question.
    #[serde(deserialize_with = "duration")]
    pub answer: Duration,
    /// To make the cluster.
    #[serde(deserialize_with = "duration")]
    pub create: Duration,
    /// To remove it.
    #[serde(deserialize_with = "duration")]
    pub delete: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let minutes = |minutes: u64| Duration::from_secs(60 * minutes);
        Self {
            connect: Duration::from_secs(10),
            retry: minutes(1),
            answer: minutes(1),
            create: minutes(45),
            delete: minutes(15),
        }
    }
}

/// A cluster that kind makes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kind {
    /// The nodes' image, best by digest; kind's own if it says none.
    pub image: Option<String>,
    /// kind's configuration; a relative path begins at the folder above `ci/`.
    pub config: Option<String>,
}

/// A lab; its name is the cluster's without `lab-`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LabCluster {
    /// Emulated nodes that it gets.
    #[serde(default)]
    pub nodes: Vec<Platform>,
}

const fn ssh_port() -> u16 {
    22
}

fn contract_command() -> String {
    "other-arch-cluster".into()
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Duration, D::Error> {
    parse_duration(&String::deserialize(deserializer)?).map_err(|error| serde::de::Error::custom(error.summary()))
}

/// How a cluster is come by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Provider<'a> {
    /// Borrowed.
    Kubeconfig(&'a Borrowed),
    /// By a host.
    Ssh(&'a Ssh),
    /// By kind.
    Kind(&'a Kind),
    /// By the lab.
    Lab(&'a LabCluster),
}

impl Provider<'_> {
    /// Its word in the file.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Kubeconfig(_) => "kubeconfig",
            Self::Ssh(_) => "ssh",
            Self::Kind(_) => "kind",
            Self::Lab(_) => "lab",
        }
    }
}

impl Cluster {
    /// How it is come by; nothing if it is only spoken of.
    #[must_use]
    pub fn provider(&self) -> Option<Provider<'_>> {
        self.providers().next()
    }

    fn providers(&self) -> impl Iterator<Item = Provider<'_>> {
        let borrowed = self.kubeconfig.as_ref().map(Provider::Kubeconfig);
        let (ssh, kind) = (self.ssh.as_ref().map(Provider::Ssh), self.kind.as_ref().map(Provider::Kind));
        [borrowed, ssh, kind, self.lab.as_ref().map(Provider::Lab)].into_iter().flatten()
    }

    /// What its owner says of its nodes.
    #[must_use]
    pub fn declared(&self) -> Option<Declared> {
        let Self { name, uid, platform, owner, .. } = self.clone();
        Some(Declared { name, uid, platform, nature: self.nature?, owner })
    }

    /// Whether it is this one, and has nodes of this platform.
    #[must_use]
    pub fn is_of(&self, name: &str, uid: &str, platform: &Platform) -> bool {
        declared::is_of((&self.name, &self.uid, &self.platform), name, uid, platform)
    }

    /// The lab that it is, by its name there.
    #[must_use]
    pub fn lab_name(&self) -> Option<&str> {
        self.lab.as_ref()?;
        self.name.as_deref()?.strip_prefix("lab-")
    }

    fn problem(&self) -> Option<String> {
        let Some(name) = &self.name else {
            return match (self.provider(), &self.uid) {
                (Some(provider), _) => Some(format!("{} needs a name", provider.name())),
                (None, None) => Some("needs name or uid: nobody knows which cluster it is".into()),
                (None, Some(_)) => None,
            };
        };
        if self.provider().is_some() && !(slug(name) == *name && name.len() <= 63 && !name.starts_with('-')) {
            return Some(format!("'{name}' is no name: letters, digits, '-', '_' and '.', at most 63"));
        }
        let providers: Vec<_> = self.providers().map(|provider| provider.name()).collect();
        match (self.provider(), &providers[..]) {
            (_, [_, _, ..]) => {
                Some(format!("'{name}' is come by in one way only, and not by {}", providers.join(", ")))
            }
            (Some(Provider::Ssh(ssh)), _) => {
                ssh.problem(self.platform.as_ref()).map(|problem| format!("'{name}': ssh: {problem}"))
            }
            (Some(Provider::Lab(_)), _) if self.lab_name().is_none_or(str::is_empty) => {
                Some(format!("'{name}' is a lab, whose name begins with 'lab-', as in records"))
            }
            (None, _) if self.nature.is_none() && self.workers.is_none() => {
                Some(format!("'{name}' says nothing: neither of its nodes (nature, workers) nor how it is come by"))
            }
            _ => None,
        }
    }
}

/// The folder where hosts of today have their files.
fn known_share(platform: &Platform) -> Option<&'static str> {
    match (platform.os.as_str(), platform.arch.as_str()) {
        ("linux", "s390x") => Some("/home/k8smanager/share"),
        ("linux", "ppc64le") => Some("/root/data/share"),
        _ => None,
    }
}

impl Ssh {
    /// The folder of `k8smanager`'s files, if the host is such a one and the folder is known.
    #[must_use]
    pub fn share(&self, platform: Option<&Platform>) -> Option<&str> {
        let own = self.k8smanager.as_ref()?.share.as_deref();
        own.or_else(|| known_share(platform?))
    }

    fn problem(&self, platform: Option<&Platform>) -> Option<String> {
        let hops = [(&self.host, &self.user, &self.host_keys)];
        let jump = self.jump.iter().map(|jump| (&jump.host, &jump.user, &jump.host_keys));
        for (host, user, keys) in hops.into_iter().chain(jump) {
            // They become words of ssh's configuration.
            if let Some(word) = [host, user].into_iter().find(|word| !is_plain(word)) {
                return Some(format!("'{word}' is neither a host nor a user"));
            }
            if keys.is_empty() {
                return Some(format!("host_keys of {host} are empty: nobody would know whether it is the right host"));
            }
        }
        if self.command.is_empty() || !self.command.split(' ').all(is_plain) {
            return Some(format!("'{}' is no command of plain words", self.command));
        }
        if self.k8smanager.is_some() {
            match self.share(platform) {
                None => return Some("k8smanager needs share, the folder with config, cert.pem and config.json".into()),
                Some(share) if !share.starts_with('/') || !is_plain(share) => {
                    return Some(format!("'{share}' is no plain absolute path"));
                }
                Some(_) => {}
            }
        }
        let wrong = self.api_server.as_ref().filter(|server| !server.starts_with("https://"));
        wrong.map(|server| format!("api_server = '{server}' does not begin with https://"))
    }
}

/// Whether a word is one for ssh's configuration and for a shell, whatever its place.
fn is_plain(word: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.:/@".contains(c);
    !word.is_empty() && !word.starts_with('-') && word.chars().all(plain)
}

impl Ci {
    /// The cluster of that name that one can come by.
    ///
    /// # Errors
    /// [`Cause::Usage`]; the message lists those that exist.
    pub fn cluster(&self, name: &str) -> Result<Cluster> {
        let known = self.clusters()?;
        let names: Vec<_> = known.iter().filter_map(|cluster| cluster.name.clone()).collect();
        known.into_iter().find(|cluster| cluster.name.as_deref() == Some(name)).ok_or_else(|| {
            let names = if names.is_empty() { "none".into() } else { names.join(", ") };
            Error::new(Cause::Usage, format!("unknown cluster '{name}'")).next(format!(
                "clusters in {}: {names}; the head of that file says how one is described",
                self.folder().join("architectures.toml").display()
            ))
        })
    }

    /// The cluster that a host makes for tests on this platform: of those that the architecture names the first which is
    /// described with `ssh`.
    ///
    /// # Errors
    /// [`Cause::Usage`] if there is none.
    pub fn made_for(&self, platform: &Platform) -> Result<Cluster> {
        let Architectures { architecture, cluster } = self.architectures()?;
        let names: Vec<_> = architecture
            .into_iter()
            .filter(|architecture| architecture.platform == *platform)
            .flat_map(|architecture| architecture.clusters)
            .collect();
        let fits =
            |cluster: &&Cluster| cluster.ssh.is_some() && cluster.platform.as_ref().is_none_or(|of| of == platform);
        let named = |name: &String| cluster.iter().filter(fits).find(|cluster| cluster.name.as_ref() == Some(name));
        names.iter().find_map(named).cloned().ok_or_else(|| {
            let path = self.folder().join("architectures.toml").display().to_string();
            let what = format!("no cluster of {platform} is made by a host: clusters = {names:?} in {path}");
            Error::new(Cause::Usage, what)
                .next("describe one by [[cluster]] and [cluster.ssh], and name it in the architecture's clusters")
        })
    }

    /// All clusters that one can come by.
    ///
    /// # Errors
    /// [`Cause::Usage`] with file, line and field.
    pub fn clusters(&self) -> Result<Vec<Cluster>> {
        let all = self.architectures()?.cluster;
        Ok(all.into_iter().filter(|cluster| cluster.provider().is_some()).collect())
    }
}

/// Refuses entries that say nothing, that say two things, or that could be taken for something else.
pub(super) fn check(path: &Path, all: &[Cluster]) -> Result<()> {
    let mut names = Vec::new();
    for cluster in all {
        let wrong = |what: &str| Err(Error::new(Cause::Usage, format!("{}: [[cluster]]: {what}", path.display())));
        if let Some(problem) = cluster.problem() {
            return wrong(&problem);
        }
        if cluster.nature == Some(Nature::Unknown) {
            return wrong("nature is native or emulated; who does not know says nothing");
        }
        if let (Some(name), Some(_)) = (&cluster.name, cluster.provider()) {
            if names.contains(&name) {
                return wrong(&format!("'{name}' is there twice"));
            }
            names.push(name);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Cluster>> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("architectures.toml"), text).unwrap();
        let ci = Ci::new(folder.path());
        ci.architectures()?;
        ci.clusters()
    }

    #[test]
    fn each_way_of_coming_by_a_cluster() {
        let text = "[[cluster]]\nname = 'z'\nplatform = 'linux/s390x'\nowner = 'me'\n\
                    [cluster.ssh]\nhost = 'z.example.org'\nuser = 'ci'\nhost_keys = ['ssh-ed25519 AAAA']\n\
                    limits = { create = '1h', retry = '2s' }\njump = { host = 'j', user = 'ci', host_keys = ['x y'] }\n\
                    [[cluster]]\nname = 'b'\nowner = 'me'\nkubeconfig = { path = 'env', context = 'c' }\n\
                    [[cluster]]\nname = 'k'\nowner = 'me'\nkind = {}\n\
                    [[cluster]]\nname = 'lab-two'\nowner = 'me'\nlab = { nodes = ['linux/s390x'] }\n\
                    [[cluster]]\nname = 'only-declared'\nnature = 'native'\nowner = 'me'\n";
        let clusters = read(text).unwrap();
        let names: Vec<_> = clusters.iter().map(|cluster| cluster.provider().unwrap().name()).collect();
        assert_eq!(names, ["ssh", "kubeconfig", "kind", "lab"]);
        let ssh = clusters[0].ssh.as_ref().unwrap();
        assert_eq!((ssh.port, ssh.command.as_str()), (22, "other-arch-cluster"));
        assert_eq!((ssh.limits.create.as_secs(), ssh.limits.retry.as_secs()), (3600, 2));
        assert_eq!(ssh.limits.delete, Limits::default().delete);
        assert_eq!(clusters[3].lab_name(), Some("two"));
        assert_eq!(clusters[0].declared(), None);
    }

    #[test]
    fn a_platform_s_tests_know_which_host_makes_their_cluster() {
        let folder = tempfile::tempdir().unwrap();
        let ssh = |name: &str, more: &str| {
            format!(
                "[[cluster]]\nname = '{name}'\nowner = 'me'\n{more}[cluster.ssh]\nhost = '{name}'\nuser = 'u'\n\
                 host_keys = ['x y']\n"
            )
        };
        let made = |clusters: &str| {
            let architecture = format!("[[architecture]]\nplatform = 'linux/s390x'\nclusters = {clusters}\n");
            let other = ssh("p", "platform = 'linux/ppc64le'\n");
            let text = [architecture, ssh("z-1", ""), ssh("z-2", "platform = 'linux/s390x'\n"), other].concat();
            std::fs::write(folder.path().join("architectures.toml"), text).unwrap();
            Ci::new(folder.path()).made_for(&"linux/s390x".parse().unwrap())
        };
        assert_eq!(made("['lent', 'p', 'z-2', 'z-1']").unwrap().name.as_deref(), Some("z-2"));
        for none in ["[]", "['lent']", "['p']"] {
            let error = made(none).unwrap_err();
            assert!(error.cause == Cause::Usage && error.to_string().contains("no cluster of linux/s390x"), "{error}");
        }
    }

    #[test]
    fn files_of_hosts_of_today_lie_where_their_architecture_has_them() {
        let host = |more: &str| {
            let text = format!(
                "[[cluster]]\nname = 'z'\nowner = 'me'\n{more}\n[cluster.ssh]\nhost = 'z'\nuser = 'root'\n\
                 host_keys = ['x y']\nk8smanager = {{}}\n"
            );
            read(&text)
        };
        for (platform, share) in [("linux/s390x", "/home/k8smanager/share"), ("linux/ppc64le", "/root/data/share")] {
            let cluster = host(&format!("platform = '{platform}'")).unwrap().remove(0);
            assert_eq!(cluster.ssh.unwrap().share(cluster.platform.as_ref()), Some(share));
        }
        for more in ["", "platform = 'linux/arm64'"] {
            assert!(host(more).unwrap_err().to_string().contains("k8smanager needs share"), "{more}");
        }
    }

    #[test]
    fn what_cannot_be_is_named() {
        let ssh = |text: &str| format!("[[cluster]]\nname = 'z'\nowner = 'me'\n[cluster.ssh]\n{text}\n");
        let good = "host = 'z'\nuser = 'u'\nhost_keys = ['x y']\n";
        read(&ssh(good)).unwrap();
        for (text, said) in [
            ("[[cluster]]\nname = 'z'\nowner = 'me'\n".to_owned(), "says nothing"),
            ("[[cluster]]\nowner = 'me'\nkind = {}\n".to_owned(), "kind needs a name"),
            ("[[cluster]]\nname = '../z'\nowner = 'me'\nkind = {}\n".to_owned(), "is no name"),
            ("[[cluster]]\nname = '-z'\nowner = 'me'\nkind = {}\n".to_owned(), "is no name"),
            ("[[cluster]]\nname = 'z'\nowner = 'me'\nkind = {}\nlab = {}\n".to_owned(), "in one way only"),
            ("[[cluster]]\nname = 'z'\nowner = 'me'\nlab = {}\n".to_owned(), "begins with 'lab-'"),
            ("[[cluster]]\nname = 'z'\nowner = 'me'\nkind = {}\n".repeat(2), "is there twice"),
            (
                "[[cluster]]\nname = 'z'\nowner = 'me'\nkubeconfig = { path = 'x' }\n".to_owned(),
                "missing field `context`",
            ),
            (ssh("host = 'z'\nuser = 'u'\nhost_keys = []\n"), "host_keys of z are empty"),
            (ssh("host = 'z'\nuser = 'u'\n"), "missing field `host_keys`"),
            (ssh("host = 'z -oProxyCommand=x'\nuser = 'u'\nhost_keys = ['x y']\n"), "is neither a host nor a user"),
            (ssh("host = '-oProxyCommand=x'\nuser = 'u'\nhost_keys = ['x y']\n"), "is neither a host nor a user"),
            (ssh(&format!("{good}command = 'x; rm -rf /'\n")), "is no command of plain words"),
            (ssh(&format!("{good}limits = {{ create = 'soon' }}\n")), "'soon' is no length of time"),
            (ssh(&format!("{good}strict = false\n")), "unknown field `strict`"),
            (ssh(&format!("{good}api_server = 'http://z'\n")), "does not begin with https://"),
            (ssh(&format!("{good}k8smanager = {{ share = 'x' }}\n")), "is no plain absolute path"),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.cause == Cause::Usage && error.to_string().contains(said), "{said}: {error}");
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("architectures.toml"), ssh(good)).unwrap();
        let error = Ci::new(folder.path()).cluster("y").unwrap_err();
        assert!(error.to_string().contains("unknown cluster 'y'") && error.to_string().contains(": z;"), "{error}");
    }
}
