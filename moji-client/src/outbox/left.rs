//! What has ended and is not in the outbox yet: how the next client finds out, and packs it. Blocks.
//!
//! Only a parcel is durable. What lies in a slot's folder is whole after the end of a client, and
//! nobody knows what it is after a power cut: so the note says when the machine was started. For the same reason it
//! is not synced, and neither is its end: whatever a power cut makes of it, it is of another run of the machine.

use std::fs;
use std::io;
use std::path::Path;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};

use super::{Files, Finished, MOCK_LOG, Parcel, RESULT, pack, remove_marked, write_whole};

/// The file in a slot's folder that says that Mock has ended, and how: what lies beside it is to be
/// packed, by the next client if this one ends before it has.
pub(crate) const FINISHED: &str = "finished.json";

/// What it says.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    /// During which run of the machine. Without it nothing is packed.
    #[serde(default)]
    boot: Option<BootId>,
    #[serde(flatten)]
    finished: Finished,
}

/// One run of the machine, from power on to power off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct BootId(String);

impl BootId {
    /// The current one, where Linux says it.
    fn current() -> Option<Self> {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        Some(Self(id.trim().to_owned())).filter(|id| !id.0.is_empty())
    }
}

/// Writes [`FINISHED`].
///
/// # Errors
/// When the disk is full, for example.
pub(crate) fn note_finished(folder: &Path, finished: &Finished) -> io::Result<()> {
    let note = Note { boot: BootId::current(), finished: finished.clone() };
    write_whole(&folder.join(FINISHED), &serde_json::to_vec(&note)?, |_| Ok(()))
}

/// Packs what an earlier client has left in a slot's folder, with its [`FINISHED`]. What the disk has told that client
/// nobody knows: it would not be told again.
///
/// # Errors
/// As [`pack`]; when that file cannot be read; and when the machine was started anew since: files that
/// were never synced may be cut short.
pub(crate) fn pack_left(folder: &Path, outbox: &Path, log_limit: u64) -> anyhow::Result<Parcel> {
    let json = fs::read(folder.join(FINISHED)).context("cannot read what it was")?;
    let Note { boot, finished } = serde_json::from_slice(&json).context("cannot read what it was")?;
    ensure!(boot.is_some() && boot == BootId::current(), "the machine was started anew before it was stored");
    let to = outbox.join(finished.attempt.to_string());
    pack(&folder.join(RESULT), &folder.join(MOCK_LOG), &to, finished, (Files::Copied, log_limit), |_| Ok(()))
}

/// Removes a slot's folder: after a crash on the way, what is left of it is not packed.
///
/// # Errors
/// When something cannot be removed.
pub(crate) fn remove_slot(folder: &Path) -> io::Result<()> {
    remove_marked(folder, FINISHED, || Ok(()))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{ATTEMPT, Built, finished, has_one_of};
    use super::*;

    fn left() -> Built {
        let built = Built::with(&[("a-1-1.noarch.rpm", b"built"), ("build.log", b"log")]);
        note_finished(built.slot(), &finished()).unwrap();
        built
    }

    #[test]
    fn what_had_ended_is_packed_as_long_as_the_machine_runs() {
        let built = left();
        // The client before may have been told that the disk has not taken them.
        let unsure = built.inodes(&["a-1-1.noarch.rpm", "build.log"]);
        let parcel = pack_left(built.slot(), &built.outbox, 1_000).unwrap();
        assert_eq!((parcel.attempt, parcel.manifest.len()), (ATTEMPT, 3));
        assert_eq!(super::super::open(&built.outbox).unwrap(), [parcel]);
        assert!(!has_one_of(&built, &unsure));
    }

    #[test]
    fn after_a_power_cut_nothing_is_packed() {
        let current = BootId::current().unwrap().0;
        let json = |built: &Built| fs::read_to_string(built.slot().join(FINISHED)).unwrap();
        assert!(json(&left()).contains(&current));
        type Change = fn(&str, &str) -> String;
        let changes: [(&str, Change); 3] = [
            ("another", |json, boot| json.replace(boot, "2b1f-another")),
            ("none", |json, boot| json.replace(&format!("\"{boot}\""), "null")),
            ("an earlier client's", |json, boot| json.replace(&format!("\"boot\":\"{boot}\","), "")),
        ];
        for (what, change) in changes {
            let built = left();
            let before = json(&built);
            let changed = change(&before, &current);
            assert_ne!(changed, before, "{what}");
            fs::write(built.slot().join(FINISHED), changed).unwrap();
            let error = pack_left(built.slot(), &built.outbox, 1_000).unwrap_err().to_string();
            assert!(error.contains("started anew"), "{what}: {error}");
            assert!(!built.outbox.exists(), "{what}");
        }
    }

    #[test]
    fn half_removed_it_is_not_taken_for_whole() {
        let built = left();
        let mut passed = false;
        remove_marked(built.slot(), FINISHED, || {
            passed = true;
            assert!(!built.slot().join(FINISHED).exists(), "a crash here leaves what looks whole");
            assert!(built.resultdir.join("a-1-1.noarch.rpm").exists());
            Ok(())
        })
        .unwrap();
        assert!(passed && !built.slot().exists());
    }
}
