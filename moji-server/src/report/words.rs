//! The sentences that text and HTML have in common.

use jiff::Timestamp;
use moji_proto::{FailureKind, outcome};

use super::{Cycle, Failed, Missing, Provider, ProviderState, Report, Standing, TargetReport};

/// Longest text from outside that is shown, in characters.
const SHOWN_MAX: usize = 512;

/// A text from outside, as one harmless line.
pub(crate) fn plain(text: &str) -> String {
    let text = outcome::plain(text);
    match text.char_indices().nth(SHOWN_MAX) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text,
    }
}

pub(crate) fn standing(standing: Standing) -> &'static str {
    match standing {
        Standing::Empty => "The queue is empty",
        Standing::Stuck => "Nothing that is left can move",
        Standing::Running => "Builds go on",
    }
}

pub(crate) fn name(target: &TargetReport) -> &str {
    target.target.as_ref().map_or("any builder", |target| target.as_str())
}

pub(crate) fn moment(time: Timestamp) -> String {
    time.strftime("%Y-%m-%d %H:%M UTC").to_string()
}

/// `1 d 2 h`, `3 h 20 min`, `4 min 5 s`, `6 s`: two units are enough.
pub(crate) fn duration(seconds: u64) -> String {
    let units = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let (mut rest, mut parts) = (seconds, Vec::new());
    for (size, unit) in units {
        if rest >= size || (size == 1 && parts.is_empty()) {
            parts.push(format!("{} {unit}", rest / size));
        } else if !parts.is_empty() {
            break;
        }
        rest %= size;
        if parts.len() == 2 {
            break;
        }
    }
    parts.join(" ")
}

/// `1 attempt`, `2 attempts`.
pub(crate) fn count(number: u64, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

/// How many SRPMs came to what.
pub(crate) fn outcomes(report: &Report) -> String {
    let counts = report.totals.counts;
    format!(
        "{}: {} built, {} failed, {} held, {} parked, {} waiting",
        count(counts.srpms(), "SRPM"),
        counts.built,
        counts.failed,
        counts.held,
        counts.parked,
        counts.waiting
    )
}

/// What it took.
pub(crate) fn effort(report: &Report) -> String {
    let totals = &report.totals;
    let hundredths = (totals.attempts * 100).checked_div(totals.counts.srpms()).unwrap_or(0);
    format!(
        "{}, {}.{:02} for each SRPM; {} from the first to the last, in which builders were busy for {}; the \
         longest chain of builds that wait for each other takes {}",
        count(totals.attempts, "attempt"),
        hundredths / 100,
        hundredths % 100,
        duration(totals.wall_seconds),
        duration(totals.busy_seconds),
        duration(totals.critical_path_seconds)
    )
}

pub(crate) fn span(target: &TargetReport) -> Option<String> {
    let (began, ended) = (target.began?, target.ended?);
    Some(format!("From {} to {}", moment(began), moment(ended)))
}

/// The failures of each kind, kinds and names in order.
pub(crate) fn by_kind(failed: &[Failed]) -> Vec<(&'static str, Vec<&Failed>)> {
    let mut sorted: Vec<&Failed> = failed.iter().collect();
    sorted.sort_by(|a, b| (a.kind, &a.srpm).cmp(&(b.kind, &b.srpm)));
    let mut kinds: Vec<(&'static str, Vec<&Failed>)> = Vec::new();
    for failure in sorted {
        let words = kind(failure.kind);
        match kinds.last_mut() {
            Some((last, failures)) if *last == words => failures.push(failure),
            _ => kinds.push((words, vec![failure])),
        }
    }
    kinds
}

fn kind(kind: Option<FailureKind>) -> &'static str {
    match kind {
        Some(FailureKind::Package) => "The package itself",
        Some(FailureKind::MissingDependency) => "A missing dependency",
        Some(FailureKind::Infrastructure) => "A builder or a repository",
        Some(FailureKind::Configuration) => "The configuration of a target",
        Some(FailureKind::UnreadableSrpm) => "An SRPM that cannot be read",
        Some(FailureKind::Interrupted) => "Interrupted",
        None => "Not known",
    }
}

/// `2 attempts, the last on board-7`.
pub(crate) fn tried(failed: &Failed) -> String {
    let attempts = count(failed.attempts.into(), "attempt");
    match &failed.builder {
        Some(builder) if failed.attempts > 1 => format!("{attempts}, the last on {builder}"),
        Some(builder) => format!("{attempts}, on {builder}"),
        None => attempts,
    }
}

/// What an SRPM waits for that needs nothing.
pub(crate) const NO_BUILDER: &str = "no builder that is connected can take it";

/// Who would provide what is missing.
pub(crate) fn who(missing: &Missing) -> String {
    if missing.is_there {
        return "the repository has it, but the builder did not find it: does it get that repository?"
            .to_owned();
    }
    if missing.providers.is_empty() {
        return "nothing that is known provides it".to_owned();
    }
    let one = |Provider { srpm, state }: &Provider| match state {
        ProviderState::Queued => format!("{srpm} would, which is queued"),
        ProviderState::Waiting => format!("{srpm} would, which waits itself"),
        ProviderState::Parked => format!("{srpm} would, which is parked itself"),
        ProviderState::Running => format!("{srpm} would, which is being built"),
        ProviderState::Failed => format!("{srpm} would, which failed"),
        ProviderState::Held => format!("{srpm} would, which is held"),
        ProviderState::Built => format!("{srpm} was built, but provides another version"),
        ProviderState::Removed => {
            format!("{srpm} was built, and its result is not in the repository any more")
        }
    };
    missing.providers.iter().map(one).collect::<Vec<_>>().join("; ")
}

/// `a -> b -> c -> a`
pub(crate) fn round(cycle: &Cycle) -> String {
    let names = cycle.edges.iter().chain(cycle.edges.first()).map(|edge| plain(&edge.package));
    names.collect::<Vec<_>>().join(" -> ")
}

/// Each package of a cycle, what it needs, and of which one.
pub(crate) fn edges(cycle: &Cycle) -> impl Iterator<Item = (String, String, String)> {
    let next = cycle.edges.iter().cycle().skip(1);
    let edges = cycle.edges.iter().zip(next);
    edges.map(|(edge, next)| (plain(&edge.package), plain(&edge.requirement), plain(&next.package)))
}
