//! Each difference is made, and seen, and nothing else is; what is safe is mended, the rest is left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use moji_proto::{AttemptId, FailureKind, HeldAttempt, ManifestEntry, Outcome, Phase, Sha256};
use rpm::{BuildConfig, CompressionType, PackageBuilder};
use rusqlite::Connection;

use super::*;
use crate::BuildKey;
use crate::commit::RESULTS;
use crate::folders::Claim;
use crate::folders::testing::TempFolders;
use crate::history;
use crate::history::{AttemptEnd, Ending, Entry, Leased, Srpm};
use crate::lease_record::{FileIdentity, LeaseRecord};
use crate::metadata::{Repository, make_anew};
use crate::record::{AttemptRecord, BuildRecord, FORMAT};

fn deep() -> Options<'static> {
    Options { depth: Depth::Digests, server: Server::Stopped, createrepo: Path::new("createrepo_c") }
}

fn id(serial: u64) -> AttemptId {
    AttemptId { boot: 7, serial }
}

fn key(name: &str) -> BuildKey {
    let (target, name) = name.split_once('/').map_or((None, name), |(target, name)| (Some(target), name));
    BuildKey {
        target: target.map(|target| target.parse().unwrap()),
        srpm: format!("{name}-1-1.src.rpm").parse().unwrap(),
    }
}

fn failed() -> Outcome {
    Outcome::failed(FailureKind::Package, "it does not compile", Some(1), Vec::new())
}

fn rpm(name: &str) -> Vec<u8> {
    let config = BuildConfig::v4().compression(CompressionType::None);
    let package = PackageBuilder::new(name, "1", "MIT", "noarch", "a test").using_config(config).build();
    let mut bytes = Vec::new();
    package.unwrap().write(&mut bytes).unwrap();
    bytes
}

fn record(name: &str, serial: u64, seconds: i64, outcome: Outcome) -> BuildRecord {
    let srpm = key(name).srpm;
    let time = |seconds| Timestamp::from_second(seconds).unwrap();
    BuildRecord {
        format: FORMAT,
        nvr: srpm.stem().parse().ok(),
        srpm,
        outcome,
        attempt: Some(AttemptRecord {
            id: id(serial),
            builder: "board".parse().unwrap(),
            target: "f43".parse().unwrap(),
            srpm_sha256: None,
            leased_at: time(seconds - 10),
            delivered_at: time(seconds),
            repository: None,
        }),
        artifacts: Vec::new(),
        held: None,
        parked: false,
        retried: false,
        note: None,
    }
}

/// `a` has succeeded, `f43/b` too, `c` has failed. All agrees.
struct Farm {
    folders: TempFolders,
}

impl Farm {
    fn new() -> Self {
        let farm = Self { folders: TempFolders::new() };
        metadata::make_repository(&farm.folders.repo.join("f43")).unwrap();
        farm.finish("a", 1, Outcome::Succeeded, &[("build.log", b"log"), ("a-1-1.noarch.rpm", &rpm("a"))]);
        farm.finish("f43/b", 2, Outcome::Succeeded, &[("b-1-1.noarch.rpm", &rpm("b"))]);
        farm.finish("c", 3, failed(), &[("build.log", b"it does not compile")]);
        farm.make_metadata();
        history::rebuild(&farm.folders, None).unwrap();
        assert_eq!(check(&farm.folders, deep()).unwrap(), []);
        farm
    }

    fn make_metadata(&self) {
        let config = MetadataConfig::new(self.folders.repo.clone(), self.folders.metadata_private());
        let all = BTreeSet::from([Repository::Main, Repository::Nested("f43".into())]);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(make_anew(config, &all)).unwrap();
    }

    fn finish(&self, name: &str, serial: u64, outcome: Outcome, files: &[(&str, &[u8])]) {
        let mut record = record(name, serial, 1000, outcome);
        let folder = self.folders.published(&key(name), record.nvr.as_ref().unwrap());
        for (name, content) in files {
            put(&folder.join(name), content);
            record.artifacts.push(ManifestEntry {
                name: name.parse().unwrap(),
                size: content.len() as u64,
                sha256: Sha256::of(content),
            });
        }
        put(&folder.join("build.json"), &record.to_json().unwrap());
        put(&self.folders.finished.join(key(name).path()), name.as_bytes());
        if !record.outcome.is_success() {
            put(&self.folders.failure_record(&key(name)), &record.to_json().unwrap());
        }
    }

