//! The page that shows what is in a folder. Pure: it gets the entries, and knows no file system.

use std::fmt::Write as _;

use jiff::Timestamp;

use super::path::encoded;

/// An entry of a folder.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Entry {
    /// `None` for a folder.
    pub(super) size: Option<u64>,
    pub(super) name: Vec<u8>,
    pub(super) modified: Timestamp,
}

/// The page of a folder; `above`: whether there is one above it that may be seen; `left_out`: entries
/// that would have been too many.
pub(super) fn page(title: &str, above: bool, entries: &[Entry], left_out: usize) -> String {
    let title = escaped(title);
    let mut page = format!(
        "<!DOCTYPE html>\n<html><head><meta charset=\"utf-8\"><title>{title}</title>\
         <style>td{{padding:0 1em 0 0;font-family:monospace}}</style></head>\n<body><h1>{title}</h1>\n<table>\n"
    );
    if above {
        page.push_str("<tr><td><a href=\"../\">../</a></td></tr>\n");
    }
    for entry in entries {
        let slash = if entry.size.is_none() { "/" } else { "" };
        let (href, name) = (encoded(&entry.name), escaped(&String::from_utf8_lossy(&entry.name)));
        let time = entry.modified.strftime("%Y-%m-%d %H:%M:%S");
        let size = entry.size.map(|size| size.to_string()).unwrap_or_default();
        // A colon in the first part of a relative URL would make it another kind of URL: it is encoded.
        let _ = writeln!(
            page,
            "<tr><td><a href=\"{href}{slash}\">{name}{slash}</a></td><td>{time}</td><td>{size}</td></tr>"
        );
    }
    page.push_str("</table>\n");
    if left_out > 0 {
        let _ = writeln!(page, "<p>and {left_out} more</p>");
    }
    page.push_str("</body></html>\n");
    page
}

fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            c if c.is_control() => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_text_and_nothing_else() {
        let entry = |name: &str, size| Entry { size, name: name.into(), modified: Timestamp::UNIX_EPOCH };
        let entries = [entry("foo-1-1", None), entry("<script>'x:\"&\n.rpm", Some(17))];
        let page = page("/repo/<b>/", true, &entries, 3);
        assert!(
            page.contains("<a href=\"foo-1-1/\">foo-1-1/</a></td><td>1970-01-01 00:00:00</td>"),
            "{page}"
        );
        let odd =
            "<a href=\"%3Cscript%3E%27x%3A%22%26%0A.rpm\">&lt;script&gt;&#39;x:&quot;&amp;\u{fffd}.rpm</a>";
        assert!(page.contains(odd) && page.contains("<td>17</td>"), "{page}");
        assert!(page.contains("<title>/repo/&lt;b&gt;/</title>") && page.contains("and 3 more"), "{page}");
        assert!(page.contains("href=\"../\"") && !page.contains("<script>"));
    }
}
