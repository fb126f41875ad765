use moji_proto::{Resources, SrpmName, Tag};
use proptest::prelude::*;

use super::priority::{glob_matches, header};
use crate::source::entries::{MAX_ENTRIES, MAX_GLOB_CHARACTERS, MAX_LINE};
use crate::source::{Demand, Lack, Requires};

const GIB: u64 = 1 << 30;

fn tag(text: &str) -> Tag {
    Tag::new(text).unwrap()
}

fn demand(memory: u64, disk: u64, cores: u16, tags: &[&str]) -> Demand {
    Demand { memory, disk, cores, tags: tags.iter().copied().map(tag).collect() }
}

/// What `gcc-14.2-3.fc43` asks for.
fn of_gcc(list: &str) -> Demand {
    let name = SrpmName::new("gcc-14.2-3.fc43.src.rpm").unwrap();
    Requires::parse(list.as_bytes()).demand(&name, &header("gcc", "14.2", "3.fc43"))
}

fn warnings(list: &str) -> Vec<String> {
    let list = Requires::parse(list.as_bytes());
    list.warnings().iter().map(|warning| format!("{}: {}", warning.line, warning.text)).collect()
}

#[test]
fn a_line_is_an_entry_and_demands() {
    let all = demand(8 * GIB, 40 * GIB, 8, &["fast", "kvm"]);
    assert_eq!(of_gcc("gcc memory=8G disk=40G cores=8 tag=fast tag=kvm"), all);
    assert_eq!(
        of_gcc(
            "\u{feff}# big ones\r\n\r\n g?c\t tag=kvm  tag=fast cores=8 disk=40960M memory=8388608K # c\r\n"
        ),
        all
    );
    for entry in ["gcc", "gcc-14.2-3.fc43", "gcc-14.2-3.fc43.src.rpm", "g*", "*fc43", "*.src.rpm"] {
        assert_eq!(of_gcc(&format!("{entry} memory=4096")), demand(4096, 0, 0, &[]), "{entry}");
    }
    for entry in ["gc", "GCC", "gcc-14.2", "*.fc42*"] {
        assert!(of_gcc(&format!("{entry} memory=4096")).is_nothing(), "{entry}");
    }
}

#[test]
fn lines_that_fit_add_up() {
    let list = "* cores=2 memory=1G\ngcc memory=8G\ngcc memory=4G tag=a\ng* disk=5G tag=b\ng* tag=c\n\
                gcc-14.2-3.fc43 cores=1\nglibc tag=d memory=99G\n";
    assert_eq!(of_gcc(list), demand(8 * GIB, 5 * GIB, 2, &["a", "b", "c"]));
    assert_eq!(Requires::parse(list.as_bytes()).len(), 7);
    assert_eq!(of_gcc("gcc memory=1G memory=3G memory=2G"), demand(3 * GIB, 0, 0, &[]));
}

#[test]
fn a_bad_line_is_a_warning_for_that_line_only() {
    let bad = "gcc\na/gcc memory=1G\ngcc memory=1T\ngcc memory\ngcc ram=1G\ngcc cores=70000\ngcc cores=0\n\
               gcc tag=\ngcc tag=a/b\n[z-a] cores=1\ngcc cores=1 oops\ngcc memory=99999999999G\n\x1b[2J cores=1\n";
    let list = format!("{bad}gcc cores=3\n");
    let told = warnings(&list);
    assert_eq!(told.len(), 13, "{told:#?}");
    assert!((1..).zip(&told).all(|(n, text): (u32, _)| text.starts_with(&format!("{n}: "))), "{told:#?}");
    assert!(told.iter().all(|text| !text.contains(char::is_control)), "{told:#?}");
    assert_eq!(of_gcc(&list), demand(0, 0, 3, &[]));
    assert_eq!(
        told[0],
        "1: \"gcc\" asks for nothing: what follows it is memory=8G, disk=40G, cores=8 or tag=fast"
    );
    assert!(told[1].contains("a target has a requires.txt of its own"), "{}", told[1]);
    assert!(told[2].contains("\"1T\" is no size like"), "{}", told[2]);
}

