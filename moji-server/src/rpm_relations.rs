//! What the header of an RPM says of other packages: requirements and capabilities, read from the three
//! lists (names, flags, versions) that a header has of each.
//!
//! Others wrote it: names that are long, empty, or no plain text are left out, for nothing can depend on
//! them. It deliberately does not know whether the header is sound: callers check it, and contain the
//! panics of the `rpm` crate.

use moji_proto::outcome::plain;
use rpm::{IndexTag, PackageMetadata};

use crate::dependency::{Capability, Evr, Requirement, Sense, Versions};

/// Longest name and version, in bytes.
const TEXT_MAX: usize = 512;

/// What it requires, without what rpm itself provides; at most `most`.
pub(crate) fn requires(package: &PackageMetadata, most: usize) -> Vec<Requirement> {
    let tags = [IndexTag::RPMTAG_REQUIRENAME, IndexTag::RPMTAG_REQUIREFLAGS, IndexTag::RPMTAG_REQUIREVERSION];
    let requirements = entries(package, tags, most).into_iter().filter_map(|(name, versions)| {
        // A combination stands in the place of a name, and contains blanks.
        let requirement = match name.starts_with('(') {
            true => name.parse().ok()?,
            false if name.contains(char::is_whitespace) => return None,
            false => Requirement::versioned(name, versions),
        };
        (!requirement.is_rpmlib()).then_some(requirement)
    });
    requirements.collect()
}

/// What it provides; at most `most`.
pub(crate) fn provides(package: &PackageMetadata, most: usize) -> Vec<Capability> {
    let tags = [IndexTag::RPMTAG_PROVIDENAME, IndexTag::RPMTAG_PROVIDEFLAGS, IndexTag::RPMTAG_PROVIDEVERSION];
    let entries = entries(package, tags, most).into_iter();
    let named = entries.filter(|(name, _)| !name.contains(char::is_whitespace));
    named.map(|(name, versions)| Capability { name: name.into(), versions }).collect()
}

fn entries<'a>(
    package: &'a PackageMetadata,
    [names, flags, versions]: [IndexTag; 3],
    most: usize,
) -> Vec<(&'a str, Option<Versions>)> {
    let header = &package.header;
    let names = header.get_entry_data_as_string_array(names).unwrap_or_default();
    let flags = header.get_entry_data_as_u32_array(flags).unwrap_or_default();
    let versions = header.get_entry_data_as_string_array(versions).unwrap_or_default();
    let flags = flags.into_iter().chain(std::iter::repeat(0));
    let versions = versions.into_iter().chain(std::iter::repeat(""));
    let entries = names.into_iter().zip(flags).zip(versions).take(most);
    let entry = |((name, flags), version): ((&'a str, u32), &str)| {
        let sense = Sense::from_flags(flags).filter(|_| !version.is_empty());
        if !is_usable(name) || sense.is_some() && !is_usable(version) || version.contains(char::is_whitespace)
        {
            return None;
        }
        Some((name, sense.map(|sense| Versions { sense, evr: Evr::new(version) })))
    };
    entries.filter_map(entry).collect()
}

fn is_usable(text: &str) -> bool {
    !text.is_empty() && text.len() <= TEXT_MAX && plain(text) == text && text.trim() == text
}
