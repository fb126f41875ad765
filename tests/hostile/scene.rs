//! A farm with something to lose, and what must be so when the liar has gone.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use moji_proto::{Assignment, AttemptId, LogFile, Outcome, Phase, Sha256, StreamId, ToBuilder, ToServer};
use moji_tests::support::simulated::{
    Peer, ScriptedBuilder, Site, TestServer, manifest, names_in, registration, rpm, srpm,
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tracing::subscriber::DefaultGuard;

/// What only the liar, and the honest builder that comes after it, build for.
pub(crate) const DEN: &str = "den";
/// What everybody else builds for.
pub(crate) const TARGET: &str = "f43";
/// The password that builders know; the liar too.
pub(crate) const PASSWORD: &str = "correct horse";
/// No wait for the server is longer, on the paused clock.
const PATIENCE: Duration = Duration::from_secs(120);

/// A farm: something published, something queued, a builder in the middle of its delivery.
pub(crate) struct Scene {
    pub(crate) server: TestServer,
    /// The attempt of the builder that does nothing wrong.
    pub(crate) bystander: AttemptId,
    /// What it builds.
    pub(crate) bystander_srpm: Assignment,
    log: Captured,
    before: Snapshot,
    finish: oneshot::Sender<()>,
    bystanding: JoinHandle<anyhow::Result<()>>,
    preys: usize,
    /// What the liar has had published, fairly.
    published: Vec<String>,
    _log: DefaultGuard,
}

impl Scene {
    pub(crate) async fn begin() -> anyhow::Result<Self> {
        let log = Captured::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(tracing::Level::INFO)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        let guard = tracing::subscriber::set_default(subscriber);
        let server = TestServer::start(Site::new()?, |config| {
            config.password = Some(PASSWORD.into());
            config.log_limit = 64 << 20;
        });
        let mut early = server.builder("early", &[TARGET], 1).await?;
        put(&server.site, TARGET, "published")?;
        build(&mut early, "published").await?;
        drop(early);
        put(&server.site, TARGET, "bystander")?;
        let (bystander, finish, srpm) = Bystander::begin(&server).await?;
        let attempt = bystander.attempt;
        let bystanding = tokio::spawn(bystander.go_on(finish.1));
        put(&server.site, TARGET, "waiting")?;
        let mut scene = Self {
            server,
            bystander: attempt,
            bystander_srpm: srpm,
            log,
            before: Snapshot::default(),
            finish: finish.0,
            bystanding,
            preys: 0,
            published: Vec::new(),
            _log: guard,
        };
        scene.before = scene.settled().await?;
        Ok(scene)
    }

    /// The liar, let in.
    pub(crate) async fn liar(&self) -> anyhow::Result<ScriptedBuilder> {
        self.liar_named("liar").await
    }

    pub(crate) async fn liar_named(&self, name: &str) -> anyhow::Result<ScriptedBuilder> {
        Peer::enter(self.server.connect()?, registration(name, &[DEN], 4)?, Some(PASSWORD)).await
    }

    /// A new SRPM for it. Gives the name of its package.
    pub(crate) fn prey(&mut self) -> anyhow::Result<String> {
        self.preys += 1;
        let name = format!("prey{}", self.preys);
        put(&self.server.site, DEN, &name)?;
        Ok(name)
    }

    /// The liar with an SRPM of its own.
    pub(crate) async fn leased(&mut self) -> anyhow::Result<(ScriptedBuilder, Assignment)> {
        let mut liar = self.liar().await?;
        self.prey()?;
        let assignment = timeout(PATIENCE, liar.lease(0)).await.context("the liar got no work")??;
        Ok((liar, assignment))
    }

    /// The liar may have had this published: `prey1-1-1`.
    pub(crate) fn was_published(&mut self, folder: &str) {
        self.published.push(folder.to_owned());
    }

    /// Lines of the server's log that hold a text.
    pub(crate) fn log_lines(&self, text: &str) -> usize {
        self.log.text().lines().filter(|line| line.contains(text)).count()
    }

    /// What must be so when the liar has gone.
    pub(crate) async fn end(self) -> anyhow::Result<()> {
        // What was orphaned is queued again.
        sleep(Duration::from_secs(20)).await;
        let after = self.settled().await?;
        self.before.compare(&after)?;
        let site = &self.server.site;
        ensure!(names_in(site.path()) == ["finished", "repo", "source", "working"], "a file outside");
        let mut published = site.published(DEN);
        published.retain(|name| name != "repodata" && name != "generations");
        ensure!(published == self.published, "published: {published:?}");
        check_staging(&site.folders.attempts(), self.bystander)?;
        // The one in the middle of its delivery has not noticed anything.
        let _ = self.finish.send(());
        self.bystanding.await?.context("the bystander was disturbed")?;
        check_published(&self.server, TARGET, "bystander")?;
        // Who comes now gets work, also what the liar had.
        let mut honest = timeout(PATIENCE, self.server.builder("honest", &[TARGET], 1)).await??;
        build(&mut honest, "waiting").await?;
        check_published(&self.server, TARGET, "waiting")?;
        put(site, DEN, "after")?;
        let mut heir = self.server.builder("heir", &[DEN], 1).await?;
        // Not what waits for what the liar has said that is missing.
        let is_parked =
            |srpm: &str| site.record(srpm.trim_end_matches(".src.rpm")).is_some_and(|record| record.parked);
        let waits = |srpm: &&String| srpm.starts_with(DEN) && !is_parked(srpm);
        let waiting = site.source().iter().filter(waits).count();
        for _ in 0..waiting {
            timeout(PATIENCE, build_any(&mut heir)).await.context("the heir gets no work")??;
        }
        check_published(&self.server, DEN, "after")?;
        check_json(&site.folders.repo)?;
        check_json(&site.folders.finished)?;
        self.log.check()
    }

    /// All files, as soon as nothing moves any more.
    async fn settled(&self) -> anyhow::Result<Snapshot> {
        let mut last = Snapshot::of(&self.server.site, self.bystander)?;
        for _ in 0..100 {
            sleep(Duration::from_secs(3)).await;
            let now = Snapshot::of(&self.server.site, self.bystander)?;
            if now == last {
                return Ok(now);
            }
            last = now;
        }
        bail!("the server's folders do not come to rest")
    }
}

/// Puts the SRPM of a package into a target's folder.
fn put(site: &Site, target: &str, name: &str) -> io::Result<()> {
    site.put(&format!("{target}/{name}-1-1.src.rpm"), &srpm(name, "1", "1", 3_000))
}

/// Builds the SRPM of a package, as an honest builder does.
async fn build(builder: &mut ScriptedBuilder, name: &str) -> anyhow::Result<()> {
    let built = timeout(PATIENCE, build_any(builder)).await.context("no work for an honest builder")??;
    ensure!(built == format!("{name}-1-1"), "{built} was given out instead of {name}");
    Ok(())
}

async fn build_any(builder: &mut ScriptedBuilder) -> anyhow::Result<String> {
    let assignment = builder.lease(0).await?;
    let (attempt, stem) = (assignment.attempt, assignment.srpm.stem().to_owned());
    let name = stem.trim_end_matches("-1-1");
    let rpm = rpm(name, "1", "1", assignment.srpm.as_str(), 5_000);
    let source = srpm(name, "1", "1", 300);
    let files: [(&str, &[u8]); 3] =
        [("build.log", b"built"), (&format!("{stem}.noarch.rpm"), &rpm), (assignment.srpm.as_str(), &source)];
    builder.deliver(attempt, Outcome::Succeeded, &files).await?;
    match builder.word().await? {
        ToBuilder::Accepted { attempt: accepted } if accepted == attempt => Ok(stem),
        other => bail!("{other:?} came instead of an acceptance"),
    }
}

fn check_published(server: &TestServer, target: &str, name: &str) -> anyhow::Result<()> {
    let folder = Path::new(target).join(format!("{name}-1-1"));
    let names = names_in(&server.site.folders.repo.join(&folder));
    ensure!(names.contains(&format!("{name}-1-1.noarch.rpm")), "{} has {names:?}", folder.display());
    Ok(())
}

/// A builder in the middle of its delivery, which goes on while the liar plays.
struct Bystander {
    builder: ScriptedBuilder,
    attempt: AttemptId,
    stream: StreamId,
    rest: Vec<u8>,
}

impl Bystander {
    async fn begin(
        server: &TestServer,
    ) -> anyhow::Result<(Self, (oneshot::Sender<()>, oneshot::Receiver<()>), Assignment)> {
        let mut builder = server.builder("bystander", &[TARGET], 1).await?;
        let assignment = builder.lease(0).await?;
        let attempt = assignment.attempt;
        let log = builder.next_stream();
        builder.say(ToServer::Log { attempt, file: LogFile::Build, offset: 0, stream: log }).await?;
        builder.data(log, b"half of a log").await?;
        builder.until(|peer| peer.received(log) == 13).await?;
        let rpm = rpm("bystander", "1", "1", "bystander-1-1.src.rpm", 50_000);
        let source = srpm("bystander", "1", "1", 300);
        let files = [("bystander-1-1.noarch.rpm", &rpm[..]), ("bystander-1-1.src.rpm", &source)];
        let listed = manifest(&files)?;
        builder.announce(attempt, Outcome::Succeeded, &listed).await?;
        ensure!(matches!(builder.word().await?, ToBuilder::Wanted { offset: 0, .. }), "not wanted");
        let stream = builder.next_stream();
        builder.say(ToServer::Upload { attempt, offset: 0, stream }).await?;
        builder.data(stream, &rpm[..20_000]).await?;
        builder.until(|peer| peer.received(stream) == 20_000).await?;
        let rest = [&rpm[20_000..], &source].concat();
        Ok((Self { builder, attempt, stream, rest }, oneshot::channel(), assignment))
    }

    async fn go_on(mut self, mut finish: oneshot::Receiver<()>) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                biased;
                finished = &mut finish => {
                    finished?;
                    break;
                }
                () = sleep(Duration::from_secs(5)) => {}
            }
            let attempts = vec![(self.attempt, Phase::Delivering)];
            self.builder.say(ToServer::Heartbeat { disk: None, attempts }).await?;
            match self.builder.hear().await? {
                ToBuilder::HeartbeatSeen => {}
                other => bail!("{other:?} came out of the blue"),
            }
        }
        self.builder.data(self.stream, &self.rest).await?;
        self.builder.end(self.stream, None).await?;
        match self.builder.word().await? {
            ToBuilder::Accepted { attempt } if attempt == self.attempt => Ok(()),
            other => bail!("{other:?} came instead of an acceptance"),
        }
    }
}

