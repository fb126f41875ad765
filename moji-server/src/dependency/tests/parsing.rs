use proptest::prelude::*;

use super::*;

#[test]
fn texts_of_headers_and_of_mock() {
    for text in [
        "gcc",
        "t-ok-devel >= 1.0",
        "python3dist(nowhere)",
        "pkgconfig(zlib) >= 1.2",
        "libnowhere.so.9",
        "libfoo.so.3()(64bit)",
        "libc.so.6(GLIBC_2.38)(64bit)",
        "x = 1:2.0-3",
        "python3dist(foo) < 2~~",
        "font(:lang=en)",
        "/usr/bin/python",
        "/usr/lib/x = 3",
        "(a or b)",
        "(a >= 1 and (b or c < 2) and libfoo.so.3()(64bit))",
        "(python3dist(foo) >= 1 with python3dist(foo) < 2~~)",
        "(a if b else c)",
        "(a unless b)",
        "(a unless (b and c) else d)",
        "((a or b) without c = 1)",
    ] {
        assert_eq!(requirement(text).to_string(), text);
        assert_eq!(requirement(&requirement(text).to_string()), requirement(text));
    }
    assert!(matches!(requirement("/usr/bin/python"), Requirement::File(_)));
    assert!(matches!(requirement("/usr/lib/x = 3"), Requirement::Plain { versions: Some(_), .. }));
    assert!(matches!(requirement("(a or b)"), Requirement::Rich(rich) if matches!(*rich, Rich::Any(_))));
}

#[test]
fn other_ways_to_write_the_same() {
    for (text, same) in [
        ("  a   >=  1 ", "a >= 1"),
        ("a == 1", "a = 1"),
        ("a =< 1", "a <= 1"),
        ("( a  >=1 or ( b ) )", "(a >= 1 or b)"),
        ("(a)", "a"),
        ("((a or b))", "(a or b)"),
        ("(a  and\tb)", "(a and b)"),
    ] {
        assert_eq!(requirement(text).to_string(), same, "{text}");
    }
}

#[test]
fn what_has_no_form_is_looked_through_for_names() {
    for (text, names) in [
        ("", vec![""]),
        ("foo bar", vec!["foo"]),
        ("foo >=", vec!["foo"]),
        ("foo >= 1 2", vec!["foo"]),
        ("(a or b", vec!["a", "b"]),
        ("(a >= 1 or pkgconfig(b) and c)", vec!["a", "pkgconfig(b)", "c"]),
        ("(a without b without c)", vec!["a", "b", "c"]),
        ("(a if b if c)", vec!["a", "b", "c"]),
        ("(a else b)", vec!["a", "b"]),
        ("(a or b) c", vec!["a", "b", "c"]),
        ("(a >= 1 or libfoo.so(", vec!["a"]),
        ("(()", vec!["(()"]),
        ("()", vec!["()"]),
    ] {
        assert_eq!(requirement(text).names().collect::<Vec<_>>(), names, "{text}");
    }
    let deep = |depth| format!("{}a and b{}", "(".repeat(depth), ")".repeat(depth));
    assert!(matches!(requirement(&deep(64)), Requirement::Rich(rich) if matches!(*rich, Rich::All(_))));
    assert!(matches!(requirement(&deep(65)), Requirement::Rich(rich) if matches!(*rich, Rich::Any(_))));
    let long = requirement(&"(a or ".repeat(100_000));
    assert!(long.names().count() <= 64);
    assert!(requirement(&"\u{e4}".repeat(5_000)).names().all(|name| name.len() <= 4_096));
}

#[test]
fn names_are_those_that_can_help() {
    let names = |text| requirement(text).names().map(str::to_owned).collect::<Vec<_>>();
    assert_eq!(names("x > 1"), ["x"]);
    assert_eq!(names("(/bin/a or (b and c))"), ["/bin/a", "b", "c"]);
    assert_eq!(names("(a if b else c)"), ["a", "c"]);
    assert_eq!(names("(a without b)"), ["a"]);
    assert!(requirement("rpmlib(CompressedFileNames) <= 3.0.4-1").is_rpmlib());
    assert!(!requirement("config(foo) = 1").is_rpmlib());
}

fn name() -> impl Strategy<Value = String> {
    "/?[a-z][a-z0-9.+_-]{0,5}x(\\([a-z:]{0,3}\\)){0,2}"
}

fn simple() -> impl Strategy<Value = Requirement> {
    let senses = [Sense::Less, Sense::LessEqual, Sense::Equal, Sense::GreaterEqual, Sense::Greater];
    let versions = (prop::sample::select(senses.to_vec()), "([0-9]:)?[0-9a-z.~^]{1,4}(-[0-9a-z]{1,3})?")
        .prop_map(|(sense, evr)| Versions { sense, evr: Evr::new(evr) });
    (name(), proptest::option::of(versions)).prop_map(|(name, v)| Requirement::versioned(name, v))
}

pub(super) fn any_requirement() -> impl Strategy<Value = Requirement> {
    simple().prop_recursive(4, 20, 3, |part| {
        let parts = || proptest::collection::vec(part.clone(), 2..4);
        let three = || (part.clone(), part.clone(), proptest::option::of(part.clone()));
        prop_oneof![
            parts().prop_map(Rich::All),
            parts().prop_map(Rich::Any),
            parts().prop_map(Rich::With),
            (part.clone(), part.clone()).prop_map(|(a, b)| Rich::Without(a, b)),
            three().prop_map(|(wanted, condition, otherwise)| Rich::If { wanted, condition, otherwise }),
            three().prop_map(|(wanted, condition, otherwise)| Rich::Unless { wanted, condition, otherwise }),
        ]
        .prop_map(|rich| Requirement::Rich(Box::new(rich)))
    })
}

proptest! {
    #[test]
    fn display_and_parse_are_inverse(requirement in any_requirement()) {
        prop_assert_eq!(self::requirement(&requirement.to_string()), requirement);
    }

    #[test]
    fn any_text_is_a_requirement(text in "(\\PC|[()<>= ]|\n| (and|or|if|else|with|without|unless) |[a-c]){0,40}") {
        let first = requirement(&text);
        // What was found in it has a form.
        prop_assert_eq!(&requirement(&first.to_string()), &first);
        let _ = (first.names().count(), first.is_rpmlib());
    }
}