    fn source(&self, name: &str) -> PathBuf {
        self.folders.source.join(key(name).path())
    }

    fn working(&self, name: &str) -> PathBuf {
        self.folders.working.join(key(name).path())
    }

    fn finished(&self, name: &str) -> PathBuf {
        self.folders.finished.join(key(name).path())
    }

    fn repo(&self, path: &str) -> PathBuf {
        self.folders.repo.join(path)
    }

    fn staging(&self, serial: u64) -> PathBuf {
        self.folders.attempt(id(serial))
    }

    fn sql(&self, sql: &str) {
        Connection::open(history::path(&self.folders)).unwrap().execute_batch(sql).unwrap();
    }

    fn tell(&self, entries: &[Entry]) {
        let (history, _) = history::History::open(&self.folders).unwrap();
        entries.iter().for_each(|entry| history.record(entry.clone()));
        history.close();
    }

    /// Every file and folder, with its content, except of the history and the metadata.
    fn content(&self) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
        fn walk(folder: &Path, into: &mut BTreeMap<PathBuf, Option<Vec<u8>>>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.ends_with("repodata") || path.ends_with(".moji/metadata") {
                    continue;
                }
                if path.symlink_metadata().unwrap().is_dir() {
                    into.insert(path.clone(), None);
                    walk(&path, into);
                } else if !path.to_string_lossy().contains("history.sqlite") {
                    let content = fs::read(&path).unwrap_or_default();
                    into.insert(path, Some(content));
                }
            }
        }
        let mut content = BTreeMap::new();
        let Folders { source, working, finished, repo } = &*self.folders;
        for folder in [source, working, finished, repo] {
            walk(folder, &mut content);
        }
        content
    }
}

fn put(path: &Path, content: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, content).unwrap();
}

fn kinds(differences: &[Difference]) -> Vec<&'static str> {
    differences.iter().map(Difference::kind).collect()
}

/// Damage is seen as exactly this, mended, and then gone.
fn is_mended(wanted: &[&str], damage: impl FnOnce(&Farm)) -> Farm {
    let farm = Farm::new();
    damage(&farm);
    let mut found = check(&farm.folders, deep()).unwrap();
    assert_eq!(kinds(&found), wanted, "{found:#?}");
    for _ in 0..3 {
        let failed = repair(&farm.folders, Path::new("createrepo_c"), &found);
        assert!(failed.is_empty(), "{failed:?}");
        found = check(&farm.folders, deep()).unwrap();
    }
    assert_eq!(found, []);
    farm
}

/// Damage is seen as exactly this, and a repair touches nothing.
fn is_left(wanted: &[&str], damage: impl FnOnce(&Farm)) {
    let farm = Farm::new();
    damage(&farm);
    let found = check(&farm.folders, deep()).unwrap();
    assert_eq!(kinds(&found), wanted, "{found:#?}");
    assert!(found.iter().all(|difference| difference.repair().is_none()));
    let before = farm.content();
    assert!(repair(&farm.folders, Path::new("createrepo_c"), &found).is_empty());
    assert_eq!(farm.content(), before);
    assert_eq!(check(&farm.folders, deep()).unwrap(), found);
}

#[test]
fn duplicates() {
    let farm = is_mended(&["duplicate-srpm"], |farm| {
        put(&farm.source("a"), &fs::read(farm.finished("a")).unwrap());
    });
    assert!(farm.finished("a").exists() && !farm.source("a").exists());
    let farm = is_mended(&["duplicate-srpm"], |farm| {
        put(&farm.working("f43/b"), &fs::read(farm.finished("f43/b")).unwrap());
    });
    assert!(farm.finished("f43/b").exists() && !farm.working("f43/b").exists());
    is_left(&["duplicate-srpm"], |farm| put(&farm.source("a"), b"A"));
    is_left(&["duplicate-srpm"], |farm| {
        put(&farm.source("new"), b"one");
        put(&farm.working("new"), b"two");
    });
}

/// Linked back to be built again, and linked for another target: a wish, no damage.
#[test]
fn names_of_one_file() {
    is_left(&[], |farm| {
        fs::hard_link(farm.finished("a"), farm.source("a")).unwrap();
        fs::create_dir_all(farm.folders.source.join("f44")).unwrap();
        fs::hard_link(farm.finished("f43/b"), farm.source("f44/b")).unwrap();
        history::rebuild(&farm.folders, None).unwrap();
    });
}

