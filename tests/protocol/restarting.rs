//! The server ends and another one begins: nothing is lost, nothing is handed out twice.

use std::fs;
use std::path::Path;
use std::time::Duration;

use moji_proto::{AttemptId, HeldAttempt, LogFile, Sha256, ToBuilder, ToServer};
use moji_server::fsck;
use moji_tests::support::simulated::{ScriptedBuilder, Site, TestServer, srpm};
use tokio::time::{Instant, sleep, timeout};

use super::Result;
use super::returning::{
    Given, answer, cut_upload, deliver, lease, leased, log, published, rest_of_upload, resume, server,
};

fn patient(config: &mut moji_server::run::Config) {
    config.dead_after = Duration::from_secs(3600);
}

async fn restart(server: TestServer) -> anyhow::Result<TestServer> {
    Ok(TestServer::start(server.stop().await?, patient))
}

#[tokio::test(start_paused = true)]
async fn a_stopping_server_says_goodbye_and_the_next_one_waits_for_its_builders() -> Result {
    let (server, mut builder, given) = leased(&["running"], patient).await?;
    log(&server, &mut builder, given.attempt, 0, "begun ").await?;
    server.shutdown.cancel();
    let heard = builder.to_the_end().await;
    assert!(matches!(&heard[..], [ToBuilder::Goodbye { .. }]), "{heard:?}");
    let server = restart(server).await?;
    assert_eq!((server.site.source(), server.site.working()), (vec![], vec!["running-1-1.src.rpm".into()]));
    let mut idle = server.builder("idle", &["f43"], 1).await?;
    idle.ask(0).await?;
    assert!(timeout(Duration::from_secs(55), idle.word()).await.is_err(), "handed out twice");
    let mut builder = server.builder("first", &["f43"], 1).await?;
    assert_eq!(resume(&mut builder, &given).await?, [(LogFile::Build, 6)]);
    assert!(timeout(Duration::from_secs(300), idle.word()).await.is_err(), "handed out twice");
    deliver(&mut builder, &given, b"built").await?;
    assert_eq!(builder.word().await?, ToBuilder::Accepted { attempt: given.attempt });
    let record = server.site.record("running-1-1").and_then(|record| record.attempt).expect("no record");
    assert_eq!((record.id, record.srpm_sha256), (given.attempt, Some(given.held.sha256)));
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn without_grace_a_stop_is_still_no_loss() -> Result {
    let no_grace = |config: &mut moji_server::run::Config| config.grace = Duration::ZERO;
    let (server, _builder, given) = leased(&["hasty"], no_grace).await?;
    let site = server.stop().await?;
    assert_eq!((site.source(), site.working()), (vec![], vec!["hasty-1-1.src.rpm".into()]));
    let server = TestServer::start(site, no_grace);
    let mut builder = server.builder("first", &["f43"], 1).await?;
    resume(&mut builder, &given).await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn when_nobody_comes_the_srpm_is_queued_after_a_while() -> Result {
    let (server, builder, given) = leased(&["abandoned"], patient).await?;
    drop(builder);
    let server = restart(server).await?;
    let begun = Instant::now();
    let mut other = server.builder("second", &["f43"], 1).await?;
    let again = lease(&mut other).await?;
    assert_eq!(begun.elapsed().as_secs(), 60);
    assert_ne!(again.attempt, given.attempt);
    // And when it comes after all, it competes.
    let mut late = server.builder("first", &["f43"], 1).await?;
    resume(&mut late, &given).await?;
    deliver(&mut late, &given, b"built").await?;
    assert_eq!(late.word().await?, ToBuilder::Accepted { attempt: given.attempt });
    assert_eq!(other.word().await?, ToBuilder::Stale { attempt: again.attempt });
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn without_its_record_a_lease_is_known_by_the_digest() -> Result {
    for damage in ["", "{ torn", "{}"] {
        let (server, builder, given) = leased(&["torn"], patient).await?;
        drop(builder);
        let site = server.stop().await?;
        fs::write(site.folders.attempt(given.attempt).join("lease.json"), damage)?;
        let server = TestServer::start(site, patient);
        server.until("queued again", |site| site.source() == ["torn-1-1.src.rpm"]).await?;
        let mut builder = server.builder("first", &["f43"], 1).await?;
        let lie = HeldAttempt { sha256: Sha256::of(b"another"), ..given.held.clone() };
        let attempt = given.attempt;
        assert_eq!(answer(&mut builder, lie).await?, ToBuilder::Stale { attempt });
        resume(&mut builder, &given).await?;
        assert_eq!(server.site.working(), ["torn-1-1.src.rpm"]);
        // The new record is as good as the old one.
        let server = restart(server).await?;
        let mut builder = server.builder("first", &["f43"], 1).await?;
        resume(&mut builder, &given).await?;
        deliver(&mut builder, &given, b"built").await?;
        assert_eq!(builder.word().await?, ToBuilder::Accepted { attempt });
    }
    Ok(())
}

/// The last server was killed before it could write down what it had sent.
#[tokio::test(start_paused = true)]
async fn a_record_without_a_digest_is_not_trusted() -> Result {
    let (server, builder, given) = leased(&["unsaid"], patient).await?;
    drop(builder);
    let site = server.stop().await?;
    let path = site.folders.attempt(given.attempt).join("lease.json");
    let mut record: serde_json::Value = serde_json::from_slice(&fs::read(&path)?)?;
    record["srpm_sha256"] = serde_json::Value::Null;
    fs::write(path, serde_json::to_vec(&record)?)?;
    let server = TestServer::start(site, patient);
    let mut builder = server.builder("first", &["f43"], 1).await?;
    let lie = HeldAttempt { sha256: Sha256::of(b"another"), ..given.held.clone() };
    assert_eq!(answer(&mut builder, lie).await?, ToBuilder::Stale { attempt: given.attempt });
    resume(&mut builder, &given).await?;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_srpm_that_was_replaced_while_no_server_ran_is_another() -> Result {
    let (server, builder, given) = leased(&["swapped"], patient).await?;
    drop(builder);
    let site = server.stop().await?;
    let other = moji_tests::support::simulated::srpm("swapped", "1", "1", 5_000);
    fs::write(site.folders.working.join("swapped-1-1.src.rpm"), other)?;
    let (server, begun) = (TestServer::start(site, patient), Instant::now());
    server.until("queued", |site| site.source() == ["swapped-1-1.src.rpm"]).await?;
    assert!(begun.elapsed() < Duration::from_secs(1), "it was taken for the one that was leased");
    let mut builder = server.builder("first", &["f43"], 1).await?;
    let told = answer(&mut builder, given.held.clone()).await?;
    assert_eq!(told, ToBuilder::Stale { attempt: given.attempt });
    Ok(())
}

/// Its builder has gone on with it all the time. To the history it is a new build, and the attempt is one at that.
#[tokio::test(start_paused = true)]
async fn an_srpm_that_was_put_aside_and_came_back_is_the_one_that_was_leased() -> Result {
    let (server, builder, given) = leased(&["returned"], patient).await?;
    drop(builder);
    let site = server.stop().await?;
    let lease: serde_json::Value =
        serde_json::from_slice(&fs::read(site.folders.attempt(given.attempt).join("lease.json"))?)?;
    let leased_at: jiff::Timestamp = serde_json::from_value(lease["leased_at"].clone())?;
    let name = "returned-1-1.src.rpm";
    let aside = site.folders.source.with_file_name("aside");
    fs::rename(site.folders.working.join(name), &aside)?;
    // This one sees that it is gone.
    let site = TestServer::start(site, patient).stop().await?;
    fs::rename(&aside, site.folders.source.join(name))?;
    let server = TestServer::start(site, patient);
    let mut builder = server.builder("first", &["f43"], 1).await?;
    resume(&mut builder, &given).await?;
    deliver(&mut builder, &given, b"built").await?;
    assert_eq!(builder.word().await?, ToBuilder::Accepted { attempt: given.attempt });
    let site = server.stop().await?;
    let record = site.record("returned-1-1").and_then(|record| record.attempt).expect("no record");
    assert_eq!(record.leased_at.as_microsecond(), leased_at.as_microsecond());
    let options = fsck::Options {
        depth: fsck::Depth::Sizes,
        server: fsck::Server::Stopped,
        createrepo: Path::new("createrepo_c"),
    };
    let mut found = fsck::check(&site.folders, options)?;
    // Here nobody makes metadata.
    found.retain(|difference| difference.area() != fsck::Area::Metadata);
    assert_eq!(found, []);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_word_that_was_lost_is_said_by_the_next_server() -> Result {
    let (server, mut builder, given) = leased(&["told"], patient).await?;
    deliver(&mut builder, &given, b"built").await?;
    server.until("published", |site| site.finished() == ["told-1-1.src.rpm"]).await?;
    drop(builder);
    let server = restart(server).await?;
    let mut builder = server.builder("first", &["f43"], 1).await?;
    let told = answer(&mut builder, given.held.clone()).await?;
    assert_eq!(told, ToBuilder::Accepted { attempt: given.attempt });
    Ok(())
}

/// The server is stopped between the two renames of a commit: the result is in REPO, the SRPM not in
/// FINISHED.
#[tokio::test(start_paused = true)]
async fn a_commit_that_was_cut_is_finished_and_its_builder_told() -> Result {
    let (server, mut builder, given) = leased(&["closing"], patient).await?;
    let blocked = server.site.folders.finished.join("closing-1-1.src.rpm");
    fs::create_dir(&blocked)?;
    deliver(&mut builder, &given, b"built").await?;
    server.until("the first try", |site| site.record("closing-1-1").is_some()).await?;
    let site = server.stop().await?;
    assert_eq!(site.working(), ["closing-1-1.src.rpm"]);
    fs::remove_dir(&blocked)?;
    let server = TestServer::start(site, patient);
    let mut builder = server.builder("first", &["f43"], 1).await?;
    let told = answer(&mut builder, given.held.clone()).await?;
    assert_eq!(told, ToBuilder::Accepted { attempt: given.attempt });
    assert_eq!(server.site.finished(), ["closing-1-1.src.rpm"]);
    assert_eq!(server.site.staged(), Vec::<String>::new());
    Ok(())
}

/// A commit had put files aside that were not to be published, and came no further.
#[tokio::test(start_paused = true)]
async fn results_that_a_cut_commit_has_put_aside_are_not_sent_again() -> Result {
    let (server, builder, given) = leased(&["aside"], patient).await?;
    let rpm = srpm("aside", "1", "1", 300_000);
    let file = ("aside-1-1.src.rpm", &rpm[..]);
    cut_upload(&server, builder, given.attempt, file, rpm.len() - 1).await?;
    let site = server.stop().await?;
    let staging = site.folders.attempt(given.attempt);
    fs::create_dir(staging.join("unpublished"))?;
    fs::rename(staging.join("results").join(file.0), staging.join("unpublished").join(file.0))?;
    fs::write(staging.join("results/build.json"), "{}")?;
    let server = TestServer::start(site, patient);
    let mut builder = server.builder("first", &["f43"], 1).await?;
    resume(&mut builder, &given).await?;
    rest_of_upload(&mut builder, given.attempt, file, rpm.len() - 1).await?;
    assert_eq!(builder.word().await?, ToBuilder::Accepted { attempt: given.attempt });
    assert_eq!(server.site.published("aside-1-1"), ["aside-1-1.src.rpm", "build.json"]);
    Ok(())
}

fn many(count: usize) -> anyhow::Result<TestServer> {
    let names: Vec<_> = (0..count).map(|n| format!("many{n}")).collect();
    server(&names.iter().map(String::as_str).collect::<Vec<_>>(), patient)
}

async fn builders(server: &TestServer, count: usize) -> anyhow::Result<Vec<(String, ScriptedBuilder)>> {
    let mut builders = Vec::new();
    for n in 0..count {
        let name = format!("builder{n}");
        builders.push((name.clone(), server.builder(&name, &["f43"], 1).await?));
    }
    Ok(builders)
}

/// `systemctl restart` in the middle of 50 transfers.
#[tokio::test(start_paused = true)]
async fn fifty_uploads_go_on_where_they_were_when_the_server_is_restarted() -> Result {
    const MANY: usize = 50;
    let server = many(MANY)?;
    let mut cut = Vec::new();
    for (n, (name, mut builder)) in builders(&server, MANY).await?.into_iter().enumerate() {
        let given = lease(&mut builder).await?;
        let file = given.held.srpm.to_string();
        let content = srpm(file.trim_end_matches("-1-1.src.rpm"), "1", "1", 90_000 + 1_000 * n);
        let listed = moji_tests::support::simulated::manifest(&[(&file, &content)])?;
        let at = 20_000 + 777 * n;
        let outcome = moji_proto::Outcome::Succeeded;
        builder.deliver_open(given.attempt, outcome, &listed, &content[..at]).await?;
        cut.push((name, builder, given, file, content, at));
    }
    let site = server.stop().await?;
    assert_eq!((site.source().len(), site.working().len()), (0, MANY));
    let server = TestServer::start(site, patient);
    let mut resent = 0;
    for (name, old, given, file, content, at) in cut {
        drop(old);
        let mut builder = server.builder(&name, &["f43"], 1).await?;
        resume(&mut builder, &given).await?;
        let attempt = given.attempt;
        let listed = moji_tests::support::simulated::manifest(&[(&file, &content)])?;
        builder.announce(attempt, moji_proto::Outcome::Succeeded, &listed).await?;
        let ToBuilder::Wanted { offset, part, .. } = builder.word().await? else { panic!("not wanted") };
        let have = offset as usize;
        // What was still in the connection is lost, and nothing else.
        assert!(have <= at && part == Sha256::of(&content[..have]));
        resent += at - have;
        let stream = builder.next_stream();
        builder.say(ToServer::Upload { attempt, offset, stream }).await?;
        builder.data(stream, &content[have..]).await?;
        builder.end(stream, None).await?;
        assert_eq!(builder.word().await?, ToBuilder::Accepted { attempt });
        assert_eq!(published(&server.site, given.held.srpm.stem()), Some(attempt));
    }
    assert!(resent < MANY * 20_000 / 2, "{resent} bytes came twice: nothing was kept");
    assert_eq!(server.site.finished().len(), MANY);
    assert_eq!(server.site.staged(), Vec::<String>::new());
    Ok(())
}

async fn two_hundred(server: &TestServer) -> anyhow::Result<Vec<(String, Given)>> {
    let mut running = Vec::new();
    for (name, mut builder) in builders(server, 200).await? {
        running.push((name, lease(&mut builder).await?, builder));
    }
    Ok(running.into_iter().map(|(name, given, _)| (name, given)).collect())
}

#[tokio::test(start_paused = true)]
async fn two_hundred_builds_are_taken_up_again_and_none_is_handed_out_twice() -> Result {
    let server = many(200)?;
    let running = two_hundred(&server).await?;
    let server = restart(server).await?;
    let begun = Instant::now();
    let mut hungry = server.builder("hungry", &["f43"], 1).await?;
    hungry.ask(0).await?;
    let mut returning = tokio::task::JoinSet::new();
    for (n, (name, given)) in running.into_iter().enumerate() {
        let builder = server.builder(&name, &["f43"], 1).await?;
        returning.spawn(async move {
            let mut builder = builder;
            sleep(Duration::from_millis(100 * n as u64)).await;
            resume(&mut builder, &given).await.map(|_| (builder, given))
        });
    }
    let mut back = Vec::new();
    while let Some(resumed) = returning.join_next().await {
        back.push(resumed??);
    }
    assert!(begun.elapsed() < Duration::from_secs(30), "{:?}", begun.elapsed());
    assert_eq!(back.len(), 200);
    assert!(timeout(Duration::from_secs(600), hungry.word()).await.is_err(), "handed out twice");
    for (builder, given) in &mut back {
        deliver(builder, given, b"built").await?;
        assert_eq!(builder.word().await?, ToBuilder::Accepted { attempt: given.attempt });
    }
    assert_eq!(server.site.finished().len(), 200);
    Ok(())
}

/// All at once, and without their records: 200 digests are compared, a few at a time.
#[tokio::test(start_paused = true)]
async fn two_hundred_claims_at_once_are_answered() -> Result {
    let server = many(200)?;
    let running = two_hundred(&server).await?;
    let site = server.stop().await?;
    for (_, given) in &running {
        fs::remove_dir_all(site.folders.attempt(given.attempt))?;
    }
    let server = TestServer::start(site, patient);
    let mut returning = Vec::new();
    for (name, given) in running {
        let mut builder = server.builder(&name, &["f43"], 1).await?;
        builder.say(ToServer::Hold(given.held.clone())).await?;
        returning.push((builder, given.attempt));
    }
    for (builder, given) in &mut returning {
        assert!(matches!(builder.word().await?, ToBuilder::Resume { attempt, .. } if attempt == *given));
    }
    assert_eq!(server.site.working().len(), 200);
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn staging_that_belongs_to_nothing_is_removed() -> Result {
    let site = Site::new()?;
    let attempts = site.folders.attempts();
    fs::create_dir_all(attempts.join(AttemptId { boot: 1, serial: 2 }.to_string()).join("results"))?;
    fs::create_dir_all(attempts.join("nonsense"))?;
    fs::write(attempts.join("file"), "")?;
    let server = TestServer::start(site, |_| {});
    server.until("empty", |site| site.staged().is_empty()).await
}

/// `WORKING/.moji` was lost: nothing tells to whom the attempt was given, and it is built again.
#[tokio::test(start_paused = true)]
async fn without_its_record_and_the_history_an_attempt_is_stale() -> Result {
    let (server, builder, given) = leased(&["restored"], patient).await?;
    drop(builder);
    let site = server.stop().await?;
    fs::remove_dir_all(site.folders.attempt(given.attempt))?;
    for file in ["history.sqlite", "history.sqlite-wal", "history.sqlite-shm"] {
        let _ = fs::remove_file(site.folders.private().join(file));
    }
    let server = TestServer::start(site, patient);
    let mut builder = server.builder("first", &["f43"], 1).await?;
    let attempt = given.attempt;
    assert_eq!(answer(&mut builder, given.held.clone()).await?, ToBuilder::Stale { attempt });
    assert_ne!(lease(&mut builder).await?.attempt, attempt);
    Ok(())
}

/// Only the history was lost: the record in staging is as good, also where the SRPM waits in SOURCE.
#[tokio::test(start_paused = true)]
async fn without_the_history_the_record_of_the_lease_is_believed() -> Result {
    let (server, builder, given) = leased(&["noted"], patient).await?;
    drop(builder);
    server.until("queued again", |site| site.source() == ["noted-1-1.src.rpm"]).await?;
    let site = server.stop().await?;
    for file in ["history.sqlite", "history.sqlite-wal", "history.sqlite-shm"] {
        let _ = fs::remove_file(site.folders.private().join(file));
    }
    let server = TestServer::start(site, patient);
    let mut stranger = server.builder("stranger", &["f43"], 1).await?;
    let told = answer(&mut stranger, given.held.clone()).await?;
    assert_eq!(told, ToBuilder::Stale { attempt: given.attempt });
    let mut builder = server.builder("first", &["f43"], 1).await?;
    resume(&mut builder, &given).await?;
    Ok(())
}
