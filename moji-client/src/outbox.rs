//! Finished results: made durable here before anything else happens with them, and kept until the
//! server has said its last word. Blocks.
//!
//! `WORK_DIR/outbox/<attempt>/` appears by one rename, whole, with a `parcel.json` that says all that
//! is needed to offer it again. A failed fsync is not simply tried again: fsync(2) tells of an error once, and the next one
//! of the same file succeeds although its data are not on the disk (errseq_t, Linux 4.13). It deliberately does not know connections, nor when anything is sent.

mod left;
mod reader;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use jiff::Timestamp;
use moji_proto::limits::DATA_BYTES;
use moji_proto::{
    ArtifactName, AttemptId, FailureKind, Hasher, ManifestEntry, Outcome, Sha256, SrpmName, TargetName,
};
use rustix::fs::{Advice, fadvise};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::crash::{self, Point};
use crate::mock::{logs, results};

pub(crate) use left::{FINISHED, note_finished, pack_left, remove_slot};
pub use reader::ParcelReader;

/// What `parcel.json` looks like: counts up when it changes.
const FORMAT: u32 = 1;
/// The file that makes a folder a parcel.
const PARCEL: &str = "parcel.json";
/// Mock's result directory in a slot's folder.
pub(crate) const RESULT: &str = "result";
/// Mock's own output there.
pub(crate) const MOCK_LOG: &str = "mock.log";
/// Files that are open at a time, to be synced together.
const OPEN_MAX: usize = 64;
/// A longer file fills the disk's queue by itself.
const SMALL: u64 = 1 << 20;
/// No `parcel.json` is longer; a manifest of the most files is a tenth of it.
const PARCEL_MAX: u64 = 16 << 20;

/// A finished attempt: all that is needed to offer it to the server, whenever that may be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Parcel {
    /// The `FORMAT` of the client that wrote it.
    format: u32,
    /// The attempt.
    pub attempt: AttemptId,
    /// What was built.
    pub srpm: SrpmName,
    /// The digest of what was built.
    pub srpm_sha256: Sha256,
    /// What it was built for.
    pub target: TargetName,
    /// How it ended.
    pub outcome: Outcome,
    /// When.
    pub finished_at: Timestamp,
    /// Its files, in the order in which they travel.
    pub manifest: Vec<ManifestEntry>,
}

impl Parcel {
    /// The size of all files.
    pub fn bytes(&self) -> u64 {
        self.manifest.iter().fold(0, |sum, entry| sum.saturating_add(entry.size))
    }

    /// How long it has been waiting, as far as the clocks are right.
    pub fn age(&self, now: Timestamp) -> Duration {
        Duration::try_from(now.duration_since(self.finished_at)).unwrap_or_default()
    }
}

/// What is packed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Finished {
    /// The attempt.
    pub attempt: AttemptId,
    /// What was built.
    pub srpm: SrpmName,
    /// Its digest.
    pub srpm_sha256: Sha256,
    /// What it was built for.
    pub target: TargetName,
    /// How it ended.
    pub outcome: Outcome,
    /// When.
    pub finished_at: Timestamp,
}

/// Steps of [`pack`]. The client may be killed, or the machine lose its power, after each.
///
/// | after | what is found | what the next start does |
/// |---|---|---|
/// | before | the results in the slot's folder, and `finished.json` beside them | packs them, unless the machine was started anew |
/// | `LogMoved` | the same, with `mock.log` among them | the same |
/// | `FilesSynced` | the same, durable, logs cut | the same |
/// | `Described` | the same, with a `parcel.json` | the same: only what lies in the outbox is one |
/// | `DescribedDurably` | the same | the same |
/// | `Moved` | a whole parcel in the outbox, or (without power) still in the slot's folder | offers it, or packs it |
/// | `MovedDurably` | a whole parcel in the outbox | offers it |
///
/// A step that fails, for example because the disk is full, leaves everything where it is: packing can
/// be tried again, and goes through all steps once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Mock's own output is among the results.
    LogMoved,
    /// Logs are cut; every file that travels has its size and digest taken, and is durable.
    FilesSynced,
    /// `parcel.json` is there, written and synced under another name before.
    Described,
    /// And its name is durable, as are the names of all files.
    DescribedDurably,
    /// The folder is in the outbox.
    Moved,
    /// And its name is durable there.
    MovedDurably,
}

impl Step {
    /// All of them, in order.
    pub const ALL: [Self; 6] = [
        Self::LogMoved,
        Self::FilesSynced,
        Self::Described,
        Self::DescribedDurably,
        Self::Moved,
        Self::MovedDurably,
    ];
}

