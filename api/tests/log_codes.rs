//! Every warning and error has a code of its own, and the page of codes says what it means.
#![allow(missing_docs)]

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

/// Codes and the first words of their lines.
fn said() -> BTreeMap<String, BTreeSet<String>> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut said: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in ["dataplane/src", "control-agent/src"].iter().flat_map(|folder| sources(&root.join(folder))) {
        let text = fs::read_to_string(&file).unwrap();
        for call in ["tracing::warn!(", "tracing::error!("].iter().flat_map(|call| text.split(call).skip(1)) {
            let end = call.find(");").unwrap_or(call.len());
            let sentence = call[..end].split('"').skip(1).step_by(2).find(|text| is_coded(text));
            let Some(sentence) = sentence else { panic!("{}: no code in {}", file.display(), &call[..end]) };
            let (code, words) = sentence.split_at(4);
            let words = words.split_whitespace().take(6).collect::<Vec<_>>().join(" ");
            said.entry(code.to_owned()).or_default().insert(words);
        }
    }
    said
}

fn is_coded(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() > 5
        && b"WEA".contains(&bytes[0])
        && bytes[1..4].iter().all(u8::is_ascii_digit)
        && bytes[4] == b' '
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files = vec![];
    for path in entries {
        match path.is_dir() {
            true => files.extend(sources(&path)),
            false if path.extension().is_some_and(|extension| extension == "rs") => files.push(path),
            false => {}
        }
    }
    files
}

#[test]
fn each_code_says_one_thing_and_is_documented() {
    let said = said();
    assert!(said.len() > 15, "only {} codes found: is the test looking in the right place?", said.len());
    for (code, sentences) in &said {
        assert_eq!(sentences.len(), 1, "{code} says several things: {sentences:?}");
    }
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/log-codes.md");
    let page = fs::read_to_string(page).unwrap();
    let documented = page.lines().filter_map(|line| line.strip_prefix("| ")?.get(..4).map(str::to_owned));
    let documented: Vec<String> = documented.filter(|code| is_coded(&format!("{code} .."))).collect();
    assert_eq!(documented.len(), documented.iter().collect::<BTreeSet<_>>().len(), "a code is there twice");
    assert_eq!(
        documented.into_iter().collect::<BTreeSet<_>>(),
        said.keys().cloned().collect(),
        "docs/log-codes.md"
    );
}
