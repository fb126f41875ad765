//! The headers that a server has read, written down for the next one: what makes a start with a long queue short.
//!
//! A help, never the truth. What does not look exactly as it did (size, times, inode) is read again, and everything is when
//! the file is missing, damaged or of another version. It holds what lay in SOURCE when it was written, and nothing else.
//!
//! ```text
//! magic   the version of the form is in it
//! digest  SHA-256 of all that follows
//! texts   how many; of each its length and its bytes. Each text is there once: most requirements are the same few
//! SRPMs   how many; of each its fields in the order of `write_one`, texts by their number
//! ```
//!
//! All numbers are little-endian. Pure: it does not know where the file lies, and does not look at SRPMs.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use moji_proto::{Nvr, Sha256, SrpmName, TargetName};

use super::folder::Stamp;
use super::srpm::{Head, RELATIONS_MAX, SrpmHeader};
use crate::BuildKey;
use crate::dependency::{Capability, Evr, Relations, Requirement, Sense, Versions};

/// Another form has another magic.
const MAGIC: &[u8; 8] = b"mojihdr1";
/// In the place of a text, or of a number: there is none.
const NONE: u32 = u32::MAX;
/// The same for a size.
const NO_SIZE: u64 = u64::MAX;
const SENSES: [Sense; 5] = [Sense::Less, Sense::LessEqual, Sense::Equal, Sense::GreaterEqual, Sense::Greater];
/// Kinds of requirements: any version, then those of [`SENSES`], then these.
const FILE: u8 = 6;
const RICH: u8 = 7;

/// What is known of SRPMs, each as it was when its header was read.
#[derive(Debug, Default)]
pub(super) struct Known(BTreeMap<BuildKey, (Stamp, Head)>);

impl Known {
    /// The header of a file that looks like this; only once.
    pub(super) fn take(&mut self, key: &BuildKey, stamp: Stamp) -> Option<Head> {
        let (known, head) = self.0.remove(key)?;
        // A device may have another number after each boot.
        (Stamp { file: (stamp.file.0, known.file.1), ..known } == stamp).then_some(head)
    }

    /// How many are known.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Reads what [`write`] has made; `None`: it is something else, or damaged.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let rest = bytes.strip_prefix(MAGIC)?;
        let (digest, body) = rest.split_first_chunk()?;
        if Sha256::of(body).0 != *digest {
            return None;
        }
        let mut input = Input(body);
        let texts = input.texts()?;
        let count = input.u32()?;
        let one = |_| input.one(&texts);
        let known: Option<BTreeMap<_, _>> = (0..count).map(one).collect();
        known.filter(|_| input.0.is_empty()).map(Self)
    }
}

/// All of these, as [`Known::parse`] reads them. What has a text that cannot be read back as it is is left out.
pub(super) fn write<'a>(srpms: impl IntoIterator<Item = (&'a BuildKey, Stamp, &'a Head)>) -> Vec<u8> {
    let mut output = Output::default();
    for (key, stamp, head) in srpms {
        if let Head::Srpm { header, size } = head {
            output.write_one(key, stamp, header, *size);
        }
    }
    output.finish()
}

#[derive(Default)]
struct Output<'a> {
    /// Only looked up, never iterated.
    numbers: HashMap<&'a str, u32>,
    /// The other way round, with the texts of rich dependencies, of which few are the same.
    texts: Vec<std::borrow::Cow<'a, str>>,
    count: u32,
    srpms: Vec<u8>,
}

impl<'a> Output<'a> {
    fn write_one(&mut self, key: &'a BuildKey, stamp: Stamp, header: &'a SrpmHeader, size: Option<u64>) {
        let Relations { build_requires, provides } = &*header.relations;
        let is_readable = |wanted: &Requirement| match wanted {
            Requirement::Rich(_) => wanted.to_string().parse().as_ref() == Ok(wanted),
            _ => true,
        };
        if !build_requires.iter().all(is_readable) {
            return;
        }
        self.optional(key.target.as_ref().map(TargetName::as_str));
        self.text(key.srpm.as_str());
        for number in [stamp.file.1, stamp.size, stamp.mtime.cast_unsigned(), stamp.ctime.cast_unsigned()] {
            self.u64(number);
        }
        self.u64(size.unwrap_or(NO_SIZE));
        self.u32(header.epoch.is_some().into());
        self.u32(header.epoch.unwrap_or_default());
        for text in [&header.name, &header.version, &header.release] {
            self.text(text);
        }
        self.u32(build_requires.len() as u32);
        build_requires.iter().for_each(|wanted| self.requirement(wanted));
        self.u32(provides.len() as u32);
        for Capability { name, versions } in provides.iter() {
            self.versions(versions.as_ref());
            self.text(name);
        }
        self.count += 1;
    }

    fn requirement(&mut self, wanted: &'a Requirement) {
        match wanted {
            Requirement::Plain { name, versions } => {
                self.versions(versions.as_ref());
                self.text(name);
            }
            Requirement::File(path) => {
                self.srpms.push(FILE);
                self.text(path);
            }
            rich @ Requirement::Rich(_) => {
                self.srpms.push(RICH);
                let number = self.texts.len() as u32;
                self.texts.push(rich.to_string().into());
                self.u32(number);
            }
        }
    }

