//! The page itself: what is in `assets/`, within the program.

/// One file.
#[derive(Debug)]
pub(super) struct Asset {
    /// Where it is served.
    pub path: &'static str,
    pub content_type: &'static str,
    pub text: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const JAVASCRIPT: &str = "text/javascript; charset=utf-8";
const SVG: &str = "image/svg+xml";

const ASSETS: [Asset; 9] = [
    Asset { path: "/", content_type: HTML, text: include_str!("assets/index.html") },
    Asset { path: "/style.css", content_type: CSS, text: include_str!("assets/style.css") },
    Asset { path: "/icon.svg", content_type: SVG, text: include_str!("assets/icon.svg") },
    Asset { path: "/main.js", content_type: JAVASCRIPT, text: include_str!("assets/main.js") },
    Asset { path: "/page.js", content_type: JAVASCRIPT, text: include_str!("assets/page.js") },
    Asset { path: "/words.js", content_type: JAVASCRIPT, text: include_str!("assets/words.js") },
    Asset { path: "/flows.js", content_type: JAVASCRIPT, text: include_str!("assets/flows.js") },
    Asset { path: "/graph.js", content_type: JAVASCRIPT, text: include_str!("assets/graph.js") },
    Asset { path: "/node.js", content_type: JAVASCRIPT, text: include_str!("assets/node.js") },
];

/// The one at this path.
pub(super) fn at(path: &str) -> Option<&'static Asset> {
    ASSETS.iter().find(|asset| asset.path == path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, path::Path};

    #[test]
    fn every_file_is_served_and_all_of_them_are_small() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/web/assets");
        let files = fs::read_dir(folder).unwrap().count();
        assert_eq!(files, ASSETS.len());
        let bytes: usize = ASSETS.iter().map(|asset| asset.text.len()).sum();
        assert!(bytes < 60 << 10, "{bytes} bytes");
        assert!(at("/").is_some() && at("/index.html").is_none());
    }

    /// Names come from the cluster: they are written as text, never as a part of the page. And nothing is of elsewhere.
    #[test]
    fn names_can_be_nothing_but_text_and_no_other_host_is_asked() {
        for asset in ASSETS {
            let own = asset.text.replace("http://www.w3.org/2000/svg", "");
            for never in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "new Function",
                "://",
            ] {
                assert!(!own.contains(never), "{never} in {}", asset.path);
            }
            // The policy of the page's content refuses these, silently.
            for refused in [" style=", " onclick=", "<style", "javascript:"] {
                assert!(!own.contains(refused), "{refused} in {}", asset.path);
            }
            for import in own.split("from \"./").skip(1) {
                let (name, _) = import.split_once('"').unwrap();
                assert!(at(&format!("/{name}")).is_some(), "{name}, which {} imports", asset.path);
            }
        }
    }
}
