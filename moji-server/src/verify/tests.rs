//! Each way in which results can be wrong, each refused for its own reason.

use std::fs;

use proptest::prelude::*;

use super::testing::{Made, numbers, text, texts};
use super::*;
use crate::rpm_file::Bytes;

/// Looks at files with these names and contents, built from `foo-1-9` for `f43-x86_64`.
fn look(files: &[(&str, Vec<u8>)]) -> Result<(), VerifyError> {
    let at = tempfile::tempdir().unwrap();
    let mut delivered = Vec::new();
    for (n, (name, content)) in files.iter().enumerate() {
        let path = at.path().join(n.to_string());
        fs::write(&path, content).unwrap();
        delivered.push(Delivered { name: name.parse().unwrap(), path, payload: None });
    }
    let target = "f43-x86_64".parse().unwrap();
    verify(&delivered, &Leased { name: "foo", version: "1", target: &target, machine: "x86_64" })
}

fn refusal(files: &[(&str, Vec<u8>)]) -> Refused {
    match look(files) {
        Err(VerifyError::Refused(refused)) => {
            let text = refused.to_string();
            assert_eq!(text, moji_proto::outcome::one_line(&text));
            refused
        }
        other => panic!("{other:?}"),
    }
}

/// Why the binary package is refused that is made so.
fn wrong(change: impl FnOnce(&mut Made)) -> Reason {
    let mut made = Made::binary();
    change(&mut made);
    reason_for(made.bytes())
}

