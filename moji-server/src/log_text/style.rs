//! The styles that text can have: a closed set, each with a name for whoever shows it.

/// A colour of eight; the bright ones count as the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "they are what they say")]
pub enum Color {
    Black,
    Red,
    Green,
    Yellow,
    Blue,
    Magenta,
    Cyan,
    White,
}

impl Color {
    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::Black,
        Self::Red,
        Self::Green,
        Self::Yellow,
        Self::Blue,
        Self::Magenta,
        Self::Cyan,
        Self::White,
    ];
}

/// How text is shown.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Style {
    /// In which colour; none: in that of all text.
    pub color: Option<Color>,
    /// Whether it is bold.
    pub is_bold: bool,
}

impl Style {
    /// Its name: empty, `bold`, `red`, `bold-red`.
    pub fn name(self) -> &'static str {
        use Color::{Black, Blue, Cyan, Green, Magenta, Red, White, Yellow};
        match (self.color, self.is_bold) {
            (None, false) => "",
            (None, true) => "bold",
            (Some(Black), false) => "black",
            (Some(Red), false) => "red",
            (Some(Green), false) => "green",
            (Some(Yellow), false) => "yellow",
            (Some(Blue), false) => "blue",
            (Some(Magenta), false) => "magenta",
            (Some(Cyan), false) => "cyan",
            (Some(White), false) => "white",
            (Some(Black), true) => "bold-black",
            (Some(Red), true) => "bold-red",
            (Some(Green), true) => "bold-green",
            (Some(Yellow), true) => "bold-yellow",
            (Some(Blue), true) => "bold-blue",
            (Some(Magenta), true) => "bold-magenta",
            (Some(Cyan), true) => "bold-cyan",
            (Some(White), true) => "bold-white",
        }
    }

    /// What `ESC [ … m` with these parameters makes of it.
    pub(super) fn apply(&mut self, parameters: &str) {
        let mut codes = parameters.split(';').map(|code| match code {
            "" => Some(0),
            code => code.parse::<u16>().ok(),
        });
        while let Some(code) = codes.next() {
            match code {
                Some(0) => *self = Self::default(),
                Some(1) => self.is_bold = true,
                Some(22) => self.is_bold = false,
                Some(39) => self.color = None,
                Some(38 | 48) => {
                    let is_text = code == Some(38);
                    match codes.next().flatten() {
                        Some(5) => {
                            let number = codes.next().flatten();
                            if is_text {
                                self.color =
                                    number.and_then(|number| nth(number % 8).filter(|_| number < 16));
                            }
                        }
                        Some(2) => drop(codes.by_ref().take(3).count()),
                        _ => {}
                    }
                }
                Some(code @ 30..=37) => self.color = nth(code - 30),
                Some(code @ 90..=97) => self.color = nth(code - 90),
                _ => {}
            }
        }
    }
}

fn nth(number: u16) -> Option<Color> {
    Color::ALL.get(usize::from(number)).copied()
}
