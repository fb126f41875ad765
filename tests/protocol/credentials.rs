//! Named credentials: what they let in, what they keep apart, and what becomes of builders whose
//! credential ends while they work.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use moji_proto::frame::Kind;
use moji_proto::handshake::{Binding, PLAINTEXT, Refusal, RefusalCode};
use moji_proto::{
    AttemptId, CredentialName, FailureKind, HeldAttempt, LogFile, Outcome, Phase, Sha256, ToBuilder,
    ToServer, Token,
};
use moji_server::access::credentials::{Credential, Role};
use moji_tests::support::credentials;
use moji_tests::support::processes::let_pass;
use moji_tests::support::simulated::{
    Peer, ScriptedBuilder, Site, TestServer, Who, built, manifest, registration, srpm,
};
use moji_tests::support::tls;
use tokio::io::DuplexStream;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};

use super::Result;
use super::returning::{Given, answer, deliver, lease, published, resume};

const PASSWORD: &str = "correct horse";

/// A server with two builders' credentials, and a password.
struct Lab {
    server: TestServer,
    is_plaintext: bool,
    board: Token,
    laptop: Token,
}

impl Lab {
    /// With TLS, and these SRPMs.
    fn new(names: &[&str]) -> anyhow::Result<Self> {
        Self::speaking(false, names)
    }

    fn speaking(is_plaintext: bool, names: &[&str]) -> anyhow::Result<Self> {
        let site = Site::new()?;
        for name in names {
            site.put_srpm(name)?;
        }
        let private = site.folders.private();
        let board = credentials::give(&private, "board", |_| {})?;
        let laptop = credentials::give(&private, "laptop", |_| {})?;
        Ok(Self { server: Self::serve(site, is_plaintext), is_plaintext, board, laptop })
    }

    fn serve(site: Site, is_plaintext: bool) -> TestServer {
        TestServer::start(site, |config| {
            config.plaintext = is_plaintext;
            config.password = Some(PASSWORD.into());
        })
    }

    /// The next server over the same folders.
    async fn restarted(self) -> anyhow::Result<Self> {
        let Self { server, is_plaintext, board, laptop } = self;
        let site = server.stop().await?;
        Ok(Self { server: Self::serve(site, is_plaintext), is_plaintext, board, laptop })
    }

    fn site(&self) -> &Site {
        &self.server.site
    }

    fn give(&self, name: &str, adjust: impl FnOnce(&mut Credential)) -> anyhow::Result<Token> {
        credentials::give(&self.site().folders.private(), name, adjust)
    }

    fn change(&self, name: &CredentialName, change: impl FnOnce(&mut Credential)) -> Result {
        credentials::change(&self.site().folders.private(), name, change)
    }

    fn revoke(&self, name: &CredentialName) -> Result {
        self.change(name, |credential| credential.revoked = Some(Timestamp::now()))
    }

    /// A connection on which nothing was said yet, and what ties proofs to it.
    async fn connect(&self) -> anyhow::Result<(DuplexStream, Binding)> {
        let io = self.server.connect()?;
        if self.is_plaintext { Ok((io, PLAINTEXT)) } else { tls::within(io).await }
    }

    async fn enter(&self, who: Who<'_>, name: &str, targets: &[&str]) -> anyhow::Result<ScriptedBuilder> {
        let (io, binding) = self.connect().await?;
        Peer::enter_as(io, registration(name, targets, 1)?, who, binding).await
    }

    /// A builder for `f43`.
    async fn builder(&self, token: &Token, name: &str) -> anyhow::Result<ScriptedBuilder> {
        self.enter(Who::Token(token), name, &["f43"]).await
    }

    /// Why somebody is not let in.
    async fn refusal(&self, who: Who<'_>, name: &str, targets: &[&str]) -> anyhow::Result<Refusal> {
        let entered = self.enter(who, name, targets).await;
        entered.expect_err("let in").downcast()
    }

