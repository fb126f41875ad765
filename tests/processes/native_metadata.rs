//! What a server publishes over many rounds of changes, restarts and crashes is what `createrepo_c` would say of
//! the same folder from nothing: package by package the same text, and the same answers to all that dnf can ask.
//!
//! With `MOJI_RPMS=FOLDER` the RPMs of that folder take part: a distribution's, for instance.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, SystemTime};

use moji_server::crash::Point;
use moji_server::metadata::Step;
use moji_tests::support::metadata_sets::{Kind, Place, Sets, make_anew, members, merge, places_below};
use moji_tests::support::processes::{Farm, TARGET, wait_for, wait_until};
use moji_tests::support::{corpus, dnf};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::generated::generated as rpm_of;

const OPTIONS: [&str; 2] = ["--metadata", "native"];

/// A farm whose builders are the test: it puts folders into REPO, and takes them out.
struct Stage {
    farm: Farm,
}

impl Stage {
    fn start() -> Self {
        let stage = Self { farm: Farm::start(&OPTIONS) };
        stage.assert_equal("nothing");
        stage
    }

    /// A folder of packages comes into REPO as a result does, with one rename.
    fn add(&self, name: &str, make: impl FnOnce(&Path)) {
        let made = self.farm.path(Path::new(name).file_name().unwrap());
        make(&made);
        fs::rename(made, self.farm.repo(name)).unwrap();
    }

    /// The same with small packages: those with these numbers.
    fn add_generated(&self, name: &str, numbers: impl IntoIterator<Item = u32>, edition: u32) {
        self.add(name, |made| {
            fs::create_dir(made).unwrap();
            for number in numbers {
                fs::write(made.join(file_of(number)), rpm_of(number, edition)).unwrap();
            }
        });
    }

    /// Another edition takes the place of a package, as `mv` does it.
    fn replace(&self, path: &str, number: u32, edition: u32) {
        let new = self.farm.path("new.rpm");
        fs::write(&new, rpm_of(number, edition)).unwrap();
        fs::rename(new, self.farm.repo(path)).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_dir_all(self.farm.repo(name)).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.farm.repo(from), self.farm.repo(to)).unwrap();
    }

    fn stop(&mut self) {
        self.farm.server().signal(Signal::TERM);
        assert_eq!(self.farm.server.as_mut().unwrap().wait_code(), 0);
    }

    fn restart(&mut self) {
        self.farm.start_server(&OPTIONS);
    }

    /// Waits until REPO's metadata speak of what lies there, and compares them, and what stays of them.
    fn assert_equal(&self, when: &str) -> Sets {
        let served = assert_equal(&self.farm.repo(""), when);
        assert_fixed(&self.farm.repo(""), &served, when);
        served
    }

    /// That it was not `createrepo_c` itself which made them: it packs each file as a whole.
    fn assert_native(&self) {
        let members = members(&self.farm.repo(""), Kind::Primary).unwrap();
        assert!(members > 2, "{members} members");
        assert_eq!(self.farm.server().count("are made by createrepo_c this time"), 0);
    }
}

fn file_of(number: u32) -> String {
    format!("generated{number}.rpm")
}

/// Waits until the metadata of a repository speak of what lies there, and compares them with new ones.
fn assert_equal(repository: &Path, when: &str) -> Sets {
    let there = places_below(repository).unwrap();
    let mut looks = 0_u32;
    let served = wait_for(&format!("the metadata of {}, {when}", repository.display()), || {
        if !repository.join("repodata/repomd.xml").exists() {
            return None;
        }
        // At no instant there is anything wrong with what is served.
        let served = Sets::read(repository).unwrap();
        let places = served.places().unwrap();
        if places == there {
            return Some(served);
        }
        looks += 1;
        if looks.is_multiple_of(100) {
            let differing: Vec<&Place> = places.symmetric_difference(&there).take(4).collect();
            println!("{when}: still {} packages instead of {}: {differing:?}", places.len(), there.len());
        }
        None
    });
    let scratch = tempfile::tempdir().unwrap();
    make_anew(repository, scratch.path()).unwrap();
    let anew = Sets::read(scratch.path()).unwrap();
    assert_eq!(served.len(), anew.len(), "{when}");
    if let Some(difference) = served.difference(&anew) {
        panic!("{}, {when}: {difference}", repository.display());
    }
    served
}

