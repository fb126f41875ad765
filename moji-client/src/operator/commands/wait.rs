//! `moji submit --wait`: what becomes of builds.
//!
//! Events only say that it is time to look again: what is shown is what the server says of each build then.

use std::time::Duration;

use moji_proto::api::{BASE, Build, BuildDetail, BuildState, Event};
use moji_proto::{SrpmName, TargetName};
use tokio::time::{Instant, timeout};

use super::path;
use crate::operator::events::{Heard, Stream};
use crate::operator::output::{Paint, Style, note, print, words};
use crate::operator::{Failure, Farm};

/// Builds are looked at this often also when nothing was heard of them.
const LOOK: Duration = Duration::from_secs(15);
/// Events of one moment are waited for together.
const TOGETHER: Duration = Duration::from_millis(200);
/// What is parked may wake when another one of ours was published: so long that may take.
const QUIET: Duration = Duration::from_secs(30);

/// A build that is waited for.
#[derive(Debug, Clone)]
pub(super) struct Awaited {
    /// `[TARGET/]SRPM`.
    reference: String,
    /// The newest build of that name when it was settled already before: not this one.
    not: Option<u64>,
    last: Option<Build>,
}

impl Awaited {
    /// One that is about to be submitted.
    ///
    /// # Errors
    /// When the server cannot be asked.
    pub(super) async fn before(
        farm: &Farm,
        srpm: &SrpmName,
        target: Option<&TargetName>,
    ) -> Result<Self, Failure> {
        let reference = match target {
            Some(target) => format!("{target}/{srpm}"),
            None => srpm.to_string(),
        };
        let mut awaited = Self { reference, not: None, last: None };
        let newest = awaited.newest(farm).await?;
        awaited.not = newest.filter(|build| !build.state.is_open()).map(|build| build.id);
        Ok(awaited)
    }

