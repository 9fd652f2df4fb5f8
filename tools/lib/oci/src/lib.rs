//! Registries and OCI layouts: reading, verifying and pushing images.
//!
//! What comes from a registry or a layout is hostile: manifests and configs are bounded, digests are
//! checked, layers are read in bounded memory. What an image ought to be is decided elsewhere; here is
//! found out what it is.

mod archive;
mod artifact;
mod auth;
mod body;
mod client;
mod deep;
mod describe;
mod details;
mod document;
mod extension;
mod fetch;
mod files;
mod header;
mod inbox;
mod index;
mod layer;
mod layout;
mod place;
mod program;
mod pull;
mod push;
mod reference;
mod referrers;
mod root;
mod search;
mod user;
mod verify;

pub use archive::archive;
pub use artifact::{
    ARTIFACT_TYPE_INPUTS, ARTIFACT_TYPE_RELEASE, Artifact, ArtifactFile, find_artifact, pull_artifact, push_artifact,
    store_artifact,
};
pub use client::{Client, Sent};
pub use deep::Memory;
pub use describe::{About, Described, describe};
pub use details::{Details, PlatformDetails, answers, details};
pub use document::{Document, canonical, descriptor, is_image, is_index};
pub use extension::Extension;
pub use files::{FileKind, file_kind, verify_file};
pub use header::program_header;
pub use inbox::{Inbox, Received};
pub use index::{Offer, Offering, offered, offers};
pub use layout::Layout;
pub use oci_spec::image as spec;
pub use place::Place;
pub use program::program;
pub use pull::{Part, parts, platform_json, pull};
pub use push::{Pushed, Tree, copy, restore};
pub use reference::{Reference, insecure, mirror, parse, pinned};
pub use referrers::{digest_tag, push_referrer, referrers, subject};
pub use verify::{Checked, verify, verify_deep};

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kit::{Cause, Context, Error, Result};
use tokio::runtime::Runtime;

/// Runs asynchronous work to its end, or to the first signal.
///
/// All calls of a process share one runtime, for a client's open connections belong to the runtime that
/// they were opened in.
///
/// # Errors
/// What the work returns, or [`Cause::Interrupted`].
pub fn run<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    run_on(Duration::ZERO, work)
}

/// As [`run`], for work that looks for signals itself ([`kit::signal::check`]): after one it has `grace` to come to an
/// end, so that nothing is broken off in the middle.
///
/// # Errors
/// What the work returns, or [`Cause::Interrupted`].
pub fn run_on<T>(grace: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    let (stop, mut stopped) = tokio::sync::mpsc::unbounded_channel();
    let _subscription = kit::signal::subscribe(move |number| stop.send(number).is_ok());
    kit::signal::check()?;
    runtime()?.block_on(async {
        let mut work = std::pin::pin!(work);
        tokio::select! {
            result = &mut work => result,
            Some(number) = stopped.recv() => match tokio::time::timeout(grace, work).await {
                Ok(result) => result,
                Err(_) => Err(Error::interrupted(number)),
            },
        }
    })
}

fn runtime() -> Result<Arc<Runtime>> {
    static RUNTIME: Mutex<Option<Arc<Runtime>>> = Mutex::new(None);
    let mut shared = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(runtime) = &*shared {
        return Ok(Arc::clone(runtime));
    }
    let made = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build();
    let made = Arc::new(made.cause(Cause::Internal, || "cannot start the asynchronous runtime")?);
    *shared = Some(Arc::clone(&made));
    Ok(made)
}
