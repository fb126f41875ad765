//! Submissions: what the server gets, and what the program makes of its answers.

use moji_proto::Sha256;
use moji_proto::operator::{FromOperator, Place, ToOperator};
use tokio::io::AsyncReadExt as _;

use crate::program::{PATIENCE, Scene, build, texts};
use crate::server::{Peer, received};

const NAME: &str = "zlib-1.3-1.src.rpm";

fn srpm(scene: &Scene) -> Vec<u8> {
    let bytes: Vec<u8> = (0..5_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    std::fs::write(scene.home.path().join(NAME), &bytes).unwrap();
    bytes
}

/// The next message, which must be a submission; its number.
async fn submitted(peer: &mut Peer, bytes: &[u8]) -> u32 {
    match peer.next().await {
        Some(FromOperator::Submit { request, srpm, target, size, sha256, place, .. }) => {
            assert_eq!((srpm.as_str(), size, sha256), (NAME, bytes.len() as u64, Sha256::of(bytes)));
            assert_eq!((target.unwrap().as_str(), place), ("f43", Some(Place::At(3))));
            request
        }
        other => panic!("a submission was expected, {other:?} came"),
    }
}

#[tokio::test]
async fn a_cut_upload_goes_on_where_it_was() {
    let scene = Scene::new().await;
    let bytes = srpm(&scene);
    let server = async {
        let mut peer = scene.accept().await;
        let request = submitted(&mut peer, &bytes).await;
        peer.out.send(&ToOperator::Wanted { request, offset: 0 }).unwrap();
        let (offset, mut stream) = peer.upload().await;
        assert_eq!(offset, 0);
        let mut all = received(&mut stream, 3_000_000).await;
        peer.cut();
        let mut peer = scene.accept().await;
        let request = submitted(&mut peer, &bytes).await;
        peer.out.send(&ToOperator::Wanted { request, offset: all.len() as u64 }).unwrap();
        let (offset, mut stream) = peer.upload().await;
        assert_eq!(offset, all.len() as u64);
        all.extend(received(&mut stream, usize::MAX).await);
        assert!(all == bytes, "{} bytes came of {}", all.len(), bytes.len());
        peer.done(request, NAME, true);
        peer.next().await;
    };
    let output = scene.run(&["submit", NAME, "--target", "f43", "--priority", "3"], server).await;
    let (code, out, err) = texts(&output);
    assert_eq!((code, out.as_str()), (Some(0), "zlib-1.3-1.src.rpm: a text [2J\n"), "{err}");
    let said: Vec<_> = err.lines().collect();
    assert!(said.len() == 3 && said[1].contains("trying again") && said[2].contains("going on at"), "{err}");
}

#[tokio::test]
async fn several_that_go_first_keep_their_order_and_leave_no_gap() {
    let scene = Scene::new().await;
    let names = ["c-1-1.src.rpm", "a-1-1.src.rpm", "b-1-1.src.rpm", "d-1-1.src.rpm"];
    for (priority, places) in [
        ("first", [Place::First, Place::At(2), Place::At(2), Place::At(3)]),
        ("7", [Place::At(7), Place::At(8), Place::At(8), Place::At(9)]),
        ("last", [Place::Last; 4]),
    ] {
        names.iter().for_each(|name| std::fs::write(scene.home.path().join(name), b"x").unwrap());
        let server = async {
            let mut peer = scene.accept().await;
            for (at, (name, wanted)) in names.into_iter().zip(places).enumerate() {
                let Some(FromOperator::Submit { request, srpm, place, .. }) = peer.next().await else {
                    panic!()
                };
                assert_eq!((srpm.as_str(), place), (name, Some(wanted)));
                match at {
                    1 => peer.out.send(&ToOperator::Refused { request, reason: "no".into() }).unwrap(),
                    _ => peer.done(request, name, true),
                }
            }
            peer.next().await;
        };
        let arguments = [&["submit", "--json", "--priority", priority][..], &names].concat();
        let (code, out, _) = texts(&scene.run(&arguments, server).await);
        let value: serde_json::Value = serde_json::from_str(&out).unwrap();
        let told: Vec<_> = value.as_array().unwrap().iter().map(|one| one["is_done"].clone()).collect();
        assert_eq!((code, told), (Some(4), [true, false, true, true].map(Into::into).to_vec()), "{out}");
    }
}

#[tokio::test]
async fn a_server_that_does_not_want_it_says_why_also_in_the_middle() {
    for is_begun in [false, true] {
        let scene = Scene::new().await;
        let bytes = srpm(&scene);
        let server = async {
            let mut peer = scene.accept().await;
            let request = submitted(&mut peer, &bytes).await;
            if is_begun {
                peer.out.send(&ToOperator::Wanted { request, offset: 0 }).unwrap();
                let (_, stream) = peer.upload().await;
                stream.unwanted().unwrap();
            }
            peer.out.send(&ToOperator::Refused { request, reason: "the disk\u{7} is full".into() }).unwrap();
            peer.next().await;
        };
        let output = scene.run(&["submit", NAME, "-t", "f43", "--priority", "3"], server).await;
        let (code, out, err) = texts(&output);
        assert!(
            code == Some(4) && out.is_empty() && err.contains("the disk  is full"),
            "{code:?} {out} {err}"
        );
    }
}

#[tokio::test]
async fn a_submission_that_waits_ends_with_what_became_of_it() {
    const ATTEMPT: &str = "0000000000c0ffee-1";
    for (state, code) in [("succeeded", 0), ("failed", 1), ("withdrawn", 1), ("held", 2), ("parked", 2)] {
        let scene = Scene::new().await;
        std::fs::write(scene.home.path().join(NAME), b"x").unwrap();
        let server = async {
            let mut peer = scene.accept().await;
            // The last build of that name is another one.
            let old = build("failed", ATTEMPT, "null").replace("\"id\":12", "\"id\":3");
            let mut found = [old.clone(), old, build("running", ATTEMPT, "null")].into_iter();
            let mut looked = 0;
            while let Some(asked) = peer.next().await {
                match asked {
                    FromOperator::Submit { request, .. } => peer.done(request, NAME, true),
                    FromOperator::Get { request, path } if path.starts_with("/api/v1/find") => {
                        assert_eq!(path, format!("/api/v1/find?build={NAME}"));
                        peer.answer(request, 200, &found.next().unwrap()).await;
                    }
                    FromOperator::Get { request, path } if path == "/events" => {
                        // Its end is a reason to look again, too.
                        peer.answer(request, 200, "").await;
                    }
                    FromOperator::Get { request, path } => {
                        assert_eq!(path, "/api/v1/builds/12");
                        looked += 1;
                        let build = build(state, ATTEMPT, "\"a reason\"");
                        let detail = format!(
                            r#"{{"build":{build},"size":1,"sha256":null,"attempts":[],"artifacts":[],"folder":null,"excerpt":null}}"#
                        );
                        peer.answer(request, 200, &detail).await;
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert_eq!(looked, 1);
        };
        let output = scene.run(&["submit", "--wait", NAME], server).await;
        let (ended, out, err) = texts(&output);
        assert_eq!(ended, Some(code), "{state}: {out} {err}");
        assert!(out.contains("zlib-1.3-1: running on board-7\n"), "{out}");
        assert!(
            out.contains(&format!("zlib-1.3-1: {state} on board-7")) && out.contains("a reason"),
            "{out}"
        );
    }
}

#[tokio::test]
async fn nothing_is_sent_when_one_file_is_wrong() {
    let scene = Scene::new().await;
    srpm(&scene);
    let (code, _, err) = texts(&scene.run(&["submit", NAME, "gone-1-1.src.rpm"], async {}).await);
    assert!(code == Some(64) && err.contains("gone-1-1.src.rpm"), "{code:?} {err}");
}

#[tokio::test]
async fn a_terminal_sees_how_far_it_is() {
    let scene = Scene::new().await;
    let bytes = srpm(&scene);
    let (seen, was_seen) = tokio::sync::oneshot::channel();
    let server = async {
        let mut peer = scene.accept().await;
        let request = submitted(&mut peer, &bytes).await;
        peer.out.send(&ToOperator::Wanted { request, offset: 1_000_000 }).unwrap();
        let (_, mut stream) = peer.upload().await;
        received(&mut stream, 2_000_000).await;
        was_seen.await.unwrap();
        received(&mut stream, usize::MAX).await;
        peer.done(request, NAME, true);
        peer.next().await;
    };
    let program = format!(
        "stty cols 100; {} --plaintext submit {NAME} -t f43 --priority 3",
        env!("CARGO_BIN_EXE_moji")
    );
    let mut script = tokio::process::Command::new("script");
    script.args(["-qec", &program, "/dev/null"]).current_dir(scene.home.path()).kill_on_drop(true);
    script.env("MOJI_SERVER", scene.address()).env("XDG_CONFIG_HOME", scene.home.path()).env("TERM", "xterm");
    script.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
    let mut child = script.spawn().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let looking = async {
        let (mut out, mut seen) = (Vec::new(), Some(seen));
        while stdout.read_buf(&mut out).await.unwrap() > 0 {
            if String::from_utf8_lossy(&out).contains("==")
                && let Some(seen) = seen.take()
            {
                seen.send(()).unwrap();
            }
        }
        String::from_utf8(out).unwrap()
    };
    let both = async { tokio::join!(looking, server) };
    let (out, ()) = tokio::time::timeout(PATIENCE, both).await.expect("the bar moves, and it ends");
    assert!(child.wait().await.unwrap().success(), "{out}");
    for part in [NAME, "MiB/4.77 MiB", "/s", "a text [2J"] {
        assert!(out.contains(part), "{part} is not in {out:?}");
    }
}
