//! What can come of a piece of work: one outcome, one cause, one exit code.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How a stage or a whole run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It did what was asked, and what it found is good.
    Passed,
    /// It did what was asked, and what it found is not good, or it could not do it: see the cause.
    Failed,
    /// It was not asked to do anything, or there was nothing to do.
    Skipped,
}

/// Who has to act on a cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// The component's authors: not good.
    Product,
    /// Passed when run again: good, and shown everywhere.
    Flaky,
    /// The owner of the cluster, the network or the registry: ages a claim, never colours it.
    Infrastructure,
    /// Whoever called the tool, or the tool's authors.
    Ours,
    /// No rule knew it: not good, shown apart, and a rule is owed.
    Unknown,
}

/// How a process of ours ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit(pub u8);

impl Exit {
    /// Good.
    pub const GOOD: Self = Self(0);
    /// The product is not good.
    pub const NOT_GOOD: Self = Self(1);
    /// The call is wrong.
    pub const USAGE: Self = Self(2);
    /// Infrastructure, or a fault of the tool itself: nothing was learnt about the product.
    pub const INFRASTRUCTURE: Self = Self(3);
    /// Nothing ran.
    pub const NOTHING_RAN: Self = Self(4);
    /// A program that is needed is not to be had.
    pub const MISSING_PROGRAM: Self = Self(5);
}

macro_rules! causes {
    ($($(#[doc = $doc:literal])+ $variant:ident = $name:literal, $class:ident, $exit:ident;)+) => {
        /// Why something is not good. One list for all tools; the class and the exit code follow from it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[serde(rename_all = "kebab-case")]
        pub enum Cause { $($(#[doc = $doc])+ $variant,)+ }

        impl Cause {
            /// All causes, in the order of the documentation.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The name in records and messages.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// Who has to act.
            #[must_use]
            pub const fn class(self) -> Class {
                match self { $(Self::$variant => Class::$class,)+ }
            }

            /// The exit code of a tool that ends with it.
            #[must_use]
            pub const fn exit(self) -> Exit {
                match self { $(Self::$variant => Exit::$exit,)+ }
            }

            /// What it means, in a sentence.
            #[must_use]
            pub fn meaning(self) -> &'static str {
                match self { $(Self::$variant => concat!($($doc),+).trim_ascii(),)+ }
            }
        }
    };
}

causes! {
    /// The component does not do what its test expects.
    Product = "product", Product, NOT_GOOD;
    /// Sources that do not compile.
    BuildFailure = "build-failure", Product, NOT_GOOD;
    /// An image or a base lacks a platform that was asked for.
    ImageMissingPlatform = "image-missing-platform", Product, NOT_GOOD;
    /// An image says one architecture and contains another.
    ImageWrongArch = "image-wrong-arch", Product, NOT_GOOD;
    /// A test did not end within its time.
    TestTimeout = "test-timeout", Product, NOT_GOOD;
    /// The cluster is not what it was before the run.
    NotAtBaseline = "not-at-baseline", Product, NOT_GOOD;
    /// A rule of ours says no: a gate, an expired skip.
    PolicyRefused = "policy-refused", Product, NOT_GOOD;
    /// Failed, and passed when it was run again.
    Flaky = "flaky", Flaky, GOOD;
    /// The cluster does not answer.
    ClusterUnreachable = "cluster-unreachable", Infrastructure, INFRASTRUCTURE;
    /// The API server answered with an error of its own, or went away.
    Apiserver = "apiserver", Infrastructure, INFRASTRUCTURE;
    /// A node is not ready, or went away.
    Node = "node", Infrastructure, INFRASTRUCTURE;
    /// A name that should resolve does not.
    Dns = "dns", Infrastructure, INFRASTRUCTURE;
    /// A volume that should bind or mount does not.
    Storage = "storage", Infrastructure, INFRASTRUCTURE;
    /// A quota or a limit of the cluster is used up.
    Quota = "quota", Infrastructure, INFRASTRUCTURE;
    /// A disk is full, or a file of this machine cannot be read or written.
    HostDisk = "host-disk", Infrastructure, INFRASTRUCTURE;
    /// A host cannot be reached by ssh, or its command fails.
    Ssh = "ssh", Infrastructure, INFRASTRUCTURE;
    /// A registry does not answer, or answers with an error.
    Registry = "registry", Infrastructure, INFRASTRUCTURE;
    /// A node cannot pull an image that the registry has.
    ImagePull = "image-pull", Infrastructure, INFRASTRUCTURE;
    /// Credentials are missing, wrong or expired.
    Auth = "auth", Infrastructure, INFRASTRUCTURE;
    /// A webhook does not answer.
    Webhook = "webhook", Infrastructure, INFRASTRUCTURE;
    /// Another run holds the cluster.
    LeaseHeld = "lease-held", Infrastructure, INFRASTRUCTURE;
    /// A signal ended it.
    Interrupted = "interrupted", Infrastructure, INFRASTRUCTURE;
    /// The call or a file that it names is wrong.
    Usage = "usage", Ours, USAGE;
    /// Nothing was selected, so nothing ran.
    NothingRan = "nothing-ran", Ours, NOTHING_RAN;
    /// A program that is needed is not to be had.
    MissingProgram = "missing-program", Ours, MISSING_PROGRAM;
    /// A fault of this tool.
    Internal = "internal", Ours, INFRASTRUCTURE;
    /// No rule knows this failure.
    Unclassified = "unclassified", Unknown, NOT_GOOD;
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// One exit code for many results: 1 if any is the product's or unknown; otherwise 3 for
/// infrastructure; otherwise what is wrong with the call or the tool; otherwise 4 if nothing
/// `ran`; otherwise 0.
#[must_use]
pub fn combine(causes: impl IntoIterator<Item = Cause>, ran: usize) -> Exit {
    let rank = |exit: Exit| match exit {
        Exit::NOT_GOOD => 5,
        Exit::INFRASTRUCTURE => 4,
        Exit::MISSING_PROGRAM => 3,
        Exit::USAGE => 2,
        Exit::NOTHING_RAN => 1,
        _ => 0,
    };
    let nothing = if ran == 0 { Exit::NOTHING_RAN } else { Exit::GOOD };
    causes.into_iter().map(Cause::exit).chain([nothing]).max_by_key(|exit| rank(*exit)).unwrap_or(nothing)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_agree_with_serde() {
        for cause in Cause::ALL {
            assert_eq!(serde_json::to_value(cause).unwrap(), cause.name());
            assert!(cause.meaning().ends_with('.'), "{cause}");
        }
    }

    #[test]
    fn the_product_outranks_the_machine() {
        assert_eq!(combine([Cause::Apiserver, Cause::Product], 5), Exit::NOT_GOOD);
        assert_eq!(combine([Cause::Apiserver, Cause::Unclassified], 5), Exit::NOT_GOOD);
        assert_eq!(combine([Cause::Apiserver, Cause::Flaky], 5), Exit::INFRASTRUCTURE);
        assert_eq!(combine([Cause::Node], 0), Exit::INFRASTRUCTURE);
        assert_eq!(combine([], 0), Exit::NOTHING_RAN);
        assert_eq!(combine([Cause::Flaky], 3), Exit::GOOD);
        assert_eq!(combine([], 3), Exit::GOOD);
    }
}
