//! The page in a real browser: it shows the pipeline and the newest bars, goes on by itself, and says
//! when the daemon is away.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Message, WebSocket, client};

use super::desk::{Desk, Process, SECRET, project, wait};
use crate::support::servers::{or_skip, part};

/// What it would ask its makers' servers for at each start, without a word of the page.
const QUIET: [&str; 4] = ["--no-first-run", "--disable-background-networking", "--disable-component-update", "--disable-sync"];

/// A page in a browser without a window, spoken to over Chrome's DevTools protocol.
struct Browser {
    _process: Process,
    socket: WebSocket<TcpStream>,
    session: Option<String>,
    next: u64,
    /// What the page complained of: exceptions, and what its own policy forbade.
    complaints: Vec<String>,
}

impl Browser {
    /// Opens the page.
    fn open(binary: &Path, desk: &Desk, url: &str) -> Browser {
        let profile = desk.path("profile");
        let mut command = Command::new(binary);
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--remote-debugging-port=0"]);
        command.args(QUIET);
        command
            .arg(format!("--user-data-dir={}", profile.display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let process = desk.begin(&mut command);
        let mut found = Vec::new();
        wait("the browser is up", || {
            let text = std::fs::read_to_string(profile.join("DevToolsActivePort")).unwrap_or_default();
            found = text.lines().map(String::from).collect();
            found.len() == 2
        });
        let stream = TcpStream::connect(("127.0.0.1", found[0].parse().unwrap())).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let (socket, _) = client(format!("ws://127.0.0.1:{}{}", found[0], found[1]), stream).unwrap();
        let mut browser = Browser { _process: process, socket, session: None, next: 0, complaints: Vec::new() };
        let target = browser.call("Target.createTarget", json!({ "url": "about:blank" }))["targetId"].clone();
        let attached = browser.call("Target.attachToTarget", json!({ "targetId": target, "flatten": true }));
        browser.session = attached["sessionId"].as_str().map(String::from);
        browser.call("Runtime.enable", json!({}));
        browser.call("Log.enable", json!({}));
        browser.call("Page.navigate", json!({ "url": url }));
        browser
    }

    fn call(&mut self, method: &str, params: Value) -> Value {
        self.next += 1;
        let mut message = json!({ "id": self.next, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.socket.send(Message::text(message.to_string())).unwrap();
        loop {
            let Message::Text(text) = self.socket.read().unwrap() else { continue };
            let answer: Value = serde_json::from_str(&text).unwrap();
            match answer["method"].as_str() {
                Some("Runtime.exceptionThrown") => self.complaints.push(answer["params"].to_string()),
                Some("Log.entryAdded") if answer["params"]["entry"]["level"] == "error" => {
                    self.complaints.push(answer["params"]["entry"].to_string());
                }
                _ => {}
            }
            if answer["id"] == self.next {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    /// The value of an expression in the page.
    fn value(&mut self, expression: &str) -> Value {
        let answer = self.call("Runtime.evaluate", json!({ "expression": expression, "returnByValue": true }));
        answer["result"]["value"].clone()
    }

    /// What can be read at a place of the page; empty where it is hidden.
    fn text(&mut self, place: &str) -> String {
        let place = format!("document.querySelector('[data-testid=\"{place}\"]')");
        let text = self.value(&format!("{place}?.checkVisibility() ? {place}.innerText : ''"));
        text.as_str().unwrap_or_default().to_string()
    }

    fn number(&mut self, place: &str) -> u64 {
        self.text(place).replace(',', "").parse().unwrap_or(0)
    }
}

#[test]
fn it_shows_what_happens_goes_on_by_itself_and_says_when_the_daemon_is_away() {
    let Some(browser) = or_skip(part("chromium")) else { return };
    let desk = Desk::new();
    let warehouse = format!("project_dir = {:?}\nevery = \"500ms\"", project());
    let mut exchange = desk.exchange(&format!("{SECRET}-key"), "--rate 300", &[("warehouse", &warehouse)]);
    let mut daemon = desk.daemon();
    let mut page = Browser::open(&browser, &desk, &format!("http://{}/", desk.listen));
    wait("the state is shown", || page.text("status") == "ok" && page.number("count-feed") > 0);
    assert_eq!(page.text("count-exchange"), "1 / 1");
    // Whether it is still this document that shows what comes.
    page.value("window.mark = 1");
    let before = page.number("count-bronze");
    wait("the counts go on", || page.number("count-bronze") > before);

    wait("bars are shown", || page.value("document.querySelectorAll('[data-testid=\"candle\"]').length").as_u64() > Some(0));
    let table = page.text("bars-table");
    for symbol in tickmint::exchange::simulated_symbols(3) {
        assert!(table.contains(&symbol), "{symbol} is not in {table}");
    }
    let run = |page: &mut Browser| page.text("stage-gold").lines().last().unwrap_or_default().to_string();
    let first = run(&mut page);
    wait("the next run is shown", || run(&mut page) != first);
    assert!(page.text("actors").contains("writers"), "the tree is shown");
    assert_eq!(page.text("alarms"), "");
    assert_eq!(page.complaints, Vec::<String>::new());

    exchange.signal("TERM");
    exchange.ends();
    wait("the alarm is shown", || page.text("status") == "degraded" && page.text("alarms").contains("feed"));

    assert_eq!(page.text("connection-lost"), "");
    daemon.signal("TERM");
    assert_eq!(daemon.ends(), Some(0), "{}", daemon.log());
    wait("that it is away is shown", || page.text("connection-lost").contains("the daemon does not answer"));
    assert_eq!((page.text("status").as_str(), page.value("document.title")), ("connection lost", "lost - Tickmint".into()));

    let daemon = desk.daemon();
    wait("that it is back is shown", || page.text("connection-lost").is_empty() && page.text("status") == "degraded");
    assert_eq!(page.value("window.mark"), 1, "nobody loaded the page again");
    drop(daemon);
}
