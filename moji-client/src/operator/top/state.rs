//! What `moji top` shows, as plain data, and what becomes of it when the server says something.
//!
//! Knows no terminal, no connection and no clock: the time is told with what happens, keys come through
//! [`super::keys`], and [`super::draw`] only looks at it.

use std::collections::VecDeque;

use jiff::Timestamp;
use moji_proto::AttemptId;
use moji_proto::api::{Build, BuildState, Builder, Event, Overview, Page, Queued, Running, Why};
use moji_proto::operator::{Act, Done, Role};

use super::log::{LogNews, LogView};

/// Most events that are kept.
const EVENTS: usize = 50;
/// For how many seconds the answer to something that was done stays.
const NOTICE_SECONDS: i64 = 10;

/// What the server, or the way to it, has to say.
#[derive(Debug)]
pub(super) enum News {
    /// There is a connection.
    Connected {
        /// What it may do.
        role: Role,
    },
    /// There is none; another one is tried.
    Lost {
        /// Why, in one line.
        reason: String,
    },
    /// The farm at a glance.
    Overview(Box<Overview>),
    /// The head of the queue.
    Queue(Page<Queued>),
    /// Something happened.
    Event(Box<Event>),
    /// Of the log that is read.
    Log {
        /// Which reading: one that was given up may still have something on its way.
        reading: u64,
        /// What.
        news: LogNews,
    },
    /// Why a build is where it is, or why that is not known.
    Why {
        /// The build, as it was asked for.
        reference: String,
        /// The answer.
        why: Result<Box<Why>, String>,
    },
    /// What became of an [`Act`].
    Acted(Result<Vec<Done>, String>),
}

/// What is wanted of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wish {
    /// A log, from near its end, as long as it grows. There is never more than one.
    Log {
        /// The number of this reading.
        reading: u64,
        /// Of which attempt.
        attempt: AttemptId,
        /// Which log.
        name: &'static str,
    },
    /// No log any more.
    NoLog,
    /// Why a build is where it is.
    Why(String),
    /// Do something.
    Act(Act),
}

/// The way to the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Link {
    /// There was no connection yet.
    Connecting,
    /// It is there.
    Up,
    /// It is gone, and tried again.
    Down {
        /// Why.
        reason: String,
        /// Since when.
        since: Timestamp,
    },
}

/// A part of the screen in which rows can be chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Panel {
    Running,
    Queue,
    Builders,
    Newest,
}

impl Panel {
    pub(super) const ALL: [Self; 4] = [Self::Running, Self::Queue, Self::Builders, Self::Newest];

    /// The names of the orders in which its rows can stand; the first is the server's own.
    pub(super) fn orders(self) -> &'static [&'static str] {
        match self {
            Self::Running => &["oldest first", "by package", "by builder", "by target"],
            Self::Queue => &["in hand-out order", "by package", "longest first", "oldest first"],
            Self::Builders => &["by name", "by state"],
            Self::Newest => &["newest first", "by result", "by package"],
        }
    }
}

/// What is chosen in a panel.
#[derive(Debug, Clone, Default)]
pub(super) struct Cursor {
    /// The row's number, from 0.
    pub(super) row: usize,
    /// Whose row that is: the choice stays with it when rows move.
    id: Option<String>,
    /// In which of [`Panel::orders`] the rows stand.
    pub(super) order: usize,
}

/// A cursor for each panel.
#[derive(Debug, Clone, Default)]
struct Cursors {
    running: Cursor,
    queue: Cursor,
    builders: Cursor,
    newest: Cursor,
}

/// A build that a person means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Subject {
    /// What the server is told: its number, or `[TARGET/]SRPM`.
    pub(super) reference: String,
    /// What people are told.
    pub(super) name: String,
    /// Its last attempt.
    pub(super) attempt: Option<AttemptId>,
    /// Where it stands.
    pub(super) state: BuildState,
}

/// What lies over the rest.
#[derive(Debug)]
pub(super) enum Popup {
    /// The keys.
    Help,
    /// Why a build is where it is.
    Why {
        /// As it was asked for.
        reference: String,
        /// For people.
        name: String,
        /// The answer, when it is there.
        why: Option<Result<Box<Why>, String>>,
        /// How many lines of it are above the popup.
        scrolled: usize,
    },
    /// Is this to be done?
    Ask {
        /// The question.
        question: String,
        /// What is done upon y.
        act: Act,
    },
}

