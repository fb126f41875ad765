//! Of the SRPMs that are settled, those that would provide what is missing: one that failed, or one that was built in
//! another version than is wanted.
//!
//! What they would provide their headers say, which lie in FINISHED: it deliberately does not know what was published.
//! It blocks.

use std::collections::BTreeMap;

use crate::dependency::{Capability, Requirement};
use crate::folders::Folders;
use crate::history::{SettledBuild, Verdict};
use crate::report::{Missing, Provider, ProviderState, Report, TargetReport};
use crate::source::read_header;

/// By name: what would be provided, and by whom.
type Offers = BTreeMap<String, Vec<(Capability, Provider)>>;

/// Adds them to what is missing in a report.
pub(super) fn add(folders: &Folders, settled: &[SettledBuild], report: &mut Report) {
    for target in &mut report.targets {
        if target.parked.is_empty() && target.waiting.is_empty() {
            continue;
        }
        let of_target = settled.iter().filter(|build| build.key.target == target.target);
        let mut offers = Offers::new();
        for build in of_target {
            let header = read_header(&folders.finished, &build.key);
            let provides = header.map(|header| header.relations.provides.clone()).unwrap_or_default();
            for capability in provides.iter() {
                let provider = Provider { srpm: build.key.srpm.clone(), state: state_of(build.verdict) };
                offers.entry(capability.name.to_string()).or_default().push((capability.clone(), provider));
            }
        }
        missing_of(target).for_each(|missing| add_to(missing, &offers));
    }
}

fn state_of(verdict: Verdict) -> ProviderState {
    match verdict {
        Verdict::Succeeded => ProviderState::Built,
        Verdict::Failed => ProviderState::Failed,
        Verdict::Held => ProviderState::Held,
    }
}

fn missing_of(target: &mut TargetReport) -> impl Iterator<Item = &mut Missing> {
    let parked = target.parked.iter_mut().flat_map(|parked| &mut parked.missing);
    parked.chain(target.waiting.iter_mut().flat_map(|waiting| &mut waiting.needs))
}

fn add_to(missing: &mut Missing, offers: &Offers) {
    let Ok(requirement) = missing.requirement.parse::<Requirement>();
    for (capability, provider) in requirement.names().filter_map(|name| offers.get(name)).flatten() {
        let fits = requirement.helped_by(std::slice::from_ref(capability), &[]);
        let state = match (provider.state, fits) {
            // What was built and fits was there.
            (ProviderState::Built, true) => ProviderState::Removed,
            (ProviderState::Built, false) => ProviderState::Built,
            (_, false) => continue,
            (state, true) => state,
        };
        if !missing.is_there && missing.providers.iter().all(|known| known.srpm != provider.srpm) {
            missing.providers.push(Provider { state, ..provider.clone() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use moji_proto::SrpmName;

    fn offer(
        name: &str,
        version: &str,
        srpm: &str,
        state: ProviderState,
    ) -> (String, (Capability, Provider)) {
        let srpm = SrpmName::new(format!("{srpm}.src.rpm")).unwrap();
        let Ok(Requirement::Plain { name, versions }) = format!("{name} = {version}").parse() else {
            panic!()
        };
        (name.to_string(), (Capability { name: (&*name).into(), versions }, Provider { srpm, state }))
    }

    #[test]
    fn what_failed_would_provide_it_and_what_was_built_is_another_version() {
        let mut offers = Offers::new();
        for (name, offer) in [
            offer("liba", "1-1", "liba-1-1", ProviderState::Failed),
            offer("libb", "1-1", "libb-1-1", ProviderState::Built),
            offer("libb", "3-1", "libb-3-1", ProviderState::Held),
        ] {
            offers.entry(name).or_default().push(offer);
        }
        let providers = |requirement: &str| {
            let mut missing = Missing::unknown(requirement);
            // Nobody is named twice.
            add_to(&mut missing, &offers);
            add_to(&mut missing, &offers);
            let named = missing.providers.iter().map(|one| (one.srpm.as_str().to_owned(), one.state));
            named.collect::<Vec<_>>()
        };
        let named = |srpm: &str, state| (format!("{srpm}.src.rpm"), state);
        assert_eq!(providers("liba"), [named("liba-1-1", ProviderState::Failed)]);
        assert_eq!(providers("liba >= 2"), [], "one that failed in the wrong version would be no help");
        let gone = [named("libb-1-1", ProviderState::Removed), named("libb-3-1", ProviderState::Held)];
        assert_eq!(providers("libb"), gone);
        let both = [named("libb-1-1", ProviderState::Built), named("libb-3-1", ProviderState::Held)];
        assert_eq!(providers("libb >= 2"), both);
        assert_eq!(providers("(liba if libc)"), [named("liba-1-1", ProviderState::Failed)]);
        assert_eq!(providers("nowhere"), []);
    }
}
