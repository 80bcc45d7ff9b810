//! `revoke`: at the control plane for every bouncer, or at one resolver on its node.

use super::registered::find;
use super::secrets::enable;
use super::view::View;
use crate::args::Revoke;
use crate::control_plane::{ControlPlane, ControlPlaneError};
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::resolver::Resolver;
use serde_json::json;

/// Revokes, or lifts a revocation.
///
/// # Errors
/// [`Failure`]: nobody could be told, or whoever was told said no.
pub(super) async fn revoke(
    options: &Revoke,
    connect: impl FnOnce() -> Result<ControlPlane, ControlPlaneError>,
    output: &Output,
) -> Result<Exit, Failure> {
    let path = &options.logical_path;
    let (answer, said) = match &options.socket {
        Some(socket) => {
            let resolver = Resolver::new(socket)?;
            if options.lift {
                let answer = resolver.post("/v1/revocations/lift", &json!({"logical_path": path})).await?;
                (answer, format!("lifted: this resolver lets {path} be used again, if everything else does"))
            } else {
                let order = json!({"logical_path": path, "all_generations": options.all_generations});
                let answer = resolver.post("/v1/revocations", &order).await?;
                let which = match View(&answer).number("through_generation") {
                    Some(last) => format!("up to generation {last}"),
                    None => "every generation".to_owned(),
                };
                (answer, format!("revoked at this resolver: {path}, {which}"))
            }
        }
        None => {
            let api = connect()?;
            let found = find(&api, path.as_str()).await?;
            let answer = enable(&found, false, options.reason.as_deref(), &api).await?;
            let generation = View(&answer).cell("generation");
            let probe = "`bouncerctl probe` shows when every bouncer has it";
            (answer, format!("revoked at the control plane: {path}, generation {generation}; {probe}"))
        }
    };
    if output.is_json() {
        output.json(&answer)?;
    } else {
        output.text(&said)?;
    }
    Ok(Exit::Ok)
}