#[test]
fn a_cut_commit() {
    let farm = is_mended(&["cut-commit"], |farm| {
        fs::create_dir_all(farm.folders.working.join("f43")).unwrap();
        fs::rename(farm.finished("f43/b"), farm.working("f43/b")).unwrap();
        fs::create_dir(farm.staging(2)).unwrap();
    });
    assert!(farm.finished("f43/b").exists() && !farm.staging(2).exists());
    // Built again, after a result of long ago: that is none.
    let farm = Farm::new();
    fs::rename(farm.finished("a"), farm.working("a")).unwrap();
    fs::create_dir_all(farm.staging(9).join(RESULTS)).unwrap();
    assert_eq!(check(&farm.folders, deep()).unwrap(), []);
}

#[test]
fn srpms_without_a_result() {
    is_left(&["no-result"], |farm| put(&farm.finished("d"), b"d"));
    let farm = is_mended(&["no-failure-record"], |farm| {
        fs::remove_file(farm.folders.failure_record(&key("c"))).unwrap();
    });
    let copy = fs::read(farm.folders.failure_record(&key("c"))).unwrap();
    assert_eq!(copy, fs::read(farm.repo("c-1-1/build.json")).unwrap());
}

#[test]
fn records_without_an_srpm() {
    let farm = is_mended(&["lone-record"], |farm| fs::remove_file(farm.finished("c")).unwrap());
    assert!(!farm.folders.failure_record(&key("c")).exists());
    is_left(&["lone-record"], |farm| {
        let mut lone = record("d", 8, 1000, failed());
        lone.attempt = None;
        put(&farm.folders.finished.join("d-1-1.src.rpm.held.json"), &lone.to_json().unwrap());
        history::rebuild(&farm.folders, None).unwrap();
    });
    // Queued again: the record of the last time stays until it is settled.
    let farm = Farm::new();
    fs::rename(farm.finished("c"), farm.source("c")).unwrap();
    assert_eq!(check(&farm.folders, deep()).unwrap(), []);
}

#[test]
fn records_that_contradict() {
    let outdated = |name: &'static str, seconds, ending: &'static str| {
        move |farm: &Farm| {
            let path = farm.folders.finished.join(format!("{name}-1-1.src.rpm.{ending}.json"));
            put(&path, &record(name, 4, seconds, failed()).to_json().unwrap());
            history::rebuild(&farm.folders, None).unwrap();
        }
    };
    is_mended(&["outdated-record"], outdated("a", 500, "failed"));
    is_mended(&["outdated-record"], outdated("a", 500, "held"));
    is_left(&["two-records"], outdated("c", 2000, "held"));
    // A failure after a success is no contradiction.
    let farm = Farm::new();
    outdated("a", 2000, "failed")(&farm);
    assert_eq!(check(&farm.folders, deep()).unwrap(), []);
}

#[test]
fn staging_of_what_is_over() {
    let over =
        |serial, file: &'static str| move |farm: &Farm| put(&farm.staging(serial).join(file), b"content");
    is_mended(&["orphaned-staging"], over(9, "build.log"));
    is_mended(&["orphaned-staging"], over(2, "results/b-1-1.noarch.rpm"));
    is_left(&["orphaned-staging"], over(9, "unpublished/d-1-1.noarch.rpm"));
    is_left(&["stray"], |farm| put(&farm.folders.attempts().join("mine/notes.txt"), b"content"));
    // It may belong to what is in WORKING, and a running server's is its own.
    let farm = Farm::new();
    over(9, "build.log")(&farm);
    let running = Options { server: Server::Running, ..deep() };
    assert_eq!(check(&farm.folders, running).unwrap(), []);
    put(&farm.working("d"), b"d");
    assert_eq!(check(&farm.folders, deep()).unwrap(), []);
}

