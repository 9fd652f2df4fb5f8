//! Host keys: what is pinned, as ssh reads it and as people compare it.

use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_STANDARD_NO_PAD},
};
use kit::{Cause, Error, Result};
use sha2::{Digest, Sha256};

/// Those that OpenSSH has for hosts.
const KINDS: &[&str] = &["ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa"];

/// A public key that a host may prove to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct HostKey {
    kind: String,
    blob: Vec<u8>,
}

impl HostKey {
    /// Reads `TYPE BASE64`, as `/etc/ssh/ssh_host_*_key.pub` has it; a comment may follow.
    ///
    /// # Errors
    /// [`Cause::Usage`].
    pub(super) fn parse(text: &str) -> Result<Self> {
        let wrong = |why: &str| {
            Error::new(Cause::Usage, format!("host_keys: '{}': {why}", text.chars().take(60).collect::<String>()))
                .next("write TYPE BASE64, as the host has it in /etc/ssh/ssh_host_ed25519_key.pub")
        };
        let mut words = text.split_whitespace();
        let (Some(kind), Some(base64)) = (words.next(), words.next()) else {
            return Err(wrong("a type and a key are needed"));
        };
        if !KINDS.contains(&kind) {
            return Err(wrong(&format!("the type is none of {}", KINDS.join(", "))));
        }
        let blob = BASE64_STANDARD.decode(base64).map_err(|_| wrong("the key is not base64"))?;
        // A key says itself what it is.
        let length = blob.first_chunk::<4>().map_or(0, |length| u32::from_be_bytes(*length) as usize);
        if blob.get(4..4 + length) != Some(kind.as_bytes()) {
            return Err(wrong(&format!("the key is no {kind}")));
        }
        Ok(Self { kind: kind.into(), blob })
    }

    /// The line of a known_hosts file that pins it to `alias`.
    pub(super) fn known_host(&self, alias: &str) -> String {
        format!("{alias} {} {}\n", self.kind, BASE64_STANDARD.encode(&self.blob))
    }

    /// As ssh shows it.
    pub(super) fn fingerprint(&self) -> String {
        format!("{} SHA256:{}", self.kind, BASE64_STANDARD_NO_PAD.encode(Sha256::digest(&self.blob)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Made for this test; `ssh-keygen -lf` shows the same fingerprint.
    const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAINuQQZ2UA+SMDa4glA36cUlikdLkQ1u+2H/E4yyX0VNF comment";
    const FINGERPRINT: &str = "jzQ/ow5oYoWYG7gMKwwth/2EGzLLuuB31kuv7FWdNgQ";

    #[test]
    fn a_key_is_pinned_and_shown_as_ssh_does() {
        let key = HostKey::parse(KEY).unwrap();
        assert_eq!(key.known_host("h"), format!("h {}\n", KEY.trim_end_matches(" comment")));
        assert_eq!(key.fingerprint(), format!("ssh-ed25519 SHA256:{FINGERPRINT}"));
    }

    #[test]
    fn what_is_no_key_pins_nothing() {
        let rsa = KEY.replace("ssh-ed25519", "ssh-rsa");
        for (text, said) in [
            ("", "a type and a key"),
            ("z.example.org ssh-ed25519 AAAA", "the type is none of"),
            ("@cert-authority x y", "the type is none of"),
            ("ssh-ed25519 !!!", "is not base64"),
            ("ssh-ed25519 AAAA", "is no ssh-ed25519"),
            ("ssh-ed25519 /////w==", "is no ssh-ed25519"),
            (rsa.as_str(), "is no ssh-rsa"),
        ] {
            let error = HostKey::parse(text).unwrap_err();
            assert!(error.cause == Cause::Usage && error.to_string().contains(said), "{text}: {error}");
        }
    }
}