    /// The newest build of that name.
    async fn newest(&self, farm: &Farm) -> Result<Option<Build>, Failure> {
        let path = path(&format!("{BASE}/find"), [("build", self.reference.clone())]);
        match farm.patiently(&path, note).await {
            Ok(build) => Ok(Some(build)),
            // There was none yet.
            Err(Failure::Refused(_)) => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// Whether an event is of an SRPM of that name.
    fn is_meant_by(&self, event: &Event) -> bool {
        let srpm = self.reference.rsplit('/').next();
        event.build.as_ref().is_some_and(|build| Some(build.srpm.as_str()) == srpm)
    }

    /// Looks at it; whether it has changed.
    async fn look(&mut self, farm: &Farm) -> Result<bool, Failure> {
        let now = match &self.last {
            Some(known) => {
                let detail: BuildDetail =
                    farm.patiently(&format!("{BASE}/builds/{}", known.id), note).await?;
                Some(detail.build)
            }
            None => self.newest(farm).await?.filter(|build| Some(build.id) != self.not),
        };
        let Some(now) = now else { return Ok(false) };
        let what = |build: &Build| (build.state, build.attempt);
        let is_new = self.last.as_ref().is_none_or(|last| what(last) != what(&now));
        self.last = Some(now);
        Ok(is_new)
    }
}

/// Where it is said what happens.
#[derive(Debug, Clone, Copy)]
pub(super) enum Words {
    /// They are the program's output.
    Answer,
    /// That is something else: to standard error.
    Aside,
}

/// Waits, and says what happens. 0: all succeeded, 1: one failed or was cancelled, 2: one is held or parked.
pub(super) async fn wait(
    farm: &Farm,
    mut awaited: Vec<Awaited>,
    style: &Style,
    said: Words,
) -> Result<u8, Failure> {
    let mut is_said = false;
    let mut stream = Stream::new(farm, None, Vec::new());
    let mut changed_at = Instant::now();
    loop {
        if look(farm, &mut awaited, style, said).await? {
            (changed_at, is_said) = (Instant::now(), false);
        }
        let states: Vec<_> = awaited.iter().map(|one| one.last.as_ref().map(|build| build.state)).collect();
        if let Some(code) = verdict(&states, changed_at.elapsed() >= QUIET) {
            return Ok(code);
        }
        // Only the time is missing: whoever sees nothing happen is told what is waited for.
        if verdict(&states, true).is_some() && !std::mem::replace(&mut is_said, true) {
            let seconds = QUIET.saturating_sub(changed_at.elapsed()).as_secs();
            note(&format!("what is parked may begin now: waiting {seconds} s for it to move"));
        }
        let usual = Instant::now() + LOOK;
        let end = if is_said { usual.min(changed_at + QUIET) } else { usual };
        hear(&mut stream, end, &awaited).await?;
    }
}

/// Waits until there is a reason to look, or it is time to.
async fn hear(stream: &mut Stream, mut end: Instant, awaited: &[Awaited]) -> Result<(), Failure> {
    let soon = || Instant::now() + TOGETHER;
    while let Ok(heard) = timeout(end.saturating_duration_since(Instant::now()), stream.next()).await {
        match heard? {
            Heard::Event(event) if awaited.iter().any(|one| one.is_meant_by(&event)) => end = end.min(soon()),
            Heard::Event(_) => {}
            Heard::Connected | Heard::Missed => end = end.min(soon()),
            Heard::Lost(reason) => note(&format!("{reason}: trying again")),
        }
    }
    Ok(())
}

/// Looks at those that may change, and says what has; whether something has.
async fn look(farm: &Farm, awaited: &mut [Awaited], style: &Style, said: Words) -> Result<bool, Failure> {
    let mut has_changed = false;
    for one in awaited {
        let is_settled = one.last.as_ref().is_some_and(|build| !build.state.is_open());
        if is_settled || !one.look(farm).await? {
            continue;
        }
        has_changed = true;
        if let Some(build) = &one.last {
            match said {
                Words::Answer => print(&told(build, style))?,
                Words::Aside => note(told(build, &Style::default()).trim_end()),
            }
        }
    }
    Ok(has_changed)
}

fn told(build: &Build, style: &Style) -> String {
    let mut rest = String::new();
    if let Some(builder) = build.builder.as_ref().filter(|_| build.state != BuildState::Queued) {
        rest += &format!(" on {builder}");
    }
    if let Some(took) = build.took_seconds.filter(|_| !build.state.is_open()) {
        rest += &format!(" after {}", words::duration(took));
    }
    if let Some(reason) = build.reason.as_ref().filter(|_| build.state != BuildState::Running) {
        rest += &format!(": {reason}");
    }
    format!(
        "{}: {}{}\n",
        words::name(build),
        style.paint(Paint::of_build(build.state), build.state.word()),
        style.paint(Paint::Plain, &rest)
    )
}

/// What to end with, when nothing more is to be waited for. One that is parked ends the wait when none of the others
/// goes on, and it is quiet: no other one of ours can wake it any more.
fn verdict(states: &[Option<BuildState>], is_quiet: bool) -> Option<u8> {
    let mut code = 0;
    let mut is_parked = false;
    for state in states {
        match state {
            None | Some(BuildState::Queued | BuildState::Running) => return None,
            Some(BuildState::Succeeded) => {}
            Some(BuildState::Failed | BuildState::Withdrawn) => code = 1,
            Some(BuildState::Held) if code == 0 => code = 2,
            Some(BuildState::Held) => {}
            Some(BuildState::Parked) => is_parked = true,
        }
    }
    let several = states.len() > 1;
    match is_parked {
        true if several && !is_quiet => None,
        true if code == 0 => Some(2),
        _ => Some(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_to_end_with() {
        use BuildState::{Failed, Held, Parked, Queued, Running, Succeeded, Withdrawn};
        for (states, quiet, wanted) in [
            (&[Some(Succeeded), None][..], true, None),
            (&[Some(Succeeded), Some(Queued)], true, None),
            (&[Some(Failed), Some(Running)], true, None),
            (&[Some(Succeeded), Some(Succeeded)], false, Some(0)),
            (&[Some(Held), Some(Failed)], false, Some(1)),
            (&[Some(Failed), Some(Held)], false, Some(1)),
            (&[Some(Withdrawn)], false, Some(1)),
            (&[Some(Succeeded), Some(Held)], false, Some(2)),
            // Alone, nothing of ours can wake it.
            (&[Some(Parked)], false, Some(2)),
            (&[Some(Succeeded), Some(Parked)], false, None),
            (&[Some(Succeeded), Some(Parked)], true, Some(2)),
            (&[Some(Failed), Some(Parked)], true, Some(1)),
        ] {
            assert_eq!(verdict(states, quiet), wanted, "{states:?}, {quiet}");
        }
    }
}
