//! `can`: may that be said of this version on that platform? A gate for releases.

use clap::Args;
use kit::{Cause, Done, Error, Output, Platform, Result, Ui};

use super::{Input, Which, of_origin, parse_origin, worth};
use crate::{
    model::{Answer, Cell, Matrix, OriginKind, SCHEMA_VERSION, State},
    policy::SUPPORTED,
    text::{clean, day, short},
};

/// Says whether a version is supported on a platform, and why.
#[derive(Debug, Args)]
pub struct Can {
    /// What: component, component@version or component@line, as pipeline@v1.9.0, pipeline@v1.9 or pipeline@main. Of a
    /// line, and without a version, the newest one that is known counts
    #[arg(value_name = "COMPONENT[@VERSION]")]
    what: Which,
    /// Where, as linux/s390x
    platform: Platform,
    /// What may be said of it: a level of ci/policy.toml
    #[arg(long, value_name = "LEVEL", default_value = SUPPORTED)]
    claim: String,
    /// On this version of Kubernetes only
    #[arg(long, value_name = "VERSION")]
    kubernetes: Option<String>,
    /// Only images of this origin: published, built-here or unknown [default: published where somebody looked at the
    /// release that its project published, otherwise any]
    #[arg(long, value_name = "ORIGIN", value_parser = parse_origin)]
    origin: Option<OriginKind>,
    #[command(flatten)]
    input: Input,
}

pub(crate) fn can(args: &Can, ui: &Ui) -> Result<Done> {
    let opened = args.input.open(false, ui)?;
    let levels: Vec<_> = opened.rules.policy.level.iter().map(|level| level.name.as_str()).collect();
    if !levels.contains(&args.claim.as_str()) {
        let error = Error::new(Cause::Usage, format!("ci/policy.toml knows no level '{}'", args.claim));
        return Err(error.next(format!("levels: {}", levels.join(", "))));
    }
    let matrix = opened.matrix(ui)?;
    let answer = answer(args, &matrix);
    match ui.output {
        Output::Json => ui.json(&answer)?,
        Output::Text => ui.result(&words(&answer))?,
    }
    Ok(if answer.yes { Done::good() } else { Done::found(Cause::PolicyRefused) })
}

fn answer(args: &Can, matrix: &Matrix) -> Answer {
    let of_version = args.what.cells(matrix);
    let mut cells = of_version.clone();
    of_origin(&mut cells, args.origin);
    cells.retain(|cell| {
        let kubernetes = args.kubernetes.as_ref();
        cell.platform == args.platform && kubernetes.is_none_or(|wanted| cell.kubernetes.as_ref() == Some(wanted))
    });
    let claim = |cell: &Cell| cell.claims.iter().find(|claim| claim.name == args.claim).cloned();
    let is_met = |cell: &Cell| claim(cell).is_some_and(|claim| claim.met);
    let best = cells.iter().max_by_key(|cell| (is_met(cell), worth(cell)));
    let found = best.and_then(|cell| Some((*cell, claim(cell)?)));
    let version = of_version.first().map(|cell| cell.version.clone());
    let (mut yes, mut reasons, mut until) = (false, Vec::new(), None);
    match &found {
        Some((cell, claim)) => {
            (yes, until) = (claim.met, claim.until);
            reasons = if claim.met { vec![cell.reason.clone()] } else { claim.reasons.clone() };
            if !claim.met {
                reasons.push(format!("it is {}: {}", cell.state_words, cell.reason));
            }
        }
        None if args.origin.is_some() && !of_version.is_empty() => {
            let origin = args.origin.map_or("", OriginKind::words);
            reasons.push(format!("no run says anything of {}, {origin}", args.platform));
        }
        None if of_version.is_empty() => {
            let known: std::collections::BTreeSet<_> =
                matrix.cells.iter().map(|cell| format!("{}@{}", cell.component, cell.version)).collect();
            let known: Vec<_> = known.into_iter().collect();
            let known = if known.is_empty() { "nothing".to_owned() } else { crate::text::list(&known, 10) };
            reasons.push(format!(
                "no run says anything of {}; there is evidence of {known}",
                clean(&args.what.to_string())
            ));
        }
        None => {
            let on = args
                .kubernetes
                .as_deref()
                .map_or_else(String::new, |version| format!(" on Kubernetes {}", clean(version)));
            reasons.push(format!("no run says anything of {}{on}", args.platform));
        }
    }
    let cell = found.as_ref().map(|(cell, _)| *cell);
    // A yes is of one cell; whoever asks wants to know where the same version fails.
    let is_sibling = |other: &&&Cell| other.state == State::Failing && cell.is_some_and(|cell| cell.id != other.id);
    let failing: Vec<&Cell> = cells.iter().filter(is_sibling).copied().collect();
    reasons.extend(failing.iter().map(|other| format!("{} is failing: {}", other.id, other.reason)));
    Answer {
        schema_version: SCHEMA_VERSION.into(),
        component: clean(&args.what.component),
        version: version.or_else(|| args.what.version.as_deref().map(clean)).unwrap_or_else(|| "unknown".into()),
        platform: args.platform.clone(),
        claim: args.claim.clone(),
        yes,
        reasons,
        cell: cell.map(|cell| cell.id.clone()),
        origin: cell.map(|cell| cell.origin.kind),
        failing: failing.iter().map(|cell| cell.id.clone()).collect(),
        state: cell.map(|cell| cell.state),
        evidence: cell.and_then(|cell| cell.tested.evidence.clone().or_else(|| cell.available.evidence.clone())),
        until,
        as_of: matrix.as_of,
    }
}

fn words(answer: &Answer) -> String {
    let Answer { component, version, platform, claim, .. } = answer;
    let verdict = if answer.yes { "yes" } else { "no" };
    let is = if answer.yes { "is" } else { "is not" };
    let until = answer.until.map_or_else(String::new, |until| format!(" until {} if nothing new comes", day(until)));
    let mut text = format!("{verdict}: {component}@{version} {is} {claim} on {platform}{until}\n");
    // What we built is not what its project published.
    if let Some(origin) = answer.origin.filter(|origin| *origin != OriginKind::Published) {
        text.push_str(&format!("  images: {}\n", origin.words()));
    }
    answer.reasons.iter().for_each(|reason| text.push_str(&format!("  {reason}\n")));
    if let Some(evidence) = &answer.evidence {
        text.push_str(&format!("  evidence {}\n", short(evidence)));
    }
    text
}
