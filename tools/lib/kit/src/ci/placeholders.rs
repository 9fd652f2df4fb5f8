//! Placeholders in `ci/components.toml`: which there are where, and how their values take their places.

use super::Component;
use crate::Result;

/// Those of tests, whose values a run knows. The component's builds are others, by their names.
pub(super) const KNOWN: &[&str] = &["kubeconfig", "goarch", "platform", "repo", "registry", "namespace"];
/// Those of flags for Go's linker.
const OF_BUILDS: &[&str] = &["commit7", "version"];

/// Puts values in the place of placeholders, as in `{kubeconfig}`.
///
/// # Errors
/// What `value` returns.
pub fn fill(text: &str, mut value: impl FnMut(&str) -> Result<String>) -> Result<String> {
    let (mut filled, mut rest) = (String::new(), text);
    while let Some((before, after)) = rest.split_once('{') {
        let Some((name, after)) = after.split_once('}') else { break };
        filled.push_str(before);
        filled.push_str(&value(name)?);
        rest = after;
    }
    Ok(filled + rest)
}

/// The placeholders of a text.
fn names(text: &str) -> impl Iterator<Item = &str> {
    text.split('{').skip(1).filter_map(|part| part.split_once('}')).map(|(name, _)| name)
}

/// A placeholder of the component that stands for nothing, if there is one.
pub(super) fn problem(component: &Component) -> Option<String> {
    let Component { tests, examples, unit, scripts, ldflags, builds, .. } = component;
    let own: Vec<_> = KNOWN.iter().copied().chain(builds.keys().map(String::as_str)).collect();
    let here = own.as_slice();
    let tests = [("tests", tests), ("examples", examples)].into_iter().filter_map(|(name, tests)| {
        let tests = tests.as_ref()?;
        Some((name.to_owned(), tests.args.iter().chain(tests.env.values()).chain(tests.passes.iter().flatten())))
    });
    let tests = tests.flat_map(|(name, texts)| texts.map(move |text| (name.clone(), text, here)));
    // What is built for this machine is not where unit tests run.
    let unit = unit.iter().flat_map(|unit| unit.args.iter().chain(unit.env.values()).chain(&unit.base));
    let unit = unit.map(|text| ("unit".to_owned(), text, KNOWN));
    let scripts = scripts.iter().flat_map(|(name, script)| {
        let texts = script.command.iter().chain(script.env.values());
        texts.map(move |text| (format!("script {name}"), text, here))
    });
    let flags = ldflags.iter().map(|text| ("ldflags".to_owned(), text, OF_BUILDS));
    tests.chain(unit).chain(scripts).chain(flags).find_map(|(place, text, known)| {
        let stranger = names(text).find(|name| !known.contains(name))?;
        Some(format!("{place}: '{text}': {{{stranger}}} is no placeholder; there are {}", known.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use crate::{Cause, Error, ci::Ci};

    use super::*;

    fn read(text: &str) -> Result<Component> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("components.toml"), format!("[a]\npath = 'x'\n{text}")).unwrap();
        Ci::new(folder.path()).component("a")
    }

    #[test]
    fn values_take_their_places() {
        let value = |name: &str| match name {
            "a" => Ok("1".to_owned()),
            _ => Err(Error::new(Cause::Usage, "unknown")),
        };
        assert_eq!(fill("{a}-{a}{", value).unwrap(), "1-1{");
        assert_eq!(names("x{a}}{b}{").collect::<Vec<_>>(), ["a", "b"]);
        assert!(fill("{b}", value).is_err());
    }

    #[test]
    fn a_placeholder_that_stands_for_nothing_is_refused() {
        let builds = "[a.builds]\ntkn = './cmd/tkn'\n";
        let tests = |more: &str| format!("{builds}[a.tests]\npackage = './t'\n{more}\n");
        let good = read(&tests("args = ['-k={kubeconfig}']\nenv = { BINARY = '{tkn}' }")).unwrap();
        assert_eq!((good.config.is_none(), good.builds["tkn"].as_str()), (true, "./cmd/tkn"));
        for (text, said) in [
            (tests("env = { X = '{tnk}' }"), "tests: '{tnk}': {tnk} is no placeholder; there are kubeconfig, goarch"),
            (tests("passes = [['{x}']]"), "namespace, tkn"),
            (format!("{builds}[a.examples]\npackage = './t'\nargs = ['{{x}}']\n"), "examples: '{x}'"),
            (format!("{builds}[a.unit]\npackages = ['./...']\nenv = {{ X = '{{tkn}}' }}\n"), "unit: '{tkn}'"),
            (format!("{builds}[a.scripts.s]\ncommand = ['{{x}}']\noutput = 'tap'\n"), "script s: '{x}'"),
            (format!("ldflags = ['{{commit}}']\n{builds}"), "there are commit7, version"),
        ] {
            let error = read(&text).unwrap_err();
            assert!(error.cause == Cause::Usage && error.to_string().contains(said), "{error}");
        }
    }

    #[test]
    fn what_is_not_installed_has_programs_and_nothing_else() {
        for (text, said) in [
            ("", "needs config, what is installed of it, or builds"),
            ("[a.builds]\nx = './x'\n[a.bases]\ndefault = 's'\n", "are of what config installs"),
            ("[a.builds]\nx = './x'\n[a.settings.m]\nk = 'v'\n", "are of what config installs"),
            ("[a.builds]\nkubeconfig = './x'\n", "builds: 'kubeconfig' is no name"),
            ("[a.builds]\n'x/y' = './x'\n", "builds: 'x/y' is no name"),
            ("[a.builds]\nx = './...'\n", "builds: x: './...' is no package of its own, as in ./cmd/x"),
            ("[a.builds]\nx = '../x'\n", "is no package of its own"),
            ("[a.builds]\nx = './x'\n[a.suites.s]\npackage = './t'\n", "suite s: its package is one of"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.cause == Cause::Usage && error.to_string().contains(said), "{error}");
        }
        let error = read("needs = []\n[a.builds]\nx = './x'\n").unwrap().to_install("a").unwrap_err();
        assert!(error.cause == Cause::Usage && error.to_string().contains("nothing of a to install"), "{error}");
    }

    #[test]
    fn a_suite_may_have_a_package_of_its_own_and_flags_know_the_version() {
        let text = "commit = '0123456789'\nldflags = ['-X a={commit7}', '-X b={version}']\n[a.builds]\nx = './x'\n\
                    [a.tests]\npackage = './t'\n[a.suites.s]\npackage = './s'\n[a.suites.t]\n";
        let component = read(text).unwrap();
        assert_eq!(component.ldflags("v1"), ["-X a=0123456", "-X b=v1"]);
        let package = |suite: &str| component.tests.as_ref().unwrap().of_suite(&component.suites[suite]).package;
        assert_eq!((package("s").as_str(), package("t").as_str()), ("./s", "./t"));
    }
}