/// What stays of a generation says the same but for places, and there are the same files.
fn assert_fixed(repository: &Path, served: &Sets, when: &str) {
    let fixed = repository.join("generations").join(&served.revision);
    wait_until(&format!("generation {}, {when}", served.revision), || {
        fixed.join("repodata/repomd.xml").exists()
    });
    let kept = Sets::read(&fixed).unwrap();
    let difference = kept.without_places().unwrap().difference(&served.without_places().unwrap());
    assert_eq!(difference, None, "{}, {when}", fixed.display());
    for Place { path, id, .. } in kept.places().unwrap() {
        let bytes = fs::read(fixed.join(&path)).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert_eq!(moji_proto::Sha256::of(&bytes).to_string(), id, "{path}, {when}");
    }
}

/// dnf gives the same answers from both, and so does what reads both to merge them.
fn assert_equal_for_readers(repository: &Path) {
    let scratch: [TempDir; 6] = std::array::from_fn(|_| tempfile::tempdir().unwrap());
    let [anew, empty, ours, theirs, one, other] = scratch.each_ref().map(TempDir::path);
    make_anew(repository, anew).unwrap();
    assert_eq!(dnf::locations(repository, ours), dnf::locations(anew, theirs));
    let pairs = dnf::answers(repository, ours).into_iter().zip(dnf::answers(anew, theirs));
    for ((question, here), (_, there)) in pairs {
        let differs = here.lines().zip(there.lines()).find(|(here, there)| here != there);
        assert!(here == there, "dnf repoquery {question}: {differs:?}");
        println!("dnf repoquery {question:.40}: {} lines, the same", here.lines().count());
    }
    make_anew(empty, empty).unwrap();
    merge([repository, empty], one).unwrap();
    merge([anew, empty], other).unwrap();
    let [one, other] = [one, other].map(|merged| Sets::read(merged).unwrap().without_places().unwrap());
    assert!(!one.is_empty());
    assert_eq!(one.difference(&other), None, "merged by mergerepo_c");
}

#[test]
fn every_kind_of_package_is_described_as_createrepo_c_does_and_read_so_by_dnf() {
    let stage = Stage::start();
    stage.add("corners-1.0-0.7", corpus::corners);
    for name in ["hello-moji", "libmoji-demo", "moji-data", "moji-chatter"] {
        stage.add(name, |made| corpus::example(name, made));
    }
    if let Some(folder) = std::env::var_os("MOJI_RPMS") {
        stage.add("given", |made| copy_readable(Path::new(&folder), made));
    }
    let few = stage.assert_equal("a few builds");
    stage.add("crowd-1-1", corpus::crowd);
    for n in 0..10 {
        stage.add_generated(&format!("generated-{n}"), n * 15..(n + 1) * 15, 1);
    }
    let many = stage.assert_equal("many packages");
    assert!(few.len() > 15 && many.len() == few.len() + 141 + 150, "{} and {}", few.len(), many.len());
    // The next generation takes over what is said of most of them, and nobody must see a seam.
    stage.remove("generated-4");
    stage.remove("moji-chatter");
    fs::remove_file(stage.farm.repo("crowd-1-1/member70-1-1.noarch.rpm")).unwrap();
    stage.replace(&format!("generated-2/{}", file_of(31)), 31, 2);
    stage.add_generated("generated-10", 150..153, 1);
    stage.assert_equal("some changed");
    stage.assert_native();
    assert_equal_for_readers(&stage.farm.repo(""));
}

