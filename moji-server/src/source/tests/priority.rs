use moji_proto::{Nvr, SrpmName};
use proptest::prelude::*;

use crate::source::priority::{MAX_ENTRIES, MAX_GLOB_CHARACTERS, MAX_LINE, MAX_SIZE};
use crate::source::{Priority, SrpmHeader};

pub(super) fn header(name: &str, version: &str, release: &str) -> SrpmHeader {
    SrpmHeader {
        name: name.to_owned(),
        epoch: None,
        version: version.to_owned(),
        release: release.to_owned(),
        nvr: Nvr::new(format!("{name}-{version}-{release}")).unwrap(),
        relations: Default::default(),
    }
}

fn rank(list: &str, file: &str) -> Option<u32> {
    let name = SrpmName::new(file).unwrap();
    Priority::parse(list.as_bytes()).rank(&name, &header("gcc", "14.2", "3.fc43"))
}

#[test]
fn an_entry_is_a_file_name_an_nvr_a_package_name_or_a_glob() {
    let file = "gcc-14.2-3.fc43.src.rpm";
    for entry in
        ["gcc", "gcc-14.2-3.fc43", file, "g*", "*fc43", "gc[a-d]", "gc?", "**.src.rpm", "gcc-14.[!3]-*"]
    {
        assert_eq!(rank(entry, file), Some(1), "{entry}");
    }
    for entry in ["gc", "GCC", "gcc-14.2", "gcc?", "*.fc42*", "gcc-14.2-3.fc43.src"] {
        assert_eq!(rank(entry, file), None, "{entry}");
    }
    // A file may be called otherwise than its header says.
    assert_eq!(rank("gcc-14.2-3.fc43.src.rpm", "renamed.src.rpm"), None);
    assert_eq!(rank("# first\nrenamed.src.rpm\ngcc", "renamed.src.rpm"), Some(2));
}

#[test]
fn globs_longer_than_a_word_of_bits() {
    let file = "gcc-14.2-3.fc43.src.rpm";
    let long = "?".repeat(100);
    let exact = format!("{long}\n{long}*\n*{long}\n{}", "?".repeat(file.len()));
    assert_eq!(rank(&exact, file), Some(4));
    let stars = format!("{}x\n{}", "*".repeat(200), "g*c*".repeat(3) + "*");
    assert_eq!(rank(&stars, file), None);
    assert_eq!(rank(&format!("{stars}\n{}", "[a-z0-9.-]*".repeat(file.len())), file), Some(3));
}

#[test]
fn the_first_line_counts() {
    let file = "gcc-14.2-3.fc43.src.rpm";
    assert_eq!(rank("glibc\ngcc\ng*\ngcc", file), Some(2));
    assert_eq!(rank("\n\ng*\ngcc", file), Some(3));
}

#[test]
fn comments_line_ends_and_byte_order_marks() {
    let file = "gcc-14.2-3.fc43.src.rpm";
    let list = "\u{feff}# the tool chain\r\n \r\n\t# more\r\n  gcc  # soon\r\n";
    assert_eq!(rank(list, file), Some(4));
    assert!(Priority::parse(list.as_bytes()).warnings().is_empty());
    // Without white space before it, it is no comment.
    assert_eq!(rank("gcc#soon", file), None);
}

#[test]
fn a_bad_line_is_a_warning_for_that_line_only() {
    let list = b"a/gcc\ngcc glibc\n[z-a]\n[\n\xff\xfe\n{a,b}*\na\\*\n\x1b[2Jx\ngcc\n";
    let list = Priority::parse(list);
    let lines: Vec<u32> = list.warnings().iter().map(|w| w.line).collect();
    assert_eq!(lines, [1, 2, 3, 4, 5, 6, 7, 8]);
    let name = SrpmName::new("gcc-14.2-3.fc43.src.rpm").unwrap();
    assert_eq!(list.rank(&name, &header("gcc", "14.2", "3.fc43")), Some(9));
    assert_eq!(list.len(), 1);
    for warning in list.warnings() {
        assert!(!warning.text.contains(char::is_control), "{warning:?}");
    }
}

