//! One large artifact from a builder to the server, from the announcement until the server has accepted
//! it: read, sent, received, hashed, written, looked into, fsynced, published.
//!
//! The yardsticks are what cannot be left out: the same file copied by one thread, durable, with and
//! without its digest.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, anyhow, bail};
use jiff::Timestamp;
use moji_client::access::{Access, KnownServers, Secret};
use moji_client::connection::{self, FromServer, Link, Vitals};
use moji_client::delivery::{self, UploadEnd};
use moji_client::disk::FreeSpace;
use moji_client::outbox::{self, Finished, Parcel};
use moji_proto::io::Piece;
use moji_proto::limits::DATA_BYTES;
use moji_proto::{AttemptId, Hasher, Outcome, Phase, Sha256, ToServer};
use moji_tests::support::simulated::{rpm, srpm};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::Settings;
use crate::handshake::registration;
use crate::measure::{Used, Watch, median};
use crate::report::Table;
use crate::roles::{NAME, PASSWORD, Server, TARGET, VERSION, Wire, folders};

/// Files of the size of the artifact that are there at a time.
const COPIES: u64 = 3;

/// What one way to move the bytes has cost, a sample for each round.
#[derive(Default)]
struct Samples {
    /// Bytes in a second until all was safe, in millions.
    speed: Vec<f64>,
    /// The same until all was sent.
    sent: Vec<f64>,
    /// Seconds of the processor.
    client: Vec<f64>,
    server: Vec<f64>,
    /// The server's peak, in MiB.
    peak: Vec<f64>,
}

/// What a delivery has cost.
struct Delivery {
    sent: Duration,
    accepted: Used,
    server: Duration,
    /// In KiB.
    peak: u64,
}

/// Copies, and deliveries with and without TLS, in turn.
pub(super) fn measure(place: &str, folder: &Path, settings: &Settings) -> anyhow::Result<Table> {
    let size = settings.large as u64;
    let room = rustix::fs::statvfs(folder)?;
    if room.f_bavail * room.f_frsize < COPIES * size + (64 << 20) {
        bail!("{} has not enough room: {COPIES} times {} MiB are needed", folder.display(), size >> 20);
    }
    let at = folder.join("transfer");
    let packing = Watch::start();
    let (parcel, parcel_at) = pack(&at, settings.large)?;
    let packed = packing.read().wall;
    let big = parcel_at.join(big_name());
    let mut copies = [(false, "copy, fsync"), (true, "copy, sha256, fsync")]
        .map(|(hashed, name)| (hashed, name, Samples::default()));
    let mut deliveries = [Wire::Plaintext, Wire::Tls].map(|wire| (wire, Samples::default()));
    let speed = |time: Duration| size as f64 / 1e6 / time.as_secs_f64();
    for _ in 0..settings.rounds {
        for (hashed, _, samples) in &mut copies {
            let used = copy(&big, &at.join("copy"), *hashed)?;
            samples.speed.push(speed(used.wall));
            samples.client.push(used.processor.as_secs_f64());
        }
        for (wire, samples) in &mut deliveries {
            let delivery = deliver(&at, *wire, &parcel, &parcel_at).with_context(|| wire.name())?;
            samples.speed.push(speed(delivery.accepted.wall));
            samples.sent.push(speed(delivery.sent));
            samples.client.push(delivery.accepted.processor.as_secs_f64());
            samples.server.push(delivery.server.as_secs_f64());
            samples.peak.push(delivery.peak as f64 / 1024.0);
        }
    }
    fs::remove_dir_all(&at)?;
    let [(_, plaintext), _] = &deliveries;
    let base = median(&plaintext.speed);
    let mut rows: Vec<_> = copies.iter().map(|(_, name, samples)| row(name, samples, base)).collect();
    rows.extend(deliveries.iter().map(|(wire, samples)| row(wire.name(), samples, base)));
    Ok(Table {
        key: format!("transfer, {place}"),
        title: format!("An artifact of {} MiB, {place}: {}", size >> 20, folder.display()),
        columns: vec!["MB/s", "of plain", "sending", "client CPU", "server CPU", "server MiB"],
        rows,
        note: format!(
            "MB/s: until it was accepted, median of {}; sending: until all was sent; CPU: seconds of the \
             processor. Packing it before, on the builder: {:.2} s, with making it",
            settings.rounds,
            packed.as_secs_f64()
        ),
    })
}

fn row(name: &str, samples: &Samples, base: f64) -> (String, Vec<Option<f64>>) {
    let some = |values: &[f64]| (!values.is_empty()).then(|| median(values));
    let Samples { speed, sent, client, server, peak } = samples;
    let ratio = some(speed).map(|speed| speed / base);
    (name.to_owned(), vec![some(speed), ratio, some(sent), some(client), some(server), some(peak)])
}

fn srpm_name() -> String {
    format!("{NAME}-{VERSION}-1.src.rpm")
}

fn big_name() -> String {
    format!("{NAME}-{VERSION}-1.noarch.rpm")
}

