//! What happens in the farm, as it happens, across lost connections: none is missed, and none comes twice.

use std::collections::VecDeque;
use std::time::Duration;

use moji_proto::api::{Event, EventKind};
use tokio::time::timeout;

use super::farm::{Patience, read};
use super::sse::Parser;
use super::{Body, Failure, Farm};

/// A server says at least this often that it is there; when it does not, the stream is begun anew.
const SILENCE: Duration = Duration::from_secs(120);

/// Something of the stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// It happened.
    Event(Box<Event>),
    /// The stream begins, or goes on after it was lost.
    Connected,
    /// The connection is lost; why. It is tried again.
    Lost(String),
    /// Some events are not kept any more, and will not come.
    Missed,
}

/// What was heard and not given yet.
#[derive(Debug)]
enum Ready {
    Event(Box<Event>),
    /// All up to here was heard.
    Seen(u64),
    /// Some of what happened is not kept any more.
    Missed,
}

/// Events as they happen.
#[derive(Debug)]
pub struct Stream {
    farm: Farm,
    since: Option<u64>,
    kinds: Vec<EventKind>,
    body: Option<(Body, Parser)>,
    ready: VecDeque<Ready>,
    patience: Patience,
    lost: Option<Failure>,
}

impl Stream {
    /// What happens after `since`, or from now on, of these kinds; of all when there are none.
    pub fn new(farm: &Farm, since: Option<u64>, kinds: Vec<EventKind>) -> Self {
        Self {
            farm: farm.clone(),
            since,
            kinds,
            body: None,
            ready: VecDeque::new(),
            patience: farm.patience(),
            lost: None,
        }
    }

    /// What comes next. Cancel safe.
    ///
    /// # Errors
    /// When it does not help to try again.
    pub async fn next(&mut self) -> Result<Heard, Failure> {
        loop {
            match self.ready.pop_front() {
                Some(Ready::Event(event)) => {
                    self.since = Some(event.id);
                    return Ok(Heard::Event(event));
                }
                Some(Ready::Seen(id)) => {
                    self.since = Some(id);
                    continue;
                }
                Some(Ready::Missed) => return Ok(Heard::Missed),
                None => {}
            }
            if let Some(failure) = self.lost.clone() {
                self.patience.after(failure).await?;
                self.lost = None;
            }
            let Some((body, parser)) = &mut self.body else {
                match self.farm.get(&self.path()).await {
                    Ok(answer) => {
                        self.body = Some((answer.body, Parser::default()));
                        self.patience.works();
                        return Ok(Heard::Connected);
                    }
                    Err(failure) => {
                        if let Some(heard) = self.lose(failure)? {
                            return Ok(heard);
                        }
                        continue;
                    }
                }
            };
            let more = timeout(SILENCE, body.next()).await;
            let failure = match more {
                Ok(Ok(Some(bytes))) => {
                    for sent in parser.feed(&bytes) {
                        let is_event =
                            sent.event.as_deref().is_none_or(|kind| kind.parse::<EventKind>().is_ok());
                        if is_event && !sent.data.is_empty() {
                            self.ready.push_back(Ready::Event(read("/events", sent.data.as_bytes())?));
                            continue;
                        }
                        if sent.event.as_deref() == Some("reset") {
                            self.ready.push_back(Ready::Missed);
                        }
                        // What a newer server says beside events is not for this program, but how far it was heard.
                        self.ready.extend(sent.id.and_then(|id| id.parse().ok()).map(Ready::Seen));
                    }
                    continue;
                }
                Ok(Ok(None)) => Failure::Unreachable("the server has ended the stream of events".into()),
                Ok(Err(failure)) => failure,
                Err(_) => Failure::Unreachable(format!("nothing was heard for {SILENCE:?}")),
            };
            if let Some(heard) = self.lose(failure)? {
                return Ok(heard);
            }
        }
    }

    /// Remembers the failure, for the pause before the next try; tells of the first one.
    fn lose(&mut self, failure: Failure) -> Result<Option<Heard>, Failure> {
        self.body = None;
        if !failure.is_passing() {
            return Err(failure);
        }
        let heard = (!self.patience.is_lost()).then(|| Heard::Lost(failure.to_string()));
        self.lost = Some(failure);
        Ok(heard)
    }

    fn path(&self) -> String {
        let since = self.since.map(|id| ("since", id.to_string()));
        let kinds: Vec<_> = self.kinds.iter().map(|kind| kind.word()).collect();
        let kinds = Some(("kind", kinds.join(","))).filter(|_| !kinds.is_empty());
        super::commands::path("/events", since.into_iter().chain(kinds))
    }
}
