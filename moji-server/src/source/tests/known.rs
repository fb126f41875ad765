//! The headers that are kept for the next start.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, SystemTime};

use proptest::prelude::*;

use super::watching::{Watched, key};
use crate::BuildKey;
use crate::source::folder::{Stamp, read_srpm};
use crate::source::known::{Known, write};
use crate::source::srpm::{Head, head_of};
use crate::source::testing::{Fake, srpm};
use crate::verify::testing::{numbers, texts};

/// One with everything that a header may say.
fn rich(epoch: Option<u32>) -> Head {
    let wanted =
        ["make", "zlib >= 1.2-3", "/usr/bin/perl", "(a or (b >= 2 with c))", "libz.so.1()(64bit) < 1:4"];
    let names: Vec<_> =
        wanted.iter().map(|text| if text.starts_with('(') { *text } else { first(text) }).collect();
    let flags = wanted.iter().map(|text| match text.split(' ').nth(1) {
        Some(">=") if !text.starts_with('(') => 12,
        Some("<") => 2,
        _ => 0,
    });
    let versions: Vec<_> = wanted
        .iter()
        .map(|text| if text.starts_with('(') { "" } else { text.split(' ').nth(2).unwrap_or_default() })
        .collect();
    let more = vec![
        (1047, texts(&["zz", "zz-devel"])),
        (1048, numbers(&flags.collect::<Vec<_>>())),
        (1049, texts(&names)),
        (1050, texts(&versions)),
        (1112, numbers(&[8, 0])),
        (1113, texts(&["3:1-1", ""])),
    ];
    let head = head_of(&Fake { epoch, more, ..Fake::new("zz", "1~rc", "1") }.bytes());
    let Head::Srpm { header, .. } = &head else { panic!("{head:?}") };
    let said: Vec<_> = header.relations.build_requires.iter().map(ToString::to_string).collect();
    assert_eq!(said, wanted, "the test's own header");
    head
}

fn first(text: &str) -> &str {
    text.split(' ').next().unwrap_or_default()
}

fn stamp(number: i64) -> Stamp {
    Stamp { file: (7, 11 + number as u64), size: 13, mtime: -17 - number, ctime: 19 }
}

fn heads() -> Vec<(BuildKey, Stamp, Head)> {
    let some = [
        ("a-1-1.src.rpm", head_of(&srpm("a"))),
        ("f43/a-1-1.src.rpm", head_of(&srpm("a"))),
        ("zz-1~rc-1.src.rpm", rich(Some(3))),
        ("f43/zz-1~rc-1.src.rpm", rich(None)),
    ];
    some.into_iter().zip(1..).map(|((path, head), number)| (key(path), stamp(number), head)).collect()
}

fn written(heads: &[(BuildKey, Stamp, Head)]) -> Vec<u8> {
    write(heads.iter().map(|(key, stamp, head)| (key, *stamp, head)))
}

#[test]
fn what_is_read_is_what_was_written() {
    let mut known = Known::parse(&written(&heads())).unwrap();
    assert_eq!(known.len(), 4);
    for (key, stamp, head) in heads() {
        // Devices may change their numbers.
        let stamp = Stamp { file: (99, stamp.file.1), ..stamp };
        assert_eq!(known.take(&key, stamp), Some(head), "{key}");
    }
    assert_eq!(known.len(), 0);
}

#[test]
fn what_looks_otherwise_is_not_known() {
    let (key, stamp, _) = heads().remove(0);
    let others = [
        Stamp { file: (7, 1), ..stamp },
        Stamp { size: 1, ..stamp },
        Stamp { mtime: 1, ..stamp },
        Stamp { ctime: 1, ..stamp },
    ];
    for other in others {
        let mut known = Known::parse(&written(&heads())).unwrap();
        assert_eq!(known.take(&key, other), None, "{other:?}");
    }
}

