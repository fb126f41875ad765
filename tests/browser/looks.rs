//! How pages look: on a phone, in the dark, without scripts.

use std::fmt::Write as _;

use crate::browser::{Browser, Look};
use crate::made_up;
use crate::site::Site;

/// What sticks out on the right, if the page can be scrolled sideways.
const WIDE: &str = r#"
    const width = document.documentElement.clientWidth;
    if (document.documentElement.scrollWidth <= width) return [];
    return [...document.querySelectorAll('body *')].filter((e) => e.getBoundingClientRect().right > width + 1)
        .map((e) => `${e.nodeName}.${e.className} ${e.textContent.slice(0, 40)}`).slice(0, 5).concat('scrolls sideways');
"#;

/// Texts whose contrast with what is behind them is less than 4.5 : 1.
const PALE: &str = r#"
    const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
    const colour = (text, under) => {
        canvas.fillStyle = `rgb(${under.join(' ')})`; canvas.fillRect(0, 0, 1, 1);
        canvas.fillStyle = text; canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const behind = (e) => {
        const layers = [];
        for (; e; e = e.parentElement) layers.unshift(getComputedStyle(e).backgroundColor);
        return layers.reduce((under, layer) => colour(layer, under), [255, 255, 255]);
    };
    const light = (c) => {
        const [r, g, b] = c.map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const found = new Map();
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const e = walker.currentNode.parentElement;
        if (!walker.currentNode.data.trim() || e.closest('svg.chart, title, script') || !e.checkVisibility()) continue;
        const under = behind(e);
        const [a, b] = [light(colour(getComputedStyle(e).color, under)), light(under)].sort((x, y) => y - x);
        const ratio = (a + 0.05) / (b + 0.05);
        if (ratio < 4.5) found.set(`${e.nodeName}.${e.className}: ${ratio.toFixed(2)} ${walker.currentNode.data.trim().slice(0, 30)}`, 1);
    }
    return [...found.keys()].slice(0, 8);
"#;

fn complaints(browser: &Browser, path: &str, script: &str, into: &mut String) {
    let found = browser.run(script);
    for one in found.as_array().unwrap() {
        let _ = writeln!(into, "{path}: {one}");
    }
}

fn look_at_all(look: Look, name: &str) -> String {
    let site = Site::start();
    let paths = made_up::show_all(&site);
    let browser = Browser::start(look);
    let mut complained = String::new();
    for path in paths {
        browser.open(&site.url(path));
        complaints(&browser, path, WIDE, &mut complained);
        complaints(&browser, path, PALE, &mut complained);
        let file = path.trim_matches('/').replace('/', "-");
        browser.shoot(&format!("{}-{name}", if file.is_empty() { "overview" } else { &file }));
    }
    complained
}

#[test]
fn every_page_fits_and_can_be_read_in_the_light() {
    assert_eq!(look_at_all(Look { height: 1400, ..Look::DESK }, "light"), "");
}

#[test]
fn every_page_fits_and_can_be_read_in_the_dark() {
    assert_eq!(look_at_all(Look { height: 1400, ..Look::DARK }, "dark"), "");
}

#[test]
fn every_page_fits_a_phone() {
    assert_eq!(look_at_all(Look { height: 2200, ..Look::PHONE }, "phone"), "");
}

#[test]
fn pages_are_complete_without_scripts() {
    let site = Site::start();
    made_up::show_all(&site);
    let browser = Browser::start(Look { has_scripts: false, ..Look::DESK });
    browser.open(&site.url("/"));
    let text = browser.text("body");
    for told in
        ["4 builds run, 249 wait", "gcc-15.2.1-3.fc43", "lab/ampere", "%check: t/local", "Last 24 hours"]
    {
        assert!(text.contains(told), "{told}: {text}");
    }
    browser.open(&site.url("/build/403"));
    assert!(browser.text("ol.log").contains("part_60"), "the end of the log");
    browser.click("#search");
    browser.type_keys("zlib\u{e007}");
    browser.arrives(&site.url("/builds?q=zlib"));
    assert_eq!(site.asked("/events"), 0, "scripts are off, or this shows nothing");
}
