//! Asks the server what `moji top` wants to know, again and again, and tells what it says.
//!
//! Three tasks: one hears of events, and by them knows whether there is a connection; one asks for the farm and the
//! queue; one carries out wishes. None of them knows the screen.

use std::time::Duration;

use moji_proto::AttemptId;
use moji_proto::api::{Attempt, BASE, Build, Why};
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout_at};

use std::sync::Arc;

use super::log::LogNews;
use super::screen::Input;
use super::state::{News, Wish};
use crate::operator::commands::path;
use crate::operator::events::{Heard, Stream};
use crate::operator::farm::Patience;
use crate::operator::{Failure, Farm};

/// The farm is asked for at most this often, however much happens.
const OFTEN: Duration = Duration::from_secs(1);
/// And at least this often: what builders do just now is no event.
const SELDOM: Duration = Duration::from_secs(2);
/// Rows of the queue.
const QUEUE: u32 = 50;
/// A log is read from so far before its end, in bytes.
const TAIL: u64 = 256 << 10;
/// A log that is not there yet is looked for this often.
const LOG_LOOK: Duration = Duration::from_secs(1);
/// Most wishes that are being carried out.
const WISHES: usize = 8;

/// Where things come from and go to.
pub(super) struct Ways {
    pub(super) news: mpsc::Sender<Input>,
    pub(super) wished: mpsc::Receiver<Wish>,
}

/// What the tasks share.
#[derive(Clone)]
struct Link {
    farm: Farm,
    news: mpsc::Sender<Input>,
    /// Something has happened: what is known of the farm is old.
    happened: Arc<Notify>,
}

/// Starts the tasks. The first one that ends, ends `moji top`.
pub(super) fn start(farm: &Farm, tasks: &mut JoinSet<Result<(), Failure>>, ways: Ways) {
    let link = Link { farm: farm.clone(), news: ways.news, happened: Arc::new(Notify::new()) };
    let (set_up, is_up) = watch::channel(true);
    tasks.spawn(link.clone().hear(set_up));
    tasks.spawn(link.clone().look(is_up));
    tasks.spawn(link.carry_out(ways.wished));
}

impl Link {
    /// Tells the screen; false when there is none any more.
    async fn tell(&self, news: News) -> bool {
        self.news.send(Input::News(news)).await.is_ok()
    }

    /// Hears of events, across lost connections.
    async fn hear(self, is_up: watch::Sender<bool>) -> Result<(), Failure> {
        let mut events = Stream::new(&self.farm, None, Vec::new());
        loop {
            let news = match events.next().await? {
                Heard::Event(event) => News::Event(event),
                Heard::Connected => {
                    let role = self.farm.session().await.map(|session| session.welcome().role);
                    is_up.send_replace(true);
                    // Without a session the stream is lost already, and says so next.
                    let Ok(role) = role else { continue };
                    News::Connected { role }
                }
                Heard::Missed => {
                    // What it shows is asked for anew.
                    self.happened.notify_one();
                    continue;
                }
                Heard::Lost(reason) => {
                    is_up.send_replace(false);
                    News::Lost { reason }
                }
            };
            self.happened.notify_one();
            if !self.tell(news).await {
                return Ok(());
            }
        }
    }

