//! Globs over names: `*`, `?` and `[..]`, nothing else.
//!
//! Not globset: its sets cost minutes for a thousand globs that begin with `*` over 20,000 names,
//! where trying each costs a second or two, because names are short and most globs fail at once.

/// A glob over ASCII names. Matches the whole name, upper and lower case apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Glob {
    /// What stands between the stars. One piece: there is no star. An empty first or last one: it
    /// begins or ends with a star.
    pieces: Vec<Vec<Unit>>,
    /// Bytes that a name has at least.
    shortest: usize,
}

/// What one byte of a name has to be.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Unit {
    Byte(u8),
    Any,
    Class { ranges: Vec<(u8, u8)>, negated: bool },
}

impl Unit {
    fn is(&self, byte: u8) -> bool {
        match self {
            Self::Byte(wanted) => *wanted == byte,
            Self::Any => true,
            Self::Class { ranges, negated } => {
                ranges.iter().any(|(from, to)| (*from..=*to).contains(&byte)) != *negated
            }
        }
    }
}

impl Glob {
    /// Compiles `text`.
    ///
    /// # Errors
    /// When a `[` is not closed or a range runs backwards: what is wrong, as text.
    pub(super) fn new(text: &str) -> Result<Self, &'static str> {
        let mut pieces = Vec::new();
        let mut piece = Vec::new();
        let mut rest = text.as_bytes();
        while let Some((first, after)) = rest.split_first() {
            rest = after;
            match first {
                b'*' => pieces.push(std::mem::take(&mut piece)),
                b'?' => piece.push(Unit::Any),
                b'[' => {
                    let (class, after) = class(rest)?;
                    piece.push(class);
                    rest = after;
                }
                byte => piece.push(Unit::Byte(*byte)),
            }
        }
        pieces.push(piece);
        let shortest = pieces.iter().map(Vec::len).sum();
        Ok(Self { pieces, shortest })
    }

    /// Whether all of `name` matches. The leftmost place for each piece is as good as any.
    pub(super) fn matches(&self, name: &str) -> bool {
        let name = name.as_bytes();
        let Some((first, others)) = self.pieces.split_first() else { return false };
        let Some((last, middle)) = others.split_last() else {
            return name.len() == first.len() && begins(name, first);
        };
        if name.len() < self.shortest || !begins(name, first) {
            return false;
        }
        let (Some(end), Some(mut rest)) =
            (name.get(name.len() - last.len()..), name.get(first.len()..name.len() - last.len()))
        else {
            return false;
        };
        begins(end, last)
            && middle.iter().all(|piece| {
                let at = (0..=rest.len().saturating_sub(piece.len()))
                    .find(|at| rest.get(*at..).is_some_and(|rest| begins(rest, piece)));
                let after = at.and_then(|at| rest.get(at + piece.len()..));
                rest = after.unwrap_or_default();
                after.is_some()
            })
    }
}

fn begins(name: &[u8], piece: &[Unit]) -> bool {
    name.len() >= piece.len() && name.iter().zip(piece).all(|(byte, unit)| unit.is(*byte))
}

/// The class after a `[`, and what follows its `]`. A `]` at its start stands for itself, and so
/// does a `-` at its start or end.
fn class(text: &[u8]) -> Result<(Unit, &[u8]), &'static str> {
    let (negated, mut rest) = match text {
        [b'!' | b'^', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    let mut ranges = Vec::new();
    loop {
        match rest {
            [] => return Err("its [ is not closed"),
            [b']', after @ ..] if !ranges.is_empty() => {
                return Ok((Unit::Class { ranges, negated }, after));
            }
            [from, b'-', to, after @ ..] if *to != b']' => {
                if from > to {
                    return Err("a range in its [] runs backwards");
                }
                ranges.push((*from, *to));
                rest = after;
            }
            [byte, after @ ..] => {
                ranges.push((*byte, *byte));
                rest = after;
            }
        }
    }
}
