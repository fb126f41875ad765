//! The farm's own repository, from an assignment to Mock's command line, for which `echo` stands.
//!
//! Real children, so a real clock: nothing here waits for a time.

use std::sync::Mutex;

use moji_client::builder::{FarmRepository, Mock};
use moji_client::mock::configs::MockConfig;
use moji_client::mock::run::{Limits, environment};
use moji_proto::{Assignment, RepositoryUrl};

use super::*;

/// What the log of Mock has in it when a server gives a slot an SRPM and this repository.
async fn mock_log(
    farm_repository: FarmRepository,
    repository: Option<RepositoryUrl>,
) -> anyhow::Result<String> {
    let at = scratch()?;
    let config =
        MockConfig { path: "/etc/mock/f43.cfg".into(), argument: "f43".into(), target: "f43".parse()? };
    let mock = Mock {
        program: "echo".into(),
        configs: [(config.target.clone(), config)].into(),
        farm_repository,
        mock_args: Vec::new(),
        environment: environment(std::env::vars_os()),
        limits: Limits::default(),
        id: "12345678".into(),
        cleanup_log: at.path().join("cleanup.log"),
        blocked: Mutex::default(),
    };
    let (connect, mut connections) = mpsc::unbounded_channel();
    let (_signals, signalled) = mpsc::channel(2);
    let work_dir = Arc::new(WorkDir::open(&at.path().join("work"))?);
    let config = Config::new(registration("driven", &["f43"], 1)?);
    let client =
        tokio::spawn(moji_client::run::run(config, ToTest(connect), Arc::new(mock), work_dir, signalled));
    let io = connections.recv().await.context("the client makes no connection")?;
    let mut server = ScriptedServer::welcome(io, &server_secret(None)?).await?.0;
    asked(&mut server, [0]).await?;
    let (bytes, sha256) = source("needy");
    let stream = server.next_stream();
    let assignment = Assignment {
        attempt: AttemptId { boot: 0xb007, serial: 91 },
        slot: 0,
        target: "f43".parse()?,
        srpm: "needy-1-1.src.rpm".parse()?,
        size: bytes.len() as u64,
        stream,
        repository,
    };
    server.say(ToBuilder::Assign(assignment)).await?;
    server.data(stream, &bytes).await?;
    server.end(stream, Some(sha256)).await?;
    let (_, _, files) = timeout(Duration::from_secs(60), server.delivery()).await??;
    client.abort();
    Ok(String::from_utf8(files.get("mock.log").context("no mock.log")?.clone())?)
}

#[tokio::test]
async fn an_assignments_repository_is_given_to_mock() -> Result {
    let added = FarmRepository::Added { host: "moji.example.org".into() };
    let log = mock_log(added, Some(RepositoryUrl::on_server(6790, "/generations/17/")?)).await?;
    let url = "http://moji.example.org:6790/generations/17/";
    assert_eq!(log.lines().next(), Some(format!("moji: BuildRequires also come from {url}").as_str()));
    assert!(log.contains(&format!(" --addrepo={url} --rebuild ")), "{log}");
    Ok(())
}

#[tokio::test]
async fn a_builder_whose_configs_have_the_repository_is_not_given_it() -> Result {
    let url = RepositoryUrl::on_server(6790, "/generations/18/")?;
    let added = FarmRepository::Added { host: "moji.example.org".into() };
    for log in [mock_log(FarmRepository::InConfigs, Some(url)).await?, mock_log(added, None).await?] {
        assert!(log.contains(" --rebuild ") && !log.contains("addrepo"), "{log}");
        assert!(!log.contains("BuildRequires also"), "{log}");
    }
    Ok(())
}
