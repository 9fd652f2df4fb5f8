//! Platforms and those who answer for them, with the share of runs that their infrastructure lost.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use kit::Platform;

use super::{Groups, Rules, Told, is_lost, is_run};
use crate::{
    index::RunRef,
    model::{Level, Owned, OwnerRow, PlatformRow, Verdict},
    text::clean,
};

/// Who answers for `platform`.
pub(crate) fn owned(platform: &Platform, rules: &Rules) -> Owned {
    let found = rules.architectures.architecture.iter().find(|architecture| architecture.platform == *platform);
    let words = |words: &[String]| words.iter().map(|word| clean(word)).collect();
    found.map_or_else(Owned::default, |found| Owned {
        owners: words(&found.owners),
        hardware: words(&found.hardware),
        machines: found.machines,
        provider: found.provider.as_deref().map(clean),
        clusters: words(&found.clusters),
    })
}

/// Every platform that is configured or seen.
pub(super) fn platforms(groups: &Groups<'_>, rules: &Rules) -> Vec<PlatformRow> {
    let configured = rules.architectures.architecture.iter().map(|architecture| &architecture.platform);
    let mut all: Vec<&Platform> = configured.collect();
    all.extend(groups.keys().map(|key| &key.platform));
    let mut seen = BTreeSet::new();
    all.retain(|platform| seen.insert(*platform));
    let row = |platform: &Platform| {
        let (runs, lost) = lost_on(groups, &|of| of == platform);
        PlatformRow { platform: platform.clone(), owned: owned(platform, rules), runs, lost, share: share(runs, lost) }
    };
    all.into_iter().map(row).collect()
}

/// Every owner; platforms that nobody answers for belong to `nobody`.
pub(super) fn owners(groups: &Groups<'_>, rules: &Rules) -> Vec<OwnerRow> {
    let mut all: BTreeMap<String, Vec<Platform>> = BTreeMap::new();
    let configured = rules.architectures.architecture.iter().map(|architecture| architecture.platform.clone());
    let seen = groups.keys().map(|key| key.platform.clone());
    for platform in configured.chain(seen).collect::<BTreeSet<_>>() {
        let owners = owned(&platform, rules).owners;
        let owners = if owners.is_empty() { vec!["nobody".to_owned()] } else { owners };
        for owner in owners {
            all.entry(owner).or_default().push(platform.clone());
        }
    }
    let row = |(owner, platforms): (String, Vec<Platform>)| {
        let (runs, lost) = lost_on(groups, &|of| platforms.contains(of));
        let machines = platforms.iter().map(|platform| owned(platform, rules).machines).sum();
        OwnerRow { owner, platforms, machines, runs, lost, share: share(runs, lost) }
    };
    all.into_iter().map(row).collect()
}

/// Runs that were to try something on these platforms, and those of them that the infrastructure lost.
fn lost_on(groups: &Groups<'_>, of: &dyn Fn(&Platform) -> bool) -> (usize, usize) {
    let here = groups.iter().filter(|(key, _)| of(&key.platform)).flat_map(|(_, told)| &**told);
    lost(here.filter(|told| is_run(told)))
}

/// Runs, and those of them that the infrastructure lost: it lost something, and of the furthest that was tried, which is
/// tests if there were any, nothing came to an end.
pub(super) fn lost<'t, 'a: 't>(told: impl Iterator<Item = &'t Told<'a>>) -> (usize, usize) {
    #[derive(Default)]
    struct Run {
        lost: bool,
        furthest: u8,
        taught: bool,
    }
    let mut runs: HashMap<*const RunRef, Run> = HashMap::new();
    for told in told {
        let run = runs.entry(told.run).or_default();
        run.lost |= is_lost(told);
        let far = match told.attempt.level {
            None => continue,
            Some(Level::Index | Level::Contents) => 1,
            Some(Level::Installs) => 2,
            Some(_) => 3,
        };
        if far > run.furthest {
            (run.furthest, run.taught) = (far, false);
        }
        run.taught |= far == run.furthest && matches!(told.attempt.verdict, Verdict::Shown | Verdict::Failed);
    }
    (runs.len(), runs.values().filter(|run| run.lost && !run.taught).count())
}

fn share(runs: usize, lost: usize) -> f64 {
    if runs == 0 { 0.0 } else { (lost as f64 / runs as f64 * 1_000.0).round() / 1_000.0 }
}
