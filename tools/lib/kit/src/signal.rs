//! Signals to this process, passed to whoever is interested: running children, waits, stages.

use std::sync::{
    Mutex, OnceLock,
    atomic::{AtomicI32, Ordering},
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM},
    iterator::Signals,
};

use crate::{Error, Result};

type Listener = Box<dyn Fn(i32) -> bool + Send>;

static RECEIVED: AtomicI32 = AtomicI32::new(0);
static LISTENERS: Mutex<Vec<(u64, Listener)>> = Mutex::new(Vec::new());
static INSTALLED: OnceLock<()> = OnceLock::new();

/// Ends the subscription when it is dropped.
pub struct Subscription(u64);

impl Drop for Subscription {
    fn drop(&mut self) {
        if let Ok(mut listeners) = LISTENERS.lock() {
            listeners.retain(|(id, _)| *id != self.0);
        }
    }
}

/// Begins to catch SIGINT, SIGTERM and SIGHUP. The first only tells the listeners. A second SIGINT ends this
/// process and what it waits for at once, for a user who does not want to wait.
pub fn install() {
    INSTALLED.get_or_init(|| {
        let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else { return };
        std::thread::spawn(move || {
            for number in signals.forever() {
                let earlier = RECEIVED.swap(number, Ordering::SeqCst);
                if let Ok(listeners) = LISTENERS.lock() {
                    for (_, listener) in listeners.iter() {
                        listener(number);
                    }
                }
                if earlier == SIGINT && number == SIGINT {
                    crate::process::kill_all();
                    let _ = signal_hook::low_level::emulate_default_handler(number);
                }
            }
        });
    });
}

/// Calls `listener` with the number of each signal from now on. It must not block.
#[must_use]
pub fn subscribe(listener: impl Fn(i32) -> bool + Send + 'static) -> Subscription {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);
    let id = NEXT.fetch_add(1, Ordering::SeqCst);
    if let Ok(mut listeners) = LISTENERS.lock() {
        listeners.push((id, Box::new(listener)));
    }
    Subscription(id)
}

/// The last signal received, if any.
#[must_use]
pub fn received() -> Option<i32> {
    Some(RECEIVED.load(Ordering::SeqCst)).filter(|number| *number != 0)
}

/// Forgets the signal, so that what must be done in any case (cleanup, records) can run.
pub fn forget() {
    RECEIVED.store(0, Ordering::SeqCst);
}

/// An error if a signal has come: for the top of loops.
///
/// # Errors
/// [`crate::Cause::Interrupted`].
pub fn check() -> Result<()> {
    received().map_or(Ok(()), |number| Err(Error::interrupted(number)))
}
