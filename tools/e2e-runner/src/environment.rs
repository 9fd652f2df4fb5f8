//! The environment of the tests: what their section says, and nothing of the caller's that could lead
//! them to another cluster.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    path::{Path, PathBuf},
};

use kit::{
    Cause, Error, Platform, Result,
    ci::{self, Component},
    dirs, process,
};

/// Variables of the caller that tests get as well.
const KEPT: &[&str] = &[
    "HOME",
    "USER",
    "LOGNAME",
    "TMPDIR",
    "LANG",
    "TZ",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "GOPROXY",
    "GOCACHE",
    "GOMODCACHE",
    "GOPATH",
];

/// What placeholders stand for.
#[derive(Debug, Clone)]
pub struct Values {
    /// The kubeconfig of the cluster that was named.
    pub kubeconfig: PathBuf,
    /// The platform of the nodes.
    pub platform: Platform,
    /// Where images were pushed.
    pub repo: Option<String>,
    /// The registry that nodes reach.
    pub registry: Option<String>,
    /// The component's namespace.
    pub namespace: Option<String>,
    /// The component's own programs that were built for the tests, by name.
    pub builds: BTreeMap<String, PathBuf>,
}

impl Values {
    /// Puts values in the place of `{kubeconfig}`, `{goarch}`, `{platform}`, `{repo}`, `{registry}`, `{namespace}`, and of
    /// the names of builds.
    ///
    /// # Errors
    /// [`Cause::Usage`] for a placeholder that is unknown, or whose value is.
    pub fn fill(&self, text: &str) -> Result<String> {
        ci::fill(text, |name| self.value(name)).map_err(|error| error.within(format!("'{text}' in ci/components.toml")))
    }

    fn value(&self, name: &str) -> Result<String> {
        let needs = |value: &Option<String>, option: &str| {
            value.clone().ok_or_else(|| Error::new(Cause::Usage, format!("{{{name}}} has no value")).next(option))
        };
        match name {
            "kubeconfig" => Ok(self.kubeconfig.display().to_string()),
            "goarch" => Ok(self.platform.arch.clone()),
            "platform" => Ok(self.platform.to_string()),
            "repo" => needs(&self.repo, "add --repo REPOSITORY"),
            "registry" => needs(&self.registry, "add --repo REPOSITORY"),
            "namespace" => needs(&self.namespace, "add namespace to the tests of the component"),
            _ => match self.builds.get(name) {
                Some(program) => Ok(program.display().to_string()),
                None => Err(Error::new(Cause::Usage, format!("{{{name}}} is no placeholder"))),
            },
        }
    }
}

/// A `KEY=VALUE` of the command line.
///
/// # Errors
/// In words, if it is none.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write KEY=VALUE".into()),
    }
}

/// Finds the programs that tests call.
///
/// # Errors
/// [`Cause::MissingProgram`], naming all that are missing and the tests that need them.
pub fn programs(component: &Component) -> Result<Vec<PathBuf>> {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for (name, purpose) in &component.programs {
        let variable = format!("OTHER_ARCH_{}", name.to_uppercase().replace(['-', '.'], "_"));
        let program = process::find_program(name, &variable, purpose, "install it").or_else(|error| {
            // The lab's own parts, which are not on anybody's PATH.
            dirs::cache().ok().and_then(|cache| built(&cache.join("bin"), name)).ok_or(error)
        });
        match program {
            Ok(program) => found.push(program),
            Err(_) => missing.push(format!("'{name}' ({purpose}); or set {variable}")),
        }
    }
    if missing.is_empty() {
        return Ok(found);
    }
    Err(Error::new(Cause::MissingProgram, format!("the tests need {}", missing.join(", ")))
        .next("install it and put it on PATH"))
}

/// The newest program of that name under `<bin>/<part>/<key>/`.
fn built(bin: &Path, name: &str) -> Option<PathBuf> {
    let entries = |folder: PathBuf| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let programs = entries(bin.to_path_buf()).flat_map(entries).map(|key| key.join(name));
    programs
        .filter(|program| program.is_file())
        .max_by_key(|program| program.metadata().and_then(|m| m.modified()).ok())
}

