//! `requires.txt`, against a reader of the same rules that is as plain as can be: no line is lost, none
//! is invented, and what fits adds up.

use moji_proto::{Resources, Tag};
use moji_server::source::priority::{MAX_GLOB_CHARACTERS, MAX_LINE};
use moji_server::source::{Demand, Requires};

use super::assert_shown;
use super::priority::{Line, srpms};

/// Beyond it the limits of a list come into play.
const PLAIN: usize = MAX_GLOB_CHARACTERS / 2;
/// Most warnings that are kept.
const WARNINGS: usize = 100;

/// Whatever the bytes are, see the module.
pub fn check(bytes: &[u8]) {
    let list = Requires::parse(bytes);
    let lines: Vec<(Line, Demand)> = bytes
        .strip_prefix(b"\xef\xbb\xbf")
        .unwrap_or(bytes)
        .split(|byte| *byte == b'\n')
        .map(|line| read(line).unwrap_or((Line::Bad, Demand::default())))
        .collect();
    assert!(list.len() + list.warnings().len() + list.unsaid() <= lines.len() + 1);
    assert!(list.warnings().len() <= WARNINGS && list.warnings().is_sorted_by_key(|warning| warning.line));
    list.warnings().iter().for_each(|warning| assert_shown(&warning.text, 2 * MAX_LINE));
    if bytes.len() > PLAIN {
        return;
    }
    let numbered = (1_u32..).zip(&lines);
    let bad: Vec<_> = numbered.filter(|(_, (line, _))| matches!(line, Line::Bad)).map(|(n, _)| n).collect();
    let told: Vec<_> = list.warnings().iter().map(|warning| warning.line).collect();
    assert!(bad.starts_with(&told) && bad.len() == told.len() + list.unsaid(), "{told:?}, not {bad:?}");
    let entries = lines.iter().filter(|(line, _)| line.text().is_some()).count();
    assert_eq!((list.len(), list.is_empty()), (entries, entries == 0));
    for (file, header) in srpms(lines.iter().map(|(line, _)| line)) {
        let mut wanted = Demand::default();
        lines.iter().filter(|(line, _)| line.names(&file, &header)).for_each(|(_, more)| {
            wanted.memory = wanted.memory.max(more.memory);
            wanted.disk = wanted.disk.max(more.disk);
            wanted.cores = wanted.cores.max(more.cores);
            wanted.tags.extend(more.tags.clone());
        });
        let demand = list.demand(&file, &header);
        assert_eq!(demand, wanted, "{file} {}", header.nvr);
        enough(&demand);
    }
}

/// A builder that has all of it will do, and one of which nothing is known lacks all of it.
fn enough(demand: &Demand) {
    let Demand { memory, disk, cores, ref tags } = *demand;
    let all: Vec<Tag> = tags.iter().cloned().collect();
    assert_eq!(demand.lacks(&Resources { cores, memory, disk }, &all), []);
    let numbers = [memory, disk, cores.into()].iter().filter(|number| **number > 0).count();
    let lacks = demand.lacks(&Resources::default(), &[]);
    assert_eq!(lacks.len(), numbers + tags.len());
    lacks.iter().for_each(|lack| assert_shown(&lack.to_string(), MAX_LINE));
}

fn read(bytes: &[u8]) -> Option<(Line, Demand)> {
    let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
    let text = str::from_utf8(bytes).ok().filter(|text| text.len() <= MAX_LINE)?;
    let mut words = text.split_whitespace().take_while(|word| !word.starts_with('#'));
    let mut demand = Demand::default();
    let Some(entry) = words.next() else { return Some((Line::Blank, demand)) };
    let mut asks = false;
    for word in words {
        let (kind, value) = word.split_once('=')?;
        match kind {
            "memory" => demand.memory = demand.memory.max(size(value)?),
            "disk" => demand.disk = demand.disk.max(size(value)?),
            "cores" => demand.cores = demand.cores.max(value.parse().ok().filter(|cores| *cores > 0)?),
            "tag" => {
                demand.tags.insert(value.parse().ok()?);
            }
            _ => return None,
        }
        asks = true;
    }
    asks.then(|| (Line::read(entry.as_bytes()), demand))
}

fn size(text: &str) -> Option<u64> {
    let (digits, unit) = match text.to_ascii_uppercase() {
        text if text.ends_with('K') => (text.len() - 1, 1024),
        text if text.ends_with('M') => (text.len() - 1, 1024 * 1024),
        text if text.ends_with('G') => (text.len() - 1, 1024 * 1024 * 1024),
        text => (text.len(), 1),
    };
    let number: u64 = text.get(..digits)?.parse().ok()?;
    number.checked_mul(unit).filter(|size| *size > 0)
}
