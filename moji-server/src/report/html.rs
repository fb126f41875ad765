//! The report as one page: no script, nothing loaded, readable on a phone and in the dark, also when it is
//! opened as a file.
//!
//! What is not a literal of this module goes through [`Page::text`], which escapes it: the type sees to
//! that.

use std::fmt::Display;

use moji_proto::Sha256;

use super::words::{self, duration, plain};
use super::{Built, Failed, Missing, Report, SHOWN_MAX, TargetReport};

/// Its digest stands in the page's policy: no other style is obeyed.
const STYLE: &str = "\
:root{color-scheme:light dark;--line:#8886;--bad:#b3261e;--soft:#8881}\
@media(prefers-color-scheme:dark){:root{--bad:#f2b8b5}}\
body{font:1rem/1.5 system-ui,sans-serif;margin:0 auto;padding:1rem;max-width:70rem}\
h1,h2,h3{line-height:1.2}h2{margin-top:2.5rem;border-bottom:1px solid var(--line)}\
.wide{overflow-x:auto}\
table{border-collapse:collapse;width:100%}\
th,td{text-align:left;vertical-align:top;padding:.3rem .6rem;border-bottom:1px solid var(--line)}\
td{overflow-wrap:anywhere}th{white-space:nowrap}th[scope=row]{white-space:normal;overflow-wrap:anywhere}\
caption{text-align:left;padding:.3rem 0}\
pre{margin:.4rem 0;padding:.4rem;background:var(--soft);white-space:pre-wrap;overflow-wrap:anywhere}\
mark{background:none;color:var(--bad);font-weight:bold}\
";

