//! Edits a `priority.txt` for people who are not at the repository host. What others have written there stays as
//! it is: comments, order, line ends, also lines that are not understood.

use std::fs::Permissions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context as _, bail};
use moji_proto::operator::Place;

use super::priority::{MAX_SIZE, Priority};
use crate::beneath::Folder;

/// The list.
const NAME: &str = "priority.txt";
/// On its way; the watcher of SOURCE does not look at what begins with a dot.
const PART: &str = ".priority.txt.moji";
/// How often an edit begins anew because somebody else has edited meanwhile.
const TRIES: usize = 5;

/// Gives `entry` a place in the list of a folder, which is made when it is missing: a reader finds the old list or
/// the new one. Blocks. Says what it did.
///
/// # Errors
/// When `entry` can be none, or the list cannot be read or written; it is then as it was.
pub fn edit_priority(folder: &Path, entry: &str, place: Place) -> anyhow::Result<String> {
    check(entry)?;
    let path = folder.join(NAME);
    let at = Folder::open(folder).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => {
            anyhow::anyhow!("SOURCE has no folder for that target: nothing was ever queued for it")
        }
        _ => anyhow::Error::from(error).context(format!("cannot open {}", folder.display())),
    })?;
    for _ in 0..TRIES {
        let before = read(&at).map_err(|error| match error.raw_os_error() {
            Some(code) if code == rustix::io::Errno::LOOP.raw_os_error() => {
                anyhow::anyhow!("{} is a link, which is not followed: edit what it leads to", path.display())
            }
            _ => anyhow::Error::from(error).context(format!("cannot read {}", path.display())),
        })?;
        let text = before.as_ref().map_or(&[][..], |(text, _)| text);
        let after = edited(text, entry, place);
        if after.len() > MAX_SIZE {
            bail!("{} would be longer than {MAX_SIZE} bytes", path.display());
        }
        if before.is_some() && after == text {
            return Ok(format!("{entry} is {} already", words(&after, entry)));
        }
        if write(&at, before.as_ref(), &after).with_context(|| format!("cannot write {}", path.display()))? {
            return Ok(format!("{entry} is {} now", words(&after, entry)));
        }
    }
    bail!("somebody else is editing {}; try again", path.display());
}

/// Which entry it is.
fn words(list: &[u8], entry: &str) -> String {
    let entries: Vec<_> = list.split(|byte| *byte == b'\n').filter_map(entry_of).collect();
    match entries.iter().position(|one| *one == entry.as_bytes()) {
        None => "not named".into(),
        Some(0) => "first".into(),
        Some(at) => format!("number {} of {} that are named", at + 1, entries.len()),
    }
}

/// Whether it would be understood in the list.
fn check(entry: &str) -> anyhow::Result<()> {
    let list = Priority::parse(entry.as_bytes());
    if let Some(warning) = list.warnings().first() {
        bail!("{}", warning.text);
    }
    if list.len() != 1 || entry.contains(['\n', '\r', '#']) || entry.trim() != entry {
        bail!("{entry:?} is no entry for a priority.txt: a package, an NVR, a file name or a glob");
    }
    Ok(())
}

type Whole = (Vec<u8>, std::fs::Metadata);

fn read(at: &Folder) -> io::Result<Option<Whole>> {
    let file = match at.open_file(NAME) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let (data, mut text) = (file.metadata()?, Vec::new());
    file.take(MAX_SIZE as u64 + 1).read_to_end(&mut text)?;
    if text.len() > MAX_SIZE {
        return Err(io::Error::other(format!("it is longer than {MAX_SIZE} bytes")));
    }
    Ok(Some((text, data)))
}

