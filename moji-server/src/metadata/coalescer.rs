//! When to look at a repository: after a change, once things are quiet, but not much later than the
//! first change; one run at a time; after a failure not before a rest.
//!
//! Pure: times come in as durations since any fixed start. It deliberately does not know what a
//! change or a run is, and it draws no lots: the caller brings the jitter.

use std::time::Duration;

/// One repository's pending changes and the run that takes them in.
///
/// ```text
///            on_change, ask             begin (at the deadline)
///   idle ─────────────────────▶ waiting ───────────────────────▶ running
///    ▲                             ▲                               │  │
///    │                             └── done, changes came meanwhile │  │
///    │                             └── failed, after a rest ────────┘  │
///    └──────────────────────────────── done ──────────────────────────┘
/// ```
#[derive(Debug)]
pub struct Coalescer {
    quiet: Duration,
    at_most: Duration,
    /// The first and the last change that no run has started after.
    changes: Option<(Duration, Duration)>,
    /// Somebody wants a run without waiting for quiet.
    asked: bool,
    running: bool,
    not_before: Duration,
}

impl Coalescer {
    /// An idle one. A run starts when nothing changed for `quiet`, or `at_most` after the first
    /// change, whichever is earlier.
    pub fn new(quiet: Duration, at_most: Duration) -> Self {
        Self { quiet, at_most, changes: None, asked: false, running: false, not_before: Duration::ZERO }
    }

    /// Something changed at `now`. During a run it leads to exactly one more.
    pub fn on_change(&mut self, now: Duration) {
        let first = self.changes.map_or(now, |(first, _)| first);
        self.changes = Some((first, now));
    }

    /// Asks for a run without waiting for quiet. A rest after a failure is still kept.
    pub fn ask(&mut self) {
        self.asked = true;
    }

    /// Whether nothing runs, waits or rests.
    pub fn is_idle(&self) -> bool {
        !self.running && !self.asked && self.changes.is_none()
    }

    /// When [`begin`](Self::begin) says yes, if nothing else happens; `None` while running or idle.
    pub fn deadline(&self) -> Option<Duration> {
        if self.running {
            return None;
        }
        let settled = self
            .changes
            .map(|(first, last)| last.saturating_add(self.quiet).min(first.saturating_add(self.at_most)));
        let due = if self.asked { Some(Duration::ZERO) } else { settled };
        due.map(|due| due.max(self.not_before))
    }

    /// Starts a run if one is due at `now`: it takes in every change up to here.
    #[must_use]
    pub fn begin(&mut self, now: Duration) -> bool {
        let due = self.deadline().is_some_and(|deadline| deadline <= now);
        if due {
            self.running = true;
            self.asked = false;
            self.changes = None;
            self.not_before = Duration::ZERO;
        }
        due
    }

    /// The run ended well.
    pub fn done(&mut self) {
        self.running = false;
    }

    /// The run failed at `now`: try again after `rest`, not earlier, whatever changes.
    pub fn failed(&mut self, now: Duration, rest: Duration) {
        self.running = false;
        self.asked = true;
        self.not_before = now.saturating_add(rest);
    }
}