    fn versions(&mut self, versions: Option<&'a Versions>) {
        let Some(Versions { sense, evr }) = versions else { return self.srpms.push(0) };
        let kind = SENSES.iter().zip(1..).find(|(known, _)| *known == sense).map_or(0, |(_, kind)| kind);
        self.srpms.push(kind);
        self.text(evr.as_str());
    }

    fn optional(&mut self, text: Option<&'a str>) {
        match text {
            Some(text) => self.text(text),
            None => self.u32(NONE),
        }
    }

    fn text(&mut self, text: &'a str) {
        let next = self.texts.len() as u32;
        let number = *self.numbers.entry(text).or_insert(next);
        if number == next {
            self.texts.push(text.into());
        }
        self.u32(number);
    }

    fn u32(&mut self, number: u32) {
        self.srpms.extend(number.to_le_bytes());
    }

    fn u64(&mut self, number: u64) {
        self.srpms.extend(number.to_le_bytes());
    }

    fn finish(self) -> Vec<u8> {
        let mut body = (self.texts.len() as u32).to_le_bytes().to_vec();
        for text in &self.texts {
            body.extend((text.len() as u32).to_le_bytes());
            body.extend(text.as_bytes());
        }
        body.extend(self.count.to_le_bytes());
        body.extend(&self.srpms);
        [&MAGIC[..], &Sha256::of(&body).0, &body].concat()
    }
}

/// What is not read yet.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn texts(&mut self) -> Option<Vec<Arc<str>>> {
        let count = self.u32()?;
        let text = |_| {
            let length = self.u32()? as usize;
            let (text, rest) = self.0.split_at_checked(length)?;
            self.0 = rest;
            Some(Arc::from(str::from_utf8(text).ok()?))
        };
        (0..count).map(text).collect()
    }

    fn one(&mut self, texts: &[Arc<str>]) -> Option<(BuildKey, (Stamp, Head))> {
        let target = match self.u32()? {
            NONE => None,
            number => Some(TargetName::new(&**texts.get(number as usize)?).ok()?),
        };
        let srpm = SrpmName::new(&**self.text(texts)?).ok()?;
        let [inode, length, mtime, ctime, size] =
            [self.u64()?, self.u64()?, self.u64()?, self.u64()?, self.u64()?];
        let (mtime, ctime) = (mtime.cast_signed(), ctime.cast_signed());
        let [has_epoch, epoch] = [self.u32()?, self.u32()?];
        let [name, version, release] =
            [self.text(texts)?, self.text(texts)?, self.text(texts)?].map(|text| text.to_string());
        let build_requires = self.list(|input| input.requirement(texts))?;
        let provides = self.list(|input| input.capability(texts))?.into();
        let header = SrpmHeader {
            nvr: Nvr::new(format!("{name}-{version}-{release}")).ok()?,
            name,
            epoch: (has_epoch != 0).then_some(epoch),
            version,
            release,
            relations: Arc::new(Relations { build_requires, provides }),
        };
        let size = (size != NO_SIZE).then_some(size);
        let stamp = Stamp { file: (0, inode), size: length, mtime, ctime };
        Some((BuildKey { target, srpm }, (stamp, Head::Srpm { header, size })))
    }

    /// As many as are said to come.
    fn list<T>(&mut self, one: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let count = self.u32()? as usize;
        // No more is taken at its word than there are bytes for.
        let mut list = Vec::with_capacity(count.min(self.0.len()).min(RELATIONS_MAX));
        for _ in 0..count {
            list.push(one(self)?);
        }
        Some(list)
    }

    fn requirement(&mut self, texts: &[Arc<str>]) -> Option<Requirement> {
        Some(match self.u8()? {
            FILE => Requirement::File(Arc::clone(self.text(texts)?)),
            RICH => self.text(texts)?.parse().ok()?,
            kind => {
                let versions = self.versions(kind, texts)?;
                Requirement::Plain { name: Arc::clone(self.text(texts)?), versions }
            }
        })
    }

    fn capability(&mut self, texts: &[Arc<str>]) -> Option<Capability> {
        let kind = self.u8()?;
        let versions = self.versions(kind, texts)?;
        Some(Capability { name: Arc::clone(self.text(texts)?), versions })
    }

    /// The outer `None`: there is no such kind.
    fn versions(&mut self, kind: u8, texts: &[Arc<str>]) -> Option<Option<Versions>> {
        let Some(at) = kind.checked_sub(1) else { return Some(None) };
        let sense = *SENSES.get(usize::from(at))?;
        Some(Some(Versions { sense, evr: Evr::new(Arc::clone(self.text(texts)?)) }))
    }

    fn text<'t>(&mut self, texts: &'t [Arc<str>]) -> Option<&'t Arc<str>> {
        texts.get(self.u32()? as usize)
    }

    fn u8(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn u32(&mut self) -> Option<u32> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*bytes))
    }

    fn u64(&mut self) -> Option<u64> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*bytes))
    }
}
