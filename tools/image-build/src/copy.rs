//! `image-build copy`: a release with all that belongs to it to other repositories, as one change.

mod content;
mod plan;
mod tags;

use std::{path::PathBuf, time::Duration};

use kit::{Done, Error, Output, Result, Ui, rundir, ui};
use oci::{Client, Pushed};
use serde::Serialize;

use crate::release;
use plan::{Plan, Wishes};
use tags::PutBack;

/// How long tags that are being set when a signal comes may take: what is put back afterwards is put back for good.
const UNDER_WAY: Duration = Duration::from_secs(5);

/// The command line's examples.
pub(crate) const EXAMPLES: &str = "\
Examples:
  # A release of a run to two registries, also under the tag latest
  image-build copy target/runs/<run>/pipeline --to ghcr.io/me/tekton --to 10.1.2.3:5000/tekton --tag latest

  # A release file of Tekton; images of other projects stay where they are
  image-build copy release.yaml --component pipeline --from ghcr.io/tektoncd/pipeline --to registry.example/tekton

  # A release that was tested becomes the latest one, in its own repository
  image-build copy registry.example/tekton/release/pipeline:v1.9.0 --to registry.example/tekton --tag latest

Exit codes: 0 copied, 1 an index of the release has a hole, 2 the call or the release is wrong, 3 a registry failed
(no tag is changed, or those that were are put back; which ones could not be is said), 130 interrupted (likewise).";

