//! The headers that calls take and answer with, for the API's description: said once, of every call of a kind. A test makes
//! the calls and compares.

use super::session::CSRF;
use http::header;
use std::collections::BTreeSet;
use utoipa::openapi::path::{Operation, Parameter, ParameterBuilder, ParameterIn};
use utoipa::openapi::{HeaderBuilder, Object, ObjectBuilder, OpenApi, RefOr, Required, Response, Schema, Type};

/// What is registered has revisions: a change of it may be made conditional.
const WITH_REVISIONS: [&str; 3] = ["crypto", "flags", "registry"];
const PROBLEM: &str = "application/problem+json";

/// Adds to every call the headers that it takes and answers with.
pub(super) fn describe(document: &mut OpenApi) {
    let tagged = with_revision(document);
    for item in document.paths.paths.values_mut() {
        for call in [&mut item.put, &mut item.post, &mut item.patch, &mut item.delete].into_iter().flatten() {
            call.parameters.get_or_insert_default().push(csrf().into());
            if has_revisions(call) {
                call.parameters.get_or_insert_default().extend(conditions().map(RefOr::T));
            }
        }
        if let Some(call) = item.post.as_mut().filter(|call| has_revisions(call)) {
            call.parameters.get_or_insert_default().push(idempotency_key().into());
        }
        for call in
            [&mut item.get, &mut item.put, &mut item.post, &mut item.patch, &mut item.delete].into_iter().flatten()
        {
            for (status, answer) in &mut call.responses.responses {
                if let RefOr::T(answer) = answer {
                    answered(status, answer, &tagged);
                }
            }
        }
    }
}

fn has_revisions(call: &Operation) -> bool {
    call.tags.iter().flatten().any(|tag| WITH_REVISIONS.contains(&tag.as_str()))
}

/// Answers about one thing of a revision, whose entity tag that is.
fn with_revision(document: &OpenApi) -> BTreeSet<String> {
    let has = |schema: &RefOr<Schema>| matches!(schema, RefOr::T(Schema::Object(object)) if object.properties.contains_key("revision"));
    let schemas = document.components.iter().flat_map(|components| &components.schemas);
    schemas.filter(|(_, schema)| has(schema)).map(|(name, _)| format!("#/components/schemas/{name}")).collect()
}

fn answered(status: &str, answer: &mut Response, tagged: &BTreeSet<String>) {
    let schema = match answer.content.get("application/json") {
        Some(RefOr::T(content)) => content.schema.as_ref(),
        _ => None,
    };
    let is_tagged = matches!(schema, Some(RefOr::Ref(schema)) if tagged.contains(&schema.ref_location));
    let is_problem = answer.content.contains_key(PROBLEM);
    let (name, schema, description) = match status {
        "200" | "201" if is_tagged => (
            header::ETAG,
            ObjectBuilder::new().schema_type(Type::String).pattern(Some(r#"^"r[0-9]+"$"#)).build(),
            "The entity tag, for If-Match: `\"r<revision>\"`",
        ),
        "202" | "303" => (header::LOCATION, Object::with_type(Type::String), "Where it waits, or where to go on"),
        "401" if is_problem => {
            (header::WWW_AUTHENTICATE, Object::with_type(Type::String), "That a bearer token is asked for (RFC 6750)")
        }
        "429" | "503" if is_problem => {
            (header::RETRY_AFTER, Object::with_type(Type::Integer), "In how many seconds it is worth another try")
        }
        _ => return,
    };
    let described = HeaderBuilder::new().schema(Some(schema)).description(Some(description)).build();
    answer.headers.insert(name.to_string(), described.into());
}

fn taken(name: &str, schema: ObjectBuilder, description: &str) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(schema.schema_type(Type::String)))
        .build()
}

fn csrf() -> Parameter {
    taken(CSRF, ObjectBuilder::new(), "The `csrf_token` of GET /v1/session. Only a call by cookie needs it.")
}

fn conditions() -> [Parameter; 2] {
    const TAGS: &str = r#"^(\*|"r[0-9]{1,18}"(, "r[0-9]{1,18}"){0,15})$"#;
    [
        taken(
            "If-Match",
            ObjectBuilder::new().pattern(Some(TAGS)).examples(["\"r42\""]),
            "Only if it still is as it was read: up to 16 entity tags, or `*`. Else 412.",
        ),
        taken(
            "If-None-Match",
            ObjectBuilder::new().enum_values(Some(["*"])),
            "Only if there is none yet. Else 412. Passed over beside If-Match.",
        ),
    ]
}

fn idempotency_key() -> Parameter {
    taken(
        "Idempotency-Key",
        ObjectBuilder::new().min_length(Some(8)).max_length(Some(255)).pattern(Some("^[!#-~]{8,255}$")),
        "A random text, the same for the same call: sent again within a day, it is made once and answered alike.",
    )
}