/// What lies where, except what the liar may touch: its own attempts, the SRPMs and results of its den,
/// and the history's files, which are told of it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Snapshot(BTreeMap<PathBuf, Found>);

#[derive(Debug, PartialEq, Eq)]
enum Found {
    Folder,
    File(Sha256),
    Other,
}

impl Snapshot {
    fn of(site: &Site, bystander: AttemptId) -> io::Result<Self> {
        let mut snapshot = Self::default();
        let attempts = site.folders.attempts();
        let own = site.folders.attempt(bystander);
        snapshot.add(site.path(), &|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name == DEN
                || name.starts_with("history.sqlite")
                // What is known of SRPMs, for the next start.
                || name == "headers"
                || (path.starts_with(&attempts) && path != attempts && !path.starts_with(&own))
        })?;
        Ok(snapshot)
    }

    fn add(&mut self, folder: &Path, is_left_out: &dyn Fn(&Path) -> bool) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if is_left_out(&path) {
                continue;
            }
            let kind = match fs::symlink_metadata(&path) {
                // Moved while we looked: the next look finds it.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                data => data?.file_type(),
            };
            let found = if kind.is_dir() {
                self.add(&path, is_left_out)?;
                Found::Folder
            } else if kind.is_file() {
                Found::File(Sha256::of(&fs::read(&path)?))
            } else {
                Found::Other
            };
            self.0.insert(path, found);
        }
        Ok(())
    }

    fn compare(&self, after: &Self) -> anyhow::Result<()> {
        for (path, found) in &self.0 {
            ensure!(after.0.get(path) == Some(found), "{} is not what it was", path.display());
        }
        for path in after.0.keys() {
            ensure!(self.0.contains_key(path), "{} is there, and should not be", path.display());
        }
        Ok(())
    }
}

