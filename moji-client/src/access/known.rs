//! The servers that this builder was let in by, with their keys: `known_servers` in the work folder, a
//! line `HOST:PORT sha256:…` each. All of it blocks.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use moji_proto::Fingerprint;

/// The file.
#[derive(Debug, Clone)]
pub struct KnownServers(PathBuf);

impl KnownServers {
    /// In a work folder.
    pub fn new(work_dir: &Path) -> Self {
        Self(work_dir.join("known_servers"))
    }

    /// The key that a server had at the first contact.
    ///
    /// # Errors
    /// When the file cannot be read, or what it says of that server is damaged: then it is not as if
    /// there had never been a contact.
    pub(super) fn key_of(&self, server: &str) -> anyhow::Result<Option<Fingerprint>> {
        let text = self.read()?;
        let Some(key) = text.lines().find_map(|line| line.strip_prefix(server)?.strip_prefix(' ')) else {
            return Ok(None);
        };
        match key.trim().parse() {
            Ok(key) => Ok(Some(key)),
            Err(error) => bail!("{}: the line of {server} is damaged ({error}): remove it", self.0.display()),
        }
    }

    /// Remembers a server's key, in the place of the one before. Writes nothing when that is the one.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn remember(&self, server: &str, key: Fingerprint) -> anyhow::Result<()> {
        if matches!(self.key_of(server), Ok(Some(known)) if known == key) {
            // Whoever comes with a token comes here at every connection: the disk need not.
            return Ok(());
        }
        let text = self.read()?;
        let is_other = |line: &&str| line.strip_prefix(server).is_none_or(|rest| !rest.starts_with(' '));
        let mut lines: Vec<_> = text.lines().filter(is_other).map(str::to_owned).collect();
        lines.push(format!("{server} {key}"));
        let part = self.0.with_extension("part");
        let written = fs::File::create(&part).and_then(|mut file| {
            file.write_all((lines.join("\n") + "\n").as_bytes())?;
            file.sync_all()?;
            fs::rename(&part, &self.0)
        });
        written.with_context(|| format!("cannot write {}", self.0.display()))
    }

    fn read(&self) -> anyhow::Result<String> {
        match fs::read_to_string(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(String::new()),
            read => read.with_context(|| format!("cannot read {}", self.0.display())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_server_has_its_own_key_and_the_last_one_counts() {
        let folder = tempfile::tempdir().unwrap();
        let known = KnownServers::new(folder.path());
        let key = |digit: &str| format!("sha256:{}", digit.repeat(64)).parse::<Fingerprint>().unwrap();
        assert_eq!(known.key_of("a:6789").unwrap(), None);
        known.remember("a:6789", key("1")).unwrap();
        known.remember("a:67", key("2")).unwrap();
        known.remember("a:6789", key("3")).unwrap();
        assert_eq!(known.key_of("a:6789").unwrap(), Some(key("3")));
        assert_eq!(known.key_of("a:67").unwrap(), Some(key("2")));
        assert_eq!(known.key_of("a:6").unwrap(), None);
    }

    #[test]
    fn what_is_known_is_not_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let known = KnownServers::new(folder.path());
        let [one, two] = ["1", "2"].map(|digit| format!("sha256:{}", digit.repeat(64)).parse().unwrap());
        let file = || {
            use std::os::unix::fs::MetadataExt as _;
            fs::metadata(folder.path().join("known_servers")).unwrap().ino()
        };
        known.remember("a:1", one).unwrap();
        let before = file();
        known.remember("a:1", one).unwrap();
        assert_eq!(file(), before);
        known.remember("a:1", two).unwrap();
        assert_ne!(file(), before);
        assert_eq!(known.key_of("a:1").unwrap(), Some(two));
    }

    #[test]
    fn a_damaged_line_is_no_first_contact() {
        let folder = tempfile::tempdir().unwrap();
        let known = KnownServers::new(folder.path());
        fs::write(folder.path().join("known_servers"), "a:1 sha256:12\n").unwrap();
        assert!(known.key_of("a:1").unwrap_err().to_string().contains("damaged"));
        assert_eq!(known.key_of("b:1").unwrap(), None);
    }
}
