use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};

use super::*;

/// The folders of one attempt that has just been built.
pub(super) struct Built {
    at: tempfile::TempDir,
    pub(super) resultdir: PathBuf,
    mock_log: PathBuf,
    pub(super) outbox: PathBuf,
}

pub(super) const ATTEMPT: AttemptId = AttemptId { boot: 0xb007, serial: 31 };

pub(super) fn finished() -> Finished {
    Finished {
        attempt: ATTEMPT,
        srpm: "a-1-1.src.rpm".parse().unwrap(),
        srpm_sha256: Sha256::of(b"an SRPM"),
        target: "f43".parse().unwrap(),
        outcome: Outcome::Succeeded,
        finished_at: "2026-11-21T09:00:00Z".parse().unwrap(),
    }
}

impl Built {
    pub(super) fn with(files: &[(&str, &[u8])]) -> Self {
        let at = tempfile::tempdir().unwrap();
        let (resultdir, mock_log) = (at.path().join("slot/result"), at.path().join("slot/mock.log"));
        fs::create_dir_all(&resultdir).unwrap();
        for (name, content) in files {
            fs::write(resultdir.join(name), content).unwrap();
        }
        fs::write(&mock_log, "INFO").unwrap();
        let outbox = at.path().join("outbox");
        Self { at, resultdir, mock_log, outbox }
    }

    pub(super) fn slot(&self) -> &Path {
        self.resultdir.parent().unwrap()
    }

    fn folder(&self) -> PathBuf {
        self.outbox.join(ATTEMPT.to_string())
    }

    /// The numbers of its files, which nobody else gets as long as the second names are there that this makes.
    pub(super) fn inodes(&self, names: &[&str]) -> BTreeSet<u64> {
        let number = |name: &&str| {
            let second = self.at.path().join(format!("second-{name}"));
            fs::hard_link(self.resultdir.join(name), &second).unwrap();
            second.metadata().unwrap().ino()
        };
        names.iter().map(number).collect()
    }

    fn pack(&self, limit: u64, passed: impl FnMut(Step) -> io::Result<()>) -> anyhow::Result<Parcel> {
        pack(&self.resultdir, &self.mock_log, &self.folder(), finished(), (Files::AsBuilt, limit), passed)
    }
}

fn all(mut reader: ParcelReader) -> Vec<u8> {
    let mut all = Vec::new();
    loop {
        let piece = reader.next_piece().unwrap();
        if piece.is_empty() {
            return all;
        }
        all.extend(piece);
    }
}

#[test]
fn a_parcel_holds_what_may_travel_and_reads_as_one() {
    let files: [(&str, &[u8]); 5] = [
        ("a-1-1.noarch.rpm", &[1; 700_000]),
        ("build.log", b"built"),
        ("empty.log", b""),
        ("evil;.sh", b"no"),
        // A build may make anything.
        ("parcel.json", b"{}"),
    ];
    let built = Built::with(&files);
    let parcel = built.pack(1 << 20, |_| Ok(())).unwrap();
    let names: Vec<_> = parcel.manifest.iter().map(|entry| entry.name.as_str()).collect();
    assert_eq!(names, ["a-1-1.noarch.rpm", "build.log", "empty.log", "mock.log"]);
    assert_eq!(parcel.manifest[1].sha256, Sha256::of(b"built"));
    assert!(!built.resultdir.exists() && !built.mock_log.exists());
    let nothing = Sha256::of(b"");
    let resume = |offset, part| ParcelReader::resume(built.folder(), &parcel, offset, part);
    let (reader, from) = resume(0, nothing).unwrap();
    assert_eq!(from, 0);
    let all = all(reader);
    assert_eq!(all.len() as u64, parcel.bytes());
    assert!(all.ends_with(b"builtINFO"));
    let starts = [
        (5, Sha256::of(&[1; 5]), 5),
        (5, nothing, 0),
        (700_002, Sha256::of(b"bu"), 700_002),
        (700_002, Sha256::of(b"bo"), 700_000),
        (700_005, nothing, 700_005),
        (700_009, nothing, 700_009),
    ];
    for (offset, part, begins) in starts {
        let (mut reader, from) = resume(offset, part).unwrap();
        assert_eq!(from, begins, "{offset}");
        assert!(all[from as usize..].starts_with(&reader.next_piece().unwrap()), "{offset}");
    }
    assert!(resume(700_010, nothing).is_err());
    fs::write(built.folder().join("build.log"), "b").unwrap();
    let (mut reader, _) = resume(0, nothing).unwrap();
    assert!(std::iter::from_fn(|| Some(reader.next_piece())).take(5).any(|piece| piece.is_err()));
}

