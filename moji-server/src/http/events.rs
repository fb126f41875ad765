//! `/events`: what happens, as it happens, without a gap and nothing twice.
//!
//! The history is what counts: the broadcast only says what came after what was read there. Whoever is too slow for
//! it goes on in the history.

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response};
use bytes::Bytes;
use futures_util::stream;
use moji_proto::api::{Event, EventKind, Problem};
use serde::Serialize;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::{OwnedSemaphorePermit, broadcast};
use tokio::time::timeout;

use super::answer::Asked;
use super::query::{self, EventsQuery};
use super::sse::{self, KEEP_ALIVE, SILENCE};
use crate::api::{Api, ApiError};

/// How long a client waits before it comes back.
const RETRY: &str = "retry: 2000\n\n";
/// Events that are sent in one piece, or read at a time.
const BATCH: u32 = 100;

/// What was missed cannot be told: some of it is no longer kept, or this history never had it.
#[derive(Serialize)]
struct Reset {
    oldest: u64,
    newest: u64,
}

/// What happens, as it happens: Server-Sent Events, each with its id and an `Event` as JSON. `Last-Event-ID`, or
/// `since`, says what was seen; what came after it is told first. An event of the name `reset` says that some of
/// that is not known any more.
#[utoipa::path(get, path = "/events", params(EventsQuery), responses(
    (status = 200, content_type = "text/event-stream", body = String),
    (status = 400, body = Problem), (status = 503, body = Problem)))]
pub(super) async fn serve(
    State(api): State<Api>,
    headers: HeaderMap,
    Asked(asked): Asked<EventsQuery>,
) -> Result<Response<Body>, ApiError> {
    let kinds = query::kinds(asked.kind.as_deref())?;
    let place = sse::place(&api)?;
    let tail = Tail::begin(api, sse::last_id(&headers).or(asked.since), kinds, place).await?;
    Ok(sse::response(stream::unfold(tail, |mut tail| async {
        let piece = tail.next().await?;
        Some((Ok::<_, io::Error>(Bytes::from(piece)), tail))
    })))
}

/// One reader.
struct Tail {
    api: Api,
    live: broadcast::Receiver<Arc<Event>>,
    kinds: Vec<EventKind>,
    /// The last event that was sent, or left out.
    last: u64,
    /// There may be more in the history that the broadcast does not tell.
    is_behind: bool,
    /// What is sent before all.
    preamble: Option<String>,
    _place: OwnedSemaphorePermit,
}

impl Tail {
    async fn begin(
        api: Api,
        since: Option<u64>,
        kinds: Vec<EventKind>,
        place: OwnedSemaphorePermit,
    ) -> Result<Self, ApiError> {
        // First: what is written after the history was looked at is told here.
        let live = api.events.subscribe();
        let known = api.events(u64::MAX >> 1, Vec::new(), 1).await?;
        let (oldest, newest) = (known.oldest, known.newest);
        let mut preamble = RETRY.to_owned();
        let last = match since {
            None => newest,
            Some(since) if since > newest => newest,
            // From the beginning, wherever that is.
            Some(since) => since,
        };
        if since.is_some_and(|since| since > newest || (since > 0 && since + 1 < oldest)) {
            // With an id, so that a client that comes back is not told the same again.
            let seen = last.max(oldest.saturating_sub(1));
            sse::event(&mut preamble, Some(seen), Some("reset"), &Reset { oldest, newest });
        } else {
            // Nothing to the client but what it says when it comes back.
            preamble.push_str(&format!("id: {last}\n\n"));
        }
        let preamble = Some(preamble);
        Ok(Self { api, live, kinds, last, is_behind: since.is_some(), preamble, _place: place })
    }

    /// What is sent next; `None`: it is over, and the client comes back.
    async fn next(&mut self) -> Option<String> {
        if let Some(preamble) = self.preamble.take() {
            return Some(preamble);
        }
        loop {
            let mut piece = String::new();
            if self.is_behind {
                let read = self.api.events(self.last, self.kinds.clone(), BATCH).await;
                let events = read.ok()?.events;
                self.is_behind = u32::try_from(events.len()).is_ok_and(|length| length >= BATCH);
                for event in &events {
                    self.put(event, &mut piece);
                }
            } else {
                let ending = self.api.ending.clone();
                let received = tokio::select! {
                    biased;
                    () = ending.cancelled() => return None,
                    received = timeout(KEEP_ALIVE, self.live.recv()) => received,
                };
                match received {
                    Err(_) => return Some(SILENCE.to_owned()),
                    Ok(Ok(event)) => self.put(&event, &mut piece),
                    Ok(Err(RecvError::Lagged(_))) => self.fall_behind(),
                    Ok(Err(RecvError::Closed)) => return None,
                }
                self.put_what_is_there(&mut piece);
            }
            if !piece.is_empty() {
                return Some(piece);
            }
        }
    }

    /// What came with it goes with it.
    fn put_what_is_there(&mut self, piece: &mut String) {
        for _ in 1..BATCH {
            if self.is_behind {
                return;
            }
            match self.live.try_recv() {
                Ok(event) => self.put(&event, piece),
                Err(TryRecvError::Lagged(_)) => self.fall_behind(),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    /// What was missed is in the history. What the broadcast still has of it would be missed too with the next event.
    fn fall_behind(&mut self) {
        self.live = self.live.resubscribe();
        self.is_behind = true;
    }

    fn put(&mut self, event: &Event, piece: &mut String) {
        if event.id <= self.last {
            return;
        }
        self.last = event.id;
        if self.kinds.is_empty() || self.kinds.contains(&event.kind) {
            sse::event(piece, Some(event.id), None, event);
        }
    }
}
