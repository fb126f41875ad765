//! The repositories: what comes into them is told to the scheduler, and each attempt is told where to find the
//! one that it is for, in the generation that is fixed for it.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use moji_proto::outcome::{one_line, plain};
use moji_proto::{RepositoryUrl, TargetName, api};
use tokio::task::spawn_blocking;

use super::Farm;
use super::note::Note;
use crate::contents::RepositoryChange;
use crate::dependency::{Capability, PublishedPackage, Requirement};
use crate::estimates::Estimates;
use crate::history::Remembered;
use crate::metadata::{GENERATIONS, Handle, InUse, Repository, Standings};
use crate::record::RepositoryUsed;
use crate::repository_url::RepositoryUrls;
use crate::scheduler::{Event, Lease};

/// What is known of the repositories.
#[derive(Debug)]
pub(super) struct Repositories {
    metadata: Handle,
    urls: RepositoryUrls,
    /// Of these something was told: what comes now is new, and not only new to this server.
    told: BTreeSet<Repository>,
    /// The packages of which it is known what their last good build provided.
    known: BTreeSet<(Option<TargetName>, String)>,
    /// What the metadata's keeper was told; it removes nothing before it has been told anything.
    in_use: Option<InUse>,
}

impl Repositories {
    pub(super) fn new(metadata: Handle, urls: RepositoryUrls) -> Self {
        Self { metadata, urls, told: BTreeSet::new(), known: BTreeSet::new(), in_use: None }
    }
}

impl Farm {
    /// What servers before this one knew.
    pub(super) async fn remember(&mut self, remembered: Remembered) {
        let Remembered { parked, waiting, durations, products, .. } = remembered;
        self.waited = waiting;
        self.handle(Event::Estimates(Box::new(Estimates::from_history(durations)))).await;
        for ((target, package), provides) in products {
            self.repositories.known.insert((target.clone(), package.clone()));
            let provides =
                provides.iter().map(|name| Capability { name: name.as_str().into(), versions: None });
            let provides = provides.collect();
            self.handle(Event::Products { target, package, provides }).await;
        }
        for (key, parked) in parked {
            let missing: Vec<Requirement> =
                parked.missing.iter().filter_map(|text| text.parse().ok()).collect();
            if !missing.is_empty() {
                self.handle(Event::Parked { key, missing, generation: parked.generation }).await;
            }
        }
    }

    /// Another generation of a repository is served, or the first one that this server sees.
    pub(super) async fn on_contents(&mut self, change: RepositoryChange) {
        let target = match &change.repository {
            Repository::Main => None,
            Repository::Nested(name) => match TargetName::new(name.as_str()) {
                Ok(target) => Some(target),
                // No builds are for it.
                Err(_) => return,
            },
        };
        let was_told = !self.repositories.told.insert(change.repository.clone());
        for (package, capabilities) in products(&change.added) {
            let unknown = self.repositories.known.insert((target.clone(), package.clone()));
            if was_told || unknown {
                self.note(Note::Provided { target: target.clone(), package: &package, capabilities });
            }
        }
        if was_told && self.scheduler.generation(target.as_ref()) != change.generation {
            self.published(target.clone(), &change);
        }
        self.handle(Event::Contents { target, change: Box::new(change) }).await;
        self.say_what_is_in_use();
    }

    /// Under which URL the builder of an attempt finds the repository that it is for, and what is recorded of that.
    pub(super) async fn repository_for(
        &self,
        lease: &Lease,
    ) -> (Option<RepositoryUrl>, Option<RepositoryUsed>) {
        let repository = repository_of(lease);
        let generation = lease.generation;
        if generation == 0 {
            return (None, None);
        }
        let is_local =
            lease.session.and_then(|session| self.sessions.get(&session)).is_some_and(|on| on.is_local);
        let served = self.repositories.metadata.served();
        let is_fixed = served
            .borrow()
            .get(&repository)
            .is_some_and(|served| served.number != generation || served.fixed);
        let folder = self.folders.repository(&lease.srpm.key).join(GENERATIONS).join(generation.to_string());
        let is_there = spawn_blocking(move || folder.is_dir()).await.unwrap_or_default();
        if is_fixed && !is_there {
            // A person has removed it. A look makes it again; until then there is what is served.
            self.repositories.metadata.nudge(repository.clone(), None);
        }
        let is_fixed = is_fixed && is_there;
        let url = self.repositories.urls.of(&repository, is_fixed.then_some(generation), is_local);
        let shown = url.as_ref().map(ToString::to_string).filter(|url| !url.starts_with(':'));
        (url, Some(RepositoryUsed { generation, url: shown }))
    }

    /// How the metadata of each repository are.
    pub(super) fn standings(&self) -> Standings {
        self.repositories.metadata.standings()
    }

    /// The generations that attempts run against stay.
    pub(super) fn say_what_is_in_use(&mut self) {
        // Before all that lay in SOURCE is known, leases may still be restored.
        if !self.ready {
            return;
        }
        let mut in_use: InUse = BTreeMap::new();
        for lease in self.scheduler.leases().filter(|lease| lease.generation > 0) {
            in_use.entry(repository_of(lease)).or_default().insert(lease.generation);
        }
        if self.repositories.in_use.as_ref() != Some(&in_use) {
            self.repositories.in_use = Some(in_use.clone());
            self.repositories.metadata.in_use(in_use);
        }
    }
}

/// The repositories whose metadata cannot be made just now.
pub(super) fn out_of_date(standings: &Standings) -> Vec<api::OutOfDate> {
    let troubled = standings.iter().filter_map(|(repository, standing)| {
        let trouble = standing.trouble.as_ref()?;
        Some(api::OutOfDate {
            repository: match repository {
                Repository::Main => None,
                Repository::Nested(name) => Some(plain(name)),
            },
            since: standing.since.unwrap_or_else(Timestamp::now),
            failures: trouble.failures.into(),
            reason: one_line(&trouble.reason),
        })
    });
    troubled.collect()
}

fn repository_of(lease: &Lease) -> Repository {
    match &lease.srpm.key.target {
        Some(target) => Repository::Nested(target.to_string()),
        None => Repository::Main,
    }
}

/// What source packages provide, by name.
fn products(added: &[PublishedPackage]) -> BTreeMap<String, Vec<String>> {
    let mut products: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for package in added {
        if let Some(source) = package.source_name() {
            let names = package.provides.iter().map(|capability| capability.name.to_string());
            products.entry(source.to_owned()).or_default().extend(names);
        }
    }
    products.into_iter().map(|(package, names)| (package, names.into_iter().collect())).collect()
}
