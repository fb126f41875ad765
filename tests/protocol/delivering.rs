//! Deliveries that are not what they say, and logs that are too much.

use std::time::Duration;

use moji_proto::frame::{self, Kind};
use moji_proto::{AttemptId, LogFile, ManifestEntry, Outcome, Sha256, ToBuilder, ToServer, encoding};
use moji_tests::support::simulated::{ScriptedBuilder, Site, TestServer, built, manifest, names_in, srpm};

use super::Result;

async fn leased(name: &str) -> anyhow::Result<(TestServer, ScriptedBuilder, AttemptId)> {
    let site = Site::new()?;
    site.put_srpm(name)?;
    let server = TestServer::start(site, |config| config.log_limit = 10_000);
    let mut builder = server.builder("deliverer", &["f43"], 1).await?;
    let attempt = builder.lease(0).await?.attempt;
    Ok((server, builder, attempt))
}

/// The attempt is over without a result: its SRPM is queued, and nothing is published. What was staged
/// goes with the SRPM at the latest.
async fn came_to_nothing(server: &TestServer, name: &str) -> Result {
    let srpm = vec![format!("{name}-1-1.src.rpm")];
    server.until("queued again", |site| site.source() == srpm && site.working().is_empty()).await?;
    // The next look at SOURCE sees that it is there, the one after that it is gone.
    tokio::time::sleep(Duration::from_secs(3)).await;
    std::fs::remove_file(server.site.folders.source.join(&srpm[0]))?;
    server.until("staging is empty", |site| site.staged().is_empty()).await?;
    assert_eq!(server.site.published(""), Vec::<String>::new());
    Ok(())
}

async fn rejected(builder: &mut ScriptedBuilder, attempt: AttemptId) -> anyhow::Result<(String, bool)> {
    match builder.word().await? {
        ToBuilder::Rejected { attempt: rejected, reason, again } if rejected == attempt => {
            Ok((reason, again))
        }
        other => anyhow::bail!("{other:?} came instead of a rejection"),
    }
}

