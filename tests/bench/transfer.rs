//! Results from builders to the server, from the announcement until the server has accepted them: one large artifact
//! on one connection, one on each of eight, and many small ones in one build. [`crate::delivering`] says what takes
//! part; beside it stands what cannot be left out ([`crate::raw`]), measured in turn with it.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, bail};

use crate::Settings;
use crate::delivering::{Delivered, Packed, big_name, deliver};
use crate::raw::{self, Rsyncd};
use crate::report::{Goal, Line};
use crate::roles::Wire;

/// How many builders deliver at once.
const TOGETHER: usize = 8;

/// A folder to measure in.
struct Place<'a> {
    /// What it is, in the keys of lines: `-memory`; nothing for the disk.
    suffix: &'static str,
    name: &'static str,
    folder: &'a Path,
}

/// On the disk, and in memory if there is room.
pub(super) fn measure(settings: &Settings) -> anyhow::Result<Vec<Line>> {
    let mut lines = Vec::new();
    let disk = Place { suffix: "", name: "disk", folder: &settings.folder };
    let memory = settings.memory.as_deref();
    let memory = memory.map(|folder| Place { suffix: "-memory", name: "in memory", folder });
    for place in [Some(disk), memory].into_iter().flatten() {
        let large = settings.large as u64;
        lines.extend(large_ones(&place, 1, large, settings.rounds)?);
        // As large when there is room for them, which is so in memory at the earliest: a disk takes minutes.
        let together = if place.suffix.is_empty() || free(&place)? < 12 * large { large / 4 } else { large };
        lines.extend(large_ones(&place, TOGETHER, together, settings.rounds)?);
        lines.extend(small_ones(&place, settings)?);
    }
    Ok(lines)
}

fn free(place: &Place<'_>) -> anyhow::Result<u64> {
    let room = rustix::fs::statvfs(place.folder)?;
    Ok(room.f_bavail * room.f_frsize)
}

fn large_ones(place: &Place<'_>, builders: usize, bytes: u64, rounds: usize) -> anyhow::Result<Vec<Line>> {
    let at = place.folder.join("transfer");
    let all = bytes * builders as u64;
    if free(place)? < bytes * 2 + all + (64 << 20) {
        bail!("{} has not enough room for {builders} times {} MiB", at.display(), bytes >> 20);
    }
    let packed = Packed::large(&at, usize::try_from(bytes)?)?;
    let rsyncd = Rsyncd::start(&at)?;
    let speed = |took: Duration| all as f64 / 1e6 / took.as_secs_f64();
    let (mut plain, mut secure, mut tls, mut hashed, mut rsync) = (vec![], vec![], vec![], vec![], vec![]);
    let (mut server, mut client, mut memory) = (vec![], vec![], vec![]);
    for _ in 0..rounds {
        tls.push(speed(raw::tls(&at.join("key"), bytes, builders)?));
        hashed.push(speed(raw::hash_and_write(&at, bytes, builders)?));
        let Delivered { wall, client: theirs, server: ours, memory: more } =
            deliver(&at, Wire::Tls, &packed, builders).context("with TLS")?;
        secure.push(speed(wall));
        server.push(ours.as_secs_f64() * 1e9 / all as f64);
        client.push(theirs.as_secs_f64() * 1e9 / all as f64);
        memory.push(more);
        plain.push(speed(deliver(&at, Wire::Plaintext, &packed, builders).context("without TLS")?.wall));
        if let Some(rsyncd) = &rsyncd {
            rsync.push(speed(rsyncd.send(&packed.folder.join(big_name()), builders)?));
        }
    }
    drop(rsyncd);
    fs::remove_dir_all(&at)?;
    let Place { suffix, name, .. } = place;
    let about = format!("{builders} × {} MiB, TLS, {name}", bytes >> 20);
    let key = |what: &str| format!("transfer-{builders}{what}{suffix}");
    let limit: Vec<_> = tls.iter().zip(&hashed).map(|(tls, hashed)| tls.min(*hashed)).collect();
    let ratio = |to: &[f64]| secure.iter().zip(to).map(|(ours, limit)| ours / limit).collect::<Vec<_>>();
    let mut lines = vec![
        Line::new(key("-ratio"), format!("{about}: of that minimum"), "")
            .values(ratio(&limit))
            .goal(Goal::AtLeast(0.85)),
        Line::new(key("-server-cpu"), format!("{about}: server's processor"), "s/GB").values(server),
        Line::new(key("-client-cpu"), format!("{about}: builders' processor"), "s/GB").values(client),
    ];
    if !rsync.is_empty() {
        let line =
            Line::new(key("-rsync"), format!("{about}: of rsyncd without TLS"), "").values(ratio(&rsync));
        lines.push(line.goal(Goal::AtLeast(1.0)));
    }
    let line = Line::new(
        format!("memory-transfer-{builders}{suffix}"),
        format!("{about}: server's memory at its peak beyond that before"),
        "MiB",
    );
    lines.push(match builders {
        TOGETHER => line.values(memory).goal(Goal::AtMost(32.0)),
        _ => line.values(memory),
    });
    let line = Line::new(key(""), about, "MB/s")
        .values(secure)
        .limit("TLS over loopback", tls)
        .limit("SHA-256, written, fsync", hashed)
        .limit("the minimum of both", limit)
        .beside("the same without TLS", plain);
    lines.insert(0, beside_rsync(line, rsync));
    Ok(lines)
}

fn small_ones(place: &Place<'_>, settings: &Settings) -> anyhow::Result<Vec<Line>> {
    let at = place.folder.join("small");
    fs::create_dir_all(&at)?;
    let rsyncd = Rsyncd::start(&at)?;
    let speed = |took: Duration| settings.small as f64 / took.as_secs_f64();
    let (mut ours, mut raw, mut rsync, mut server, mut packing) = (vec![], vec![], vec![], vec![], vec![]);
    for round in 0..settings.rounds {
        let packed = Packed::small(&at.join(format!("packed-{round}")), settings.small)?;
        packing.push(speed(packed.took));
        raw.push(speed(raw::small_files(&at, &packed.folder)?));
        let delivered = deliver(&at, Wire::Tls, &packed, 1)?;
        ours.push(speed(delivered.wall));
        server.push(delivered.server.as_secs_f64() * 1e3 / settings.small as f64);
        if let Some(rsyncd) = &rsyncd {
            rsync.push(speed(rsyncd.send(&packed.folder, 1)?));
        }
    }
    drop(rsyncd);
    fs::remove_dir_all(&at)?;
    let Place { suffix, name, .. } = place;
    let about = format!("{} small packages of one build, TLS, {name}", settings.small);
    let line = Line::new(format!("small-files{suffix}"), about.clone(), "files/s")
        .values(ours)
        .goal(Goal::AtLeast(1500.0))
        .limit("created, written, fsync, in a loop", raw);
    let packed = Line::new(
        format!("small-files-packing{suffix}"),
        format!("{about}: packed on the builder"),
        "files/s",
    );
    let server_cpu = Line::new(
        format!("small-files-server-cpu{suffix}"),
        format!("{about}: server's processor"),
        "ms/file",
    );
    Ok(vec![beside_rsync(line, rsync), server_cpu.values(server), packed.values(packing)])
}

fn beside_rsync(line: Line, rsync: Vec<f64>) -> Line {
    match rsync.is_empty() {
        true => Line { what: format!("{} (rsync is not installed)", line.what), ..line },
        false => line.limit("rsync to rsyncd without TLS, fsync", rsync),
    }
}
