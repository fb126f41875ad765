//! Logs of attempts, as far as they are here: whole, in part, or followed until the attempt has ended.
//!
//! What is followed moves: it comes into staging while the attempt runs, and lies in REPO when that is published;
//! the bytes stay the same, so a place in one is the same place in the other. Of a log as much is in memory as is
//! sent next. It deliberately does not know what is in a log.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use jiff::Timestamp;
use moji_proto::{ArtifactName, AttemptId, Nvr};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::farm::quoted;
use super::places::{Places, open_staged};
use super::{Api, ApiError};
use crate::BuildKey;
use crate::history::FoundAttempt;

/// How much is read at a time.
const PIECE: usize = 64 * 1024;
/// How often it is looked whether a log has grown.
const LOOK: Duration = Duration::from_millis(200);
/// An attempt that is younger the farm may not have told yet.
const YOUNG: Duration = Duration::from_secs(2);
/// How often it is asked whether its attempt still runs.
const CHECK: Duration = Duration::from_secs(1);

/// A log: which one, and where it may lie.
#[derive(Debug, Clone)]
pub struct LogOf {
    /// Of which attempt.
    pub attempt: AttemptId,
    /// Its file name.
    pub name: ArtifactName,
    /// Of which build; none when the history does not know the attempt yet.
    build: Option<(BuildKey, Option<Nvr>)>,
}

/// A log that is here.
#[derive(Debug)]
pub struct OpenLog {
    /// The file.
    pub file: File,
    /// How it was when it was opened.
    pub data: std::fs::Metadata,
}

impl Api {
    /// A log of an attempt.
    ///
    /// # Errors
    /// When there is no such attempt, that is no name of a log, or the history cannot be read.
    pub async fn log_of_attempt(&self, attempt: AttemptId, name: &str) -> Result<LogOf, ApiError> {
        let name = log_name(name)?;
        match self.known_attempt(attempt).await {
            Ok((found, nvr)) => Ok(LogOf { attempt, name, build: Some((found.key, nvr)) }),
            // The history hears of it in a moment.
            Err(ApiError::NotFound(_)) if self.runs(attempt).await => {
                Ok(LogOf { attempt, name, build: None })
            }
            Err(error) => Err(error),
        }
    }

    /// A log of a build: of the attempt that settled it, or else of the last one.
    ///
    /// # Errors
    /// When there is no such build, nobody has tried it yet, or the history cannot be read.
    pub async fn log_of_build(&self, reference: &str, name: &str) -> Result<LogOf, ApiError> {
        let name = log_name(name)?;
        let (key, detail) = self.known(reference).await?;
        let last = detail.build.attempt.or_else(|| detail.attempts.first().map(|attempt| attempt.id));
        let attempt = last.ok_or_else(|| {
            ApiError::NotFound(format!("{key} has no log yet: no builder has had it since it was queued"))
        })?;
        Ok(LogOf { attempt, name, build: Some((key, detail.build.nvr)) })
    }

    /// Opens a log.
    ///
    /// # Errors
    /// When it is not here (yet).
    pub async fn open_log(&self, log: &LogOf) -> Result<OpenLog, ApiError> {
        let missing =
            || ApiError::NotFound(format!("there is no {} of attempt {} here", log.name, log.attempt));
        let file = self.open(log.clone()).await.map_err(|_| missing())?;
        let data = file.metadata().map_err(|_| missing())?;
        Ok(OpenLog { file, data })
    }

    /// Follows a log from this byte on.
    ///
    /// # Errors
    /// When it is not here, and will not come.
    pub async fn follow_log(&self, log: LogOf, offset: u64) -> Result<Follower, ApiError> {
        let is_running = self.runs(log.attempt).await;
        let file = match self.open(log.clone()).await {
            Ok(file) => Some(Arc::new(file)),
            Err(_) if is_running => None,
            Err(_) => self.open_log(&log).await.map(|open| Some(Arc::new(open.file)))?,
        };
        Ok(Follower { api: self.clone(), log, offset, file, is_whole: !is_running, checked: Instant::now() })
    }

