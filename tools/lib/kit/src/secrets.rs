//! What of an environment may be written down: run directories, JUnit and the commands in them are passed on.

use std::sync::LazyLock;

use regex::Regex;

/// What stands in the place of a secret.
const HIDDEN: &str = "***";
/// Words in the names of variables that hold secrets.
const WORDS: &[&str] =
    &["TOKEN", "PASSWORD", "PASSWD", "PASSPHRASE", "SECRET", "CREDENTIAL", "APIKEY", "PRIVATEKEY", "ACCESSKEY"];
/// Parts of such names that are secrets by themselves: MONKEY is none.
const PARTS: &[&str] = &["KEY", "KEYS", "PASS", "PW", "PAT", "AUTH"];
/// A user and a password in a URL.
static USER: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"://[^/?#\s]*@").expect("it is constant"));

/// The value of a variable as it may be shown.
#[must_use]
pub fn shown(name: &str, value: &str) -> String {
    let upper = name.to_uppercase();
    let part = |part: &str| PARTS.contains(&part);
    let secret = WORDS.iter().any(|word| upper.contains(word)) || upper.split(|c: char| !c.is_alphanumeric()).any(part);
    if secret && !value.is_empty() { HIDDEN.into() } else { without_users(value) }
}

/// A text without the users and passwords of the URLs in it.
#[must_use]
pub fn without_users(text: &str) -> String {
    USER.replace_all(text, format!("://{HIDDEN}@")).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_their_names_and_in_urls() {
        for name in [
            "TOKEN",
            "GITHUB_TOKEN",
            "npm_authToken",
            "DB_PASSWORD",
            "API_KEY",
            "AWS_SECRET_ACCESS_KEY",
            "SSH-KEY",
            "QUAY_PASS",
        ] {
            assert_eq!(shown(name, "x y"), "***", "{name}");
        }
        for name in ["MONKEY", "COMPASS", "PATH", "PATTERN", "AUTHOR", "KUBECONFIG"] {
            assert_eq!(shown(name, "x y"), "x y", "{name}");
        }
        assert_eq!(shown("TOKEN", ""), "", "that there is none may be known");
        let proxies = "https://me:p%40ss@proxy.example/x,https://proxy.example,https://token@b.example|direct";
        let expected = "https://***@proxy.example/x,https://proxy.example,https://***@b.example|direct";
        assert_eq!(shown("GOPROXY", proxies), expected);
        assert_eq!(
            without_users("see https://x.example/@v/list and me@x.example"),
            "see https://x.example/@v/list and me@x.example"
        );
        assert_eq!(without_users("https://me:p@ss@x.example/"), "https://***@x.example/");
    }
}