    /// Every file of the farm but those of one attempt, of what a change of credentials changes, and of the
    /// metadata and the report, which are made anew at any time.
    fn everything_but(&self, attempt: AttemptId) -> anyhow::Result<BTreeMap<PathBuf, Sha256>> {
        let private = self.site().folders.private();
        let mut files = BTreeMap::new();
        let apart = [self.site().folders.attempt(attempt), self.site().folders.metadata_private()];
        digests(self.site().path(), &apart, &mut files)?;
        let is_apart = |path: &Path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let of_the_farm = ["credentials", "history", "campaign"].iter().any(|of| name.starts_with(of));
            path.parent() == Some(&private) && of_the_farm || name.starts_with("report.")
        };
        files.retain(|path, _| !is_apart(path));
        Ok(files)
    }
}

fn digests(folder: &Path, except: &[PathBuf], files: &mut BTreeMap<PathBuf, Sha256>) -> Result {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if except.contains(&path) {
            continue;
        }
        if path.is_dir() {
            digests(&path, except, files)?;
        } else {
            files.insert(path.clone(), Sha256::of(&fs::read(&path)?));
        }
    }
    Ok(())
}

/// Says that it works on this attempt, and is answered.
async fn is_served(builder: &mut ScriptedBuilder, attempts: &[AttemptId]) -> Result {
    let attempts = attempts.iter().map(|attempt| (*attempt, Phase::Building)).collect();
    builder.say(ToServer::Heartbeat { disk: None, attempts }).await?;
    assert_eq!(builder.hear().await?, ToBuilder::HeartbeatSeen);
    Ok(())
}

fn builder_of(site: &Site, nvr: &str) -> String {
    let attempt = site.record(nvr).and_then(|record| record.attempt);
    attempt.expect("no record").builder.to_string()
}

/// What a builder has of its upload when its credential ends.
struct Torn {
    lab: Lab,
    builder: ScriptedBuilder,
    given: Given,
    part: PathBuf,
    others: BTreeMap<PathBuf, Sha256>,
}

const SENT: usize = 400_000;

/// A builder in the middle of an upload.
async fn uploading(is_plaintext: bool) -> anyhow::Result<Torn> {
    let lab = Lab::speaking(is_plaintext, &["torn"])?;
    let mut builder = lab.builder(&lab.board, "first").await?;
    let given = lease(&mut builder).await?;
    let content = built("torn", &[7; 600_000]);
    let listed = manifest(&[("torn-1-1.src.rpm", &content)])?;
    builder.deliver_open(given.attempt, Outcome::Succeeded, &listed, &content[..SENT]).await?;
    let part = lab.site().folders.attempt(given.attempt).join("results/torn-1-1.src.rpm");
    let is_there = || part.metadata().is_ok_and(|data| data.len() == SENT as u64);
    lab.server.until("a part of the upload", |_| is_there()).await?;
    let others = lab.everything_but(given.attempt)?;
    Ok(Torn { lab, builder, given, part, others })
}

