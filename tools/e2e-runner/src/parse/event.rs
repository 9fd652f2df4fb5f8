//! One line of `go test -json` (`go doc test2json`, `go help buildjson`), and lines that are none.

use std::borrow::Cow;

use serde::Deserialize;

/// What happened. Actions of a Go that is newer than this table are [`Action::Other`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// A package's test program is about to run.
    Start,
    /// A test began.
    Run,
    /// A parallel test waits for its turn.
    Pause,
    /// It goes on.
    Cont,
    /// A test or package passed.
    Pass,
    /// A test or package failed.
    Fail,
    /// A test skipped itself, or a package has no tests.
    Skip,
    /// A benchmark logged something and did not fail.
    Bench,
    /// A piece of output.
    Output,
    /// A piece of the compiler's output.
    BuildOutput,
    /// A package does not compile.
    BuildFail,
    /// None of these.
    #[default]
    #[serde(other)]
    Other,
}

/// An event.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Event<'a> {
    /// What happened.
    pub action: Action,
    /// When, RFC 3339.
    #[serde(borrow, default)]
    pub time: Cow<'a, str>,
    /// In which package.
    #[serde(borrow, default)]
    pub package: Cow<'a, str>,
    /// To which test; empty for the package itself.
    #[serde(borrow, default)]
    pub test: Cow<'a, str>,
    /// How long it took, in seconds.
    #[serde(default)]
    pub elapsed: Option<f64>,
    /// The output, mostly with the end of its line.
    #[serde(borrow, default)]
    pub output: Cow<'a, str>,
    /// Of build events: the package that is compiled.
    #[serde(borrow, default)]
    pub import_path: Cow<'a, str>,
    /// The package whose compilation failed, in the end event of a package that needs it.
    #[serde(borrow, default)]
    pub failed_build: Cow<'a, str>,
}

/// A line of the stream.
#[derive(Debug, PartialEq)]
pub enum Line<'a> {
    /// An event.
    Event(Event<'a>),
    /// Anything else: what a build prints, a program's own output, a line that was cut off.
    Text(Cow<'a, str>),
}

/// Reads a line, without its end. What is not an event is text; nothing is an error.
#[must_use]
pub fn decode(line: &[u8]) -> Line<'_> {
    // An event is an object with an action; text may look like JSON and be something else.
    let event = if line.first() == Some(&b'{') { serde_json::from_slice(line).ok() } else { None };
    event.map_or_else(|| Line::Text(String::from_utf8_lossy(line)), Line::Event)
}

/// The top-level test that `test` is or belongs to.
#[must_use]
pub fn top(test: &str) -> &str {
    test.split('/').next().unwrap_or(test)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_an_object_with_an_action() {
        let Line::Event(event) = decode(br#"{"Action":"pass","Test":"TestA/\u003cb","Elapsed":1.5,"New":{"x":[1]}}"#)
        else {
            panic!("it is one")
        };
        assert_eq!((event.action, &*event.test, event.elapsed), (Action::Pass, "TestA/<b", Some(1.5)));
        assert!(matches!(decode(br#"{"Action":"levitate"}"#), Line::Event(Event { action: Action::Other, .. })));
    }

    #[test]
    fn everything_else_is_text() {
        for line in ["", "ok  \tx\t0.1s", "{", r#"{"Test":"x"}"#, r#"{"Action":"out"#, "[1]", r#"{"Action":1}"#] {
            assert_eq!(decode(line.as_bytes()), Line::Text(line.into()));
        }
        assert_eq!(decode(b"{\"Action\":\"\xff\"}"), Line::Text("{\"Action\":\"\u{fffd}\"}".into()));
        let deep = format!("{{\"Action\":\"run\",\"X\":{}", "[".repeat(100_000));
        assert!(matches!(decode(deep.as_bytes()), Line::Text(_)));
    }

    #[test]
    fn the_top_of_a_test() {
        assert_eq!((top("TestA"), top("TestA/b/c"), top("")), ("TestA", "TestA", ""));
    }
}
