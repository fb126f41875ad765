//! Deliveries of results to a server in a process of its own: from the announcement until the server has accepted
//! them, over the client's own connection and upload (moji-client's library, in this process). A builder reads its
//! outbox, encrypts and sends; the server decrypts, hashes, writes, verifies, makes durable and publishes.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow, bail};
use jiff::Timestamp;
use moji_client::access::{Access, KnownServers, Secret};
use moji_client::connection::{self, FromServer, Link, Vitals};
use moji_client::delivery::{self, UploadEnd};
use moji_client::disk::FreeSpace;
use moji_client::outbox::{self, Files, Finished, Parcel};
use moji_proto::io::Piece;
use moji_proto::{AttemptId, Outcome, Phase, Sha256, TargetName, ToServer};
use moji_tests::support::simulated::{rpm, srpm};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::handshake::registration;
use crate::measure::{Used, Watch};
use crate::roles::{NAME, PASSWORD, Server, VERSION, Wire, folders};

/// The SRPM of everything that is delivered here.
pub(super) fn srpm_name() -> String {
    format!("{NAME}-{VERSION}-1.src.rpm")
}

/// The one large package.
pub(super) fn big_name() -> String {
    format!("{NAME}-{VERSION}-1.noarch.rpm")
}

/// The SRPM and a package built from it, with so many bytes, in a folder.
pub(super) fn make_results(folder: &Path, large: usize) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join(srpm_name()), srpm(NAME, VERSION, "1", 3_000))?;
    fs::write(folder.join(big_name()), rpm(NAME, VERSION, "1", &srpm_name(), large))
}

/// Results in a builder's outbox.
pub(super) struct Packed {
    parcel: Parcel,
    pub(super) folder: PathBuf,
    /// How long it took to pack them: digests, and everything durable.
    pub(super) took: Duration,
}

impl Packed {
    /// The SRPM and a package built from it, with so many bytes.
    pub(super) fn large(at: &Path, bytes: usize) -> anyhow::Result<Self> {
        Self::pack(at, |results| make_results(results, bytes))
    }

    /// The SRPM and many small packages built from it.
    pub(super) fn small(at: &Path, count: usize) -> anyhow::Result<Self> {
        Self::pack(at, |results| {
            (0..count).try_for_each(|number| {
                let name = format!("{NAME}-{number}");
                let file = results.join(format!("{name}-{VERSION}-1.noarch.rpm"));
                fs::write(file, rpm(&name, VERSION, "1", &srpm_name(), 2_000))
            })
        })
    }

    fn pack(at: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> anyhow::Result<Self> {
        let results = at.join("result");
        make_results(&results, 2_000)?;
        make(&results)?;
        let source = srpm(NAME, VERSION, "1", 3_000);
        let finished = Finished {
            attempt: AttemptId { boot: 11, serial: 1 },
            srpm: srpm_name().parse()?,
            srpm_sha256: Sha256::of(&source),
            target: target(0)?,
            outcome: Outcome::Succeeded,
            finished_at: Timestamp::now(),
        };
        let folder = at.join("outbox").join(finished.attempt.to_string());
        let packing = Watch::start();
        let parcel = outbox::pack(
            &results,
            &at.join("mock.log"),
            &folder,
            finished,
            (Files::AsBuilt, 1 << 20),
            |_| Ok(()),
        )?;
        Ok(Self { parcel, folder, took: packing.read().wall })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.parcel.bytes()
    }
}

/// What deliveries have cost.
pub(super) struct Delivered {
    /// Until all of them were accepted.
    pub(super) wall: Duration,
    /// The processor's time of this process: the builders'.
    pub(super) client: Duration,
    pub(super) server: Duration,
    /// How much more memory the server had at its peak, meanwhile, than right before, in MiB.
    pub(super) memory: f64,
}

/// The same results from so many builders at a time, each for a target of its own, to a new server.
pub(super) fn deliver(at: &Path, wire: Wire, packed: &Packed, builders: usize) -> anyhow::Result<Delivered> {
    for number in 0..builders {
        queue(&folders(at).source.join(target(number)?.as_str()))?;
    }
    let mut server = Server::start(at, wire)?;
    let delivered = Runtime::new()?.block_on(async {
        let mut ready = Vec::new();
        for number in 0..builders {
            ready.push(Builder::with_lease(at, &server, wire, number).await?);
        }
        let (before, memory_before) = server.used()?;
        let watch = Watch::start();
        let mut deliveries = JoinSet::new();
        for (mut builder, attempt) in ready {
            let (parcel, folder) = (packed.parcel.clone(), packed.folder.clone());
            deliveries.spawn(async move {
                builder.deliver(attempt, &parcel, &folder).await?;
                anyhow::Ok(builder)
            });
        }
        let mut done = Vec::new();
        while let Some(one) = deliveries.join_next().await {
            done.push(one??);
        }
        let Used { wall, processor: client } = watch.read();
        let (after, memory_after) = server.used()?;
        let memory = memory_after.peak.saturating_sub(memory_before.now) as f64 / 1024.0;
        anyhow::Ok(Delivered { wall, client, server: after - before, memory })
    })?;
    drop(server);
    for number in 0..builders {
        let published = folders(at).repo.join(target(number)?.as_str()).join(format!("{NAME}-{VERSION}-1"));
        let bytes = fs::read_dir(&published)?
            .try_fold(0, |sum, entry| Ok::<_, io::Error>(sum + entry?.metadata()?.len()))?;
        if bytes <= packed.bytes() {
            bail!("{} is not what was delivered", published.display());
        }
    }
    fs::remove_dir_all(at.join("farm"))?;
    let _ = fs::remove_file(at.join("known_servers"));
    Ok(delivered)
}

fn target(number: usize) -> anyhow::Result<TargetName> {
    Ok(format!("target-{number}").parse()?)
}

fn queue(source: &Path) -> io::Result<()> {
    fs::create_dir_all(source)?;
    let queued = source.join(srpm_name());
    fs::write(&queued, srpm(NAME, VERSION, "1", 3_000))?;
    // One that has not just been written is taken at once.
    File::options().write(true).open(&queued)?.set_modified(SystemTime::now() - Duration::from_secs(3600))
}

/// The client's own connection and upload, without the rest of a client.
struct Builder {
    link: Link,
    events: mpsc::Receiver<FromServer>,
    attempts: watch::Sender<Vec<(AttemptId, Phase)>>,
    connection: JoinHandle<anyhow::Result<()>>,
}

impl Builder {
    async fn with_lease(
        at: &Path,
        server: &Server,
        wire: Wire,
        number: usize,
    ) -> anyhow::Result<(Self, AttemptId)> {
        let secret = Secret::Password(PASSWORD.to_owned());
        let access = match wire {
            Wire::Tls => Access::encrypted(secret, None, KnownServers::new(at)),
            Wire::Plaintext => Access::plaintext(secret, None),
        };
        let mut builder = Self::connect(server, access, number).await?;
        let attempt = builder.lease().await?;
        Ok((builder, attempt))
    }

