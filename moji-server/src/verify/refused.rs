//! Why results are refused, in words for people.

use moji_proto::{ArtifactName, TargetName};

/// Results that must not be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// One of the files.
    #[error("{file}: {reason}")]
    File {
        /// Which.
        file: ArtifactName,
        /// What is wrong with it.
        reason: Reason,
    },
    /// All of them together.
    #[error("the source package is missing that the other RPMs were built from")]
    NoSource,
}

/// What is wrong with an RPM.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// It does not begin like one.
    #[error("it is not an RPM package")]
    NotRpm,
    /// Its headers end too early, are too large, or contradict themselves.
    #[error("{0}")]
    Malformed(String),
    /// It does not say how long it is.
    #[error("its header does not say how long it is")]
    NoSize,
    /// Bytes are missing, or there are more than there should be.
    #[error("it has {is} bytes, its header says {says}")]
    Size {
        /// What the header says.
        says: u64,
        /// What there is.
        is: u64,
    },
    /// Nothing tells whether its header is right.
    #[error("it has no digest of its header")]
    NoHeaderDigest,
    /// Its header was changed.
    #[error("its header has not the {0} that it says")]
    HeaderDigest(&'static str),
    /// Its payload was changed.
    #[error("its payload has not the SHA-256 that its header says")]
    PayloadDigest,
    /// A name, version … with characters that RPM does not allow there.
    #[error("its {what} {text} has characters that RPM does not allow there")]
    Characters {
        /// Which of them.
        what: &'static str,
        /// As the header has it.
        text: String,
    },
    /// The file is called otherwise than its header says.
    #[error("by its header it is {0}")]
    FileName(String),
    /// There is one already.
    #[error("it is a second source package beside {0}")]
    SecondSource(String),
    /// It is the source of something else.
    #[error("it is the source of {is}, not of {leased}")]
    OtherSource {
        /// Name and version.
        is: String,
        /// Those of the SRPM that was leased.
        leased: String,
    },
    /// A binary package of another source.
    #[error("it says that it was built from {says}, and {is} came with it")]
    BuiltFromAnother {
        /// Its SOURCERPM.
        says: String,
        /// The source package of these results.
        is: String,
    },
    /// A binary package that the target cannot run.
    #[error("it is for {arch}, which is not for {target}")]
    Arch {
        /// Its architecture.
        arch: String,
        /// What was built for.
        target: TargetName,
    },
    /// A file in it would be installed where no package has a file.
    #[error("it contains the file {path}: {why}")]
    Path {
        /// Its path.
        path: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// It would take too much to look at all.
    #[error("it contains {0} files, more than any package has")]
    TooManyFiles(usize),
    /// Another build has published other bytes under that name.
    #[error("{0} is published with other content, and dnf may have it already")]
    Taken(String),
}

impl Refused {
    pub(super) fn file(file: &ArtifactName, reason: Reason) -> Self {
        Self::File { file: file.clone(), reason }
    }

    /// Another build's file stands in the way.
    pub fn taken(file: &ArtifactName, by: &str) -> Self {
        Self::file(file, Reason::Taken(quoted(by)))
    }
}

/// Longest text from a header in a reason, in characters.
const QUOTED: usize = 100;

/// A text from a header: short, and with nothing in it that a terminal would obey.
pub(super) fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_graphic() && c != '"' && c != '\\';
    if !text.is_empty() && text.len() <= QUOTED && text.chars().all(plain) {
        return text.to_owned();
    }
    let mut short: String = text.chars().take(QUOTED).collect();
    if short.len() < text.len() {
        short.push('…');
    }
    format!("{short:?}")
}
