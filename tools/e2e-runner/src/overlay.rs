//! Lengths of time in the tests' own sources, stretched for slow nodes: the rules of `ci/components.toml` applied,
//! and what Go needs to compile with the result (`go help build`, `-overlay`). The sources stay as they are.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use kit::{
    Cause, Context, Error, Result, Within,
    ci::{Overlay, parse_duration},
    digest,
    record::SourceChange,
    rundir,
};

use crate::pace::Pace;

/// No source file of a test is larger.
const FILE_LIMIT: u64 = 4 << 20;

/// Sources as they are to be compiled.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overlaid {
    /// The new content by file, relative to the sources; empty where the tests keep their time.
    files: BTreeMap<String, String>,
    /// What was changed.
    pub changes: Vec<SourceChange>,
}

/// Applies all rules to the sources in `root`. They are also checked where no time is stretched: a rule that fits
/// nothing any more would otherwise be noticed on slow nodes only.
///
/// # Errors
/// [`Cause::BuildFailure`] naming the rule whose text is not there as often as it says.
pub fn apply(rules: &[Overlay], root: &Path, pace: &Pace) -> Result<Overlaid> {
    let mut overlaid = Overlaid::default();
    for rule in rules {
        let within = || format!("ci/components.toml: overlay of {}", rule.file);
        let text = match overlaid.files.get(&rule.file) {
            Some(text) => text.clone(),
            None => read(root, &rule.file).within(within)?,
        };
        let times = if rule.find.is_empty() { 0 } else { text.matches(&rule.find).count() };
        if times != rule.times || times == 0 {
            let what = format!("{}: the text is there {times} times, and the rule says {}", within(), rule.times);
            let next = "see what the component's sources say now, and correct the rule";
            return Err(Error::new(Cause::BuildFailure, what).line(rule.find.clone()).next(next));
        }
        let replace = fill(&rule.replace, pace).within(within)?;
        overlaid.files.insert(rule.file.clone(), text.replace(&rule.find, &replace));
        let (file, find) = (rule.file.clone(), rule.find.clone());
        overlaid.changes.push(SourceChange { file, find, replace, times });
    }
    Ok(if pace.factor() == 1 { Overlaid::default() } else { overlaid })
}

fn read(root: &Path, file: &str) -> Result<String> {
    let inside = Path::new(file).components().all(|part| matches!(part, std::path::Component::Normal(_)));
    if !inside {
        return Err(Error::new(Cause::Usage, "its file does not lie in the component's sources"));
    }
    let bytes = rundir::read_limited(&root.join(file), FILE_LIMIT).map_err(|mut error| {
        // The component has changed, not the call: what was there is not there any more.
        error.cause = Cause::BuildFailure;
        error
    })?;
    String::from_utf8(bytes).cause(Cause::BuildFailure, || "its file is not UTF-8")
}

/// Puts seconds in the place of `{15m}`.
fn fill(text: &str, pace: &Pace) -> Result<String> {
    let (mut filled, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('{') {
        let Some((length, after)) = after.split_once('}') else { break };
        let length = pace.stretch(parse_duration(length)?);
        let seconds = length.as_secs() + u64::from(length.subsec_nanos() > 0);
        let _ = write!(filled, "{before}{seconds}");
        rest = after;
    }
    Ok(filled + rest)
}

impl Overlaid {
    /// Whether the sources are compiled as they are.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty()
    }

    /// Changes with what is compiled.
    #[must_use]
    pub fn key(&self) -> String {
        if self.is_empty() { String::new() } else { digest::hex(format!("{:?}", self.files).as_bytes()) }
    }

    /// Writes the changed files and Go's list of them into `folder`; returns the path of the list.
    ///
    /// # Errors
    /// [`Cause::HostDisk`] naming the file.
    pub fn write(&self, root: &Path, folder: &Path) -> Result<std::path::PathBuf> {
        let mut list = BTreeMap::new();
        for (number, (file, text)) in self.files.iter().enumerate() {
            let new = folder.join(format!("{number}.go"));
            rundir::write(&new, text.as_bytes())?;
            list.insert(root.join(file), new);
        }
        let path = folder.join("overlay.json");
        rundir::write_json(&path, &serde_json::json!({ "Replace": list }))?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(find: &str, replace: &str, times: usize) -> Overlay {
        Overlay { file: "test/wait.go".into(), find: find.into(), replace: replace.into(), times }
    }

    fn sources() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let text = "const timeout = 15 * time.Minute\n// wait 5s, then 5s\n";
        std::fs::create_dir(folder.path().join("test")).unwrap();
        std::fs::write(folder.path().join("test/wait.go"), text).unwrap();
        folder
    }

    #[test]
    fn lengths_are_stretched_and_the_sources_stay() {
        let (folder, slow) = (sources(), Pace::new(Some(15.0), None));
        let rules = [rule("timeout = 15 * time.Minute", "timeout = {15m} * time.Second", 1), rule("5s", "{500ms}s", 2)];
        let overlaid = apply(&rules, folder.path(), &slow).unwrap();
        assert_eq!(overlaid.files["test/wait.go"], "const timeout = 14400 * time.Second\n// wait 8s, then 8s\n");
        assert_eq!((overlaid.changes[1].replace.as_str(), overlaid.changes[1].times), ("8s", 2));
        let out = tempfile::tempdir().unwrap();
        let list = overlaid.write(folder.path(), out.path()).unwrap();
        let list: serde_json::Value = serde_json::from_slice(&std::fs::read(list).unwrap()).unwrap();
        let new = list["Replace"][folder.path().join("test/wait.go").to_str().unwrap()].as_str().unwrap();
        assert!(std::fs::read_to_string(new).unwrap().contains("14400"));
        let same = apply(&rules, folder.path(), &Pace::default()).unwrap();
        assert!(same.is_empty() && same.changes.is_empty() && same.key().is_empty());
    }

    #[test]
    fn a_rule_that_does_not_fit_is_named_at_any_pace() {
        let folder = sources();
        for (rule, said) in [
            (rule("20 * time.Minute", "x", 1), "the text is there 0 times, and the rule says 1"),
            (rule("5s", "x", 1), "the text is there 2 times, and the rule says 1"),
            (rule("", "x", 0), "the text is there 0 times"),
            (Overlay { file: "test/gone.go".into(), ..rule("a", "b", 1) }, "overlay of test/gone.go"),
        ] {
            let error = apply(&[rule], folder.path(), &Pace::default()).unwrap_err();
            assert_eq!((error.cause, error.exit()), (Cause::BuildFailure, kit::Exit::NOT_GOOD));
            assert!(error.to_string().contains(said), "{error}");
        }
        let outside = Overlay { file: "../x.go".into(), ..rule("a", "b", 1) };
        assert_eq!(apply(&[outside], folder.path(), &Pace::default()).unwrap_err().cause, Cause::Usage);
        let wrong = apply(&[rule("15", "{soon}", 1)], folder.path(), &Pace::default()).unwrap_err();
        assert!(wrong.to_string().contains("'soon' is no length of time"), "{wrong}");
    }
}
