//! Which generations are kept: those that attempts run against, the served one, and earlier ones for a
//! while and as far as there is room.
//!
//! Pure. It deliberately does not know where generations lie, or what is in them.

use std::collections::{BTreeMap, BTreeSet};

use super::Repository;

/// A generation that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Held {
    pub(super) number: u64,
    /// Of its metadata; the packages are links.
    pub(super) bytes: u64,
    /// Since when another one is served, in seconds since 1970; `None`: it is served.
    pub(super) superseded: Option<u64>,
}

/// How long and how many.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    /// Seconds after it was superseded; 0: not at all.
    pub(super) keep: u64,
    /// Bytes of all of them, for all repositories.
    pub(super) size: u64,
    /// Seconds for which one stays in any case: an attempt may have got it just before it was superseded,
    /// and nobody has said so yet.
    pub(super) grace: u64,
}

/// What nobody can need any more, by repository. `in_use` is what attempts run against.
pub(super) fn expired(
    held: &BTreeMap<Repository, Vec<Held>>,
    in_use: &BTreeMap<Repository, BTreeSet<u64>>,
    policy: Policy,
    now: u64,
) -> BTreeMap<Repository, BTreeSet<u64>> {
    let mut room = policy.size;
    let mut free = Vec::new();
    for (repository, generation) in held.iter().flat_map(|(r, all)| all.iter().map(move |held| (r, held))) {
        let used = in_use.get(repository).is_some_and(|numbers| numbers.contains(&generation.number));
        // A clock that went back makes it young again.
        match generation.superseded.map(|since| now.saturating_sub(since)) {
            Some(age) if !used && age >= policy.grace => free.push((age, repository, generation)),
            _ => room = room.saturating_sub(generation.bytes),
        }
    }
    // The youngest first: they get the room.
    free.sort_by_key(|(age, repository, generation)| {
        (*age, *repository, std::cmp::Reverse(generation.number))
    });
    let (mut full, mut expired) = (false, BTreeMap::<Repository, BTreeSet<u64>>::new());
    for (age, repository, generation) in free {
        full |= generation.bytes > room;
        if full || age >= policy.keep {
            expired.entry(repository.clone()).or_default().insert(generation.number);
        } else {
            room -= generation.bytes;
        }
    }
    expired
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy { keep: 1000, size: 100, grace: 60 };

    fn target() -> Repository {
        Repository::Nested("f43".into())
    }

    /// Number, bytes, since when.
    fn held(
        main: &[(u64, u64, Option<u64>)],
        nested: &[(u64, u64, Option<u64>)],
    ) -> BTreeMap<Repository, Vec<Held>> {
        let all = |list: &[(u64, u64, Option<u64>)]| {
            list.iter().map(|&(number, bytes, superseded)| Held { number, bytes, superseded }).collect()
        };
        [(Repository::Main, all(main)), (target(), all(nested))].into()
    }

    fn numbers(
        held: &BTreeMap<Repository, Vec<Held>>,
        in_use: &[(Repository, u64)],
        policy: Policy,
        now: u64,
    ) -> (Vec<u64>, Vec<u64>) {
        let mut used = BTreeMap::<Repository, BTreeSet<u64>>::new();
        for (repository, number) in in_use {
            used.entry(repository.clone()).or_default().insert(*number);
        }
        let expired = expired(held, &used, policy, now);
        let of = |repository| expired.get(&repository).into_iter().flatten().copied().collect();
        (of(Repository::Main), of(target()))
    }

    #[test]
    fn age_counts_from_when_it_was_superseded_and_what_is_in_use_or_served_stays() {
        let all =
            held(&[(1, 1, Some(10)), (2, 1, Some(2000)), (3, 1, None)], &[(1, 1, Some(10)), (2, 1, None)]);
        assert_eq!(numbers(&all, &[], POLICY, 1009), (vec![], vec![]));
        assert_eq!(numbers(&all, &[], POLICY, 1010), (vec![1], vec![1]));
        assert_eq!(numbers(&all, &[(Repository::Main, 1)], POLICY, 9999), (vec![2], vec![1]));
        assert_eq!(numbers(&all, &[(target(), 1)], POLICY, 9999), (vec![1, 2], vec![]));
        assert_eq!(numbers(&all, &[], POLICY, 5), (vec![], vec![]), "the clock went back");
    }

    #[test]
    fn without_keeping_only_what_is_in_use_stays_after_a_moment() {
        let all = held(&[(1, 1, Some(10)), (2, 1, Some(20)), (3, 1, None)], &[]);
        let policy = Policy { keep: 0, ..POLICY };
        assert_eq!(numbers(&all, &[(Repository::Main, 1)], policy, 79), (vec![], vec![]));
        assert_eq!(numbers(&all, &[(Repository::Main, 1)], policy, 80), (vec![2], vec![]));
    }

    #[test]
    fn the_oldest_of_all_repositories_go_when_there_is_no_room() {
        let all = held(
            &[(1, 30, Some(100)), (2, 30, Some(300)), (3, 30, None)],
            &[(7, 30, Some(200)), (8, 5, Some(50)), (9, 5, None)],
        );
        assert_eq!(numbers(&all, &[], POLICY, 400), (vec![1], vec![8]), "also when the older one is small");
        assert_eq!(numbers(&all, &[(Repository::Main, 1)], POLICY, 400), (vec![], vec![7, 8]));
        let tight = Policy { size: 0, ..POLICY };
        assert_eq!(numbers(&all, &[(target(), 7)], tight, 359), (vec![1], vec![8]), "2 is too young");
    }
}
