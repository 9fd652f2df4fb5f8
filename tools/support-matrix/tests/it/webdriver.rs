//! A browser, driven as a person drives it: chromedriver and its plain HTTP (W3C WebDriver). A program that is missing
//! fails the test.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::{Value, json};

/// Keys, as WebDriver writes them.
const TAB: &str = "\u{e004}";
const ENTER: &str = "\u{e007}";

/// Chromium without a window.
pub(crate) struct Browser {
    driver: Child,
    port: u16,
    session: String,
    /// Its profile, new and empty.
    profile: tempfile::TempDir,
}

impl Browser {
    #[allow(clippy::disallowed_methods, reason = "it lives as long as the test and is ended by Drop")]
    pub(crate) fn start() -> Self {
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).stdin(Stdio::null());
        let mut driver = command.spawn().unwrap_or_else(|error| {
            panic!("chromedriver: {error}; this test needs Debian's packages chromium and chromium-driver")
        });
        let mut lines = BufReader::new(driver.stdout.take().unwrap()).lines();
        let port = lines
            .by_ref()
            .map_while(Result::ok)
            .find_map(|line| line.split_once("successfully on port ")?.1.trim_end_matches('.').parse().ok());
        let port = port.expect("chromedriver says its port");
        // Whoever writes into a closed pipe ends.
        std::thread::spawn(move || lines.for_each(drop));
        let profile = tempfile::tempdir().unwrap();
        let mut browser = Self { driver, port, session: String::new(), profile };
        let folder = format!("--user-data-dir={}", browser.profile.path().display());
        // It asks nobody for anything: whatever it would fetch by itself would count as the pages' request.
        let options = json!({ "args": [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
            "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--window-size=1280,900", folder,
        ] });
        let capabilities = json!({ "capabilities": { "alwaysMatch": {
            "goog:chromeOptions": options,
            "goog:loggingPrefs": { "browser": "ALL", "performance": "ALL" },
        } } });
        let session = browser.request("POST", "/session", &capabilities);
        browser.session = session["sessionId"].as_str().expect("a session").to_owned();
        // The machine may be busy with other tests.
        browser.call("/timeouts", &json!({ "script": 300_000, "pageLoad": 120_000 }));
        // It begins with a page of its own, whose requests are none of ours.
        browser.call("/url", &json!({ "url": "about:blank" }));
        browser.said_and_asked();
        browser
    }

    fn request(&self, method: &str, path: &str, body: &Value) -> Value {
        let mut value = self.exchange(method, path, body).unwrap_or_else(|error| panic!("{path}: {error}"));
        assert!(value["value"]["error"].is_null(), "{path}: {value}");
        value["value"].take()
    }

    fn exchange(&self, method: &str, path: &str, body: &Value) -> std::io::Result<Value> {
        let body = if method == "POST" { body.to_string() } else { String::new() };
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            self.port,
            body.len()
        )?;
        // It keeps connections open, whatever it is asked.
        let mut reader = BufReader::new(stream);
        let mut length = 0;
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            if line.trim().is_empty() {
                break;
            }
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().map_err(std::io::Error::other)?;
            }
        }
        let mut answer = vec![0; length];
        reader.read_exact(&mut answer)?;
        Ok(serde_json::from_slice(&answer)?)
    }

    fn call(&self, path: &str, body: &Value) -> Value {
        self.request("POST", &format!("/session/{}{path}", self.session), body)
    }

    pub(crate) fn open(&self, page: &Path) {
        self.call("/url", &json!({ "url": format!("file://{}", page.display()) }));
    }

    /// Runs a script in the page; what it returns.
    pub(crate) fn script(&self, script: &str) -> Value {
        self.call("/execute/sync", &json!({ "script": script, "args": [] }))
    }

    /// The same for a script that calls its last argument when it is done.
    pub(crate) fn script_later(&self, script: &str) -> Value {
        self.call("/execute/async", &json!({ "script": script, "args": [] }))
    }

    /// Presses a key.
    pub(crate) fn press(&self, key: &str) {
        let actions = json!([{ "type": "keyDown", "value": key }, { "type": "keyUp", "value": key }]);
        self.call("/actions", &json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": actions }] }));
    }

    /// Presses Enter on a link, and waits for what `script` returns there.
    pub(crate) fn follow(&self, script: &str, there: &str) {
        self.press(ENTER);
        let (path, asked) =
            (format!("/session/{}/execute/sync", self.session), json!({ "script": script, "args": [] }));
        let mut seen = Value::Null;
        let late = || kit::Error::new(kit::Cause::TestTimeout, "no page");
        let arrived = kit::retry::until(Duration::from_secs(60), late, || {
            // Between two pages there is nobody to ask.
            seen = self.exchange("POST", &path, &asked).map_or(Value::Null, |mut answer| answer["value"].take());
            Ok((seen == there).then_some(()))
        });
        assert!(arrived.is_ok(), "{script} is {seen}, not {there}");
    }

    /// Presses the tabulator until the element that has the focus is one for which `wanted`, an expression about `e`, is
    /// true; how often that was.
    pub(crate) fn tab_to(&self, wanted: &str) -> usize {
        for times in 1..300 {
            self.press(TAB);
            let script = format!("const e = document.activeElement; return Boolean({wanted});");
            if self.script(&script) == Value::Bool(true) {
                return times;
            }
        }
        panic!("no way by keyboard to: {wanted}");
    }

    /// Tells the page about another screen: width, height, whether it is dark.
    pub(crate) fn screen(&self, width: u32, height: u32, dark: bool) {
        let cdp = |cmd: &str, params: Value| self.call("/goog/cdp/execute", &json!({ "cmd": cmd, "params": params }));
        let scheme = if dark { "dark" } else { "light" };
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        cdp("Emulation.setEmulatedMedia", json!({ "features": features }));
        let metrics = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        cdp("Emulation.setDeviceMetricsOverride", metrics);
    }

    /// What the console said since the last time, and every address that was asked for.
    pub(crate) fn said_and_asked(&self) -> (Vec<String>, Vec<String>) {
        let entries = |kind: &str| {
            let entries = self.call("/se/log", &json!({ "type": kind }));
            let messages =
                entries.as_array().unwrap().iter().map(|entry| entry["message"].as_str().unwrap().to_owned());
            messages.collect::<Vec<_>>()
        };
        let asked = entries("performance").into_iter().filter_map(|message| {
            let event: Value = serde_json::from_str(&message).ok()?;
            (event["message"]["method"] == "Network.requestWillBeSent")
                .then(|| event["message"]["params"]["request"]["url"].as_str().unwrap_or_default().to_owned())
        });
        let asked = asked.collect();
        (entries("browser"), asked)
    }

    /// For whoever wants to look: a picture in target/tmp.
    pub(crate) fn picture(&self, name: &str) {
        let data = self.request("GET", &format!("/session/{}/screenshot", self.session), &Value::Null);
        let bytes = base64::Engine::decode(&base64::engine::general_purpose::STANDARD, data.as_str().unwrap()).unwrap();
        std::fs::write(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name), bytes).unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Also after a test that failed: the driver alone does not end its browser.
        if !self.session.is_empty() {
            let _ = self.exchange("DELETE", &format!("/session/{}", self.session), &Value::Null);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// axe-core, from npm's registry, kept below the target folder.
pub(crate) fn axe() -> String {
    const VERSION: &str = "4.10.3";
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let packed = folder.join(format!("axe-core-{VERSION}.tgz"));
    if !packed.is_file() {
        let mut command = Command::new("npm");
        command.args(["pack", "--silent", &format!("axe-core@{VERSION}")]).current_dir(folder);
        let finished = kit::Process::new("npm pack axe-core", command).finish();
        let finished = finished.unwrap_or_else(|error| panic!("{error}; this test needs npm"));
        assert!(finished.good(), "npm pack axe-core: {:?}", finished.last);
    }
    let file = std::fs::File::open(&packed).unwrap();
    let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(file));
    let mut source = String::new();
    let mut entries = archive.entries().unwrap().map(Result::unwrap);
    let mut script =
        entries.find(|entry| entry.path().unwrap() == Path::new("package/axe.min.js")).expect("axe.min.js");
    script.read_to_string(&mut source).unwrap();
    source
}
