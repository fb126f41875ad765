//! Names that would be files where no file may be.

use moji_proto::frame::{self, Kind};
use moji_proto::{AttemptId, ManifestEntry, Outcome, Registration, Resources, Sha256, ToServer, encoding};
use moji_tests::support::simulated::{Peer, ScriptedBuilder, manifest};
use serde::Serialize;

use crate::Result;
use crate::scene::{PASSWORD, Scene, is_closed};

/// The message that lists one file, with a name that the types would refuse: number 5 of `ToServer`.
fn listing(attempt: AttemptId, name: &[u8]) -> anyhow::Result<Vec<u8>> {
    let entry = (name.to_vec(), 2u64, Sha256::of(b"ab"));
    Ok(encoding::encode(&(5u32, attempt, vec![entry]))?)
}

/// With each name: a lease, a delivery that lists it, and the end of the connection.
async fn all_refused(scene: &mut Scene, names: &[&[u8]]) -> Result {
    // The bytes are those of the real message, but for the name.
    let attempt = AttemptId { boot: 7, serial: 8 };
    let entries: Vec<ManifestEntry> = manifest(&[("fine.log", b"ab")])?;
    let real = encoding::encode(&ToServer::Manifest { attempt, entries })?;
    assert_eq!(listing(attempt, b"fine.log")?, real);
    for name in names {
        let shown = String::from_utf8_lossy(name).into_owned();
        let (mut liar, assignment) = scene.leased().await?;
        let attempt = assignment.attempt;
        liar.say(ToServer::Deliver { attempt, outcome: Outcome::Succeeded, files: 1, bytes: 2 }).await?;
        liar.raw(&frame::encode(Kind::Control, &listing(attempt, name)?)).await?;
        let heard = is_closed(liar).await?;
        assert!(!heard.iter().any(|word| matches!(word, moji_proto::ToBuilder::Wanted { .. })), "{shown:?}");
    }
    Ok(())
}

pub(crate) async fn traversal_absolute_and_device_names(scene: &mut Scene) -> Result {
    let names: [&[u8]; 14] = [
        b"../../../../repo/f43/published-1-1/published-1-1.noarch.rpm",
        b"../lease.json",
        b"..",
        b".",
        b"",
        b"/etc/cron.d/evil.log",
        b"/dev/null",
        b"a/../../x.log",
        b"results/x.log",
        b"..\\..\\x.log",
        b"C:\\x.log/",
        b"CON",
        b"NUL",
        b".hidden.log",
    ];
    all_refused(scene, &names).await
}

pub(crate) async fn control_and_bidi_characters(scene: &mut Scene) -> Result {
    let names = [
        "a\0b.log",
        "a\nb.log",
        "a\rb.log",
        "\u{1b}[2J\u{1b}]0;owned\u{7}.log",
        "\u{9b}31m.log",
        "gpl\u{202e}gol.log",
        "a\u{200b}.log",
        "a\u{2066}.log",
        "\u{feff}.log",
        "a\u{7f}.log",
    ];
    all_refused(scene, &names.map(str::as_bytes)).await
}

pub(crate) async fn reserved_and_unknown_kinds(scene: &mut Scene) -> Result {
    let names: [&[u8]; 8] = [
        b"build.json",
        b"repomd.xml",
        b"index.html",
        b"lib.so",
        b".htaccess",
        b"-rf.log",
        b"x.rpm.part",
        b"cgi",
    ];
    all_refused(scene, &names).await
}

pub(crate) async fn too_long_and_not_even_text(scene: &mut Scene) -> Result {
    let long = [&b"x".repeat(252)[..], b".log"].concat();
    let longer = [&b"x".repeat(60_000)[..], b".log"].concat();
    all_refused(
        scene,
        &[&long, &longer, b"\xff\xfe.log", b"\xc0\xae\xc0\xae\xc0\xaf.log", b"\xed\xa0\x80.log"],
    )
    .await
}

/// A `Registration` whose names are any text.
#[derive(Serialize)]
struct Raw<'a> {
    name: &'a str,
    targets: Vec<&'a str>,
    slots: u16,
    arch: &'a str,
    software: &'a str,
    resources: Resources,
    tags: Vec<&'a str>,
}

pub(crate) async fn hostile_names_of_builders_and_targets(scene: &mut Scene) -> Result {
    let raw = |name, target, tag| {
        let raw = Raw {
            name,
            targets: vec![target],
            slots: 1,
            arch: "a",
            software: "b",
            resources: Resources::default(),
            tags: vec![tag],
        };
        encoding::encode(&(0u32, raw))
    };
    let real = Registration {
        name: "liar".parse()?,
        targets: vec!["den".parse()?],
        slots: 1,
        arch: "a".into(),
        software: "b".into(),
        resources: Resources::default(),
        tags: vec!["big".parse()?],
    };
    assert_eq!(raw("liar", "den", "big")?, encoding::encode(&ToServer::Register(real))?);
    let hostile =
        ["..", "../x", "/", "a/b", ".moji", "", "a b", "\u{1b}[31m", "<b>", "a\nb", "-x", "ä", "{{7*7}}"];
    for name in hostile {
        for (builder, target, tag) in [(name, "den", "big"), ("liar", name, "big"), ("liar", "den", name)] {
            let mut peer: ScriptedBuilder = Peer::new(scene.server.connect()?);
            peer.shake_hands(Some(PASSWORD)).await?;
            peer.raw(&frame::encode(Kind::Control, &raw(builder, target, tag)?)).await?;
            let answer = peer.frame().await;
            assert!(answer.is_err() || answer.is_ok_and(|frame| frame.kind == Kind::Refusal), "{name:?}");
        }
    }
    Ok(())
}
