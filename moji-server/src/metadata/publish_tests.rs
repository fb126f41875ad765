//! Publication with hand-made generations, ended after every step as a crash would end it.

use std::collections::BTreeSet;

use super::*;

struct Repo {
    root: tempfile::TempDir,
    ledger: Ledger,
}

/// Two files a generation; `filelists` is the same in each, so it is shared.
fn contents(number: u64) -> [(&'static str, Vec<u8>); 2] {
    [("primary", format!("primary of {number}").into_bytes()), ("filelists", b"the same".to_vec())]
}

fn repomd(number: u64) -> String {
    let data: String = contents(number)
        .iter()
        .map(|(kind, bytes)| {
            let (digest, size) = (Sha256::of(bytes), bytes.len());
            format!(
                "<data type=\"{kind}\"><checksum type=\"sha256\">{digest}</checksum>\
                 <location href=\"repodata/{digest}-{kind}\"/><size>{size}</size></data>"
            )
        })
        .collect();
    format!("<repomd><revision>{number}</revision>{data}</repomd>")
}

impl Repo {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("repo")).unwrap();
        Self { root, ledger: Ledger::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn stage(&self, number: u64) {
        let staged = self.path("staged");
        let _ = fs::remove_dir_all(&staged);
        fs::create_dir(&staged).unwrap();
        for (kind, bytes) in contents(number) {
            fs::write(staged.join(format!("{}-{kind}", Sha256::of(&bytes))), bytes).unwrap();
        }
        fs::write(staged.join(REPOMD), repomd(number)).unwrap();
    }

    fn publish(&mut self, number: u64, crash_after: Option<Step>) -> Result<(), PublishError> {
        self.stage(number);
        self.publish_staged(number, crash_after)
    }

    fn publish_staged(&mut self, number: u64, crash_after: Option<Step>) -> Result<(), PublishError> {
        let (folder, staged, path) = (self.path("repo"), self.path("staged"), self.path("ledger.json"));
        let follows = Served::read(&folder).unwrap();
        let publication = Publication {
            folder: &folder,
            staged: Staged::Folder(&staged),
            ledger: &path,
            follows: follows.as_ref(),
            now: number,
        };
        let edition = Edition {
            number,
            repomd: Sha256::of(b""),
            files: Vec::new(),
            packages: Vec::new(),
            refused: Vec::new(),
            replaces: Vec::new(),
        };
        let passed = |step| {
            if Some(step) == crash_after { Err(PublishError::Staged("crash".into())) } else { Ok(()) }
        };
        publish(&publication, &mut self.ledger, edition, passed)
    }

    fn restart(&mut self, now: u64, keep: u64) {
        let path = self.path("ledger.json");
        self.ledger = Ledger::load(&path).unwrap();
        settle(&self.path("repo"), &path, &mut self.ledger, now, keep).unwrap();
    }

    /// Checks everything that the served `repomd.xml` names; gives its revision.
    fn served(&self) -> Option<u64> {
        let repodata = self.path("repo/repodata");
        let text = fs::read(repodata.join(REPOMD)).ok()?;
        let repomd = Repomd::parse(&text).unwrap();
        for file in &repomd.files {
            assert_eq!(check(&repodata.join(&file.name), file), Ok(()), "{file:?}");
        }
        assert_eq!(repomd.files.len(), 2);
        repomd.revision
    }

    fn names(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.path("repo/repodata")).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn expected_names(numbers: &[u64]) -> BTreeSet<String> {
    let files = numbers
        .iter()
        .flat_map(|n| contents(*n))
        .map(|(kind, bytes)| format!("{}-{kind}", Sha256::of(&bytes)));
    files.chain([REPOMD.to_owned()]).collect()
}

#[test]
fn a_crash_after_any_step_leaves_a_whole_generation_and_the_next_start_tidies_up() {
    for before in [None, Some(41)] {
        for step in Step::ALL.iter().copied() {
            let mut repo = Repo::new();
            if let Some(number) = before {
                repo.publish(number, None).unwrap();
            }
            assert!(repo.publish(42, Some(step)).is_err());
            let switched = step >= Step::Switched;
            let served = if switched { Some(42) } else { before };
            assert_eq!(repo.served(), served, "{step:?}");

            repo.restart(42, 60);
            assert_eq!(repo.served(), served, "{step:?}");
            assert_eq!(repo.ledger.published.as_ref().map(|edition| edition.number), served, "{step:?}");
            assert_eq!(repo.ledger.pending, None);
            if step > Step::Checked && served.is_some() {
                let kept: Vec<_> = before.into_iter().chain(switched.then_some(42)).collect();
                assert_eq!(repo.names(), expected_names(&kept), "{step:?}");
            }

            repo.publish(43, None).unwrap();
            assert_eq!(repo.served(), Some(43), "{step:?}");
        }
    }
}

#[test]
fn earlier_files_stay_for_a_while_and_those_of_others_for_ever() {
    let mut repo = Repo::new();
    repo.publish(100, None).unwrap();
    fs::write(repo.path("repo/repodata/notes.txt"), "mine").unwrap();
    repo.publish(110, None).unwrap();
    repo.publish(120, None).unwrap();
    let with_notes = |numbers: &[u64]| {
        let mut names = expected_names(numbers);
        names.insert("notes.txt".into());
        names
    };
    repo.restart(169, 60);
    assert_eq!(repo.names(), with_notes(&[100, 110, 120]));
    repo.restart(170, 60);
    assert_eq!(repo.names(), with_notes(&[110, 120]));
    repo.restart(180, 60);
    assert_eq!(repo.names(), with_notes(&[120]));
    assert_eq!(repo.served(), Some(120));
}

#[test]
fn what_is_staged_is_not_trusted() {
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 5] = [
        ("there is no repomd.xml", |staged| fs::remove_file(staged.join(REPOMD)).unwrap()),
        ("repomd.xml: it ends too early", |staged| fs::write(staged.join(REPOMD), "<repomd>").unwrap()),
        ("not the revision", |staged| fs::write(staged.join(REPOMD), repomd(8)).unwrap()),
        ("No such file", |staged| {
            fs::remove_file(staged.join(expected_names(&[9]).first().unwrap())).unwrap()
        }),
        ("SHA-256", |staged| {
            let name = format!("{}-filelists", Sha256::of(b"the same"));
            fs::write(staged.join(name), b"the SAME").unwrap();
        }),
    ];
    for (why, damage) in damages {
        let mut repo = Repo::new();
        repo.publish(5, None).unwrap();
        repo.stage(9);
        damage(&repo.path("staged"));
        let error = repo.publish_staged(9, None).unwrap_err().to_string();
        assert!(error.contains(why), "{error} / {why}");
        assert_eq!(repo.served(), Some(5));
    }
}

#[test]
fn damaged_files_of_the_same_name_are_replaced_and_a_foreign_change_is_not_lost() {
    let is_whole = |repo: &Repo| {
        let folder = repo.path("repo");
        Served::read(&folder).unwrap().unwrap().is_whole(&folder)
    };
    let mut repo = Repo::new();
    repo.publish(5, None).unwrap();
    let shared = repo.path(&format!("repo/repodata/{}-filelists", Sha256::of(b"the same")));
    fs::write(&shared, "damaged!").unwrap();
    assert!(is_whole(&repo), "the size is right");
    repo.publish(6, None).unwrap();
    assert_eq!(repo.served(), Some(6));

    fs::write(&shared, "cut").unwrap();
    assert!(!is_whole(&repo));
    let foreign = repomd(7);
    fs::write(repo.path("repo/repodata/repomd.xml"), &foreign).unwrap();
    let older = Served::of(b"older".to_vec());
    let (folder, staged, ledger) = (repo.path("repo"), repo.path("staged"), repo.path("ledger.json"));
    repo.stage(8);
    let edition = Edition { number: 8, ..repo.ledger.published.clone().unwrap() };
    let publication = Publication {
        folder: &folder,
        staged: Staged::Folder(&staged),
        ledger: &ledger,
        follows: Some(&older),
        now: 8,
    };
    let result = publish(&publication, &mut repo.ledger, edition, |_| Ok(()));
    assert!(matches!(result, Err(PublishError::Overtaken)));
    assert_eq!(fs::read_to_string(folder.join("repodata/repomd.xml")).unwrap(), foreign);
}

#[test]
fn everyone_can_read_it() {
    let mut repo = Repo::new();
    repo.publish(5, None).unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    let repodata = repo.path("repo/repodata");
    assert_eq!(mode(&repodata), 0o755);
    for name in repo.names() {
        assert_eq!(mode(&repodata.join(&name)), 0o644, "{name}");
    }
}
