//! A room imports only rooms before it.

use std::{fs, path::Path};

const ORDER: [&str; 17] = [
    "backoff",
    "health",
    "task",
    "model",
    "datastore",
    "relay",
    "ipam",
    "calc",
    "sync",
    "flows",
    "cni",
    "routing",
    "health_checks",
    "key_publication",
    "access",
    "control",
    "web",
];

#[test]
fn no_arrow_points_back() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut arrows = 0;
    for (at, room) in ORDER.iter().enumerate() {
        for file in files(&src, room) {
            let text = fs::read_to_string(&file).unwrap();
            for import in text.split("crate::").skip(1).flat_map(names) {
                let Some(to) = ORDER.iter().position(|known| *known == import) else { continue };
                assert!(to <= at, "{}: {room} may not import {import}", file.display());
                arrows += usize::from(to != at);
            }
        }
    }
    assert!(arrows > 10, "only {arrows} imports found: is the test looking in the right place?");
}

/// The rooms at the head of one import: `a::b`, or `{a::b, c::{d, e}}` with braces.
fn names(import: &str) -> Vec<String> {
    let name = |text: &str| text.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    let Some(group) = import.strip_prefix('{') else { return vec![name(import)] };
    let mut depth = 1;
    let top: String = group
        .chars()
        .take_while(|c| {
            depth += i32::from(*c == '{') - i32::from(*c == '}');
            depth > 0
        })
        .collect();
    let mut depth = 0;
    let parts = top.split(|c| {
        depth += i32::from(c == '{') - i32::from(c == '}');
        c == ',' && depth == 0
    });
    parts.map(name).collect()
}

fn files(src: &Path, room: &str) -> Vec<std::path::PathBuf> {
    let single = src.join(format!("{room}.rs"));
    if single.exists() {
        return vec![single];
    }
    let mut files = Vec::new();
    let mut folders = vec![src.join(room)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "rs") {
                files.push(entry);
            }
        }
    }
    files
}
