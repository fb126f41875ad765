//! RPMs that differ in much and are made in no time: for repositories in which there are many.

use rpm::{BuildConfig, CompressionType, Dependency, PackageBuilder};

/// A package without files; of the same number and edition it is the same.
pub(crate) fn generated(number: u32, edition: u32) -> Vec<u8> {
    let (name, version) = (format!("generated{number}"), format!("{}", number % 13));
    let summary = format!("Number {number} & <the rest>, edition {edition:03}");
    let config = BuildConfig::v4().compression(CompressionType::None).source_date(1_700_000_000 + number);
    let mut builder = PackageBuilder::new(&name, &version, "MIT", "noarch", &summary);
    builder.using_config(config).release("1").description(format!("A \"package\" of tests, {number}"));
    if number.is_multiple_of(4) {
        builder.epoch(number);
    }
    for at in 0..number % 7 {
        builder.requires(Dependency::greater_eq(format!("generated{at}"), format!("{number}:1-{at}")));
        builder.provides(Dependency::eq(format!("cap({number}-{at})"), format!("{at}")));
    }
    if number.is_multiple_of(3) {
        builder.recommends(Dependency::any("weak")).suggests(Dependency::less("weaker", "9"));
        builder.supplements(Dependency::any("(x and y)")).enhances(Dependency::any("z"));
    }
    if number.is_multiple_of(5) {
        builder.obsoletes(Dependency::less_eq("old", "7")).conflicts(Dependency::any("enemy"));
        builder.post_install_script("true").requires(Dependency::script_post("/bin/sh"));
    }
    for day in 0..number % 3 {
        builder.add_changelog_entry(
            "Dr. É <e@example.org> - 1-1",
            "- one & two",
            1_600_000_000 + 86_400 * day,
        );
    }
    let mut bytes = Vec::new();
    builder.build().unwrap().write(&mut bytes).unwrap();
    bytes
}
