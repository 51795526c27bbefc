//! The page: what is answered to whom, and what a browser makes of it.
#![allow(missing_docs)]

mod browser;
mod node;
#[path = "../rig/mod.rs"]
mod rig;
mod seen;

use margay_agent::web::{Entrance, serve};
use node::{Shown, record};
use rig::Counts;
use serde_json::Value;
use std::{io, net::SocketAddr};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpStream,
};

/// A connection that is used again and again.
struct Connection(BufReader<TcpStream>);

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Connection {
    async fn to(at: SocketAddr) -> Self {
        Self(BufReader::new(TcpStream::connect(at).await.unwrap()))
    }

    async fn ask(&mut self, method: &str, path: &str, host: &str) -> Answer {
        let request = format!("{method} {path} HTTP/1.1\r\nHost: {host}\r\n\r\n");
        self.0.get_mut().write_all(request.as_bytes()).await.unwrap();
        self.answer(method).await
    }

    async fn answer(&mut self, method: &str) -> Answer {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            assert_ne!(self.0.read_line(&mut head).await.unwrap(), 0, "cut off: {head}");
        }
        let head = head.to_lowercase();
        let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
        let length: usize = length.map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; if method == "HEAD" { 0 } else { length }];
        self.0.read_exact(&mut body).await.unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Answer { status, head, body: String::from_utf8(body).unwrap() }
    }

    async fn get(&mut self, path: &str) -> Answer {
        self.ask("GET", path, "localhost").await
    }

    async fn json(&mut self, path: &str) -> Value {
        let answer = self.get(path).await;
        assert_eq!(answer.status, 200, "{path}: {}", answer.body);
        assert!(answer.head.contains("content-type: application/json"), "{}", answer.head);
        serde_json::from_str(&answer.body).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_guarded_and_nothing_but_reading_is_answered() {
    let shown = Shown::start(Counts::default()).await;
    let mut connection = Connection::to(shown.at).await;
    for (method, path, host, status) in [
        ("GET", "/", "localhost", 200),
        ("GET", "/?verdict=deny", "127.0.0.1:9094", 200),
        ("HEAD", "/", "[::1]:9094", 200),
        ("GET", "/style.css", "localhost", 200),
        ("GET", "/main.js", "localhost", 200),
        ("GET", "/api/status", "localhost", 200),
        ("POST", "/api/status", "localhost", 405),
        ("DELETE", "/", "localhost", 405),
        ("GET", "/", "rebound.example", 403),
        ("GET", "/api/flows", "rebound.example:9094", 403),
        ("GET", "/api/secrets", "localhost", 404),
        ("GET", "/../main.js", "localhost", 404),
        ("GET", "/api/status?x=1", "localhost", 400),
    ] {
        let answer = connection.ask(method, path, host).await;
        assert_eq!(answer.status, status, "{method} {path} of {host}: {}", answer.body);
        for header in [
            "content-security-policy: default-src 'self';",
            "x-content-type-options: nosniff",
            "x-frame-options: deny",
            "referrer-policy: no-referrer",
            "cross-origin-resource-policy: same-origin",
            "cache-control: no-",
        ] {
            assert!(answer.head.contains(header), "{header} in {}", answer.head);
        }
        assert!(!answer.head.contains("access-control"), "no other page may read it: {}", answer.head);
        assert_eq!(answer.head.contains("allow: get, head"), status == 405);
    }
    let page = connection.get("/").await;
    assert!(page.head.contains("content-type: text/html; charset=utf-8"));
    assert!(page.body.contains("<script type=\"module\" src=\"main.js\">"));

    // A head that is too long is refused, and the connection closed.
    let mut long = Connection::to(shown.at).await;
    let answer = long.get(&format!("/?{}", "x".repeat(20_000))).await;
    assert!([414, 431].contains(&answer.status), "{}", answer.status);
}

#[tokio::test(flavor = "multi_thread")]
async fn flows_come_once_and_filtered_and_in_bounded_numbers() {
    let shown = Shown::start(Counts::default()).await;
    let mut connection = Connection::to(shown.at).await;
    shown.fake.tell_flows(vec![record(1, "allow"), record(2, "deny")], 3).await;
    let first = shown.flows(&mut connection, "", 2).await;
    let cursor = first["cursor"].as_str().unwrap().to_owned();
    assert_eq!((first["anew"].as_bool(), first["lost"].as_u64()), (Some(true), Some(3)));
    assert_eq!(first["flows"][0]["source"]["name"], "web");
    assert_eq!(first["flows"][1]["reason"], "policy-denied");

    // What is known is not told again.
    let again = connection.json(&format!("/api/flows?cursor={cursor}")).await;
    assert_eq!((again["flows"].as_array().unwrap().len(), again["anew"].as_bool()), (0, Some(false)));
    shown.fake.tell_flows(vec![record(3, "allow")], 3).await;
    let more = shown.flows(&mut connection, &format!("cursor={cursor}"), 1).await;
    assert_eq!(more["flows"][0]["original"]["sourcePort"], 3);
    // Of another process, or of nobody: all anew.
    for strange in ["1-1", "x", "-", "1-18446744073709551616"] {
        let answer = connection.json(&format!("/api/flows?cursor={strange}")).await;
        assert_eq!((answer["flows"].as_array().unwrap().len(), answer["anew"].as_bool()), (3, Some(true)));
    }

    for (terms, count) in [
        ("verdict=deny", 1),
        ("from=shop%2F", 3),
        ("to=203.0.113.5", 2),
        ("reason=policy-denied", 1),
        ("protocol=tcp", 3),
        ("protocol=17", 0),
        ("port=1", 0),
        ("policy=web", 1),
        ("from=&verdict=", 3),
    ] {
        let answer = connection.json(&format!("/api/flows?{terms}")).await;
        assert_eq!(answer["flows"].as_array().unwrap().len(), count, "{terms}");
    }
    for (terms, why) in [
        ("verdict=perhaps", "verdict: \"perhaps\""),
        ("protocol=x", "protocol: \"x\" is not a protocol"),
        ("port=web", "port: \"web\" is none: write a number from 1 to 65535"),
        ("colour=red", "colour: there is no such term"),
    ] {
        let answer = connection.get(&format!("/api/flows?{terms}")).await;
        assert!(answer.status == 400 && answer.body.contains(why), "{}: {}", answer.status, answer.body);
    }

    shown.fake.tell_flows((0..600).map(|port| record(1000 + port, "allow")).collect(), 3).await;
    let many = shown.flows(&mut connection, "", 500).await;
    assert_eq!((many["leftOut"].as_u64(), many["missed"].as_u64()), (Some(103), Some(0)));
    // The record has room for 16,384: the first is kept no more.
    for _ in 0..17 {
        shown.fake.tell_flows((0..1000).map(|port| record(port, "allow")).collect(), 3).await;
    }
    let late = loop {
        let answer = connection.json(&format!("/api/flows?cursor={cursor}")).await;
        if answer["cursor"].as_str().unwrap().ends_with("-17603") {
            break answer;
        }
    };
    assert_eq!(late["missed"], 17_603 - 2 - 16_384);
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_of_the_node_are_told_and_their_absence_is_said() {
    let shown = Shown::start(node::counts()).await;
    let mut connection = Connection::to(shown.at).await;
    shown.fake.tell_flows(vec![record(1, "allow"), record(2, "deny"), record(3, "deny")], 0).await;
    shown.flows(&mut connection, "", 3).await;

    let status = connection.json("/api/status").await;
    assert_eq!((&status["node"], &status["dataplane"]["rx"]), (&"a".into(), &1_000_000.into()));
    assert!(status["components"].as_array().unwrap().iter().any(|of| of["name"] == "store"));
    let runtime = connection.json("/api/runtime").await;
    assert_eq!(runtime["workers"][1]["nodes"][0]["name"], "parse");
    let drops = connection.json("/api/drops").await;
    assert_eq!(drops["drops"][0]["reason"], "policy-denied");
    assert_eq!(drops["drops"][0]["rules"][0]["policy"], "shop/db");

    let summary = connection.json("/api/summary?seconds=300").await;
    let groups = summary["groups"].as_array().unwrap();
    assert_eq!(groups.len(), 2, "{summary}");
    assert_eq!((&groups[0]["source"], &groups[0]["destination"]), (&"shop/web".into(), &"partners".into()));
    assert_eq!((&groups[1]["verdict"], &groups[1]["refused"]), (&"deny".into(), &4.into()));
    let policies = connection.json("/api/summary?by=policy&verdict=deny").await;
    assert_eq!(policies["groups"].as_array().unwrap().len(), 1);
    for wrong in ["by=colour", "seconds=5", "seconds=4000", "limit=3"] {
        assert_eq!(connection.get(&format!("/api/summary?{wrong}")).await.status, 400, "{wrong}");
    }

    shown.fake.kill().await;
    let gone = connection.get("/api/runtime").await;
    assert!(gone.status == 503 && gone.body.starts_with("the dataplane does not answer"), "{}", gone.body);
    assert_eq!(connection.json("/api/status").await["dataplane"], Value::Null);
    assert_eq!(
        connection.json("/api/summary").await["groups"].as_array().unwrap().len(),
        2,
        "it is known here"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_when_all_places_are_taken_waits() {
    let shown = Shown::start(Counts::default()).await;
    let mut connections = Vec::new();
    for _ in 0..32 {
        let mut connection = Connection::to(shown.at).await;
        connection.get("/icon.svg").await;
        connections.push(connection);
    }
    let mut late = Connection::to(shown.at).await;
    late.0.get_mut().write_all(b"GET /icon.svg HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    for connection in &mut connections {
        connection.get("/icon.svg").await;
    }
    let waits = late.0.get_ref().try_read(&mut [0]).unwrap_err();
    assert_eq!(waits.kind(), io::ErrorKind::WouldBlock);
    drop(connections.pop());
    assert_eq!(late.answer("GET").await.status, 200);
}

#[tokio::test]
async fn an_address_that_others_reach_is_refused_without_certificates() {
    let open = Entrance::open("0.0.0.0:0".parse().unwrap(), None).await.err().unwrap().to_string();
    assert!(open.contains("not an address of loopback") && open.contains("--tls-client-ca"), "{open}");
    for loopback in ["127.0.0.1:0", "[::ffff:127.0.0.1]:0"] {
        assert!(Entrance::open(loopback.parse().unwrap(), None).await.is_ok(), "{loopback}");
    }
}

/// The page is served for as long as this is awaited.
async fn served(agent: std::sync::Arc<margay_agent::control::Agent>, entrance: Entrance) {
    serve(agent, entrance).await;
}
