//! Reads what `createrepo_c`, or another tool before it, wrote: which files `repomd.xml` names, and
//! which packages `primary.xml` lists.
//!
//! It writes no XML and deliberately does not know most of either format. Formats:
//! <https://createrepo.baseurl.org/> and `man createrepo_c`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read as _};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use moji_proto::Sha256;
use quick_xml::events::{BytesStart, Event};
use quick_xml::{Reader, escape};

/// The name of the file that names all others.
pub(super) const REPOMD: &str = "repomd.xml";
/// No honest `repomd.xml` is near this size; a bigger one is not read.
pub(super) const REPOMD_MAX: u64 = 1 << 20;

/// What a `repomd.xml` says.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Repomd {
    /// The generation; `None` when there is none or it is no number.
    pub(super) revision: Option<u64>,
    /// The files that it names, in its order.
    pub(super) files: Vec<MdFile>,
}

/// One file that a `repomd.xml` names.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct MdFile {
    /// `primary`, `filelists`, `group` …
    pub(super) kind: String,
    /// Its name in the folder `repodata`: one harmless path component.
    pub(super) name: String,
    /// Bytes.
    pub(super) size: Option<u64>,
    /// `None` when the checksum is of another kind.
    pub(super) sha256: Option<Sha256>,
}

/// The text is not a `repomd.xml` that can be used.
#[derive(Debug, thiserror::Error)]
pub(super) enum RepomdError {
    #[error("it is not well-formed XML: {0}")]
    Xml(#[from] quick_xml::Error),
    #[error("it ends too early, or is not a repomd.xml")]
    Incomplete,
    #[error("it names a file outside of its folder, or with a strange name: {0:?}")]
    Name(String),
}

impl Repomd {
    /// Reads the text of a `repomd.xml`.
    pub(super) fn parse(text: &[u8]) -> Result<Self, RepomdError> {
        let mut reader = Reader::from_reader(text);
        let (mut repomd, mut file, mut path) = (Self::default(), MdFile::default(), Vec::<String>::new());
        let (mut sha256, mut complete) = (false, false);
        loop {
            match reader.read_event()? {
                Event::Start(start) => {
                    path.push(start.local_name().as_ref().to_owned());
                    match start.local_name().as_ref() {
                        "data" => {
                            file = MdFile {
                                kind: attribute(&start, "type").unwrap_or_default(),
                                ..MdFile::default()
                            };
                        }
                        "checksum" => sha256 = attribute(&start, "type").as_deref() == Some("sha256"),
                        "location" => file.name = name(&start)?,
                        _ => {}
                    }
                }
                Event::Empty(start) if start.local_name().as_ref() == "location" => file.name = name(&start)?,
                Event::Text(text) => {
                    let path: Vec<_> = path.iter().map(String::as_str).collect();
                    let text = text.into_inner();
                    let text = text.trim();
                    match path.as_slice() {
                        ["repomd", "revision"] => repomd.revision = text.parse().ok(),
                        ["repomd", "data", "size"] => file.size = text.parse().ok(),
                        ["repomd", "data", "checksum"] if sha256 => file.sha256 = text.parse().ok(),
                        _ => {}
                    }
                }
                Event::End(end) => {
                    path.pop();
                    match end.local_name().as_ref() {
                        "data" if file.name.is_empty() => return Err(RepomdError::Incomplete),
                        "data" => repomd.files.push(std::mem::take(&mut file)),
                        "repomd" => complete = path.is_empty(),
                        _ => {}
                    }
                }
                Event::Eof if complete => return Ok(repomd),
                Event::Eof => return Err(RepomdError::Incomplete),
                _ => {}
            }
        }
    }

    /// The names of its files.
    pub(super) fn names(&self) -> Vec<String> {
        self.files.iter().map(|file| file.name.clone()).collect()
    }
}

/// The elements `data` of a `repomd.xml`, each as it is written there, with what it is of.
pub(super) fn data_elements(text: &[u8]) -> Vec<(String, &[u8])> {
    let mut reader = Reader::from_reader(text);
    let (mut found, mut begun) = (Vec::new(), None);
    loop {
        let before = usize::try_from(reader.buffer_position()).unwrap_or_default();
        match reader.read_event() {
            Ok(Event::Start(start)) if start.local_name().as_ref() == "data" => {
                begun = Some((before, attribute(&start, "type").unwrap_or_default()));
            }
            Ok(Event::End(end)) if end.local_name().as_ref() == "data" => {
                let after = usize::try_from(reader.buffer_position()).unwrap_or_default();
                let element = begun.take().and_then(|(begin, kind)| Some((kind, text.get(begin..after)?)));
                found.extend(element);
            }
            Ok(Event::Eof) | Err(_) => return found,
            Ok(_) => {}
        }
    }
}

/// Kinds that are made here, or from what is made here by others. The rest people have added: groups, updates.
pub(super) fn is_own(kind: &str) -> bool {
    ["primary", "filelists", "other", "prestodelta"].iter().any(|own| kind.starts_with(own))
        || kind.ends_with("_db")
        || kind.ends_with("_zck")
}

/// The value of an attribute, without escapes.
pub(super) fn attribute(start: &BytesStart<'_>, name: &str) -> Option<String> {
    let attribute = start.attributes().flatten().find(|a| a.key.local_name().as_ref() == name)?;
    Some(escape::unescape(&attribute.value).ok()?.into_owned())
}

fn name(start: &BytesStart<'_>) -> Result<String, RepomdError> {
    let href = attribute(start, "href").unwrap_or_default();
    match href.strip_prefix("repodata/") {
        Some(name)
            if !name.is_empty()
                && !name.starts_with('.')
                && !name.contains(['/', '\0'])
                && name != REPOMD =>
        {
            Ok(name.to_owned())
        }
        _ => Err(RepomdError::Name(href)),
    }
}

/// How many packages a compressed `primary.xml` says that it lists. `None` when it cannot be read
/// (another compression than gzip).
pub(super) fn package_count(primary: &Path) -> Option<usize> {
    let mut reader = open_gz(primary)?;
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        match reader.read_event_into(&mut buffer).ok()? {
            Event::Start(start) if start.local_name().as_ref() == "metadata" => {
                return attribute(&start, "packages")?.parse().ok();
            }
            Event::Decl(_) | Event::Text(_) | Event::Comment(_) => {}
            _ => return None,
        }
    }
}