/// What is made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Files {
    /// The files that the build has written.
    AsBuilt,
    /// Copies that take their place: an fsync of these files may have failed before, and would not say so again.
    Copied,
}

/// The disk has not taken a file that was to be durable: from now on [`Files::Copied`].
#[derive(Debug, thiserror::Error)]
#[error("the disk has not taken all of it")]
struct NotTaken(#[source] io::Error);

/// Removes the RPMs of an attempt that has failed: they are not published, and may be what has filled
/// the disk.
pub(crate) fn drop_rpms(resultdir: &Path) {
    for entry in fs::read_dir(resultdir).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().ends_with(".rpm") {
            let _ = remove_any(&entry.path());
        }
    }
}

/// Makes what an attempt left in `resultdir` durable, and moves it to `to` in the outbox: logs cut to
/// `log_limit` bytes, every file that may travel with its size and digest. `passed` is called after
/// each step.
///
/// # Errors
/// When the disk is full ([`is_disk_trouble`]) or something cannot be read. Everything is still in
/// `resultdir` then; after [`was_not_taken`] the next try must be with [`Files::Copied`].
pub fn pack(
    resultdir: &Path,
    mock_log: &Path,
    to: &Path,
    finished: Finished,
    (files, log_limit): (Files, u64),
    mut passed: impl FnMut(Step) -> io::Result<()>,
) -> anyhow::Result<Parcel> {
    let cannot = |what: &Path| format!("cannot pack {}", what.display());
    match fs::rename(mock_log, resultdir.join("mock.log")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(error).with_context(|| cannot(mock_log));
        }
        _ => passed(Step::LogMoved)?,
    }
    let (manifest, lacking) = describe_all(resultdir, files, log_limit)?;
    passed(Step::FilesSynced)?;

    let Finished { attempt, srpm, srpm_sha256, target, outcome, finished_at } = finished;
    let outcome = match lacking.filter(|_| outcome.is_success()) {
        // Half of a result would be published for ever.
        Some(why) => Outcome::failed(FailureKind::Infrastructure, &why, None, Vec::new()),
        None => outcome,
    };
    let parcel =
        Parcel { format: FORMAT, attempt, srpm, srpm_sha256, target, outcome, finished_at, manifest };
    write_durably(&resultdir.join(PARCEL), &serde_json::to_vec_pretty(&parcel)?)
        .with_context(|| cannot(&resultdir.join(PARCEL)))?;
    passed(Step::Described)?;
    sync_folder(resultdir).with_context(|| cannot(resultdir))?;
    passed(Step::DescribedDurably)?;

    let outbox = to.parent().unwrap_or(to);
    make_outbox(outbox).with_context(|| format!("cannot make {}", outbox.display()))?;
    fs::rename(resultdir, to).with_context(|| cannot(resultdir))?;
    passed(Step::Moved)?;
    // It is there, and perhaps not durable: offering it is right all the same, and nothing can be
    // packed once more.
    if let Err(error) = sync_folder(outbox) {
        tracing::warn!("{} may not survive a power cut: {error}", to.display());
    }
    passed(Step::MovedDurably)?;
    Ok(parcel)
}

/// Whether the disk is to blame, and time may mend it.
pub fn is_disk_trouble(error: &anyhow::Error) -> bool {
    const DISK: [Errno; 4] = [Errno::NOSPC, Errno::DQUOT, Errno::IO, Errno::ROFS];
    let code = |error: &io::Error| error.raw_os_error();
    let codes = error.chain().filter_map(|cause| cause.downcast_ref::<io::Error>()).filter_map(code);
    codes.map(Errno::from_raw_os_error).any(|errno| DISK.contains(&errno))
}

/// Whether an fsync of a file has failed.
pub fn was_not_taken(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| cause.is::<NotTaken>())
}

/// So many files that stay behind are named in the log.
const NAMED: usize = 10;