#[test]
fn a_long_log_is_cut() {
    let built = Built::with(&[("build.log", &[b'x'; 100_000])]);
    let parcel = built.pack(10_000, |_| Ok(())).unwrap();
    assert!(parcel.manifest[0].size <= 10_000, "{parcel:?}");
    assert_eq!(parcel.manifest[0].size, fs::metadata(built.folder().join("build.log")).unwrap().len());
}

/// A crash after any step: there is a whole parcel in the outbox, or nothing. And what was not a
/// It would be published as it is, for ever.
#[test]
fn a_success_of_which_an_rpm_cannot_travel_is_none() {
    let built = Built::with(&[("a-1-1.src.rpm", b"the source"), ("build.log", b"built")]);
    std::os::unix::fs::symlink("/etc/passwd", built.resultdir.join("a-1-1.noarch.rpm")).unwrap();
    let parcel = built.pack(1_000, |_| Ok(())).unwrap();
    let Outcome::Failed { kind: FailureKind::Infrastructure, reason, .. } = &parcel.outcome else {
        panic!("{:?}", parcel.outcome);
    };
    assert_eq!(reason, "a-1-1.noarch.rpm cannot be delivered: it is no regular file");
    assert_eq!(parcel.manifest.len(), 3);
}

/// crash but a full disk can be tried again.
#[test]
fn packing_that_stops_after_any_step_leaves_a_whole_parcel_or_none() {
    for stop in Step::ALL {
        let built = Built::with(&[("a-1-1.noarch.rpm", b"built"), ("build.log", &[b'x'; 5_000])]);
        let mut seen = Vec::new();
        let full = || io::Error::from_raw_os_error(Errno::NOSPC.raw_os_error());
        let error = built
            .pack(1_000, |step| {
                seen.push(step);
                if step == stop { Err(full()) } else { Ok(()) }
            })
            .unwrap_err();
        assert!(is_disk_trouble(&error), "{error:#}");
        let found = open(&built.outbox).unwrap();
        if stop < Step::Moved {
            assert_eq!(found, [], "{stop:?}");
            let parcel = built.pack(1_000, |_| Ok(())).unwrap();
            let names: Vec<_> = parcel.manifest.iter().map(|entry| entry.name.as_str()).collect();
            assert_eq!(names, ["a-1-1.noarch.rpm", "build.log", "mock.log"], "{stop:?}");
            assert_eq!(open(&built.outbox).unwrap(), [parcel]);
        } else {
            assert_eq!(found.len(), 1, "{stop:?}");
        }
        let position = Step::ALL.iter().position(|step| *step == stop).unwrap();
        assert_eq!(seen, Step::ALL[..=position]);
    }
}

#[test]
fn what_is_no_parcel_any_more_is_removed_and_the_others_are_found_oldest_first() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 7] = [
        ("no parcel.json", |folder| fs::remove_file(folder.join(PARCEL)).unwrap()),
        ("half a parcel.json", |folder| fs::write(folder.join(PARCEL), "{\"format\": 1").unwrap()),
        ("a later format", |folder| {
            let json = fs::read_to_string(folder.join(PARCEL)).unwrap();
            fs::write(folder.join(PARCEL), json.replace("\"format\": 1", "\"format\": 2")).unwrap();
        }),
        ("a file is missing", |folder| fs::remove_file(folder.join("build.log")).unwrap()),
        ("a file is longer", |folder| fs::write(folder.join("build.log"), "more than that").unwrap()),
        ("a link", |folder| {
            fs::remove_file(folder.join("build.log")).unwrap();
            std::os::unix::fs::symlink("mock.log", folder.join("build.log")).unwrap();
        }),
        ("another attempt", |folder| {
            fs::rename(folder, folder.with_file_name("000000000000b007-32")).unwrap();
        }),
    ];
    for (what, damage) in damages {
        let built = Built::with(&[("build.log", b"four")]);
        built.pack(1_000, |_| Ok(())).unwrap();
        damage(&built.folder());
        assert_eq!(open(&built.outbox).unwrap(), [], "{what}");
        assert_eq!(fs::read_dir(&built.outbox).unwrap().count(), 0, "{what}: it is still there");
    }
    let built = Built::with(&[]);
    let old = built.pack(1_000, |_| Ok(())).unwrap();
    assert_eq!(old.age("2026-11-21T10:00:00Z".parse().unwrap()), Duration::from_secs(3600));
    assert_eq!(old.age("2026-11-21T08:00:00Z".parse().unwrap()), Duration::ZERO, "a clock went back");
    fs::create_dir(&built.resultdir).unwrap();
    let serial = 7;
    let older = Finished {
        attempt: AttemptId { serial, ..ATTEMPT },
        finished_at: old.finished_at - jiff::SignedDuration::from_secs(1),
        ..finished()
    };
    let to = built.outbox.join(older.attempt.to_string());
    pack(&built.resultdir, &built.mock_log, &to, older, (Files::AsBuilt, 1_000), |_| Ok(())).unwrap();
    fs::write(built.outbox.join("a file"), "").unwrap();
    let found: Vec<_> =
        open(&built.outbox).unwrap().into_iter().map(|parcel| parcel.attempt.serial).collect();
    assert_eq!(found, [7, 31]);
    remove(&built.folder()).unwrap();
    assert_eq!(fs::read_dir(built.at.path().join("outbox")).unwrap().count(), 1);
    assert_eq!(open(&built.at.path().join("none")).unwrap(), []);
}