#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
pub(crate) struct Args {
    /// A release.yaml, a release in a registry, or the folder of a component in a run directory
    release: String,
    /// Repository that it is copied to (repeatable)
    #[arg(long, value_name = "REPO", required = true)]
    to: Vec<String>,
    /// Set this tag as well, on every image and on the release (repeatable)
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<String>,
    /// Repository whose images belong to the release (repeatable) [default: where `build` pushed it; otherwise the
    /// one whose images have Go import paths]
    #[arg(long, value_name = "REPO")]
    from: Vec<String>,
    /// What it is a release of [default: as the artifact or images.json says]
    #[arg(long, value_name = "NAME")]
    component: Option<String>,
    /// Write the new release files to DIR/REPO/release.yaml
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// What was done, for machines.
#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    release: String,
    targets: Vec<TargetReport>,
    /// Images that the release names and that stay where they are.
    left: Vec<String>,
    /// Signatures, attestations and the like.
    notes: usize,
    blobs: Pushed,
    /// Milliseconds from the first changed tag to the last.
    mixture_milliseconds: Option<f64>,
    /// Tags that were put back after a failure.
    put_back: Vec<PutBack>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct TargetReport {
    repository: String,
    /// The new release by digest.
    release: String,
    tags: Vec<String>,
    images: Vec<ImageReport>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ImageReport {
    from: String,
    to: String,
    tags: Vec<String>,
    manifests: usize,
    notes: usize,
}

pub(crate) fn run(args: &Args, ui: &Ui) -> Result<Done> {
    let client = Client::new()?;
    let release = oci::run(release::open(&client, &args.release))?;
    let wishes = Wishes { to: &args.to, tags: &args.tags, from: &args.from, component: args.component.as_deref() };
    let plan = plan::plan(&release, &wishes)?;
    for name in &plan.left {
        ui.note(format!("{name} stays where it is"));
    }
    let step = ui.step(format!("reading {} images", plan.items.len()));
    let loaded = oci::run(content::load(&client, &plan))?;
    let mut report = report(&args.release, &plan, &loaded)?;
    step.done(format!("{} signatures and other notes", report.notes));
    let step = ui.step(format!("copying to {}", args.to.join(", ")));
    report.blobs = oci::run(content::copy(&client, &plan, &loaded))?;
    step.done(sent(&report.blobs));
    let step = ui.step("looking whether all is there");
    oci::run(content::verify(&client, &plan, &loaded))?;
    step.done("");
    let changes = oci::run(tags::prepare(&client, &plan, &loaded))?;
    // No tag is changed if the files cannot be written.
    let mut files = Vec::new();
    if let Some(folder) = &args.out {
        for target in &plan.targets {
            let path = folder.join(rundir::slug(&target.repository)).join("release.yaml");
            files.push(rundir::stage(&path, target.text.as_bytes())?);
        }
    }
    match oci::run_on(UNDER_WAY, tags::set(&client, &changes)) {
        Ok(mixture) => report.mixture_milliseconds = Some(mixture.as_secs_f64() * 1e3),
        Err(error) => {
            let error = put_back(&client, &changes, error, &mut report, ui);
            if ui.output == Output::Json {
                ui.json(&report)?;
            }
            return Err(error);
        }
    }
    for file in files {
        file.keep()?;
    }
    match ui.output {
        Output::Json => ui.json(&report)?,
        Output::Text => ui.result(&text(&report))?,
    }
    let digest = plan.targets.first().map(|target| kit::digest::sha256(target.text.as_bytes()));
    let reference = report.targets.first().map(|target| target.release.clone());
    Ok(Done { digest, reference, ..Done::good() })
}

/// Undoes what was done of the tags, also after a signal, and says what could not be undone.
fn put_back(client: &Client, changes: &[tags::Change], error: Error, report: &mut Report, ui: &Ui) -> Error {
    if error.signal.is_some() {
        kit::signal::forget();
    }
    match oci::run(async { Ok(tags::put_back(client, changes).await) }) {
        Ok(done) => report.put_back = done,
        Err(second) => ui.warn(format!("tags could not be put back: {second}")),
    }
    for tag in &report.put_back {
        let line = format!("{} {}", tag.tag, tag.state);
        if tag.restored { ui.note(line) } else { ui.warn(line) }
    }
    let stay = report.put_back.iter().filter(|tag| !tag.restored).count();
    let what = match (report.put_back.len(), stay) {
        (0, _) => "not all tags could be set; none is changed".to_owned(),
        (all, 0) => format!("not all tags could be set; {all} are as they were before"),
        (all, stay) => format!("not all tags could be set; {stay} of {all} could not be put back (see above)"),
    };
    error.within(what)
}

fn report(release: &str, plan: &Plan, loaded: &[content::Loaded]) -> Result<Report> {
    let mut targets = Vec::new();
    for target in &plan.targets {
        let images = plan.items.iter().zip(loaded).zip(&target.images).map(|((item, loaded), image)| ImageReport {
            from: item.name.clone(),
            to: image.name.clone(),
            tags: image.tags.clone(),
            manifests: loaded.tree.documents().count(),
            notes: loaded.notes.len(),
        });
        targets.push(TargetReport {
            repository: target.repository.clone(),
            release: oci::pinned(&target.release, &content::artifact(target).manifest()?.digest).whole(),
            tags: target.release_tags.clone(),
            images: images.collect(),
        });
    }
    let notes = loaded.iter().map(|loaded| loaded.notes.len()).sum();
    Ok(Report { release: release.into(), targets, left: plan.left.clone(), notes, ..Report::default() })
}

fn sent(pushed: &Pushed) -> String {
    let megabytes = pushed.bytes as f64 / 1e6;
    format!(
        "{} blobs sent ({megabytes:.1} MB), {} mounted, {} there already",
        pushed.sent, pushed.mounted, pushed.there
    )
}

fn text(report: &Report) -> String {
    let mut rows = vec![["REPOSITORY", "IMAGES", "NOTES", "TAGS", "RELEASE"].map(String::from).to_vec()];
    for target in &report.targets {
        rows.push(vec![
            target.repository.clone(),
            target.images.len().to_string(),
            target.images.iter().map(|image| image.notes).sum::<usize>().to_string(),
            target.tags.join(" "),
            target.release.clone(),
        ]);
    }
    let mixture = Duration::from_secs_f64(report.mixture_milliseconds.unwrap_or_default() / 1e3);
    let line = format!("From the first changed tag to the last: {} ms.", mixture.as_millis());
    ui::printable(&format!("{}{line}\n", ui::table(&rows)))
}
