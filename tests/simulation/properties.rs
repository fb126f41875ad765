//! What must be so at every look, and at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use moji_proto::{AttemptId, Outcome, Sha256};
use moji_tests::support::simulated::{Site, names_in};

use crate::farm::{Runs, SharedRuns, built};
use crate::plan::{Package, Plan};

pub(crate) struct Properties<'a> {
    plan: &'a Plan,
    site: Arc<Site>,
    /// Whose results were there when an SRPM came to FINISHED.
    settled: BTreeMap<String, AttemptId>,
    runs: SharedRuns,
    looks: usize,
}

impl<'a> Properties<'a> {
    pub(crate) fn new(plan: &'a Plan, site: Arc<Site>, runs: SharedRuns) -> Self {
        Self { plan, site, settled: BTreeMap::new(), runs, looks: 0 }
    }

    /// At every look: each SRPM is in exactly one folder; one that is finished stays, with the
    /// results that it came with.
    pub(crate) fn look(&mut self, now: Duration) -> anyhow::Result<()> {
        self.looks += 1;
        self.look_into_outboxes();
        Runs::of(&self.runs).check(self.plan.again).with_context(|| format!("at {now:?}"))?;
        let folders = [self.site.source(), self.site.working(), self.site.finished()];
        for package in
            self.plan.packages.iter().filter(|package| package.put_at + Duration::from_secs(1) < now)
        {
            let path = package.path();
            let places: Vec<bool> = folders.iter().map(|folder| folder.contains(&path)).collect();
            ensure!(
                places.iter().filter(|is_there| **is_there).count() == 1,
                "at {now:?}: {path} is in SOURCE, WORKING, FINISHED: {places:?}"
            );
            let finished = places.last() == Some(&true);
            if finished && self.is_tried_again(&path)? {
                ensure!(!self.settled.contains_key(&path), "at {now:?}: {path} is settled, and then held");
                continue;
            }
            if !finished {
                ensure!(!self.settled.contains_key(&path), "at {now:?}: {path} has left FINISHED");
                continue;
            }
            // Not all of them at each look: that would be most of the work.
            if self.settled.contains_key(&path) && !self.looks.is_multiple_of(50) {
                continue;
            }
            let attempt =
                self.attempt(package).with_context(|| format!("at {now:?}: {path} is in FINISHED"))?;
            let settled = *self.settled.entry(path.clone()).or_insert(attempt);
            ensure!(settled == attempt, "at {now:?}: {path} was settled by {settled} and then by {attempt}");
        }
        Ok(())
    }

    /// What is in an outbox, whole, is finished, unless it says nothing about the package.
    fn look_into_outboxes(&self) {
        for builder in &self.plan.builders {
            let outbox = self.site.path().join("builders").join(&builder.name).join("outbox");
            for attempt in names_in(&outbox) {
                let parcel = fs::read(outbox.join(attempt).join("parcel.json")).unwrap_or_default();
                let parcel: serde_json::Value = serde_json::from_slice(&parcel).unwrap_or_default();
                let kind = parcel.pointer("/outcome/failed/kind").and_then(|kind| kind.as_str());
                let speaks = kind.is_none_or(|kind| matches!(kind, "package" | "missing_dependency"));
                if let Some(srpm) = parcel.get("srpm").and_then(|srpm| srpm.as_str()).filter(|_| speaks) {
                    Runs::of(&self.runs).packed(srpm);
                }
            }
        }
    }

    /// What too many builders were lost with is held. There is a person who has it tried again.
    fn is_tried_again(&self, path: &str) -> anyhow::Result<bool> {
        let folders = &self.site.folders;
        let record = folders.finished.join(format!("{path}.held.json"));
        let Ok(json) = fs::read_to_string(&record) else { return Ok(false) };
        ensure!(json.contains("3 attempts came to nothing"), "{path} is held: {json}");
        fs::remove_file(record)?;
        fs::rename(folders.finished.join(path), folders.source.join(path))?;
        Ok(true)
    }

    fn attempt(&self, package: &Package) -> anyhow::Result<AttemptId> {
        let record = self.site.record(&package.folder()).context("there is no build.json")?;
        Ok(record.attempt.context("build.json names no attempt")?.id)
    }

    /// Everything has been built and nothing is under way any more.
    pub(crate) fn is_settled(&self) -> bool {
        let parked = self.plan.packages.iter().filter(|package| self.is_parked(package)).count();
        self.settled.len() + parked == self.plan.packages.len()
            && self.site.staged().is_empty()
            && self.kept_by_builders().is_empty()
    }

