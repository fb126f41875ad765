//! The thread that writes the history: it takes what waits, and writes it in one transaction.
//!
//! When the database cannot be written it keeps what it is told, up to a limit, says so once, and tries
//! again. When it works again, what was lost is made up for from the folders. After each transaction it tells the
//! subscribers of the events that were written.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

use moji_proto::api::Event;
use tokio::sync::broadcast;

use super::entry::Entry;
use super::reconcile::{When, reconcile};
use super::store::{Backend, Opened, Store, StoreError};
use crate::folders::Folders;

/// Most entries of one transaction.
const BATCH: usize = 512;
/// What happens comes in little bursts, and a transaction costs the same whether it has one entry or ten: it takes
/// what comes until nothing has come for so long.
const PAUSE: Duration = Duration::from_millis(4);
/// So many entries are waited for at most: the first of them is written within a quarter of a second.
const GATHERED: usize = 64;
/// Most entries that are kept while the database cannot be written.
const KEPT_MAX: usize = 16 * 1024;
/// Most events that are read at a time to tell of them.
const TOLD: u32 = 256;
/// How often that is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// What the writer is told.
#[derive(Debug)]
pub(super) enum Message {
    /// Something happened.
    Entry(Box<Entry>),
    /// All of this did, at a start: no more than lies in SOURCE.
    Entries(Vec<Entry>),
    /// Answer from the store when all that came before is written.
    Ask(Question),
    /// A receiver outside has got the events up to that one.
    Delivered(String, u64),
    /// These are all the receivers outside.
    Sinks(BTreeSet<String>),
    /// Answer when all that came before was tried: whether it is written.
    Flush(SyncSender<bool>),
    /// Write and end.
    Close,
}

/// What somebody wants to know of the store. Dropped without an answer when it cannot be asked.
pub(super) struct Question(Ask);

type Ask = Box<dyn FnOnce(&dyn Store) + Send>;

impl Question {
    pub(super) fn new(ask: impl FnOnce(&dyn Store) + Send + 'static) -> Self {
        Self(Box::new(ask))
    }
}

impl fmt::Debug for Question {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Question")
    }
}

/// The writer.
pub(super) struct Writer {
    backend: Box<dyn Backend>,
    store: Option<Box<dyn Store>>,
    folders: Folders,
    /// What was not even taken in.
    missed: Arc<AtomicU64>,
    waiting: VecDeque<Entry>,
    /// What was taken in and had to be thrown away.
    lost: u64,
    /// The database cannot be written, and that has been said.
    trouble: bool,
    /// The database is not what it was: the folders must be looked at.
    suspect: bool,
    /// Why the database that was open before is not to be opened again.
    broken: Option<String>,
    /// Who hears of events.
    events: broadcast::Sender<Arc<Event>>,
    /// The last event that they heard of, or need not hear of; not known before a database was open.
    told: Option<u64>,
    /// What the receivers outside have got, and it is not written yet.
    delivered: BTreeMap<String, u64>,
    /// All of these, if that is not written yet.
    sinks: Option<BTreeSet<String>>,
}

impl Writer {
    pub(super) fn new(
        backend: Box<dyn Backend>,
        store: Option<Box<dyn Store>>,
        folders: Folders,
        missed: Arc<AtomicU64>,
        events: broadcast::Sender<Arc<Event>>,
    ) -> Self {
        let trouble = store.is_none();
        Self {
            backend,
            store,
            folders,
            missed,
            waiting: VecDeque::new(),
            lost: 0,
            trouble,
            suspect: trouble,
            broken: None,
            events,
            told: None,
            delivered: BTreeMap::new(),
            sinks: None,
        }
    }

