//! SRPMs for tests, assembled by hand: real enough for every reader of headers.

/// What a made-up package looks like.
#[derive(Debug, Clone)]
pub(crate) struct Fake<'a> {
    pub(crate) name: &'a str,
    pub(crate) epoch: Option<u32>,
    pub(crate) version: &'a str,
    pub(crate) release: &'a str,
    pub(crate) source: bool,
    pub(crate) size: SizeTag,
    pub(crate) payload: usize,
    /// Entries of the header beside the usual ones.
    pub(crate) more: Vec<Entry>,
}

/// Where the package says how long it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SizeTag {
    /// SIZE in the signature, 32 bits.
    Size,
    /// LONGSIZE in the signature, 64 bits.
    LongSize,
    /// PAYLOADSIZE in the header, as in version 6.
    Payload,
    /// Nowhere.
    None,
}

impl Fake<'_> {
    pub(crate) fn new<'a>(name: &'a str, version: &'a str, release: &'a str) -> Fake<'a> {
        let more = vec![
            (1047, (8, 1, format!("{name}\0").into_bytes())),
            (1048, (4, 2, [10_u32, 1 << 24 | 10].iter().flat_map(|flags| flags.to_be_bytes()).collect())),
            (1049, (8, 2, b"make\0rpmlib(CompressedFileNames)\0".to_vec())),
            (1050, (8, 2, b"4.0\x003.0.4-1\0".to_vec())),
            (1112, (4, 1, 8_u32.to_be_bytes().to_vec())),
            (1113, (8, 1, b"1-1\0".to_vec())),
        ];
        let (source, size, payload) = (true, SizeTag::Size, 5_000);
        Fake { name, epoch: None, version, release, source, size, payload, more }
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let text = |text: &str| (6, 1, [text.as_bytes(), b"\0"].concat());
        let mut entries: Vec<Entry> = vec![
            (1000, text(self.name)),
            (1001, text(self.version)),
            (1002, text(self.release)),
            (1004, (9, 1, b"a summary\0".to_vec())),
            (1009, (4, 1, 4711_u32.to_be_bytes().to_vec())),
            (1022, text("x86_64")),
        ];
        entries.extend(self.more.iter().cloned());
        if let Some(epoch) = self.epoch {
            entries.push((1003, (4, 1, epoch.to_be_bytes().to_vec())));
        }
        if self.source {
            entries.push((1106, (4, 1, 1_u32.to_be_bytes().to_vec())));
        } else {
            entries.push((1044, text("other-1-1.src.rpm")));
        }
        if self.size == SizeTag::Payload {
            entries.push((5112, (5, 1, (self.payload as u64).to_be_bytes().to_vec())));
        }
        let header = section(&entries);
        let rest = header.len() + self.payload;
        let signature = match self.size {
            SizeTag::Size => vec![(1000, (4, 1, (rest as u32).to_be_bytes().to_vec()))],
            SizeTag::LongSize => vec![(270, (5, 1, (rest as u64).to_be_bytes().to_vec()))],
            SizeTag::Payload | SizeTag::None => vec![(273, text("0123"))],
        };
        let mut bytes = vec![0xed, 0xab, 0xee, 0xdb, 3, 0, 0, 1];
        bytes.resize(78, 0);
        bytes.extend([0, 5]);
        bytes.resize(96, 0);
        bytes.extend(section(&signature));
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes.extend(header);
        // No zeros: they have a meaning of their own at the start of a file.
        bytes.extend((0..self.payload).map(|n| (n % 251) as u8 + 1));
        bytes
    }
}

/// `name-1-1.src.rpm`, whole.
pub(crate) fn srpm(name: &str) -> Vec<u8> {
    Fake::new(name, "1", "1").bytes()
}

/// Tag, and type, count and bytes of its value.
pub(crate) type Entry = (u32, (u32, u32, Vec<u8>));

/// A header.
pub(crate) fn section(entries: &[Entry]) -> Vec<u8> {
    let (mut index, mut data) = (Vec::new(), Vec::new());
    for (tag, (kind, count, value)) in entries {
        let align = match kind {
            4 => 4,
            5 => 8,
            _ => 1,
        };
        data.resize(usize::next_multiple_of(data.len(), align), 0);
        for word in [*tag, *kind, data.len() as u32, *count] {
            index.extend(word.to_be_bytes());
        }
        data.extend(value);
    }
    let mut bytes = vec![0x8e, 0xad, 0xe8, 1, 0, 0, 0, 0];
    bytes.extend((entries.len() as u32).to_be_bytes());
    bytes.extend((data.len() as u32).to_be_bytes());
    bytes.extend(index);
    bytes.extend(data);
    bytes
}