/// What is staged for the liar are plain files with harmless names.
fn check_staging(attempts: &Path, bystander: AttemptId) -> anyhow::Result<()> {
    for attempt in names_in(attempts).into_iter().filter(|name| *name != bystander.to_string()) {
        let folder = attempts.join(&attempt);
        for name in names_in(&folder) {
            let known = ["lease.json", "root.log", "build.log", "state.log", "mock.log", "results"];
            ensure!(known.contains(&name.as_str()), "{name} in {attempt}");
        }
        for name in names_in(&folder.join("results")) {
            moji_proto::ArtifactName::new(name.as_str())?;
            ensure!(fs::symlink_metadata(folder.join("results").join(name))?.is_file(), "no file");
        }
    }
    Ok(())
}

/// What is read by programs can be read by them.
fn check_json(folder: &Path) -> anyhow::Result<()> {
    for name in names_in(folder) {
        let path = folder.join(&name);
        if fs::symlink_metadata(&path)?.is_dir() {
            check_json(&path)?;
        } else if name.ends_with(".json") {
            let json = fs::read_to_string(&path)?;
            serde_json::from_str::<serde_json::Value>(&json).with_context(|| path.display().to_string())?;
            ensure!(!json.chars().any(|c| c.is_control() && c != '\n'), "{}: {json:?}", path.display());
        }
    }
    Ok(())
}