    /// Runs until it is told to close, or nobody is left to tell it anything.
    pub(super) fn run(mut self, inbox: &Receiver<Message>) {
        let mut open = true;
        while open {
            let first = match self.is_behind() {
                true => inbox.recv_timeout(RETRY),
                false => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let first = match first {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => {
                    open = false;
                    None
                }
            };
            let (mut flushes, mut questions) = (Vec::new(), Vec::new());
            let (mut next, mut taken) = (first, 0);
            while let Some(message) = next {
                taken += 1;
                // Whoever wants an answer does not wait for what comes next.
                let mut waits = taken < GATHERED && matches!(message, Message::Entry(_));
                match message {
                    Message::Entry(_) if self.waiting.len() >= KEPT_MAX => self.lost += 1,
                    Message::Entry(entry) => self.waiting.push_back(*entry),
                    Message::Entries(entries) => self.waiting.extend(entries),
                    Message::Delivered(sink, id) => drop(self.delivered.insert(sink, id)),
                    Message::Sinks(sinks) => self.sinks = Some(sinks),
                    Message::Flush(answer) => flushes.push(answer),
                    Message::Ask(question) => questions.push(question),
                    Message::Close => open = false,
                }
                waits &= open && flushes.is_empty() && questions.is_empty();
                next = match waits {
                    _ if taken >= BATCH => None,
                    true => inbox.recv_timeout(PAUSE).ok(),
                    false => inbox.try_recv().ok(),
                };
            }
            self.write();
            for answer in flushes {
                let _ = answer.send(!self.is_behind());
            }
            let store = self.store.as_deref().filter(|_| !self.is_behind());
            for Question(ask) in questions {
                store.map(ask);
            }
        }
        if self.is_behind() {
            let count = self.waiting.len() as u64 + self.lost + self.missed.load(Ordering::Relaxed);
            tracing::warn!(
                "{count} entries of the history could not be written; the next start makes up for what the \
                 folders tell"
            );
        }
    }

    fn is_behind(&self) -> bool {
        let has_sinks = self.sinks.is_some() || !self.delivered.is_empty();
        !self.waiting.is_empty()
            || has_sinks
            || self.suspect
            || self.lost > 0
            || self.missed.load(Ordering::Relaxed) > 0
    }

    /// Writes what waits, as far as that works.
    fn write(&mut self) {
        match self.try_write() {
            Ok(()) => {}
            Err(error) if self.trouble => tracing::debug!("the history can still not be written: {error:#}"),
            Err(error) => {
                self.trouble = true;
                tracing::warn!(
                    "the history cannot be written, builds go on without it; trying again: {error:#}"
                );
            }
        }
    }

    fn try_write(&mut self) -> anyhow::Result<()> {
        let mut store = self.take_store()?;
        let result = self.write_and_tell(store.as_mut());
        match result.as_ref().err().and_then(|error| error.downcast_ref()) {
            // Put aside at the next try.
            Some(StoreError::Broken(why)) => {
                self.broken = Some(why.clone());
                self.suspect = true;
            }
            _ => self.store = Some(store),
        }
        result
    }

    fn write_and_tell(&mut self, store: &mut dyn Store) -> anyhow::Result<()> {
        if self.told.is_none() {
            self.told = Some(store.newest_event()?);
        }
        let written = self.write_to(store);
        // Also of what was written before something failed.
        let told = self.tell(store);
        written.and(told.map_err(Into::into))
    }

    fn take_store(&mut self) -> Result<Box<dyn Store>, StoreError> {
        if let Some(store) = self.store.take() {
            return Ok(store);
        }
        let (store, opened) = self.backend.open(self.broken.as_deref())?;
        (self.suspect, self.broken) = (true, None);
        if let Opened::Replaced(why) = opened {
            tracing::warn!("the history could not be used ({why}): a new one is made from the folders");
        }
        Ok(store)
    }

    /// Tells of the events that are written and were not told of.
    fn tell(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        let Some(mut told) = self.told else { return Ok(()) };
        if self.events.receiver_count() == 0 {
            // Who subscribes later looks first at what is written.
            told = store.newest_event()?.max(told);
        }
        loop {
            let events = store.events_after(told, TOLD)?;
            for event in &events {
                told = event.id;
                let _ = self.events.send(Arc::new(event.clone()));
            }
            self.told = Some(told);
            if events.is_empty() {
                return Ok(());
            }
        }
    }

    fn write_to(&mut self, store: &mut dyn Store) -> anyhow::Result<()> {
        while !self.waiting.is_empty() {
            let count = self.waiting.len().min(BATCH);
            let batch = self.waiting.make_contiguous().get(..count).unwrap_or_default();
            match store.apply(batch) {
                Ok(()) => {}
                Err(StoreError::Refused(_)) => one_by_one(store, batch)?,
                Err(error) => return Err(error.into()),
            }
            self.waiting.drain(..count);
        }
        let lost = self.lost + self.missed.swap(0, Ordering::Relaxed);
        if lost > 0 || self.suspect {
            // Until that has worked it is still to be done.
            self.lost = lost;
            let done = reconcile(&self.folders, store, When::Running)?;
            (self.lost, self.suspect) = (0, false);
            tracing::warn!(
                "the history works again: {lost} entries were lost; {} builds were made up for from the folders",
                done.unearthed + done.closed
            );
        } else if self.trouble {
            tracing::info!("the history works again; nothing was lost");
        }
        self.trouble = false;
        self.write_sinks(store)?;
        Ok(())
    }

    fn write_sinks(&mut self, store: &mut dyn Store) -> Result<(), StoreError> {
        while let Some((sink, id)) = self.delivered.first_key_value() {
            store.set_delivered(sink, *id)?;
            self.delivered.pop_first();
        }
        if let Some(sinks) = &self.sinks {
            store.forget_sinks(sinks)?;
            self.sinks = None;
        }
        Ok(())
    }
}

/// One entry that cannot be written must not keep the others from it.
fn one_by_one(store: &mut dyn Store, entries: &[Entry]) -> Result<(), StoreError> {
    for entry in entries {
        match store.apply(std::slice::from_ref(entry)) {
            Err(StoreError::Refused(why)) => tracing::error!("left out of the history: {why}: {entry:?}"),
            other => other?,
        }
    }
    Ok(())
}