    /// Whether it waits in SOURCE for what nothing here provides, and says so.
    fn is_parked(&self, package: &Package) -> bool {
        let lacks_something =
            matches!(&package.outcome, Outcome::Failed { missing, .. } if !missing.is_empty());
        lacks_something
            && self.site.folders.source.join(package.path()).exists()
            && self.site.record(&package.folder()).is_some_and(|record| record.parked)
    }

    pub(crate) fn left(&self) -> String {
        format!(
            "SOURCE {:?}, WORKING {:?}, staged {:?}, kept by builders {:?}",
            self.site.source(),
            self.site.working(),
            self.site.staged(),
            self.kept_by_builders()
        )
    }

    fn kept_by_builders(&self) -> Vec<String> {
        let mut kept = Vec::new();
        for builder in &self.plan.builders {
            let work = self.site.path().join("builders").join(&builder.name);
            for folder in ["outbox", "slot-0", "slot-1", "slot-2"] {
                kept.extend(
                    names_in(&work.join(folder))
                        .iter()
                        .map(|name| format!("{}/{folder}/{name}", builder.name)),
                );
            }
        }
        kept
    }

    /// At the end; gives what was published, in words that do not depend on real time.
    pub(crate) fn at_the_end(&self) -> anyhow::Result<Vec<String>> {
        let mut told = Vec::new();
        let mut attempts = BTreeSet::new();
        let waiting = self.plan.packages.iter().filter(|package| self.is_parked(package));
        let mut waiting: Vec<_> = waiting.map(Package::path).collect();
        waiting.sort();
        ensure!(self.site.source() == waiting && self.site.working().is_empty(), "left: {}", self.left());
        for package in &self.plan.packages {
            let record = self.site.record(&package.folder()).context("there is no build.json")?;
            let name = &package.name;
            ensure!(record.srpm.as_str() == format!("{name}-1-1.src.rpm"), "{name}: {record:?}");
            ensure!(record.outcome == package.outcome, "{name}: {:?}", record.outcome);
            let attempt = record.attempt.context("build.json names no attempt")?;
            ensure!(attempts.insert(attempt.id), "{name}: {} settled two SRPMs", attempt.id);
            ensure!(
                package.target.is_none_or(|target| attempt.target.as_str() == target),
                "{name} was built for {}",
                attempt.target
            );
            let mut expected: Vec<String> = vec!["build.json".into()];
            for artifact in &record.artifacts {
                let path = self.site.folders.repo.join(package.folder()).join(&artifact.name);
                let content = fs::read(&path).with_context(|| format!("{name}: {}", artifact.name))?;
                ensure!(
                    content.len() as u64 == artifact.size && Sha256::of(&content) == artifact.sha256,
                    "{name}: {} is not what build.json says",
                    artifact.name
                );
                if artifact.name.is_rpm() {
                    let is_it =
                        |(of, built): &(String, Vec<u8>)| *of == artifact.name.as_str() && *built == content;
                    ensure!(
                        built(package).iter().any(is_it),
                        "{name}: {} was not built from it",
                        artifact.name
                    );
                }
                expected.push(artifact.name.to_string());
            }
            expected.sort();
            let published = self.site.published(&package.folder());
            ensure!(published == expected, "{name}: {published:?} is published, {expected:?} recorded");
            let srpm = self.site.folders.source.join(package.path());
            ensure!(srpm.exists() == record.parked, "{name} is still in SOURCE");
            told.push(format!("{name}: {:?} by {}", record.outcome, attempt.builder));
        }
        self.nothing_else_is_published()?;
        Ok(told)
    }

    fn nothing_else_is_published(&self) -> anyhow::Result<()> {
        let expected: BTreeSet<String> = self.plan.packages.iter().map(Package::folder).collect();
        for name in self.site.published("") {
            let is_target = self.plan.packages.iter().any(|package| package.target == Some(name.as_str()));
            if is_target {
                for inner in self.site.published(&name) {
                    let path = format!("{name}/{inner}");
                    let own = inner == "repodata" || inner == "generations";
                    ensure!(own || expected.contains(&path), "{path} is published");
                }
            } else if !expected.contains(&name) && name != "repodata" && name != "generations" {
                bail!("{name} is published");
            }
        }
        Ok(())
    }
}
