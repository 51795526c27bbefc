//! The rooms of the crate, in their order: each may import only those above it.
#![allow(missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};

/// As `src/rooms.md` lists them.
const ROOMS: &[&str] = &[
    "net",
    "wire",
    "packet",
    "graph",
    "fib",
    "service",
    "policy",
    "conntrack",
    "wireguard",
    "snapshot",
    "nodes",
    "io",
    "worker",
    "control",
    "simulation",
];

#[test]
fn no_arrow_points_back() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = vec![];
    for (rank, room) in ROOMS.iter().enumerate() {
        let files = files(&src.join(room)).into_iter().chain([src.join(room).with_extension("rs")]);
        let texts: Vec<_> = files.filter_map(|file| Some((fs::read_to_string(&file).ok()?, file))).collect();
        assert!(!texts.is_empty(), "room {room} is gone: the list above is wrong");
        for (text, file) in texts {
            wrong.extend(backward(&text, rank).iter().map(|wrong| format!("{}:{wrong}", file.display())));
        }
    }
    assert!(wrong.is_empty(), "a room may import only rooms above it:\n{}", wrong.join("\n"));
}

#[test]
fn no_room_is_forgotten() {
    let lib = include_str!("../src/lib.rs");
    let mut declared: Vec<&str> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let mut listed = ROOMS.to_vec();
    declared.sort_unstable();
    listed.sort_unstable();
    assert_eq!(declared, listed);
    let table: Vec<&str> = include_str!("../src/rooms.md")
        .lines()
        .filter_map(|l| l.strip_prefix("| [`")?.split('`').next())
        .collect();
    assert_eq!(table, ROOMS, "the table tells another order");
}

#[test]
fn what_points_back_is_found() {
    let fib = ROOMS.iter().position(|room| *room == "fib").unwrap();
    for wrong in [
        "use crate::policy::Rule;",
        "fn f() { crate::worker::run() }",
        "use crate::{net::Addr, wire::{arp, nd}, nodes::World};",
        "use crate::{\n    net,\n    control,\n};",
        "use super::super::io::Device;",
    ] {
        assert_eq!(backward(wrong, fib).len(), 1, "{wrong}");
    }
    for right in [
        "use crate::net::Addr;",
        "use crate::{net::{Addr, Mac}, fib::Hop};",
        "// crate::policy",
        "use crate::arcs;",
        "use super::Fib;",
    ] {
        assert!(backward(right, fib).is_empty(), "{right}");
    }
    let second_line = "\nuse crate::io::Device;";
    assert_eq!(backward(second_line, fib), ["2: fib imports io"]);
}

/// Paths from room number `rank` to one that is not above it, as `line: from imports to`.
fn backward(text: &str, rank: usize) -> Vec<String> {
    let text: Vec<&str> = text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect();
    let text = text.join("\n");
    let mut found = vec![];
    for root in ["crate::", "super::super::"] {
        for (at, _) in text.match_indices(root) {
            let line = text[..at].matches('\n').count() + 1;
            for room in first_names(&text[at + root.len()..]) {
                if ROOMS[rank + 1..].contains(&room) {
                    found.push(format!("{line}: {} imports {room}", ROOMS[rank]));
                }
            }
        }
    }
    found
}

/// The first name of a path, or of each path in a group.
fn first_names(path: &str) -> Vec<&str> {
    let name = |s: &'_ str| s.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(s.len());
    let Some(group) = path.strip_prefix('{') else { return vec![&path[..name(path)]] };
    let (mut depth, mut names, mut start) = (0, vec![], 0);
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            ',' | '}' if depth == 0 => {
                let one = group[start..at].trim_start();
                names.push(&one[..name(one)]);
                start = at + 1;
                if c == '}' {
                    break;
                }
            }
            '}' => depth -= 1,
            _ => {}
        }
    }
    names
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