/// Whether it was as `before` until it was replaced, as far as that can be told.
fn write(at: &Folder, before: Option<&Whole>, after: &[u8]) -> io::Result<bool> {
    at.remove(PART)?;
    let mut file = at.create_new(PART)?;
    if let Some((_, data)) = before {
        let is_others = data.uid() != file.metadata()?.uid();
        // Whoever could write into it must still be able to: its group may, when the server is another user.
        if is_others && data.gid() != file.metadata()?.gid() {
            // A user who is not of that group cannot give it away.
            let _ = rustix::fs::fchown(&file, None, Some(rustix::fs::Gid::from_raw(data.gid())));
        }
        let mode = data.mode() & 0o777 | if is_others { 0o060 } else { 0 };
        file.set_permissions(Permissions::from_mode(mode))?;
    }
    file.write_all(after)?;
    file.sync_all()?;
    if read(at)?.map(|(text, _)| text) != before.map(|(text, _)| text.clone()) {
        at.remove(PART)?;
        return Ok(false);
    }
    at.rename(PART, at, NAME)?;
    at.sync()?;
    Ok(true)
}

/// The list with `entry` in its place, and nowhere else. Pure.
fn edited(text: &[u8], entry: &str, place: Place) -> Vec<u8> {
    let end: &[u8] = if text.windows(2).any(|two| two == b"\r\n") { b"\r\n" } else { b"\n" };
    let mut lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    let is_own = |line: &&[u8]| entry_of(line) == Some(entry.as_bytes());
    let numbered = lines.iter().filter(|line| entry_of(line).is_some()).zip(1_u32..);
    let places: Vec<u32> = numbered.filter(|(line, _)| is_own(line)).map(|(_, number)| number).collect();
    let count = lines.iter().filter(|line| entry_of(line).is_some()).count();
    let is_there = match (place, places.as_slice()) {
        (Place::First, [number]) => *number == 1,
        (Place::Last, [number]) => *number as usize == count,
        (Place::At(wanted), [number]) => {
            wanted.max(1) == *number || (*number as usize == count && wanted > *number)
        }
        (Place::Nowhere, []) => true,
        _ => false,
    };
    if is_there {
        return text.to_vec();
    }
    // With the comment that somebody has written beside it.
    let own = lines.iter().copied().find(is_own);
    lines.retain(|line| !is_own(line));
    let entries: Vec<usize> =
        lines.iter().enumerate().filter(|(_, line)| entry_of(line).is_some()).map(|(at, _)| at).collect();
    let behind_last = entries.last().map_or(lines.len(), |last| last + 1);
    let at = match place {
        Place::Nowhere => None,
        Place::First => Some(entries.first().copied().unwrap_or(lines.len())),
        Place::Last => Some(behind_last),
        Place::At(number) => {
            let index = usize::try_from(number).unwrap_or(usize::MAX).saturating_sub(1);
            Some(entries.get(index).copied().unwrap_or(behind_last))
        }
    };
    let mut new = own.map_or_else(|| entry.as_bytes().to_vec(), |line| trimmed(line).to_vec());
    new.extend_from_slice(end);
    let mut all = Vec::with_capacity(text.len() + new.len() + 2);
    for (index, line) in lines.iter().enumerate() {
        if at == Some(index) {
            all.extend_from_slice(&new);
        }
        all.extend_from_slice(line);
        if !line.ends_with(b"\n") && at.is_some_and(|at| at > index) {
            all.extend_from_slice(if line.ends_with(b"\r") { b"\n" } else { end });
        }
    }
    if at == Some(lines.len()) {
        all.extend_from_slice(&new);
    }
    all
}

