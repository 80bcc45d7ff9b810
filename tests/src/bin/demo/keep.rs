//! `KEEP=1`: the stack stays up until Ctrl-C, and `.demo/` in the repository says how to reach it.
//!
//! Called by `main` before anything starts, so that a second demo is told at once, and after the promises. What is in
//! `.demo/` is secret (a token, callers' keys), readable by its owner alone, and goes with the demo.

use crate::guide::LOGICAL_PATH;
use crate::parts::{Ground, Intercept};
use crate::screen::Screen;
use bouncer_tests::stack::{CART, STRANGER};
use bouncer_tests::{Fault, Result, fault::Doing as _, tools};
use std::fmt::Write as _;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::time::Duration;

/// SPIRE's certificates live for an hour.
const RENEWAL: Duration = Duration::from_mins(20);

/// The folder `.demo`, held by this process. Dropping it empties it.
pub(crate) struct Folder {
    path: PathBuf,
    written: Vec<PathBuf>,
    /// The folder itself, locked.
    _lock: File,
}

impl Folder {
    /// Takes the folder.
    ///
    /// # Errors
    /// If another demo has it.
    pub(crate) fn take() -> Result<Self> {
        let path = tools::root().join(".demo");
        DirBuilder::new().recursive(true).mode(0o700).create(&path).doing(".demo")?;
        let lock = File::open(&path).doing(".demo")?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path, written: vec![], _lock: lock }),
            Err(_) => Err(Fault::new("another demo is kept up here (.demo is in use): end it with Ctrl-C first")),
        }
    }

    fn write(&mut self, name: &str, text: &str) -> Result<()> {
        let path = self.path.join(name);
        // Whoever reads it meanwhile gets the old file or the new one.
        let new = self.path.join(format!("{name}.new"));
        let _ = std::fs::remove_file(&new);
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new).doing(name)?;
        file.write_all(text.as_bytes())?;
        std::fs::rename(&new, &path).doing(name)?;
        if !self.written.contains(&path) {
            self.written.push(path);
        }
        Ok(())
    }

    fn callers(&mut self, ground: &Ground) -> Result<()> {
        for (name, spiffe_id) in [("cart", CART), ("stranger", STRANGER)] {
            let identity = ground.identities.mint(spiffe_id)?;
            self.write(&format!("{name}.pem"), &identity.cert_pem)?;
            self.write(&format!("{name}.key"), &identity.key_pem)?;
        }
        Ok(())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        for path in &self.written {
            let _ = std::fs::remove_file(path);
        }
        // Only if nobody else put anything there.
        let _ = std::fs::remove_dir(&self.path);
    }
}

/// Writes `.demo/`, says how to use it, and renews the callers' certificates until it is dropped.
pub(crate) async fn hold(screen: Screen, folder: &mut Folder, ground: &Ground, intercept: &Intercept) -> Result<()> {
    folder.callers(ground)?;
    folder.write("ca.pem", ground.server_ca.pem())?;
    let variables = variables(ground, intercept)?;
    let mut exports = String::new();
    for (name, value) in &variables {
        let _ = writeln!(exports, "export {name}='{}'", value.replace('\'', r"'\''"));
    }
    folder.write("env", &exports)?;

    screen.heading("It stays up until Ctrl-C");
    for (name, value) in &variables {
        let shown = if matches!(*name, "TOKEN" | "VAULT_TOKEN") { "(in .demo/env)" } else { value };
        screen.say(&format!("{name:<18} {shown}"));
    }
    screen.call("source .demo/env");
    screen.call("curl -sS --cacert .demo/ca.pem --cert .demo/cart.pem --key .demo/cart.key \"$BOUNCER_URL/orders\"");
    screen.call("curl -sSi --cacert .demo/ca.pem --cert .demo/stranger.pem --key .demo/stranger.key \"$BOUNCER_URL/\"");
    screen.call(&format!("{} audit tail", bouncerctl()?));
    screen.blank();
    screen.say(&format!("The credential is registered under {LOGICAL_PATH}."));
    let mut renewal = tokio::time::interval(RENEWAL);
    renewal.tick().await;
    loop {
        renewal.tick().await;
        folder.callers(ground)?;
    }
}

/// As it can be typed at the root of the repository.
fn bouncerctl() -> Result<String> {
    let path = tools::binary("bouncerctl")?;
    Ok(path.strip_prefix(tools::root()).unwrap_or(&path).display().to_string())
}

fn variables(ground: &Ground, intercept: &Intercept) -> Result<Vec<(&'static str, String)>> {
    let admin = intercept.envoy.admin_url().ok_or_else(|| Fault::new("Envoy has no admin address"))?;
    let socket = intercept.resolver.setup().intercept_socket.display().to_string();
    let pid = |process: &bouncer_tests::process::Process| process.pid().to_string();
    let mut variables = vec![
        ("CONTROL_PLANE_URL", ground.control_plane.url()),
        ("TOKEN", ground.control_plane.token().to_owned()),
        ("BOUNCER_URL", format!("https://{}", intercept.envoy.listener())),
        ("ENVOY_ADMIN", admin),
        ("RESOLVER_SOCKET", socket),
        ("RESOLVER_METRICS", intercept.resolver.url("/metrics")),
        ("KMS_ENDPOINT", ground.kms.endpoint()),
        ("KMS_KEY_ARN", ground.key_arn.clone()),
        ("UPSTREAM_ADDR", ground.payments.address().to_string()),
        ("PID_ENVOY", pid(intercept.envoy.process())),
        ("PID_RESOLVER", pid(intercept.resolver.process())),
        ("PID_CONTROL_PLANE", pid(ground.control_plane.process())),
    ];
    if let Some(vault) = &ground.vault {
        variables.push(("VAULT_ADDR", vault.address().to_owned()));
        variables.push(("VAULT_TOKEN", vault.token().to_owned()));
        variables.push(("VAULT_CACERT", tools::root().join(".demo/ca.pem").display().to_string()));
    }
    Ok(variables)
}