/// Cuts logs, and lists everything that travels, durable. Says also which RPM does not travel, if any.
fn describe_all(
    resultdir: &Path,
    files: Files,
    log_limit: u64,
) -> anyhow::Result<(Vec<ManifestEntry>, Option<String>)> {
    let cannot = |what: &Path| format!("cannot pack {}", what.display());
    let found = results::list(resultdir).with_context(|| cannot(resultdir))?;
    for (name, why) in found.skipped.iter().take(NAMED) {
        tracing::info!("{name} stays behind: {why}");
    }
    if let more @ 1.. = found.skipped.len().saturating_sub(NAMED) {
        tracing::info!("{more} more files stay behind");
    }
    let lacking = found.skipped.iter().find(|(name, _)| name.ends_with(".rpm"));
    let lacking = lacking.map(|(name, why)| format!("{name} cannot be delivered: {why}"));
    // What an earlier try has left, or a build has made, describes nothing.
    let names = found.files.into_iter().map(|file| file.name).filter(|name| name.as_str() != PARCEL);
    let mut manifest = Vec::new();
    for some in names.collect::<Vec<_>>().chunks(OPEN_MAX) {
        if files == Files::Copied {
            // One after the other: so there is never a second one of more than one file.
            for path in some.iter().map(|name| resultdir.join(name)) {
                copy_over(&path).with_context(|| cannot(&path))?;
            }
        }
        let described = several(some, |name| {
            let path = resultdir.join(name);
            if name.as_str().ends_with(".log") {
                logs::cap_log(&path, log_limit).with_context(|| cannot(&path))?;
            }
            describe(&path, name.clone()).with_context(|| cannot(&path))
        })?;
        // All of them are on their way to the disk: its file system writes its journal for several at a time.
        crash::in_sync().map_err(NotTaken).with_context(|| cannot(resultdir))?;
        several(&described, |(entry, file)| {
            file.sync_all().map_err(NotTaken).with_context(|| cannot(&resultdir.join(&entry.name)))
        })?;
        manifest.extend(described.into_iter().map(|(entry, _)| entry));
    }
    Ok((manifest, lacking))
}

/// So many threads wait for the disk at a time, which then does in one go what each of them wants.
const AT_A_TIME: usize = 8;
/// For fewer files than this a thread costs more than it saves.
const WORTH_A_THREAD: usize = 4;

/// Does something with each of many, with several at a time.
fn several<T: Sync, R: Send>(
    items: &[T],
    each: impl Fn(&T) -> anyhow::Result<R> + Sync,
) -> anyhow::Result<Vec<R>> {
    let share = items.len().div_ceil(AT_A_TIME).max(WORTH_A_THREAD);
    let all = &|some: &[T]| some.iter().map(&each).collect::<anyhow::Result<Vec<R>>>();
    let (first, others) = items.split_at(share.min(items.len()));
    thread::scope(|scope| {
        let begin = |some| (some, thread::Builder::new().spawn_scoped(scope, move || all(some)));
        let others: Vec<_> = others.chunks(share).map(begin).collect();
        let mut done = all(first);
        for (some, thread) in others {
            // Without another thread, of which Mock may have taken all that there are, it takes longer.
            let rest = match thread {
                Ok(thread) => thread.join().unwrap_or_else(|_| bail!("a thread has panicked")),
                Err(_) => all(some),
            };
            done = done.and_then(|mut done| {
                done.extend(rest?);
                Ok(done)
            });
        }
        done
    })
}

/// Puts a copy of a file in its place: a new file, of which an fsync tells all. It goes through memory, because a copy
/// that the file system makes may share what was never written.
fn copy_over(path: &Path) -> io::Result<()> {
    let mut file = results::open_regular(path)?;
    // Under a name that a build cannot guess, and that does not travel.
    let mut copy = tempfile::NamedTempFile::new_in(path.parent().unwrap_or(Path::new(".")))?;
    let mut buffer = vec![0; DATA_BYTES];
    loop {
        let length = file.read(&mut buffer)?;
        let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else { break };
        copy.write_all(bytes)?;
    }
    copy.as_file().set_permissions(file.metadata()?.permissions())?;
    copy.persist(path)?;
    Ok(())
}

/// Size and digest of a file, which is still to be synced; the disk has begun with it when it is small, and a large
/// one fills its queue by itself.
fn describe(path: &Path, name: ArtifactName) -> io::Result<(ManifestEntry, File)> {
    let file = results::open_regular(path)?;
    let (mut hasher, mut size, mut buffer) = (Hasher::new(), 0, vec![0; DATA_BYTES]);
    loop {
        let length = (&file).read(&mut buffer)?;
        let Some(bytes) = buffer.get(..length).filter(|bytes| !bytes.is_empty()) else { break };
        hasher.update(bytes);
        size += length as u64;
    }
    if size <= SMALL {
        // Linux begins to write what is dirty; only fsync says that it is written.
        let _ = fadvise(&file, 0, None, Advice::DontNeed);
    }
    Ok((ManifestEntry { name, size, sha256: hasher.finish() }, file))
}

fn write_durably(path: &Path, content: &[u8]) -> io::Result<()> {
    write_whole(path, content, File::sync_all)
}