#[test]
fn it_is_bounded_like_the_other_list() {
    let lengths = |text: &str| {
        let list = Requires::parse(text.as_bytes());
        (list.len(), list.warnings().len(), list.unsaid())
    };
    assert_eq!(lengths(&format!("{} cores=1\ngcc cores=1", "x".repeat(MAX_LINE))), (1, 1, 0));
    let many: String = (0..MAX_ENTRIES + 5).map(|n| format!("p{n} cores=1\n")).collect();
    assert_eq!(lengths(&many), (MAX_ENTRIES, 1, 0));
    // The same glob again counts like another.
    assert_eq!(
        lengths(&"*abc* cores=1\n".repeat(MAX_GLOB_CHARACTERS / 4 + 5)),
        (MAX_GLOB_CHARACTERS / 4, 5, 0)
    );
    assert_eq!(lengths(&"oops\n".repeat(500)), (0, 100, 400));
}

#[test]
fn what_a_builder_lacks() {
    let wanted = demand(8 * GIB, 40 * GIB, 8, &["fast", "kvm"]);
    let resources = |memory, disk, cores| Resources { memory, disk, cores };
    let enough = resources(8 * GIB, 40 * GIB, 8);
    assert_eq!(wanted.lacks(&enough, &[tag("kvm"), tag("fast"), tag("other")]), []);
    assert_eq!(Demand::default().lacks(&Resources::default(), &[]), []);
    let lacks = wanted.lacks(&resources(4 * GIB, 50 * GIB, 7), &[tag("fast")]);
    assert_eq!(
        lacks,
        [
            Lack::Memory { wanted: 8 * GIB, there: 4 * GIB },
            Lack::Cores { wanted: 8, there: 7 },
            Lack::Tag(tag("kvm")),
        ]
    );
    let said: Vec<_> = lacks.iter().map(Lack::to_string).collect();
    assert_eq!(
        said,
        ["8.0 GiB of memory wanted, 4.0 GiB there", "8 cores wanted, 7 there", "the tag kvm wanted"]
    );
    // One that does not say what it has.
    let said: Vec<_> = wanted.lacks(&Resources::default(), &[]).iter().map(Lack::to_string).collect();
    assert_eq!(
        said,
        [
            "8.0 GiB of memory wanted, the builder does not say how much it has",
            "40.0 GiB of free disk wanted, the builder does not say how much it has",
            "8 cores wanted, the builder does not say how many it has",
            "the tag fast wanted",
            "the tag kvm wanted",
        ]
    );
    let almost = Lack::Disk { wanted: 8 * GIB, there: 8 * GIB - 4096 };
    assert_eq!(almost.to_string(), "8.0 GiB of free disk wanted, 4.0 KiB less there");
}

proptest! {
    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
        let name = SrpmName::new("gcc-14.2-3.fc43.src.rpm").unwrap();
        Requires::parse(&bytes).demand(&name, &header("gcc", "14.2", "3.fc43"));
    }

    #[test]
    fn a_demand_is_what_all_lines_that_fit_say(
        lines in proptest::collection::vec(("([ab1*?-]|\\[a-b\\]){1,6}", 1_u16..9, "[a-e]"), 0..60),
        (name, version, release) in ("[ab]{1,3}(-[ab]{1,2})?", "[ab1]{1,2}", "[ab1]{1,2}"),
        other_name in any::<bool>(),
    ) {
        let header = header(&name, &version, &release);
        let stem = if other_name { "ab1".to_owned() } else { header.nvr.to_string() };
        let file = SrpmName::new(format!("{stem}.src.rpm")).unwrap();
        let texts = [file.as_str(), header.nvr.as_str(), &header.name];
        let mut wanted = Demand::default();
        for (entry, cores, text) in &lines {
            let entry: Vec<char> = entry.chars().collect();
            if texts.iter().any(|text| glob_matches(&entry, &text.chars().collect::<Vec<_>>())) {
                wanted.cores = wanted.cores.max(*cores);
                wanted.tags.insert(tag(text));
            }
        }
        let list: String =
            lines.iter().map(|(entry, cores, text)| format!("{entry} cores={cores} tag={text}\n")).collect();
        let list = Requires::parse(list.as_bytes());
        prop_assert_eq!(list.warnings(), &[]);
        prop_assert_eq!(list.demand(&file, &header), wanted);
    }
}
