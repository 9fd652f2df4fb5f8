//! What an owner declares of a cluster in `ci/architectures.toml`.

use crate::{Platform, record::Nature};

/// What an owner says of a cluster's nodes, for where no probe can tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// The cluster as records name it, or
    pub name: Option<String>,
    /// by the UID of its namespace `kube-system`.
    pub uid: Option<String>,
    /// Only its nodes of this platform; all if it says none.
    pub platform: Option<Platform>,
    /// What they are.
    pub nature: Nature,
    /// Who says so.
    pub owner: String,
}

impl Declared {
    /// Whether it speaks of these nodes.
    #[must_use]
    pub fn is_of(&self, name: &str, uid: &str, platform: &Platform) -> bool {
        is_of((&self.name, &self.uid, &self.platform), name, uid, platform)
    }
}

/// Whether what has this name, UID and platform, as far as it says them, is the cluster's.
pub(super) fn is_of(
    own: (&Option<String>, &Option<String>, &Option<Platform>),
    name: &str,
    uid: &str,
    platform: &Platform,
) -> bool {
    let same = |own: &Option<String>, other: &str| own.as_ref().is_none_or(|own| own == other);
    same(own.0, name) && same(own.1, uid) && own.2.as_ref().is_none_or(|own| own == platform)
}

#[cfg(test)]
mod tests {
    use crate::{Cause, ci::Ci};

    #[test]
    fn owners_say_what_their_clusters_are() {
        let folder = tempfile::tempdir().unwrap();
        let read = |text: &str| {
            std::fs::write(folder.path().join("architectures.toml"), text).unwrap();
            Ci::new(folder.path()).architectures()
        };
        let text = "[[cluster]]\nname = 'z'\nplatform = 'linux/s390x'\nnature = 'native'\nowner = 'me'\n";
        let declared = read(text).unwrap().cluster.remove(0).declared().unwrap();
        let of = |name: &str, platform: &str| declared.is_of(name, "uid", &platform.parse().unwrap());
        assert!(of("z", "linux/s390x") && !of("z", "linux/amd64") && !of("y", "linux/s390x"));
        for (text, said) in [
            ("[[cluster]]\nnature = 'native'\nowner = 'me'\n", "needs name or uid"),
            ("[[cluster]]\nuid = 'u'\nnature = 'unknown'\nowner = 'me'\n", "who does not know says nothing"),
            ("[[cluster]]\nuid = 'u'\nnature = 'real'\nowner = 'me'\n", "architectures.toml:3"),
            ("[[cluster]]\nuid = 'u'\nnature = 'native'\n", "missing field `owner`"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.cause == Cause::Usage && error.to_string().contains(said), "{error}");
        }
    }
}