#[test]
fn staging_of_an_attempt_that_may_come_back() {
    let farm = Farm::new();
    let source = farm.folders.source.join(key("e").path());
    put(&source, b"e");
    let held = HeldAttempt {
        attempt: id(9),
        target: "f43".parse().unwrap(),
        srpm: key("e").srpm,
        sha256: Sha256::of(b"e"),
        slot: None,
        phase: Phase::Building,
    };
    let (builder, nvr) = ("board".parse().unwrap(), "e-1-1".parse().unwrap());
    let (attempt, target, leased_at) = (held.attempt, held.target.clone(), jiff::Timestamp::UNIX_EPOCH);
    let given = crate::farm::Given { attempt, builder, key: key("e"), target, leased_at, generation: 0 };
    let record = LeaseRecord::of_claim(&held, &given, nvr, FileIdentity::of(&source).unwrap());
    record.write(&farm.folders).unwrap();
    assert_eq!(check(&farm.folders, deep()).unwrap(), []);
    put(&source, b"another one");
    let found = check(&farm.folders, deep()).unwrap();
    assert!(matches!(found[..], [Difference::OrphanedStaging { .. }]), "{found:?}");
}

#[test]
fn leftovers() {
    let farm = is_mended(&["leftover"; 9], |farm| {
        for path in [
            farm.folders.source.join(".moji-probe-17"),
            farm.folders.private().join(".moji-probe-17"),
            farm.folders.repo.join(".moji-probe-17"),
            farm.finished("c").with_file_name("c-1-1.src.rpm.failed.json.part"),
            farm.finished("f43/b").with_file_name("b-1-1.src.rpm.held.json.part"),
            farm.folders.metadata_private().join("main/ledger.json.part"),
            farm.repo("a-1-1/build.json.part"),
            farm.repo("f43/b-1-1/build.json.part"),
            farm.repo("f43/repodata/.moji-repomd.xml"),
        ] {
            put(&path, b"half");
        }
        // Somebody's copy that is not done.
        put(&farm.folders.source.join("e-1-1.src.rpm.part"), b"half");
        put(&farm.repo("mine/e.rpm.part"), b"half");
    });
    assert!(farm.folders.source.join("e-1-1.src.rpm.part").exists() && farm.repo("mine/e.rpm.part").exists());
}

#[test]
fn records_that_cannot_be_read_or_tell_of_others() {
    is_left(&["unreadable-record"], |farm| put(&farm.repo("d-1-1/build.json"), b"{ torn"));
    is_left(&["unreadable-record"], |farm| put(&farm.folders.failure_record(&key("c")), b""));
    let farm = Farm::new();
    fs::rename(farm.repo("a-1-1"), farm.repo("a-1-2")).unwrap();
    farm.make_metadata();
    assert_eq!(kinds(&check(&farm.folders, deep()).unwrap()), ["foreign-record"]);
}

#[test]
fn artifacts() {
    is_left(&["no-artifact"], |farm| fs::remove_file(farm.repo("a-1-1/build.log")).unwrap());
    is_left(&["artifact-size"], |farm| put(&farm.repo("a-1-1/build.log"), b"log and more"));
    is_left(&["artifact-digest"], |farm| put(&farm.repo("a-1-1/build.log"), b"LOG"));
    is_left(&["unnamed-file"], |farm| put(&farm.repo("c-1-1/notes.txt"), b"mine"));
    is_left(&["unnamed-file"], |farm| symlink("build.log", farm.repo("c-1-1/link.log")).unwrap());
    let farm = Farm::new();
    put(&farm.repo("a-1-1/build.log"), b"LOG");
    let quick = Options { depth: Depth::Sizes, ..deep() };
    assert_eq!(check(&farm.folders, quick).unwrap(), [], "without --digests only sizes count");
    // The logs of a second attempt.
    let mut second = record("a", 5, 2000, failed());
    second.artifacts.clear();
    let folder = format!("a-1-1/attempt-{}", id(5));
    put(&farm.repo(&folder).join("build.json"), &second.to_json().unwrap());
    put(&farm.folders.failure_record(&key("a")), &second.to_json().unwrap());
    history::rebuild(&farm.folders, None).unwrap();
    assert_eq!(check(&farm.folders, quick).unwrap(), []);
    put(&farm.repo(&folder).join("more.log"), b"what is this");
    assert_eq!(kinds(&check(&farm.folders, quick).unwrap()), ["unnamed-file"]);
}

