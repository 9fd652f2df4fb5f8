//! Keyed hashes (HMAC-SHA256) for what must be recognised but never stored, and their keys.

use std::{fs::File, io::Read};

use hmac::{Hmac, KeyInit, Mac};
use kit::{Cause, Context, Result, digest};
use sha2::Sha256;

/// A key: random, one for each baseline. It is never written to a file.
pub(crate) type Key = Box<[u8; 32]>;

/// A new random key.
///
/// # Errors
/// [`Cause::Internal`] if this machine gives no random bytes.
pub(crate) fn new_key() -> Result<Key> {
    let mut key = Box::new([0; 32]);
    let filled = File::open("/dev/urandom").and_then(|mut random| random.read_exact(key.as_mut_slice()));
    filled.cause(Cause::Internal, || "cannot read /dev/urandom")?;
    Ok(key)
}

/// The key as text.
#[must_use]
pub(crate) fn to_text(key: &Key) -> String {
    digest::to_hex(key.as_slice())
}

/// The key that a text stands for.
#[must_use]
pub(crate) fn from_text(text: &str) -> Option<Key> {
    let mut key = Box::new([0; 32]);
    let digits = text.trim().as_bytes();
    if digits.len() != 64 {
        return None;
    }
    for (byte, pair) in key.iter_mut().zip(digits.chunks(2)) {
        *byte = u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()?;
    }
    Some(key)
}

/// The hash of `message` under `key`.
#[must_use]
pub(crate) fn keyed(key: &Key, message: &[u8]) -> [u8; 32] {
    // A key of a whole block of SHA-256 needs no check of its length; a shorter one is filled up with zeros (RFC 2104).
    let mut block = [0; 64];
    block[..32].copy_from_slice(key.as_slice());
    let mut mac = Hmac::<Sha256>::new(&block.into());
    mac.update(message);
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_the_hmac_of_the_rfc() {
        // RFC 4231, test case 2; its key "Jefe" filled up with zeros is the same key.
        let mut key = Box::new([0; 32]);
        key[..4].copy_from_slice(b"Jefe");
        assert_eq!(
            digest::to_hex(&keyed(&key, b"what do ya want for nothing?")),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
    }

    #[test]
    fn a_key_survives_as_text() {
        let key = new_key().unwrap();
        assert_eq!(from_text(&to_text(&key)).unwrap(), key);
        assert_ne!(new_key().unwrap(), key);
        assert!(from_text("xyz").is_none() && from_text(&"zz".repeat(32)).is_none());
    }
}
