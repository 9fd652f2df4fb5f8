//! `onboard`: what a new architecture lacks, one thing after the other.

use clap::Args;
use kit::{Cause, Done, Output, Platform, Result, Ui};

use super::Input;
use crate::{
    model::{Matrix, Need, Onboarding, SCHEMA_VERSION, Verdict},
    policy::SUPPORTED,
    text::{day, list, many},
};

/// Says what is missing before an architecture can be supported.
#[derive(Debug, Args)]
pub struct Onboard {
    /// Which, as linux/riscv64
    platform: Platform,
    #[command(flatten)]
    input: Input,
}

pub(crate) fn onboard(args: &Onboard, ui: &Ui) -> Result<Done> {
    let opened = args.input.open(false, ui)?;
    let matrix = opened.matrix(ui)?;
    let platform = &args.platform;
    let mut needs = vec![name(platform)];
    let row = opened.rules.architectures.architecture.iter().find(|row| row.platform == *platform);
    let owned = crate::cells::owned(platform, &opened.rules);
    let level = opened.rules.policy.level.iter().find(|level| level.name == SUPPORTED);
    needs.push(Need {
        name: "entry".into(),
        met: row.is_some(),
        words: if row.is_some() { "it is in ci/architectures.toml" } else { "ci/architectures.toml does not name it" }
            .into(),
        next: row
            .is_none()
            .then(|| format!("add [[architecture]] with platform = \"{platform}\" to ci/architectures.toml")),
    });
    needs.extend(images(platform, &matrix, &opened)?);
    let clusters = row.map(|row| row.clusters.clone()).unwrap_or_default();
    needs.push(Need {
        name: "cluster".into(),
        met: !clusters.is_empty(),
        words: if clusters.is_empty() {
            "no cluster of that architecture is known".into()
        } else {
            format!("clusters: {}", clusters.join(", "))
        },
        next: clusters.is_empty().then(|| {
            format!("name one under clusters in ci/architectures.toml, then: cargo xtask nightly --kubeconfig FILE --test-on {platform}")
        }),
    });
    let machines = level.map_or(1, |level| level.machines.max(1));
    let there = owned.machines >= machines || (machines <= 1 && !owned.hardware.is_empty());
    needs.push(Need {
        name: "hardware".into(),
        met: there,
        words: format!(
            "{} of at least {machines}{}",
            many(owned.machines as usize, "machine"),
            if owned.hardware.is_empty() { String::new() } else { format!(": {}", owned.hardware.join(", ")) }
        ),
        next: (!there).then(|| "say machines, hardware and provider in ci/architectures.toml".into()),
    });
    let least = level.map_or(1, |level| level.owners.max(1)) as usize;
    let known = owned.owners.len();
    needs.push(Need {
        name: "owner".into(),
        met: known >= least,
        words: format!(
            "{} of at least {least}{}",
            many(known, "owner"),
            if known == 0 { String::new() } else { format!(": {}", owned.owners.join(", ")) }
        ),
        next: (known < least).then(|| "name people or teams under owners in ci/architectures.toml".into()),
    });
    needs.extend(runs(platform, &matrix));
    let ready = needs.iter().all(|need| need.met);
    let found = Onboarding { schema_version: SCHEMA_VERSION.into(), platform: platform.clone(), ready, needs };
    match ui.output {
        Output::Json => ui.json(&found)?,
        Output::Text => ui.result(&words(&found))?,
    }
    Ok(if ready { Done::good() } else { Done::found(Cause::PolicyRefused) })
}

fn name(platform: &Platform) -> Need {
    let row = platform.row();
    let known = row.as_ref().ok().filter(|_| platform.os == "linux");
    Need {
        name: "name".into(),
        met: known.is_some(),
        words: known.map_or_else(
            || "no tool of ours knows this architecture".into(),
            |row| format!("{} in Go, {} in uname, {} in Debian, {} in Rust", row.go, row.uname, row.debian, row.rust),
        ),
        next: known.is_none().then(|| "add its row to the table in tools/lib/kit/src/arch.rs".into()),
    }
}

