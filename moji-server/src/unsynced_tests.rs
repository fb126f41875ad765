//! What was put aside, and what is left of it when a copy breaks off.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, symlink};
use std::path::PathBuf;

use anyhow::anyhow;
use moji_proto::Sha256;

use super::*;

/// Staging with results that were put aside.
struct Scene {
    at: tempfile::TempDir,
    manifest: Vec<ManifestEntry>,
}

const FILES: [(&str, &str); 3] =
    [("a-1-1.noarch.rpm", "an RPM"), ("build.log", "a long log of a build"), ("root.log", "")];

fn not_taken() -> anyhow::Error {
    anyhow::Error::new(SyncError::NotTaken(io::Error::other("planned"))).context("cannot publish")
}

impl Scene {
    fn new() -> Self {
        let at = tempfile::tempdir().unwrap();
        fs::create_dir_all(at.path().join("1/results")).unwrap();
        let manifest = FILES.map(|(name, content)| {
            fs::write(at.path().join("1/results").join(name), content).unwrap();
            let (size, sha256) = (content.len() as u64, Sha256::of(content.as_bytes()));
            ManifestEntry { name: name.parse().unwrap(), size, sha256 }
        });
        let scene = Self { at, manifest: manifest.into() };
        // What a try that came further has left.
        fs::write(scene.path("results/build.json"), "{}").unwrap();
        put_aside(&scene.staging(), not_taken());
        assert!(!scene.path("results").exists());
        scene
    }

    fn staging(&self) -> PathBuf {
        self.at.path().join("1")
    }

    fn path(&self, path: &str) -> PathBuf {
        self.staging().join(path)
    }

    fn renew(&self) -> anyhow::Result<Renewed> {
        renew(&self.staging(), &self.manifest)
    }

    fn assert_whole(&self) {
        assert!(!self.path(UNSYNCED).exists());
        for (name, content) in FILES {
            assert_eq!(fs::read_to_string(self.path("results").join(name)).unwrap(), content, "{name}");
        }
        assert_eq!(fs::read_dir(self.path("results")).unwrap().count(), FILES.len());
        assert_eq!(fs::read_dir(self.staging()).unwrap().count(), 1);
    }
}

#[test]
fn what_was_put_aside_comes_back_as_other_files() {
    let scene = Scene::new();
    let inode = |folder: &str, name| scene.path(folder).join(name).metadata().unwrap().ino();
    // A name more keeps their numbers from being given to the copies.
    let before = FILES.map(|(name, _)| {
        fs::hard_link(scene.path(UNSYNCED).join(name), scene.at.path().join(name)).unwrap();
        inode(UNSYNCED, name)
    });
    assert_eq!(scene.renew().unwrap(), Renewed::Whole);
    scene.assert_whole();
    for (name, _) in FILES {
        assert!(!before.contains(&inode(RESULTS, name)), "{name} is the file that was not taken");
    }
    // There is nothing more to do, and that is most often so.
    assert_eq!(scene.renew().unwrap(), Renewed::Whole);
    fs::remove_dir_all(scene.staging()).unwrap();
    assert_eq!(scene.renew().unwrap(), Renewed::Whole);
    assert!(!scene.staging().exists());
}

#[test]
fn only_what_was_not_taken_is_put_aside() {
    let at = tempfile::tempdir().unwrap();
    fs::create_dir(at.path().join(RESULTS)).unwrap();
    let opening = SyncError::Open(io::Error::other("planned"));
    for other in [anyhow!("full"), anyhow::Error::new(opening).context("cannot publish")] {
        put_aside(at.path(), other);
        assert!(at.path().join(RESULTS).exists());
    }
    let error = put_aside(at.path(), not_taken());
    assert!(at.path().join(UNSYNCED).exists() && format!("{error:#}").ends_with("planned"));
    // What cannot be put aside is told too.
    let error = format!("{:#}", put_aside(at.path(), not_taken()));
    assert!(error.contains("put aside") && error.ends_with("planned"), "{error}");
}

/// As a full disk ends it, at each file: what is copied stays, what is half copied is begun anew.
#[test]
fn a_copy_that_breaks_off_goes_on() {
    for stop in 0..=FILES.len() {
        let scene = Scene::new();
        let results = scene.path(RESULTS);
        fs::create_dir(&results).unwrap();
        for (name, _) in &FILES[..stop] {
            fs::copy(scene.path(UNSYNCED).join(name), results.join(name)).unwrap();
            fs::remove_file(scene.path(UNSYNCED).join(name)).unwrap();
        }
        if let Some((name, _)) = FILES.get(stop) {
            fs::write(results.join(name), "half, or even longer than all of it").unwrap();
        }
        assert_eq!(scene.renew().unwrap(), Renewed::Whole, "{stop}");
        scene.assert_whole();
    }
}

#[test]
fn what_is_not_as_it_came_is_lost() {
    for damaged in ["a long log of a buill", "a long log", "", "a long log of a build, and more"] {
        let scene = Scene::new();
        fs::write(scene.path("unsynced/build.log"), damaged).unwrap();
        for _ in 0..2 {
            let Renewed::Lost(why) = scene.renew().unwrap() else { panic!("{damaged:?} is taken") };
            assert_eq!(why, "build.log is not on the disk as it came");
            assert!(!scene.path("results/build.log").exists(), "{damaged:?}");
        }
    }
}

#[test]
fn nothing_is_read_or_written_through_a_link() {
    let scene = Scene::new();
    let (secret, log) = (scene.at.path().join("secret"), scene.path("unsynced/build.log"));
    fs::write(&secret, FILES[1].1).unwrap();
    fs::remove_file(&log).unwrap();
    symlink(&secret, &log).unwrap();
    assert!(scene.renew().is_err(), "it is read");
    fs::remove_file(&log).unwrap();
    fs::write(&log, FILES[1].1).unwrap();
    fs::write(&secret, "secret").unwrap();
    symlink(&secret, scene.path("results/build.log")).unwrap();
    assert_eq!(scene.renew().unwrap(), Renewed::Whole);
    scene.assert_whole();
    assert_eq!(fs::read(&secret).unwrap(), b"secret");
    for link in [RESULTS, UNSYNCED, ""] {
        let scene = Scene::new();
        let link = scene.path(link);
        let link = link.components().as_path();
        let _ = fs::rename(link, scene.at.path().join("elsewhere"));
        symlink(scene.at.path().join("elsewhere"), link).unwrap();
        assert!(scene.renew().is_err(), "{}", link.display());
    }
}