/// Why `foo-1-1.x86_64.rpm` with these bytes is refused.
fn reason_for(bytes: Vec<u8>) -> Reason {
    let name = "foo-1-1.x86_64.rpm";
    match refusal(&[("foo-1-1.src.rpm", Made::source().bytes()), (name, bytes)]) {
        Refused::File { file, reason } if file.as_str() == name => reason,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_is_right_is_let_through() {
    let source = ("foo-1-1.src.rpm", Made::source().bytes());
    let binary = |change: fn(&mut Made)| {
        let mut made = Made::binary();
        change(&mut made);
        made.bytes()
    };
    look(std::slice::from_ref(&source)).unwrap();
    look(&[
        source,
        ("foo-1-1.x86_64.rpm", binary(|_| {})),
        ("foo-devel-1-1.noarch.rpm", binary(|made| (made.name, made.arch) = ("foo-devel", "noarch"))),
        (
            "bar-7~rc1-3.noarch.rpm",
            binary(|made| {
                (made.name, made.version, made.release, made.arch) = ("bar", "7~rc1", "3", "noarch");
            }),
        ),
        ("foo+x-1-1.x86_64.rpm", binary(|made| (made.name, made.files) = ("foo+x", vec![]))),
        // An old rpmbuild knows no digest of the payload.
        ("old-1-1.x86_64.rpm", binary(|made| (made.name, made.without) = ("old", vec![5092, 5093]))),
    ])
    .unwrap();
    let mut nosrc = Made::source();
    nosrc.main.push((1051, numbers(&[1])));
    look(&[("foo-1-1.nosrc.rpm", nosrc.bytes())]).unwrap();
    // The release is the target's.
    let mut rebuilt = Made::source();
    rebuilt.release = "1.fc43";
    look(&[("foo-1-1.fc43.src.rpm", rebuilt.bytes())]).unwrap();
}

#[test]
fn what_is_no_rpm_or_not_whole() {
    let whole = Made::binary().bytes();
    let [mut short, mut long] = [whole.clone(), whole.clone()];
    short.pop();
    long.push(0);
    let size = whole.len() as u64;
    assert_eq!(reason_for(b"just a text".to_vec()), Reason::NotRpm);
    assert!(matches!(reason_for(Vec::new()), Reason::Malformed(_)));
    assert!(matches!(reason_for(whole[..200].to_vec()), Reason::Malformed(_)));
    assert_eq!(reason_for(short), Reason::Size { says: size, is: size - 1 });
    assert_eq!(reason_for(long), Reason::Size { says: size, is: size + 1 });
    assert_eq!(wrong(|made| made.signature.push((1000, text("many")))), Reason::NoSize);
}

#[test]
fn bytes_that_were_changed() {
    let mut bytes = Made::binary().bytes();
    *bytes.last_mut().unwrap() ^= 1;
    assert_eq!(reason_for(bytes), Reason::PayloadDigest);
    let mut bytes = Made::binary().bytes();
    let at = bytes.windows(9).position(|window| window == b"a summary").unwrap();
    bytes[at] ^= 1;
    assert_eq!(reason_for(bytes), Reason::HeaderDigest("SHA-256"));
    assert_eq!(
        wrong(|made| made.signature.push((269, text(&"0".repeat(40))))),
        Reason::HeaderDigest("SHA-1")
    );
    assert_eq!(
        wrong(|made| made.signature.push((279, text(&"0".repeat(64))))),
        Reason::HeaderDigest("SHA3-256")
    );
    assert_eq!(wrong(|made| made.without.push(273)), Reason::NoHeaderDigest);
    assert_eq!(wrong(|made| made.main.push((5092, texts(&["00"])))), Reason::PayloadDigest);
    assert!(matches!(wrong(|made| made.main.push((5092, numbers(&[1])))), Reason::Malformed(_)));
}

#[test]
fn names_that_are_not_the_files() {
    assert_eq!(wrong(|made| made.name = "bar"), Reason::FileName("bar-1-1.x86_64.rpm".into()));
    assert_eq!(wrong(|made| made.release = "2"), Reason::FileName("foo-1-2.x86_64.rpm".into()));
    assert_eq!(wrong(|made| made.arch = "i686"), Reason::FileName("foo-1-1.i686.rpm".into()));
    assert_eq!(
        wrong(|made| made.source_rpm = None),
        Reason::Path { path: "/usr/bin/foo".into(), why: "its folder is not one that begins at the root" }
    );
    for name in ["../foo", "-foo", "foo bar", "fo\u{1b}[2Jo", "", ".foo", "foo%", "föö"] {
        let reason = wrong(|made| made.name = name);
        assert!(matches!(reason, Reason::Characters { what: "name", .. }), "{name}: {reason:?}");
    }
    for version in ["1-2", "1/2", "", "1:2"] {
        let reason = wrong(|made| made.version = version);
        assert!(matches!(reason, Reason::Characters { what: "version", .. }), "{version}: {reason:?}");
        let reason = wrong(|made| made.release = version);
        assert!(matches!(reason, Reason::Characters { what: "release", .. }), "{version}: {reason:?}");
    }
    let reason = wrong(|made| made.arch = "x86/64");
    assert!(matches!(reason, Reason::Characters { what: "architecture", .. }), "{reason:?}");
    assert!(matches!(wrong(|made| made.main.push((1003, text("one")))), Reason::Malformed(_)));
}

#[test]
fn sources_that_are_not_the_leased_one() {
    let binary = ("foo-1-1.x86_64.rpm", Made::binary().bytes());
    assert_eq!(refusal(std::slice::from_ref(&binary)), Refused::NoSource);
    let source = |change: fn(&mut Made)| {
        let mut made = Made::source();
        change(&mut made);
        made.bytes()
    };
    let both = [("foo-1-1.src.rpm", source(|_| {})), ("foo-1-2.src.rpm", source(|made| made.release = "2"))];
    assert!(matches!(refusal(&both), Refused::File { reason: Reason::SecondSource(_), .. }));
    for (name, bytes) in [
        ("bar-1-1.src.rpm", source(|made| made.name = "bar")),
        ("foo-2-1.src.rpm", source(|made| made.version = "2")),
    ] {
        let refused = refusal(&[(name, bytes)]);
        assert!(matches!(refused, Refused::File { reason: Reason::OtherSource { .. }, .. }), "{refused:?}");
    }
    for other in ["bar-1-1.src.rpm", "foo-1-2.src.rpm", "", "(none)", "foo-1-1.src.rpm\u{1b}"] {
        let reason = wrong(|made| made.source_rpm = Some(other));
        assert!(matches!(reason, Reason::BuiltFromAnother { .. }), "{other}: {reason:?}");
    }
    assert!(matches!(wrong(|made| made.main.push((1106, numbers(&[1])))), Reason::Malformed(_)));
    assert!(matches!(wrong(|made| made.without.push(1044)), Reason::Malformed(_)));
}

#[test]
fn an_architecture_of_another_target() {
    let mut made = Made::binary();
    made.arch = "aarch64";
    let files = [("foo-1-1.src.rpm", Made::source().bytes()), ("foo-1-1.aarch64.rpm", made.bytes())];
    let refused = refusal(&files);
    assert_eq!(refused.to_string(), "foo-1-1.aarch64.rpm: it is for aarch64, which is not for f43-x86_64");
}

#[test]
fn files_that_escape() {
    for (folder, name, why) in [
        ("/usr/../../etc/", "passwd", "leaves"),
        ("/etc/", "..", "leaves"),
        ("/etc/./", "x", "leaves"),
        ("etc/", "passwd", "root"),
        ("", "passwd", "root"),
        ("/etc", "passwd", "root"),
        ("/etc/", "../passwd", "name"),
        ("/etc/", "a/b", "name"),
        ("/etc/", "", "name"),
        ("/etc/", "a\nb", "control"),
        ("/e\u{1b}tc/", "a", "control"),
    ] {
        let reason = wrong(|made| made.files = vec![("/", ""), (folder, name)]);
        assert!(
            matches!(reason, Reason::Path { why: is, .. } if is.contains(why)),
            "{folder}{name}: {reason:?}"
        );
    }
    let long: &'static str = Box::leak("x".repeat(300).into());
    let deep: &'static str = Box::leak(format!("/{}", "x/".repeat(2_100)).into());
    for file in [("/", long), (deep, "a")] {
        let reason = wrong(|made| made.files = vec![file]);
        assert!(matches!(reason, Reason::Path { why: "it is too long", .. }), "{reason:?}");
    }
    let contradictions = [
        (1116, numbers(&[0, 1, 7])),
        (1116, numbers(&[0])),
        (1118, numbers(&[1])),
        (1027, texts(&["/../x"])),
    ];
    for entry in contradictions {
        let reason = wrong(|made| made.main.push(entry.clone()));
        assert!(matches!(reason, Reason::Malformed(_)), "{entry:?}: {reason:?}");
    }
    // A source package's files have no folder.
    let mut source = Made::source();
    source.files = vec![("/root/", "foo.spec")];
    let refused = refusal(&[("foo-1-1.src.rpm", source.bytes())]);
    assert!(matches!(refused, Refused::File { reason: Reason::Path { .. }, .. }), "{refused:?}");
}

#[test]
fn a_tag_that_can_be_read_in_two_ways() {
    let reason = wrong(|made| {
        made.main = vec![(1200, text("x")), (1200, text("y"))];
    });
    assert_eq!(reason, Reason::Malformed("its RPM header is malformed: a tag has two entries".into()));
}

#[test]
fn a_disk_that_cannot_be_read_is_not_the_builders_fault() {
    let target = "f43-x86_64".parse().unwrap();
    let leased = Leased { name: "foo", version: "1", target: &target, machine: "" };
    let missing =
        Delivered { name: "foo-1-1.src.rpm".parse().unwrap(), path: "/nonexistent".into(), payload: None };
    assert!(matches!(verify(&[missing], &leased), Err(VerifyError::Disk { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 4_000, ..ProptestConfig::default() })]

    /// Whatever the bytes are: an answer, in bounded memory.
    #[test]
    fn no_bytes_make_it_panic(changes in proptest::collection::vec((0usize..1_400, any::<u8>()), 1..6), cut in 0usize..8_000) {
        let mut bytes = Made::binary().bytes();
        for (at, value) in changes {
            bytes[at] = value;
        }
        bytes.truncate(cut.max(100));
        let _ = Package::of(&Bytes(&bytes), bytes.len() as u64).unwrap();
    }
}
