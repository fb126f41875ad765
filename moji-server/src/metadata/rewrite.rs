//! Writes the metadata of a fixed generation from the served ones: the same packages, found in other
//! places.
//!
//! Both files are passed on piece by piece, and nothing but places, sizes and digests is changed: what a
//! newer `createrepo_c` says beyond what is known here stays as it is. It deliberately does not know
//! which places these are, nor when a generation is made.

use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Write};
use std::path::Path;

use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use moji_proto::Sha256;
use moji_proto::digest::Hasher;
use quick_xml::events::{BytesStart, BytesText, Event};
use quick_xml::{Reader, Writer, escape};

use super::repomd::attribute;

/// How hard to press: the files of one generation are not kept for long, and one is written for each
/// publication.
const LEVEL: u32 = 3;
/// No honest `primary.xml` is near this size.
const UNPACKED_MAX: u64 = 8 << 30;

/// A file that was written: what `repomd.xml` has to say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Written {
    pub(super) size: u64,
    pub(super) sha256: Sha256,
    pub(super) open_size: u64,
    /// Not known of a file that was put together from packed pieces.
    pub(super) open_sha256: Option<Sha256>,
}

/// Why a file could not be rewritten; follows after its name.
#[derive(Debug, thiserror::Error)]
pub(super) enum RewriteError {
    #[error("it is not well-formed XML: {0}")]
    Xml(#[from] quick_xml::Error),
    #[error("it is packed neither with gzip nor not at all")]
    Packed,
    #[error("it ends too early, or is something else")]
    Incomplete,
    #[error("{0}")]
    Io(#[from] io::Error),
}

/// Copies a `primary.xml`, packed with gzip or not, into `to`, packed with gzip; `place` says where a
/// package is to be found that was at the place it is given.
pub(super) fn primary(
    from: &Path,
    to: &File,
    mut place: impl FnMut(&str) -> String,
) -> Result<Written, RewriteError> {
    let packed = Counted::new(BufWriter::new(to));
    let mut writer = Writer::new(Counted::new(GzEncoder::new(packed, Compression::new(LEVEL))));
    let mut reader = Reader::from_reader(open(from)?);
    let (mut buffer, mut complete) = (Vec::new(), false);
    loop {
        buffer.clear();
        match reader.read_event_into(&mut buffer)? {
            Event::Empty(start) if start.local_name().as_ref() == "location" => {
                writer.write_event(Event::Empty(placed(&start, &mut place)))?;
            }
            Event::Start(start) if start.local_name().as_ref() == "location" => {
                writer.write_event(Event::Start(placed(&start, &mut place)))?;
            }
            Event::Eof => break,
            event => {
                complete |= matches!(&event, Event::End(end) if end.local_name().as_ref() == "metadata");
                writer.write_event(event)?;
            }
        }
    }
    if !complete {
        return Err(RewriteError::Incomplete);
    }
    let (unpacked, open_size, open_sha256) = writer.into_inner().finish();
    let (mut rest, size, sha256) = unpacked.finish()?.finish();
    rest.flush()?;
    Ok(Written { size, sha256, open_size, open_sha256: Some(open_sha256) })
}

/// The elements of some packages of a `primary.xml`, with other places.
pub(super) fn places<E: From<RewriteError>>(
    text: &[u8],
    mut place: impl FnMut(&str) -> Result<String, E>,
) -> Result<Vec<u8>, E> {
    let (mut reader, mut writer) = (Reader::from_reader(text), Writer::new(Vec::with_capacity(text.len())));
    let io = |error: io::Error| RewriteError::from(error);
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        match reader.read_event_into(&mut buffer).map_err(RewriteError::from)? {
            Event::Empty(start) if start.local_name().as_ref() == "location" => {
                let new = place(&attribute(&start, "href").unwrap_or_default())?;
                writer.write_event(Event::Empty(placed(&start, &mut |_: &str| new.clone()))).map_err(io)?;
            }
            Event::Eof => return Ok(writer.into_inner()),
            event => writer.write_event(event).map_err(io)?,
        }
    }
}

/// The same element with another `href`.
fn placed<'a>(start: &BytesStart<'a>, place: &mut impl FnMut(&str) -> String) -> BytesStart<'static> {
    let mut new = BytesStart::new(start.name().as_ref().to_owned());
    for attribute in start.attributes().flatten() {
        if attribute.key.as_ref() == "href" {
            let href = escape::unescape(&attribute.value).unwrap_or_default();
            new.push_attribute(("href", place(&href).as_str()));
        } else {
            new.push_attribute(attribute);
        }
    }
    new
}

