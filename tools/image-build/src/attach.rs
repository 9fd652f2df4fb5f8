//! `image-build attach`: a file that is about an image (a list of its contents, a statement of where it comes from),
//! as an artifact that refers to it.

use std::{collections::BTreeMap, path::PathBuf};

use kit::{Cause, Done, Error, Output, Result, Ui, Within, rundir};
use oci::{ArtifactFile, Client};
use serde_json::json;

/// More is no note about an image.
const LIMIT: u64 = 32 << 20;

pub(crate) const EXAMPLES: &str = "\
Examples:
  image-build attach 10.1.2.3:5000/x@sha256:… --type application/spdx+json sbom.spdx.json
  image-build attach r.example/x@sha256:… --type application/vnd.in-toto+json provenance.json

Prints the artifact's reference by digest. Attached again it is the same artifact.";

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The image, by its digest
    #[arg(value_name = "REF@DIGEST")]
    image: String,
    /// What the file is: a media type, which is also the artifact's type
    #[arg(long = "type", value_name = "TYPE", value_parser = media_type)]
    kind: String,
    /// The file
    file: PathBuf,
}

fn media_type(text: &str) -> Result<String, String> {
    let safe = |c: char| c.is_ascii_alphanumeric() || "!#$&-^_.+".contains(c);
    let good = |part: &str| !part.is_empty() && part.len() <= 127 && part.chars().all(safe);
    match text.split_once('/') {
        Some((kind, name)) if good(kind) && good(name) => Ok(text.to_owned()),
        _ => Err("write a media type, as application/spdx+json".into()),
    }
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Done> {
    let subject = oci::parse(&args.image)?;
    if subject.digest().is_none() {
        let what = format!("{} has no digest: a tag may be another image tomorrow", args.image);
        return Err(Error::new(Cause::Usage, what).next("name it as REPOSITORY@sha256:…"));
    }
    let content = rundir::read_limited(&args.file, LIMIT)?;
    let title = args.file.file_name().map(|name| name.to_string_lossy().into_owned());
    let file = ArtifactFile { media_type: args.kind.clone(), title, content };
    let artifact = oci::run(async {
        let client = Client::new()?;
        let image = client.manifest(&subject).await?;
        let descriptor = oci::descriptor(image.media_type.as_str().into(), &image.bytes)?;
        let files = std::slice::from_ref(&file);
        oci::push_referrer(&client, (&subject, &descriptor), &args.kind, &BTreeMap::new(), files).await
    });
    let artifact = artifact.within(|| format!("{} cannot be attached", args.file.display()))?;
    match ui.output {
        Output::Json => ui.json(&json!({ "reference": artifact.whole(), "subject": args.image }))?,
        Output::Text => ui.result(&artifact.whole())?,
    }
    Ok(Done { digest: artifact.digest().map(String::from), reference: Some(artifact.whole()), ..Done::good() })
}