    /// Asks for the farm and the queue, while there is a connection.
    async fn look(self, mut is_up: watch::Receiver<bool>) -> Result<(), Failure> {
        let queue = path(&format!("{BASE}/queue"), [("limit", QUEUE.to_string())]);
        while is_up.wait_for(|is_up| *is_up).await.is_ok() {
            let asked = Instant::now();
            match self.ask_for_farm(&queue).await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                // The events' task says it, and when there is another connection.
                Err(failure) if failure.is_passing() => {}
                Err(failure) => return Err(failure),
            }
            sleep_until(asked + OFTEN).await;
            // Whether it is the time or an event does not matter.
            let _ = timeout_at(asked + SELDOM, self.happened.notified()).await;
        }
        Ok(())
    }

    /// Whether anybody still wants to know.
    async fn ask_for_farm(&self, queue: &str) -> Result<bool, Failure> {
        let overview = self.farm.json(&format!("{BASE}/overview")).await?;
        if !self.tell(News::Overview(Box::new(overview))).await {
            return Ok(false);
        }
        Ok(self.tell(News::Queue(self.farm.json(queue).await?)).await)
    }

    /// Carries out wishes side by side: a log that goes on for hours holds nothing up.
    async fn carry_out(self, mut wished: mpsc::Receiver<Wish>) -> Result<(), Failure> {
        let mut tasks = JoinSet::new();
        let mut log: Option<AbortHandle> = None;
        loop {
            let wish = tokio::select! {
                biased;
                Some(_) = tasks.join_next() => continue,
                wish = wished.recv(), if tasks.len() < WISHES => wish,
            };
            // The screen is gone, and says how.
            let Some(wish) = wish else { return std::future::pending().await };
            let link = self.clone();
            match wish {
                Wish::Log { reading, attempt, name } => {
                    let reading = tasks.spawn(async move { link.read(reading, attempt, name).await });
                    if let Some(before) = log.replace(reading) {
                        before.abort();
                    }
                }
                Wish::NoLog => {
                    if let Some(before) = log.take() {
                        before.abort();
                    }
                }
                Wish::Why(reference) => {
                    tasks.spawn(async move {
                        let why =
                            link.why(&reference).await.map(Box::new).map_err(|failure| failure.to_string());
                        link.tell(News::Why { reference, why }).await;
                    });
                }
                Wish::Act(act) => {
                    tasks.spawn(async move {
                        let done = link.farm.act(act).await.map_err(|failure| failure.to_string());
                        link.tell(News::Acted(done)).await;
                        link.happened.notify_one();
                    });
                }
            }
        }
    }

    async fn why(&self, reference: &str) -> Result<Why, Failure> {
        let find = path(&format!("{BASE}/find"), [("build", reference.to_owned())]);
        let build: Build = self.farm.json(&find).await?;
        self.farm.json(&format!("{BASE}/builds/{}/why", build.id)).await
    }

    /// Reads a log to its end, across lost connections.
    async fn read(self, reading: u64, attempt: AttemptId, name: &'static str) {
        let mut place = None;
        let mut patience = self.farm.patience();
        loop {
            let news = match self.read_from(reading, attempt, name, &mut place, &mut patience).await {
                Ok(()) => LogNews::Ended,
                Err(failure) => match patience.after(failure).await {
                    Ok(()) => continue,
                    Err(failure) => LogNews::Failed(failure.to_string()),
                },
            };
            self.tell(News::Log { reading, news }).await;
            return;
        }
    }

    async fn read_from(
        &self,
        reading: u64,
        attempt: AttemptId,
        name: &str,
        place: &mut Option<u64>,
        patience: &mut Patience,
    ) -> Result<(), Failure> {
        let mut offset = match *place {
            Some(offset) => offset,
            None => self.tail(reading, attempt, name).await?,
        };
        let query = [("follow", "true".to_owned()), ("offset", offset.to_string())];
        let mut body =
            self.farm.get(&path(&format!("{BASE}/attempts/{attempt}/logs/{name}"), query)).await?.body;
        while let Some(bytes) = body.next().await? {
            patience.works();
            offset += bytes.len() as u64;
            *place = Some(offset);
            self.tell(News::Log { reading, news: LogNews::Bytes(bytes.to_vec()) }).await;
        }
        Ok(())
    }

    /// Where its last part begins; waits until there is anything of it.
    async fn tail(&self, reading: u64, attempt: AttemptId, name: &str) -> Result<u64, Failure> {
        loop {
            let attempt: Attempt = self.farm.json(&format!("{BASE}/attempts/{attempt}")).await?;
            if let Some(log) = attempt.logs.iter().find(|log| log.name.as_str() == name) {
                let offset = log.bytes.saturating_sub(TAIL);
                self.tell(News::Log { reading, news: LogNews::From(offset) }).await;
                return Ok(offset);
            }
            if attempt.ended_at.is_some() {
                return Err(Failure::Refused(format!(
                    "there is no {name} of this attempt: Tab shows another log"
                )));
            }
            let reason = format!("no {name} yet: Tab shows another log");
            self.tell(News::Log { reading, news: LogNews::Waiting(reason) }).await;
            sleep(LOG_LOOK).await;
        }
    }
}
