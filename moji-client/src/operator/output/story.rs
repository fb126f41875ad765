//! `moji why`: why a build is where it is, to be read. Pure.

use jiff::Timestamp;
use moji_proto::FailureKind;
use moji_proto::api::{BuildState, Why};
use moji_proto::outcome::plain;

use super::{Paint, Style, words};

/// Why a build is where it is.
pub fn why(why: &Why, now: Timestamp, style: &Style) -> String {
    let build = &why.build;
    let target = build.target.as_ref().map(|target| format!(" for {target}")).unwrap_or_default();
    let mut text = format!(
        "{}{} (number {}): {}{}\n",
        style.heading(&words::name(build)),
        plain(&target),
        build.id,
        style.paint(Paint::of_build(build.state), build.state.word()),
        when(why, now),
    );
    text += &format!("{}\n", plain(&why.summary));
    // What a person has stopped is nobody's fault.
    if let Some(kind) = build.failure.filter(|kind| *kind != FailureKind::Interrupted) {
        text += &format!("whose fault: {kind}\n");
    }
    if let Some(place) = why.place {
        text += &format!("place {place} in its queue\n");
    }
    if let Some(excerpt) = &why.excerpt {
        text += &format!("\n{}\n", style.heading(&format!("From {}", excerpt.log)));
        for line in &excerpt.lines {
            text += &format!("  {}\n", plain(line));
        }
    }
    if !why.missing.is_empty() {
        text += &format!("\n{}\n", style.heading("Missing"));
    }
    for missing in &why.missing {
        text += &format!("  {}\n", style.paint(Paint::Odd, &missing.requirement));
        if missing.providers.is_empty() {
            text += "    nothing here is known to bring it\n";
        }
        for provider in &missing.providers {
            text += &format!("    {} brings it: {}\n", plain(&provider.build), plain(&provider.state));
        }
    }
    // What is parked no builder gets, whatever it could build.
    let builders = if build.state == BuildState::Parked { &[] } else { why.builders.as_slice() };
    if !builders.is_empty() {
        text += &format!("\n{}\n", style.heading("Builders"));
    }
    for builder in builders {
        match builder.reasons.as_slice() {
            [] => {
                let gets = style.paint(Paint::Good, "gets it as soon as it asks");
                text += &format!("  {}: {gets}\n", plain(&builder.builder));
            }
            [one] => text += &format!("  {}: {}\n", plain(&builder.builder), plain(one)),
            several => {
                text += &format!("  {}:\n", plain(&builder.builder));
                text.extend(several.iter().map(|reason| format!("    {}\n", plain(reason))));
            }
        }
    }
    text += &advice(why);
    text
}

fn when(why: &Why, now: Timestamp) -> String {
    let build = &why.build;
    let attempts = match build.attempts {
        0 => String::new(),
        number => format!(", {}", words::count(number.into(), "attempt", "attempts")),
    };
    let builder = build.builder.as_ref().map(|builder| format!(" on {}", plain(builder))).unwrap_or_default();
    match build.settled_at {
        Some(at) => format!("{builder}, {} ago{attempts}", words::ago(at, now)),
        None if build.state == BuildState::Queued => {
            format!(" for {}{attempts}", words::ago(build.queued_at, now))
        }
        None => format!("{builder}, queued {} ago{attempts}", words::ago(build.queued_at, now)),
    }
}

/// What to do next.
fn advice(why: &Why) -> String {
    let build = &why.build;
    match build.state {
        BuildState::Failed => {
            format!("\nmoji log {0}: all of it; moji retry {0}: once more\n", build.id)
        }
        BuildState::Held | BuildState::Parked => format!("\nmoji retry {}: try it now\n", build.id),
        BuildState::Withdrawn => {
            format!(
                "\nmoji retry {}: try it now, if its SRPM lies in FINISHED; else submit it again\n",
                build.id
            )
        }
        BuildState::Running => format!("\nmoji log -f {}: watch it\n", build.id),
        BuildState::Queued | BuildState::Succeeded => String::new(),
    }
}
