use std::time::SystemTime;

use proptest::prelude::*;

use super::*;

fn ids(provided: &Provided, text: &str) -> Vec<u32> {
    provided.providers(&requirement(text)).map(|id| id.0).collect()
}

fn repository() -> Provided {
    let mut provided = Provided::default();
    let packages = [
        package("zlib", &["zlib = 1-1", "pkgconfig(zlib) = 1.2.3"], &["/usr/lib64/libz.so.1"]),
        package("perl", &["perl = 4:5.40-1", "/usr/bin/perl5"], &["/usr/bin/perl", "/usr/bin"]),
        package("foo1", &["foo = 1.5", "old"], &["/usr/bin"]),
        package("foo2", &["foo = 2.5", "foo = 3"], &[]),
    ];
    for (id, package) in [11, 7, 5, 3].into_iter().zip(packages) {
        provided.add(PackageId(id), package);
    }
    provided
}

#[test]
fn who_provides_what() {
    let provided = repository();
    for (text, expected) in [
        ("zlib", vec![11]),
        ("zlib >= 2", vec![]),
        ("pkgconfig(zlib) >= 1.2", vec![11]),
        ("foo", vec![3, 5]),
        ("foo < 2", vec![5]),
        ("foo > 2", vec![3]),
        ("old = 7", vec![5]),
        ("/usr/bin/perl", vec![7]),
        ("/usr/bin/perl5", vec![7]),
        ("/usr/bin", vec![5, 7]),
        ("/usr/bin/perl >= 5", vec![]),
        ("/usr/bin/python", vec![]),
        ("nothing", vec![]),
        ("(foo >= 1 with foo < 2)", vec![5]),
        // Each half is there, but not of one package.
        ("(foo >= 2.6 with old)", vec![]),
        ("(foo >= 1 with foo < 2.6 with foo > 2.7)", vec![3]),
        ("(foo without old)", vec![3]),
        ("(/usr/bin without /usr/bin/perl)", vec![5]),
        ("(zlib or nothing)", vec![11]),
        ("(zlib and nothing)", vec![11]),
        ("(zlib if nothing)", vec![11]),
        ("(nothing if zlib)", vec![]),
        ("(nothing if zlib else old)", vec![5]),
        ("(nothing unless nothing else perl)", vec![7]),
        ("((foo with old) or (zlib and perl))", vec![5, 7, 11]),
    ] {
        assert_eq!(ids(&provided, text), expected, "{text}");
        // Only where other repositories may have the other half, the answers differ.
        let all_here = !expected.is_empty() && text != "(zlib and nothing)";
        assert_eq!(provided.satisfies(&requirement(text)), all_here, "{text}");
    }
}

#[test]
fn replaced_and_removed() {
    let mut provided = repository();
    provided.add(PackageId(5), package("foo1", &["foo = 9"], &["/new"]));
    assert_eq!(ids(&provided, "old"), [0; 0]);
    assert_eq!(ids(&provided, "/usr/bin"), [7]);
    assert_eq!(ids(&provided, "(foo = 9 with /new)"), [5]);
    assert_eq!(provided.remove(PackageId(3)).unwrap().name, "foo2".into());
    assert_eq!(provided.remove(PackageId(3)), None);
    assert_eq!(provided.packages().map(|(id, _)| id.0).collect::<Vec<_>>(), [5, 7, 11]);
    for id in [5, 7, 11] {
        provided.remove(PackageId(id));
    }
    assert_eq!(provided.indexed(), (0, 0));
}

#[derive(Debug, Clone)]
enum Step {
    Add(u32, PublishedPackage),
    Remove(u32),
}

fn names() -> impl Strategy<Value = Requirement> {
    let plain = ["a", "b", "a = 1", "a < 2", "a > 1", "b >= 2-1", "/f", "/g", "/f = 1"];
    let leaf = prop::sample::select(plain.map(requirement).to_vec());
    leaf.prop_recursive(2, 6, 2, |part| {
        let two = (part.clone(), part.clone());
        (0..6, two, proptest::option::of(part)).prop_map(|(kind, (a, b), c)| {
            Requirement::Rich(Box::new(match kind {
                0 => Rich::All(vec![a, b]),
                1 => Rich::Any(vec![a, b]),
                2 => Rich::With(vec![a, b]),
                3 => Rich::Without(a, b),
                4 => Rich::If { wanted: a, condition: b, otherwise: c },
                _ => Rich::Unless { wanted: a, condition: b, otherwise: c },
            }))
        })
    })
}

