//! `go test -json` in: tests with their results, and a log for each.
//!
//! The stream is read in memory that does not grow with its output: only the tests that run, and
//! a few words on each that ended, are kept. Logs go to bounded files.

pub mod event;
pub mod lines;
pub mod log;
mod package;
mod result;
pub mod stream;

pub use result::{Ended, Failure, Observer, PackageEnd, Parsed};
pub(crate) use stream::ENDED;
pub use stream::Stream;