/// The server's log.
#[derive(Debug, Clone, Default)]
struct Captured(Arc<Mutex<Vec<u8>>>);

impl Write for Captured {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Captured {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
    }

    /// A terminal that shows it does nothing but show it, and each line is the server's own.
    fn check(&self) -> anyhow::Result<()> {
        let text = self.text();
        ensure!(text.contains("published-1-1"), "the log was not caught: {text}");
        for line in text.lines() {
            let is_own =
                line.split_whitespace().nth(1).is_some_and(|level| ["INFO", "WARN"].contains(&level));
            ensure!(is_own, "not a line of the server: {line:?}");
            let invisible = |c: char| {
                c.is_control()
                    || matches!(c, '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
            };
            ensure!(!line.chars().any(invisible), "in the log: {line:?}");
            ensure!(line.len() < 4096, "a line of {} bytes", line.len());
        }
        let lines = text.lines().count();
        ensure!(lines < 300, "{lines} lines of log");
        Ok(())
    }
}

/// The connection is closed by the server, perhaps with a last word. Gives what was said.
pub(crate) async fn is_closed(mut peer: ScriptedBuilder) -> anyhow::Result<Vec<ToBuilder>> {
    timeout(PATIENCE, peer.to_the_end()).await.context("the connection was not closed")
}

/// The next word is that this attempt is not the peer's.
pub(crate) async fn is_stale(peer: &mut ScriptedBuilder, attempt: AttemptId) -> anyhow::Result<()> {
    match timeout(PATIENCE, peer.word()).await.context("no answer")?? {
        ToBuilder::Stale { attempt: about } if about == attempt => Ok(()),
        other => bail!("{other:?} came instead of a refusal"),
    }
}