/// The SRPM and a package built from it, with so many bytes, in a folder.
pub(super) fn make_results(folder: &Path, large: usize) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join(srpm_name()), srpm(NAME, VERSION, "1", 3_000))?;
    fs::write(folder.join(big_name()), rpm(NAME, VERSION, "1", &srpm_name(), large))
}

/// Results as a builder packs them.
fn pack(at: &Path, large: usize) -> anyhow::Result<(Parcel, PathBuf)> {
    let results = at.join("result");
    make_results(&results, large)?;
    let finished = Finished {
        attempt: AttemptId { boot: 11, serial: 1 },
        srpm: srpm_name().parse()?,
        srpm_sha256: Sha256::of(&srpm(NAME, VERSION, "1", 3_000)),
        target: TARGET.parse()?,
        outcome: Outcome::Succeeded,
        finished_at: Timestamp::now(),
    };
    let to = at.join("outbox").join(finished.attempt.to_string());
    let parcel = outbox::pack(&results, &at.join("mock.log"), &to, finished, 1 << 20, |_| Ok(()))?;
    Ok((parcel, to))
}

/// Copies a file, durably, and removes the copy.
fn copy(from: &Path, to: &Path, hashed: bool) -> io::Result<Used> {
    let (mut source, mut hasher, mut buffer) = (File::open(from)?, Hasher::new(), vec![0; DATA_BYTES]);
    let watch = Watch::start();
    let mut copy = File::create(to)?;
    loop {
        let length = source.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else { break };
        if hashed {
            hasher.update(bytes);
        }
        copy.write_all(bytes)?;
    }
    copy.sync_all()?;
    let used = watch.read();
    fs::remove_file(to)?;
    std::hint::black_box(hasher.finish());
    Ok(used)
}

/// A new server, one lease, one delivery.
fn deliver(at: &Path, wire: Wire, parcel: &Parcel, parcel_at: &Path) -> anyhow::Result<Delivery> {
    let source = folders(at).source;
    fs::create_dir_all(&source)?;
    let queued = source.join(srpm_name());
    fs::write(&queued, srpm(NAME, VERSION, "1", 3_000))?;
    // One that has not just been written is taken at once.
    let long_ago = SystemTime::now() - Duration::from_secs(3600);
    File::options().write(true).open(&queued)?.set_modified(long_ago)?;
    let mut server = Server::start(at, wire)?;
    let runtime = Runtime::new()?;
    let delivery = runtime.block_on(async {
        let secret = Secret::Password(PASSWORD.to_owned());
        let access = match wire {
            Wire::Tls => Access::encrypted(secret, None, KnownServers::new(at)),
            Wire::Plaintext => Access::plaintext(secret, None),
        };
        let mut builder = Builder::connect(&server, access).await?;
        let attempt = builder.lease().await?;
        let (before, _) = server.used()?;
        let watch = Watch::start();
        let sent = builder.deliver(attempt, parcel, parcel_at, &watch).await?;
        let accepted = watch.read();
        let (after, peak) = server.used()?;
        anyhow::Ok(Delivery { sent, accepted, server: after - before, peak })
    })?;
    drop(server);
    let published = folders(at).repo.join(format!("{NAME}-{VERSION}-1")).join(big_name());
    if published.metadata()?.len() != parcel_at.join(big_name()).metadata()?.len() {
        bail!("{} is not what was delivered", published.display());
    }
    fs::remove_dir_all(at.join("farm"))?;
    let _ = fs::remove_file(at.join("known_servers"));
    Ok(delivery)
}

/// The client's own connection and upload, without the rest of a client.
struct Builder {
    link: Link,
    events: mpsc::Receiver<FromServer>,
    attempts: watch::Sender<Vec<(AttemptId, Phase)>>,
    connection: JoinHandle<anyhow::Result<()>>,
}

impl Builder {
    async fn connect(server: &Server, mut access: Access) -> anyhow::Result<Self> {
        let (events_tx, mut events) = mpsc::channel(16);
        let (attempts, attempts_rx) = watch::channel(Vec::new());
        let vitals = Vitals { attempts: attempts_rx, free_space: FreeSpace::new(|| None) };
        let (address, registration) = (server.address, registration("builder")?);
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

    /// Delivers, and waits until that is accepted. Gives when all was sent.
    async fn deliver(
        &mut self,
        attempt: AttemptId,
        parcel: &Parcel,
        at: &Path,
        watch: &Watch,
    ) -> anyhow::Result<Duration> {
        self.link.out.send(&delivery::announcement(attempt, parcel))?;
        delivery::list(&self.link, attempt, parcel).await?;
        let wanted = match self.event().await? {
            FromServer::Wanted { offset, part, .. } => (offset, part),
            other => bail!("{other:?} came instead of what is wanted"),
        };
        let sent = delivery::upload(self.link.clone(), attempt, parcel, at.to_owned(), wanted).await;
        let sent_at = watch.read().wall;
        match (sent, self.event().await?) {
            (UploadEnd::Said, FromServer::Accepted(_)) => Ok(sent_at),
            (sent, event) => bail!("{sent:?}, and {event:?}"),
        }
    }
}
