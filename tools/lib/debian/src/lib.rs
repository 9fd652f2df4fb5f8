//! Debian's packages of any architecture as files: find, fetch, take apart, put together.
//!
//! No maintainer script runs and the machine's own packages stay as they are, so any machine can do this for any
//! architecture, with the same bytes each time.

pub mod apt;
pub mod deb;
pub mod tree;

pub use apt::Package;
pub use deb::Deb;
pub use tree::Tree;
