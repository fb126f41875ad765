//! Where escape sequences begin and end (ECMA-48), so that nothing of them is shown.
//!
//! The end of a line ends each of them: what somebody left open hides one line at most.

use super::style::Style;

/// Longest parameters that are looked at.
const PARAMETERS: usize = 64;

/// What a character means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It is part of a sequence.
    Nothing,
    /// It stands for itself.
    Shown,
}

/// In which part of a sequence the text is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Escape {
    /// In none.
    #[default]
    None,
    /// Behind ESC.
    Begun,
    /// Behind ESC and something that says that more follows.
    Intermediate,
    /// Behind `ESC [`: its parameters; `None`: more than are looked at.
    Control(Option<String>),
    /// In the title of a window or the like, up to BEL or `ESC \`.
    Text,
}

impl Escape {
    /// Takes a character; gives what it means.
    pub(super) fn take(&mut self, c: char, style: &mut Style) -> Meaning {
        match (std::mem::take(self), c) {
            (Self::None, '\u{1b}') | (_, '\u{1b}') => *self = Self::Begun,
            (Self::None, _) => return Meaning::Shown,
            // CAN, SUB: the sequence is void.
            (_, '\u{18}' | '\u{1a}') => {}
            (Self::Begun, '[') => *self = Self::Control(Some(String::new())),
            (Self::Begun, ']' | 'P' | 'X' | '^' | '_') => *self = Self::Text,
            (Self::Begun | Self::Intermediate, ' '..='/') => *self = Self::Intermediate,
            (Self::Begun | Self::Intermediate, _) => {}
            (Self::Control(parameters), ' '..='?') => {
                let parameters = parameters.filter(|known| known.len() < PARAMETERS);
                *self = Self::Control(parameters.map(|known| known + c.encode_utf8(&mut [0; 4])));
            }
            (Self::Control(parameters), 'm') => {
                if let Some(parameters) = parameters {
                    style.apply(&parameters);
                }
            }
            (Self::Control(_), '\r') => return Meaning::Shown,
            (Self::Control(_), _) => {}
            (Self::Text, '\u{7}' | '\u{9c}') => {}
            (Self::Text, _) => *self = Self::Text,
        }
        Meaning::Nothing
    }
}
