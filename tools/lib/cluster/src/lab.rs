//! The labs of this machine, found by their names.

use kit::{
    Cause, Error, Result, Within,
    record::{Lab, LabPhase},
    rundir::{read_json, slug},
};

/// What the lab of that name says of itself; its cluster can be used.
///
/// # Errors
/// [`Cause::ClusterUnreachable`] if it is not up; [`Cause::Usage`] if its record cannot be read.
pub(crate) fn read(name: &str) -> Result<Lab> {
    if slug(name) != name {
        return Err(Error::new(Cause::Usage, format!("'{name}' is not the name of a lab")));
    }
    let path = kit::dirs::cache()?.join("labs").join(name).join("lab.json");
    let up = || {
        if name == "default" { "cargo xtask lab up".into() } else { format!("cargo xtask lab up --name {name}") }
    };
    if !path.exists() {
        return Err(Error::new(Cause::ClusterUnreachable, format!("the lab '{name}' is not up")).next(up()));
    }
    let (lab, _) = read_json::<Lab>(&path).within(|| format!("lab '{name}'"))?;
    if lab.phase != LabPhase::Ready {
        return Err(Error::new(Cause::ClusterUnreachable, format!("the lab '{name}' has no cluster yet")).next(up()));
    }
    Ok(lab)
}
