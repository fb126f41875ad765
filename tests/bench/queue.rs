//! A folder with a long queue, and the server that has to do with it: the real program, and a builder that waits for it.
//!
//! The SRPMs are small, their headers are not: ten BuildRequires, two names that they become, forty changes. Half of them
//! need others in the queue. All of it lies in the kernel's cache.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Context as _;
use moji_server::source::srpm_header;
use moji_tests::support::peer::ScriptedBuilder;
use moji_tests::support::processes::{Farm, Program, now, wait_until};
use moji_tests::support::simulated::{registration, srpm_with_needs};
use rustix::process::Signal;
use tokio::net::TcpStream;

use crate::measure::Watch;
use crate::roles::TARGET;

/// What every package needs, and no SRPM becomes.
const COMMON: usize = 6;
/// What half of them need of others.
const NEEDS: usize = 4;
/// How much older than the server the SRPMs are.
const AGE: Duration = Duration::from_secs(3600);
/// How soon a builder that waits for the server tries again.
const AGAIN: Duration = Duration::from_millis(1);

/// So many SRPMs in SOURCE.
pub(super) struct Queue {
    farm: Farm,
    at: PathBuf,
}

/// A server that runs, and the builder that came first.
pub(super) struct Served {
    server: Program,
    builder: ScriptedBuilder<TcpStream>,
    /// Who else is connected.
    pub(super) others: Vec<ScriptedBuilder<TcpStream>>,
    pub(super) address: SocketAddr,
    /// From the start of the program to the first SRPM that was given out, in milliseconds.
    pub(super) first: f64,
}

impl Queue {
    /// Makes it.
    pub(super) fn make(at: &Path, count: usize) -> anyhow::Result<Self> {
        let farm = Farm::apart(Some(at), None);
        let source = farm.source("");
        fs::create_dir_all(&source)?;
        let long_ago = SystemTime::now() - AGE;
        for number in 0..count {
            let path = source.join(file_of(number));
            let becomes = [name_of(number), format!("{}-devel", name_of(number))];
            fs::write(&path, srpm_with_needs([&name_of(number), "1", "1"], &needs(number, count), &becomes))?;
            File::options().write(true).open(&path)?.set_modified(long_ago)?;
        }
        Ok(Self { farm, at: at.to_owned() })
    }

    /// The raw limit: every header read once, by one thread; in milliseconds.
    pub(super) fn read_headers(&self) -> anyhow::Result<f64> {
        let watch = Watch::start();
        for entry in fs::read_dir(self.farm.source(""))? {
            let file = File::open(entry?.path())?;
            let length = file.metadata()?.len();
            srpm_header(&file, length)?.map_err(anyhow::Error::msg)?;
        }
        Ok(watch.read().wall.as_secs_f64() * 1e3)
    }

    /// All as before the first server, and all SRPMs in SOURCE.
    pub(super) fn forget(&self) -> anyhow::Result<()> {
        self.put_back()?;
        for folder in ["working", "finished", "repo"] {
            match fs::remove_dir_all(self.at.join(folder)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error.into()),
                _ => {}
            }
        }
        Ok(())
    }

    /// What was given out is queued again, as far as the folders tell.
    fn put_back(&self) -> anyhow::Result<()> {
        let Ok(entries) = fs::read_dir(self.farm.working("")) else { return Ok(()) };
        for entry in entries {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                fs::rename(entry.path(), self.farm.source(entry.file_name()))?;
            }
        }
        let attempts = self.farm.working(".moji/attempts");
        if attempts.is_dir() {
            fs::remove_dir_all(attempts)?;
        }
        Ok(())
    }

    /// Starts the server; a builder that waits for it asks for work as soon as it can.
    pub(super) async fn serve(&self, builder: &str) -> anyhow::Result<Served> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let listen = address.to_string();
        let command = self.farm.server_command(&["--plaintext", "--listen", &listen]);
        let begin = now();
        let server = Program::start("the server", command);
        let stream = loop {
            match TcpStream::connect(address).await {
                Ok(stream) => break stream,
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        };
        let mut builder = enter(stream, builder).await?;
        builder.ask(0).await?;
        builder.assignment().await?;
        let first = begin.elapsed().as_secs_f64() * 1e3;
        Ok(Served { server, builder, others: Vec::new(), address, first })
    }

    /// Waits until the server has written down what the next one begins with.
    pub(super) fn wait_kept(&self) {
        wait_until("the headers to be kept", || self.farm.working(".moji/headers").exists());
    }

    /// A list is renamed into its place.
    pub(super) fn prefer(&self, number: usize) -> anyhow::Result<()> {
        let written = self.farm.source(".priority.new");
        fs::write(&written, format!("{}\n", file_of(number)))?;
        fs::rename(written, self.farm.source("priority.txt"))?;
        Ok(())
    }

    /// There is no list any more.
    pub(super) fn prefer_nothing(&self) -> anyhow::Result<()> {
        match fs::remove_file(self.farm.source("priority.txt")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}

impl Served {
    /// Ends it in order.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        drop((self.builder, self.others));
        self.server.signal(Signal::TERM);
        let status = self.server.wait_end();
        anyhow::ensure!(status.success(), "the server has ended with {status}");
        Ok(())
    }

    /// The most memory that it had at a time, in MiB.
    pub(super) fn peak(&self) -> anyhow::Result<f64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.server.id()))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|peak| peak.split_whitespace().next()).context("no VmHWM")?;
        Ok(peak.parse::<f64>()? / 1024.0)
    }
}

/// A builder with all the slots that one may have.
pub(super) async fn enter(stream: TcpStream, name: &str) -> anyhow::Result<ScriptedBuilder<TcpStream>> {
    moji_proto::io::tune(&stream)?;
    ScriptedBuilder::enter(stream, registration(name, &[TARGET], moji_proto::limits::SLOTS)?, None).await
}

pub(super) fn name_of(number: usize) -> String {
    format!("package-{number}")
}

pub(super) fn file_of(number: usize) -> String {
    format!("{}-1-1.src.rpm", name_of(number))
}

/// What one of so many needs: every second one of others, that need nothing of the queue themselves, or less.
fn needs(number: usize, count: usize) -> Vec<String> {
    let common = (0..COMMON).map(|n| format!("common-{n}"));
    let others = (0..NEEDS).map(|n| match number % 2 {
        0 => format!("elsewhere-{} >= 1", number * 7919 % 1000 + n),
        // Smaller numbers only: nobody waits for itself.
        _ => format!("{}-devel >= 1", name_of((number * 7919 + n * 104_729) % number.clamp(1, count))),
    });
    common.chain(others).collect()
}
