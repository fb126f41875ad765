use std::fs::File;
use std::io::Write as _;

use proptest::prelude::*;

use crate::source::srpm::{Head, head_of, read_head};
use crate::source::testing::{Entry, Fake, SizeTag, srpm};
use crate::verify::testing::{numbers, texts};

fn good(bytes: &[u8]) -> (String, Option<u32>, Option<u64>) {
    match head_of(bytes) {
        Head::Srpm { header, size } => (header.nvr.to_string(), header.epoch, size),
        other => panic!("{other:?}"),
    }
}

fn reason(bytes: &[u8]) -> String {
    match head_of(bytes) {
        Head::Bad { reason, .. } => reason,
        other => panic!("{other:?}"),
    }
}

fn read_file(file: &File) -> Head {
    read_head(file, file.metadata().unwrap().len()).unwrap()
}

#[test]
fn headers_and_the_size_that_they_promise() {
    for (size, epoch) in [(SizeTag::Size, None), (SizeTag::LongSize, Some(3)), (SizeTag::Payload, Some(0))] {
        let bytes = Fake { size, epoch, ..Fake::new("foo-bar", "1.2~rc1", "3.fc43") }.bytes();
        assert_eq!(
            good(&bytes),
            ("foo-bar-1.2~rc1-3.fc43".to_owned(), epoch, Some(bytes.len() as u64)),
            "{size:?}"
        );
    }
    let bytes = Fake { size: SizeTag::None, ..Fake::new("foo", "1", "2") }.bytes();
    assert_eq!(good(&bytes).2, None);
}

fn relations(more: Vec<Entry>) -> (Vec<String>, Vec<String>) {
    match head_of(&Fake { more, ..Fake::new("foo", "1", "2") }.bytes()) {
        Head::Srpm { header, .. } => (
            header.relations.build_requires.iter().map(ToString::to_string).collect(),
            header.relations.provides.iter().map(ToString::to_string).collect(),
        ),
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_it_needs_and_what_it_becomes() {
    let long = "x".repeat(513);
    let names =
        ["gcc", "zlib-devel", "rpmlib(CompressedFileNames)", "(a or b >= 2)", "/usr/bin/perl", "", &long];
    let versions = ["", "1.2", "3.0.4-1", "", "", "", ""];
    let (requires, provides) = relations(vec![
        (1047, texts(&["foo", "foo-devel", "bad name", "hidden\u{202e}"])),
        (1048, numbers(&[0, 12, 10 | 1 << 24, 0, 0, 0, 0])),
        (1049, texts(&names)),
        (1050, texts(&versions)),
        (1112, numbers(&[8, 8, 8, 8])),
        (1113, texts(&["3:1-2.fc43", "1", "1", "1"])),
    ]);
    assert_eq!(requires, ["gcc", "zlib-devel >= 1.2", "(a or b >= 2)", "/usr/bin/perl"]);
    assert_eq!(provides, ["foo = 3:1", "foo-devel = 1"]);
    // Lists that lack what belongs to them, and that are of another kind.
    assert_eq!(relations(vec![(1049, texts(&["a", "b"]))]).0, ["a", "b"]);
    assert_eq!(relations(vec![(1048, numbers(&[12])), (1049, texts(&["a", "b"]))]).0, ["a", "b"]);
    assert_eq!(relations(vec![(1049, numbers(&[1])), (1050, texts(&["1"]))]).0, [""; 0]);
    // Hints are few, or cut.
    let many = vec!["n"; 5_000];
    let (requires, provides) = relations(vec![(1047, texts(&many)), (1049, texts(&many))]);
    assert_eq!((requires.len(), provides.len()), (4_096, 4_096));
}

#[test]
fn what_may_still_become_an_srpm() {
    let bytes = srpm("foo");
    let whole = bytes.len() - 5_000;
    for cut in 0..whole {
        assert!(matches!(head_of(&bytes[..cut]), Head::Partial { .. }), "{cut}");
    }
    assert!(matches!(head_of(&bytes[..whole]), Head::Srpm { .. }));
    assert!(matches!(head_of(&[0; 50_000]), Head::Partial { .. }));
}

#[test]
fn what_never_becomes_an_srpm() {
    assert_eq!(reason(b"<html>404"), "it is not an RPM package");
    assert_eq!(
        reason(&Fake { source: false, ..Fake::new("foo", "1", "2") }.bytes()),
        "it is a binary RPM, not a source package"
    );
    for (name, version, release) in
        [("foo", "1-2", "3"), ("f o", "1", "2"), ("../x", "1", "2"), ("", "1", "2"), ("-x", "1", "1")]
    {
        let reason = reason(&Fake::new(name, version, release).bytes());
        assert!(reason.starts_with("its header gives no usable NVR"), "{reason}");
    }
}

#[test]
fn lengths_are_checked_before_anything_is_read() {
    // 0xffffffff entries, and as much data.
    let mut bytes = srpm("foo");
    bytes[96 + 8..96 + 16].fill(0xff);
    assert!(reason(&bytes).starts_with("its RPM signature is malformed"));
    // An entry that is there many times over the same big data.
    let with = |entries: u32| {
        let data = vec![b'x'; 100_000];
        let mut section = vec![0x8e, 0xad, 0xe8, 1, 0, 0, 0, 0];
        section.extend(entries.to_be_bytes());
        section.extend((data.len() as u32).to_be_bytes());
        for _ in 0..entries {
            for word in [1_u32, 4, 0, 25_000] {
                section.extend(word.to_be_bytes());
            }
        }
        section.extend(data);
        let mut bytes = srpm("foo")[..96].to_vec();
        bytes.extend(&section);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend(&section);
        bytes
    };
    assert_eq!(reason(&with(32)), "its RPM signature is malformed: an entry overlaps another");
    assert_eq!(reason(&with(33)), "its RPM signature is malformed: 33 entries, 100000 bytes");
}

#[test]
fn a_file_is_read_only_as_far_as_its_headers_go() {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&srpm("foo")).unwrap();
    // A payload of 1 TB, of which not a block is there.
    file.set_len(1 << 40).unwrap();
    assert!(matches!(read_file(&file), Head::Srpm { .. }));
    file.set_len(200).unwrap();
    assert!(matches!(read_file(&file), Head::Partial { .. }));
    file.set_len(0).unwrap();
    assert_eq!(read_file(&file), Head::Partial { why: "it is empty" });
}

/// No flipped byte gets a panic out, nor a name that was not checked.
#[test]
fn flipped_bytes_never_panic() {
    let bytes = srpm("foo");
    let headers = bytes.len() - 5_000;
    assert!(headers > 300, "{headers}");
    for at in 0..headers {
        for flip in [0x01, 0x02, 0x40, 0x80, 0xff] {
            let mut bytes = bytes.clone();
            bytes[at] ^= flip;
            head_of(&bytes);
        }
    }
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in proptest::collection::vec(any::<u8>(), 0..600),
        at in 0_usize..500,
        whole in any::<bool>(),
    ) {
        head_of(&bytes);
        let mut srpm = srpm("foo");
        let end = (at + bytes.len()).min(srpm.len());
        srpm[at..end].copy_from_slice(&bytes[..end - at]);
        head_of(if whole { &srpm } else { &srpm[..end] });
    }
}