/// What stands there is whole, the old or the new, after the end of this program; after a power cut only if `sync`
/// makes it so.
fn write_whole(path: &Path, content: &[u8], sync: fn(&File) -> io::Result<()>) -> io::Result<()> {
    let part: PathBuf = path.with_extension("part");
    // The folder belongs to the build: nothing that lies there is written through.
    remove_any(&part)?;
    remove_any(path)?;
    let written = File::create_new(&part).and_then(|mut file| {
        file.write_all(content)?;
        sync(&file)?;
        fs::rename(&part, path)
    });
    if written.is_err() {
        let _ = fs::remove_file(&part);
    }
    written
}

fn remove_any(path: &Path) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(data) if data.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

/// The outbox itself, durable when it is new.
fn make_outbox(outbox: &Path) -> io::Result<()> {
    match fs::create_dir(outbox) {
        Ok(()) => outbox.parent().map_or(Ok(()), sync_folder),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

/// The parcels that an earlier client has left, oldest first. What is none any more is removed, with
/// a line that says what it was: the server has it built again.
///
/// # Errors
/// When the outbox cannot be read, or what is none cannot be removed.
pub fn open(outbox: &Path) -> anyhow::Result<Vec<Parcel>> {
    let entries = match fs::read_dir(outbox) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("cannot read {}", outbox.display()))?,
    };
    let mut parcels = Vec::new();
    for entry in entries {
        let path = entry.with_context(|| format!("cannot read {}", outbox.display()))?.path();
        match read(&path) {
            Ok(parcel) => parcels.push(parcel),
            Err(error) => {
                let path_name = path.display();
                let what = described(&path);
                tracing::error!(
                    "the results of {what} are lost, and the server has it built again: {error:#}"
                );
                remove(&path).with_context(|| format!("cannot remove {path_name}"))?;
            }
        }
    }
    parcels.sort_by_key(|parcel| (parcel.finished_at, parcel.attempt));
    Ok(parcels)
}

/// A parcel whose files are all there.
fn read(folder: &Path) -> anyhow::Result<Parcel> {
    let path = folder.join(PARCEL);
    let file = match results::open_regular(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => bail!("it is not whole"),
        file => file.with_context(|| format!("cannot read {}", path.display()))?,
    };
    let mut json = Vec::new();
    file.take(PARCEL_MAX)
        .read_to_end(&mut json)
        .with_context(|| format!("cannot read {}", path.display()))?;
    let parcel: Parcel =
        serde_json::from_slice(&json).with_context(|| format!("{} cannot be understood", path.display()))?;
    ensure!(parcel.format == FORMAT, "{} has format {}, not {FORMAT}", path.display(), parcel.format);
    let is_its = folder.file_name().is_some_and(|name| *name == *parcel.attempt.to_string());
    ensure!(is_its, "{} is about {}", path.display(), parcel.attempt);
    let mut names = BTreeSet::new();
    for ManifestEntry { name, size, .. } in &parcel.manifest {
        let file =
            results::open_regular(&folder.join(name)).with_context(|| format!("cannot open {name}"))?;
        let found = file.metadata()?.len();
        ensure!(found == *size, "{name} has {found} bytes, not {size}");
        ensure!(names.insert(name), "{name} is listed twice");
    }
    Ok(parcel)
}

/// The name of what is broken: of the SRPM if that can still be read, and of the attempt.
fn described(folder: &Path) -> String {
    #[derive(Deserialize)]
    struct Name {
        srpm: SrpmName,
    }
    let attempt = folder.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let json = results::open_regular(&folder.join(PARCEL)).ok().and_then(|file| {
        let mut json = Vec::new();
        file.take(PARCEL_MAX).read_to_end(&mut json).ok()?;
        serde_json::from_slice::<Name>(&json).ok()
    });
    json.map_or(format!("attempt {attempt}"), |name| format!("{} (attempt {attempt})", name.srpm))
}

/// Removes a parcel: after a crash on the way it is either still whole or recognised as none.
///
/// # Errors
/// When something cannot be removed.
pub fn remove(folder: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(folder).is_ok_and(|data| data.is_dir()) {
        return remove_any(folder);
    }
    // Nothing of this is synced: in whatever order a power cut has kept it, `read` sees that files are missing, or it is
    // whole and the server hears of it once more.
    remove_marked(folder, PARCEL, || {
        crash::at(Point::ParcelRemoved);
        Ok(())
    })
}

/// Removes a folder, first of all the file in it that says that it is whole: without that nobody takes what is
/// left of it for all of it. `unmarked` is called between the two.
fn remove_marked(folder: &Path, marker: &str, unmarked: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
    remove_any(&folder.join(marker))?;
    unmarked()?;
    fs::remove_dir_all(folder)
}
