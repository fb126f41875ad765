//! The pages of a real farm: a server, a builder, and builds that run while somebody looks.

use std::net::TcpListener;

use moji_tests::support::processes::{Farm, tiny};

use crate::browser::{Browser, Look};

/// A farm, and where its pages are.
fn farm() -> (Farm, String) {
    // Free a moment ago.
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let http = format!("127.0.0.1:{port}");
    let farm = Farm::start(&["--http", &http]);
    (farm, format!("http://{http}"))
}

#[test]
fn the_overview_changes_while_builds_run() {
    let (mut farm, url) = farm();
    let browser = Browser::start(Look::DESK);
    browser.open(&url);
    browser
        .wait("return document.querySelector('#builders').textContent.includes('No builder is connected')");
    farm.start_client("ann", &[]);
    browser.wait("return document.querySelector('#builders').textContent.includes('ann')");
    farm.queue_gated("slow");
    farm.wait_at_gate("ann", "slow");
    browser.wait("return document.querySelector('#running').textContent.includes('slow-1-1')");
    farm.open("slow");
    farm.wait_finished(&tiny("slow"));
    browser.wait("return /slow-1-1[^]*/.test(document.querySelector('#newest').textContent)");
    browser.wait("return !document.querySelector('#running').textContent.includes('slow-1-1')");
    assert_eq!(browser.run("return performance.getEntriesByType('navigation').length"), serde_json::json!(1));
}

#[test]
fn a_live_log_follows() {
    let (mut farm, url) = farm();
    farm.start_client("ann", &[]);
    farm.queue_gated("slow");
    farm.wait_at_gate("ann", "slow");
    let browser = Browser::start(Look::DESK);
    browser.open(&format!("{url}/find?build=slow"));
    browser.wait(
        "return document.querySelector('ol.log')?.textContent.includes('waiting at the gate') ?? false",
    );
    farm.open("slow");
    browser.wait("return document.querySelector('ol.log').textContent.includes('through the gate')");
    browser.wait("return document.querySelector('#state').textContent.includes('succeeded')");
}

#[test]
fn a_log_of_escape_sequences_and_markup_is_text() {
    let (mut farm, url) = farm();
    farm.start_client("ann", &[]);
    let script = "printf '\\033[31mred\\033[0m \\033]0;title\\007<img src=x onerror=alert(1)> </script><script>alert(2)</script>\\n'\n\
                  echo '<img src=x onerror=alert(3)>: failed' >&2\nexit 3";
    for srpm in farm.tiny_srpms(&[("evil", script)]) {
        farm.queue(&srpm);
    }
    farm.wait_finished(&tiny("evil"));
    let browser = Browser::start(Look::DESK);
    for path in ["/find?build=evil", "/", "/builds?q=evil", "/package/evil"] {
        browser.open(&format!("{url}{path}"));
        browser.wait("return document.body.textContent.includes('evil-1-1')");
        assert_eq!((browser.alert(), browser.count("img"), browser.count("script")), (None, 0, 1), "{path}");
    }
    browser.open(&format!("{url}/find?build=evil"));
    let log = browser.run("return [...document.querySelectorAll('#attempts a')].find((a) => a.textContent === 'build.log').href");
    browser.open(log.as_str().unwrap());
    let text = browser.text("ol.log");
    assert!(text.contains("red <img src=x onerror=alert(1)> </script><script>alert(2)</script>"), "{text}");
    assert_eq!((browser.alert(), browser.count("img"), browser.count(".s-red") > 0), (None, 0, true));
}

/// Like what compilers say, and then it waits.
const CHATTER: &str = r#"{ set +x; } 2>/dev/null
n=0
while ! test -e GATE; do
    n=$((n + 1))
    printf '\033[32m[%3d/412]\033[0m gcc -O2 -g -Wall -flto=auto -Iinclude -c src/part_%d.c -o part_%d.o\n' $n $n $n
    if [ $((n % 9)) = 0 ]; then
        printf '\033[1;35mwarning:\033[0m unused variable '\''count'\'' [-Wunused-variable]\n'
    fi
    sleep 0.2
done"#;

#[test]
#[ignore = "scripts/screenshots"]
fn pictures_for_the_documentation() {
    let (mut farm, url) = farm();
    for name in ["lab-1", "lab-2", "attic"] {
        farm.start_client(name, &["--slots", "2"]);
    }
    let good = ["bzip2", "hello", "zlib-ng", "tree", "which"].map(|name| (name, "echo quick"));
    let bad = (
        "libfoo",
        "echo 'src/text.c:41:12: error: unknown type name string_t'; echo 'make: *** [Makefile:88: text.o] Error 1'; exit 2",
    );
    for srpm in farm.tiny_srpms(&[&good[..], &[bad]].concat()) {
        farm.queue(&srpm);
    }
    for (name, _) in good.iter().chain([&bad]) {
        farm.wait_finished(&tiny(name));
    }
    for srpm in farm.example_srpms(&["moji-orphan"], &[]) {
        farm.queue(&srpm);
    }
    let gate = farm.path("gates/open");
    let wait = CHATTER.replace("GATE", &gate.display().to_string());
    let slow =
        ["llvm", "gcc", "rust", "webkitgtk", "firefox", "qt6-qtbase", "libreoffice", "kernel", "chromium"];
    for srpm in farm.tiny_srpms(&slow.map(|name| (name, &*wait))) {
        farm.queue(&srpm);
    }
    let desk = Browser::start(Look { height: 1000, ..Look::DESK });
    desk.open(&url);
    desk.wait("return document.querySelectorAll('#running tbody tr').length >= 6");
    desk.wait("return document.querySelector('#now').textContent.includes('parked.')");
    // Builders say what they do with their heartbeats.
    desk.wait("return !document.querySelector('#running').textContent.includes('starting')");
    desk.shoot("overview");
    desk.click("#running tbody a");
    desk.wait("return document.querySelector('ol.log')?.textContent.includes('unused variable') ?? false");
    desk.shoot("build");
    let phone = Browser::start(Look::PHONE);
    phone.open(&url);
    phone.wait("return document.querySelector('#live').textContent === 'Live'");
    phone.shoot("phone");
    std::fs::write(gate, "").unwrap();
}
