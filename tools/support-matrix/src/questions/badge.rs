//! `badge`: what may be said of a version on a platform, as a picture for a README.

use std::path::PathBuf;

use clap::Args;
use kit::{Cause, Done, Error, Platform, Result, Ui, rundir};

use super::{Input, Which, of_origin, parse_origin, worth};
use crate::{model::OriginKind, render};

/// Writes a badge as SVG.
#[derive(Debug, Args)]
pub struct Badge {
    /// What, as pipeline, pipeline@v1.9.0 or pipeline@main
    #[arg(value_name = "COMPONENT[@VERSION]")]
    what: Which,
    /// Where, as linux/s390x
    platform: Platform,
    /// Only images of this origin: published, built-here or unknown [default: published where somebody looked at the
    /// release that its project published, otherwise any]
    #[arg(long, value_name = "ORIGIN", value_parser = parse_origin)]
    origin: Option<OriginKind>,
    /// Write it into this file instead of standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    input: Input,
}

pub(crate) fn badge(args: &Badge, ui: &Ui) -> Result<Done> {
    let matrix = args.input.open(false, ui)?.matrix(ui)?;
    let mut cells = args.what.cells(&matrix);
    of_origin(&mut cells, args.origin);
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