fn trimmed(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// What a line names, without its comment; none when it is not understood.
fn entry_of(line: &[u8]) -> Option<&[u8]> {
    let line = line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(line);
    let comment = line.iter().enumerate().position(|(at, byte)| {
        *byte == b'#' && at.checked_sub(1).and_then(|at| line.get(at)).is_none_or(u8::is_ascii_whitespace)
    });
    let entry = line.get(..comment.unwrap_or(line.len()))?.trim_ascii();
    Some(entry).filter(|entry| Priority::parse(entry).len() == 1)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use proptest::prelude::*;

    use super::*;

    fn edit(text: &str, entry: &str, place: Place) -> String {
        String::from_utf8(edited(text.as_bytes(), entry, place)).unwrap()
    }

    #[test]
    fn what_others_have_written_stays() {
        let list = "# the toolchain first\ngcc\n\nglibc # for all\n# the end\n";
        for (entry, place, expected) in [
            ("zlib", Place::First, "# the toolchain first\nzlib\ngcc\n\nglibc # for all\n# the end\n"),
            ("zlib", Place::Last, "# the toolchain first\ngcc\n\nglibc # for all\nzlib\n# the end\n"),
            ("zlib", Place::At(2), "# the toolchain first\ngcc\n\nzlib\nglibc # for all\n# the end\n"),
            ("zlib", Place::At(17), "# the toolchain first\ngcc\n\nglibc # for all\nzlib\n# the end\n"),
            ("glibc", Place::First, "# the toolchain first\nglibc # for all\ngcc\n\n# the end\n"),
            ("gcc", Place::Nowhere, "# the toolchain first\n\nglibc # for all\n# the end\n"),
            ("none", Place::Nowhere, list),
            ("gcc", Place::First, list),
        ] {
            assert_eq!(edit(list, entry, place), expected, "{entry} {place:?}");
        }
    }

    #[test]
    fn what_is_not_understood_is_not_counted() {
        let list = "no such\ngcc\nf43/glibc\nbash\n";
        assert_eq!(edit(list, "zlib", Place::At(2)), "no such\ngcc\nf43/glibc\nzlib\nbash\n");
        assert_eq!(words(list.as_bytes(), "bash"), "number 2 of 2 that are named");
    }

    #[test]
    fn line_ends_are_as_they_were() {
        assert_eq!(edit("", "gcc", Place::First), "gcc\n");
        assert_eq!(edit("a", "gcc", Place::Last), "a\ngcc\n");
        assert_eq!(edit("a\r\nb\r\n", "gcc", Place::At(2)), "a\r\ngcc\r\nb\r\n");
        assert_eq!(edit("# only this", "gcc", Place::First), "# only this\ngcc\n");
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_keeps_its_mode() {
        let at = tempfile::tempdir().unwrap();
        let path = at.path().join(NAME);
        assert_eq!(edit_priority(at.path(), "gcc", Place::First).unwrap(), "gcc is first now");
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        edit_priority(at.path(), "python3-*", Place::First).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "python3-*\ngcc\n");
        assert_eq!(path.metadata().unwrap().mode() & 0o777, 0o640);
        assert_eq!(
            edit_priority(at.path(), "gcc", Place::Last).unwrap(),
            "gcc is number 2 of 2 that are named already"
        );
        assert_eq!(fs::read_dir(at.path()).unwrap().count(), 1);
        for bad in ["", "a b", "a\nb", "#x", "x/y", " a"] {
            assert!(edit_priority(at.path(), bad, Place::First).is_err(), "{bad:?}");
        }
        assert_eq!(fs::read_to_string(&path).unwrap(), "python3-*\ngcc\n");
    }

    proptest! {
        /// Whatever stands there, the entry has its place once, and everything else its order.
        #[test]
        fn one_line_moves_and_no_other(
            lines in prop::collection::vec("[ab#\r ]{0,4}", 0..8),
            ends_open in any::<bool>(),
            number in 0_u32..9,
        ) {
            let mut text = lines.join("\n");
            if !ends_open { text.push('\n'); }
            let others = |text: &[u8]| -> Vec<Vec<u8>> {
                text.split(|byte| *byte == b'\n').map(|line| trimmed(line).to_vec())
                    .filter(|line| entry_of(line) != Some(b"a") && !line.is_empty()).collect()
            };
            let after = edited(text.as_bytes(), "a", Place::At(number));
            let count = after.split(|byte| *byte == b'\n').filter(|line| entry_of(line) == Some(b"a")).count();
            prop_assert_eq!(count, 1, "{:?}", String::from_utf8_lossy(&after));
            prop_assert_eq!(others(&after), others(text.as_bytes()));
            prop_assert_eq!(edited(&after, "a", Place::At(number)), after);
        }
    }
}
