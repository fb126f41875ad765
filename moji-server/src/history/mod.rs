//! What happened: builds and attempts, in `WORKING/.moji/history.sqlite`.
//!
//! The folders decide, the history follows: it is told what happened ([`Recorder::record`], which
//! never waits and never fails), and at each start it is compared with the folders
//! (`reconcile`). A history that is lost or broken is made anew from them. One thread writes; what
//! waits for it goes into one transaction.
//!
//! ```text
//! farm ─ Entry ─▶ bounded channel ─▶ writer ─▶ Store (SQLite) ◀─ Reader ─ Views
//!                                      ▲  └─ events, when they are written ─▶ subscribers
//! folders ─▶ survey ─▶ plan ───────────┘   at the start, and when entries were lost
//! ```
//!
//! It deliberately does not decide anything about builds: nobody asks it where an SRPM is. At the start
//! it says what the farm must not have forgotten: what went wrong, and which attempts may turn up again.

mod answers;
mod entry;
mod events;
mod inspect;
mod reader;
mod reconcile;
mod schema;
mod sqlite;
mod store;
mod survey;
#[cfg(test)]
mod tests;
mod views;
mod words;
mod write;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;

use anyhow::{Context as _, anyhow};
use moji_proto::api::Event;
use tokio::sync::broadcast;

pub use entry::{AttemptEnd, BuildState, Ending, Entry, Happening, Leased, Parked, Settled, Srpm, Verdict};
pub(crate) use inspect::{FileState, Inspected, inspect, rebuild};
pub use reader::Reader;
pub(crate) use reconcile::When;
pub use store::{Backend, Known, KnownAttempt, OpenBuild, Opened, ParkedBuild, Parks, Products, Waiting};
pub use store::{SettledBuild, Stamp, Stamps, Store, StoreError};
pub(crate) use survey::{FAILED, Found, HELD, Place, Srpms, Survey};
pub(crate) use survey::{entries, further_attempt, is_repository, recorded, result_folders};
pub use views::{BuildFilter, Events, FoundAttempt, Views};

use crate::BuildKey;
use crate::estimates::Sample;
use crate::farm::{EVIDENCE, Given};
use crate::folders::Folders;
use crate::scheduler::Try;
use reconcile::{Reconciled, reconcile};
use sqlite::Sqlite;
use writer::{Message, Question, Writer};

/// What may wait for the writer: some minutes of a busy farm.
const WAITING_MAX: usize = 4096;

/// How many events a subscriber may be behind.
const EVENTS: usize = 1024;

/// How many attempts a start reads to know how long builds take: five of each of many packages.
const DURATIONS_MAX: usize = 100_000;

/// The file.
pub(crate) fn path(folders: &Folders) -> PathBuf {
    folders.private().join("history.sqlite")
}

/// The history of one farm, with its writer.
#[derive(Debug)]
pub struct History {
    recorder: Recorder,
    writer: JoinHandle<()>,
    remembered: Remembered,
    reader: Reader,
    events: broadcast::Sender<Arc<Event>>,
}

/// What a server must know of those before it, beside what went wrong.
#[derive(Debug, Default)]
pub struct Remembered {
    /// The attempts that may turn up again, the oldest first.
    pub unanswered: Vec<Given>,
    /// The builds that wait for what they miss.
    pub parked: Parks,
    /// The builds that wait for a builder.
    pub waiting: Waiting,
    /// How long builds took, oldest first.
    pub durations: Vec<Sample>,
    /// What the last good build of each package provides.
    pub products: Products,
}

/// Tells the history what happened. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Recorder {
    to_writer: SyncSender<Message>,
    missed: Arc<AtomicU64>,
}

/// What attempts at builds that are still open came to.
pub type OpenTries = BTreeMap<BuildKey, Vec<Try>>;

/// An open store, and what it says at the start.
type Begun = (Box<dyn Store>, OpenTries, Remembered);

impl History {
    /// Opens the history of folders that were prepared, makes it agree with them, and says what the
    /// scheduler must not have forgotten. To be called when what the last server left half-done has been
    /// completed, before the farm runs. Blocks.
    ///
    /// A database that cannot be used just now does not keep the farm from running: what happens is then
    /// kept for it as long as there is room.
    ///
    /// # Errors
    /// When a newer program made the database.
    pub fn open(folders: &Folders) -> anyhow::Result<(Self, OpenTries)> {
        Self::open_with(folders, Box::new(Sqlite::new(&path(folders))))
    }

