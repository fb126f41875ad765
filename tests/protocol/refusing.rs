//! Results that are not good: nothing of them is published, what was sent is kept with the reason, the
//! builder is told, and the SRPM is built elsewhere.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use moji_proto::{AttemptId, Outcome, ToBuilder};
use moji_server::quarantine::{RefusedRecord, place, record_of};
use moji_tests::support::simulated::{ScriptedBuilder, Site, TestServer, built, names_in, rpm};
use tokio::time::timeout;

use super::Result;
use super::returning::{answer, lease, leased, server};

/// A file of results.
type File = (&'static str, Vec<u8>);

fn patient(config: &mut moji_server::run::Config) {
    config.dead_after = Duration::from_secs(100_000);
}

/// What an honest builder brings of `mine-1-1.src.rpm`.
fn honest() -> [File; 2] {
    let binary = rpm("mine", "1", "1", "mine-1-1.src.rpm", 5_000);
    [("mine-1-1.src.rpm", built("mine", b"the source")), ("mine-1-1.noarch.rpm", binary)]
}

/// The same with another binary package.
fn with(name: &'static str, content: Vec<u8>) -> Vec<File> {
    let [source, _] = honest();
    vec![source, (name, content)]
}

/// What a liar brings, and what it is told.
fn lies() -> Vec<(Vec<File>, &'static str)> {
    let whole = rpm("mine", "1", "1", "mine-1-1.src.rpm", 5_000);
    let mut flipped = whole.clone();
    *flipped.last_mut().expect("empty") ^= 1;
    let of = |source: &str| rpm("mine", "1", "1", source, 50);
    let [source, _] = honest();
    vec![
        (with("mine-1-1.noarch.rpm", b"just a text".to_vec()), "it is not an RPM package"),
        (with("mine-1-1.noarch.rpm", whole[..2_000].to_vec()), "it has 2000 bytes"),
        (with("mine-1-1.noarch.rpm", flipped), "its payload has not the SHA-256"),
        (with("mine-1-1.noarch.rpm", of("other-1-1.src.rpm")), "built from other-1-1.src.rpm"),
        (with("mine-1-2.noarch.rpm", whole.clone()), "by its header it is mine-1-1.noarch.rpm"),
        (with("sudo-9-9.x86_64.rpm", whole.clone()), "by its header it is mine-1-1.noarch.rpm"),
        (vec![("mine-1-1.noarch.rpm", whole)], "the source package is missing"),
        (vec![("other-1-1.src.rpm", built("other", b"s"))], "it is the source of other-1, not of mine-1"),
        (vec![source, ("other-1-1.src.rpm", built("other", b"s"))], "a second source package"),
        // Of another build's name, and other bytes.
        (
            with("glibc-1-1.noarch.rpm", rpm("glibc", "1", "1", "mine-1-1.src.rpm", 9)),
            "is published with other content",
        ),
    ]
}

/// All files below a folder.
fn content_of(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for name in names_in(folder) {
        let path = folder.join(name);
        if path.is_dir() {
            found.extend(content_of(&path));
        } else {
            found.insert(path.clone(), fs::read(&path).unwrap_or_default());
        }
    }
    found
}

async fn deliver(builder: &mut ScriptedBuilder, attempt: AttemptId, files: &[File]) -> Result {
    let files: Vec<_> = files.iter().map(|(name, content)| (*name, &content[..])).collect();
    builder.deliver(attempt, Outcome::Succeeded, &files).await
}

/// The reason that a builder is told.
async fn rejection(builder: &mut ScriptedBuilder, attempt: AttemptId) -> anyhow::Result<String> {
    match builder.word().await? {
        ToBuilder::Rejected { attempt: rejected, reason, again: false } if rejected == attempt => Ok(reason),
        other => anyhow::bail!("{other:?} came instead of a rejection"),
    }
}

fn refused(site: &Site, attempt: AttemptId) -> RefusedRecord {
    record_of(&place(&site.folders, attempt)).expect("no record in quarantine")
}

/// A farm that has published `glibc-1-1.noarch.rpm` and is to build `mine-1-1.src.rpm`.
async fn farm() -> anyhow::Result<TestServer> {
    let (server, mut builder, given) = leased(&["glibc"], patient).await?;
    let binary = rpm("glibc", "1", "1", "glibc-1-1.src.rpm", 3_000);
    let files = [("glibc-1-1.src.rpm", built("glibc", b"s")), ("glibc-1-1.noarch.rpm", binary)];
    deliver(&mut builder, given.attempt, &files).await?;
    assert_eq!(builder.word().await?, ToBuilder::Accepted { attempt: given.attempt });
    drop(builder);
    server.site.put_srpm("mine")?;
    Ok(server)
}

#[tokio::test(start_paused = true)]
async fn nothing_of_it_is_published_and_another_builder_builds_it() -> Result {
    for (n, (files, why)) in lies().into_iter().enumerate() {
        let server = farm().await?;
        let before = content_of(&server.site.folders.repo);
        let mut liar = server.builder("liar", &["f43"], 1).await?;
        let attempt = lease(&mut liar).await?.attempt;
        deliver(&mut liar, attempt, &files).await?;
        let reason = rejection(&mut liar, attempt).await?;
        assert!(reason.contains(why), "{n}: {reason}");
        assert!(content_of(&server.site.folders.repo) == before, "{n}: REPO was touched");
        // All that was sent is kept.
        let record = refused(&server.site, attempt);
        assert_eq!((record.reason, record.builder.name.as_str()), (reason, "liar"));
        assert_eq!(record.manifest.len(), files.len());
        for (name, content) in &files {
            assert!(fs::read(place(&server.site.folders, attempt).join(name))? == *content, "{n}: {name}");
        }
        let mut good = server.builder("good", &["f43"], 1).await?;
        let second = lease(&mut good).await?.attempt;
        deliver(&mut good, second, &honest()).await?;
        assert_eq!(good.word().await?, ToBuilder::Accepted { attempt: second });
        let published = server.site.published("mine-1-1");
        assert_eq!(published, ["build.json", "mine-1-1.noarch.rpm", "mine-1-1.src.rpm"]);
        server.until("nothing is staged", |site| site.staged().is_empty()).await?;
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn an_architecture_that_the_target_cannot_have() -> Result {
    let site = Site::new()?;
    site.put_srpm("mine")?;
    let server = TestServer::start(site, patient);
    // The machine is an aarch64, and the target says otherwise: the builds may be emulated.
    for (name, target, is_good) in [("one", "f43-x86_64", false), ("two", "f43-aarch64", true)] {
        let mut builder = server.builder(name, &[target], 1).await?;
        let attempt = lease(&mut builder).await?.attempt;
        let mut files = honest().to_vec();
        files[1] = ("mine-1-1.aarch64.rpm", of_arch("aarch64"));
        deliver(&mut builder, attempt, &files).await?;
        if is_good {
            assert_eq!(builder.word().await?, ToBuilder::Accepted { attempt });
        } else {
            let reason = rejection(&mut builder, attempt).await?;
            assert_eq!(reason, "mine-1-1.aarch64.rpm: it is for aarch64, which is not for f43-x86_64");
        }
    }
    Ok(())
}

fn of_arch(arch: &str) -> Vec<u8> {
    moji_tests::support::simulated::rpm_for(arch, "mine", "1", "1", "mine-1-1.src.rpm", 50)
}

#[tokio::test(start_paused = true)]
async fn three_of_them_suspend_the_builder_though_it_can_say_success() -> Result {
    let server = server(&["a", "b", "c", "d"], patient)?;
    let mut liar = server.builder("liar", &["f43"], 1).await?;
    let _other = server.builder("other", &["f43"], 1).await?;
    for n in 0..3 {
        let given = lease(&mut liar).await?;
        let name = given.held.srpm.to_string();
        liar.deliver(given.attempt, Outcome::Succeeded, &[(&name, b"no RPM")]).await?;
        rejection(&mut liar, given.attempt).await?;
        let log = names_in(&server.site.folders.private().join("quarantine"));
        assert_eq!(log.len(), n + 1);
    }
    assert!(matches!(liar.word().await?, ToBuilder::Suspended { seconds: 300, .. }));
    liar.ask(0).await?;
    assert!(timeout(Duration::from_secs(290), liar.word()).await.is_err(), "work for a liar");
    assert_eq!(server.site.finished(), Vec::<String>::new());
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn what_only_liars_build_is_held_with_the_reason() -> Result {
    let server = server(&["mine"], patient)?;
    for name in ["anna", "bert", "cora"] {
        let mut liar = server.builder(name, &["f43"], 1).await?;
        let attempt = lease(&mut liar).await?.attempt;
        deliver(&mut liar, attempt, &[("mine-1-1.noarch.rpm", b"no RPM".to_vec())]).await?;
        rejection(&mut liar, attempt).await?;
    }
    let srpm = ["mine-1-1.src.rpm"];
    server.until("held", |site| site.finished() == srpm && site.working().is_empty()).await?;
    let held = super::returning::held_record(&server.site, "mine").and_then(|record| record.held);
    let held = held.unwrap_or_default();
    assert!(held.contains("anna (results refused), bert (results refused), cora"), "{held}");
    Ok(())
}

/// The builder did not hear that its results were refused: it has them still, and offers them again.
#[tokio::test(start_paused = true)]
async fn what_was_refused_does_not_come_back() -> Result {
    let (server, mut builder, given) = leased(&["mine"], patient).await?;
    let attempt = given.attempt;
    deliver(&mut builder, attempt, &[("mine-1-1.src.rpm", b"no RPM".to_vec())]).await?;
    let kept = place(&server.site.folders, attempt);
    server.until("refused", |_| kept.exists()).await?;
    drop(builder);
    server.until("queued again", |site| site.source() == ["mine-1-1.src.rpm"]).await?;
    refused(&server.site, attempt);
    let mut builder = server.builder("first", &["f43"], 1).await?;
    assert_eq!(answer(&mut builder, given.held.clone()).await?, ToBuilder::Stale { attempt });
    drop(builder);
    // The next server knows it from the history.
    let server = TestServer::start(server.stop().await?, patient);
    server.until("taken over", |site| site.staged().is_empty()).await?;
    let mut builder = server.builder("first", &["f43"], 1).await?;
    assert_eq!(answer(&mut builder, given.held.clone()).await?, ToBuilder::Stale { attempt });
    refused(&server.site, attempt);
    Ok(())
}

/// Two builds with a file of one name at the same instant: one is published, the other not.
#[tokio::test(start_paused = true)]
async fn two_builds_cannot_publish_different_files_of_one_name() -> Result {
    let server = server(&["a", "b"], patient)?;
    let mut given = Vec::new();
    for name in ["first", "second"] {
        let mut builder = server.builder(name, &["f43"], 1).await?;
        let lease = lease(&mut builder).await?;
        let source = lease.held.srpm.clone();
        let stem = source.as_str().trim_end_matches("-1-1.src.rpm");
        let [source_rpm, common] = [built(stem, b"s"), rpm("common", "1", "1", source.as_str(), 40_000)];
        let files = [(source.as_str(), &source_rpm[..]), ("common-1-1.noarch.rpm", &common[..])];
        builder.deliver(lease.attempt, Outcome::Succeeded, &files).await?;
        given.push((builder, lease.attempt));
    }
    let mut ends = Vec::new();
    for (builder, attempt) in &mut given {
        ends.push(match builder.word().await? {
            ToBuilder::Accepted { attempt: accepted } if accepted == *attempt => true,
            ToBuilder::Rejected { reason, .. } if reason.contains("is published with other content") => false,
            other => panic!("{other:?}"),
        });
    }
    ends.sort_unstable();
    assert_eq!(ends, [false, true]);
    let holders =
        ["a-1-1", "b-1-1"].map(|nvr| server.site.published(nvr).contains(&"common-1-1.noarch.rpm".into()));
    assert_eq!(holders.iter().filter(|has| **has).count(), 1);
    Ok(())
}

/// What was there when the server started counts, and what a person has removed since does not.
#[tokio::test(start_paused = true)]
async fn what_lies_in_repo_is_known_after_a_restart() -> Result {
    let server = TestServer::start(farm().await?.stop().await?, patient);
    let forged = with("glibc-1-1.noarch.rpm", rpm("glibc", "1", "1", "mine-1-1.src.rpm", 9));
    let mut liar = server.builder("liar", &["f43"], 1).await?;
    let attempt = lease(&mut liar).await?.attempt;
    deliver(&mut liar, attempt, &forged).await?;
    let reason = rejection(&mut liar, attempt).await?;
    assert!(reason.contains("glibc-1-1/glibc-1-1.noarch.rpm is published"), "{reason}");
    fs::remove_dir_all(server.site.folders.repo.join("glibc-1-1"))?;
    let attempt = lease(&mut liar).await?.attempt;
    deliver(&mut liar, attempt, &forged).await?;
    assert_eq!(liar.word().await?, ToBuilder::Accepted { attempt });
    Ok(())
}

/// A failure may bring whatever it wants: no RPM of it is published.
#[tokio::test(start_paused = true)]
async fn a_failures_rpms_are_not_looked_at_nor_published() -> Result {
    let (server, mut builder, given) = leased(&["mine"], patient).await?;
    let attempt = given.attempt;
    let failed = Outcome::failed(moji_proto::FailureKind::Package, "it fails", Some(1), Vec::new());
    builder.deliver(attempt, failed, &[("mine-1-1.noarch.rpm", b"no RPM"), ("build.log", b"log")]).await?;
    assert_eq!(builder.word().await?, ToBuilder::Accepted { attempt });
    assert_eq!(server.site.published("mine-1-1"), ["build.json", "build.log"]);
    assert_eq!(names_in(&server.site.folders.private().join("quarantine")), Vec::<String>::new());
    Ok(())
}
