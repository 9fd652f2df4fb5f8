//! Sending a release wave after wave, and waiting for what each needs.

use std::time::Duration;

use cluster::{Guard, Kinds, Opened};
use kit::{Result, Step, Ui, Within, record::ClusterId};

use crate::{
    apply::{self, Applied, Before, Counts, Placed},
    record::Progress,
    release::Release,
    wait::Wait,
    waves::Wave,
};

/// How long definitions may take to be established: the API server does that by itself.
const ESTABLISH: Duration = Duration::from_secs(60);

/// What the steps share.
pub(crate) struct Steps<'a> {
    /// How long it may take to become ready.
    pub(crate) limit: Duration,
    /// Take over fields that another manager owns.
    pub(crate) force: bool,
    /// Whether its end is that everything is ready.
    pub(crate) waits: bool,
    pub(crate) ui: &'a Ui,
    pub(crate) opened: &'a Opened,
    pub(crate) id: &'a ClusterId,
    pub(crate) kinds: &'a Kinds,
    pub(crate) release: &'a Release,
    pub(crate) guard: &'a Guard,
}

impl Steps<'_> {
    /// Sends wave after wave. Before objects of custom kinds are sent, the rest is ready: their webhooks
    /// must answer.
    pub(crate) async fn apply_and_wait(
        &self,
        placed: Vec<Placed>,
        before: &Before,
        progress: &mut Progress,
    ) -> Result<()> {
        let total = placed.len();
        let applied = &mut progress.applied;
        let mut waited = !self.waits;
        // Definitions are established by themselves while settings are sent.
        let mut establish = false;
        let mut step = Some(self.ui.step(format!("applying {} {}", self.release.component, self.release.version)));
        for wave in Wave::ALL {
            self.guard.check()?;
            let items: Vec<_> = placed.iter().filter(|item| Wave::of(&item.object) == wave).cloned().collect();
            if wave == Wave::Customs && !items.is_empty() {
                end(&mut step, &applied.counts);
                self.wait_for_all().await?;
                waited = true;
            }
            let started = applied.counts.different();
            let send = self.send(items, before, applied, total, step.as_ref());
            match (wave, &step) {
                (Wave::Settings, Some(step)) if establish && self.waits => {
                    let established = self.wait(|wave| wave == Wave::Foundations, ESTABLISH, step);
                    tokio::try_join!(send, established)?;
                }
                _ => send.await?,
            }
            if wave == Wave::Foundations {
                establish = applied.counts.different() > started || before.sent.is_empty();
            }
        }
        end(&mut step, &applied.counts);
        if !waited {
            self.wait_for_all().await?;
        }
        Ok(())
    }

    async fn send(
        &self,
        items: Vec<Placed>,
        before: &Before,
        applied: &mut Applied,
        total: usize,
        step: Option<&Step>,
    ) -> Result<()> {
        let show = |counts: &Counts| {
            if let Some(step) = step {
                step.set(format!("{} of {total}", counts.all()));
            }
        };
        apply::wave(&self.opened.client, items, before, self.force, applied, show).await
    }

    /// Waits until everything is ready.
    ///
    /// # Errors
    /// As [`Wait::until_ready`].
    pub(crate) async fn wait_for_all(&self) -> Result<()> {
        let step = self.ui.step("waiting until it is ready");
        let result = self.wait(|wave| wave != Wave::Customs, self.limit, &step).await;
        match &result {
            Ok(0) => step.done(""),
            Ok(webhooks) => step.done(format!("{webhooks} webhooks answered a trial")),
            Err(_) => step.failed(""),
        }
        result.map(drop)
    }

    async fn wait(&self, of: impl Fn(Wave) -> bool, limit: Duration, step: &Step) -> Result<usize> {
        let objects: Vec<_> = self.release.objects.iter().filter(|object| of(Wave::of(object))).collect();
        let wait = Wait {
            client: &self.opened.client,
            kinds: self.kinds,
            nodes: &self.id.nodes,
            services: objects.iter().any(|object| Wave::of(object) != Wave::Foundations),
            objects,
            limit,
        };
        wait.until_ready(self.guard, step)
            .await
            .within(|| format!("{} {}", self.release.component, self.release.version))
    }
}

fn end(step: &mut Option<Step>, counts: &Counts) {
    if let Some(step) = step.take() {
        step.done(format!("{} created, {} changed, {} as they were", counts.created, counts.changed, counts.unchanged));
    }
}