#[test]
fn everything_is_bounded() {
    let long = format!("{}\ngcc\n", "x".repeat(MAX_LINE + 1));
    let list = Priority::parse(long.as_bytes());
    assert_eq!((list.len(), list.warnings().len()), (1, 1));

    let many: String = (0..MAX_ENTRIES + 5).map(|n| format!("p{n}\n")).collect();
    let list = Priority::parse(many.as_bytes());
    assert_eq!((list.len(), list.warnings().len()), (MAX_ENTRIES, 1));

    // Four characters that count: neither does a star, nor what follows once there is no room.
    let globs = "*abc*\n".repeat(MAX_GLOB_CHARACTERS / 4 + 5) + "abc\n";
    let list = Priority::parse(globs.as_bytes());
    assert_eq!((list.len(), list.warnings().len()), (MAX_GLOB_CHARACTERS / 4 + 1, 5));
    assert!(list.warnings()[0].text.contains(&MAX_GLOB_CHARACTERS.to_string()), "{:?}", list.warnings()[0]);

    let big = format!("{}\n", "y".repeat(999)).repeat(MAX_SIZE / 1000 + 2);
    let list = Priority::parse(big.as_bytes());
    assert_eq!((list.len(), list.warnings().len()), (MAX_SIZE / 1000, 1));

    let bad = "a/b\n".repeat(500);
    let list = Priority::parse(bad.as_bytes());
    assert_eq!((list.warnings().len(), list.unsaid()), (100, 400));
}

/// Globs as plainly as they can be written.
pub(super) fn glob_matches(glob: &[char], text: &[char]) -> bool {
    match glob {
        [] => text.is_empty(),
        ['*', rest @ ..] => (0..=text.len()).any(|n| glob_matches(rest, &text[n..])),
        ['?', rest @ ..] => !text.is_empty() && glob_matches(rest, &text[1..]),
        ['[', from, '-', to, ']', rest @ ..] => {
            text.first().is_some_and(|c| from <= c && c <= to) && glob_matches(rest, &text[1..])
        }
        [c, rest @ ..] => text.first() == Some(c) && glob_matches(rest, &text[1..]),
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        let list = Priority::parse(&bytes);
        let name = SrpmName::new("gcc-14.2-3.fc43.src.rpm").unwrap();
        list.rank(&name, &header("gcc", "14.2", "3.fc43"));
    }

    #[test]
    fn arbitrary_text_of_the_syntax_never_panics(text in "[ab\\-*?\\[\\]!^# \t\n\r.]{0,300}") {
        let list = Priority::parse(text.as_bytes());
        let name = SrpmName::new("a-b-a.src.rpm").unwrap();
        list.rank(&name, &header("a", "b", "a"));
    }

    #[test]
    fn rank_is_what_it_should_be(
        entries in proptest::collection::vec("([ab1*?-]|\\[a-b\\]){1,6}", 0..60),
        (name, version, release) in ("[ab]{1,3}(-[ab]{1,2})?", "[ab1]{1,2}", "[ab1]{1,2}"),
        other_name in any::<bool>(),
    ) {
        let header = header(&name, &version, &release);
        let stem = if other_name { "ab1".to_owned() } else { header.nvr.to_string() };
        let file = SrpmName::new(format!("{stem}.src.rpm")).unwrap();
        let texts = [file.as_str(), header.nvr.as_str(), &header.name];
        let wanted = entries.iter().position(|entry| {
            let entry: Vec<char> = entry.chars().collect();
            texts.iter().any(|text| glob_matches(&entry, &text.chars().collect::<Vec<_>>()))
        });
        let list = Priority::parse(entries.join("\n").as_bytes());
        prop_assert_eq!(list.warnings(), &[]);
        prop_assert_eq!(list.rank(&file, &header), wanted.map(|at| at as u32 + 1));
    }
}