/// What of the caller's environment tests get.
#[must_use]
pub fn of_caller() -> BTreeMap<String, OsString> {
    KEPT.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var_os(name)?))).collect()
}

/// The whole environment of a test program.
///
/// # Errors
/// [`Cause::Usage`] for placeholders without a value.
pub fn variables(
    env: &BTreeMap<String, String>,
    values: &Values,
    chosen: &[(String, String)],
    programs: &[PathBuf],
    go_bin: &Path,
    package: &Path,
) -> Result<BTreeMap<String, OsString>> {
    let mut all = of_caller();
    // `go test` puts Go's own programs first (cmd/go, test.go).
    let folders: BTreeSet<_> = programs.iter().filter_map(|program| program.parent()).collect();
    let caller = std::env::var_os("PATH").unwrap_or_default();
    // An empty part would be the folder that a program runs in.
    let go_bin = Some(go_bin.to_path_buf()).filter(|folder| !folder.as_os_str().is_empty());
    let path =
        go_bin.into_iter().chain(folders.into_iter().map(Path::to_path_buf)).chain(std::env::split_paths(&caller));
    all.insert("PATH".into(), std::env::join_paths(path).unwrap_or(caller));
    all.insert("PWD".into(), package.into());
    all.insert("KUBECONFIG".into(), values.kubeconfig.clone().into());
    for (name, value) in env {
        all.insert(name.clone(), values.fill(value)?.into());
    }
    all.extend(chosen.iter().map(|(name, value)| (name.clone(), OsString::from(value))));
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Values {
        Values {
            kubeconfig: "/k".into(),
            platform: "linux/s390x".parse().unwrap(),
            repo: None,
            registry: None,
            namespace: Some("ns".into()),
            builds: BTreeMap::from([("tkn".to_owned(), "/cache/tkn".into())]),
        }
    }

    #[test]
    fn placeholders_are_filled_or_refused() {
        assert_eq!(values().fill("-kubeconfig={kubeconfig}").unwrap(), "-kubeconfig=/k");
        assert_eq!(values().fill("{goarch} on {platform} in {namespace}{").unwrap(), "s390x on linux/s390x in ns{");
        assert_eq!(values().fill("{tkn} -k {kubeconfig}").unwrap(), "/cache/tkn -k /k");
        for text in ["{repo}/x", "{colour}"] {
            assert_eq!(values().fill(text).unwrap_err().cause, Cause::Usage, "{text}");
        }
    }

    #[test]
    fn the_caller_s_cluster_is_not_passed_on() {
        let env = BTreeMap::from([("TEST_RUNTIME_ARCH".to_owned(), "{goarch}".to_owned())]);
        let chosen = [("GREETER_TEST".to_owned(), "fail".to_owned())];
        let all =
            variables(&env, &values(), &chosen, &["/opt/x/kubectl".into()], Path::new("/go/bin"), Path::new("/src"))
                .unwrap();
        assert_eq!(all["KUBECONFIG"], "/k");
        assert_eq!(all["TEST_RUNTIME_ARCH"], "s390x");
        assert_eq!(all["GREETER_TEST"], "fail");
        assert!(all["PATH"].to_str().unwrap().starts_with("/go/bin:/opt/x:"));
        assert!(!all.contains_key("KUBERNETES_SERVICE_HOST"));
        let without = variables(&env, &values(), &[], &[], Path::new(""), Path::new("/src")).unwrap();
        assert!(!without["PATH"].to_str().unwrap().starts_with(':'));
    }

    #[test]
    fn all_missing_programs_are_named_at_once() {
        let component: Component = kit::config::parse(
            "config = []\npath = 'x'\n[programs]\nno-such-one = 'TestA asks it'\nno-such-two = 'TestB'\n",
            "x",
        )
        .unwrap();
        let error = programs(&component).unwrap_err();
        assert_eq!(error.cause, Cause::MissingProgram);
        let said = error.to_string();
        assert!(said.contains("'no-such-one' (TestA asks it)") && said.contains("'no-such-two'"), "{said}");
    }
}
