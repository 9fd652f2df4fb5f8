//! What every tool shares: architectures, outcomes and causes, records, processes, progress.
//!
//! Nothing here talks to a cluster or a registry: `cluster` and `oci` do.

pub mod arch;
pub mod bundle;
pub mod ci;
pub mod cli;
pub mod config;
pub mod digest;
pub mod dirs;
mod error;
mod outcome;
pub mod process;
pub mod record;
pub mod retry;
pub mod rundir;
pub mod secrets;
pub mod signal;
pub mod source;
pub mod stage;
pub mod ui;

pub use arch::{Arch, Platform};
pub use cli::{Common, Done, Tool};
pub use error::{BoxError, Context, Error, Result, Within};
pub use outcome::{Cause, Class, Exit, Outcome, combine};
pub use process::{Process, Stream};
pub use rundir::RunDir;
pub use ui::{Output, Step, Ui};
