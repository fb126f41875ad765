//! One example of everything in each of the forms, and what must hold whatever is in it.

use std::fs;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::BuildKey;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_795_000_000 + seconds).unwrap()
}

fn srpm(name: &str) -> SrpmName {
    format!("{name}-1-1.src.rpm").parse().unwrap()
}

fn settled(name: &str, verdict: Verdict, attempts: u32, seconds: i64) -> SettledBuild {
    let failed = verdict != Verdict::Succeeded;
    SettledBuild {
        key: BuildKey { target: Some("f43-arm".parse().unwrap()), srpm: srpm(name) },
        nvr: Some(format!("{name}-1-1").parse().unwrap()),
        verdict,
        failure: failed.then_some(FailureKind::Package),
        reason: failed.then(|| "%build failed: a.c:3:1: error: expected ';' <b>".to_owned()),
        missing: Vec::new(),
        attempts,
        queued_at: at(0),
        settled_at: at(seconds),
        took: Some(Duration::from_secs(95)),
        busy: Duration::from_secs(95 * u64::from(attempts)),
        builder: Some("lab/board-7".parse().unwrap()),
    }
}

fn provider(name: &str, state: ProviderState) -> Provider {
    Provider { srpm: srpm(name), state }
}

fn example() -> Report {
    let mut arm = TargetReport::new(Some("f43-arm".parse().unwrap()));
    arm.settled(&settled("zlib", Verdict::Succeeded, 1, 600));
    arm.settled(&settled("bash", Verdict::Succeeded, 2, 700));
    arm.settled(&settled("broken", Verdict::Failed, 1, 650));
    let mut held = settled("killer", Verdict::Held, 3, 12_000);
    (held.failure, held.reason) =
        (Some(FailureKind::Infrastructure), Some("3 builders were lost with it".into()));
    arm.settled(&held);
    arm.failed[0].excerpt = Some(Excerpt {
        line_number: Some(42),
        lines: vec!["cc -c a.c".into(), "a.c:3:1: error: expected ';' <b>".into()],
        telling: 1,
    });
    arm.parked(Parked {
        srpm: srpm("app"),
        since: Some(at(800)),
        attempts: 2,
        missing: vec![
            Missing::unknown("pkgconfig(nowhere) >= 2"),
            Missing::of("libbroken", vec![provider("broken", ProviderState::Failed)]),
        ],
    });
    arm.cycle(Cycle::new([
        ("c".to_owned(), "liba = 1".to_owned()),
        ("a".to_owned(), "libb".to_owned()),
        ("b".to_owned(), "libc".to_owned()),
    ]));
    arm.waiting(Waiting {
        srpm: srpm("late"),
        needs: vec![Missing::of("libapp", vec![provider("app", ProviderState::Parked)])],
    });
    let mut any = TargetReport::new(None);
    any.settled(&SettledBuild {
        key: BuildKey { target: None, srpm: srpm("noarch") },
        took: None,
        builder: None,
        ..settled("noarch", Verdict::Succeeded, 1, 100)
    });
    Report::new(at(12_060), Standing::Stuck, vec![arm, any], 300)
}

#[test]
fn as_text() {
    let expected = "\
Nothing that is left can move (2026-11-18 14:27 UTC)
7 SRPMs: 3 built, 1 failed, 1 held, 1 parked, 1 waiting.
10 attempts, 1.42 for each SRPM; 3 h 20 min from the first to the last, in which
builders were busy for 12 min 40 s; the longest chain of builds that wait for
each other takes 5 min.

== f43-arm ==
From 2026-11-18 11:06 UTC to 2026-11-18 14:26 UTC.

Failed: 1
  The package itself: 1
    broken-1-1.src.rpm (1 attempt, on lab/board-7): %build failed: a.c:3:1:
      error: expected ';' <b>
      | cc -c a.c
      > a.c:3:1: error: expected ';' <b>
      f43-arm/broken-1-1/build.log

Held, until a person moves it back to SOURCE: 1
  A builder or a repository: 1
    killer-1-1.src.rpm (3 attempts, the last on lab/board-7): 3 builders were
      lost with it
      f43-arm/killer-1-1/build.log

Parked: 1
  app-1-1.src.rpm (2 attempts)
    needs pkgconfig(nowhere) >= 2: nothing that is known provides it
    needs libbroken: broken-1-1.src.rpm would, which failed

Dependency cycles: 1
  a -> b -> c -> a
    a needs libb of b
    b needs libc of c
    c needs liba = 1 of a

Waiting: 1
  late-1-1.src.rpm
    needs libapp: app-1-1.src.rpm would, which is parked itself

Built: 2
  zlib-1-1.src.rpm: 1 min 35 s, on lab/board-7
  bash-1-1.src.rpm: 1 min 35 s, 2 attempts, on lab/board-7

== any builder ==
From 2026-11-18 11:06 UTC to 2026-11-18 11:08 UTC.

Built: 1
  noarch-1-1.src.rpm
";
    assert_eq!(text(&example()), expected);
}

