//! `badge`: what may be said of a version on a platform, as a picture for a README.

use std::path::PathBuf;

use clap::Args;
use kit::{Cause, Done, Error, Platform, Result, Ui, rundir};

use super::{Input, Which, worth};
use crate::render;

/// Writes a badge as SVG.
#[derive(Debug, Args)]
pub struct Badge {
    /// What, as pipeline, pipeline@v1.9.0 or pipeline@main
    #[arg(value_name = "COMPONENT[@VERSION]")]
    what: Which,
    /// Where, as linux/s390x
    platform: Platform,
    /// Write it into this file instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    input: Input,
}

pub(crate) fn badge(args: &Badge, ui: &Ui) -> Result<Done> {
    let matrix = args.input.open(false, ui)?.matrix(ui)?;
    let mut cells = args.what.cells(&matrix);
    cells.retain(|cell| cell.platform == args.platform);
    let Some(best) = cells.into_iter().max_by_key(|cell| worth(cell)) else {
        let error = Error::new(Cause::Usage, format!("no run says anything of {} on {}", args.what, args.platform));
        return Err(error.next("support-matrix render shows what is known"));
    };
    let picture = render::badge(best);
    match &args.out {
        Some(path) => {
            rundir::write(path, picture.as_bytes())?;
            ui.note(format!("wrote {}", path.display()));
        }
        None => ui.result(&picture)?,
    }
    Ok(Done::good())
}
