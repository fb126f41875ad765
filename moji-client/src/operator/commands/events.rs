//! `moji events`: what happened, and what happens.

use moji_proto::api::{BASE, Event, Page};
use serde_json::Value;

use super::{Context, path};
use crate::operator::Failure;
use crate::operator::events::{Heard, Stream};
use crate::operator::farm::read;
use crate::operator::options::Events;
use crate::operator::output::{compact, lists, note, print};

impl Context {
    pub(super) async fn events(&self, wanted: Events) -> Result<(), Failure> {
        match wanted.follow {
            true => self.follow_events(wanted).await,
            false => self.past_events(wanted).await,
        }
    }

    async fn past_events(&self, wanted: Events) -> Result<(), Failure> {
        let kinds: Vec<_> = wanted.kind.iter().map(|kind| kind.word()).collect();
        let mut since = wanted.since.unwrap_or(0);
        loop {
            let kind = Some(("kind", kinds.join(","))).filter(|_| !kinds.is_empty());
            let query = [("since", since.to_string()), ("limit", moji_proto::api::PAGE_MAX.to_string())];
            let page: Page<Value> =
                self.farm.json(&path(&format!("{BASE}/events"), query.into_iter().chain(kind))).await?;
            for event in &page.items {
                self.tell(event, wanted.json)?;
            }
            match page.next {
                // Anything else would go on for ever.
                Some(next) if next > since => since = next,
                _ => return Ok(()),
            }
        }
    }

    async fn follow_events(&self, wanted: Events) -> Result<(), Failure> {
        // The first connection is not waited for: the address may be wrong.
        let _ = self.farm.session().await?;
        let mut stream = Stream::new(&self.farm, wanted.since, wanted.kind);
        let mut was_lost = false;
        loop {
            match stream.next().await? {
                Heard::Event(event) => {
                    let event = serde_json::to_value(&event).unwrap_or_default();
                    self.tell(&event, wanted.json)?;
                }
                Heard::Lost(reason) => {
                    note(&format!("{reason}: trying again"));
                    was_lost = true;
                }
                Heard::Missed => note("some events are not kept any more; what is still there follows"),
                Heard::Connected if std::mem::take(&mut was_lost) => note("connected again"),
                Heard::Connected => {}
            }
        }
    }

    fn tell(&self, event: &Value, json: bool) -> Result<(), Failure> {
        if json {
            return print(&compact(event));
        }
        let event: Event = read("/events", event.to_string().as_bytes())?;
        print(&lists::event(&event, &self.style))
    }
}
