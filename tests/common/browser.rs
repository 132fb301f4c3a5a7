//! A real browser: Debian's chromium, headless, driven by chromedriver over the WebDriver protocol.
//!
//! ```text
//!   test ──HTTP, JSON──> chromedriver ──> chromium ──HTTP──> what is tested
//! ```

use super::{DEADLINE, Folder};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use ureq::Agent;

/// A window; the browser and its driver end when it is dropped.
pub struct Browser {
    driver: Child,
    agent: Agent,
    /// Of the session.
    url: String,
    /// What the browser keeps; its name ends with the value.
    _profile: Folder,
}

impl Browser {
    /// None, and a line that says so, where chromium or chromedriver is not installed.
    pub fn start() -> Option<Browser> {
        let is_there = |program| Command::new(program).arg("--version").stdout(Stdio::null()).status().is_ok();
        if !is_there("chromium") || !is_there("chromedriver") {
            eprintln!("chromium and chromedriver are not both installed: nobody looks at the page");
            return None;
        }
        let mut driver =
            Command::new("chromedriver").arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).spawn().ok()?;
        let mut lines = BufReader::new(driver.stdout.take().expect("a pipe")).lines().map_while(Result::ok);
        let port =
            lines.find_map(|line| line.split_once("successfully on port ")?.1.trim_end_matches('.').parse().ok());
        let port: u16 = port.expect("chromedriver says where it listens");
        // What it says later must have a reader.
        std::thread::spawn(move || lines.for_each(drop));
        let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(DEADLINE)).build();
        let (agent, profile) = (Agent::new_with_config(config), Folder::new());
        let url = format!("http://127.0.0.1:{port}/session");
        let mut browser = Browser { driver, agent, url, _profile: profile };
        let profile = format!("--user-data-dir={}", browser._profile.path().display());
        let options = json!({"args": ["--headless=new", "--no-sandbox", "--disable-gpu", profile]});
        let logs = json!({"browser": "ALL", "performance": "ALL"});
        let wanted = json!({"goog:chromeOptions": options, "goog:loggingPrefs": logs});
        let session = browser.post("", json!({"capabilities": {"alwaysMatch": wanted}}));
        browser.url = format!("{}/{}", browser.url, session["sessionId"].as_str().expect("a session"));
        Some(browser)
    }

    /// Loads a page.
    pub fn open(&self, url: &str) {
        self.post("/url", json!({"url": url}));
    }

    /// The value of an expression in the page.
    pub fn eval(&self, expression: &str) -> Value {
        self.post("/execute/sync", json!({"script": format!("return {expression}"), "args": []}))
    }

    /// What the page shows as text.
    pub fn text(&self) -> String {
        self.eval("document.body.innerText").as_str().expect("a text").to_owned()
    }

    /// What the console has said, and every address that was asked for, behind that of the page that asked, since this
    /// was asked before. A page that was left a moment ago may have asked after that.
    pub fn logs(&self) -> (Vec<String>, Vec<(String, String)>) {
        let console = self.post("/se/log", json!({"type": "browser"}));
        let console = console.as_array().into_iter().flatten().map(|entry| entry["message"].to_string());
        let traffic = self.post("/se/log", json!({"type": "performance"}));
        let requests = traffic.as_array().into_iter().flatten().filter_map(|entry| {
            let event: Value = serde_json::from_str(entry["message"].as_str()?).ok()?;
            let (method, event) = (&event["message"]["method"], &event["message"]["params"]);
            let text = |value: &Value| value.as_str().map(str::to_owned);
            (method == "Network.requestWillBeSent")
                .then(|| Some((text(&event["documentURL"])?, text(&event["request"]["url"])?)))?
        });
        // Its own start page is none of ours.
        (console.collect(), requests.filter(|(_, url)| !url.starts_with("chrome://")).collect())
    }

    /// Becomes a screen of this size; a phone has fingers and a dense screen.
    pub fn resize(&self, width: u32, height: u32, is_phone: bool) {
        let scale = if is_phone { 2 } else { 1 };
        self.cdp(
            "Emulation.setDeviceMetricsOverride",
            json!({"width": width, "height": height, "deviceScaleFactor": scale, "mobile": is_phone}),
        );
    }

    /// What its user prefers: dark or light.
    pub fn prefer(&self, scheme: &str) {
        let feature = json!({"name": "prefers-color-scheme", "value": scheme});
        self.cdp("Emulation.setEmulatedMedia", json!({"features": [feature]}));
    }

    /// Keeps a picture of the whole page in the folder that `SCREENSHOTS` names, if it does.
    pub fn picture(&self, name: &str) {
        let Ok(folder) = std::env::var("SCREENSHOTS") else { return };
        let picture = self.cdp("Page.captureScreenshot", json!({"format": "png", "captureBeyondViewport": true}));
        let bytes = STANDARD.decode(picture["data"].as_str().expect("a picture")).expect("base64");
        std::fs::write(format!("{folder}/{name}.png"), bytes).expect("a folder to write to");
    }

    fn cdp(&self, command: &str, parameters: Value) -> Value {
        self.post("/goog/cdp/execute", json!({"cmd": command, "params": parameters}))
    }

    fn post(&self, path: &str, body: Value) -> Value {
        let url = format!("{}{path}", self.url);
        let request = self.agent.post(&url).header("Content-Type", "application/json").send(body.to_string());
        let answer = request.and_then(|mut answer| answer.body_mut().with_config().limit(64 << 20).read_to_string());
        let text = answer.unwrap_or_else(|error| panic!("{url}: {error}"));
        let mut answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{url}: {error}: {text}"));
        assert!(answer["value"]["error"].is_null(), "{path} {body}: {text}");
        answer["value"].take()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The browser goes with its session; what is gone already cannot be ended again.
        let _ = self.agent.delete(&self.url).call();
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}
