//! Registries and OCI layouts: reading, verifying and pushing images.
//!
//! What comes from a registry or a layout is hostile: manifests and configs are bounded, digests are
//! checked, layers are read in bounded memory. What an image ought to be is decided elsewhere; here is
//! found out what it is.

mod auth;
mod body;
mod client;
mod document;
mod header;
mod layer;
mod layout;
mod place;
mod push;
mod reference;
mod root;
mod verify;

pub use client::Client;
pub use document::{Document, canonical, descriptor, is_image, is_index};
pub use header::program_header;
pub use layout::Layout;
pub use oci_spec::image as spec;
pub use place::Place;
pub use push::{ARTIFACT_TYPE_RELEASE, copy, pull_artifact, push_artifact};
pub use reference::{Reference, insecure, mirror, parse, pinned};
pub use verify::{Checked, offered, offers, verify};

use std::future::Future;

use kit::{Cause, Context, Error, Result};

/// Runs asynchronous work to its end, or to the first signal.
///
/// # Errors
/// What the work returns, or [`Cause::Interrupted`].
pub fn run<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().worker_threads(2).build();
    let runtime = runtime.cause(Cause::Internal, || "cannot start the asynchronous runtime")?;
    let (stop, mut stopped) = tokio::sync::mpsc::unbounded_channel();
    let _subscription = kit::signal::subscribe(move |number| stop.send(number).is_ok());
    let result = runtime.block_on(async {
        tokio::select! {
            result = work => result,
            Some(number) = stopped.recv() => Err(Error::interrupted(number)),
        }
    });
    // Whatever still reads or writes in the background must not hold up the end.
    runtime.shutdown_background();
    result
}
