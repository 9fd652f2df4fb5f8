//! `down`: whatever is left of a lab, gone; and a look whether it really is.

use std::{fs, path::Path};

use kit::{Cause, Done, Error, Result, Ui};

use crate::{cgroups, layout::Layout, network, parts, prerequisites, process};

/// Removes the lab.
pub(crate) fn down(layout: &Layout, purge: bool, ui: &Ui) -> Result<Done> {
    if !layout.root().exists() && process::find(layout)?.is_none() {
        ui.note(format!("lab '{}' is down already", layout.name));
        return Ok(Done::good());
    }
    prerequisites::root()?;
    let _lock = parts::lock(&layout.lock(), &format!("another command on lab '{}'", layout.name), ui)?;
    let step = ui.step(format!("removal of lab '{}'", layout.name));
    remove(layout)?;
    if purge {
        delete(&layout.root())?;
        delete(&layout.lock())?;
    }
    step.done("");
    Ok(Done::good())
}

/// Ends and removes everything but images and logs. What cannot be removed does not keep the rest; all of it is said.
pub(crate) fn remove(layout: &Layout) -> Result<()> {
    // What still runs would make anew what is deleted under it.
    process::end(layout)?;
    let results =
        [network::remove(layout), cgroups::remove(layout), delete(&layout.state()), delete(&layout.kubeconfig())];
    let errors: Vec<_> = results.into_iter().filter_map(Result::err).collect();
    let Some(first) = errors.first() else {
        // Last: while it is there, a `down` that was interrupted finds everything again.
        return delete(&layout.record());
    };
    let all: Vec<_> = errors.iter().map(Error::summary).collect();
    Err(Error::new(first.cause, format!("lab '{}' cannot be removed: {}", layout.name, all.join("; "))))
}

fn delete(path: &Path) -> Result<()> {
    let result = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(_) => return Ok(()),
    };
    match result {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Error::from_source(Cause::HostDisk, format!("cannot remove {}", path.display()), error))
        }
        _ => Ok(()),
    }
}
