//! The one error type: what was tried, on what, why it failed, which cause that is, what to do next.

use std::{error::Error as StdError, fmt};

use crate::{Cause, Exit};

/// A boxed error of a library.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// What our functions return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure with its cause.
///
/// Printed as `what: why`, and on lines of their own the deciding line and what to do next.
#[derive(Debug)]
pub struct Error {
    /// Decides class and exit code.
    pub cause: Cause,
    /// The operation and the file, object or image, from the outermost to the innermost.
    pub what: Vec<String>,
    /// The line of a log or an answer that decided the cause.
    pub line: Option<String>,
    /// What the user can do.
    pub next: Option<String>,
    /// Set when a signal ended it: the exit code is then 128 and this.
    pub signal: Option<i32>,
    source: Option<BoxError>,
}

impl Error {
    /// An error of ours, without another below it.
    pub fn new(cause: Cause, what: impl Into<String>) -> Self {
        Self { cause, what: vec![what.into()], line: None, next: None, signal: None, source: None }
    }

    /// An error that another error caused.
    pub fn from_source(cause: Cause, what: impl Into<String>, source: impl Into<BoxError>) -> Self {
        Self { source: Some(source.into()), ..Self::new(cause, what) }
    }

    /// Ended by signal `number`.
    #[must_use]
    pub fn interrupted(number: i32) -> Self {
        Self { signal: Some(number), ..Self::new(Cause::Interrupted, format!("stopped by signal {number}")) }
    }

    /// Says around it what was being done; the cause stays.
    #[must_use]
    pub fn within(mut self, what: impl Into<String>) -> Self {
        self.what.insert(0, what.into());
        self
    }

    /// Keeps the line that decided the cause.
    #[must_use]
    pub fn line(mut self, line: impl Into<String>) -> Self {
        self.line = Some(line.into());
        self
    }

    /// Says what to do next.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// The exit code: the cause's, or 128 and the signal.
    #[must_use]
    pub fn exit(&self) -> Exit {
        self.signal.map_or(self.cause.exit(), |number| Exit(u8::try_from(128 + number).unwrap_or(255)))
    }

    /// The whole chain on one line, without the hint.
    #[must_use]
    pub fn summary(&self) -> String {
        let mut text = self.what.join(": ");
        let mut source = self.source.as_deref().map(|source| source as &dyn StdError);
        while let Some(error) = source {
            let said = error.to_string();
            // Many libraries repeat the inner error in the outer one.
            if !text.contains(&said) {
                text = format!("{text}: {said}");
            }
            source = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary())?;
        if let Some(line) = &self.line {
            write!(f, "\n  > {}", line.trim_end().replace('\n', "\n  > "))?;
        }
        if let Some(next) = &self.next {
            write!(f, "\n  next: {next}")?;
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn StdError + 'static))
    }
}

/// Turns a library's error into ours, at the place that knows the cause and the culprit.
pub trait Context<T> {
    /// With this cause, while doing `what`.
    ///
    /// # Errors
    /// The error, with cause and context.
    fn cause<S: Into<String>>(self, cause: Cause, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T, E: Into<BoxError>> Context<T> for Result<T, E> {
    fn cause<S: Into<String>>(self, cause: Cause, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| Error::from_source(cause, what(), error))
    }
}

/// Adds context to an error that has its cause already.
pub trait Within<T> {
    /// While doing `what`.
    ///
    /// # Errors
    /// The same error, with more context.
    fn within<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T>;
}

impl<T> Within<T> for Result<T> {
    fn within<S: Into<String>>(self, what: impl FnOnce() -> S) -> Result<T> {
        self.map_err(|error| error.within(what()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_where_why_and_next() {
        let error = Err::<(), _>(std::io::Error::other("no space left"))
            .cause(Cause::HostDisk, || "cannot write x.json")
            .within(|| "build of greeter")
            .unwrap_err()
            .line("E: disk\n")
            .next("free some space");
        assert_eq!(
            error.to_string(),
            "build of greeter: cannot write x.json: no space left\n  > E: disk\n  next: free some space"
        );
        assert_eq!(error.exit(), Exit::INFRASTRUCTURE);
        assert_eq!(Error::interrupted(2).exit(), Exit(130));
    }
}
