use proptest::prelude::*;

use super::*;

/// `style|text` of each segment.
fn shown(bytes: &[u8]) -> Vec<String> {
    let segments = |line: &Line| -> Vec<String> {
        line.segments.iter().map(|segment| format!("{}|{}", segment.style.name(), segment.text)).collect()
    };
    lines(bytes).iter().map(|line| segments(line).join(" ")).collect()
}

#[test]
fn what_programs_write_for_a_terminal() {
    for (written, expected) in [
        ("plain\n\nlast", vec!["|plain", "", "|last"]),
        ("a.c: \x1b[01;31m\x1b[Kerror: \x1b[m\x1b[Kno\n", vec!["|a.c:  bold-red|error:  |no"]),
        ("\x1b[31mred\nplain again\n", vec!["red|red", "|plain again"]),
        ("\x1b[38;5;9mr\x1b[38;2;1;31;1mg\x1b[48;5;2;1mb\n", vec!["red|rg bold-red|b"]),
        ("\x1b[97mw\x1b[39;1mb\x1b[22mp\n", vec!["white|w bold|b |p"]),
        ("\x1b]0;title\x07text\x1b]8;;http://x\x1b\\link\n", vec!["|textlink"]),
        ("\x1bPq\x1b[31m\x1b\\x\x1b(Bcharset\x1b=\n", vec!["red|xcharset"]),
        ("\x1b]0;never ended\nnext\n", vec!["", "|next"]),
        ("10%\r 50%\r100%\r\n", vec!["|100%"]),
        ("dos\r\n", vec!["|dos"]),
        ("-\u{8}\\\u{8}|\u{8}\u{8}\u{8}ok\n", vec!["|ok"]),
        ("a\tb\x07\x00\u{9b}31m\n", vec!["|a       b31m"]),
        ("\u{202e}evil\u{200b}\n", vec!["| evil "]),
        ("<script>&\"'\n", vec!["|<script>&\"'"]),
        ("\x1b[1;2;3\x18x\x1b[31\x1b[32mg\n", vec!["|x green|g"]),
    ] {
        assert_eq!(shown(written.as_bytes()), expected, "{written:?}");
    }
    assert_eq!(shown(b"a\xffb\xe2\x82\xac\xe2\x82\nx\xe2"), ["|a\u{fffd}b\u{20ac}\u{fffd}", "|x\u{fffd}"]);
}

#[test]
fn a_long_line_is_cut_and_the_next_one_is_not() {
    let long = format!("{}\u{20ac}\x1b[31mred\nnext\n", "x".repeat(LINE_MAX - 1));
    let lines = lines(long.as_bytes());
    assert_eq!(lines[0].text(), format!("{}…", "x".repeat(LINE_MAX - 1)));
    assert_eq!(lines[1].text(), "next");
    // A progress bar of megabytes without a line's end is one line too.
    let mut cleaner = Cleaner::new(0);
    for _ in 0..10_000 {
        assert!(cleaner.push(b"\r[============>      ]\x1b[1m").is_empty());
        assert!(cleaner.length < LINE_MAX && cleaner.segments.len() <= 2);
    }
    let endless = format!("\x1b[{}m\x1b]{}", "1;".repeat(9999), "x".repeat(9999));
    assert!(cleaner.push(endless.as_bytes()).is_empty());
    assert_eq!(cleaner.escape, Escape::Text);
}

#[test]
fn lines_say_where_the_next_one_begins() {
    let text = b"one\n\x1b[31mtwo\r\nthree";
    let ends: Vec<u64> = lines(text).iter().map(|line| line.end).collect();
    assert_eq!(ends, [4, 14, 19]);
    let mut cleaner = Cleaner::new(4);
    assert_eq!(cleaner.push(&text[4..14]), lines(text)[1..2]);
    assert_eq!(cleaner.finish(), None, "nothing has begun");
    assert_eq!(
        serde_json::to_string(&lines(b"\x1b[1;34ma\x1b[mb\n")).unwrap(),
        r#"[[["bold-blue","a"],["","b"]]]"#
    );
}

fn noise() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        "[ -~]{1,9}".prop_map(String::into_bytes),
        any::<char>().prop_map(|c| c.to_string().into_bytes()),
        Just(b"\x1b[".to_vec()),
        Just(b"\x1b]".to_vec()),
        Just(b"31m".to_vec()),
        Just(b"\n".to_vec()),
        Just(b"\r".to_vec()),
        Just(b"\x08".to_vec()),
        Just(b"\xe2\x82".to_vec()),
        Just("\u{202e}".as_bytes().to_vec()),
        (4080usize..4100).prop_map(|length| vec![b'x'; length]),
    ];
    proptest::collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn nothing_that_acts_comes_out(bytes in noise()) {
        let lines = lines(&bytes);
        let hides = |c: char| c.is_control() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}');
        for line in &lines {
            let text = line.text();
            prop_assert!(!text.chars().any(hides), "{text:?}");
            prop_assert!(text.len() <= LINE_MAX + "…".len());
            prop_assert!(line.segments.iter().all(|segment| !segment.text.is_empty()));
        }
        let ends = bytes.iter().filter(|byte| **byte == b'\n').count();
        prop_assert_eq!(lines.len(), ends + usize::from(bytes.last().is_some_and(|last| *last != b'\n')));
        if let Some(last) = lines.last() {
            prop_assert_eq!(last.end, bytes.len() as u64);
        }
    }

    #[test]
    fn it_does_not_matter_how_it_is_cut(bytes in noise(), cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..8)) {
        let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        at.push(bytes.len());
        at.sort_unstable();
        let (mut cleaner, mut found, mut begin) = (Cleaner::new(0), Vec::new(), 0);
        for end in at {
            found.extend(cleaner.push(&bytes[begin..end]));
            begin = end;
        }
        found.extend(cleaner.finish());
        prop_assert_eq!(found, lines(&bytes));
    }

    /// A reader that comes back goes on where a line has ended.
    #[test]
    fn each_line_stands_for_itself(bytes in noise(), which in any::<proptest::sample::Index>()) {
        let all = lines(&bytes);
        prop_assume!(!all.is_empty());
        let from = which.index(all.len());
        let begin = if from == 0 { 0 } else { all[from - 1].end };
        let mut cleaner = Cleaner::new(begin);
        let mut rest = cleaner.push(&bytes[usize::try_from(begin).unwrap()..]);
        rest.extend(cleaner.finish());
        prop_assert_eq!(&rest[..], &all[from..]);
    }
}