    /// The same over another database.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(folders: &Folders, mut backend: Box<dyn Backend>) -> anyhow::Result<(Self, OpenTries)> {
        let (store, tries, remembered) = match begin(folders, backend.as_mut()) {
            Ok((store, tries, remembered)) => (Some(store), tries, remembered),
            Err(error) => match error.downcast_ref() {
                Some(StoreError::Newer(why)) => {
                    return Err(anyhow!("{}: {why}", path(folders).display()));
                }
                _ => {
                    tracing::warn!("builds go on without the history until it can be used: {error:#}");
                    // That one waits for something, the folders tell too.
                    let parked = reconcile::parked(folders).unwrap_or_else(|error| {
                        tracing::warn!("what was parked is tried again: {error:#}");
                        Parks::new()
                    });
                    (None, OpenTries::new(), Remembered { parked, ..Remembered::default() })
                }
            },
        };
        let (to_writer, inbox) = sync_channel(WAITING_MAX);
        let missed = Arc::new(AtomicU64::new(0));
        let (events, _) = broadcast::channel(EVENTS);
        let writer = Writer::new(backend, store, folders.clone(), Arc::clone(&missed), events.clone());
        let writer = std::thread::Builder::new()
            .name("history".to_owned())
            .spawn(move || writer.run(&inbox))
            .context("cannot start the history's thread")?;
        let (recorder, reader) = (Recorder { to_writer, missed }, Reader::of(folders));
        Ok((Self { recorder, writer, remembered, reader, events }, tries))
    }

    /// The attempts of servers before this one that may turn up again, the oldest first. Only once.
    pub fn take_unanswered(&mut self) -> Vec<Given> {
        std::mem::take(&mut self.remembered.unanswered)
    }

    /// All that the servers before this one left for it to know. Only once.
    pub fn take_remembered(&mut self) -> Remembered {
        std::mem::take(&mut self.remembered)
    }

    /// For those who tell what happens.
    pub fn recorder(&self) -> Recorder {
        self.recorder.clone()
    }

    /// For those who look.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// Who subscribes hears of each event as soon as it is written, in the order of their ids. Who is too slow is
    /// told so, and asks [`Views::events`] for what it has missed.
    pub fn events(&self) -> broadcast::Sender<Arc<Event>> {
        self.events.clone()
    }

    /// See [`Recorder::record`].
    pub fn record(&self, entry: Entry) {
        self.recorder.record(entry);
    }

    /// Waits until all that was told before is written, and says whether it is. Blocks.
    pub fn flush(&self) -> bool {
        let (answer, written) = sync_channel(1);
        let sent = self.recorder.to_writer.send(Message::Flush(answer)).is_ok();
        sent && written.recv().unwrap_or(false)
    }

    /// Writes what waits, if it can be written, and ends. What is told later is not heard. Blocks.
    pub fn close(self) {
        let _ = self.recorder.to_writer.send(Message::Close);
        if self.writer.join().is_err() {
            tracing::error!("the history's thread has panicked; the next start makes up for it");
        }
    }
}

impl Recorder {
    /// Tells what happened. Never waits: what does not fit is counted, and made up for from the folders
    /// later.
    pub fn record(&self, entry: Entry) {
        self.tell(Message::Entry(Box::new(entry)), 1);
    }

    /// The same for all that the start of a server brings, however much that is.
    pub fn record_all(&self, entries: Vec<Entry>) {
        let count = entries.len() as u64;
        if count > 0 {
            self.tell(Message::Entries(entries), count);
        }
    }

    fn tell(&self, message: Message, entries: u64) {
        match self.to_writer.try_send(message) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                if self.missed.fetch_add(entries, Ordering::Relaxed) == 0 {
                    tracing::warn!("the history cannot keep up; what it misses is made up for later");
                }
            }
            // Closed: the server ends.
            Err(TrySendError::Disconnected(_)) => {}
        }
    }

    /// A receiver of events outside has got them up to that one. Never waits: what does not fit is made up for by
    /// what is told next, or else it gets some of them once more.
    pub fn delivered(&self, sink: &str, id: u64) {
        let _ = self.to_writer.try_send(Message::Delivered(sink.to_owned(), id));
    }

    /// These are all the receivers of events outside: nothing is kept for others. Never waits; what does not fit
    /// is lost.
    pub fn keep_sinks(&self, sinks: BTreeSet<String>) {
        let _ = self.to_writer.try_send(Message::Sinks(sinks));
    }

    /// Asks for something when all that was told before is written. `None` when that cannot be written or
    /// read now; the log says why. Blocks.
    pub fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Option<T> {
        let (answer, answered) = sync_channel(1);
        let question = Question::new(move |store| match question(store) {
            Ok(found) => drop(answer.send(found)),
            Err(error) => tracing::warn!("the history cannot be read: {error}"),
        });
        self.to_writer.send(Message::Ask(question)).ok()?;
        answered.recv().ok()
    }
}

/// Opens the store, compares it with the folders, and says what was found. One that turns out to be
/// broken only when it is read is put aside too.
fn begin(folders: &Folders, backend: &mut dyn Backend) -> anyhow::Result<Begun> {
    let mut attempt = |broken: Option<&str>| -> anyhow::Result<Begun> {
        let (mut store, opened) = backend.open(broken)?;
        let done = reconcile(folders, store.as_mut(), When::Quiet)?;
        tell(&opened, done);
        let tries = store.open_tries()?;
        let remembered = Remembered {
            unanswered: store.unanswered(EVIDENCE)?,
            parked: store.parked()?,
            waiting: store.waiting()?,
            durations: store.durations(DURATIONS_MAX)?,
            products: store.products()?,
        };
        Ok((store, tries, remembered))
    };
    match attempt(None) {
        Err(error) => match error.downcast_ref() {
            Some(StoreError::Broken(why)) => attempt(Some(why)),
            _ => Err(error),
        },
        done => done,
    }
}

fn tell(opened: &Opened, done: Reconciled) {
    let Reconciled { unearthed, closed, ended, unreadable } = done;
    match opened {
        Opened::Replaced(why) => tracing::warn!(
            "the history could not be used ({why}): a new one is made from the folders, with {unearthed} builds"
        ),
        Opened::New if unearthed > 0 => tracing::warn!(
            "there was no history: a new one is made from the folders, with {unearthed} builds; attempts \
             without a result are not in it"
        ),
        _ if unearthed + closed + ended > 0 => tracing::info!(
            "the history follows the folders: {unearthed} builds were new to it, {closed} it took for open, \
             {ended} attempts for running"
        ),
        _ => {}
    }
    if unreadable > 0 {
        tracing::warn!("{unreadable} records of builds cannot be read; moji-server fsck names them");
    }
}
