//! Which bytes of a file a request is for, and whether it has them already (RFC 9110, 13 and 14).
//!
//! Pure. Several ranges at once are not served one by one: the whole file is a right answer too.

use axum::http::{HeaderMap, HeaderName, header};
use jiff::Timestamp;

/// What tells one state of a file from another.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Version {
    pub(super) etag: String,
    /// To the second, as HTTP has it.
    pub(super) modified: Timestamp,
}

/// What to answer with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Whole,
    /// From the first byte up to and without the last.
    Part {
        from: u64,
        to: u64,
    },
    NotModified,
    Unsatisfiable,
}

/// What a request with these headers gets of a file.
pub(super) fn answer(headers: &HeaderMap, version: &Version, length: u64) -> Answer {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let has_it = match (text(header::IF_NONE_MATCH), text(header::IF_MODIFIED_SINCE)) {
        // With an entity tag the date does not count.
        (Some(tags), _) => tags.split(',').map(str::trim).any(|tag| is(tag, version)),
        (None, Some(date)) => parse(date).is_some_and(|date| version.modified <= date),
        (None, None) => false,
    };
    if has_it {
        return Answer::NotModified;
    }
    let still = match text(header::IF_RANGE) {
        Some(tag) if tag.starts_with('"') => tag == version.etag,
        Some(date) => parse(date) == Some(version.modified),
        None => true,
    };
    match text(header::RANGE) {
        Some(range) if still => part(range, length),
        _ => Answer::Whole,
    }
}

fn is(tag: &str, version: &Version) -> bool {
    tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == version.etag
}

fn part(range: &str, length: u64) -> Answer {
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|range| range.split_once('-')) else {
        return Answer::Whole;
    };
    let number =
        |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    let (from, to) = match (first, last) {
        ("", last) => match number(last) {
            Some(count) => (length.saturating_sub(count), length),
            None => return Answer::Whole,
        },
        (first, "") => match number(first) {
            Some(from) => (from, length),
            None => return Answer::Whole,
        },
        (first, last) => match (number(first), number(last)) {
            (Some(from), Some(last)) if from <= last => (from, last.saturating_add(1).min(length)),
            _ => return Answer::Whole,
        },
    };
    if from < to { Answer::Part { from, to } } else { Answer::Unsatisfiable }
}

fn parse(date: &str) -> Option<Timestamp> {
    jiff::fmt::rfc2822::parse(date).ok().map(|date| date.timestamp())
}

/// A date as HTTP writes it.
pub(super) fn date(time: Timestamp) -> Option<String> {
    jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&time).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version() -> Version {
        Version { etag: "\"a-1\"".into(), modified: Timestamp::from_second(1_700_000_000).unwrap() }
    }

    fn of(headers: &[(HeaderName, &str)]) -> Answer {
        let headers = headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        answer(&headers, &version(), 100)
    }

    #[test]
    fn ranges() {
        let part = |from, to| Answer::Part { from, to };
        for (range, expected) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=10-19", part(10, 20)),
            ("bytes=90-", part(90, 100)),
            ("bytes=90-1000", part(90, 100)),
            ("bytes=-5", part(95, 100)),
            ("bytes=-500", part(0, 100)),
            ("bytes=0-18446744073709551615", part(0, 100)),
            ("bytes=100-", Answer::Unsatisfiable),
            ("bytes=-0", Answer::Unsatisfiable),
            ("bytes=5-4", Answer::Whole),
            ("bytes=0-1,3-4", Answer::Whole),
            ("bytes=-", Answer::Whole),
            ("bytes=+1-2", Answer::Whole),
            ("lines=1-2", Answer::Whole),
        ] {
            assert_eq!(of(&[(header::RANGE, range)]), expected, "{range}");
        }
        assert_eq!(answer(&HeaderMap::new(), &version(), 0), Answer::Whole);
    }

    #[test]
    fn what_the_client_has() {
        let now = date(version().modified).unwrap();
        assert_eq!(now, "Tue, 14 Nov 2023 22:13:20 GMT");
        let (earlier, range) = ("Tue, 14 Nov 2023 22:13:19 GMT", (header::RANGE, "bytes=0-9"));
        for (name, value, expected) in [
            (header::IF_NONE_MATCH, "\"a-1\"", Answer::NotModified),
            (header::IF_NONE_MATCH, "\"b\", W/\"a-1\"", Answer::NotModified),
            (header::IF_NONE_MATCH, "*", Answer::NotModified),
            (header::IF_NONE_MATCH, "\"b\"", Answer::Part { from: 0, to: 10 }),
            (header::IF_MODIFIED_SINCE, &now, Answer::NotModified),
            (header::IF_MODIFIED_SINCE, earlier, Answer::Part { from: 0, to: 10 }),
            (header::IF_MODIFIED_SINCE, "yesterday", Answer::Part { from: 0, to: 10 }),
            (header::IF_RANGE, "\"a-1\"", Answer::Part { from: 0, to: 10 }),
            (header::IF_RANGE, "\"b\"", Answer::Whole),
            (header::IF_RANGE, &now, Answer::Part { from: 0, to: 10 }),
            (header::IF_RANGE, earlier, Answer::Whole),
        ] {
            assert_eq!(of(&[range.clone(), (name.clone(), value)]), expected, "{name}: {value}");
        }
        let both = [(header::IF_NONE_MATCH, "\"b\""), (header::IF_MODIFIED_SINCE, &now)];
        assert_eq!(of(&both), Answer::Whole, "the tag counts");
    }
}
