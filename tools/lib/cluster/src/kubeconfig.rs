//! Reading kubeconfigs: which context is meant, and a copy that holds only that one.

use std::path::{Path, PathBuf};

use kit::{Cause, Context, Error, Result, rundir::read_limited};
use kube::config::{ExecInteractiveMode, Kubeconfig};

/// A larger file is no kubeconfig.
const LIMIT: u64 = 4 << 20;

/// How long a kubeconfig's own program may take to give credentials, in seconds.
pub(crate) const EXEC_LIMIT: u64 = 30;

/// Reads one file, with the paths in it made absolute.
///
/// # Errors
/// [`Cause::Usage`] if it is none.
pub fn read(path: &Path) -> Result<Kubeconfig> {
    // The library panics on UTF-16 of an odd length.
    std::str::from_utf8(&read_limited(path, LIMIT)?)
        .cause(Cause::Usage, || format!("{} is not a kubeconfig: it is not UTF-8", path.display()))?;
    let config = Kubeconfig::read_from(path)
        .map_err(|error| Error::from_source(Cause::Usage, format!("{} is not a kubeconfig", path.display()), error))?;
    if config.contexts.is_empty() {
        return Err(Error::new(Cause::Usage, format!("{} is not a kubeconfig: it has no contexts", path.display())));
    }
    Ok(config)
}

/// Reads and merges the files of `$KUBECONFIG`; the name says which they were.
///
/// # Errors
/// [`Cause::Usage`] if there are none, or if one is no kubeconfig.
pub fn read_env() -> Result<(Kubeconfig, String)> {
    let value = std::env::var_os("KUBECONFIG").filter(|value| !value.is_empty());
    let value =
        value.ok_or_else(|| Error::new(Cause::Usage, "--kubeconfig env, but $KUBECONFIG is not set or empty"))?;
    let paths: Vec<PathBuf> = std::env::split_paths(&value).filter(|path| !path.as_os_str().is_empty()).collect();
    let mut merged = Kubeconfig::default();
    for path in &paths {
        merged = merged.merge(read(path)?).cause(Cause::Usage, || format!("cannot merge {}", path.display()))?;
    }
    Ok((merged, format!("$KUBECONFIG ({})", value.to_string_lossy())))
}

/// The context that is meant: the one named; the only one; or, if the file itself was named
/// (`explicit`), the one that the file calls current.
///
/// # Errors
/// [`Cause::Usage`]; the message lists those that there are.
pub fn choose(config: &Kubeconfig, name: &str, context: Option<&str>, explicit: bool) -> Result<String> {
    let known: Vec<&str> = config.contexts.iter().map(|context| context.name.as_str()).collect();
    let listed = || format!("its contexts: {}", known.join(", "));
    if let Some(context) = context {
        return known.contains(&context).then(|| context.to_owned()).ok_or_else(|| {
            Error::new(Cause::Usage, format!("{name} has no context '{context}'"))
                .next(format!("name one of {}", listed()))
        });
    }
    match (&known[..], config.current_context.as_deref()) {
        ([only], _) => Ok((*only).to_owned()),
        (_, Some(current)) if explicit && known.contains(&current) => Ok(current.to_owned()),
        _ => Err(Error::new(Cause::Usage, format!("{name} has {} contexts and none was named", known.len()))
            .next(format!("add --context NAME; {}", listed()))),
    }
}

/// A copy with one context and what belongs to it: nothing else can be taken for it.
#[must_use]
pub fn narrow(config: &Kubeconfig, context: &str) -> Kubeconfig {
    let mut narrow = config.clone();
    narrow.current_context = Some(context.to_owned());
    narrow.contexts.retain(|named| named.name == context);
    let chosen = narrow.contexts.first().and_then(|named| named.context.clone()).unwrap_or_default();
    narrow.clusters.retain(|named| named.name == chosen.cluster);
    narrow.auth_infos.retain(|named| Some(&named.name) == chosen.user.as_ref());
    narrow
}

