//! RPMs for tests, with digests that are right: what rpmbuild makes, in small, and anything else.

use moji_proto::Sha256;

use crate::source::testing::{Entry, section};

/// A package that is to be made.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    pub(crate) name: &'static str,
    pub(crate) version: &'static str,
    pub(crate) release: &'static str,
    pub(crate) arch: &'static str,
    /// SOURCERPM; none: a source package.
    pub(crate) source_rpm: Option<&'static str>,
    /// Its files: folder and name.
    pub(crate) files: Vec<(&'static str, &'static str)>,
    pub(crate) payload: Vec<u8>,
    /// Entries of the main header in place of the usual ones, or beside them.
    pub(crate) main: Vec<Entry>,
    /// Tags that are left out of either header.
    pub(crate) without: Vec<u32>,
    /// The same as `main` for the signature.
    pub(crate) signature: Vec<Entry>,
}

pub(crate) fn text(text: &str) -> (u32, u32, Vec<u8>) {
    (6, 1, [text.as_bytes(), b"\0"].concat())
}

pub(crate) fn texts(texts: &[&str]) -> (u32, u32, Vec<u8>) {
    (8, texts.len() as u32, texts.iter().flat_map(|text| [text.as_bytes(), b"\0"].concat()).collect())
}

pub(crate) fn numbers(numbers: &[u32]) -> (u32, u32, Vec<u8>) {
    (4, numbers.len() as u32, numbers.iter().flat_map(|number| number.to_be_bytes()).collect())
}

impl Made {
    /// `foo-1-1.src.rpm`.
    pub(crate) fn source() -> Self {
        Self {
            name: "foo",
            version: "1",
            release: "1",
            arch: "x86_64",
            source_rpm: None,
            files: vec![("", "foo.spec"), ("", "foo-1.tar.gz")],
            payload: (0..3_000).map(|n| (n % 251) as u8 + 1).collect(),
            main: Vec::new(),
            without: Vec::new(),
            signature: Vec::new(),
        }
    }

    /// `foo-1-1.x86_64.rpm`, built from that.
    pub(crate) fn binary() -> Self {
        Self {
            source_rpm: Some("foo-1-1.src.rpm"),
            files: vec![("/usr/bin/", "foo"), ("/etc/", "foo.conf"), ("/", "")],
            ..Self::source()
        }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut folders: Vec<_> = self.files.iter().map(|(folder, _)| *folder).collect();
        folders.dedup();
        let index = |folder: &str| folders.iter().position(|other| *other == folder).unwrap() as u32;
        let indexes: Vec<_> = self.files.iter().map(|(folder, _)| index(folder)).collect();
        let names: Vec<_> = self.files.iter().map(|(_, name)| *name).collect();
        let mut main = vec![
            (1000, text(self.name)),
            (1001, text(self.version)),
            (1002, text(self.release)),
            (1004, (9, 1, b"a summary\0".to_vec())),
            (1009, numbers(&[4711])),
            (1022, text(self.arch)),
            (1116, numbers(&indexes)),
            (1117, texts(&names)),
            (1118, texts(&folders)),
            (5092, texts(&[&Sha256::of(&self.payload).to_string()])),
            (5093, numbers(&[8])),
        ];
        main.push(match self.source_rpm {
            Some(source) => (1044, text(source)),
            None => (1106, numbers(&[1])),
        });
        let header = section(&self.changed(main, &self.main));
        let size = (header.len() + self.payload.len()) as u32;
        let digest = Sha256::of(&header).to_string();
        let signature = vec![(273, text(&digest)), (1000, numbers(&[size]))];
        let mut bytes = vec![0xed, 0xab, 0xee, 0xdb, 3, 0, 0, u8::from(self.source_rpm.is_none())];
        bytes.resize(78, 0);
        bytes.extend([0, 5]);
        bytes.resize(96, 0);
        bytes.extend(section(&self.changed(signature, &self.signature)));
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend(header);
        bytes.extend(&self.payload);
        bytes
    }

    fn changed(&self, usual: Vec<Entry>, changes: &[Entry]) -> Vec<Entry> {
        let stays = |(tag, _): &Entry| {
            !self.without.contains(tag) && !changes.iter().any(|(changed, _)| changed == tag)
        };
        let mut entries: Vec<_> = usual.into_iter().filter(stays).chain(changes.iter().cloned()).collect();
        entries.sort_by_key(|(tag, _)| *tag);
        entries
    }
}