#[test]
fn what_is_damaged_counts_for_nothing() {
    let bytes = written(&heads());
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        assert!(Known::parse(&damaged).is_none(), "at byte {at}");
        assert!(Known::parse(&bytes[..at]).is_none(), "the first {at} bytes");
    }
    assert!(Known::parse(&[&bytes[..], b"x"].concat()).is_none());
}

proptest! {
    /// Even with the right digest: it was made for nobody to write there, and must do no harm.
    #[test]
    fn no_bytes_do_harm(changes in proptest::collection::vec((0_usize..10_000, any::<u8>()), 1..4)) {
        let mut bytes = written(&heads());
        let (_, body) = bytes.split_at_mut(40);
        for (at, byte) in changes {
            let at = at % body.len();
            body[at] = byte;
        }
        let digest = moji_proto::Sha256::of(body).0;
        bytes[8..40].copy_from_slice(&digest);
        let _ = Known::parse(&bytes);
    }
}

/// Makes an SRPM that was not written just now, and gives how it looks.
fn put_old(watched: &Watched, name: &str, bytes: &[u8]) -> Stamp {
    watched.put(name, bytes);
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    fs::File::options().write(true).open(watched.path(name)).unwrap().set_modified(long_ago).unwrap();
    read_srpm(&watched.path(""), &key(name)).unwrap().unwrap().0
}

async fn begin(headers: &Path, prepare: impl FnOnce(&Watched)) -> Watched {
    Watched::with(|config| config.headers = Some(headers.to_owned()), prepare).await
}

#[tokio::test(flavor = "multi_thread")]
async fn what_looks_as_it_did_is_not_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let headers = dir.path().join("headers");
    let mut watched = begin(&headers, |watched| {
        let stamp = put_old(watched, "a-1-1.src.rpm", &srpm("a"));
        put_old(watched, "b-1-1.src.rpm", &srpm("b"));
        // They say something else than the files, so that one sees who was asked.
        let (told, size) = (head_of(&srpm("told")), Some(srpm("a").len() as u64));
        let Head::Srpm { header, .. } = told else { panic!("{told:?}") };
        let told = Head::Srpm { header, size };
        let [a, b] = ["a-1-1.src.rpm", "b-1-1.src.rpm"].map(key);
        fs::write(&headers, write([(&a, stamp, &told), (&b, stamp, &told)])).unwrap();
    })
    .await;
    let mut names = Vec::new();
    for name in ["a-1-1.src.rpm", "b-1-1.src.rpm"] {
        names.push(watched.found(name).await.header.name);
    }
    assert_eq!(names, ["told", "b"]);
    watched.ready().await;
    // What comes now is read, whatever was known.
    watched.move_in("a-1-1.src.rpm", &srpm("a"));
    assert_eq!(watched.found("a-1-1.src.rpm").await.header.name, "a");
    watched.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_are_kept_for_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let headers = dir.path().join("headers");
    fs::write(&headers, b"damaged").unwrap();
    let mut stamp = None;
    let configure = |config: &mut crate::source::SourceConfig| {
        config.headers = Some(headers.clone());
        config.rescan = Duration::from_millis(200);
    };
    let mut watched =
        Watched::with(configure, |watched| stamp = Some(put_old(watched, "a-1-1.src.rpm", &srpm("a")))).await;
    watched.found("a-1-1.src.rpm").await;
    watched.ready().await;
    // Not before it is sure what is in it: it was changed a moment ago.
    let known = tokio::time::timeout(Duration::from_secs(20), async {
        loop {
            let mut known =
                fs::read(&headers).ok().and_then(|bytes| Known::parse(&bytes)).unwrap_or_default();
            if let Some(head) = known.take(&key("a-1-1.src.rpm"), stamp.unwrap()) {
                return head;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    assert_eq!(known.await.unwrap(), head_of(&srpm("a")));
    assert_eq!(fs::metadata(&headers).unwrap().permissions().mode() & 0o777, 0o600);
    watched.stop().await;
}
