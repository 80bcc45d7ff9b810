//! Reading the API's answers leniently: what is missing is shown as absent, what is unknown is passed over.

use serde_json::Value;

/// An answer, or a part of one.
#[derive(Debug, Clone, Copy)]
pub(super) struct View<'a>(pub &'a Value);

const NULL: &Value = &Value::Null;

impl<'a> View<'a> {
    /// A member; null where there is none.
    pub(super) fn get(self, name: &str) -> View<'a> {
        View(self.0.get(name).unwrap_or(NULL))
    }

    /// A member as text: strings as they are, numbers and truths spelt out, `-` for what is missing or empty.
    pub(super) fn cell(self, name: &str) -> String {
        match self.get(name).0 {
            Value::String(text) if !text.is_empty() => text.clone(),
            Value::Number(number) => number.to_string(),
            Value::Bool(true) => "yes".to_owned(),
            Value::Bool(false) => "no".to_owned(),
            Value::Array(list) if !list.is_empty() => {
                list.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
            }
            _ => "-".to_owned(),
        }
    }

    /// A member as text, empty where it is missing.
    pub(super) fn text(self, name: &str) -> &'a str {
        self.get(name).0.as_str().unwrap_or_default()
    }

    /// A member that is a truth; `None` where it is missing.
    pub(super) fn flag(self, name: &str) -> Option<bool> {
        self.get(name).0.as_bool()
    }

    /// A member that is a whole number.
    pub(super) fn number(self, name: &str) -> Option<u64> {
        self.get(name).0.as_u64()
    }

    /// What the control plane finds doubtful about what it stored, one text each.
    pub(super) fn warnings(self) -> Vec<String> {
        let of = |warning: View<'a>| match (warning.0.as_str(), warning.text("detail"), warning.text("code")) {
            (Some(text), ..) => text.to_owned(),
            (None, detail, "") => detail.to_owned(),
            (None, detail, code) => format!("{detail} ({code})"),
        };
        let warnings = self.get("warnings").0.as_array().into_iter().flatten();
        warnings.map(|warning| of(View(warning))).filter(|text| !text.is_empty()).collect()
    }

    /// The elements of a member, or of the answer itself where it is a list.
    pub(super) fn list(self, name: &str) -> impl Iterator<Item = View<'a>> + use<'a> {
        let list = self.0.as_array().or_else(|| self.get(name).0.as_array());
        list.into_iter().flatten().map(View)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lists_are_found_bare_and_wrapped() {
        assert_eq!(View(&json!([{"a": 1}])).list("items").count(), 1);
        assert_eq!(View(&json!({"items": [1, 2]})).list("items").count(), 2);
        assert_eq!(View(&json!({"other": [1, 2]})).list("items").count(), 0);
    }

    #[test]
    fn warnings_are_told_in_words() {
        let answer = json!({"warnings": ["plain", {"code": "x_y", "detail": "It is so."}, 3]});
        assert_eq!(View(&answer).warnings(), ["plain", "It is so. (x_y)"]);
    }

    #[test]
    fn what_is_missing_is_a_dash() {
        let json = json!({"a": "", "b": true, "c": 3, "d": ["x", "y"], "e": null});
        let cells: Vec<_> = ["a", "b", "c", "d", "e", "f"].iter().map(|name| View(&json).cell(name)).collect();
        assert_eq!(cells, ["-", "yes", "3", "x y", "-", "-"]);
    }
}
