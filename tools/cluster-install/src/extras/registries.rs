//! Images from another registry than the release names: a mirror, or one that the cluster can reach.

use kit::{Cause, Error, Result};
use serde_json::Value;

use crate::release::Release;

/// Names that begin with `from` begin with `to` instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rewrite {
    pub(crate) from: String,
    pub(crate) to: String,
}

impl Rewrite {
    pub(crate) fn parse(text: &str) -> Result<Self> {
        let wrong = || {
            Error::new(Cause::Usage, format!("'{text}' does not say which registry takes the place of which"))
                .next("write for instance ghcr.io/tektoncd=10.1.2.3:5000/tektoncd")
        };
        let good = |part: &str| !part.is_empty() && !part.contains([' ', '@', '"']) && !part.contains("//");
        let (from, to) = text.split_once('=').ok_or_else(wrong)?;
        let (from, to) = (from.trim_end_matches('/'), to.trim_end_matches('/'));
        if good(from) && good(to) { Ok(Self { from: from.into(), to: to.into() }) } else { Err(wrong()) }
    }

    /// Changes every image in the release's objects and in what is known of them.
    ///
    /// # Errors
    /// [`Cause::Usage`] if the release names nothing there: more likely a mistake than none.
    pub(crate) fn apply(&self, release: &mut Release) -> Result<()> {
        let mut count = 0;
        for object in &mut release.objects {
            self.walk(&mut object.value, &mut count);
        }
        if count == 0 {
            let what = format!("{} names no image of {}", release.name(), self.from);
            return Err(Error::new(Cause::Usage, what).next("see its images: cluster-install plan"));
        }
        for image in release.images.iter_mut().flatten() {
            if let Some(name) = self.of(&image.reference) {
                image.reference = name;
            }
        }
        Ok(())
    }

    fn walk(&self, value: &mut Value, count: &mut usize) {
        match value {
            Value::String(text) => {
                if let Some(name) = self.of(text) {
                    *text = name;
                    *count += 1;
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.walk(item, count)),
            Value::Object(fields) => fields.values_mut().for_each(|field| self.walk(field, count)),
            _ => {}
        }
    }

    /// An image's name in its new place: a whole text, or what follows an option's `=`.
    fn of(&self, text: &str) -> Option<String> {
        let (option, name) = match text.split_once('=') {
            Some((option, name)) if option.starts_with('-') => (&text[..=option.len()], name),
            _ => ("", text),
        };
        let rest = name.strip_prefix(&self.from)?.strip_prefix('/')?;
        // Only a name with a tag or a digest is an image for certain.
        let last = rest.rsplit('/').next().unwrap_or_default();
        let image = last.contains([':', '@']) && !rest.contains(char::is_whitespace);
        image.then(|| format!("{option}{}/{rest}", self.to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewrite() -> Rewrite {
        Rewrite::parse("ghcr.io/tektoncd/=10.1.2.3:5000/t").unwrap()
    }

    #[test]
    fn images_move_and_other_words_stay() {
        let of = |text: &str| rewrite().of(text).unwrap_or_default();
        assert_eq!(of("ghcr.io/tektoncd/pipeline/web@sha256:1"), "10.1.2.3:5000/t/pipeline/web@sha256:1");
        assert_eq!(of("--image=ghcr.io/tektoncd/web:v1"), "--image=10.1.2.3:5000/t/web:v1");
        for other in [
            "ghcr.io/tektoncd",
            "ghcr.io/tektoncd2/web:v1",
            "see ghcr.io/tektoncd/web:v1",
            "ghcr.io/tektoncd/a b:c",
            "ghcr.io/tektoncd/docs",
        ] {
            assert_eq!(of(other), "", "{other}");
        }
    }

    #[test]
    fn what_says_nothing_is_refused() {
        for wrong in ["", "a", "=b", "a=", "a b=c", "a=https://b"] {
            assert_eq!(Rewrite::parse(wrong).unwrap_err().cause, Cause::Usage, "{wrong}");
        }
    }
}