fn step() -> impl Strategy<Value = Step> {
    let provides = prop::sample::subsequence(vec!["a", "a = 1", "a = 2-1", "b = 2", "b = 0:3-1", "/f"], 0..4);
    let files = prop::sample::subsequence(vec!["/f", "/g", "/h"], 0..3);
    prop_oneof![
        3 => (0_u32..6, provides, files).prop_map(|(id, p, f)| Step::Add(id, package("x", &p, &f))),
        1 => (0_u32..6).prop_map(Step::Remove),
    ]
}

proptest! {
    /// Whatever came and went, the answers are those of the packages that are there.
    #[test]
    fn the_indexes_say_what_the_packages_say(
        steps in proptest::collection::vec(step(), 0..30),
        asked in proptest::collection::vec(names(), 1..8),
    ) {
        let (mut provided, mut there) = (Provided::default(), std::collections::BTreeMap::new());
        for step in steps {
            match step {
                Step::Add(id, package) => {
                    provided.add(PackageId(id), package.clone());
                    there.insert(PackageId(id), package);
                }
                Step::Remove(id) => {
                    let gone = provided.remove(PackageId(id)).is_some();
                    prop_assert_eq!(gone, there.remove(&PackageId(id)).is_some());
                }
            }
            for requirement in &asked {
                let helps = |(id, package): (&PackageId, &PublishedPackage)| {
                    requirement.helped_by(&package.provides, &package.files).then_some(*id)
                };
                let expected: Vec<_> = there.iter().filter_map(helps).collect();
                let found: Vec<_> = provided.providers(requirement).collect();
                prop_assert_eq!(&found, &expected, "{}", requirement);
                prop_assert!(!provided.satisfies(requirement) || !found.is_empty());
                let named = |id: &PackageId| {
                    let package = &there[id];
                    requirement.names().any(|name| {
                        package.provides.iter().any(|capability| *capability.name == *name)
                            || package.files.contains(&FileHash::of(name))
                    })
                };
                prop_assert!(found.iter().all(named), "names() leads to whatever helps: {}", requirement);
            }
        }
        for id in 0..6 {
            provided.remove(PackageId(id));
        }
        prop_assert_eq!(provided.indexed(), (0, 0));
    }
}

/// Resident memory of this process, in bytes.
fn resident() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 4096
}

/// Not a test: prints what a repository of ten thousand packages costs.
#[test]
#[ignore = "a measurement"]
fn measure_ten_thousand_packages() {
    let before = resident();
    let clock = SystemTime::now();
    let mut provided = Provided::default();
    let mut made = std::time::Duration::ZERO;
    for id in 0..10_000_u32 {
        let start = SystemTime::now();
        let name = format!("some-package-{id}");
        let mut provides = vec![format!("{name} = 1-1"), format!("{name}(x86-64) = 1-1")];
        provides.extend((0..8).map(|n| format!("libsome{id}.so.{n}()(64bit)")));
        let files: Vec<_> = (0..100).map(|n| format!("/usr/share/{name}/{n}")).collect();
        let provides: Vec<_> = provides.iter().map(String::as_str).collect();
        let package = package(&name, &provides, &files.iter().map(String::as_str).collect::<Vec<_>>());
        made += start.elapsed().unwrap();
        provided.add(PackageId(id), package);
    }
    let added = clock.elapsed().unwrap() - made;
    println!("adding: {added:?}; {:.1} MB", (resident() - before) as f64 / 1e6);
    let questions: Vec<_> = (0..100_000_u32)
        .map(|n| {
            requirement(&match n % 4 {
                0 => format!("some-package-{} >= 0.5", n % 20_000),
                1 => format!("/usr/share/some-package-{}/7", n % 20_000),
                2 => format!("libsome{}.so.3()(64bit)", n % 20_000),
                _ => format!("(some-package-{} or libsome{n}.so.1()(64bit))", n % 20_000),
            })
        })
        .collect();
    let clock = SystemTime::now();
    let yes = questions.iter().filter(|question| provided.satisfies(question)).count();
    println!("100,000 questions: {:?}, {yes} yes", clock.elapsed().unwrap());
    let clock = SystemTime::now();
    for id in 0..10_000 {
        provided.remove(PackageId(id));
    }
    println!("removing: {:?}", clock.elapsed().unwrap());
}