/// As one page.
pub fn html(report: &Report) -> String {
    let mut page = Page(String::new());
    page.raw("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    page.raw("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'sha256-");
    page.text(base64(&Sha256::of(STYLE.as_bytes()).0));
    page.raw("'; base-uri 'none'; form-action 'none'\">\n");
    page.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    page.raw("<meta name=\"color-scheme\" content=\"light dark\">\n<title>");
    page.text(format_args!("{}: {}", words::standing(report.standing), words::outcomes(report)));
    page.raw("</title>\n<style>").raw(STYLE).raw("</style>\n</head>\n<body>\n<main>\n<h1>");
    page.text(words::standing(report.standing)).raw("</h1>\n<p>");
    page.text(words::moment(report.written_at)).raw("</p>\n<p><strong>");
    page.text(words::outcomes(report)).raw(".</strong></p>\n<p>");
    page.text(words::effort(report)).raw(".</p>\n");
    if report.targets.len() > 1 {
        page.raw("<nav aria-label=\"Targets\">\n<ul>\n");
        for (at, target) in report.targets.iter().enumerate() {
            page.raw("<li><a href=\"#target-").text(at).raw("\">");
            page.text(words::name(target)).raw("</a></li>\n");
        }
        page.raw("</ul>\n</nav>\n");
    }
    for (at, one) in report.targets.iter().enumerate() {
        target(&mut page, at, one);
    }
    page.raw("</main>\n</body>\n</html>\n");
    page.0
}

fn target(page: &mut Page, at: usize, target: &TargetReport) {
    page.raw("<section aria-labelledby=\"target-").text(at).raw("\">\n<h2 id=\"target-").text(at).raw("\">");
    page.text(words::name(target)).raw("</h2>\n");
    if let Some(span) = words::span(target) {
        page.raw("<p>").text(span).raw(".</p>\n");
    }
    let counts = target.counts;
    failures(page, "Failed", &target.failed, counts.failed);
    failures(page, "Held, until a person moves it back to SOURCE", &target.held, counts.held);
    if page.table("Parked", counts.parked, &["SRPM", "Attempts", "Misses"]) {
        for parked in target.parked.iter().take(SHOWN_MAX) {
            page.row(&parked.srpm).text(parked.attempts).raw("</td><td>");
            needs(page, &parked.missing);
            page.raw("</td></tr>\n");
        }
        page.end_of_table(counts.parked);
    }
    cycles(page, target);
    if page.table("Waiting", counts.waiting, &["SRPM", "For"]) {
        for waiting in target.waiting.iter().take(SHOWN_MAX) {
            page.row(&waiting.srpm);
            match waiting.needs.is_empty() {
                true => _ = page.text(words::NO_BUILDER),
                false => needs(page, &waiting.needs),
            }
            page.raw("</td></tr>\n");
        }
        page.end_of_table(counts.waiting);
    }
    if page.table("Built", counts.built, &["SRPM", "Took", "Attempts", "Builder"]) {
        for Built { srpm, attempts, seconds, builder } in target.built.iter().take(SHOWN_MAX) {
            page.row(srpm).text(seconds.map(duration).unwrap_or_default()).raw("</td><td>");
            page.text(attempts).raw("</td><td>");
            page.text(builder.as_ref().map(ToString::to_string).unwrap_or_default()).raw("</td></tr>\n");
        }
        page.end_of_table(counts.built);
    }
    page.raw("</section>\n");
}

fn failures(page: &mut Page, title: &'static str, failed: &[Failed], all: u64) {
    if all == 0 {
        return;
    }
    page.raw("<h3>").raw(title).raw(": ").text(all).raw("</h3>\n");
    let shown = failed.get(..SHOWN_MAX.min(failed.len())).unwrap_or_default();
    for (kind, failures) in words::by_kind(shown) {
        let caption = format!("{kind}: {}", failures.len());
        page.begin_table(&caption, &["SRPM", "Why"]);
        for failed in failures {
            page.row(&failed.srpm).text(plain(&failed.reason)).raw("<br>\n<small>");
            page.text(words::tried(failed));
            if let Some(logs) = &failed.logs {
                page.raw("; <a href=\"").text(relative(logs)).raw("/build.log\">build.log</a>, <a href=\"");
                page.text(relative(logs)).raw("/\">all files</a>");
            }
            page.raw("</small>");
            excerpt(page, failed);
            page.raw("</td></tr>\n");
        }
        page.raw("</tbody></table></div>\n");
    }
    page.rest(all);
}

fn excerpt(page: &mut Page, failed: &Failed) {
    let Some(excerpt) = &failed.excerpt else { return };
    page.raw("\n<pre>");
    for (at, line) in excerpt.lines.iter().enumerate() {
        let (begin, end) = if at == excerpt.telling { ("<mark>", "</mark>\n") } else { ("", "\n") };
        page.raw(begin).text(plain(line)).raw(end);
    }
    page.raw("</pre>");
}

fn cycles(page: &mut Page, target: &TargetReport) {
    if target.counts.cycles == 0 {
        return;
    }
    page.raw("<h3>Dependency cycles: ").text(target.counts.cycles).raw("</h3>\n<ul>\n");
    for cycle in target.cycles.iter().take(SHOWN_MAX) {
        page.raw("<li>").text(words::round(cycle)).raw("\n<ul>\n");
        for (package, requirement, of) in words::edges(cycle) {
            page.raw("<li>").text(package).raw(" needs <code>").text(requirement).raw("</code> of ");
            page.text(of).raw("</li>\n");
        }
        page.raw("</ul></li>\n");
    }
    page.raw("</ul>\n").rest(target.counts.cycles);
}

fn needs(page: &mut Page, missing: &[Missing]) {
    page.raw("<ul>");
    for missing in missing {
        page.raw("<li><code>").text(plain(&missing.requirement)).raw("</code>: ");
        page.text(words::who(missing)).raw("</li>");
    }
    page.raw("</ul>");
}

struct Page(String);

impl Page {
    /// A literal: nothing else lives that long.
    fn raw(&mut self, html: &'static str) -> &mut Self {
        self.0.push_str(html);
        self
    }

    /// Anything, as text or as the value of an attribute.
    fn text(&mut self, text: impl Display) -> &mut Self {
        for c in text.to_string().chars() {
            match c {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                c => self.0.push(c),
            }
        }
        self
    }

    /// A heading and a table, unless there is nothing to put into it.
    fn table(&mut self, title: &'static str, all: u64, columns: &[&'static str]) -> bool {
        if all > 0 {
            self.raw("<h3>").raw(title).raw(": ").text(all).raw("</h3>\n");
            self.begin_table(title, columns);
        }
        all > 0
    }

    /// One that can be moved sideways by itself where it does not fit, with the keyboard too.
    fn begin_table(&mut self, caption: &str, columns: &[&'static str]) {
        self.raw("<div class=\"wide\" role=\"region\" tabindex=\"0\" aria-label=\"").text(caption);
        self.raw("\"><table><caption>").text(caption).raw("</caption>\n<thead><tr>");
        for column in columns {
            self.raw("<th scope=\"col\">").raw(column).raw("</th>");
        }
        self.raw("</tr></thead>\n<tbody>\n");
    }

    fn row(&mut self, heading: impl Display) -> &mut Self {
        self.raw("<tr><th scope=\"row\">").text(heading).raw("</th><td>")
    }

    fn end_of_table(&mut self, all: u64) {
        self.raw("</tbody></table></div>\n").rest(all);
    }

    /// How many entries of a list there is no room for.
    fn rest(&mut self, all: u64) {
        let rest = all.saturating_sub(SHOWN_MAX as u64);
        if rest > 0 {
            self.raw("<p>and ").text(rest);
            self.raw(" more; <a href=\"report.json\">report.json</a> has them</p>\n");
        }
    }
}

/// A path below REPO as a relative link: never a scheme, whatever it is named.
fn relative(path: &str) -> String {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~' | b'+' | b'/');
    let mut link = "./".to_owned();
    for b in path.trim_start_matches('/').bytes() {
        match is_plain(b) {
            true => link.push(char::from(b)),
            false => link.push_str(&format!("%{b:02X}")),
        }
    }
    link
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for three in bytes.chunks(3) {
        let bits = (0..3).fold(0_usize, |bits, at| bits << 8 | three.get(at).copied().map_or(0, usize::from));
        for at in 0..4 {
            let digit = DIGITS.get(bits >> (18 - 6 * at) & 63).copied().map_or('=', char::from);
            text.push(if at <= three.len() { digit } else { '=' });
        }
    }
    text
}
