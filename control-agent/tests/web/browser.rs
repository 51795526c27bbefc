//! Headless Chromium, by the DevTools protocol over a pipe: JSON, with a zero behind each message.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde_json::{Value, json};
use std::{
    fs::{File, OpenOptions},
    io::{BufRead as _, BufReader, Write as _},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

/// What a test waits for comes in this time, or never.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Browser {
    process: Child,
    commands: File,
    messages: Receiver<Value>,
    asked: u64,
    session: String,
    /// How many pages have been loaded.
    loaded: u32,
    /// What went wrong in the page: exceptions, errors in its console, contents that its policy refused.
    pub complaints: Vec<String>,
    _folder: tempfile::TempDir,
}

impl Browser {
    /// `None`, loudly: there is none on this machine.
    pub fn start() -> Option<Self> {
        let names = ["chromium-headless-shell", "chromium"];
        let there = |name: &&str| {
            let ran =
                Command::new(name).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
            ran.is_ok_and(|status| status.success())
        };
        let Some(name) = names.into_iter().find(there) else {
            eprintln!("SKIPPED: there is no browser: apt install chromium-headless-shell");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let [commands, messages] = ["commands", "messages"].map(|name| folder.path().join(name));
        assert!(Command::new("mkfifo").args([&commands, &messages]).status().unwrap().success());
        // It reads from its file 3, and writes to 4.
        let process = Command::new("sh")
            .args(["-c", "exec \"$0\" \"$@\" 3<\"$COMMANDS\" 4>\"$MESSAGES\"", name])
            .args(["--headless=new", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu"])
            .args(["--no-first-run", "--disable-background-networking", "--disable-dev-shm-usage"])
            .arg("--hide-scrollbars")
            .arg(format!("--user-data-dir={}", folder.path().join("profile").display()))
            .env("COMMANDS", &commands)
            .env("MESSAGES", &messages)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        // Each waits for the other side, which opens them in this order.
        let commands = OpenOptions::new().write(true).open(commands).unwrap();
        let mut reader = BufReader::new(File::open(messages).unwrap());
        let (sender, messages) = channel();
        thread::spawn(move || {
            let mut message = Vec::new();
            while reader.read_until(0, &mut message).is_ok_and(|length| length > 0) {
                message.pop();
                let Ok(value) = serde_json::from_slice(&message) else { return };
                if sender.send(value).is_err() {
                    return;
                }
                message.clear();
            }
        });
        let mut browser = Self {
            process,
            commands,
            messages,
            asked: 0,
            session: String::new(),
            loaded: 0,
            complaints: Vec::new(),
            _folder: folder,
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}));
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = browser.call("Target.attachToTarget", attach);
        browser.session = attached["sessionId"].as_str().unwrap().to_owned();
        for domain in ["Page", "Runtime", "Log"] {
            browser.call(&format!("{domain}.enable"), json!({}));
        }
        Some(browser)
    }

    /// Opens a page of this size, in this mode.
    pub fn open(&mut self, url: &str, size: (u32, u32), scheme: &str) {
        self.look(size, scheme);
        let before = self.loaded;
        self.call("Page.navigate", json!({"url": url}));
        while self.loaded == before {
            self.receive(url);
        }
    }

    /// Another size and mode, of the page that is open.
    pub fn look(&mut self, (width, height): (u32, u32), scheme: &str) {
        let metrics = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", metrics);
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.call("Emulation.setEmulatedMedia", json!({"features": features}));
    }

    /// What an expression is in the page.
    pub fn eval(&mut self, expression: &str) -> Value {
        let terms = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", terms);
        assert!(answer.get("exceptionDetails").is_none(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    /// Waits until a condition holds in the page.
    pub fn until(&mut self, condition: &str) {
        self.eval(&format!(
            "new Promise((done) => {{
                const look = () => {{ if ({condition}) {{ observer.disconnect(); done(); }} }};
                const observer = new MutationObserver(look);
                const all = {{ subtree: true, childList: true, attributes: true, characterData: true }};
                observer.observe(document, all);
                look();
            }})"
        ));
    }

    /// Presses a key, where the focus is.
    pub fn press(&mut self, key: &str, text: &str) {
        for kind in ["keyDown", "keyUp"] {
            let text = if kind == "keyDown" { text } else { "" };
            self.call("Input.dispatchKeyEvent", json!({"type": kind, "key": key, "code": key, "text": text}));
        }
    }

    pub fn screenshot(&mut self, path: &Path) {
        let answer = self.call("Page.captureScreenshot", json!({"format": "png"}));
        let png = BASE64_STANDARD.decode(answer["data"].as_str().unwrap()).unwrap();
        std::fs::write(path, png).unwrap();
    }

    fn call(&mut self, method: &str, terms: Value) -> Value {
        self.asked += 1;
        let id = self.asked;
        let mut message = json!({"id": id, "method": method, "params": terms});
        if !self.session.is_empty() {
            message["sessionId"] = self.session.clone().into();
        }
        self.commands.write_all(format!("{message}\0").as_bytes()).unwrap();
        loop {
            let mut answer = self.receive(&message.to_string());
            if answer["id"] == id {
                assert!(answer.get("error").is_none(), "{method}: {answer}");
                return answer["result"].take();
            }
        }
    }

    /// The next message; of events, what matters is noted.
    fn receive(&mut self, awaited: &str) -> Value {
        let message = self.messages.recv_timeout(PATIENCE);
        let message = message.unwrap_or_else(|_| panic!("no answer to {awaited}; {:?}", self.complaints));
        let complaint = match message["method"].as_str() {
            Some("Page.loadEventFired") => {
                self.loaded += 1;
                false
            }
            Some("Runtime.exceptionThrown") => true,
            Some("Runtime.consoleAPICalled") => message["params"]["type"] == "error",
            // That the server is away is part of the test.
            Some("Log.entryAdded") => message["params"]["entry"]["source"] != "network",
            _ => false,
        };
        if complaint {
            self.complaints.push(message["params"].to_string());
        }
        message
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.commands.write_all(b"{\"id\":0,\"method\":\"Browser.close\"}\0");
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
