//! What is to be measured, and which lines of it are to be shown: by the names of parts and of lines.
//!
//! Pure; it knows the names and nothing of what they mean.

use anyhow::bail;

/// What is measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Farm,
    Idle,
    Start,
    Publication,
    Handshake,
    Transfer,
    Verification,
    Scheduling,
    Growth,
}

impl Part {
    pub(super) const ALL: [Self; 9] = [
        Self::Farm,
        Self::Idle,
        Self::Start,
        Self::Publication,
        Self::Handshake,
        Self::Transfer,
        Self::Verification,
        Self::Scheduling,
        Self::Growth,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Farm => "farm",
            Self::Idle => "idle",
            Self::Start => "start",
            Self::Publication => "publication",
            Self::Handshake => "handshake",
            Self::Transfer => "transfer",
            Self::Verification => "verification",
            Self::Scheduling => "scheduling",
            Self::Growth => "growth",
        }
    }

    /// The lines that it gives; a name that ends with a dash stands for all that begin so. Many are there once more, with
    /// `-memory` behind. Tables have no names of their own.
    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::Farm => &[
                "hand-out",
                "hand-out-p99",
                "builds-1",
                "builds-4",
                "builds-8",
                "builds-8-visible",
                "builds-32",
                "server-cpu",
            ],
            Self::Idle => &["idle-memory", "idle-cpu"],
            Self::Start => &["start-cold", "start-warm", "priority-edit"],
            Self::Publication => &["publication-"],
            Self::Transfer => &[
                "transfer-1",
                "transfer-1-",
                "transfer-8",
                "transfer-8-",
                "memory-transfer-1",
                "memory-transfer-8",
                "small-files",
                "small-files-",
            ],
            Self::Scheduling => &["hand-out-decision"],
            Self::Handshake | Self::Verification => &[],
            Self::Growth => &["growth-"],
        }
    }

    /// Whether it gives a line of this name.
    pub(super) fn has(self, key: &str) -> bool {
        let bare = key.strip_suffix("-memory").unwrap_or(key);
        self.keys().iter().any(|one| match one.ends_with('-') {
            true => bare.len() > one.len() && bare.starts_with(one),
            false => [key, bare].contains(one),
        })
    }

    /// Whether a name stands for several of its lines: for all that begin so, up to a dash.
    fn has_family(self, name: &str) -> bool {
        self.keys().iter().any(|one| is_of(one, name))
    }
}

/// Whether a line is of the family of this name.
fn is_of(key: &str, name: &str) -> bool {
    key.strip_prefix(name).is_some_and(|rest| rest.starts_with('-'))
}

/// What was asked for: names of parts, of lines, and of families of lines. Nothing: all but growth, which takes long and is
/// of no interest to who only wants to know how fast it is.
pub(super) struct Selection<'a>(Vec<Wanted<'a>>);

enum Wanted<'a> {
    Part(Part),
    /// This line, on the disk and in memory.
    Line(&'a str),
    /// All lines that begin so.
    Family(&'a str),
}

impl<'a> Selection<'a> {
    pub(super) fn new(names: &[&'a str]) -> anyhow::Result<Self> {
        names.iter().copied().map(Wanted::new).collect::<anyhow::Result<_>>().map(Self)
    }

    /// Whether anything of a part is wanted.
    pub(super) fn wants(&self, part: Part) -> bool {
        self.wants_whole(part)
            || self.0.iter().any(|wanted| match wanted {
                Wanted::Part(_) => false,
                Wanted::Line(name) => part.has(name),
                Wanted::Family(name) => part.has_family(name),
            })
    }

    /// Whether all of a part is wanted.
    pub(super) fn wants_whole(&self, part: Part) -> bool {
        let is_named = self.0.iter().any(|wanted| matches!(wanted, Wanted::Part(named) if *named == part));
        is_named || (self.0.is_empty() && part != Part::Growth)
    }

    /// Whether one of the lines of a part is to be shown.
    pub(super) fn shows(&self, part: Part, key: &str) -> bool {
        self.wants_whole(part)
            || self.0.iter().any(|wanted| match wanted {
                Wanted::Part(_) => false,
                Wanted::Line(name) => key == *name || key.strip_suffix("-memory") == Some(*name),
                Wanted::Family(name) => is_of(key, name),
            })
    }
}

impl<'a> Wanted<'a> {
    fn new(name: &'a str) -> anyhow::Result<Self> {
        if let Some(part) = Part::ALL.into_iter().find(|part| part.name() == name) {
            return Ok(Self::Part(part));
        }
        if Part::ALL.into_iter().any(|part| part.has(name)) {
            return Ok(Self::Line(name));
        }
        if Part::ALL.into_iter().any(|part| part.has_family(name)) {
            return Ok(Self::Family(name));
        }
        let parts: Vec<_> = Part::ALL.into_iter().map(Part::name).collect();
        let lines: Vec<_> = Part::ALL.into_iter().flat_map(Part::keys).copied().collect();
        bail!(
            "there is no measure '{name}': there are the parts {}, and the lines {} (a dash at the end: and more behind)",
            parts.join(", "),
            lines.join(", ")
        )
    }
}