#[tokio::test(start_paused = true)]
async fn wrong_digests_are_rejected_three_times_and_then_the_lease_ends() -> Result {
    let (server, mut builder, attempt) = leased("damaged").await?;
    let mut listed = manifest(&[("damaged-1-1.src.rpm", &built("damaged", b"what was built"))])?;
    listed[0].sha256 = Sha256::of(b"something else");
    for again in [true, true, false] {
        // A cut in between does not count.
        let stream = builder.deliver_open(attempt, Outcome::Succeeded, &listed, b"what").await?;
        builder.say(moji_proto::StreamMessage::Abort { stream, reason: "cut".into() }).await?;
        assert!(rejected(&mut builder, attempt).await?.1);
        let stream = builder.deliver_open(attempt, Outcome::Succeeded, &listed, b"what was built").await?;
        builder.end(stream, None).await?;
        let (reason, is_again) = rejected(&mut builder, attempt).await?;
        assert!(reason.contains("damaged-1-1.src.rpm") && is_again == again, "{reason}");
    }
    came_to_nothing(&server, "damaged").await?;
    builder.deliver(attempt, Outcome::Succeeded, &[]).await?;
    assert_eq!(builder.word().await?, ToBuilder::Stale { attempt });
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn a_second_delivery_that_is_right_is_accepted() -> Result {
    let (server, mut builder, attempt) = leased("second-try").await?;
    let rpm = srpm("second-try", "1", "1", 400_000);
    let files = [("second-try-1-1.src.rpm", &rpm[..])];
    let stream = builder.deliver_open(attempt, Outcome::Succeeded, &manifest(&files)?, &rpm[..1000]).await?;
    builder.end(stream, None).await?;
    assert!(rejected(&mut builder, attempt).await?.1);
    builder.deliver(attempt, Outcome::Succeeded, &files).await?;
    assert_eq!(builder.word().await?, ToBuilder::Accepted { attempt });
    let published = server.site.folders.repo.join("second-try-1-1/second-try-1-1.src.rpm");
    assert!(std::fs::read(published)? == rpm, "other bytes were published");
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn too_few_and_too_many_bytes_are_rejected() -> Result {
    let (server, mut builder, attempt) = leased("sized").await?;
    let listed = manifest(&[("a.log", b"12345"), ("b.log", b"67890")])?;
    for bytes in [&b"12345678"[..], b"123456789012"] {
        let stream = builder.deliver_open(attempt, Outcome::Succeeded, &listed, bytes).await?;
        builder.end(stream, None).await?;
        let (reason, again) = rejected(&mut builder, attempt).await?;
        assert!(again, "{reason}");
    }
    builder.deliver_open(attempt, Outcome::Succeeded, &listed, b"1234").await?;
    drop(builder);
    came_to_nothing(&server, "sized").await
}

#[tokio::test(start_paused = true)]
async fn a_builder_that_aborts_its_delivery_may_deliver_again() -> Result {
    let (_server, mut builder, attempt) = leased("aborted").await?;
    let listed = manifest(&[("a.log", b"12345")])?;
    let stream = builder.deliver_open(attempt, Outcome::Succeeded, &listed, b"123").await?;
    let reason = "cannot read it".into();
    builder.say(moji_proto::StreamMessage::Abort { stream, reason }).await?;
    assert!(rejected(&mut builder, attempt).await?.1);
    Ok(())
}

/// Delivers a manifest that breaks the protocol; the connection is closed and nothing remains.
async fn breaks_the_protocol(name: &str, files: u32, bytes: u64, entries: Vec<ManifestEntry>) -> Result {
    let (server, mut builder, attempt) = leased(name).await?;
    let outcome = Outcome::Succeeded;
    builder.say(ToServer::Deliver { attempt, outcome, files, bytes }).await?;
    builder.say(ToServer::Manifest { attempt, entries }).await?;
    let heard = builder.to_the_end().await;
    assert!(matches!(&heard[..], [ToBuilder::Goodbye { .. }]), "{heard:?}");
    came_to_nothing(&server, name).await
}

#[tokio::test(start_paused = true)]
async fn a_manifest_that_contradicts_itself_closes_the_connection() -> Result {
    let twice = manifest(&[("a.log", b"12"), ("a.log", b"34")])?;
    breaks_the_protocol("duplicate", 2, 4, twice.clone()).await?;
    breaks_the_protocol("more-than-announced", 1, 4, twice).await?;
    breaks_the_protocol("wrong-total", 1, 99, manifest(&[("a.log", b"12")])?).await?;
    let mut endless = manifest(&[("a.log", b"12"), ("b.log", b"34")])?;
    endless.iter_mut().for_each(|entry| entry.size = u64::MAX);
    breaks_the_protocol("overflow", 2, 4, endless).await?;
    breaks_the_protocol("too-many-files", moji_proto::limits::FILES as u32 + 1, 0, Vec::new()).await
}

#[tokio::test(start_paused = true)]
async fn a_manifest_with_an_illegal_name_closes_the_connection() -> Result {
    for illegal in ["../x.log", "/tmp/z.log", ".hid.log", "-rf.log1", "a\0bc.log", "script.s"] {
        let (server, mut builder, attempt) = leased("illegal").await?;
        builder.say(ToServer::Deliver { attempt, outcome: Outcome::Succeeded, files: 1, bytes: 2 }).await?;
        // No such name can be made, so the bytes of a good one are changed.
        let legal = format!("{:x<width$}.log", "", width = illegal.len() - 4);
        let message = ToServer::Manifest { attempt, entries: manifest(&[(&legal, b"ab")])? };
        let mut body = encoding::encode(&message)?;
        let at = body.windows(legal.len()).position(|window| window == legal.as_bytes());
        let at = at.ok_or_else(|| anyhow::anyhow!("the name is not in the message"))?;
        body[at..at + illegal.len()].copy_from_slice(illegal.as_bytes());
        builder.raw(&frame::encode(Kind::Control, &body)).await?;
        let heard = builder.to_the_end().await;
        assert!(matches!(&heard[..], [ToBuilder::Goodbye { .. }]), "{illegal}: {heard:?}");
        came_to_nothing(&server, "illegal").await?;
        assert_eq!(names_in(server.site.path()), ["finished", "repo", "source", "working"], "{illegal}");
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn two_deliveries_at_a_time_close_the_connection() -> Result {
    let (server, mut builder, attempt) = leased("doubled").await?;
    let listed = manifest(&[("a.log", b"12345")])?;
    builder.deliver_open(attempt, Outcome::Succeeded, &listed, b"123").await?;
    builder.deliver_open(attempt, Outcome::Succeeded, &listed, b"123").await?;
    let heard = builder.to_the_end().await;
    assert!(matches!(&heard[..], [ToBuilder::Goodbye { .. }]), "{heard:?}");
    came_to_nothing(&server, "doubled").await
}

#[tokio::test(start_paused = true)]
async fn a_delivery_after_the_accepted_one_is_stale_and_changes_nothing() -> Result {
    let (server, mut builder, attempt) = leased("twice").await?;
    builder.deliver(attempt, Outcome::Succeeded, &[("twice-1-1.src.rpm", &built("twice", b"first"))]).await?;
    assert_eq!(builder.word().await?, ToBuilder::Accepted { attempt });
    let before = server.site.record("twice-1-1");
    builder.deliver(attempt, Outcome::Succeeded, &[("twice-1-1.src.rpm", &built("twice", b"other"))]).await?;
    assert_eq!(builder.word().await?, ToBuilder::Stale { attempt });
    assert_eq!(server.site.record("twice-1-1"), before);
    assert_eq!(server.site.finished(), ["twice-1-1.src.rpm"]);
    assert_eq!(server.site.staged(), Vec::<String>::new());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn live_logs_arrive_while_the_build_runs() -> Result {
    let (server, mut builder, attempt) = leased("logged").await?;
    let mut streams = Vec::new();
    for (file, text) in [(LogFile::Build, "+ make"), (LogFile::Root, "Installing gcc")] {
        let stream = builder.next_stream();
        builder.say(ToServer::Log { attempt, file, offset: 0, stream }).await?;
        builder.data(stream, text.as_bytes()).await?;
        streams.push(stream);
    }
    let staged = server.site.folders.attempt(attempt);
    let is = |name: &str, text: &str| std::fs::read_to_string(staged.join(name)).is_ok_and(|log| log == text);
    server.until("logs", |_| is("build.log", "+ make") && is("root.log", "Installing gcc")).await?;
    builder.data(streams[0], b" all").await?;
    server.until("more log", |_| is("build.log", "+ make all")).await
}

#[tokio::test(start_paused = true)]
async fn a_log_beyond_its_limit_is_cut_and_unwanted_and_costs_nothing_else() -> Result {
    let (server, mut builder, attempt) = leased("chatty").await?;
    let stream = builder.next_stream();
    builder.say(ToServer::Log { attempt, file: LogFile::Build, offset: 0, stream }).await?;
    builder.data(stream, &[b'x'; 12_000]).await?;
    builder.until(|peer| peer.unwanted == [stream]).await?;
    assert_eq!(std::fs::metadata(server.site.folders.attempt(attempt).join("build.log"))?.len(), 10_000);
    // What was under way is dropped.
    builder.data(stream, &[b'y'; 500_000]).await?;
    builder.end(stream, None).await?;
    builder
        .deliver(attempt, Outcome::Succeeded, &[("chatty-1-1.src.rpm", &built("chatty", b"built"))])
        .await?;
    assert_eq!(builder.word().await?, ToBuilder::Accepted { attempt });
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn more_open_streams_than_its_slots_may_have_close_the_connection() -> Result {
    let (server, mut builder, attempt) = leased("flood").await?;
    for _ in 0..=moji_proto::limits::STREAMS_PER_SLOT {
        let stream = builder.next_stream();
        builder.say(ToServer::Log { attempt, file: LogFile::Build, offset: 0, stream }).await?;
    }
    let heard = builder.to_the_end().await;
    assert!(matches!(&heard[..], [ToBuilder::Goodbye { .. }]), "{heard:?}");
    came_to_nothing(&server, "flood").await
}

#[tokio::test(start_paused = true)]
async fn a_builder_that_stops_in_the_middle_of_its_manifest_is_given_up() -> Result {
    let (server, mut builder, attempt) = leased("stuck").await?;
    let deliver = ToServer::Deliver { attempt, outcome: Outcome::Succeeded, files: 2, bytes: 4 };
    builder.say(deliver).await?;
    let begun = tokio::time::Instant::now();
    builder.to_the_end().await;
    assert_eq!(begun.elapsed(), Duration::from_secs(30));
    came_to_nothing(&server, "stuck").await
}

#[tokio::test(start_paused = true)]
async fn an_upload_goes_on_where_it_was_cut() -> Result {
    let (server, mut builder, attempt) = leased("cut").await?;
    let rpm = srpm("cut", "1", "1", 700_000);
    let files: [(&str, &[u8]); 3] = [("build.log", b"built"), ("cut-1-1.src.rpm", &rpm), ("root.log", b"")];
    let listed = manifest(&files)?;
    let all = [b"built", &rpm[..]].concat();
    for (sent, have) in [(3, 0), (300_000, 3)] {
        builder.announce(attempt, Outcome::Succeeded, &listed).await?;
        let wanted = builder.word().await?;
        let from = have as u64;
        assert_eq!(wanted, ToBuilder::Wanted { attempt, offset: from, part: Sha256::of(&all[..have]) });
        let stream = builder.next_stream();
        builder.say(ToServer::Upload { attempt, offset: from, stream }).await?;
        builder.data(stream, &all[have..sent]).await?;
        builder.say(moji_proto::StreamMessage::Abort { stream, reason: "cut".into() }).await?;
        assert!(matches!(builder.word().await?, ToBuilder::Rejected { again: true, .. }));
    }
    // The builder finds that the server's part of the RPM is not its own, and begins that file anew.
    builder.announce(attempt, Outcome::Succeeded, &listed).await?;
    let part = Sha256::of(&rpm[..300_000 - 5]);
    assert_eq!(builder.word().await?, ToBuilder::Wanted { attempt, offset: 300_000, part });
    let stream = builder.next_stream();
    builder.say(ToServer::Upload { attempt, offset: 5, stream }).await?;
    builder.data(stream, &rpm).await?;
    builder.end(stream, None).await?;
    assert_eq!(builder.word().await?, ToBuilder::Accepted { attempt });
    assert_eq!(std::fs::read(server.site.folders.repo.join("cut-1-1/cut-1-1.src.rpm"))?, rpm);
    Ok(())
}
