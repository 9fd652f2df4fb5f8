//! How a cluster is named on the command line.

use std::path::PathBuf;

use clap::Args;
use kit::{Cause, Error, Result};

/// Which cluster. Nothing else names one: no environment variable, no current context.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct Options {
    /// The cluster of this kubeconfig; 'env' for the one that $KUBECONFIG names, 'in-cluster' for
    /// the cluster that this pod runs in
    #[arg(long, value_name = "PATH|env|in-cluster", help_heading = "Which cluster (default: the lab 'default')")]
    pub kubeconfig: Option<String>,
    /// The context in that kubeconfig
    #[arg(
        long,
        value_name = "NAME",
        requires = "kubeconfig",
        help_heading = "Which cluster (default: the lab 'default')"
    )]
    pub context: Option<String>,
    /// A lab of this machine
    #[arg(
        long,
        value_name = "NAME",
        conflicts_with_all = ["kubeconfig", "context"],
        help_heading = "Which cluster (default: the lab 'default')"
    )]
    pub lab: Option<String>,
}

/// What the options mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A lab of this machine, by name.
    Lab(String),
    /// A kubeconfig, and a context if one was given.
    File(PathBuf, Option<String>),
    /// The files of `$KUBECONFIG`, and a context if one was given.
    Env(Option<String>),
    /// The service account of this pod.
    InCluster,
}

/// The lab that is meant when none is named.
const DEFAULT_LAB: &str = "default";

impl Options {
    /// What they mean: without any option the default lab.
    ///
    /// # Errors
    /// [`Cause::Usage`] inside a pod when nothing is named, and for a context without a kubeconfig
    /// that has contexts.
    pub fn source(&self) -> Result<Source> {
        self.source_where(std::env::var_os("KUBERNETES_SERVICE_HOST").is_some())
    }

    fn source_where(&self, in_pod: bool) -> Result<Source> {
        match (self.kubeconfig.as_deref(), &self.lab) {
            (Some("in-cluster"), _) if self.context.is_some() => {
                Err(Error::new(Cause::Usage, "--kubeconfig in-cluster has no contexts")
                    .next("leave --context out, or name a kubeconfig"))
            }
            (Some("in-cluster"), _) => Ok(Source::InCluster),
            (Some("env"), _) => Ok(Source::Env(self.context.clone())),
            (Some(""), _) => Err(Error::new(Cause::Usage, "--kubeconfig is empty")),
            (Some(path), _) => Ok(Source::File(path.into(), self.context.clone())),
            (None, _) if self.context.is_some() => Err(Error::new(Cause::Usage, "--context without --kubeconfig")),
            (None, Some(lab)) => Ok(Source::Lab(lab.clone())),
            (None, None) if in_pod => Err(Error::new(Cause::Usage, "inside a pod the cluster must be named")
                .next("add --kubeconfig in-cluster for the cluster that this pod runs in, or --kubeconfig PATH")),
            (None, None) => Ok(Source::Lab(DEFAULT_LAB.into())),
        }
    }

    /// The name that [`crate::open`] gives the cluster, as far as it is known without opening it: for the
    /// record of a failure to open it.
    #[must_use]
    pub fn name(&self) -> Option<String> {
        match self.source().ok()? {
            Source::Lab(lab) => Some(format!("lab-{lab}")),
            Source::InCluster => Some("in-cluster".into()),
            Source::File(_, Some(context)) | Source::Env(Some(context)) => Some(kit::rundir::slug(&context)),
            Source::File(path, None) => {
                let config = crate::kubeconfig::read(&path).ok()?;
                crate::kubeconfig::choose(&config, "", None, true).ok().map(|context| kit::rundir::slug(&context))
            }
            Source::Env(None) => None,
        }
    }

    /// The options as another tool takes them.
    #[must_use]
    pub fn arguments(&self) -> Vec<String> {
        let named = [("--kubeconfig", &self.kubeconfig), ("--context", &self.context), ("--lab", &self.lab)];
        named.into_iter().filter_map(|(name, value)| Some([name.into(), value.clone()?])).flatten().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        options: Options,
    }

    fn parse(line: &str) -> Result<Options, clap::Error> {
        let words = std::iter::once("tool").chain(line.split_whitespace());
        Line::try_parse_from(words).map(|line| line.options)
    }

    #[test]
    fn each_way_of_naming_a_cluster() {
        let source = |line| parse(line).unwrap().source_where(false).unwrap();
        assert_eq!(source(""), Source::Lab("default".into()));
        assert_eq!(source("--lab two"), Source::Lab("two".into()));
        assert_eq!(source("--kubeconfig a/b"), Source::File("a/b".into(), None));
        assert_eq!(source("--kubeconfig a --context c"), Source::File("a".into(), Some("c".into())));
        assert_eq!(source("--kubeconfig env"), Source::Env(None));
        assert_eq!(source("--kubeconfig in-cluster"), Source::InCluster);
    }

    #[test]
    fn two_clusters_are_refused() {
        assert!(parse("--lab a --kubeconfig b").is_err());
        assert!(parse("--context c").is_err());
        assert!(parse("--lab a --context c").is_err());
        let both = parse("--kubeconfig in-cluster --context c").unwrap();
        assert_eq!(both.source_where(true).unwrap_err().cause, Cause::Usage);
    }

    #[test]
    fn a_pod_must_name_its_cluster() {
        let nothing = Options::default();
        assert_eq!(nothing.source_where(true).unwrap_err().cause, Cause::Usage);
        assert_eq!(parse("--kubeconfig in-cluster").unwrap().source_where(true).unwrap(), Source::InCluster);
    }

    #[test]
    fn the_options_can_be_handed_on() {
        for line in ["", "--lab two", "--kubeconfig a --context c"] {
            let options = parse(line).unwrap();
            assert_eq!(parse(&options.arguments().join(" ")).unwrap(), options);
        }
    }
}
