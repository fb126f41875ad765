//! `priority.txt`, against a reader of the same rules that is as plain as can be: no line is lost, none
//! is invented, and the first that matches counts.

use moji_proto::{Nvr, SrpmName};
use moji_server::source::SrpmHeader;
use moji_server::source::priority::{MAX_GLOB_CHARACTERS, MAX_LINE, Priority};

use super::assert_shown;

/// Beyond it the limits of a list come into play.
const PLAIN: usize = MAX_GLOB_CHARACTERS / 2;
/// Most warnings that are kept.
const WARNINGS: usize = 100;

/// Whatever the bytes are, see the module.
pub fn check(bytes: &[u8]) {
    let list = Priority::parse(bytes);
    let lines: Vec<Line> = bytes
        .strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(bytes)
        .split(|byte| *byte == b'\n')
        .map(Line::read)
        .collect();
    assert!(list.len() + list.warnings().len() + list.unsaid() <= lines.len() + 1);
    assert!(list.warnings().len() <= WARNINGS && list.warnings().is_sorted_by_key(|warning| warning.line));
    list.warnings().iter().for_each(|warning| assert_shown(&warning.text, 2 * MAX_LINE));
    if bytes.len() > PLAIN {
        return;
    }
    let numbered = || (1_u32..).zip(&lines);
    let bad: Vec<_> = numbered().filter(|(_, line)| matches!(line, Line::Bad)).map(|(n, _)| n).collect();
    let told: Vec<_> = list.warnings().iter().map(|warning| warning.line).collect();
    assert!(bad.starts_with(&told) && bad.len() == told.len() + list.unsaid(), "{told:?}, not {bad:?}");
    let entries = lines.iter().filter(|line| line.text().is_some()).count();
    assert_eq!((list.len(), list.is_empty()), (entries, entries == 0));
    for (file, header) in srpms(lines.iter()) {
        let first = numbered().find(|(_, line)| line.names(&file, &header));
        assert_eq!(list.rank(&file, &header), first.map(|(n, _)| n), "{file} {}", header.nvr);
    }
}

/// SRPMs to rank: some of any list, and some that the list names.
pub(crate) fn srpms<'a>(lines: impl Iterator<Item = &'a Line>) -> Vec<(SrpmName, SrpmHeader)> {
    let header = |name: &str, version: &str, release: &str| {
        let nvr = Nvr::new(format!("{name}-{version}-{release}")).ok()?;
        let [name, version, release] = [name, version, release].map(str::to_owned);
        Some(SrpmHeader { name, epoch: None, version, release, nvr, relations: Default::default() })
    };
    let mut srpms = vec![
        ("gcc-14.2-3.fc43.src.rpm".to_owned(), header("gcc", "14.2", "3.fc43")),
        ("renamed.src.rpm".to_owned(), header("python3-a_b", "1~rc1", "2^git")),
    ];
    let exact = lines.filter_map(Line::text).take(2);
    srpms.extend(exact.map(|text| (format!("{text}-1-2.src.rpm"), header(text, "1", "2"))));
    let named = |(file, header): (String, Option<_>)| Some((SrpmName::new(file).ok()?, header?));
    srpms.into_iter().filter_map(named).collect()
}

/// One place of a glob.
pub(crate) enum Token {
    Star,
    Any,
    Byte(u8),
    Class(bool, Vec<(u8, u8)>),
}

/// What stands on one.
pub(crate) enum Line {
    Blank,
    Bad,
    Entry(String, Vec<Token>),
}

impl Line {
    pub(crate) fn read(bytes: &[u8]) -> Self {
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        let Ok(text) = str::from_utf8(bytes) else { return Self::Bad };
        if bytes.len() > MAX_LINE {
            return Self::Bad;
        }
        // A comment begins at the first word that begins with its sign.
        let words: Vec<&str> = text.split_whitespace().take_while(|word| !word.starts_with('#')).collect();
        let [word] = words[..] else {
            return if words.is_empty() { Self::Blank } else { Self::Bad };
        };
        let is_glob = word.contains(['*', '?', '[']);
        let plain = |c: char| c.is_ascii_alphanumeric() || "._+~^-".contains(c);
        if !word.chars().all(|c| plain(c) || is_glob && "*?[]!".contains(c)) {
            return Self::Bad;
        }
        let tokens = if is_glob { tokens(word.as_bytes()) } else { Some(bytes_of(word)) };
        tokens.map_or(Self::Bad, |tokens| Self::Entry(word.to_owned(), tokens))
    }

    /// Whether it names an SRPM.
    pub(crate) fn names(&self, file: &SrpmName, header: &SrpmHeader) -> bool {
        let texts = [file.as_str(), header.nvr.as_str(), &header.name];
        matches!(self, Self::Entry(_, glob) if texts.iter().any(|text| matches(glob, text.as_bytes())))
    }

    pub(crate) fn text(&self) -> Option<&str> {
        if let Self::Entry(text, _) = self { Some(text) } else { None }
    }
}

fn bytes_of(word: &str) -> Vec<Token> {
    word.bytes().map(Token::Byte).collect()
}

fn tokens(mut rest: &[u8]) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        tokens.push(match first {
            b'*' => Token::Star,
            b'?' => Token::Any,
            b'[' => class(&mut rest)?,
            byte => Token::Byte(*byte),
        });
    }
    Some(tokens)
}

/// What stands between `[` and `]`; a `]` right at the beginning stands for itself.
fn class(rest: &mut &[u8]) -> Option<Token> {
    let negated = matches!(rest.first(), Some(b'!' | b'^'));
    let text = rest.get(usize::from(negated)..)?;
    let mut ranges = Vec::new();
    let mut at = 0;
    while ranges.is_empty() || *text.get(at)? != b']' {
        let from = *text.get(at)?;
        match (text.get(at + 1), text.get(at + 2)) {
            (Some(b'-'), Some(to)) if *to != b']' => {
                ranges.push((from, *to));
                at += 3;
            }
            _ => {
                ranges.push((from, from));
                at += 1;
            }
        }
    }
    *rest = text.get(at + 1..)?;
    ranges.iter().all(|(from, to)| from <= to).then_some(Token::Class(negated, ranges))
}

/// Whether all of `text` fits: which beginnings of it fit the tokens so far.
fn matches(glob: &[Token], text: &[u8]) -> bool {
    let mut fits = vec![false; text.len() + 1];
    fits[0] = true;
    for token in glob {
        fits = match token {
            Token::Star => {
                let first = fits.iter().position(|fits| *fits).unwrap_or(fits.len());
                (0..fits.len()).map(|at| at >= first).collect()
            }
            one => {
                let longer = fits.iter().zip(text).map(|(fits, byte)| *fits && is(one, *byte));
                std::iter::once(false).chain(longer).collect()
            }
        };
    }
    fits.last() == Some(&true)
}

fn is(token: &Token, byte: u8) -> bool {
    match token {
        Token::Star | Token::Any => true,
        Token::Byte(wanted) => *wanted == byte,
        Token::Class(negated, ranges) => {
            ranges.iter().any(|(from, to)| (*from..=*to).contains(&byte)) != *negated
        }
    }
}
