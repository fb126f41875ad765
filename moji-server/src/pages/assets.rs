//! What pages load: kept in the program, and under addresses that change with the content, so that a browser may
//! keep each for ever.

use std::fmt::Write as _;
use std::sync::LazyLock;

use moji_proto::Sha256;

/// A file that pages load.
#[derive(Debug)]
pub struct Asset {
    name: &'static str,
    /// What it is.
    pub kind: &'static str,
    /// All of it.
    pub content: &'static [u8],
    path: LazyLock<String>,
}

/// How pages look.
pub static STYLE: Asset = Asset {
    name: "moji.css",
    kind: "text/css; charset=utf-8",
    content: include_bytes!("assets/moji.css"),
    path: LazyLock::new(|| path(&STYLE)),
};

/// What keeps pages up to date.
pub static SCRIPT: Asset = Asset {
    name: "moji.js",
    kind: "text/javascript; charset=utf-8",
    content: include_bytes!("assets/moji.js"),
    path: LazyLock::new(|| path(&SCRIPT)),
};

/// The picture beside a page's title.
pub static FAVICON: Asset = Asset {
    name: "favicon.svg",
    kind: "image/svg+xml",
    content: include_bytes!("assets/favicon.svg"),
    path: LazyLock::new(|| path(&FAVICON)),
};

impl Asset {
    /// Where it is served.
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// The asset that is served there.
pub fn at(path: &str) -> Option<&'static Asset> {
    [&STYLE, &SCRIPT, &FAVICON].into_iter().find(|asset| asset.path() == path)
}

fn path(asset: &Asset) -> String {
    let mut path = String::from("/static/");
    for byte in Sha256::of(asset.content).0.iter().take(8) {
        let _ = write!(path, "{byte:02x}");
    }
    path + "/" + asset.name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_asset_is_only_at_its_own_address() {
        assert_eq!(at(STYLE.path()).unwrap().name, "moji.css");
        assert_ne!(STYLE.path(), SCRIPT.path());
        assert!(STYLE.path().len() == "/static/".len() + 16 + "/moji.css".len());
        assert!(at("/static/0000000000000000/moji.css").is_none());
    }
}
