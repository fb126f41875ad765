use std::cmp::Ordering::{self, Equal, Greater, Less};

use proptest::prelude::*;

use super::*;

/// rpm's own table (`tests/rpmvercmp.at`), and what it says of non-ASCII letters.
const VERSIONS: &[(&str, &str, Ordering)] = &[
    ("1.0", "1.0", Equal),
    ("1.0", "2.0", Less),
    ("2.0", "1.0", Greater),
    ("2.0.1", "2.0.1", Equal),
    ("2.0", "2.0.1", Less),
    ("2.0.1", "2.0", Greater),
    ("2.0.1a", "2.0.1a", Equal),
    ("2.0.1a", "2.0.1", Greater),
    ("5.5p1", "5.5p1", Equal),
    ("5.5p1", "5.5p2", Less),
    ("5.5p10", "5.5p1", Greater),
    ("10xyz", "10.1xyz", Less),
    ("10.1xyz", "10xyz", Greater),
    ("xyz10", "xyz10", Equal),
    ("xyz10", "xyz10.1", Less),
    ("xyz.4", "xyz.4", Equal),
    ("xyz.4", "8", Less),
    ("8", "xyz.4", Greater),
    ("xyz.4", "2", Less),
    ("5.5p2", "5.6p1", Less),
    ("5.6p1", "6.5p1", Less),
    ("6.0.rc1", "6.0", Greater),
    ("10b2", "10a1", Greater),
    ("10a2", "10b2", Less),
    ("1.0aa", "1.0aa", Equal),
    ("1.0a", "1.0aa", Less),
    ("10.0001", "10.0001", Equal),
    ("10.0001", "10.1", Equal),
    ("10.0001", "10.0039", Less),
    ("4.999.9", "5.0", Less),
    ("20101121", "20101122", Less),
    ("2_0", "2_0", Equal),
    ("2.0", "2_0", Equal),
    ("a", "a", Equal),
    ("a+", "a_", Equal),
    ("+a", "_a", Equal),
    ("+_", "_+", Equal),
    ("1.0~rc1", "1.0~rc1", Equal),
    ("1.0~rc1", "1.0", Less),
    ("1.0", "1.0~rc1", Greater),
    ("1.0~rc1", "1.0~rc2", Less),
    ("1.0~rc1~git123", "1.0~rc1", Less),
    ("2~~", "2~", Less),
    ("2~~", "2", Less),
    ("1.0^", "1.0^", Equal),
    ("1.0^", "1.0", Greater),
    ("1.0^git1", "1.0^git2", Less),
    ("1.0^git1", "1.01", Less),
    ("1.0^20160101", "1.0.1", Less),
    ("1.0^20160101^git1", "1.0^20160102", Less),
    ("1.0~rc1^git1", "1.0~rc1", Greater),
    ("1.0^git1~pre", "1.0^git1", Less),
    ("1b.fc17", "1b.fc17", Equal),
    ("1b.fc17", "1.fc17", Less),
    ("1g.fc17", "1.fc17", Greater),
    ("1.1.\u{3b1}", "1.1.\u{3b2}", Equal),
    ("00", "0", Equal),
    ("99999999999999999999", "100000000000000000000", Less),
];

#[test]
fn versions_compare_as_in_rpm() {
    for (one, two, expected) in VERSIONS {
        assert_eq!(Evr::new(*one).compare(&Evr::new(*two)), *expected, "{one} {two}");
        assert_eq!(Evr::new(*two).compare(&Evr::new(*one)), expected.reverse(), "{two} {one}");
    }
}

#[test]
fn epochs_and_releases() {
    let compare = |one: &str, two: &str| Evr::new(one).compare(&Evr::new(two));
    assert_eq!(compare("0:1-1", "1-1"), Equal);
    assert_eq!(compare(":1-1", "1-1"), Equal);
    assert_eq!(compare("1:1-1", "2-2"), Greater);
    assert_eq!(compare("10:1", "9:1"), Greater);
    assert_eq!(compare("1-1", "1-2"), Less);
    // Not an epoch: a version that has a colon.
    assert_eq!(compare("a:1-1", "a:2-1"), Less);
    assert_eq!(Evr::new("1:2-3.fc43").release(), "3.fc43");
    assert_eq!(Evr::new("1:2-3.fc43").without_release().as_str(), "1:2");
    assert_eq!(Evr::new("2").without_release().as_str(), "2");
    assert_eq!(Evr::of(Some(3), "1", "2").as_str(), "3:1-2");
    assert_eq!(Evr::of(None, "1", "2").as_str(), "1-2");
}