#[test]
fn as_json() {
    let json = serde_json::to_value(example()).unwrap();
    let arm = &json["targets"][0];
    assert_eq!(
        json["totals"].to_string(),
        r#"{"attempts":10,"busy_seconds":760,"counts":{"built":3,"cycles":1,"failed":1,"held":1,"parked":1,"waiting":1},"critical_path_seconds":300,"wall_seconds":12000}"#
    );
    assert_eq!((&json["format"], &json["standing"]), (&1.into(), &"stuck".into()));
    assert_eq!(
        arm["failed"][0].to_string(),
        r#"{"attempts":1,"builder":"lab/board-7","excerpt":{"line_number":42,"lines":["cc -c a.c","a.c:3:1: error: expected ';' <b>"],"telling":1},"kind":"package","logs":"f43-arm/broken-1-1","reason":"%build failed: a.c:3:1: error: expected ';' <b>","srpm":"broken-1-1.src.rpm"}"#
    );
    assert_eq!(
        arm["parked"][0]["missing"].to_string(),
        r#"[{"providers":[],"requirement":"pkgconfig(nowhere) >= 2"},{"providers":[{"srpm":"broken-1-1.src.rpm","state":"failed"}],"requirement":"libbroken"}]"#
    );
    assert_eq!(arm["cycles"][0]["edges"][0].to_string(), r#"{"package":"a","requirement":"libb"}"#);
    assert_eq!(arm["waiting"][0]["srpm"], "late-1-1.src.rpm");
    assert_eq!(json["targets"][1]["built"].to_string(), r#"[{"attempts":1,"srpm":"noarch-1-1.src.rpm"}]"#);
    assert_eq!(serde_json::from_value::<Report>(json).unwrap(), example());
}

#[test]
fn as_a_page() {
    let page = html(&example());
    for part in [
        "<!DOCTYPE html>\n<html lang=\"en\">",
        "content=\"default-src 'none'; style-src 'sha256-",
        "<meta name=\"viewport\"",
        "<title>Nothing that is left can move: 7 SRPMs: 3 built, 1 failed, 1 held, 1 parked, 1 waiting</title>",
        "<li><a href=\"#target-0\">f43-arm</a></li>",
        "<h2 id=\"target-0\">f43-arm</h2>\n<p>From 2026-11-18 11:06 UTC to 2026-11-18 14:26 UTC.</p>\n",
        "<h3>Failed: 1</h3>\n<div class=\"wide\" role=\"region\" tabindex=\"0\" aria-label=\"The package itself: 1\">\
         <table><caption>The package itself: 1</caption>\n<thead><tr><th scope=\"col\">SRPM</th>\
         <th scope=\"col\">Why</th></tr></thead>\n<tbody>\n<tr><th scope=\"row\">broken-1-1.src.rpm</th>\
         <td>%build failed: a.c:3:1: error: expected &#39;;&#39; &lt;b&gt;<br>\n<small>1 attempt, on lab/board-7; \
         <a href=\"./f43-arm/broken-1-1/build.log\">build.log</a>, <a href=\"./f43-arm/broken-1-1/\">all files</a>\
         </small>\n<pre>cc -c a.c\n<mark>a.c:3:1: error: expected &#39;;&#39; &lt;b&gt;</mark>\n</pre></td></tr>\n",
        "<li><code>pkgconfig(nowhere) &gt;= 2</code>: nothing that is known provides it</li>",
        "<li>a -&gt; b -&gt; c -&gt; a\n<ul>\n<li>a needs <code>libb</code> of b</li>\n",
        "<tr><th scope=\"row\">bash-1-1.src.rpm</th><td>1 min 35 s</td><td>2</td><td>lab/board-7</td></tr>\n",
        "<h2 id=\"target-1\">any builder</h2>",
    ] {
        assert!(page.contains(part), "{part}\n\n{page}");
    }
    // Each element that is opened is closed, and nothing runs or is loaded.
    for tag in [
        "main", "section", "table", "thead", "tbody", "tr", "td", "th", "ul", "li", "a", "h1", "h2", "h3",
        "pre", "div",
    ] {
        let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        assert_eq!(opened, page.matches(&format!("</{tag}>")).count(), "{tag}");
    }
    assert!(!page.contains("<script") && !page.contains("http:") && !page.contains("https:"), "{page}");
    assert_eq!(html(&Report::new(at(0), Standing::Empty, Vec::new(), 0)).matches("<table").count(), 0);
}

/// The policy lets in the style that is there.
#[test]
fn the_style_is_the_one_of_the_policy() {
    let page = html(&example());
    let style = page.split_once("<style>").unwrap().1.split_once("</style>").unwrap().0;
    let said = page.split_once("'sha256-").unwrap().1.split_once('\'').unwrap().0;
    let digest = moji_proto::Sha256::of(style.as_bytes()).0;
    let mut bits = said.trim_end_matches('=').bytes().map(|b| match b {
        b'A'..=b'Z' => b - b'A',
        b'a'..=b'z' => b - b'a' + 26,
        b'0'..=b'9' => b - b'0' + 52,
        b'+' => 62,
        _ => 63,
    });
    assert_eq!((said.len(), said.ends_with('=')), (44, true));
    for byte in digest.chunks(3) {
        let mut value = 0_u32;
        for _ in 0..=byte.len() {
            value = value << 6 | u32::from(bits.next().unwrap());
        }
        let spare = (byte.len() + 1) * 6 - byte.len() * 8;
        let bytes = (value >> spare).to_be_bytes();
        assert_eq!(&bytes[4 - byte.len()..], byte);
    }
}

#[test]
fn what_waits_for_no_package_waits_for_a_builder() {
    let mut target = TargetReport::new(None);
    target.waiting(Waiting { srpm: srpm("picky"), needs: Vec::new() });
    let report = Report::new(at(0), Standing::Stuck, vec![target], 0);
    for form in [text(&report), html(&report)] {
        assert!(form.contains("no builder that is connected can take it"), "{form}");
    }
}

#[test]
fn long_lists_are_cut_and_counted() {
    let mut target = TargetReport::new(None);
    for n in 0..KEPT_MAX + 5 {
        target.settled(&settled(&format!("p{n}"), Verdict::Succeeded, 1, 10));
        if n <= SHOWN_MAX + 6 {
            target.settled(&settled(&format!("f{n}"), Verdict::Failed, 1, 10));
        }
    }
    let report = Report::new(at(0), Standing::Empty, vec![target], 0);
    assert_eq!((report.totals.counts.built, report.targets[0].built.len()), (20_005, 20_000));
    let (text, html) = (text(&report), html(&report));
    assert!(text.contains("\nBuilt: 20005\n") && text.contains("\n  and 19005 more\n"));
    assert!(text.contains("\nFailed: 1007\n") && text.contains("\n  and 7 more\n"));
    assert!(html.contains("<p>and 19005 more; <a href=\"report.json\">") && html.contains("<p>and 7 more; "));
    assert_eq!(html.matches("<tr><th scope=\"row\">").count(), 2 * SHOWN_MAX);
}

#[test]
fn durations_for_people() {
    let table = [(0, "0 s"), (59, "59 s"), (60, "1 min"), (3661, "1 h 1 min"), (86_400 * 3 + 59, "3 d")];
    for (seconds, shown) in table {
        assert_eq!(words::duration(seconds), shown);
    }
}

#[test]
fn all_three_forms_are_written_with_what_the_logs_tell() {
    let repo = tempfile::tempdir().unwrap();
    let mut report = example();
    let known = report.targets[0].failed[0].excerpt.take();
    assert!(known.is_some());
    let put = |path: &str, content: &str| {
        let path = repo.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    };
    put("f43-arm/broken-1-1/build.log", "Executing(%build): sh\nb.c:1: error: of the log\n");
    put("secret", "error: secret\n");
    fs::create_dir_all(repo.path().join("f43-arm/killer-1-1")).unwrap();
    std::os::unix::fs::symlink("../../secret", repo.path().join("f43-arm/killer-1-1/build.log")).unwrap();
    read_excerpts(repo.path(), &mut report);
    let failed = &report.targets[0].failed[0];
    assert_eq!(failed.excerpt.as_ref().unwrap().lines, ["b.c:1: error: of the log"]);
    assert_eq!(report.targets[0].held[0].excerpt, None, "no link is followed");

    put(HTML, "old");
    write(repo.path(), &report).unwrap();
    let read = |name| fs::read_to_string(repo.path().join(name)).unwrap();
    assert_eq!(serde_json::from_str::<Report>(&read(JSON)).unwrap(), report);
    assert_eq!((read(TEXT), read(HTML)), (text(&report), html(&report)));
    let names = crate::beneath::Folder::open(repo.path()).unwrap().names().unwrap();
    assert_eq!(names.len(), 5, "nothing else is left: {names:?}");
}

proptest! {
    /// Whatever builders, packages and logs say: the page has no element that is not ours, and the text no
    /// line that a terminal would obey, or that is too long for no reason.
    #[test]
    fn texts_from_outside_stay_texts(hostile in ".{0,200}|<script>.{0,9}|\"'><img src=x.{0,9}|(\\PC{90} ?){3}") {
        let mut report = example();
        let clean = html(&report);
        let target = &mut report.targets[0];
        target.failed[0].reason = hostile.clone();
        target.failed[0].logs = Some(hostile.clone());
        target.failed[0].excerpt.as_mut().unwrap().lines[0] = hostile.clone();
        target.parked[0].missing[0].requirement = hostile.clone();
        target.cycles[0].edges[0] = Edge { package: hostile.clone(), requirement: hostile.clone() };
        let page = html(&report);
        for sign in ["<", ">", "\"", "'"] {
            prop_assert_eq!(page.matches(sign).count(), clean.matches(sign).count());
        }
        let text = text(&report);
        prop_assert!(!text.contains(|c: char| c != '\n' && c.is_control()));
        for line in text.lines() {
            let longest_word = line.split_whitespace().map(|word| word.chars().count()).max().unwrap_or(0);
            prop_assert!(line.chars().count() <= 80 || longest_word > 70, "{}", line);
        }
    }
}