/// The locations of all packages that a compressed `primary.xml` lists, as written there. `None` as
/// for [`package_count`].
pub(super) fn package_locations(primary: &Path) -> Option<BTreeSet<String>> {
    let mut reader = open_gz(primary)?;
    let (mut buffer, mut locations) = (Vec::new(), BTreeSet::new());
    loop {
        buffer.clear();
        match reader.read_event_into(&mut buffer).ok()? {
            Event::Start(start) | Event::Empty(start) if start.local_name().as_ref() == "location" => {
                locations.extend(attribute(&start, "href"));
            }
            Event::Eof => return Some(locations),
            _ => {}
        }
    }
}

/// What `primary.xml` says of a package.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Listed {
    /// Bytes of the file.
    pub(super) size: Option<u64>,
    /// `None` when the checksum is of another kind.
    pub(super) sha256: Option<Sha256>,
}

/// All packages that a compressed `primary.xml` lists, by location. `None` as for [`package_count`], or
/// when it is damaged.
pub(super) fn listed_packages(primary: &Path) -> Option<BTreeMap<String, Listed>> {
    let mut reader = open_gz(primary)?;
    let (mut buffer, mut packages) = (Vec::new(), BTreeMap::new());
    let (mut package, mut location, mut sha256, mut complete) = (Listed::default(), None, false, false);
    loop {
        buffer.clear();
        match reader.read_event_into(&mut buffer).ok()? {
            Event::Start(start) | Event::Empty(start) => match start.local_name().as_ref() {
                "package" => (package, location) = (Listed::default(), None),
                "checksum" => sha256 = attribute(&start, "type").as_deref() == Some("sha256"),
                "size" => package.size = attribute(&start, "package").and_then(|size| size.parse().ok()),
                "location" => location = attribute(&start, "href"),
                _ => {}
            },
            Event::Text(text) if std::mem::take(&mut sha256) => {
                package.sha256 = text.into_inner().trim().parse().ok();
            }
            Event::End(end) if end.local_name().as_ref() == "package" => {
                packages.extend(location.take().map(|location| (location, package)));
            }
            Event::End(end) => complete |= end.local_name().as_ref() == "metadata",
            Event::Eof => return complete.then_some(packages),
            _ => {}
        }
    }
}

type GzReader = Reader<BufReader<std::io::Take<MultiGzDecoder<File>>>>;

/// A package's entry is some KiB; this is for more packages than moji is made for.
const PRIMARY_MAX: u64 = 8 << 30;

fn open_gz(path: &Path) -> Option<GzReader> {
    let unpacked = MultiGzDecoder::new(File::open(path).ok()?).take(PRIMARY_MAX);
    Some(Reader::from_reader(BufReader::new(unpacked)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<repomd xmlns="http://linux.duke.edu/metadata/repo" xmlns:rpm="http://linux.duke.edu/metadata/rpm">
  <revision>1326</revision>
  <data type="primary">
    <checksum type="sha256">ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad</checksum>
    <open-checksum type="sha256">f1e2ffd2fb1ee76f87b70750d00ca5677a252b397ab6c2389137a0c33e7b359f</open-checksum>
    <location href="repodata/ba78-primary.xml.gz"/>
    <timestamp>1795222663</timestamp>
    <size>134</size>
    <open-size>167</open-size>
  </data>
  <data type="group"><checksum type="sha512">00</checksum><location href="repodata/a&amp;b.xml"></location></data>
</repomd>
"#;

    #[test]
    fn reads_what_matters() {
        let repomd = Repomd::parse(SAMPLE.as_bytes()).unwrap();
        let expected = [
            MdFile {
                kind: "primary".into(),
                name: "ba78-primary.xml.gz".into(),
                size: Some(134),
                sha256: Some(Sha256::of(b"abc")),
            },
            MdFile { kind: "group".into(), name: "a&b.xml".into(), size: None, sha256: None },
        ];
        assert_eq!(repomd, Repomd { revision: Some(1326), files: expected.into() });
    }

    #[test]
    fn a_revision_that_is_no_number_is_none() {
        for revision in ["", "abc", "-4", "99999999999999999999999"] {
            let text = SAMPLE.replace("1326", revision);
            assert_eq!(Repomd::parse(text.as_bytes()).unwrap().revision, None, "{revision}");
        }
    }

    #[test]
    fn refuses_a_part_and_names_that_lead_elsewhere() {
        for length in 0..SAMPLE.trim_end().len() {
            assert!(Repomd::parse(&SAMPLE.as_bytes()[..length]).is_err(), "{length}");
        }
        for href in
            ["x.gz", "/etc/passwd", "repodata/../x", "repodata/", "repodata/.x", "repodata/repomd.xml", ""]
        {
            let text = SAMPLE.replace("repodata/ba78-primary.xml.gz", href);
            assert!(matches!(Repomd::parse(text.as_bytes()), Err(RepomdError::Name(_))), "{href}");
        }
    }
}