/// The text of a `repomd.xml` with another file for `primary`, and without those kinds of files that
/// name places themselves: their names in `names` are those that stay.
pub(super) fn repomd(
    text: &[u8],
    primary: &Written,
    name: &str,
    stays: impl Fn(&str) -> bool,
) -> Result<Vec<u8>, RewriteError> {
    let mut reader = Reader::from_reader(text);
    let mut writer = Writer::new(Vec::new());
    // The kind of the element `data` in which we are, and the element of it.
    let (mut kind, mut inner, mut complete) = (None::<String>, String::new(), false);
    loop {
        let event = reader.read_event()?;
        if let Event::Start(start) = &event {
            match start.local_name().as_ref() {
                "data" => kind = Some(attribute(start, "type").unwrap_or_default()),
                other => inner = other.to_owned(),
            }
        }
        let end =
            if let Event::End(end) = &event { Some(end.local_name().as_ref().to_owned()) } else { None };
        match (event, kind.as_deref()) {
            (Event::Eof, _) => break,
            (_, Some(kind)) if kind != "primary" && !stays(kind) => {}
            (Event::Empty(start), Some("primary")) if start.local_name().as_ref() == "location" => {
                let mut place = |_: &str| format!("repodata/{name}");
                writer.write_event(Event::Empty(placed(&start, &mut place)))?;
            }
            (Event::Start(start), Some("primary")) if is_checksum(&start) => {
                let element = start.name().as_ref().to_owned();
                let start = BytesStart::new(element).with_attributes([("type", "sha256")]);
                writer.write_event(Event::Start(start))?;
            }
            (Event::Text(text), Some("primary")) => {
                let new = match inner.as_str() {
                    "checksum" => Some(primary.sha256.to_string()),
                    "open-checksum" => primary.open_sha256.map(|digest| digest.to_string()),
                    "size" => Some(primary.size.to_string()),
                    "open-size" => Some(primary.open_size.to_string()),
                    _ => None,
                };
                writer.write_event(Event::Text(new.as_deref().map_or(text, BytesText::new)))?;
            }
            (event, kind) => {
                complete |= kind.is_none() && end.as_deref() == Some("repomd");
                writer.write_event(event)?;
            }
        }
        if let Some(end) = end {
            inner.clear();
            kind = kind.filter(|_| end != "data");
        }
    }
    if complete { Ok(writer.into_inner()) } else { Err(RewriteError::Incomplete) }
}

fn is_checksum(start: &BytesStart<'_>) -> bool {
    matches!(start.local_name().as_ref(), "checksum" | "open-checksum")
}

fn open(path: &Path) -> Result<Box<dyn BufRead>, RewriteError> {
    let mut file = BufReader::new(File::open(path)?);
    let unpacked: Box<dyn Read> = match file.fill_buf()? {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(file)),
        [b'<' | b' ' | b'\n' | 0xef, ..] => Box::new(file),
        _ => return Err(RewriteError::Packed),
    };
    Ok(Box::new(BufReader::with_capacity(256 * 1024, unpacked.take(UNPACKED_MAX))))
}

/// Counts and digests what is written through it.
struct Counted<W> {
    to: W,
    size: u64,
    hasher: Hasher,
}

impl<W> Counted<W> {
    fn new(to: W) -> Self {
        Self { to, size: 0, hasher: Hasher::new() }
    }

    fn finish(self) -> (W, u64, Sha256) {
        (self.to, self.size, self.hasher.finish())
    }
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.to.write(bytes)?;
        self.size += count as u64;
        self.hasher.update(bytes.get(..count).unwrap_or_default());
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::repomd::{MdFile, Repomd};

    const PRIMARY: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<metadata xmlns="http://linux.duke.edu/metadata/common" packages="2">
<package type="rpm"><name>a&amp;b</name><summary>&lt;location href="no"/&gt; &#233;</summary>
  <location href="x/a&amp;b.rpm"/>
  <format><file>/usr/bin/'quoted"</file><!-- kept --></format></package>
<package type="rpm"><location xml:base="ftp://x" href="c.rpm"></location></package>
</metadata>
"#;

