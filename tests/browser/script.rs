//! What the pages' script does: brings them up to date and leaves the reader alone.

use std::time::Duration;

use moji_proto::api::Overview;
use moji_server::pages;
use moji_tests::support::processes::wait_until;
use serde_json::json;

use crate::browser::{Browser, Look};
use crate::made_up::{self, frame, given};
use crate::site::Site;

const EVENT: &str = "id: 7\nevent: started\ndata: {\"id\":7,\"kind\":\"started\",\"build\":{\"id\":403}}\n\n";
const LINES: &str = "/api/v1/attempts/0123456789abcdef-403/logs/build.log/lines";

/// Tells those who listen, and waits until somebody does.
fn happen(site: &Site, path: &str, event: &str) {
    wait_until("a browser that listens", || site.send(path, event) > 0);
}

#[test]
fn what_differs_is_changed_and_nothing_else() {
    let site = Site::start();
    site.show("/", pages::overview(frame(), &made_up::overview()));
    let browser = Browser::start(Look::DESK);
    browser.open(&site.url("/"));
    browser.wait("return document.querySelector('#live').textContent === 'Live'");
    // A reader is at a link, has selected something, and the rows are known again.
    browser.run(
        "window.row = document.querySelector('#running [data-key$=\"-401\"]');
         window.row.querySelector('a').focus();
         getSelection().selectAllChildren(window.row.querySelector('td'));",
    );
    let mut value = serde_json::to_value(made_up::overview()).unwrap();
    let running = value["running"].as_array_mut().unwrap();
    running.remove(0);
    running.push(made_up::running(410, "fresh-1-1", 5, "receiving"));
    value["queue"]["ready"] = json!(211);
    let overview: Overview = given(value);
    site.show("/", pages::overview(frame(), &overview));
    happen(&site, "/events", EVENT);
    browser.wait("return document.querySelector('#now').textContent.includes('248')");
    let same = browser.run(
        "return [window.row.isConnected, document.activeElement === window.row.querySelector('a'),
                 getSelection().toString().includes('fedora-43-aarch64'),
                 document.querySelector('#running').textContent.includes('gcc-15'),
                 document.querySelector('#running tbody tr:last-child').textContent.includes('fresh-1-1')]",
    );
    assert_eq!(same, json!([true, true, true, false, true]));
}

#[test]
fn many_events_are_one_look_and_another_build_is_none() {
    let site = Site::start();
    site.show("/build/403", pages::build(frame(), &made_up::running_build(), None, None));
    let browser = Browser::start(Look::DESK);
    browser.open(&site.url("/build/403"));
    let before = site.asked("/build/403");
    happen(&site, "/events", &EVENT.replace("403", "17").repeat(3));
    happen(&site, "/events", &EVENT.repeat(200));
    wait_until("the look at it", || site.asked("/build/403") > before);
    // What comes meanwhile is looked at once more.
    browser.let_pass(Duration::from_millis(2500));
    assert!(site.asked("/build/403") - before <= 3, "{} looks", site.asked("/build/403") - before);
}

#[test]
fn what_is_unfolded_stays_so() {
    let site = Site::start();
    made_up::show_all(&site);
    let browser = Browser::start(Look::DESK);
    browser.open(&site.url("/package/llvm"));
    browser.click("#as-table summary");
    let before = site.asked("/package/llvm");
    happen(&site, "/events", EVENT);
    wait_until("the look", || site.asked("/package/llvm") > before);
    browser.let_pass(Duration::from_millis(500));
    assert_eq!(browser.run("return document.querySelector('#as-table').open"), json!(true));
}

