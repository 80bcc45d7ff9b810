//! The demo (`make demo`): the operator guide's four steps on real parts on this machine, then traffic that must pass and
//! traffic that must not, and each promise with its evidence.
//!
//! It ends everything that it started: at its end, on Ctrl-C, and when something fails. `KEEP=1` leaves it up until
//! Ctrl-C. Exit codes: 0 every promise held, 1 one did not or a part failed, 130 interrupted.

mod guide;
mod keep;
mod operator;
mod parts;
mod promises;
mod screen;
mod search;
mod traffic;
mod vm_memory;

use bouncer_tests::Result;
use bouncer_tests::stop::{INTERRUPTED, Stop};
use keep::Folder;
use operator::Operator;
use parts::{Ground, Intercept};
use screen::Screen;
use std::process::ExitCode;
use std::time::Instant;

/// What is up, and whether every promise held. The parts stop in the order of the fields.
struct Shown {
    intercept: Intercept,
    ground: Ground,
    good: bool,
}

fn main() -> ExitCode {
    let screen = Screen::new();
    match tokio::runtime::Runtime::new().map_err(Into::into).and_then(|runtime| runtime.block_on(run(screen))) {
        Ok(code) => code,
        Err(fault) => {
            screen.blank();
            screen.verbatim(&fault.to_string());
            screen.summary(false, "The demo failed; everything that it started has been ended.");
            ExitCode::FAILURE
        }
    }
}

async fn run(screen: Screen) -> Result<ExitCode> {
    let keep = std::env::var("KEEP").is_ok_and(|value| !matches!(value.as_str(), "" | "0"));
    let mut folder = if keep { Some(Folder::take()?) } else { None };
    let mut stop = Stop::new()?;
    let Some(shown) = stop.or(show(screen, keep)).await else {
        screen.summary(false, "Interrupted; everything that was started has been ended.");
        return Ok(ExitCode::from(INTERRUPTED));
    };
    let shown = shown?;
    if let Some(folder) = &mut folder
        && let Some(ended) = stop.or(keep::hold(screen, folder, &shown.ground, &shown.intercept)).await
    {
        ended?;
    }
    let Shown { intercept, ground, good } = shown;
    drop(intercept);
    drop(ground);
    if keep {
        screen.summary(good, "Everything that was started has been ended.");
    }
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn show(screen: Screen, keep: bool) -> Result<Shown> {
    let start = Instant::now();
    screen.heading("Bouncer: dual custody on real parts, on this machine");
    screen.say(
        "Envoy, resolver and control plane run as they do in production. Calls are shown as curl lines; the demo makes \
         them itself, and runs bouncerctl as shown.",
    );
    let ground = Ground::start(screen, keep).await?;
    let folder = ground.scratch.folder("operator")?;
    let operator = Operator::new(screen, ground.control_plane.url(), ground.control_plane.token(), folder)?;
    screen.say(&format!("control plane  {}", ground.control_plane.url()));

    guide::provider(screen, &operator, &ground).await?;
    let credential = guide::metadata(screen, &operator, &ground).await?;
    let intercept = guide::prerequisites(screen, &operator, &ground).await?;
    guide::verify(screen, &operator).await?;
    let allowed = traffic::allowed(screen, &ground, &intercept).await?;
    guide::verified(screen, &operator, &ground).await?;
    let refused = traffic::refusals(screen, &operator, &ground, &intercept).await?;
    let traffic = (&allowed, &refused);
    let promises = promises::judge(screen, &operator, &ground, &intercept, &credential, traffic).await?;
    let good = promises.sum_up(start.elapsed());
    Ok(Shown { intercept, ground, good })
}