/// What rpm itself says of overlaps: `tests/rpmds` of it, and `rpmverOverlap`.
#[test]
fn ranges_overlap_as_in_rpm() {
    let cases = [
        ("x = 1-1", "x", true),
        ("x", "x > 7", true),
        ("x = 1-1", "x = 1", true),
        ("x = 1", "x = 1-1", true),
        ("x = 1-2", "x = 1-1", false),
        ("x = 1-1", "x > 1", false),
        ("x = 1-1", "x < 1", false),
        ("x = 1-1", "x <= 1", true),
        ("x = 1-1", "x >= 1", true),
        ("x = 1-1", "x >= 1-2", false),
        ("x = 1", "x >= 1-2", true),
        ("x = 1", "x > 1-2", true),
        ("x = 0:1-1", "x = 1-1", true),
        ("x = 1:1-1", "x = 1-1", false),
        ("x = 1:1-1", "x >= 5", true),
        ("x = 2", "x < 2~~", false),
        ("x = 2~rc1", "x < 2", true),
        ("x = 2~~a", "x < 2~~", false),
        ("x = 2^git1", "x > 2", true),
        ("x < 1-1", "x >= 1", true),
        ("x < 1-1", "x > 1", false),
        ("x > 1", "x <= 1-1", false),
        ("x >= 1", "x < 1-1", true),
        ("x < 2", "x > 1", true),
        ("x < 2", "x >= 2", false),
        ("x <= 2", "x >= 2", true),
        ("x > 2", "x > 9", true),
        ("x < 2", "x < 1", true),
        ("x > 2", "x = 2", false),
    ];
    for (provide, require, expected) in cases {
        let fits = requirement(require).fits(&capability(provide));
        assert_eq!(fits, expected, "{provide} for {require}");
    }
    assert!(!requirement("y").fits(&capability("x")));
}

#[test]
fn flags_of_headers() {
    let senses = [2, 10, 8, 12, 4].map(|flags| Sense::from_flags(flags | 1 << 14).unwrap().to_string());
    assert_eq!(senses, ["<", "<=", "=", ">=", ">"]);
    assert_eq!([0, 6, 14, 1 << 24].map(Sense::from_flags), [None; 4]);
}

fn sense() -> impl Strategy<Value = Sense> {
    prop::sample::select(vec![
        Sense::Less,
        Sense::LessEqual,
        Sense::Equal,
        Sense::GreaterEqual,
        Sense::Greater,
    ])
}

proptest! {
    /// Of a package that is there in one version, ranges are what they look like.
    #[test]
    fn a_package_is_in_a_range_or_not(
        have in (0_u32..3, 0_u32..3, 0_u32..3),
        want in (0_u32..3, 0_u32..3, proptest::option::of(0_u32..3)),
        epochs in any::<(bool, bool)>(),
        sense in sense(),
    ) {
        let text = |epoch: u32, written: bool, rest: String| match epoch {
            0 if !written => rest,
            epoch => format!("{epoch}:{rest}"),
        };
        let evr = text(have.0, epochs.0, format!("{}-{}", have.1, have.2));
        let release = want.2.map(|release| format!("-{release}")).unwrap_or_default();
        let wanted = text(want.0, epochs.1, format!("{}{release}", want.1));
        let provided = Versions { sense: Sense::Equal, evr: Evr::new(evr) };
        let wanted = Versions { sense, evr: Evr::new(wanted) };
        let order = match want.2 {
            Some(release) => have.cmp(&(want.0, want.1, release)),
            None => (have.0, have.1).cmp(&(want.0, want.1)),
        };
        let expected = match sense {
            Sense::Less => order.is_lt(),
            Sense::LessEqual => order.is_le(),
            Sense::Equal => order.is_eq(),
            Sense::GreaterEqual => order.is_ge(),
            Sense::Greater => order.is_gt(),
        };
        prop_assert_eq!(provided.overlap(&wanted), expected, "{} {}", provided, wanted);
        prop_assert_eq!(wanted.overlap(&provided), expected);
    }
}