/// Bases and test images: whether definitions are there, and whether a build has shown them for this platform.
fn images(platform: &Platform, matrix: &Matrix, opened: &super::Opened) -> Result<Vec<Need>> {
    let images = opened.ci.images()?;
    let components = opened.ci.components()?;
    let mut bases: Vec<&str> =
        components.values().flat_map(|component| component.bases.values()).map(String::as_str).collect();
    bases.sort_unstable();
    bases.dedup();
    let unmade: Vec<_> = bases.iter().filter(|base| !images.build.contains_key(**base)).collect();
    let here = || matrix.cells.iter().filter(|cell| cell.platform == *platform);
    let shown = here().find(|cell| cell.levels.contents.verdict == Verdict::Shown);
    let when = shown.and_then(|cell| cell.levels.contents.at).map(day);
    let said = |what: &str| match (&when, shown) {
        (Some(day), Some(cell)) => {
            format!("{what}: built and verified with {}@{} on {day}", cell.component, cell.version)
        }
        _ => format!("{what}: never built for {platform}"),
    };
    let next = |verb: String| shown.is_none().then_some(verb);
    let debian = platform.row().map(|row| row.debian).unwrap_or("its");
    let tests: Vec<&str> = images.image.iter().filter_map(|image| image.build.as_deref()).collect();
    Ok(vec![
        Need {
            name: "base".into(),
            met: shown.is_some() && unmade.is_empty(),
            words: said(&format!("bases {}", list(&bases, 5))),
            next: next(format!(
                "cargo xtask image-build bases --component {} --platform {platform} (from Debian's {debian} packages)",
                components.iter().find(|(_, one)| one.config.is_some()).map_or("NAME", |(name, _)| name)
            )),
        },
        Need {
            name: "test images".into(),
            met: shown.is_some(),
            words: said(&format!("{} that tests name", many(tests.len(), "stand-in"))),
            next: next(format!("cargo xtask image-build audit SOURCES --platform {platform}")),
        },
    ])
}

/// What was shown on clusters so far.
fn runs(platform: &Platform, matrix: &Matrix) -> Vec<Need> {
    let here = || matrix.cells.iter().filter(|cell| cell.platform == *platform);
    let installed = here().find(|cell| cell.levels.installs.verdict == Verdict::Shown);
    let tested = here().find(|cell| cell.tested.passed);
    let lost = matrix.platforms.iter().find(|row| row.platform == *platform);
    let share = lost
        .filter(|row| row.runs > 0)
        .map_or_else(String::new, |row| format!(" ({} of {} runs lost to the infrastructure)", row.lost, row.runs));
    let named = |cell: Option<&crate::model::Cell>, what: &str| {
        cell.map_or_else(|| format!("{what}: never natively{share}"), |cell| format!("{what}: {}", cell.id))
    };
    let next =
        |missing: bool| missing.then(|| format!("cargo xtask nightly --platform {platform} --test-on {platform}"));
    vec![
        Need {
            name: "installs".into(),
            met: installed.is_some(),
            words: named(installed, "a release that installs"),
            next: next(installed.is_none()),
        },
        Need {
            name: "tests".into(),
            met: tested.is_some(),
            words: named(tested, "tests that pass"),
            next: next(tested.is_none()),
        },
    ]
}

fn words(found: &Onboarding) -> String {
    let missing = found.needs.iter().filter(|need| !need.met).count();
    let mut text = match missing {
        0 => format!("{}: nothing is missing\n", found.platform),
        count => format!("{}: {count} of {} missing\n", found.platform, many(found.needs.len(), "thing")),
    };
    for need in &found.needs {
        text.push_str(&format!("  [{}] {}: {}\n", if need.met { 'x' } else { ' ' }, need.name, need.words));
        if let Some(next) = &need.next {
            text.push_str(&format!("      next: {next}\n"));
        }
    }
    text
}
