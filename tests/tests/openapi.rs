//! The API is what its description says: schemathesis makes the calls that `/openapi.json` describes, thousands of them,
//! and finds no 5xx, no answer that is not described, and no call that forgot to ask for a token.

use bouncer_tests::stack::Stack;
use bouncer_tests::{Fault, Result, fault::Doing as _, tools};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// What must hold of every answer.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
                      response_schema_conformance,response_headers_conformance,ignored_auth,unsupported_method,\
                      ensure_resource_availability,missing_required_header";

/// Nobody is held up for calling often.
const UNLIMITED: &str = "[api]\nrequests_per_second = 100000\n";

/// Whether nothing was found, and what was said.
async fn holds(stack: &Stack, schema: &str, more: &[&str]) -> Result<(bool, String)> {
    let control_plane = stack.control_plane.as_ref().ok_or_else(|| Fault::new("no control plane"))?;
    let mut command = Command::new(tools::tool("schemathesis")?);
    command.arg("run").arg(schema).args(["--url", &control_plane.url(), "-c", CHECKS]);
    command.args(["-H", &format!("Authorization: Bearer {}", control_plane.token())]);
    // The same calls each time; how long one takes is not what is asked here.
    command.args(["--seed", "1", "--no-color", "--suppress-health-check", "all", "--request-timeout", "60"]);
    command.args(more).current_dir(stack.scratch.path()).env("COLUMNS", "200");
    let output = tokio::task::spawn_blocking(move || command.output()).await?.doing("schemathesis")?;
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    match output.status.code() {
        Some(0) => Ok((true, said)),
        Some(1) => Ok((false, said)),
        _ => Err(Fault::new("schemathesis did not run").with_evidence(said)),
    }
}

fn write(folder: &Path, document: &Value) -> Result<String> {
    let path = folder.join("openapi.json");
    std::fs::write(&path, document.to_string())?;
    Ok(path.display().to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_answer_is_one_that_the_description_has() -> Result<()> {
    let stack = Stack::builder("openapi").without_envoy().control_plane(UNLIMITED).start().await?;
    let document = stack.api()?.get("/openapi.json").await?.success()?;
    let schema = write(stack.scratch.path(), &document)?;
    // Without the flag there would be little left to ask.
    let calls = [
        "--max-examples",
        "25",
        "--phases",
        "examples,coverage,fuzzing,stateful",
        "--exclude-operation-id",
        "put_feature_flag",
    ];
    let (good, said) = holds(&stack, &schema, &calls).await?;
    assert!(good, "{said}");
    let operations: usize = document["paths"]
        .as_object()
        .map_or(0, |paths| paths.values().filter_map(Value::as_object).map(serde_json::Map::len).sum());
    let tested = format!("Tested: {}", operations - 1);
    assert!(said.contains(&tested), "not every call was made ({tested}):\n{said}");
    assert_eq!(stack.api()?.get("/v1/session").await?.status, 200, "the token was good to the end");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_a_description_that_is_wrong_is_found_out() -> Result<()> {
    let stack = Stack::builder("openapi-control").without_envoy().control_plane(UNLIMITED).start().await?;
    let mut document = stack.api()?.get("/openapi.json").await?.success()?;
    let answers = &mut document["paths"]["/v1/bouncers"]["get"]["responses"];
    let answer = answers["200"].take();
    *answers = serde_json::json!({ "204": answer });
    let schema = write(stack.scratch.path(), &document)?;
    let only = ["--max-examples", "2", "--phases", "examples,fuzzing", "--include-operation-id", "list_bouncers"];
    let (good, said) = holds(&stack, &schema, &only).await?;
    assert!(!good && said.contains("Undocumented status code"), "{said}");
    Ok(())
}