    fn rewritten(bytes: &[u8]) -> Result<(Written, Vec<u8>), RewriteError> {
        let at = tempfile::tempdir().unwrap();
        let (from, to) = (at.path().join("from"), at.path().join("to"));
        std::fs::write(&from, bytes).unwrap();
        let place = |href: &str| format!("../<{href}>");
        let written = primary(&from, &File::create(&to).unwrap(), place)?;
        Ok((written, std::fs::read(to).unwrap()))
    }

    #[test]
    fn only_the_places_change() {
        let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
        packed.write_all(PRIMARY.as_bytes()).unwrap();
        let (written, bytes) = rewritten(&packed.finish().unwrap()).unwrap();
        assert_eq!(rewritten(PRIMARY.as_bytes()).unwrap(), (written, bytes.clone()), "packed or not");
        let mut text = String::new();
        MultiGzDecoder::new(bytes.as_slice()).read_to_string(&mut text).unwrap();
        let expected = PRIMARY
            .replace("\"x/a&amp;b.rpm\"", "\"../&lt;x/a&amp;b.rpm&gt;\"")
            .replace("\"c.rpm\"", "\"../&lt;c.rpm&gt;\"");
        assert_eq!(text, expected);
        let (open_size, open_sha256) = (text.len() as u64, Sha256::of(text.as_bytes()));
        let (size, sha256) = (bytes.len() as u64, Sha256::of(&bytes));
        assert_eq!(written, Written { size, sha256, open_size, open_sha256: Some(open_sha256) });
    }

    #[test]
    fn a_part_is_refused_and_so_is_another_packing() {
        for length in 0..PRIMARY.trim_end().len() {
            assert!(rewritten(&PRIMARY.as_bytes()[..length]).is_err(), "{length}");
        }
        let zstd = rewritten(&[0x28, 0xb5, 0x2f, 0xfd, 0]).unwrap_err();
        assert!(matches!(zstd, RewriteError::Packed), "{zstd}");
    }

    const REPOMD: &str = r#"<?xml version="1.0" encoding="UTF-8"?>
<repomd xmlns="http://linux.duke.edu/metadata/repo"><revision>7</revision>
  <data type="primary">
    <checksum type="sha">00</checksum>
    <open-checksum type="sha256">11</open-checksum>
    <location href="repodata/old-primary.xml.gz"/>
    <timestamp>1795222663</timestamp>
    <size>1</size>
    <open-size>2</open-size>
  </data>
  <data type="prestodelta"><checksum type="sha256">22</checksum><location href="repodata/p.xml.gz"/></data>
  <data type="group"><checksum type="sha512">00</checksum><location href="repodata/a&amp;b.xml"/><size>5</size></data>
</repomd>
"#;

    #[test]
    fn repomd_names_the_new_primary_and_what_stays() {
        let (sha256, open_sha256) = (Sha256::of(b"packed"), Sha256::of(b"open"));
        let written = Written { size: 33, sha256, open_size: 44, open_sha256: Some(open_sha256) };
        let text = repomd(REPOMD.as_bytes(), &written, "new.xml.gz", |kind| kind == "group").unwrap();
        let text = String::from_utf8(text).unwrap();
        let file = |kind: &str, name: &str, size, sha256| MdFile {
            kind: kind.into(),
            name: name.into(),
            size: Some(size),
            sha256,
        };
        let files = vec![file("primary", "new.xml.gz", 33, Some(sha256)), file("group", "a&b.xml", 5, None)];
        assert_eq!(Repomd::parse(text.as_bytes()).unwrap(), Repomd { revision: Some(7), files });
        let expected = REPOMD
            .replace("<checksum type=\"sha\">00<", &format!("<checksum type=\"sha256\">{sha256}<"))
            .replace("11", &open_sha256.to_string())
            .replace("old-primary.xml.gz", "new.xml.gz")
            .replace("<size>1<", "<size>33<")
            .replace("<open-size>2<", "<open-size>44<");
        let (before, rest) = expected.split_once("<data type=\"prestodelta\">").unwrap();
        let (_, after) = rest.split_once("</data>").unwrap();
        assert_eq!(text, format!("{before}{after}"), "and nothing else changes");
        for length in 0..REPOMD.trim_end().len() {
            let part = repomd(&REPOMD.as_bytes()[..length], &written, "n", |_| true);
            assert!(part.is_err(), "{length}");
        }
    }
}
