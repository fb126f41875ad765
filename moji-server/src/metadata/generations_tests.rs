use std::os::unix::fs::{MetadataExt as _, symlink};

use moji_proto::Sha256;

use super::*;

fn package(path: &str, inode: u64) -> Package {
    Package { path: path.into(), size: 5, modified: (7, 8), inode }
}

#[test]
fn a_links_name_tells_files_apart_and_means_nothing_in_a_url() {
    let name = link_name(&package("a/gcc-c++-1~rc1^git-1.x86_64.rpm", 3));
    assert_eq!(name.get(16..), Some("-gcc-c++-1~rc1^git-1.x86_64.rpm"));
    assert_eq!(link_name(&package("a/%2e%2e?#\u{e9} b.rpm", 3)).get(16..), Some("-_2e_2e____b.rpm"));
    for other in
        [package("b/gcc-c++-1~rc1^git-1.x86_64.rpm", 3), package("a/gcc-c++-1~rc1^git-1.x86_64.rpm", 4)]
    {
        assert_ne!(link_name(&other), name);
    }
    let long = link_name(&package(&format!("{}.rpm", "x".repeat(251)), 3));
    assert_eq!((long.len(), long.ends_with("xx.rpm")), (255, true));
    assert_eq!(link_of(format!("../rpms/{name}")), Some(name));
    assert_eq!(link_of("../../a/b.rpm"), None);
}

/// A repository with metadata that list one package.
fn repository() -> (tempfile::TempDir, Edition) {
    let at = tempfile::tempdir().unwrap();
    let repodata = at.path().join(REPODATA);
    fs::create_dir(&repodata).unwrap();
    fs::write(at.path().join("a.rpm"), "12345").unwrap();
    let found = fs::metadata(at.path().join("a.rpm")).unwrap();
    let primary = "<metadata packages=\"1\"><package><location href=\"a.rpm\"/></package></metadata>";
    fs::write(repodata.join("p.xml"), primary).unwrap();
    fs::write(repodata.join("g.xml"), "groups").unwrap();
    let data = |kind, name| format!("<data type=\"{kind}\"><location href=\"repodata/{name}\"/></data>");
    let text = format!(
        "<repomd><revision>4</revision>{}{}{}</repomd>",
        data("primary", "p.xml"),
        data("primary_db", "p.sqlite"),
        data("group", "g.xml")
    );
    fs::write(repodata.join(REPOMD), &text).unwrap();
    let package = Package {
        path: "a.rpm".into(),
        size: 5,
        modified: (found.mtime(), found.mtime_nsec()),
        inode: found.ino(),
    };
    let edition = Edition {
        number: 4,
        repomd: Sha256::of(text.as_bytes()),
        files: Vec::new(),
        packages: vec![package],
        refused: Vec::new(),
        replaces: Vec::new(),
    };
    (at, edition)
}

fn open(at: &Path, now: u64) -> Generations {
    Generations::open(at, &at.join("register"), now)
}

#[test]
fn each_step_may_be_done_again() {
    let (at, edition) = repository();
    let at = at.path();
    assert_eq!(open(at, 10).make(&edition, 10, None, None).unwrap(), None);
    let generation = at.join("generations/4");
    let [place] = places(&generation).unwrap().into_iter().collect::<Vec<_>>().try_into().unwrap();
    assert_eq!(fs::read(generation.join(place)).unwrap(), b"12345");
    let names = names(&generation.join(REPODATA)).unwrap();
    assert!(names.len() == 3 && !names.contains(&"p.sqlite".to_owned()), "{names:?}");
    let inode = |path: &Path| fs::metadata(path).unwrap().ino();
    assert_eq!(inode(&generation.join("repodata/g.xml")), inode(&at.join("repodata/g.xml")));
    assert_eq!(inspect(at, true).unwrap(), []);

    // It is there: nothing is done. The register is lost: done again, the same.
    let before = inode(&generation);
    open(at, 11).make(&edition, 11, None, None).unwrap();
    assert_eq!(inode(&generation), before);
    let text = fs::read(generation.join("repodata/repomd.xml")).unwrap();
    fs::remove_file(at.join("register")).unwrap();
    assert_eq!(open(at, 12).held().first().map(|held| held.superseded), Some(Some(12)));
    let mut again = open(at, 13);
    again.make(&edition, 13, None, None).unwrap();
    assert_ne!(inode(&generation), before);
    assert_eq!(fs::read(generation.join("repodata/repomd.xml")).unwrap(), text);
    assert_eq!(again.held().first().map(|held| held.superseded), Some(None), "it is served");
    assert!(again.remove(&[4].into(), Some(4)).is_ok() && generation.exists(), "what is served stays");
}

#[test]
fn without_links_the_place_itself_is_named() {
    let (at, edition) = repository();
    let at = at.path();
    let Ok(elsewhere) = tempfile::tempdir_in("/dev/shm") else { return };
    fs::create_dir(at.join("generations")).unwrap();
    symlink(elsewhere.path(), at.join("generations/rpms")).unwrap();
    let loose = open(at, 10).make(&edition, 10, None, None).unwrap();
    assert_eq!(loose.map(|(count, _)| count), Some(1));
    assert_eq!(places(&at.join("generations/4")), Some(["../../a.rpm".to_owned()].into()));
    assert_eq!(inspect(at, true).unwrap(), []);
}

#[test]
fn a_package_that_was_replaced_meanwhile_is_not_taken() {
    let (at, edition) = repository();
    let at = at.path();
    fs::write(at.join("b"), "54321").unwrap();
    fs::rename(at.join("b"), at.join("a.rpm")).unwrap();
    let error = format!("{:#}", open(at, 10).make(&edition, 10, None, None).unwrap_err());
    assert!(error.contains("a.rpm: it was replaced meanwhile"), "{error}");
    assert_eq!(names(&at.join("generations/rpms")).unwrap(), [""; 0]);
    assert!(!at.join("generations/4").exists());
}

#[test]
fn damage_is_found() {
    let (at, edition) = repository();
    let at = at.path();
    open(at, 10).make(&edition, 10, None, None).unwrap();
    let generations = at.join("generations");
    for folder in [".5", ".4.old", "mine"] {
        fs::create_dir(generations.join(folder)).unwrap();
    }
    let beside = vec![
        (generations.join(".4.old"), Wrong::Leftover),
        (generations.join(".5"), Wrong::Leftover),
        (generations.join("mine"), Wrong::Foreign),
    ];
    assert_eq!(inspect(at, false).unwrap(), beside);
    for name in names(&generations.join(RPMS)).unwrap() {
        fs::remove_file(generations.join(RPMS).join(name)).unwrap();
    }
    let wrong = inspect(at, false).unwrap();
    assert!(
        matches!(wrong.last(), Some((path, Wrong::Damaged(why))) if path.ends_with("4") && why.contains("is not there"))
    );
    fs::write(generations.join("4/repodata/repomd.xml"), "<repomd>").unwrap();
    assert_eq!(
        inspect(at, false).unwrap().last().unwrap().1,
        Wrong::Damaged("its metadata are damaged".into())
    );
    // The next start removes what a crash left, and nothing else.
    open(at, 10);
    assert_eq!(names(&generations).unwrap(), ["4", "mine", RPMS]);
}
