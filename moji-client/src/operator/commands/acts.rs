//! The commands that change something: a message each, and what became of it.

use moji_proto::operator::{Act, Done, NAME_MAX, NAMES, Place};
use moji_proto::outcome::plain;
use serde_json::json;

use super::Context;
use crate::operator::Failure;
use crate::operator::options::{Builds, DoneJson, Drain, Hold, Pause, Prio, Resume, Retry};
use crate::operator::output::{Paint, Style, pretty, print};

impl Context {
    pub(super) async fn retry(&self, wanted: Retry) -> Result<u8, Failure> {
        let Retry { builds, failed: _, kind, target, json } = wanted;
        if builds.is_empty() {
            return self.act([Act::RetryFailed { kind, target }], json).await;
        }
        self.act(parts(builds)?.map(|builds| Act::Retry { builds }), json).await
    }

    pub(super) async fn cancel(&self, wanted: Builds) -> Result<u8, Failure> {
        self.act(parts(wanted.builds)?.map(|builds| Act::Cancel { builds }), wanted.json).await
    }

    pub(super) async fn hold(&self, wanted: Hold) -> Result<u8, Failure> {
        let Hold { builds, reason, json } = wanted;
        self.act(parts(builds)?.map(|builds| Act::Hold { builds, reason: reason.clone() }), json).await
    }

    pub(super) async fn prio(&self, wanted: Prio) -> Result<u8, Failure> {
        let Prio { place, mut entries, target, json } = wanted;
        match place {
            // Each goes before the one that went there last.
            Place::First | Place::At(_) => entries.reverse(),
            Place::Last | Place::Nowhere => {}
        }
        let act = |entry| Act::Prioritize { entry, target: target.clone(), place };
        self.act(entries.into_iter().map(act), json).await
    }

    pub(super) async fn drain(&self, wanted: Drain) -> Result<u8, Failure> {
        let Drain { builder, reason, json } = wanted;
        self.act([Act::Drain { builder, reason }], json).await
    }

    pub(super) async fn resume(&self, wanted: Resume) -> Result<u8, Failure> {
        self.act([Act::Resume { builder: wanted.builder }], wanted.json).await
    }

    pub(super) async fn pause(&self, wanted: Pause) -> Result<u8, Failure> {
        self.act([Act::Pause { reason: wanted.reason }], wanted.json).await
    }

    pub(super) async fn unpause(&self, json: DoneJson) -> Result<u8, Failure> {
        self.act([Act::Unpause], json).await
    }

    /// One after the other; 4 when something was not done.
    async fn act(&self, acts: impl IntoIterator<Item = Act>, json: DoneJson) -> Result<u8, Failure> {
        let mut report = Report::new(json, self.style);
        for act in acts {
            let done = match self.one(act).await {
                Ok(done) => done,
                Err(failure) => {
                    // What is done already is done.
                    report.end()?;
                    return Err(failure);
                }
            };
            report.add(done)?;
        }
        report.end()
    }

    async fn one(&self, act: Act) -> Result<Vec<Done>, Failure> {
        // Not connected yet is no reason to doubt what was done.
        let _ = self.farm.session().await?;
        self.farm.act(act).await.map_err(|failure| match failure {
            Failure::Unreachable(text) => Failure::Unreachable(format!(
                "{text}; it may be done all the same: look before you say it again"
            )),
            failure => failure,
        })
    }
}

/// What became of things: told at once to people, as one array to programs.
pub(super) struct Report {
    /// None: for people.
    json: Option<Vec<Done>>,
    style: Style,
    all_done: bool,
}

impl Report {
    pub(super) fn new(json: DoneJson, style: Style) -> Self {
        Self { json: json.json.then(Vec::new), style, all_done: true }
    }

    /// What became of some of them.
    pub(super) fn add(&mut self, done: Vec<Done>) -> Result<(), Failure> {
        self.all_done &= done.iter().all(|done| done.is_done);
        match &mut self.json {
            Some(all) => all.extend(done),
            None => print(&told(&done, &self.style))?,
        }
        Ok(())
    }

    /// One that the server does not want, which people were told already.
    pub(super) fn refused(&mut self, about: String, text: String) {
        self.all_done = false;
        if let Some(all) = &mut self.json {
            all.push(Done { about, is_done: false, text });
        }
    }

    /// This was all: 4 when something was not done.
    pub(super) fn end(self) -> Result<u8, Failure> {
        if let Some(all) = self.json {
            // Named here: the fields of the wire's messages are no promise to scripts.
            let object = |Done { about, is_done, text }: Done| json!({ "about": about, "is_done": is_done, "text": text });
            print(&pretty(&all.into_iter().map(object).collect()))?;
        }
        Ok(if self.all_done { 0 } else { Failure::Refused(String::new()).code() })
    }
}

/// What became of each thing.
fn told(done: &[Done], style: &Style) -> String {
    if done.is_empty() {
        return "there was nothing to do\n".into();
    }
    let line = |done: &Done| {
        let paint = if done.is_done { Paint::Plain } else { Paint::Bad };
        let not = if done.is_done { "" } else { "not done: " };
        match done.about.is_empty() {
            true => format!("{not}{}\n", style.paint(paint, &done.text)),
            false => format!("{}: {not}{}\n", plain(&done.about), style.paint(paint, &done.text)),
        }
    };
    done.iter().map(line).collect()
}

/// Names, in parts that one message may have.
fn parts(names: Vec<String>) -> Result<impl Iterator<Item = Vec<String>>, Failure> {
    if let Some(name) = names.iter().find(|name| name.is_empty() || name.len() > NAME_MAX) {
        let begin: String = name.chars().take(20).collect();
        return Err(Failure::Wrong(format!("{begin:?} is no build's name: it has 1 to {NAME_MAX} bytes")));
    }
    let parts: Vec<_> = names.chunks(NAMES).map(<[String]>::to_vec).collect();
    Ok(parts.into_iter())
}
