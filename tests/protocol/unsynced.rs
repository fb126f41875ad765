//! Results that the server's disk has not taken: `unsynced` in an attempt's staging says so.

use std::fs;
use std::path::PathBuf;

use moji_proto::{Outcome, ToBuilder};
use moji_tests::support::simulated::{ScriptedBuilder, Site, built, srpm};

use super::Result;
use super::returning::{Given, leased, published, rest_of_upload, resume};

fn staging(site: &Site, given: &Given) -> PathBuf {
    site.folders.attempt(given.attempt)
}

fn put_aside(site: &Site, given: &Given) -> Result {
    Ok(fs::rename(staging(site, given).join("results"), staging(site, given).join("unsynced"))?)
}

/// An RPM and a log.
async fn deliver(builder: &mut ScriptedBuilder, given: &Given) -> Result {
    let name = given.held.srpm.as_str();
    let rpm = built(name.trim_end_matches("-1-1.src.rpm"), b"built");
    builder.deliver(given.attempt, Outcome::Succeeded, &[("build.log", b"log"), (name, &rpm)]).await
}

#[tokio::test(start_paused = true)]
async fn what_is_lost_here_is_delivered_once_more() -> Result {
    for has_new_connection in [false, true] {
        let (server, mut builder, given) = leased(&["lost"], |_| {}).await?;
        let (attempt, staging) = (given.attempt, staging(&server.site, &given));
        // It has described what it is to publish, and cannot.
        let blocked = server.site.folders.repo.join("lost-1-1");
        fs::write(&blocked, "no folder")?;
        deliver(&mut builder, &given).await?;
        server.until("the first try", |_| staging.join("results/build.json").exists()).await?;
        put_aside(&server.site, &given)?;
        fs::write(staging.join("unsynced/build.log"), "l\0\0")?;
        fs::remove_file(&blocked)?;
        let mut builder = match has_new_connection {
            false => {
                let ToBuilder::Rejected { attempt: of, reason, again: true } = builder.word().await? else {
                    panic!("it is not wanted again");
                };
                assert_eq!(of, attempt);
                assert!(reason.contains("disk has lost them: build.log is not"), "{reason}");
                builder
            }
            true => {
                drop(builder);
                let mut builder = server.builder("first", &["f43"], 1).await?;
                resume(&mut builder, &given).await?;
                builder
            }
        };
        assert_eq!(server.site.working(), ["lost-1-1.src.rpm"], "it is built again");
        deliver(&mut builder, &given).await?;
        assert_eq!(builder.word().await?, ToBuilder::Accepted { attempt });
        assert_eq!(published(&server.site, "lost-1-1"), Some(attempt));
        assert_eq!(
            server.site.published("lost-1-1"),
            ["build.json", "build.log", "lost-1-1.src.rpm"],
            "the RPM was put aside, and it was left there"
        );
        assert_eq!(server.site.staged(), Vec::<String>::new());
    }
    Ok(())
}

/// Not even to find out that it is lost.
#[tokio::test(start_paused = true)]
async fn the_next_server_does_not_use_what_was_not_taken() -> Result {
    let (server, builder, given) = leased(&["torn"], |_| {}).await?;
    drop(builder);
    let site = server.stop().await?;
    let rpm = srpm("torn", "1", "1", 300_000);
    let file = ("torn-1-1.src.rpm", &rpm[..]);
    let aside = staging(&site, &given).join("unsynced");
    fs::create_dir_all(&aside)?;
    fs::write(aside.join(file.0), "what a power cut has left")?;
    let server = moji_tests::support::simulated::TestServer::start(site, |_| {});
    let mut builder = server.builder("first", &["f43"], 1).await?;
    resume(&mut builder, &given).await?;
    rest_of_upload(&mut builder, given.attempt, file, 0).await?;
    assert_eq!(builder.word().await?, ToBuilder::Accepted { attempt: given.attempt });
    assert_eq!(server.site.published("torn-1-1"), ["build.json", "torn-1-1.src.rpm"]);
    Ok(())
}