#[test]
fn metadata_and_files() {
    is_mended(&["unlisted-rpm"], |farm| put(&farm.repo("mine/d.rpm"), &rpm("d")));
    is_mended(&["unlisted-rpm"], |farm| put(&farm.repo("f43/d.rpm"), &rpm("d")));
    let listed = |damage: fn(&Path)| {
        move |farm: &Farm| {
            put(&farm.repo("mine/d.rpm"), &rpm("d"));
            farm.make_metadata();
            damage(&farm.repo("mine/d.rpm"));
        }
    };
    is_mended(&["listed-rpm-missing"], listed(|path| fs::remove_file(path).unwrap()));
    is_mended(&["listed-rpm-size"], listed(|path| put(path, &rpm("another"))));
    is_mended(&["listed-rpm-size"], listed(|path| put(path, b"no RPM at all")));
    is_mended(&["listed-rpm-digest"], listed(|path| put(path, &rpm("x"))));
    is_mended(&["unreadable-metadata"], |farm| fs::remove_file(farm.repo("repodata/repomd.xml")).unwrap());
    is_mended(&["unreadable-metadata"], |farm| put(&farm.repo("f43/repodata/repomd.xml"), b"<repomd>"));
    // Nothing but the digest tells, and what is served must not be believed.
    is_mended(
        &["listed-rpm-digest"],
        listed(|path| {
            let modified = fs::metadata(path).unwrap().modified().unwrap();
            fs::write(path, rpm("x")).unwrap();
            fs::File::options().append(true).open(path).unwrap().set_modified(modified).unwrap();
        }),
    );
    let primary = |farm: &Farm| {
        let files = fs::read_dir(farm.repo("repodata")).unwrap().map(|entry| entry.unwrap().path());
        files.into_iter().find(|path| path.to_string_lossy().ends_with("primary.xml.gz")).unwrap()
    };
    is_mended(&["metadata-file"], |farm| fs::remove_file(primary(farm)).unwrap());
    // As long as it was, so that only the digest tells.
    is_mended(&["metadata-file"], |farm| {
        let mut bytes = fs::read(primary(farm)).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::write(primary(farm), bytes).unwrap();
    });
}

#[test]
fn metadata_that_cannot_be_made_are_said() {
    let farm = Farm::new();
    put(&farm.repo("mine/d.rpm"), &rpm("d"));
    let found = check(&farm.folders, deep()).unwrap();
    let failed = repair(&farm.folders, Path::new("/nonexistent/createrepo_c"), &found);
    assert!(failed[0].to_string().contains("install createrepo_c"), "{failed:?}");
    assert_eq!(check(&farm.folders, deep()).unwrap(), found);
}

/// Who asks whether the metadata say what createrepo_c says is told when nobody can know.
#[test]
fn metadata_that_cannot_be_compared_are_a_difference() {
    let farm = Farm::new();
    put(&farm.repo("mine/d.rpm"), &rpm("d"));
    farm.make_metadata();
    assert_eq!(check(&farm.folders, deep()).unwrap(), []);
    let blind = Options { createrepo: Path::new("/nonexistent/createrepo_c"), ..deep() };
    let found = check(&farm.folders, blind).unwrap();
    assert_eq!(kinds(&found), ["not-compared"; 2], "in REPO and in its target");
    assert!(
        found.iter().all(|one| one.repair().is_none() && one.to_string().contains("install createrepo_c"))
    );
    assert_eq!(check(&farm.folders, Options { depth: Depth::Sizes, ..blind }).unwrap(), []);
}

#[test]
fn a_history_that_is_not_what_it_should_be() {
    let path = |farm: &Farm| history::path(&farm.folders);
    is_mended(&["no-history"], |farm| fs::remove_file(path(farm)).unwrap());
    is_mended(&["no-history"], |farm| fs::write(path(farm), b"").unwrap());
    let farm = is_mended(&["broken-history"], |farm| fs::write(path(farm), "dear diary").unwrap());
    let files = fs::read_dir(farm.folders.private()).unwrap();
    let names = files.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.contains("broken-")).count(), 1);
    // Only a thorough look finds that an index lacks a row.
    is_mended(&["broken-history"], |farm| {
        farm.sql(
            "PRAGMA writable_schema = ON; \
             UPDATE sqlite_schema SET sql = sql || ' WHERE id > 1000' WHERE name = 'builds_name'; \
             PRAGMA writable_schema = RESET; INSERT INTO builds (srpm, queued_at, state, settled_at, name) \
             VALUES ('z-1-1.src.rpm', 1, 'withdrawn', 2, 'z'); PRAGMA writable_schema = ON; \
             UPDATE sqlite_schema SET sql = replace(sql, ' WHERE id > 1000', '') WHERE name = 'builds_name'",
        );
    });
    is_mended(&["broken-history"], |farm| {
        farm.sql("PRAGMA foreign_keys = OFF; DELETE FROM builds WHERE srpm = 'a-1-1.src.rpm'");
    });
    is_left(&["new-history"], |farm| farm.sql("PRAGMA user_version = 4711"));
}