impl Torn {
    /// Its connection ends within a second, and nothing of it is left but what was staged; the SRPM
    /// goes to another.
    async fn ends(self, says: &str) -> Result {
        let Self { lab, mut builder, given, part, others } = self;
        let since = Instant::now();
        let heard = builder.to_the_end().await;
        assert!(since.elapsed() <= Duration::from_millis(1_050), "{:?}", since.elapsed());
        let is_told = matches!(heard.last(), Some(ToBuilder::Goodbye { reason }) if reason.contains(says));
        assert!(is_told, "{heard:?}");
        // What it says now goes nowhere.
        let _ = builder.data(1, &[7; 1000]).await;
        let refusal = lab.refusal(Who::Token(&lab.board), "first", &["f43"]).await?;
        assert_eq!(refusal.code, Some(RefusalCode::Revoked));
        assert!(refusal.reason.contains(says), "{refusal}");
        sleep(Duration::from_secs(5)).await;
        assert_eq!(lab.site().working(), ["torn-1-1.src.rpm"], "the lease waits for its grace");
        assert_eq!(part.metadata()?.len(), SENT as u64);
        assert_eq!(lab.everything_but(given.attempt)?, others, "it has left something elsewhere");

        let mut other = lab.builder(&lab.laptop, "second").await?;
        let again = lease(&mut other).await?;
        assert!((10..=13).contains(&since.elapsed().as_secs()), "{:?}", since.elapsed());
        assert_ne!(again.attempt, given.attempt);
        deliver(&mut other, &again, b"built").await?;
        assert_eq!(other.word().await?, ToBuilder::Accepted { attempt: again.attempt });
        assert_eq!(published(lab.site(), "torn-1-1"), Some(again.attempt));
        assert_eq!(builder_of(lab.site(), "torn-1-1"), "laptop/second");
        assert_eq!(lab.site().published("torn-1-1"), ["build.json", "torn-1-1.src.rpm"]);
        lab.server.until("nothing is staged", |site| site.staged().is_empty()).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_is_revoked_in_the_middle_of_an_upload() -> Result {
    for is_plaintext in [false, true] {
        let torn = uploading(is_plaintext).await?;
        torn.lab.revoke(&torn.lab.board.name)?;
        torn.ends("the credential board was revoked").await?;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_credential_that_expires_in_the_middle_of_an_upload() -> Result {
    let mut torn = uploading(false).await?;
    let expires = Timestamp::now() + Duration::from_millis(1_500);
    torn.lab.change(&torn.lab.board.name, |credential| credential.expires = Some(expires))?;
    // The server has seen the change.
    sleep(Duration::from_secs(2)).await;
    is_served(&mut torn.builder, &[torn.given.attempt]).await?;
    // That time is over says the real clock. tokio's stands still meanwhile.
    spawn_blocking(move || {
        while Timestamp::now() <= expires {
            let_pass(Duration::from_millis(5));
        }
    })
    .await?;
    torn.ends("the credential board has expired").await
}

/// Between proof and registration too.
#[tokio::test(start_paused = true)]
async fn a_credential_that_is_revoked_at_the_door() -> Result {
    let lab = Lab::new(&["waits"])?;
    let (io, binding) = lab.connect().await?;
    let mut peer: ScriptedBuilder = Peer::new(io);
    peer.introduce(Who::Token(&lab.board), binding).await?;
    lab.revoke(&lab.board.name)?;
    sleep(Duration::from_secs(3)).await;
    peer.say(ToServer::Register(registration("late", &["f43"], 1)?)).await?;
    let frame = peer.frame().await?;
    assert_eq!(frame.kind, Kind::Refusal);
    let refusal = Refusal::decode(frame.body);
    assert_eq!(refusal.code, Some(RefusalCode::Revoked), "{refusal}");
    assert!(refusal.reason.contains("the credential board was revoked"), "{refusal}");
    assert!(peer.frame().await.is_err());
    Ok(())
}

/// Its owner's key is another one then, and whoever has the old one has nothing.
#[tokio::test(start_paused = true)]
async fn a_name_that_was_given_to_another_ends_the_sessions_of_the_one_before() -> Result {
    let lab = Lab::new(&[])?;
    let mut builder = lab.builder(&lab.board, "first").await?;
    is_served(&mut builder, &[]).await?;
    lab.revoke(&lab.board.name)?;
    let new = lab.give("board", |_| {})?;
    let heard = builder.to_the_end().await;
    assert!(
        matches!(&heard[..], [ToBuilder::Goodbye { reason }] if reason.contains("was revoked")),
        "{heard:?}"
    );
    // It may have looked when the name was not given out again yet.
    sleep(Duration::from_secs(2)).await;
    let refusal = lab.refusal(Who::Token(&lab.board), "first", &["f43"]).await?;
    assert_eq!(refusal.code, Some(RefusalCode::WrongProof), "{refusal}");
    is_served(&mut lab.builder(&new, "first").await?, &[]).await
}

#[tokio::test(start_paused = true)]
async fn what_becomes_of_one_credential_does_not_touch_others() -> Result {
    let lab = Lab::new(&["kept"])?;
    let mut board = lab.builder(&lab.board, "first").await?;
    let mut with_password = lab.enter(Who::Password(PASSWORD), "old", &["f43"]).await?;
    let given = lease(&mut board).await?;
    lab.give("newcomer", |credential| credential.expires = Some(Timestamp::now()))?;
    lab.revoke(&lab.laptop.name)?;
    sleep(Duration::from_secs(3)).await;
    is_served(&mut with_password, &[]).await?;
    is_served(&mut board, &[given.attempt]).await?;
    deliver(&mut board, &given, b"built").await?;
    assert_eq!(board.word().await?, ToBuilder::Accepted { attempt: given.attempt });
    Ok(())
}

/// What somebody could say about another's attempt.
fn meddling(attempt: AttemptId) -> [ToServer; 5] {
    let failed = Outcome::failed(FailureKind::Package, "no", Some(1), Vec::new());
    [
        ToServer::Log { attempt, file: LogFile::Build, offset: 0, stream: 1 },
        ToServer::Deliver { attempt, outcome: Outcome::Succeeded, files: 1, bytes: 1 },
        ToServer::Deliver { attempt, outcome: failed, files: 0, bytes: 0 },
        ToServer::Upload { attempt, offset: 0, stream: 2 },
        ToServer::Release { attempt, reason: "not wanted".into(), trouble: true },
    ]
}

/// It may call itself what it likes: what is another credential's stays that one's.
#[tokio::test(start_paused = true)]
async fn the_same_name_under_another_credential_gets_nothing_of_the_first_one() -> Result {
    let lab = Lab::new(&["mine"])?;
    let mut board = lab.builder(&lab.board, "first").await?;
    let given = lease(&mut board).await?;
    is_served(&mut board, &[given.attempt]).await?;
    let attempt = given.attempt;
    let record = lab.site().folders.attempt(attempt).join("lease.json");
    let digest = given.held.sha256.to_string();
    let is_complete = || fs::read_to_string(&record).is_ok_and(|json| json.contains(&digest));
    lab.server.until("the lease is written down", |_| is_complete()).await?;
    let everything = lab.everything_but(AttemptId { boot: 0, serial: 0 })?;
    for who in [Who::Token(&lab.laptop), Who::Password(PASSWORD)] {
        let mut namesake = lab.enter(who, "first", &["f43"]).await?;
        assert_eq!(answer(&mut namesake, given.held.clone()).await?, ToBuilder::Stale { attempt });
        is_served(&mut namesake, &[attempt]).await?;
        for message in meddling(attempt) {
            let said = format!("{message:?}");
            // This one is not even answered.
            let entries = manifest(&[("x.log", b"x")])?;
            namesake.say(ToServer::Manifest { attempt, entries }).await?;
            namesake.say(message).await?;
            assert_eq!(namesake.word().await?, ToBuilder::Stale { attempt }, "{said}");
        }
        // Nobody was put out by it, and nothing has changed.
        is_served(&mut board, &[attempt]).await?;
        assert_eq!(lab.everything_but(AttemptId { boot: 0, serial: 0 })?, everything);
    }
    deliver(&mut board, &given, b"built").await?;
    assert_eq!(board.word().await?, ToBuilder::Accepted { attempt });
    assert_eq!(builder_of(lab.site(), "mine-1-1"), "board/first");
    // Not even that it was published is told.
    let mut namesake = lab.builder(&lab.laptop, "first").await?;
    assert_eq!(answer(&mut namesake, given.held.clone()).await?, ToBuilder::Stale { attempt });
    Ok(())
}

/// When the first one is away: in its grace, when its SRPM waits again, and after a restart of the server.
#[tokio::test(start_paused = true)]
async fn the_same_name_under_another_credential_takes_up_nothing_either() -> Result {
    let mut lab = Lab::new(&["away"])?;
    let mut board = lab.builder(&lab.board, "first").await?;
    let given = lease(&mut board).await?;
    is_served(&mut board, &[given.attempt]).await?;
    let stale = ToBuilder::Stale { attempt: given.attempt };
    drop(board);
    for round in ["in its grace", "queued again", "restarted"] {
        match round {
            "queued again" => lab.server.until(round, |site| site.source().len() == 1).await?,
            "restarted" => lab = lab.restarted().await?,
            _ => {}
        }
        for who in [Who::Token(&lab.laptop), Who::Password(PASSWORD)] {
            let mut namesake = lab.enter(who, "first", &["f43"]).await?;
            assert_eq!(answer(&mut namesake, given.held.clone()).await?, stale, "{round}: {who:?}");
        }
        let mut board = lab.builder(&lab.board, "first").await?;
        resume(&mut board, &given).await?;
        is_served(&mut board, &[given.attempt]).await?;
        if round == "restarted" {
            deliver(&mut board, &given, b"built").await?;
            assert_eq!(board.word().await?, ToBuilder::Accepted { attempt: given.attempt });
        }
    }
    assert_eq!(builder_of(lab.site(), "away-1-1"), "board/first");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn two_credentials_with_the_same_builder_name_are_two_builders() -> Result {
    let lab = Lab::new(&["one", "two", "three"])?;
    let mut builders = vec![
        lab.builder(&lab.board, "same").await?,
        lab.builder(&lab.laptop, "same").await?,
        lab.enter(Who::Password(PASSWORD), "same", &["f43"]).await?,
    ];
    let mut given = Vec::new();
    for builder in &mut builders {
        given.push(lease(builder).await?);
    }
    for (builder, given) in builders.iter_mut().zip(&given) {
        is_served(builder, &[given.attempt]).await?;
        deliver(builder, given, b"built").await?;
        assert_eq!(builder.word().await?, ToBuilder::Accepted { attempt: given.attempt });
    }
    let names: Vec<_> = given
        .iter()
        .map(|given| builder_of(lab.site(), given.held.srpm.as_str().trim_end_matches(".src.rpm")))
        .collect();
    assert_eq!(names, ["board/same", "laptop/same", "same"]);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn only_a_builders_credential_registers_and_for_its_targets_only() -> Result {
    let lab = Lab::new(&["waits"])?;
    for (name, role) in [("reader", Role::Submitter), ("boss", Role::Admin)] {
        let token = lab.give(name, |credential| credential.role = role)?;
        sleep(Duration::from_secs(2)).await;
        let refusal = lab.refusal(Who::Token(&token), "first", &["f43"]).await?;
        assert_eq!(refusal.code, Some(RefusalCode::Registration));
        let says =
            format!("the credential {name} has the role {role}: a builder needs one with the role builder");
        assert_eq!(refusal.reason, says);
    }
    let limited = lab.give("limited", |credential| {
        credential.targets = ["f42", "f43"].map(|target| target.parse().expect("a name")).to_vec();
    })?;
    sleep(Duration::from_secs(2)).await;
    for targets in [&["f44"][..], &["f43", "f44"], &["f43x"], &["f43", "f4"]] {
        let refusal = lab.refusal(Who::Token(&limited), "first", targets).await?;
        assert_eq!(refusal.code, Some(RefusalCode::Registration));
        let says =
            format!("the credential limited is not for {}, but for f42, f43", targets[targets.len() - 1]);
        assert_eq!(refusal.reason, says);
    }
    assert_eq!(lab.site().source(), ["waits-1-1.src.rpm"], "somebody got work");
    let mut builder = lab.builder(&limited, "first").await?;
    assert_eq!(lease(&mut builder).await?.held.srpm.as_str(), "waits-1-1.src.rpm");
    Ok(())
}

/// By saying that it holds what it was never given, a builder must not get at what it may not build.
#[tokio::test(start_paused = true)]
async fn nobody_holds_attempts_for_targets_that_his_credential_is_not_for() -> Result {
    let lab = Lab::new(&["any"])?;
    let aimed = srpm("aimed", "1", "1", 900);
    lab.site().put("f44/aimed-1-1.src.rpm", &aimed)?;
    let any = srpm("any", "1", "1", 3_000);
    let limited = lab.give("limited", |credential| {
        credential.targets = vec!["f43".parse().expect("a name")];
    })?;
    sleep(Duration::from_secs(5)).await;
    let mut builder = lab.builder(&limited, "first").await?;
    let held = |serial, target: &str, name: &str, bytes: &[u8]| {
        let attempt = AttemptId { boot: 17, serial };
        let (target, srpm) = (target.parse()?, format!("{name}-1-1.src.rpm").parse()?);
        let phase = Phase::Delivering;
        anyhow::Ok(HeldAttempt { attempt, target, srpm, sha256: Sha256::of(bytes), slot: None, phase })
    };
    for held in [held(1, "f44", "aimed", &aimed)?, held(2, "f44", "any", &any)?] {
        let attempt = held.attempt;
        assert_eq!(answer(&mut builder, held).await?, ToBuilder::Stale { attempt });
    }
    assert_eq!(lab.site().working(), Vec::<String>::new());
    // Nor what it may build, when nobody has given it.
    let held = held(3, "f43", "any", &any)?;
    let attempt = held.attempt;
    assert_eq!(answer(&mut builder, held).await?, ToBuilder::Stale { attempt });
    assert_eq!(lab.site().working(), Vec::<String>::new());
    Ok(())
}

/// What becomes of somebody who has no token of a name that he gives: what he hears, but for the name,
/// and when.
async fn stranger(lab: &Lab, name: &str) -> anyhow::Result<(String, Duration)> {
    let token = Token {
        name: name.parse()?,
        seed: moji_proto::signing::Seed::new([0x99; 32]),
        server: lab.board.server,
    };
    let begun = Instant::now();
    let (io, binding) = lab.connect().await?;
    let mut peer: ScriptedBuilder = Peer::new(io);
    let refusal: Refusal =
        peer.introduce(Who::Token(&token), binding).await.expect_err("let in").downcast()?;
    let elapsed = begun.elapsed();
    assert!(peer.frame().await.is_err(), "more than one refusal");
    Ok((format!("{:?} {}", refusal.code, refusal.reason.replace(name, "NAME")), elapsed))
}

#[tokio::test(start_paused = true)]
async fn a_stranger_does_not_learn_which_credentials_there_are() -> Result {
    let lab = Lab::new(&[])?;
    lab.give("expired", |credential| credential.expires = Some(Timestamp::now()))?;
    lab.give("another", |credential| credential.role = Role::Admin)?;
    lab.revoke(&lab.laptop.name)?;
    sleep(Duration::from_secs(2)).await;
    let (unknown, took) = stranger(&lab, "nobody").await?;
    assert!(unknown.starts_with("Some(WrongProof)"), "{unknown}");
    assert!(took >= Duration::from_secs(1), "guessing is quick: {took:?}");
    for name in ["board", "laptop", "expired", "another"] {
        let (heard, after) = stranger(&lab, name).await?;
        assert_eq!(heard, unknown, "{name}");
        assert_eq!(after.as_millis(), took.as_millis(), "{name}");
    }
    // Whoever had the token is told.
    let refusal = lab.refusal(Who::Token(&lab.laptop), "first", &["f43"]).await?;
    assert_eq!(refusal.code, Some(RefusalCode::Revoked));
    assert!(refusal.reason.contains("laptop was revoked at"), "{refusal}");
    Ok(())
}

/// An operator who revokes a credential may know something. One that has expired was good when it delivered.
#[tokio::test(start_paused = true)]
async fn what_waits_to_be_published_when_its_credential_is_revoked_is_not() -> Result {
    for is_revoked in [true, false] {
        let lab = Lab::new(&[])?;
        let site = lab.site();
        site.put("f43/late-1-1.src.rpm", &srpm("late", "1", "1", 300))?;
        // Where the repository is to be: nothing can be published yet.
        let in_the_way = site.folders.repo.join("f43");
        fs::write(&in_the_way, "in the way")?;
        let mut builder = lab.builder(&lab.board, "board").await?;
        let attempt = builder.lease(0).await?.attempt;
        let files = [("late-1-1.src.rpm", &built("late", b"built")[..])];
        builder.deliver(attempt, Outcome::Succeeded, &files).await?;
        let end = |credential: &mut Credential| match is_revoked {
            true => credential.revoked = Some(Timestamp::now()),
            false => credential.expires = Some(Timestamp::now()),
        };
        lab.change(&lab.board.name, end)?;
        let heard = builder.to_the_end().await;
        assert!(matches!(heard[..], [ToBuilder::Goodbye { .. }]), "{heard:?}");
        assert_eq!(site.working(), ["f43/late-1-1.src.rpm"]);
        fs::remove_file(&in_the_way)?;
        let quarantine = site.folders.private().join("quarantine").join(attempt.to_string());
        if is_revoked {
            lab.server.until("it is queued again", |site| site.source() == ["f43/late-1-1.src.rpm"]).await?;
            let record = moji_server::quarantine::record_of(&quarantine).expect("it is not in quarantine");
            assert!(record.reason.contains("board was revoked"), "{}", record.reason);
            assert_eq!(site.published("f43"), Vec::<String>::new());
        } else {
            lab.server.until("it is published", |site| !site.published("f43/late-1-1").is_empty()).await?;
            assert!(!quarantine.exists());
        }
    }
    Ok(())
}