    async fn connect(server: &Server, mut access: Access, number: usize) -> anyhow::Result<Self> {
        let (events_tx, mut events) = mpsc::channel(16);
        let (attempts, attempts_rx) = watch::channel(Vec::new());
        let vitals = Vitals { attempts: attempts_rx, free_space: FreeSpace::new(|| None) };
        let mut registration = registration(&format!("builder-{number}"))?;
        registration.targets = vec![target(number)?];
        let address = server.address;
        let io = TcpStream::connect(address).await?;
        moji_proto::io::tune(&io)?;
        let connection = tokio::spawn(async move {
            let (server, goodbye) = (address.to_string(), CancellationToken::new());
            let serving =
                connection::serve(io, &server, &mut access, registration, vitals, events_tx, goodbye);
            serving.await
        });
        let link = match events.recv().await {
            Some(FromServer::Connected(link)) => link,
            other => bail!("{other:?} came instead of a welcome: {:?}", connection.await),
        };
        Ok(Self { link, events, attempts, connection })
    }

    async fn event(&mut self) -> anyhow::Result<FromServer> {
        match self.events.recv().await {
            Some(event) => Ok(event),
            None => Err(anyhow!("the connection has ended: {:?}", (&mut self.connection).await)),
        }
    }

    /// Asks for work, and takes its SRPM.
    async fn lease(&mut self) -> anyhow::Result<AttemptId> {
        self.link.out.send(&ToServer::Ask { slot: 0 })?;
        let (assignment, mut stream) = match self.event().await? {
            FromServer::Assigned(assignment, stream) => (assignment, stream),
            other => bail!("{other:?} came instead of work"),
        };
        loop {
            match stream.next().await {
                Some(Piece::Data(bytes)) => stream.wrote(bytes.len() as u64)?,
                Some(Piece::End(_)) => break,
                other => bail!("{other:?} came instead of the SRPM"),
            }
        }
        self.attempts.send_replace(vec![(assignment.attempt, Phase::Delivering)]);
        Ok(assignment.attempt)
    }

    /// Delivers, and waits until that is accepted.
    async fn deliver(&mut self, attempt: AttemptId, parcel: &Parcel, folder: &Path) -> anyhow::Result<()> {
        self.link.out.send(&delivery::announcement(attempt, parcel))?;
        delivery::list(&self.link, attempt, parcel).await?;
        let wanted = match self.event().await? {
            FromServer::Wanted { offset, part, .. } => (offset, part),
            other => bail!("{other:?} came instead of what is wanted"),
        };
        let sent = delivery::upload(self.link.clone(), attempt, parcel, folder.to_owned(), wanted).await;
        match (sent, self.event().await.context("waiting for the verdict")?) {
            (UploadEnd::Said, FromServer::Accepted(_)) => Ok(()),
            (sent, event) => bail!("{sent:?}, and {event:?}"),
        }
    }
}