/// Runs the kubeconfig's own program, if it has one, under coreutils' `timeout` and without our
/// terminal: one that hangs or asks would stop us for ever, and the client sets no limit itself.
pub(crate) fn bound_exec(mut config: Kubeconfig) -> Kubeconfig {
    for user in config.auth_infos.iter_mut().filter_map(|user| user.auth_info.as_mut()) {
        let Some(exec) = &mut user.exec else { continue };
        let Some(command) = exec.command.take() else { continue };
        let mut words = vec!["--kill-after=5".to_owned(), EXEC_LIMIT.to_string(), command];
        words.append(exec.args.get_or_insert_default());
        exec.args = Some(words);
        exec.command = Some("timeout".into());
        exec.interactive_mode = Some(ExecInteractiveMode::Never);
    }
    config
}

/// Writes it to a file that only this user can read, and that goes when the value is dropped.
pub(crate) fn store(config: &Kubeconfig) -> Result<tempfile::TempPath> {
    let write = || -> std::io::Result<tempfile::TempPath> {
        // JSON is YAML.
        let file = tempfile::Builder::new().prefix("other-arch-kubeconfig-").suffix(".yaml").tempfile()?;
        serde_json::to_writer(&file, config)?;
        Ok(file.into_temp_path())
    };
    write().cause(Cause::HostDisk, || "cannot write a kubeconfig for the programs that we start")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two(current: &str) -> Kubeconfig {
        Kubeconfig::from_yaml(&format!(
            "{{apiVersion: v1, kind: Config, current-context: '{current}',
              contexts: [{{name: a, context: {{cluster: ca, user: ua}}}}, {{name: b, context: {{cluster: cb, user: ub}}}}],
              clusters: [{{name: ca, cluster: {{server: 'https://a'}}}}, {{name: cb, cluster: {{server: 'https://b'}}}}],
              users: [{{name: ua, user: {{token: x}}}}, {{name: ub, user: {{exec: {{command: plugin, args: [get]}}}}}}]}}"
        ))
        .unwrap()
    }

    #[test]
    fn the_context_is_never_an_accident() {
        assert_eq!(choose(&two("a"), "f", Some("b"), true).unwrap(), "b");
        assert_eq!(choose(&two("b"), "f", None, true).unwrap(), "b");
        for (config, context, explicit) in
            [(two("b"), None, false), (two("gone"), None, true), (two("a"), Some("c"), true)]
        {
            let error = choose(&config, "f", context, explicit).unwrap_err();
            assert_eq!(error.cause, Cause::Usage);
            assert!(error.to_string().contains("a, b"), "{error}");
        }
        assert_eq!(choose(&narrow(&two("a"), "b"), "f", None, false).unwrap(), "b");
    }

    #[test]
    fn the_copy_holds_one_cluster_and_one_user() {
        let copy = narrow(&two("a"), "b");
        let text = serde_json::to_string(&copy).unwrap();
        assert!(text.contains("https://b") && !text.contains("https://a") && !text.contains("\"ua\""), "{text}");
        assert_eq!(copy.current_context.as_deref(), Some("b"));
        let path = store(&copy).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(&path).unwrap().permissions());
        assert_eq!(mode & 0o077, 0);
        assert_eq!(read(&path).unwrap().contexts.len(), 1);
    }

    #[test]
    fn plugins_have_a_time_limit() {
        let config = bound_exec(narrow(&two("a"), "b"));
        let exec = config.auth_infos[0].auth_info.clone().unwrap().exec.unwrap();
        assert_eq!(exec.command.as_deref(), Some("timeout"));
        assert_eq!(exec.args.unwrap(), ["--kill-after=5", "30", "plugin", "get"]);
    }

    #[test]
    fn files_that_are_no_kubeconfig_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config");
        assert!(read(&path).unwrap_err().to_string().contains("config"));
        for bytes in [&b""[..], b"\xff\xfe\x00", b"{{{{", b"[1, 2]", b"kind: Pod\n", b"contexts: 7\n", &[0x80; 64]] {
            std::fs::write(&path, bytes).unwrap();
            let error = read(&path).unwrap_err();
            assert_eq!(error.cause, Cause::Usage, "{bytes:?}");
            assert!(error.to_string().contains("config"), "{error}");
        }
    }
}
