//! RFC 9457 problem documents, as far as they help a person.

use serde_json::Value;

/// What the control plane says about a refusal. Every part may be missing: a proxy in between may have answered.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Problem {
    /// The last part of `type`, such as `feature_disabled`.
    pub code: String,
    /// `title`.
    pub title: String,
    /// `detail`.
    pub detail: String,
    /// The fields that were not accepted, one line each.
    pub errors: Vec<String>,
    /// `next`: what to do.
    pub next: String,
}

impl Problem {
    /// Takes what is there. Unknown members are ignored, wrong types too.
    pub(crate) fn read(json: &Value) -> Self {
        let text = |name: &str| json.get(name).and_then(Value::as_str).map(str::trim).unwrap_or_default().to_owned();
        let errors =
            json.get("errors").and_then(Value::as_array).into_iter().flatten().filter_map(field_error).collect();
        let kind = text("type");
        let code = kind.rsplit_once(':').map_or("", |(_, code)| code).to_owned();
        Self { code, title: text("title"), detail: text("detail"), errors, next: text("next") }
    }

    /// Title, detail and faulty fields as one text; empty where nothing is known.
    pub(crate) fn say(&self) -> String {
        let mut text = match (self.title.trim_end_matches('.'), self.detail.as_str()) {
            ("", detail) => detail.to_owned(),
            (title, "") => title.to_owned(),
            (title, detail) => format!("{title}: {detail}"),
        };
        for error in &self.errors {
            text.push('\n');
            text.push_str(error);
        }
        text
    }
}

fn field_error(error: &Value) -> Option<String> {
    let detail = error.get("detail")?.as_str()?;
    Some(match error.get("field").and_then(Value::as_str) {
        Some(field) => format!("{field}: {detail}"),
        None => detail.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_there_is_told_and_the_rest_ignored() {
        let problem = Problem::read(&json!({
            "type": "urn:bouncer:problem:invalid_fields", "title": "Fields are not valid", "detail": "1 of them", "status": 422,
            "errors": [{"field": "notes", "detail": "must not be empty"}, {"x": 1}, 7], "next": "Correct it.", "new": {"x": 1},
        }));
        assert_eq!(problem.say(), "Fields are not valid: 1 of them\nnotes: must not be empty");
        assert_eq!((problem.code.as_str(), problem.next.as_str()), ("invalid_fields", "Correct it."));
        assert_eq!(Problem::read(&json!([1])).say(), "");
        assert_eq!(Problem::read(&json!({"title": 3, "type": 4})), Problem::default());
    }
}
