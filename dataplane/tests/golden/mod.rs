//! Texts that a test's output is compared with. `UPDATE=1` writes them anew.
#![allow(missing_docs)]

use std::path::Path;

pub fn compare(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, text).expect("the golden file can be written");
        return;
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    for (number, pair) in lines(&golden).zip(lines(text)).enumerate() {
        let (expected, got) = pair;
        assert_eq!(got, expected, "{name}:{}: if this is right, run the test with UPDATE=1", number + 1);
        if expected.is_none() {
            return;
        }
    }
}

/// The lines, and what follows the last.
fn lines(text: &str) -> impl Iterator<Item = Option<&str>> {
    text.lines().map(Some).chain(std::iter::repeat(None))
}
