//! Which packages share a member of the metadata files: about 64 that lie next to each other by the hashes of their
//! paths, so that a new package changes one group, and all others stay as they are.
//!
//! Pure: it knows hashes, and nothing of packages or files.

use std::ops::Range;

/// A group that has become so large is parted.
const LARGE: usize = 128;
/// In groups of so many.
const USUAL: usize = 64;
/// One that has become so small joins the one before it.
const SMALL: usize = 16;

/// FNV-1a with a last stir, because paths differ in few places: spreads well, and is the same on every machine.
pub(super) fn hash(path: &str) -> u64 {
    let hash = path.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let hash = (hash ^ (hash >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    hash ^ (hash >> 32)
}

/// Parts sorted hashes into groups: for each where it begins in the space of hashes, and which hashes it has.
/// `before` tells where groups began; as many as can stay. The first begins at 0, and there is at least one.
pub(super) fn regroup(before: &[u64], hashes: &[u64]) -> Vec<(u64, Range<usize>)> {
    let starts = std::iter::once(0).chain(before.iter().copied().filter(|start| *start > 0));
    let starts: Vec<u64> = starts.collect();
    let mut groups: Vec<(u64, Range<usize>)> = Vec::with_capacity(starts.len());
    let mut from = 0;
    for (at, start) in starts.iter().enumerate() {
        let until = match starts.get(at + 1) {
            Some(next) => hashes.partition_point(|hash| hash < next),
            None => hashes.len(),
        };
        let group = from..until;
        from = until;
        match groups.last_mut() {
            Some((_, last)) if group.len() < SMALL && last.len() + group.len() <= LARGE => {
                last.end = group.end
            }
            _ if group.len() > LARGE => groups.extend(parts(*start, group, hashes)),
            _ => groups.push((*start, group)),
        }
    }
    groups
}

/// Equal hashes stay together.
fn parts(start: u64, group: Range<usize>, hashes: &[u64]) -> Vec<(u64, Range<usize>)> {
    let count = group.len().div_ceil(USUAL);
    let mut parts: Vec<(u64, Range<usize>)> = Vec::with_capacity(count);
    let (mut begin, mut begin_hash) = (group.start, start);
    for part in 1..count {
        let cut = group.start + group.len() * part / count;
        let Some(hash) = hashes.get(cut).copied() else { break };
        let cut = hashes.partition_point(|other| *other < hash);
        if cut > begin {
            parts.push((begin_hash, begin..cut));
            (begin, begin_hash) = (cut, hash);
        }
    }
    parts.push((begin_hash, begin..group.end));
    parts
}

/// The group that a hash belongs to, by where groups begin, in order.
pub(super) fn group_of<T>(groups: &[T], start: impl Fn(&T) -> u64, hash: u64) -> usize {
    groups.partition_point(|group| start(group) <= hash).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn starts(groups: &[(u64, Range<usize>)]) -> Vec<u64> {
        groups.iter().map(|(start, _)| *start).collect()
    }

    proptest! {
        /// Whatever comes and goes: each hash is in exactly the group that covers it, and no group gets large.
        #[test]
        fn groups_cover_everything(rounds in proptest::collection::vec(proptest::collection::btree_set(0..4096_u64, 0..900), 1..6)) {
            let mut before = Vec::new();
            for round in rounds {
                let hashes: Vec<u64> = round.into_iter().map(|n| n.wrapping_mul(0x9e37_79b9_7f4a_7c15)).collect();
                let hashes = { let mut sorted = hashes; sorted.sort_unstable(); sorted };
                let groups = regroup(&before, &hashes);
                let starts = starts(&groups);
                prop_assert!(starts.first() == Some(&0) && starts.is_sorted());
                let mut at = 0;
                for (number, (_, range)) in groups.iter().enumerate() {
                    prop_assert_eq!(range.start, at);
                    at = range.end;
                    prop_assert!(range.len() <= LARGE);
                    for hash in &hashes[range.clone()] {
                        prop_assert_eq!(group_of(&groups, |(start, _)| *start, *hash), number);
                    }
                }
                prop_assert_eq!(at, hashes.len());
                before = starts;
            }
        }
    }

    #[test]
    fn one_more_changes_one_group() {
        let mut hashes: Vec<u64> =
            (0..10_000).map(|n| hash(&format!("package-{n}-1-1/package-{n}-1-1.noarch.rpm"))).collect();
        hashes.sort_unstable();
        let before = regroup(&[], &hashes);
        assert!((120..=170).contains(&before.len()), "{}", before.len());
        hashes.push(hash("another-1-1/another-1-1.noarch.rpm"));
        hashes.sort_unstable();
        let after = regroup(&starts(&before), &hashes);
        assert_eq!(starts(&before), starts(&after));
        let grown = before.iter().zip(&after).filter(|(old, new)| old.1.len() != new.1.len());
        assert_eq!(grown.count(), 1);
    }

    #[test]
    fn equal_hashes_stay_together() {
        let hashes = [vec![5; 300], vec![9; 300]].concat();
        assert_eq!(regroup(&[], &hashes), [(0, 0..300), (9, 300..600)]);
    }
}