/// Whether a file of the parcel is one of these.
pub(super) fn has_one_of(built: &Built, inodes: &BTreeSet<u64>) -> bool {
    let entries = fs::read_dir(built.folder()).unwrap();
    entries.into_iter().any(|entry| inodes.contains(&entry.unwrap().metadata().unwrap().ino()))
}

#[test]
fn what_the_disk_has_not_taken_is_packed_as_other_files() {
    let names = ["a-1-1.noarch.rpm", "build.log"];
    let built = Built::with(&[(names[0], &[7; 700_000]), (names[1], b"built")]);
    let outside = built.at.path().join("outside");
    fs::write(&outside, "outside").unwrap();
    // What a build may leave: a name more of a file that is not its own, and links where something may be written.
    fs::hard_link(&outside, built.resultdir.join("root.log")).unwrap();
    for link in ["build.part", "root.part", ".tmp"] {
        symlink(&outside, built.resultdir.join(link)).unwrap();
    }
    fs::set_permissions(built.resultdir.join(names[0]), fs::Permissions::from_mode(0o640)).unwrap();
    let not_taken = built.inodes(&names);
    crash::FAILING.set(1);
    let error = built.pack(1_000, |_| Ok(())).unwrap_err();
    assert!(was_not_taken(&error) && is_disk_trouble(&error), "{error:#}");
    assert!(
        format!("{error:#}").ends_with("not taken all of it: Input/output error (os error 5)"),
        "{error:#}"
    );
    let files = (Files::Copied, 1_000);
    let pack = || pack(&built.resultdir, &built.mock_log, &built.folder(), finished(), files, |_| Ok(()));
    let parcel = pack().unwrap();
    assert!(!has_one_of(&built, &not_taken), "the files that were not taken are in the parcel");
    assert_eq!(open(&built.outbox).unwrap(), [parcel]);
    assert_eq!(fs::read(built.folder().join(names[0])).unwrap(), [7; 700_000]);
    assert_eq!(fs::metadata(built.folder().join(names[0])).unwrap().mode() & 0o777, 0o640);
    assert_eq!(fs::read(built.folder().join("root.log")).unwrap(), b"outside");
    assert_eq!((fs::read(&outside).unwrap(), outside.metadata().unwrap().nlink()), (b"outside".to_vec(), 1));
    // Files, links, parcel.json: nothing is left of the copying.
    assert_eq!(fs::read_dir(built.folder()).unwrap().count(), 4 + 3 + 1);
}

#[test]
fn only_a_failed_fsync_says_that_files_are_not_to_be_relied_upon() {
    let full = || io::Error::from_raw_os_error(Errno::NOSPC.raw_os_error());
    let built = Built::with(&[("build.log", b"built")]);
    for stop in [Step::LogMoved, Step::FilesSynced] {
        let error = built.pack(1_000, |step| if step == stop { Err(full()) } else { Ok(()) }).unwrap_err();
        assert!(is_disk_trouble(&error) && !was_not_taken(&error), "{stop:?}: {error:#}");
    }
}
