//! A page that shows one run, all in one file: a recording is passed on as easily as a picture.
//!
//! The page itself is made in `sim/viewer`, and kept as one file with two places to fill in. One is
//! its title. The other becomes the [data block](super::block), compressed and in base64, so that
//! nothing in it can be taken for a part of the page. A browser takes that apart by itself
//! (`atob`, `DecompressionStream`).
//!
//! Left out: a date, or anything else that is not about the run. The same run gives the same page.

use std::io::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use flate2::{Compression, GzBuilder};

/// The page, as it is built.
const PAGE: &str = include_str!("../../viewer/dist/viewer.html");

/// Where the title goes.
const TITLE: &str = "<!-- stormkv-title -->";

/// Where the run goes.
const RUN: &str = "<!-- stormkv-run -->";

/// How hard to compress, up to 9.
const LEVEL: u32 = 6;

/// The page of a run, given its data block.
pub fn render(block: &str, title: &str) -> String {
    let (top, rest) = PAGE.split_once(TITLE).expect("a test looks for it");
    let (middle, bottom) = rest.split_once(RUN).expect("a test looks for it");
    let title = escaped(title);
    let run = STANDARD.encode(compressed(block.as_bytes()));
    format!(
        "{top}{title}{middle}<script id=\"run\" type=\"application/gzip\">{run}</script>{bottom}"
    )
}

fn compressed(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzBuilder::new().mtime(0).write(Vec::new(), Compression::new(LEVEL));
    gzip.write_all(bytes).and_then(|()| gzip.finish()).expect("memory takes all")
}

/// A text that a reader of HTML sees as it is, wherever it stands.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use flate2::read::GzDecoder;

    use super::*;

    #[test]
    fn the_page_has_one_place_for_each() {
        assert_eq!((PAGE.matches(TITLE).count(), PAGE.matches(RUN).count()), (1, 1));
        assert!(PAGE.contains(&format!("<title>{TITLE}</title>")));
        assert!(PAGE.find(TITLE) < PAGE.find(RUN));
    }

    #[test]
    fn the_block_comes_out_of_the_page_as_it_went_in() {
        let block = r#"{"strings":["","</script><!-- stormkv-run -->","é"]}"#;
        let page = render(block, "seed 7: clean · stormkv");
        assert!(page.contains("<title>seed 7: clean · stormkv</title>"));
        let (_, rest) = page.split_once(r#"<script id="run" type="application/gzip">"#).unwrap();
        let (run, _) = rest.split_once("</script>").unwrap();
        let gzip = STANDARD.decode(run).expect("base64");
        assert_eq!(gzip[4..8], [0; 4], "no time of day");
        let mut found = String::new();
        GzDecoder::new(&gzip[..]).read_to_string(&mut found).expect("gzip");
        assert_eq!(found, block);
    }

    #[test]
    fn a_title_stays_a_title() {
        let page = render("{}", r#"</title><script>alert("1")</script>&'<!-- stormkv-run -->"#);
        let title = "&lt;/title&gt;&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;&#39;";
        assert!(page.contains(&format!("<title>{title}&lt;!-- stormkv-run --&gt;</title>")));
        assert_eq!(page.matches("<script id=").count(), 1);
    }
}