/// One line about what was done or cannot be.
#[derive(Debug)]
pub(super) struct Notice {
    /// The line.
    pub(super) text: String,
    /// Whether it went well.
    pub(super) is_good: bool,
    at: Timestamp,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Top {
    /// The server's address, as it was given.
    pub(super) server: String,
    /// The time.
    pub(super) now: Timestamp,
    /// The way to the server.
    pub(super) link: Link,
    /// What may be done; none until the server says it.
    pub(super) role: Option<Role>,
    /// The farm, when it is known.
    pub(super) overview: Option<Overview>,
    /// The head of the queue.
    pub(super) queue: Vec<Queued>,
    /// The last events, the newest last.
    pub(super) events: VecDeque<Event>,
    /// In which panel keys choose.
    pub(super) focus: Panel,
    /// What lies over the rest.
    pub(super) popup: Option<Popup>,
    /// The log that is shown instead of the farm.
    pub(super) log: Option<LogView>,
    notice: Option<Notice>,
    cursors: Cursors,
    /// How many logs were read.
    pub(super) readings: u64,
}

impl Top {
    /// Nothing is known yet of the farm at `server`.
    pub(super) fn new(server: String, now: Timestamp) -> Self {
        Self {
            server,
            now,
            link: Link::Connecting,
            role: None,
            overview: None,
            queue: Vec::new(),
            events: VecDeque::new(),
            focus: Panel::Running,
            popup: None,
            log: None,
            notice: None,
            cursors: Cursors::default(),
            readings: 0,
        }
    }

    /// Takes in what the server said.
    pub(super) fn learn(&mut self, now: Timestamp, news: News) {
        self.now = now;
        match news {
            News::Connected { role } => {
                self.link = Link::Up;
                self.role = Some(role);
            }
            News::Lost { reason } => {
                let since = match self.link {
                    Link::Down { since, .. } => since,
                    Link::Connecting | Link::Up => now,
                };
                self.link = Link::Down { reason, since };
            }
            News::Overview(overview) => {
                self.overview = Some(*overview);
                for panel in [Panel::Running, Panel::Builders, Panel::Newest] {
                    self.follow(panel);
                }
            }
            News::Queue(page) => {
                self.queue = page.items;
                self.follow(Panel::Queue);
            }
            News::Event(event) => self.note_event(*event),
            News::Log { reading, news } => {
                if let Some(log) = self.log.as_mut().filter(|log| log.reading == reading) {
                    log.learn(news);
                }
            }
            News::Why { reference: asked, why: answer } => {
                if let Some(Popup::Why { reference, why, .. }) = &mut self.popup
                    && *reference == asked
                {
                    *why = Some(answer);
                }
            }
            News::Acted(outcome) => self.tell_outcome(outcome),
        }
    }

