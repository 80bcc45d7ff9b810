//! Real Chromium, driven by WebDriver (W3C) through chromedriver: what a person with a keyboard sees and does.
//!
//! Each scenario has a browser of its own with a fresh profile, and ends it with itself. Everything waits for a condition;
//! nothing here looks into the console's own state, only at what is on the page.

use crate::process::Process;
use crate::scratch::{Scratch, free_port};
use crate::{Fault, Result, fault::Doing as _};
use base64::Engine as _;
use http::Method;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

const START: Duration = Duration::from_secs(60);
const PATIENCE: Duration = Duration::from_secs(30);
/// WebDriver's name for the one member of an element's reference.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// Keys as WebDriver writes them.
pub mod key {
    /// Tab.
    pub const TAB: &str = "\u{e004}";
    /// Enter.
    pub const ENTER: &str = "\u{e007}";
    /// The arrow down.
    pub const DOWN: &str = "\u{e015}";
    /// Escape.
    pub const ESCAPE: &str = "\u{e00c}";
    /// Control, held until the end of the keys.
    pub const CONTROL: &str = "\u{e009}";
}

/// A running browser with one window.
pub struct Browser {
    http: reqwest::Client,
    session: String,
    process: Process,
}

fn program(name: &str) -> Result<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file()).ok_or_else(|| {
        Fault::new(format!("{name} is not installed. On Debian: apt-get install chromium chromium-driver"))
    })
}

