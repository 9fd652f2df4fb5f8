//! What `run` finds out before it changes anything, and how it takes the cluster: with few round trips, because an API
//! server may be far away.

use std::path::Path;

use cluster::{Guard, aside, lease, namespace};
use jiff::Timestamp;
use kit::{Result, Ui};
use kube::Client;

use crate::{
    access,
    back::RunArgs,
    list::{self, Listing, Served},
    scene::{Before, Kept, Scene},
};

/// What is asked first, all of it at the same time.
pub(crate) struct First {
    lease: lease::Seen,
    served: Served,
    /// Whether our namespace is on its way out.
    going: bool,
    /// Whether a run that was killed left nodes that take no pods.
    aside: bool,
    /// Whether we may do everything.
    all: bool,
}

impl First {
    /// Asks, and reads the baseline.
    ///
    /// # Errors
    /// As [`cluster::cause_of`] says.
    pub(crate) async fn ask(client: &Client, cell: &Path) -> Result<(Kept, Self)> {
        let (kept, served, lease, marked, all) = tokio::try_join!(
            Kept::read(client, cell),
            list::discover(client),
            lease::see(client),
            aside::marked(client),
            access::may(client, "*", "*", "*"),
        )?;
        let going = kept.going;
        Ok((kept, Self { lease, served, going, aside: !marked.is_empty(), all }))
    }

    /// Takes the lease, once it is known that nobody else has it and that we may do what has to be done. Returns the
    /// first look at the cluster as well if that could be taken meanwhile: this run had the lease already, and so
    /// nobody else changed anything.
    ///
    /// # Errors
    /// [`kit::Cause::LeaseHeld`] while another run uses the cluster; [`kit::Cause::Auth`] naming what is not allowed,
    /// before anything is written; otherwise as [`cluster::cause_of`] says.
    pub(crate) async fn take(
        self,
        args: &RunArgs,
        scene: &Scene,
        before: &Before,
        ui: &Ui,
    ) -> Result<(Guard, Option<Listing>)> {
        let client = &scene.opened.client;
        let now = Timestamp::now();
        let lease = self.lease.state();
        lease.free_for(&scene.run, now)?;
        let ours = lease.holder.as_ref() == Some(&scene.run) && !lease.expired(now);
        let look = async {
            let step = ui.step("looking at the cluster");
            let listing = list::list_served(client, self.served, before.with()).await?;
            step.done(format!("{} objects", listing.objects.len()));
            Ok(listing)
        };
        if ours && self.all && !self.aside && !self.going {
            let (guard, listing) = tokio::try_join!(lease::take_seen(client, &scene.run, self.lease), look)?;
            return Ok((guard, Some(listing)));
        }
        if !self.all {
            let listing = look.await?;
            let needs = access::needs(&listing, &before.compare(&listing), |resource| args.forces(resource));
            access::check(client, needs).await?;
        }
        namespace::settled(client).await?;
        let guard = lease::take(client, &scene.run).await?;
        for node in aside::give_back(client).await? {
            ui.note(format!("takes pods again, after a run that was killed: node {node}"));
        }
        Ok((guard, None))
    }
}