    /// Events come again after a reconnect: what is known is left out.
    fn note_event(&mut self, event: Event) {
        if self.events.back().is_some_and(|last| last.id >= event.id) {
            return;
        }
        if self.events.len() == EVENTS {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    fn tell_outcome(&mut self, outcome: Result<Vec<Done>, String>) {
        match outcome {
            Ok(done) => {
                let is_good = done.iter().all(|done| done.is_done);
                let text: Vec<_> = done.iter().map(|done| format!("{}: {}", done.about, done.text)).collect();
                self.tell(text.join("; "), is_good);
            }
            Err(reason) => self.tell(format!("refused: {reason}"), false),
        }
    }

    /// Says something for a while.
    pub(super) fn tell(&mut self, text: String, is_good: bool) {
        self.notice = Some(Notice { text, is_good, at: self.now });
    }

    /// What was said not long ago.
    pub(super) fn notice(&self) -> Option<&Notice> {
        self.notice.as_ref().filter(|notice| self.seconds_since(notice.at) < NOTICE_SECONDS)
    }

    /// How many seconds ago that was; 0 when the server's clock is ahead.
    pub(super) fn seconds_since(&self, at: Timestamp) -> i64 {
        (self.now.as_second() - at.as_second()).max(0)
    }

    pub(super) fn cursor(&self, panel: Panel) -> &Cursor {
        match panel {
            Panel::Running => &self.cursors.running,
            Panel::Queue => &self.cursors.queue,
            Panel::Builders => &self.cursors.builders,
            Panel::Newest => &self.cursors.newest,
        }
    }

    fn cursor_mut(&mut self, panel: Panel) -> &mut Cursor {
        match panel {
            Panel::Running => &mut self.cursors.running,
            Panel::Queue => &mut self.cursors.queue,
            Panel::Builders => &mut self.cursors.builders,
            Panel::Newest => &mut self.cursors.newest,
        }
    }

    /// How many rows a panel has.
    pub(super) fn rows(&self, panel: Panel) -> usize {
        let overview = self.overview.as_ref();
        match panel {
            Panel::Running => overview.map_or(0, |overview| overview.running.len()),
            Panel::Queue => self.queue.len(),
            Panel::Builders => overview.map_or(0, |overview| overview.builders.len()),
            Panel::Newest => overview.map_or(0, |overview| overview.newest.len()),
        }
    }

    /// Chooses a row, or the nearest one that there is.
    pub(super) fn choose(&mut self, panel: Panel, row: usize) {
        let row = row.min(self.rows(panel).saturating_sub(1));
        let id = self.id(panel, row);
        let cursor = self.cursor_mut(panel);
        cursor.row = row;
        cursor.id = id;
    }

    /// Lets the choice stay with its row, wherever that is now. Nobody has chosen yet while the first row is chosen:
    /// that stays the first one.
    fn follow(&mut self, panel: Panel) {
        let (row, id) = (self.cursor(panel).row, self.cursor(panel).id.clone());
        let moved = id.filter(|_| row > 0).and_then(|id| {
            let is_it = |row: &usize| self.id(panel, *row).as_ref() == Some(&id);
            if is_it(&row) { Some(row) } else { self.ids(panel).iter().position(|other| *other == id) }
        });
        self.choose(panel, moved.unwrap_or(row));
    }

    /// Puts the rows into the next order.
    pub(super) fn reorder(&mut self, panel: Panel) {
        let cursor = self.cursor_mut(panel);
        cursor.order = (cursor.order + 1) % panel.orders().len();
        self.choose(panel, 0);
    }

    fn id(&self, panel: Panel, row: usize) -> Option<String> {
        self.ids(panel).into_iter().nth(row)
    }

    fn ids(&self, panel: Panel) -> Vec<String> {
        match panel {
            Panel::Running => self.running().iter().map(|run| run.attempt.to_string()).collect(),
            Panel::Queue => self.queued().iter().map(|queued| reference(queued)).collect(),
            Panel::Builders => self.builders().iter().map(|builder| builder.id.clone()).collect(),
            Panel::Newest => self.newest().iter().map(|build| build.id.to_string()).collect(),
        }
    }

    /// What runs, in the order that is wanted.
    pub(super) fn running(&self) -> Vec<&Running> {
        let mut rows: Vec<_> = self.overview.iter().flat_map(|overview| &overview.running).collect();
        match self.cursors.running.order {
            1 => rows.sort_by(|a, b| a.srpm.cmp(&b.srpm)),
            2 => rows.sort_by(|a, b| (&a.builder, a.slot).cmp(&(&b.builder, b.slot))),
            3 => rows.sort_by(|a, b| a.target.cmp(&b.target)),
            _ => {}
        }
        rows
    }

    /// The head of the queue, in the order that is wanted.
    pub(super) fn queued(&self) -> Vec<&Queued> {
        let mut rows: Vec<_> = self.queue.iter().collect();
        match self.cursors.queue.order {
            1 => rows.sort_by(|a, b| a.srpm.cmp(&b.srpm)),
            2 => rows.sort_by_key(|queued| std::cmp::Reverse(queued.expected_seconds)),
            3 => rows.sort_by_key(|queued| queued.queued_at),
            _ => {}
        }
        rows
    }

    /// The builders, in the order that is wanted.
    pub(super) fn builders(&self) -> Vec<&Builder> {
        let mut rows: Vec<_> = self.overview.iter().flat_map(|overview| &overview.builders).collect();
        if self.cursors.builders.order == 1 {
            rows.sort_by_key(|builder| std::cmp::Reverse(builder.state));
        }
        rows
    }

    /// The newest results, in the order that is wanted.
    pub(super) fn newest(&self) -> Vec<&Build> {
        let mut rows: Vec<_> = self.overview.iter().flat_map(|overview| &overview.newest).collect();
        match self.cursors.newest.order {
            1 => rows.sort_by_key(|build| std::cmp::Reverse(build.state)),
            2 => rows.sort_by(|a, b| a.srpm.cmp(&b.srpm)),
            _ => {}
        }
        rows
    }

    /// The build that is chosen; none where builders are, and where nothing is.
    pub(super) fn subject(&self) -> Option<Subject> {
        let row = self.cursor(self.focus).row;
        match self.focus {
            Panel::Running => self.running().get(row).map(|run| Subject {
                reference: run
                    .build
                    .map_or_else(|| format!("{}/{}", run.target, run.srpm), |id| id.to_string()),
                name: short(run.srpm.as_str()).to_owned(),
                attempt: Some(run.attempt),
                state: BuildState::Running,
            }),
            Panel::Queue => self.queued().get(row).map(|queued| Subject {
                reference: reference(queued),
                name: short(queued.srpm.as_str()).to_owned(),
                attempt: None,
                state: if queued.is_parked { BuildState::Parked } else { BuildState::Queued },
            }),
            Panel::Builders => None,
            Panel::Newest => self.newest().get(row).map(|build| Subject {
                reference: build.id.to_string(),
                name: short(build.srpm.as_str()).to_owned(),
                attempt: build.attempt,
                state: build.state,
            }),
        }
    }

    /// The builder that is chosen.
    pub(super) fn chosen_builder(&self) -> Option<&Builder> {
        (self.focus == Panel::Builders)
            .then(|| self.builders().get(self.cursors.builders.row).copied())
            .flatten()
    }
}

/// `[TARGET/]SRPM`.
fn reference(queued: &Queued) -> String {
    match &queued.target {
        Some(target) => format!("{target}/{}", queued.srpm),
        None => queued.srpm.to_string(),
    }
}

/// An SRPM's file name without what all of them end with.
pub(super) fn short(srpm: &str) -> &str {
    srpm.strip_suffix(".src.rpm").unwrap_or(srpm)
}