impl Browser {
    /// Starts chromedriver, and by it Chromium with an empty profile.
    ///
    /// # Errors
    /// If either is not installed or does not start.
    pub async fn start(scratch: &Scratch) -> Result<Self> {
        let port = free_port()?;
        let mut command = Command::new(program("chromedriver")?);
        command.arg(format!("--port={port}"));
        // Fonts and caches of whoever runs this are none of the scenario's business.
        command.env("HOME", scratch.folder("browser-home")?);
        let process = Process::spawn("chromedriver", scratch, command)?;
        let http = reqwest::Client::builder().no_proxy().timeout(START).build()?;
        let base = format!("http://127.0.0.1:{port}");
        let mut browser = Self { http, session: base, process };
        let ready =
            || async { browser.call(Method::GET, "/status", None).await.ok()?["ready"].as_bool()?.then_some(()) };
        browser.process.until("is ready", START, ready).await?;
        let arguments = [
            "--headless=new".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-background-networking".to_owned(),
            // Chromium ends with chromedriver, however that ends.
            "--remote-debugging-pipe".to_owned(),
            "--lang=en-GB".to_owned(),
            "--window-size=1280,900".to_owned(),
            format!("--user-data-dir={}", scratch.folder("browser-profile")?.display()),
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            // A scenario's own servers have certificates of its own CAs.
            "acceptInsecureCerts": true,
            "goog:loggingPrefs": {"browser": "ALL"},
            "goog:chromeOptions": {"binary": program("chromium")?, "args": arguments},
        }}});
        let answer = browser.call(Method::POST, "/session", Some(wanted)).await?;
        let id = answer["sessionId"].as_str().ok_or_else(|| Fault::new(format!("no session: {answer}")))?;
        browser.session = format!("{}/session/{id}", browser.session);
        Ok(browser)
    }

    /// One WebDriver command; its value.
    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Result<Value> {
        let what = format!("WebDriver {method} {path}");
        let mut request = self.http.request(method, format!("{}{path}", self.session));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer: Value = request.send().await.doing(&what)?.json().await.doing(&what)?;
        let value = answer["value"].clone();
        match value["error"].as_str() {
            Some(error) => {
                Err(Fault::new(format!("{what}: {error}: {}", value["message"].as_str().unwrap_or_default())))
            }
            None => Ok(value),
        }
    }

    async fn post(&self, path: &str, body: Value) -> Result<Value> {
        self.call(Method::POST, path, Some(body)).await
    }

    /// A command of the Chrome DevTools Protocol.
    ///
    /// # Errors
    /// If the browser says no.
    pub async fn devtools(&self, command: &str, parameters: Value) -> Result<Value> {
        self.post("/goog/cdp/execute", json!({"cmd": command, "params": parameters})).await
    }

    /// Goes to an address.
    ///
    /// # Errors
    /// If it can't be loaded.
    pub async fn open(&self, url: &str) -> Result<()> {
        self.post("/url", json!({"url": url})).await.map(drop)
    }

    /// The address of the page.
    ///
    /// # Errors
    /// If there is none.
    pub async fn address(&self) -> Result<String> {
        Ok(self.call(Method::GET, "/url", None).await?.as_str().unwrap_or_default().to_owned())
    }

    /// Runs a function's body in the page; its (awaited) value. The page's own policy does not hold for it.
    ///
    /// # Errors
    /// If it throws.
    pub async fn script(&self, body: &str, arguments: &[Value]) -> Result<Value> {
        self.post("/execute/sync", json!({"script": body, "args": arguments})).await
    }

    /// Waits until a function's body returns something other than null, false and "".
    ///
    /// # Errors
    /// If it does not in time; with the text of the page.
    #[track_caller]
    pub fn until<'a>(
        &'a self,
        what: &str,
        body: &str,
        arguments: &[Value],
    ) -> impl Future<Output = Result<Value>> + use<'a> {
        let late = Fault::new(format!("on the page, within {PATIENCE:?}: {what}"));
        let (body, arguments) = (body.to_owned(), arguments.to_vec());
        async move {
            let start = Instant::now();
            let mut tick = tokio::time::interval(Duration::from_millis(50));
            loop {
                tick.tick().await;
                // A page that is just being left answers with an error.
                let value = self.script(&body, &arguments).await.unwrap_or_default();
                if !(value.is_null() || value == false || value == "") {
                    return Ok(value);
                }
                if start.elapsed() > PATIENCE {
                    return Err(late.with_evidence(self.text().await.unwrap_or_default()));
                }
            }
        }
    }

    /// The text that is seen on the page.
    ///
    /// # Errors
    /// If there is no page.
    pub async fn text(&self) -> Result<String> {
        Ok(self.script("return document.body.innerText", &[]).await?.as_str().unwrap_or_default().to_owned())
    }

    /// Waits until a text is seen on the page.
    ///
    /// # Errors
    /// If it is not in time.
    #[track_caller]
    pub fn sees(&self, text: &str) -> impl Future<Output = Result<()>> {
        let seen = self.until(
            &format!("the text {text:?}"),
            "return document.body.innerText.replace(/\\s+/g, ' ').includes(arguments[0])",
            &[text.into()],
        );
        async move { seen.await.map(drop) }
    }

    /// Waits until something that matches the selector (and holds the text) is there and visible; its reference.
    #[track_caller]
    fn find<'a>(&'a self, selector: &str, text: &str) -> impl Future<Output = Result<String>> + use<'a> {
        let found = self.until(
            &format!("{selector} with {text:?}"),
            "return [...document.querySelectorAll(arguments[0])].find((one) => one.checkVisibility() && \
             (one.innerText || one.value || one.ariaLabel || '').includes(arguments[1])) ?? null",
            &[selector.into(), text.into()],
        );
        async move {
            let element = found.await?;
            element[ELEMENT].as_str().map(str::to_owned).ok_or_else(|| Fault::new(format!("no element: {element}")))
        }
    }

    /// Clicks on what matches the selector and holds the text, as soon as it is there.
    ///
    /// # Errors
    /// If it is not there in time, or covered.
    #[track_caller]
    pub fn click(&self, selector: &str, text: &str) -> impl Future<Output = Result<()>> {
        let found = self.find(selector, text);
        async move {
            let element = found.await?;
            self.post(&format!("/element/{element}/click"), json!({})).await.map(drop)
        }
    }

    /// Types into the field of this name, in place of what is in it.
    ///
    /// # Errors
    /// If there is no such field.
    #[track_caller]
    pub fn fill(&self, name: &str, text: &str) -> impl Future<Output = Result<()>> {
        let found = self.find(&format!("[name={name:?}]"), "");
        let text = text.to_owned();
        async move {
            let element = found.await?;
            self.post(&format!("/element/{element}/clear"), json!({})).await?;
            self.post(&format!("/element/{element}/value"), json!({"text": text})).await.map(drop)
        }
    }

    /// Presses keys wherever the focus is, one after the other; [`key::CONTROL`] stays down.
    ///
    /// # Errors
    /// If there is no page.
    pub async fn press(&self, keys: &[&str]) -> Result<()> {
        let mut actions = vec![];
        for key in keys {
            actions.push(json!({"type": "keyDown", "value": key}));
            if *key != key::CONTROL {
                actions.push(json!({"type": "keyUp", "value": key}));
            }
        }
        if keys.contains(&key::CONTROL) {
            actions.push(json!({"type": "keyUp", "value": key::CONTROL}));
        }
        self.post("/actions", json!({"actions": [{"type": "key", "id": "keys", "actions": actions}]})).await.map(drop)
    }

    /// Copies a text elsewhere on the page with Ctrl+C, and presses Ctrl+V in the field of this name, over what is in it.
    ///
    /// # Errors
    /// If there is no such field.
    pub async fn paste(&self, name: &str, text: &str) -> Result<()> {
        self.find(&format!("[name={name:?}]"), "").await?;
        let source = "const source = document.createElement('textarea'); source.id = 'copied-from'; \
                      source.dataset.holdsToken = ''; document.body.append(source); source.value = arguments[0]; \
                      source.focus(); source.select()";
        self.script(source, &[text.into()]).await?;
        self.press(&[key::CONTROL, "c"]).await?;
        let target = "document.getElementById('copied-from').remove(); \
                      const field = document.querySelector(`[name=\"${arguments[0]}\"]`); field.focus(); field.select?.()";
        self.script(target, &[name.into()]).await?;
        self.press(&[key::CONTROL, "v"]).await
    }

    /// What the browser has written to its console since the last call, at the level SEVERE.
    ///
    /// # Errors
    /// If the log can't be had.
    pub async fn complaints(&self) -> Result<Vec<String>> {
        let log = self.post("/se/log", json!({"type": "browser"})).await?;
        let severe = log.as_array().into_iter().flatten().filter(|entry| entry["level"] == "SEVERE");
        Ok(severe.map(|entry| entry["message"].to_string()).collect())
    }

    /// Makes the window so large; below 500 it is a phone's.
    ///
    /// # Errors
    /// If the browser says no.
    pub async fn resize(&self, width: u32, height: u32) -> Result<()> {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        self.devtools("Emulation.setDeviceMetricsOverride", size).await.map(drop)
    }

    /// What the system prefers: "light" or "dark", and no motion, so that nothing is seen half-way.
    ///
    /// # Errors
    /// If the browser says no.
    pub async fn prefer(&self, theme: &str) -> Result<()> {
        let features = json!({"features": [
            {"name": "prefers-color-scheme", "value": theme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]});
        self.devtools("Emulation.setEmulatedMedia", features).await.map(drop)
    }

    /// A picture of the whole page, as PNG.
    ///
    /// # Errors
    /// If it can't be taken or written.
    pub async fn screenshot(&self, file: &Path) -> Result<()> {
        let taken = self.devtools("Page.captureScreenshot", json!({"captureBeyondViewport": true})).await?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(taken["data"].as_str().unwrap_or_default())?;
        if let Some(folder) = file.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(file, bytes).doing("the screenshot")
    }

    /// What axe-core finds wrong with the page: each rule with the elements that break it.
    ///
    /// # Errors
    /// If axe-core is not installed or fails.
    pub async fn axe(&self) -> Result<Vec<String>> {
        let source = crate::tools::root().join(".tools/axe.min.js");
        let source = std::fs::read_to_string(source).doing("axe-core: run `make tools` (scripts/tools axe)")?;
        // Defines `axe` in the page, which a script of the page's own could not.
        self.devtools("Runtime.evaluate", json!({"expression": format!("{source}; true")})).await?;
        let body = "return axe.run(document, {resultTypes: ['violations']}).then((result) => result.violations.map(\
                    (one) => `${one.id} (${one.impact}): ${one.nodes.map((node) => node.target.join(' ') + ' ' + \
                    (node.any[0]?.message ?? '')).join('; ')}`))";
        let found = self.script(body, &[]).await?;
        Ok(found.as_array().into_iter().flatten().map(|one| one.as_str().unwrap_or_default().to_owned()).collect())
    }
}