#[test]
fn after_any_change_the_metadata_are_as_if_made_anew() {
    let mut stage = Stage::start();
    for n in 0..10 {
        stage.add_generated(&format!("g-{n}"), n * 20..(n + 1) * 20, 1);
    }
    stage.assert_equal("200 packages");

    stage.replace("g-3/generated61.rpm", 61, 2);
    let served = stage.assert_equal("one replaced in place");
    assert!(served.files[&Kind::Primary].values().flatten().any(|element| element.contains("edition 002")));

    // Size and second tell nothing.
    let path = stage.farm.repo("g-3/generated62.rpm");
    let (size, modified) =
        (fs::metadata(&path).unwrap().len(), fs::metadata(&path).unwrap().modified().unwrap());
    stage.replace("g-3/generated62.rpm", 62, 2);
    set_modified(&path, modified);
    assert_eq!(fs::metadata(&path).unwrap().len(), size);
    stage.assert_equal("one replaced by one that looks the same");

    set_modified(
        &stage.farm.repo("g-5/generated100.rpm"),
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_500_000_000),
    );
    stage.assert_equal("one touched");

    stage.rename("g-1", "a-folder & its <other> name");
    stage.rename("g-2/generated40.rpm", "g-9/moved.rpm");
    fs::copy(stage.farm.repo("g-4/generated80.rpm"), stage.farm.repo("g-6/again.rpm")).unwrap();
    fs::copy(stage.farm.repo("g-4/generated81.rpm"), stage.farm.repo("at-the-top.rpm")).unwrap();
    stage.assert_equal("a folder and a package moved, two copied");

    fs::create_dir_all(stage.farm.repo(format!("{TARGET}/repodata"))).unwrap();
    stage.add_generated(&format!("{TARGET}/g-1"), 10..90, 1);
    stage.assert_equal("a repository beside");
    let target = stage.farm.repo(TARGET);
    assert_fixed(&target, &assert_equal(&target, "beside"), "beside");
    stage.rename(&format!("{TARGET}/g-1"), "from-the-target");
    stage.assert_equal("moved to the other repository");
    stage.assert_native();
    assert!(assert_equal(&target, "moved away").is_empty());

    stage.stop();
    stage.remove("g-0");
    stage.add_generated("g-0-anew", 200..270, 1);
    stage.replace("g-7/generated141.rpm", 141, 2);
    stage.restart();
    stage.assert_equal("changed while no server ran");

    let named = ["from-the-target", "a-folder & its <other> name", "g-0-anew"].map(str::to_owned);
    for folder in named.into_iter().chain((2..9).map(|n| format!("g-{n}"))) {
        stage.remove(&folder);
    }
    stage.assert_equal("few are left");
    stage.assert_native();
    stage.remove("g-9");
    fs::remove_file(stage.farm.repo("at-the-top.rpm")).unwrap();
    assert!(stage.assert_equal("none is left").is_empty());
    stage.add_generated("last", 5..6, 1);
    stage.assert_equal("one came");
}

#[test]
fn after_a_crash_at_each_step_the_metadata_are_as_if_made_anew() {
    let mut stage = Stage::start();
    for n in 0..5 {
        stage.add_generated(&format!("g-{n}"), n * 30..(n + 1) * 30, 1);
    }
    stage.assert_equal("150 packages");
    for (n, step) in (1_u32..).zip(Step::ALL) {
        stage.stop();
        let mut command = stage.farm.server_command(&OPTIONS);
        command.args(["--listen", &stage.farm.address().to_string()]);
        command.env("MOJI_CRASH_AT", Point::Publication(*step).name());
        stage.farm.run_server(command);
        stage.add_generated(&format!("h-{n}"), 1_000 * n..1_000 * n + 3, 1);
        stage.replace(&format!("g-2/{}", file_of(60 + n)), 60 + n, 7);
        if n > 1 {
            stage.remove(&format!("h-{}", n - 1));
        }
        stage.farm.server.as_mut().unwrap().wait_crash();
        // What changes meanwhile is not what was about to be published.
        stage.replace(&format!("g-3/{}", file_of(90 + n)), 90 + n, 8);
        stage.restart();
        stage.assert_equal(&format!("after a crash at {step:?}"));
    }
    for n in 0..6 {
        stage.add_generated(&format!("k-{n}"), 500 + n * 10..510 + n * 10, 1);
        stage.farm.server.as_mut().unwrap().kill();
        stage.restart();
    }
    stage.assert_equal("killed again and again");
    stage.assert_native();
}

/// Those that this machine's `createrepo_c` can read: others may be of a newer kind.
fn copy_readable(from: &Path, to: &Path) {
    let scratch = tempfile::tempdir().unwrap();
    make_anew(from, scratch.path()).unwrap();
    let places = Sets::read(scratch.path()).unwrap().places().unwrap();
    fs::create_dir(to).unwrap();
    println!("{} RPMs of {}", places.len(), from.display());
    for (n, place) in places.iter().enumerate() {
        fs::copy(from.join(&place.path), to.join(format!("{n}.rpm"))).unwrap();
    }
}

fn set_modified(path: &Path, time: SystemTime) {
    File::options().write(true).open(path).unwrap().set_modified(time).unwrap();
}
