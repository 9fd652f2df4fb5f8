//! Digests as OCI writes them: `sha256:` and 64 hexadecimal digits (image-spec, descriptor.md).

use sha2::{Digest, Sha256};

/// `sha256:…` of some bytes.
#[must_use]
pub fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex(bytes))
}

/// The 64 digits alone.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    to_hex(&Sha256::digest(bytes))
}

/// `sha256:…` of a file's content, read in pieces.
///
/// # Errors
/// [`crate::Cause::Usage`] naming the file.
pub fn sha256_file(path: &std::path::Path) -> crate::Result<String> {
    use crate::Context;
    let mut hasher = Sha256::new();
    let copied = std::fs::File::open(path).and_then(|mut file| {
        let mut buffer = vec![0; 1 << 20];
        loop {
            match std::io::Read::read(&mut file, &mut buffer)? {
                0 => return Ok(()),
                n => hasher.update(&buffer[..n]),
            }
        }
    });
    copied.cause(crate::Cause::Usage, || format!("cannot read {}", path.display()))?;
    Ok(format!("sha256:{}", to_hex(&hasher.finalize())))
}

/// Passes bytes on, and computes their digest and number on the way.
pub struct Hashing<W> {
    inner: W,
    hasher: Sha256,
    size: u64,
}

impl<W: std::io::Write> Hashing<W> {
    /// In front of `inner`.
    pub fn new(inner: W) -> Self {
        Self { inner, hasher: Sha256::new(), size: 0 }
    }

    /// What is behind it, the 64 digits, and how many bytes there were.
    pub fn finish(self) -> (W, String, u64) {
        (self.inner, to_hex(&self.hasher.finalize()), self.size)
    }
}

impl<W: std::io::Write> std::io::Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.inner.flush()
    }
}

/// Bytes as lower-case hexadecimal digits.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn is_what_sha256sum_prints() {
        assert_eq!(super::sha256(b""), "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    }

    #[test]
    fn what_passes_through_is_counted_and_has_the_same_digest() {
        let mut passing = super::Hashing::new(Vec::new());
        for part in ["ab", "", "c"] {
            std::io::Write::write_all(&mut passing, part.as_bytes()).unwrap();
        }
        assert_eq!(passing.finish(), (b"abc".to_vec(), super::hex(b"abc"), 3));
    }
}
