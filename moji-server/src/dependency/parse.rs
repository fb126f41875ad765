//! Texts to requirements: the grammar of `rpmrichParse` of rpm, with bounds.
//!
//! Nothing is refused. What has no such form (a message that was cut, a later grammar) becomes a
//! requirement for what looks like a name in it, in any version: a wake too many is cheap, and
//! waiting for ever is not.

use std::convert::Infallible;
use std::str::FromStr;

use super::{Evr, Requirement, Rich, Sense, Versions};

/// How deep combinations may be nested.
const DEPTH_MAX: usize = 64;
/// Longest text that is read, in bytes; the longest in Fedora has some 400.
const TEXT_MAX: usize = 4096;
/// Most names that are taken from a text without a form.
const WORDS_MAX: usize = 64;

impl FromStr for Requirement {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        let text = text.trim();
        let text = cut(text);
        Ok(match text.starts_with('(') {
            true => whole_rich(text).unwrap_or_else(|| looks_like_names(text)),
            false => plain(text),
        })
    }
}

/// The beginning of a text that is too long.
fn cut(text: &str) -> &str {
    let end = text.char_indices().map(|(at, _)| at).take_while(|at| *at <= TEXT_MAX).last();
    match end {
        Some(end) if text.len() > TEXT_MAX => text.get(..end).unwrap_or(text).trim_end(),
        _ => text,
    }
}

fn plain(text: &str) -> Requirement {
    let mut words = text.split_whitespace();
    let name = words.next().unwrap_or_default();
    let versions = match (words.next().and_then(sense), words.next(), words.next()) {
        (Some(sense), Some(evr), None) => Some(Versions { sense, evr: Evr::new(evr) }),
        _ => None,
    };
    Requirement::versioned(name, versions)
}

fn sense(word: &str) -> Option<Sense> {
    Some(match word {
        "<" => Sense::Less,
        "<=" | "=<" => Sense::LessEqual,
        "=" | "==" => Sense::Equal,
        ">=" | "=>" => Sense::GreaterEqual,
        ">" => Sense::Greater,
        _ => return None,
    })
}

fn looks_like_names(text: &str) -> Requirement {
    let mut names = Vec::new();
    let mut words = text.split_whitespace();
    while let Some(word) = words.next() {
        if sense(word).is_some() {
            words.next();
            continue;
        }
        let mut word = word.trim_start_matches('(');
        while balance(word) < 0
            && let Some(shorter) = word.strip_suffix(')')
        {
            word = shorter;
        }
        if !word.is_empty() && balance(word) == 0 && Op::of(word).is_none() && names.len() < WORDS_MAX {
            names.push(Requirement::any(word));
        }
    }
    match names.pop() {
        None => Requirement::any(text),
        Some(one) if names.is_empty() => one,
        Some(last) => {
            names.push(last);
            Requirement::Rich(Box::new(Rich::Any(names)))
        }
    }
}

/// Opening parentheses, less closing ones.
fn balance(word: &str) -> isize {
    word.bytes().fold(0, |sum, b| match b {
        b'(' => sum + 1,
        b')' => sum - 1,
        _ => sum,
    })
}

/// A word between two requirements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Op {
    And,
    Or,
    With,
    Without,
    If,
    Unless,
    Else,
}

impl Op {
    fn of(word: &str) -> Option<Self> {
        Some(match word {
            "and" => Self::And,
            "or" => Self::Or,
            "with" => Self::With,
            "without" => Self::Without,
            "if" => Self::If,
            "unless" => Self::Unless,
            "else" => Self::Else,
            _ => return None,
        })
    }

    /// Whether `self` may follow after `before`.
    fn follows(self, before: &[Self]) -> bool {
        match before {
            [] => self != Self::Else,
            [Self::If | Self::Unless] => self == Self::Else,
            [first @ (Self::And | Self::Or | Self::With), ..] => self == *first,
            _ => false,
        }
    }
}

fn whole_rich(text: &str) -> Option<Requirement> {
    let mut rest = text;
    let found = rich(&mut rest, 0)?;
    rest.is_empty().then_some(found)
}

/// From an opening parenthesis to the one that closes it.
fn rich(rest: &mut &str, depth: usize) -> Option<Requirement> {
    if depth == DEPTH_MAX {
        return None;
    }
    *rest = rest.strip_prefix('(')?;
    let (mut parts, mut ops) = (Vec::new(), Vec::new());
    loop {
        *rest = rest.trim_start();
        parts.push(if rest.starts_with('(') { rich(rest, depth + 1)? } else { simple(rest)? });
        *rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix(')') {
            *rest = after;
            return combined(parts, &ops);
        }
        let op = Op::of(word(rest)?)?;
        if !op.follows(&ops) {
            return None;
        }
        ops.push(op);
    }
}

fn combined(parts: Vec<Requirement>, ops: &[Op]) -> Option<Requirement> {
    let Some(op) = ops.first() else { return parts.into_iter().next() };
    let rich = match op {
        Op::And => Rich::All(parts),
        Op::Or => Rich::Any(parts),
        Op::With => Rich::With(parts),
        Op::Without | Op::If | Op::Unless | Op::Else => {
            let mut parts = parts.into_iter();
            let (wanted, condition, otherwise) = (parts.next()?, parts.next()?, parts.next());
            match op {
                Op::If => Rich::If { wanted, condition, otherwise },
                Op::Unless => Rich::Unless { wanted, condition, otherwise },
                _ => Rich::Without(wanted, condition),
            }
        }
    };
    Some(Requirement::Rich(Box::new(rich)))
}

/// `name [op evr]` within a combination.
fn simple(rest: &mut &str) -> Option<Requirement> {
    let name = word(rest)?;
    let mut ahead = rest.trim_start();
    let end = ahead.find(|c| !matches!(c, '<' | '=' | '>')).unwrap_or(ahead.len());
    let (comparison, after) = ahead.split_at(end);
    if comparison.is_empty() {
        return Some(Requirement::any(name));
    }
    let sense = sense(comparison)?;
    ahead = after.trim_start();
    let evr = Evr::new(word(&mut ahead)?);
    *rest = ahead;
    Some(Requirement::versioned(name, Some(Versions { sense, evr })))
}

/// Up to a blank, or to a parenthesis that closes more than was opened within the word.
fn word<'a>(rest: &mut &'a str) -> Option<&'a str> {
    let mut open = 0_usize;
    let ends = |c: char| match c {
        '(' => {
            open += 1;
            false
        }
        ')' if open > 0 => {
            open -= 1;
            false
        }
        c => c == ')' || c.is_whitespace(),
    };
    let (word, after) = rest.split_at(rest.find(ends).unwrap_or(rest.len()));
    *rest = after;
    (!word.is_empty()).then_some(word)
}