#[test]
fn a_log_follows_its_end_unless_somebody_reads() {
    let site = Site::start();
    made_up::show_all(&site);
    let browser = Browser::start(Look::DESK);
    browser.open(&site.url("/build/403"));
    let at_end = "const log = document.querySelector('ol.log'); return log.scrollTop + log.clientHeight >= log.scrollHeight - 30";
    let lines = |from: usize, to: usize| {
        let lines: Vec<_> =
            (from..to).map(|n| json!([["", format!("line {n} ")], ["bold-red", "boom"]])).collect();
        format!("id: {}\ndata: {}\n\n", 100_000 + to, serde_json::to_string(&lines).unwrap())
    };
    happen(&site, LINES, &lines(0, 50));
    browser.wait("return document.querySelector('ol.log').textContent.includes('line 49')");
    browser.wait(at_end);
    assert_eq!(
        browser.run("return document.querySelector('ol.log li:last-child').getAttribute('value')"),
        json!("1310")
    );
    browser.run("document.querySelector('ol.log').scrollTop = 0");
    browser.wait("return !document.querySelector('.jump').hidden");
    happen(&site, LINES, &lines(50, 100));
    browser.wait("return document.querySelector('ol.log').textContent.includes('line 99')");
    assert_eq!(browser.run("return document.querySelector('ol.log').scrollTop"), json!(0));
    browser.click(".jump");
    browser.wait(at_end);
    for part in 0..6 {
        happen(&site, LINES, &lines(1000 * part, 1000 * (part + 1)));
    }
    browser
        .wait("return document.querySelector('ol.log').lastElementChild.textContent.includes('line 5999')");
    assert_eq!(browser.run("return document.querySelector('ol.log').childElementCount"), json!(5000));
}

#[test]
fn what_comes_from_a_package_does_nothing() {
    const EVIL: &str = "<img src=x onerror=\"window.hacked=1;alert(1)\"></ol></script><script>window.hacked=2;alert(2)</script>";
    let site = Site::start();
    let mut value = serde_json::to_value(made_up::running_build()).unwrap();
    value["build"]["reason"] = json!(EVIL);
    value["build"]["package"] = json!(EVIL);
    value["attempts"][1]["reason"] = json!(EVIL);
    value["excerpt"] = json!({ "log": "build.log", "lines": [EVIL] });
    let detail = given(value);
    let mut part = made_up::log_part(1);
    part.lines =
        moji_server::log_text::lines(format!("\u{1b}]0;title\u{7}{EVIL}\u{1b}[2J\u{1b}[31mred\n").as_bytes());
    site.show("/build/403", pages::build(frame(), &detail, None, Some(&part)));
    let browser = Browser::start(Look::DESK);
    browser.open(&site.url("/build/403"));
    let line = serde_json::to_string(&json!([[["\" onclick=alert(3)", EVIL], ["red", "live"]]])).unwrap();
    happen(&site, LINES, &format!("id: 1\ndata: {line}\n\n"));
    browser.wait("return document.querySelector('ol.log').textContent.includes('live')");
    happen(&site, "/events", EVENT);
    wait_until("the look", || site.asked("/build/403") > 1);
    browser.let_pass(Duration::from_millis(300));
    assert_eq!(browser.alert(), None);
    assert_eq!(browser.run("return window.hacked ?? null"), json!(null));
    assert_eq!((browser.count("img"), browser.count("script")), (0, 1));
    let seen = browser.run("return document.body.textContent");
    assert!(seen.as_str().unwrap().matches(EVIL).count() >= 5, "it is shown as what it is: {seen}");
    assert_eq!(
        browser.run("return document.querySelector('ol.log li:last-child span').className"),
        json!("")
    );
}

#[test]
fn everything_is_reached_with_the_keyboard() {
    let site = Site::start();
    made_up::show_all(&site);
    let browser = Browser::start(Look::DESK);
    browser.open(&site.url("/"));
    let focus = "const e = document.activeElement; return e.className || e.id || e.textContent";
    browser.type_keys("\u{e004}");
    assert_eq!(browser.run(focus), json!("skip"));
    let outline = "return getComputedStyle(document.activeElement).outlineStyle";
    assert_eq!(browser.run(outline), json!("solid"), "it is seen where the focus is");
    browser.type_keys("\u{e007}");
    browser.wait("return document.activeElement.id === 'main' || location.hash === '#main'");
    browser.type_keys("/");
    assert_eq!(browser.run(focus), json!("search"));
    browser.type_keys("gcc\u{e007}");
    browser.arrives(&site.url("/builds?q=gcc"));
}
