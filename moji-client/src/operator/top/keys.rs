//! What keys do to `moji top`.
//!
//! Knows no terminal: a key is data, and what it wants of the server is given back as wishes.

use moji_proto::api::{BuildState, BuilderState};
use moji_proto::operator::{Act, Role};
use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyModifiers};

use super::log::{LogView, NAMES};
use super::state::{Panel, Popup, Subject, Top, Wish};

/// What comes of a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Pressed {
    /// Go on, and ask the server for that.
    Wishes(Vec<Wish>),
    /// End.
    Quit,
}

impl Pressed {
    fn nothing() -> Self {
        Self::Wishes(Vec::new())
    }

    fn wish(wish: Wish) -> Self {
        Self::Wishes(vec![wish])
    }
}

impl Top {
    /// A key was pressed, on a screen with this many rows.
    pub(super) fn press(&mut self, key: KeyEvent, height: u16) -> Pressed {
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return if key.code == KeyCode::Char('c') { Pressed::Quit } else { Pressed::nothing() };
        }
        let page = usize::from(height.saturating_sub(4)).max(1);
        if self.popup.is_some() {
            self.press_in_popup(key.code, page)
        } else if self.log.is_some() {
            self.press_in_log(key.code, page)
        } else {
            self.press_in_farm(key.code, page)
        }
    }

    fn press_in_popup(&mut self, key: KeyCode, page: usize) -> Pressed {
        match (self.popup.take(), key) {
            (Some(Popup::Ask { act, .. }), KeyCode::Char('y' | 'Y')) => {
                return Pressed::wish(Wish::Act(act));
            }
            (Some(question @ Popup::Ask { .. }), _) => {
                if !matches!(key, KeyCode::Char('n' | 'N' | 'q') | KeyCode::Esc) {
                    self.popup = Some(question);
                }
            }
            (Some(Popup::Why { reference, name, why, scrolled }), _) => {
                let scrolled = match key {
                    KeyCode::Down | KeyCode::Char('j') => Some(scrolled + 1),
                    KeyCode::Up | KeyCode::Char('k') => Some(scrolled.saturating_sub(1)),
                    KeyCode::PageDown => Some(scrolled + page),
                    KeyCode::PageUp => Some(scrolled.saturating_sub(page)),
                    KeyCode::Home => Some(0),
                    _ => None,
                };
                self.popup = scrolled.map(|scrolled| Popup::Why {
                    reference,
                    name,
                    why,
                    scrolled: scrolled.min(1_000),
                });
            }
            (Some(Popup::Help) | None, _) => {}
        }
        Pressed::nothing()
    }

    fn press_in_log(&mut self, key: KeyCode, page: usize) -> Pressed {
        let Some(log) = &mut self.log else { return Pressed::nothing() };
        let height = page + 1;
        match key {
            KeyCode::Char('q') | KeyCode::Esc | KeyCode::Backspace | KeyCode::Left => {
                self.log = None;
                return Pressed::wish(Wish::NoLog);
            }
            KeyCode::Up | KeyCode::Char('k') => log.scroll_by(1, height),
            KeyCode::Down | KeyCode::Char('j') => log.scroll_by(-1, height),
            KeyCode::PageUp | KeyCode::Char('b') => log.scroll_by(page.cast_signed(), height),
            KeyCode::PageDown | KeyCode::Char(' ') => log.scroll_by(-page.cast_signed(), height),
            KeyCode::Home | KeyCode::Char('g') => log.scroll_by(isize::MAX, height),
            KeyCode::End | KeyCode::Char('G' | 'f') => log.below = 0,
            KeyCode::Tab | KeyCode::BackTab | KeyCode::Right => {
                let at = NAMES.iter().position(|name| *name == log.name).unwrap_or_default();
                let step = if key == KeyCode::BackTab { NAMES.len() - 1 } else { 1 };
                let name = NAMES.get((at + step) % NAMES.len()).copied().unwrap_or(log.name);
                let (build, attempt) = (log.build.clone(), log.attempt);
                return self.read(build, attempt, name);
            }
            KeyCode::Char('?') => self.popup = Some(Popup::Help),
            _ => {}
        }
        Pressed::nothing()
    }

    fn press_in_farm(&mut self, key: KeyCode, page: usize) -> Pressed {
        let row = self.cursor(self.focus).row;
        match key {
            KeyCode::Char('q') | KeyCode::Esc => return Pressed::Quit,
            KeyCode::Tab | KeyCode::Right => self.focus = self.neighbour(1),
            KeyCode::BackTab | KeyCode::Left => self.focus = self.neighbour(Panel::ALL.len() - 1),
            KeyCode::Down | KeyCode::Char('j') => self.choose(self.focus, row + 1),
            KeyCode::Up | KeyCode::Char('k') => self.choose(self.focus, row.saturating_sub(1)),
            KeyCode::PageDown => self.choose(self.focus, row + page),
            KeyCode::PageUp => self.choose(self.focus, row.saturating_sub(page)),
            KeyCode::Home | KeyCode::Char('g') => self.choose(self.focus, 0),
            KeyCode::End | KeyCode::Char('G') => self.choose(self.focus, usize::MAX),
            KeyCode::Char('s') => self.reorder(self.focus),
            KeyCode::Char('?' | 'h') => self.popup = Some(Popup::Help),
            KeyCode::Enter | KeyCode::Char('l') => return self.open_log(),
            KeyCode::Char('w') => return self.ask_why(),
            KeyCode::Char('p') => self.ask_pause(),
            KeyCode::Char('d') => self.ask_drain(),
            KeyCode::Char('r') => self.ask_retry(),
            KeyCode::Char('c') => self.ask_cancel(),
            _ => {}
        }
        Pressed::nothing()
    }

    fn neighbour(&self, steps: usize) -> Panel {
        let at = Panel::ALL.iter().position(|panel| *panel == self.focus).unwrap_or_default();
        Panel::ALL.get((at + steps) % Panel::ALL.len()).copied().unwrap_or(self.focus)
    }

    fn open_log(&mut self) -> Pressed {
        match self.subject_or_tell() {
            Some(Subject { name, attempt: Some(attempt), .. }) => self.read(name, attempt, "build.log"),
            Some(Subject { name, .. }) => {
                self.tell(format!("{name} has no log yet: nobody has built it (w says why)"), false);
                Pressed::nothing()
            }
            None => Pressed::nothing(),
        }
    }

    fn read(&mut self, build: String, attempt: moji_proto::AttemptId, name: &'static str) -> Pressed {
        self.readings += 1;
        self.log = Some(LogView::new(self.readings, build, attempt, name));
        Pressed::wish(Wish::Log { reading: self.readings, attempt, name })
    }

    fn ask_why(&mut self) -> Pressed {
        let Some(Subject { reference, name, .. }) = self.subject_or_tell() else { return Pressed::nothing() };
        self.popup = Some(Popup::Why { reference: reference.clone(), name, why: None, scrolled: 0 });
        Pressed::wish(Wish::Why(reference))
    }

    fn ask_pause(&mut self) {
        if !self.may("pause the queue", Role::Admin) {
            return;
        }
        let is_paused = self.overview.as_ref().is_some_and(|overview| overview.server.paused.is_some());
        let (question, act) = if is_paused {
            ("Hand builds out again?", Act::Unpause)
        } else {
            ("Pause the queue? What runs goes on; nothing new is handed out.", Act::Pause { reason: None })
        };
        self.ask(question.to_owned(), act);
    }

    fn ask_drain(&mut self) {
        let Some(builder) = self.chosen_builder() else {
            return self.tell("choose a builder first: Tab goes to the builders".to_owned(), false);
        };
        let (name, state, is_drained) = (builder.id.clone(), builder.state, builder.drained.is_some());
        if !self.may("drain builders", Role::Admin) {
            return;
        }
        let (question, act) = if is_drained || state == BuilderState::Suspended {
            (format!("Give {name} work again?"), Act::Resume { builder: name })
        } else {
            (
                format!("Drain {name}? It ends what it builds and gets nothing new."),
                Act::Drain { builder: name, reason: None },
            )
        };
        self.ask(question, act);
    }

    fn ask_retry(&mut self) {
        let Some(Subject { reference, name, state, .. }) = self.subject_or_tell() else { return };
        match state {
            BuildState::Queued | BuildState::Running => {
                self.tell(format!("{name} is {state}: there is nothing to try again"), false);
            }
            _ if self.may("have builds tried again", Role::Submitter) => {
                self.ask(format!("Build {name} again?"), Act::Retry { builds: vec![reference] });
            }
            _ => {}
        }
    }

    fn ask_cancel(&mut self) {
        let Some(Subject { reference, name, state, .. }) = self.subject_or_tell() else { return };
        if !state.is_open() {
            self.tell(format!("{name} is {state}: there is nothing to cancel"), false);
        } else if self.may("cancel builds", Role::Admin) {
            self.ask(format!("Cancel {name}? It leaves the queue."), Act::Cancel { builds: vec![reference] });
        }
    }

    fn ask(&mut self, question: String, act: Act) {
        self.popup = Some(Popup::Ask { question, act });
    }

    fn subject_or_tell(&mut self) -> Option<Subject> {
        let subject = self.subject();
        if subject.is_none() {
            self.tell(
                "choose a build first: Tab goes to another panel, the arrows to a row".to_owned(),
                false,
            );
        }
        subject
    }

    /// Whether this session may do it; says so when not.
    fn may(&mut self, what: &str, needed: Role) -> bool {
        let may = self.role.is_some_and(|role| role >= needed);
        if !may {
            let reason = match self.role {
                None => "not before the server has answered".to_owned(),
                Some(_) => format!("only an admin may {what}: give an admin's credential"),
            };
            self.tell(reason, false);
        }
        may
    }
}