    async fn open(&self, log: LogOf) -> io::Result<File> {
        let folders = Arc::clone(&self.folders);
        let opened = spawn_blocking(move || match &log.build {
            Some((key, nvr)) => Places::of(&folders, key, nvr.as_ref()).open_log(log.attempt, &log.name),
            None => open_staged(&folders, log.attempt, &log.name),
        });
        opened.await.map_err(io::Error::other)?
    }

    /// Whether more may come of an attempt. Of a farm that does not answer nothing comes.
    async fn runs(&self, attempt: AttemptId) -> bool {
        let Ok(live) = self.farm.live().await else { return false };
        if live.running.iter().any(|running| running.attempt == attempt) {
            return true;
        }
        // What the farm says is shared, and a moment old: one that has just begun the history may know sooner.
        let known = self.history.ask(move |views| views.attempt(attempt)).await;
        known.ok().flatten().is_some_and(|FoundAttempt { attempt, .. }| {
            let age = Timestamp::now().duration_since(attempt.leased_at);
            attempt.ended_at.is_none() && age.unsigned_abs() < YOUNG
        })
    }
}

/// Reads a log as it grows.
#[derive(Debug)]
pub struct Follower {
    api: Api,
    log: LogOf,
    offset: u64,
    file: Option<Arc<File>>,
    /// Nothing comes any more but what `file` has.
    is_whole: bool,
    checked: Instant,
}

impl Follower {
    /// Where in the log the next piece begins.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether the attempt has ended. When there is no next piece and it has not, the server stops.
    pub fn is_whole(&self) -> bool {
        self.is_whole
    }

    /// The next piece, as soon as there is one; `None`: the attempt has ended, and that was all.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub async fn next(&mut self) -> io::Result<Option<Bytes>> {
        loop {
            if let Some(file) = &self.file {
                let (file, offset) = (Arc::clone(file), self.offset);
                let read = spawn_blocking(move || {
                    let mut piece = vec![0; PIECE];
                    let length = file.read_at(&mut piece, offset)?;
                    piece.truncate(length);
                    io::Result::Ok(piece)
                });
                let piece = read.await.map_err(io::Error::other)??;
                if !piece.is_empty() {
                    self.offset += piece.len() as u64;
                    return Ok(Some(piece.into()));
                }
            }
            if self.is_whole {
                return Ok(None);
            }
            if self.checked.elapsed() >= CHECK {
                self.checked = Instant::now();
                self.is_whole = !self.api.runs(self.log.attempt).await;
            }
            if self.is_whole {
                // What was published is whole, what came live perhaps not.
                self.reopen().await;
                continue;
            }
            if self.file.is_none() {
                self.reopen().await;
            }
            let ending = self.api.ending.clone();
            tokio::select! {
                biased;
                () = ending.cancelled() => return Ok(None),
                () = sleep(LOOK) => {}
            }
        }
    }

    /// Looks where the log is now. When it is nowhere, what is open stays so.
    async fn reopen(&mut self) {
        if self.log.build.is_none()
            && let Ok((found, nvr)) = self.api.known_attempt(self.log.attempt).await
        {
            self.log.build = Some((found.key, nvr));
        }
        if let Ok(file) = self.api.open(self.log.clone()).await {
            self.file = Some(Arc::new(file));
        }
    }
}

fn log_name(name: &str) -> Result<ArtifactName, ApiError> {
    let wrong = || {
        ApiError::NotFound(format!(
            "{} is no log: say build.log, root.log, state.log or mock.log",
            quoted(name)
        ))
    };
    let name = ArtifactName::new(name).map_err(|_| wrong())?;
    if name.as_str().ends_with(".log") { Ok(name) } else { Err(wrong()) }
}
