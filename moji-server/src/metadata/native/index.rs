//! Where everything lies in the files that are served: a help and not the truth. Without it these are taken apart once.
//!
//! It deliberately does not know what is in the members, nor how to write them.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use moji_proto::Sha256;
use serde::{Deserialize, Serialize};
use tracing::{info, warn};

use super::super::packages::REPODATA;
use super::groups;

/// Where a member lies in its file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Member {
    pub(super) offset: u64,
    pub(super) size: u64,
    /// Bytes of its text.
    pub(super) open: u64,
}

/// What some packages have in each of the files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Group {
    /// The least hash that belongs to it.
    pub(super) start: u64,
    pub(super) members: [Member; 3],
    /// In the primary file of the fixed generation; `None` when the packages are others there.
    pub(super) fixed: Option<Member>,
}

/// The primary file of a fixed generation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct FixedFile {
    /// Of this generation.
    pub(crate) number: u64,
    /// Its name in `repodata` of that.
    pub(crate) name: String,
}

/// Where everything lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Index {
    /// Of the generation with this `repomd.xml`.
    pub(crate) repomd: Sha256,
    /// Its files.
    pub(super) files: [String; 3],
    pub(super) groups: Vec<Group>,
    /// That of the last fixed generation that was made with an index.
    pub(super) fixed: Option<FixedFile>,
    /// Whether the file is as this.
    #[serde(skip)]
    saved: bool,
}

impl Index {
    pub(super) fn new(
        repomd: Sha256,
        files: [String; 3],
        groups: Vec<Group>,
        fixed: Option<FixedFile>,
    ) -> Self {
        Self { repomd, files, groups, fixed, saved: false }
    }

    /// Reads the index of what is served, if there is one that is of it.
    pub(crate) fn load(path: &Path, served: Sha256) -> Option<Self> {
        let read = fs::read(path).and_then(|json| Ok(serde_json::from_slice::<Self>(&json)?));
        let damage = match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
            Ok(index) if index.repomd != served => {
                info!("{} is of another generation: the metadata are taken apart instead", path.display());
                return None;
            }
            Ok(index) if index.starts_rise() => return Some(Self { saved: true, ..index }),
            Ok(_) => "its groups are not in order".to_owned(),
            Err(error) => error.to_string(),
        };
        warn!("{} is damaged ({damage}): the metadata are taken apart instead", path.display());
        None
    }

    /// Writes it, unless the file is as this. It is not made durable: after a power cut it is not there, cut off or of
    /// another generation, and does not count.
    ///
    /// # Errors
    /// When that fails.
    pub(crate) fn save(&mut self, path: &Path) -> io::Result<()> {
        if !self.saved {
            let part = path.with_extension("json.part");
            fs::write(&part, serde_json::to_vec(self)?)?;
            fs::rename(&part, path)?;
            self.saved = true;
        }
        Ok(())
    }

    fn starts_rise(&self) -> bool {
        let starts = || self.groups.iter().map(|group| group.start);
        starts().next() == Some(0) && starts().zip(starts().skip(1)).all(|(one, next)| one < next)
    }

    /// The group that a path belongs to.
    pub(super) fn group_of(&self, path: &str) -> usize {
        groups::group_of(&self.groups, |group| group.start, groups::hash(path))
    }

    /// The primary file of a fixed generation, open, if it is still there and as long as is known. `generations` is the
    /// folder of all of them.
    pub(crate) fn open_fixed(&self, generations: &Path) -> Option<(&FixedFile, File)> {
        let fixed = self.fixed.as_ref()?;
        let folder = generations.join(fixed.number.to_string()).join(REPODATA);
        let file = File::open(folder.join(&fixed.name)).ok()?;
        let size = file.metadata().ok()?.len();
        let mut members = self.groups.iter().filter_map(|group| group.fixed.as_ref());
        let all = members.all(|member| member.offset.checked_add(member.size).is_some_and(|end| end <= size));
        all.then_some((fixed, file))
    }

    /// A generation is fixed now: its primary file, and where the groups lie in it.
    pub(crate) fn fixed_is(&mut self, file: FixedFile, members: Members) {
        for (group, member) in self.groups.iter_mut().zip(members.0) {
            group.fixed = Some(member);
        }
        (self.fixed, self.saved) = (Some(file), false);
    }
}

/// Where each group lies in a file that was written.
#[derive(Debug)]
pub(crate) struct Members(pub(super) Vec<Member>);

/// Whether members lie one after the other in a file of so many bytes: what is copied without a look at it must be there.
pub(super) fn lie_in_turn<'a>(members: impl IntoIterator<Item = &'a Member>, size: u64) -> bool {
    let mut end = None;
    members.into_iter().all(|member| {
        let is_next = end.is_none_or(|end| member.offset == end);
        end = member.offset.checked_add(member.size).filter(|end| *end <= size);
        is_next && end.is_some()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_that_do_not_lie_in_turn_are_not_copied() {
        let member = |offset, size| Member { offset, size, open: 9 };
        assert!(lie_in_turn(&[member(20, 5), member(25, 7)], 32));
        assert!(lie_in_turn(&[], 0));
        assert!(!lie_in_turn(&[member(20, 5), member(25, 7)], 31));
        assert!(!lie_in_turn(&[member(20, 5), member(26, 7)], 99));
        assert!(!lie_in_turn(&[member(20, u64::MAX), member(19, 7)], 99));
    }

    #[test]
    fn only_a_sound_index_of_what_is_served_is_loaded() {
        let at = tempfile::tempdir().unwrap();
        let path = at.path().join("index.json");
        let member = Member { offset: 20, size: 5, open: 9 };
        let group = |start| Group { start, members: [member; 3], fixed: None };
        let (served, other) = (Sha256::of(b"served"), Sha256::of(b"other"));
        let index = |starts: &[u64]| {
            let groups = starts.iter().map(|start| group(*start)).collect();
            Index::new(served, ["p", "f", "o"].map(str::to_owned), groups, None)
        };
        assert_eq!(Index::load(&path, served), None);
        let mut sound = index(&[0, 7, 9]);
        sound.save(&path).unwrap();
        assert_eq!(Index::load(&path, served).as_ref(), Some(&sound));
        assert_eq!(Index::load(&path, other), None);
        // What is as the file is not written again.
        fs::remove_file(&path).unwrap();
        sound.save(&path).unwrap();
        assert!(!path.exists());
        sound.fixed_is(FixedFile { number: 4, name: "f".into() }, Members(vec![member; 3]));
        sound.save(&path).unwrap();
        assert_eq!(Index::load(&path, served).unwrap().groups[2].fixed, Some(member));
        for starts in [&[][..], &[3, 7], &[0, 7, 7], &[0, 9, 7]] {
            index(starts).save(&path).unwrap();
            assert_eq!(Index::load(&path, served), None, "{starts:?}");
        }
        let json = serde_json::to_vec(&index(&[0])).unwrap();
        for length in 0..json.len() {
            fs::write(&path, &json[..length]).unwrap();
            assert_eq!(Index::load(&path, served), None, "{length} bytes");
        }
    }
}
