//! Opening exactly the cluster that was named, and knowing which it is: identity, lease, objects,
//! waits with reasons.
//!
//! Nothing here reads `KUBECONFIG` or a user's current context unless the user said so.

pub mod aside;
pub mod credentials;
mod error;
pub mod explain;
mod identity;
pub mod inventory;
mod kinds;
pub mod kubeconfig;
mod lab;
pub mod lease;
pub mod namespace;
pub mod nature;
pub mod objects;
mod open;
mod options;
pub mod ours;
pub mod probe;
mod runtime;
pub mod watch;

pub use error::{KubeContext, cause_of, describe, fail};
pub use identity::identity;
pub use kinds::{Kind, Kinds};
pub use kit::record::Lab;
pub use lease::{Guard, LeaseState};
pub use open::{Opened, open, open_wide};
pub use options::{Options, Source};
pub use runtime::{block_on, interruptible, within};

/// The namespace of our own state: inventory and lease. It is no part of any component, so whoever
/// compares a cluster with its baseline leaves it out.
pub const NAMESPACE: &str = "other-arch";

/// How the API server knows what we applied.
pub const FIELD_MANAGER: &str = "other-arch";