/// How long to rest after `failures` failures in a row (1 after the first): doubled each time from
/// `base` up to `at_most`, and then between half of it and all of it by `jitter` (0 to 255), so that
/// repositories that failed together do not try again together.
pub fn rest(failures: u32, base: Duration, at_most: Duration, jitter: u8) -> Duration {
    let doubled = base.saturating_mul(2_u32.saturating_pow(failures.saturating_sub(1)));
    let half = doubled.min(at_most) / 2;
    half + half.mul_f64(f64::from(jitter) / 255.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const QUIET: Duration = Duration::from_secs(1);
    const AT_MOST: Duration = Duration::from_secs(15);

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn fresh() -> Coalescer {
        Coalescer::new(QUIET, AT_MOST)
    }

    #[test]
    fn a_burst_is_one_run_once_it_is_quiet() {
        let mut c = fresh();
        assert!(c.is_idle() && c.deadline().is_none() && !c.begin(ms(0)));
        for at in [100, 600, 1400] {
            c.on_change(ms(at));
            assert!(!c.begin(ms(at)));
        }
        assert_eq!(c.deadline(), Some(ms(2400)));
        assert!(!c.begin(ms(2399)) && c.begin(ms(2400)) && !c.begin(ms(9999)));
        c.done();
        assert!(c.is_idle());
    }

    #[test]
    fn an_endless_stream_waits_at_most_so_long() {
        let mut c = fresh();
        for at in (7000..).step_by(500).take_while(|at| *at <= 21_500) {
            c.on_change(ms(at));
            assert!(!c.begin(ms(at)), "{at}");
        }
        assert_eq!(c.deadline(), Some(ms(22_000)));
    }

    #[test]
    fn changes_during_a_run_are_exactly_one_more() {
        let mut c = fresh();
        c.ask();
        assert!(c.begin(ms(5)));
        c.on_change(ms(10));
        c.on_change(ms(3000));
        assert_eq!(c.deadline(), None);
        c.done();
        assert_eq!(c.deadline(), Some(ms(4000)));
        assert!(c.begin(ms(4000)));
        c.done();
        assert!(c.is_idle());
    }

    #[test]
    fn a_failure_rests_whatever_changes_and_success_forgets_it() {
        let mut c = fresh();
        c.ask();
        assert!(c.begin(ms(0)));
        c.failed(ms(100), ms(8000));
        c.on_change(ms(200));
        c.ask();
        assert!(!c.is_idle() && !c.begin(ms(8099)));
        assert_eq!(c.deadline(), Some(ms(8100)));
        assert!(c.begin(ms(8100)));
        c.done();
        c.ask();
        assert!(c.begin(ms(8101)));
    }

    #[test]
    fn rests_double_up_to_a_bound_and_jitter_stays_in_the_upper_half() {
        let at = |failures, jitter| rest(failures, ms(2000), ms(300_000), jitter);
        assert_eq!((at(1, 255), at(2, 255), at(3, 255)), (ms(2000), ms(4000), ms(8000)));
        assert_eq!((at(1, 0), at(40, 255), at(u32::MAX, 0)), (ms(1000), ms(300_000), ms(150_000)));
    }

    #[derive(Debug, Clone)]
    enum Move {
        Change,
        Ask,
        Finish,
        Fail(u64),
        Wait(u64),
    }

    fn moves() -> impl Strategy<Value = Vec<Move>> {
        let one = prop_oneof![
            4 => Just(Move::Change),
            1 => Just(Move::Ask),
            2 => Just(Move::Finish),
            1 => (0..5000_u64).prop_map(Move::Fail),
            6 => (1..3000_u64).prop_map(Move::Wait),
        ];
        proptest::collection::vec(one, 0..200)
    }

    proptest! {
        /// A caller that starts a run whenever the deadline has come loses no change, delays none
        /// beyond the bound (runs and rests apart), and never has two runs.
        #[test]
        fn no_change_is_lost_or_late_and_runs_never_overlap(moves in moves()) {
            let (mut c, mut now, mut running) = (fresh(), ms(0), false);
            // The oldest change that no run has started after; when the way was last free for one.
            let (mut unseen, mut free) = (None::<Duration>, ms(0));
            let (mut changes, mut starts, mut wanted) = (0, 0, 0);
            let mut start = |c: &mut Coalescer, now, running: &mut bool, unseen: &mut Option<Duration>, free: Duration| {
                if !c.begin(now) { return Ok(()); }
                prop_assert!(!*running, "two runs at once");
                *running = true;
                starts += 1;
                if let Some(first) = unseen.take() {
                    prop_assert!(now <= (first + AT_MOST).max(free), "{first:?} waited until {now:?}");
                }
                Ok(())
            };
            for step in moves.into_iter().chain([Move::Finish, Move::Wait(100_000), Move::Finish]) {
                match step {
                    Move::Change => { c.on_change(now); unseen.get_or_insert(now); changes += 1; wanted += 1; }
                    Move::Ask => { c.ask(); wanted += 1; }
                    Move::Finish if running => { c.done(); running = false; free = now; }
                    Move::Fail(rest) if running => {
                        c.failed(now, ms(rest));
                        running = false; free = now + ms(rest); wanted += 1;
                    }
                    Move::Wait(span) => {
                        let end = now + ms(span);
                        while let Some(at) = c.deadline().filter(|at| *at <= end) {
                            now = now.max(at);
                            start(&mut c, now, &mut running, &mut unseen, free)?;
                        }
                        now = end;
                    }
                    _ => {}
                }
                start(&mut c, now, &mut running, &mut unseen, free)?;
            }
            prop_assert!(unseen.is_none() && c.is_idle(), "{changes} changes, left over: {unseen:?} {c:?}");
            prop_assert!(starts <= wanted, "{starts} runs for {wanted} reasons");
        }
    }
}
