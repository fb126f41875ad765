//! `moji log`: a build's log, as it is or as it grows, across lost connections and from one attempt to the next.

use std::io::IsTerminal as _;
use std::time::Duration;

use moji_proto::AttemptId;
use moji_proto::api::{Attempt, BASE, Build, BuildDetail, BuildState};
use tokio::time::sleep;

use super::{Context, path};
use crate::operator::farm::Patience;
use crate::operator::options::{Log, WhichLog};
use crate::operator::output::log_text::Cleaner;
use crate::operator::output::{note, print, print_bytes, words};
use crate::operator::{Failure, Farm};

/// How often a build that has no attempt is looked at.
const LOOK: Duration = Duration::from_secs(1);

impl Context {
    pub(super) async fn log(&self, wanted: Log) -> Result<(), Failure> {
        if wanted.raw && std::io::stdout().is_terminal() {
            return Err(Failure::Wrong(
                "--raw is not for a terminal, which would obey what is in the log: redirect it".into(),
            ));
        }
        let build = self.find(&wanted.build).await?;
        let mut sink = Stdout { cleaner: (!wanted.raw).then(Cleaner::default) };
        match wanted.follow {
            true => follow(&self.farm, &build, wanted.file, &mut sink).await,
            false => whole(&self.farm, &build, wanted.file, &mut sink).await,
        }
    }
}

/// Where a log goes.
pub(super) trait Sink {
    /// The next bytes.
    ///
    /// # Errors
    /// When they cannot be written.
    fn put(&mut self, bytes: &[u8]) -> Result<(), Failure>;
    /// Something that is no part of it.
    fn say(&mut self, text: &str);
}

struct Stdout {
    /// None: the bytes as they are.
    cleaner: Option<Cleaner>,
}

impl Sink for Stdout {
    fn put(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match &mut self.cleaner {
            Some(cleaner) => print(&cleaner.feed(bytes)),
            None => print_bytes(bytes),
        }
    }

    fn say(&mut self, text: &str) {
        note(text);
    }
}

/// The log as far as it is there.
async fn whole(farm: &Farm, build: &Build, which: WhichLog, sink: &mut impl Sink) -> Result<(), Failure> {
    let Some(attempt) = build.attempt else {
        let (name, state, id) = (words::name(build), build.state, build.id);
        return Err(Failure::Refused(match state.is_open() {
            true => format!("{name} is {state} and has no log yet: -f waits for it, moji why {id} says more"),
            false => format!("{name} is {state} and has no log: it was never begun; moji why {id} says more"),
        }));
    };
    let mut copy = Copy { farm, attempt, which, follow: false, offset: 0, patience: farm.patience() };
    copy.begin_to_end(sink).await
}

/// The log as it grows, until the build is settled or parked.
pub(super) async fn follow(
    farm: &Farm,
    build: &Build,
    which: WhichLog,
    sink: &mut impl Sink,
) -> Result<(), Failure> {
    let mut shown: Option<AttemptId> = None;
    let mut is_waiting = false;
    loop {
        let detail = detail_of(farm, build.id, sink).await?;
        let last = detail.attempts.first().filter(|attempt| Some(attempt.id) != shown);
        match last {
            Some(attempt) => {
                let attempt = attempt.id;
                if shown.is_some() {
                    sink.say(&format!("attempt {attempt} begins"));
                }
                let mut copy =
                    Copy { farm, attempt, which, follow: true, offset: 0, patience: farm.patience() };
                copy.until_ended(build.id, sink).await?;
                (shown, is_waiting) = (Some(attempt), false);
            }
            None if is_over(&detail, shown) => {
                sink.say(&ending(&detail));
                return Ok(());
            }
            None => {
                if !std::mem::replace(&mut is_waiting, true) {
                    sink.say(&format!("{} is {}: waiting", words::name(&detail.build), detail.build.state));
                }
                sleep(LOOK).await;
            }
        }
    }
}

/// Whether nothing more comes by itself. What is parked before anything was shown is waited for.
fn is_over(detail: &BuildDetail, shown: Option<AttemptId>) -> bool {
    !detail.build.state.is_open() || (detail.build.state == BuildState::Parked && shown.is_some())
}

fn ending(detail: &BuildDetail) -> String {
    let build = &detail.build;
    let reason = build.reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
    format!("{} {}{reason}", words::name(build), build.state)
}

/// A build, whatever becomes of the connection.
async fn detail_of(farm: &Farm, id: u64, sink: &mut impl Sink) -> Result<BuildDetail, Failure> {
    farm.patiently(&format!("{BASE}/builds/{id}"), |text| sink.say(text)).await
}

/// A log on its way.
struct Copy<'a> {
    farm: &'a Farm,
    attempt: AttemptId,
    which: WhichLog,
    follow: bool,
    /// Where the next byte stands.
    offset: u64,
    patience: Patience,
}

impl Copy<'_> {
    /// To the log's end, whatever becomes of the connection once it has begun.
    async fn begin_to_end(&mut self, sink: &mut impl Sink) -> Result<(), Failure> {
        let mut is_begun = self.follow;
        loop {
            match self.once(sink, &mut is_begun).await {
                Ok(()) => return Ok(()),
                Err(failure) if is_begun => self.patience.again(failure, |text| sink.say(text)).await?,
                Err(failure) => return Err(failure),
            }
        }
    }

    /// To the attempt's end: a server that stops ends its streams too.
    async fn until_ended(&mut self, build: u64, sink: &mut impl Sink) -> Result<(), Failure> {
        loop {
            let copied = self.begin_to_end(sink).await;
            let detail = detail_of(self.farm, build, sink).await?;
            let is_this = |attempt: &&Attempt| attempt.id == self.attempt;
            let has_ended = detail.attempts.iter().find(is_this).is_none_or(|one| one.ended_at.is_some());
            match copied {
                Ok(()) => {}
                // One whose builder was lost may have left no log; the next one may.
                Err(Failure::Refused(reason)) if detail.build.state.is_open() && has_ended => {
                    sink.say(&reason)
                }
                Err(failure) => return Err(failure),
            }
            if has_ended {
                return Ok(());
            }
            sleep(LOOK).await;
        }
    }

    async fn once(&mut self, sink: &mut impl Sink, is_begun: &mut bool) -> Result<(), Failure> {
        let base = format!("{BASE}/attempts/{}/logs/{}", self.attempt, self.which.file().file_name());
        let follow = self.follow.then(|| ("follow", "true".to_owned()));
        let offset = Some(("offset", self.offset.to_string())).filter(|_| self.offset > 0);
        let mut body = self.farm.get(&path(&base, follow.into_iter().chain(offset))).await?.body;
        *is_begun = true;
        self.patience.works();
        while let Some(bytes) = body.next().await? {
            sink.put(&bytes)?;
            self.offset += bytes.len() as u64;
        }
        Ok(())
    }
}
