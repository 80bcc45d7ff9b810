//! `export`, `diff` and `apply`: the control plane's state as a file.

mod carry_out;

use super::inventory::all;
use super::registered::PATH as SECRETS;
use super::view::View;
use crate::args::{Apply, Diff, Export};
use crate::control_plane::{ControlPlane, ControlPlaneError};
use crate::declared::{self, Declared, Kind, Live, Plan, Registered};
use crate::failure::{Exit, Failure};
use crate::files;
use crate::output::Output;
use carry_out::{Done, carry_out, told};
use serde_json::json;
use std::path::PathBuf;

/// More than a thousand credentials need.
const LIMIT: usize = 16 * 1024 * 1024;

/// Writes what is registered.
///
/// # Errors
/// [`Failure`] if the control plane does not answer, or the file can't be written.
pub(super) async fn export(options: &Export, api: &ControlPlane, output: &Output) -> Result<Exit, Failure> {
    let live = live(api, &Kind::ALL).await?;
    let text = declared::write(&live).map_err(|error| Failure::Output(std::io::Error::other(error)))?;
    if live.locked {
        output.warning("settings and envelope_secrets are left out: they can't be read while the flag is off");
    }
    match &options.out {
        Some(path) => {
            files::write(path, "file", &text)?;
            output.note(&format!("{} things in {}", live.things.len(), path.display()));
        }
        None => output.script(&text)?,
    }
    Ok(Exit::Ok)
}

/// Tells what would have to change; [`Exit::Refused`] if anything.
///
/// # Errors
/// [`Failure`]: files that can't be meant, before anybody is asked; or a control plane that does not answer.
pub(super) async fn diff(
    options: &Diff,
    connect: impl FnOnce() -> Result<ControlPlane, ControlPlaneError>,
    output: &Output,
) -> Result<Exit, Failure> {
    let declared = read(&options.files)?;
    let plan = plan(&declared, options.prune, &connect()?).await?;
    show(&plan, output)?;
    Ok(Output::exit(plan.is_empty()))
}

/// Makes the control plane as the files say.
///
/// # Errors
/// [`Failure`]: as [`diff`]; or the first change that failed, after telling what was done and what was not.
pub(super) async fn apply(
    options: &Apply,
    connect: impl FnOnce() -> Result<ControlPlane, ControlPlaneError>,
    output: &Output,
) -> Result<Exit, Failure> {
    let declared = read(&options.what.files)?;
    let api = connect()?.waiting_as_told(output);
    let mut done = Vec::new();
    loop {
        let mut plan = match plan(&declared, options.what.prune, &api).await {
            Ok(plan) => plan,
            Err(failure) => {
                if !done.is_empty() {
                    tell(&done, output)?;
                }
                return Err(failure);
            }
        };
        let is_nothing = plan.is_empty();
        if options.dry_run || (is_nothing && done.is_empty()) {
            show(&plan, output)?;
            return Ok(Exit::Ok);
        }
        if !is_nothing {
            if !output.is_json() {
                output.text(&plan.text())?;
            }
            if !options.yes && !output.confirm("Carry this out?") {
                output.note("Nothing of this was done.");
                if !done.is_empty() {
                    tell(&done, output)?;
                }
                return Ok(Exit::Refused);
            }
        }
        // What is behind the flag is compared once it is on.
        let is_first_half = !plan.unknown.is_empty();
        if is_first_half {
            plan.changes.retain(|change| change.turns(true));
        }
        let failed = carry_out(&api, plan.changes, &mut done).await;
        let waits = done.iter().any(Done::waits);
        if failed.is_none() && is_first_half && !waits {
            continue;
        }
        tell(&done, output)?;
        return failed.map_or(Ok(if waits { Exit::Waits } else { Exit::Ok }), Err);
    }
}

fn tell(done: &[Done], output: &Output) -> Result<(), Failure> {
    if output.is_json() {
        return output.json(&json!({"changes": done.iter().map(Done::json).collect::<Vec<_>>()}));
    }
    output.text(&told(done))
}

fn show(plan: &Plan, output: &Output) -> Result<(), Failure> {
    if output.is_json() { output.json(&plan.json()) } else { output.text(&plan.text()) }
}

fn read(paths: &[PathBuf]) -> Result<Declared, Failure> {
    let mut texts = Vec::new();
    for path in paths {
        texts.push((path, files::read_up_to(path, "file", LIMIT)?));
    }
    Ok(declared::read(texts.iter().map(|(path, input)| (path.as_path(), input.text.as_str())))?)
}

async fn plan(declared: &Declared, prune: bool, api: &ControlPlane) -> Result<Plan, Failure> {
    let kinds: Vec<Kind> = declared.sections.iter().copied().collect();
    let live = live(api, &kinds).await?;
    let plan = Plan::new(declared, &live, prune);
    // Nobody is going to turn it on: then it is said as the control plane says it.
    if !plan.unknown.is_empty() && !plan.changes.iter().any(|change| change.turns(true)) {
        api.get("/v1/crypto/settings").await?;
    }
    Ok(plan)
}

/// What is registered of these kinds.
async fn live(api: &ControlPlane, kinds: &[Kind]) -> Result<Live, Failure> {
    let mut live = Live::default();
    for kind in kinds {
        let path = match kind {
            Kind::Flag => "/v1/feature-flags",
            Kind::Settings => "/v1/crypto/settings",
            Kind::Bouncer => "/v1/bouncers",
            Kind::Secret => SECRETS,
            Kind::Resource => "/v1/protected-resources",
        };
        let answer = match kind {
            Kind::Settings => api.get(path).await.map_err(Failure::from),
            _ => all(api, path, &[]).await,
        };
        let answer = match answer {
            Err(Failure::ControlPlane(error)) if kind.is_guarded() && error.code() == "feature_disabled" => {
                live.locked = true;
                continue;
            }
            Err(Failure::ControlPlane(error)) if *kind == Kind::Settings && error.is_not_found() => continue,
            other => other?,
        };
        if *kind == Kind::Settings {
            live.things.insert((*kind, "provider".to_owned()), Registered::read(*kind, &answer));
            continue;
        }
        let name = if *kind == Kind::Secret { "logical_path" } else { "name" };
        for item in View(&answer).list("items") {
            live.things.insert((*kind, item.text(name).to_owned()), Registered::read(*kind, item.0));
        }
    }
    Ok(live)
}