#[test]
fn a_history_that_knows_less_or_something_else() {
    is_mended(&["unknown-to-history"], |farm| {
        farm.sql("PRAGMA foreign_keys = ON; DELETE FROM builds WHERE srpm = 'b-1-1.src.rpm'");
    });
    // Though it has read that record before.
    is_mended(&["unknown-to-history"], |farm| {
        let old = std::time::SystemTime::now() - std::time::Duration::from_secs(60);
        fs::File::open(farm.repo("f43/b-1-1")).unwrap().set_modified(old).unwrap();
        history::rebuild(&farm.folders, None).unwrap();
        farm.sql("PRAGMA foreign_keys = ON; DELETE FROM builds WHERE srpm = 'b-1-1.src.rpm'");
    });
    let at = Timestamp::from_second(2000).unwrap();
    let leased = |name: &str, serial| {
        Entry::Leased(Leased {
            srpm: Srpm { key: key(name), nvr: None, size: 1, queued_at: at },
            attempt: id(serial),
            builder: "board".parse().unwrap(),
            class: None,
            target: "f43".parse().unwrap(),
            generation: None,
            at,
        })
    };
    // The SRPM is gone: its attempt does not run any more either.
    is_mended(&["open-in-history", "running-in-history"], |farm| farm.tell(&[leased("d", 20)]));
    let queued = |farm: &Farm| put(&farm.source("d"), b"d");
    is_mended(&["running-in-history"], |farm| {
        queued(farm);
        farm.tell(&[leased("d", 20)]);
    });
    let farm = Farm::new();
    queued(&farm);
    farm.tell(&[leased("d", 20), Entry::AttemptEnded(AttemptEnd::new(id(20), at, Ending::Lost))]);
    assert_eq!(check(&farm.folders, deep()).unwrap(), []);
}

#[test]
fn what_settles_meanwhile_is_not_said() {
    let farm = Farm::new();
    put(&farm.finished("d"), b"d");
    put(&farm.finished("e"), b"e");
    let found = check(&farm.folders, deep()).unwrap();
    assert_eq!(kinds(&found), ["no-result", "no-result"]);
    fs::remove_file(farm.finished("d")).unwrap();
    put(&farm.finished("new"), b"not there before");
    let still = recheck(&farm.folders, deep(), &found).unwrap();
    assert_eq!(still.iter().map(Difference::path).collect::<Vec<_>>(), [farm.finished("e")]);
}

#[test]
fn a_folder_that_cannot_be_read_is_named_and_the_rest_is_looked_at() {
    let hidden = "h".repeat(190);
    let farm = Farm { folders: TempFolders::with_closed(&format!("{hidden}-1-1")) };
    farm.finish("c", 3, failed(), &[("build.log", b"it does not compile")]);
    history::rebuild(&farm.folders, None).unwrap();
    put(&farm.finished(&hidden), b"its result is in there");
    fs::write(farm.folders.repo.join("c-1-1/build.log"), "short").unwrap();
    let areas = BTreeSet::from([Area::Folders, Area::Results, Area::History]);
    let found = look(&farm.folders, deep(), &areas).unwrap();
    assert_eq!(kinds(&found), ["artifact-size", "unreadable-folder"]);
    let Difference::UnreadableFolder { path, .. } = &found[1] else { panic!("{found:?}") };
    assert_eq!(*path, farm.folders.repo.join(format!("{hidden}-1-1")));
    assert!(found[1].sentence().contains("give it to the server's user") && found[1].repair().is_none());
}

#[test]
fn a_server_is_seen_by_its_lock() {
    let Farm { mut folders } = Farm::new();
    let claim = |folders: &Folders| folders.clone().claim().unwrap();
    assert!(matches!(claim(&folders), Claim::Server));
    folders.unlock();
    let ours = claim(&folders);
    assert!(matches!(ours, Claim::Ours(_)));
    assert!(folders.clone().prepare().unwrap_err().to_string().contains("another moji-server"));
    drop(ours);
    fs::remove_dir_all(folders.private()).unwrap();
    let error = folders.clone().claim().unwrap_err().to_string();
    assert!(error.contains("has a moji-server used these folders"), "{error}");
}
