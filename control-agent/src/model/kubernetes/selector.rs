//! Kubernetes' label selectors, as Calico's.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::model::Selector;
use crate::model::selector::MAX_LENGTH;

/// Both parts AND. Empty: everything.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct LabelSelector {
    /// Labels with these values.
    pub match_labels: BTreeMap<String, String>,
    /// All of these.
    pub match_expressions: Vec<Requirement>,
}

/// What one label must be like.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requirement {
    /// The label.
    pub key: String,
    /// How it is compared.
    pub operator: Operator,
    /// For `In` and `NotIn`: one or more.
    #[serde(default)]
    pub values: Vec<String>,
}

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[allow(missing_docs, reason = "as Kubernetes names them")]
pub enum Operator {
    In,
    NotIn,
    Exists,
    DoesNotExist,
}

impl LabelSelector {
    /// In Calico's language.
    ///
    /// # Errors
    /// What makes it no selector, in one sentence.
    pub fn selector(&self) -> Result<String, String> {
        let mut terms = Vec::new();
        for (key, value) in &self.match_labels {
            terms.push(format!("{} == {}", label(key)?, quoted(value)?));
        }
        for Requirement { key, operator, values } in &self.match_expressions {
            let listed = matches!(operator, Operator::In | Operator::NotIn);
            if listed == values.is_empty() {
                let what = if listed { "needs values" } else { "takes no values" };
                return Err(format!("{operator:?} of the label {key:?} {what}"));
            }
            let key = label(key)?;
            let set = values.iter().map(|value| quoted(value)).collect::<Result<Vec<_>, _>>()?.join(", ");
            terms.push(match operator {
                Operator::In => format!("{key} in {{{set}}}"),
                Operator::NotIn => format!("{key} not in {{{set}}}"),
                Operator::Exists => format!("has({key})"),
                Operator::DoesNotExist => format!("!has({key})"),
            });
        }
        let text = if terms.is_empty() { "all()".to_owned() } else { terms.join(" && ") };
        match Selector::parse(&text) {
            Ok(_) if text.len() <= MAX_LENGTH => Ok(text),
            Ok(_) => Err(format!("it is longer than {MAX_LENGTH} bytes in Calico's language; shorten it")),
            Err(error) => Err(format!("it does not make a selector: {text}: {error}")),
        }
    }
}

/// A key that is one label in Calico's language, too.
fn label(key: &str) -> Result<&str, String> {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '/' | '-');
    if key.is_empty() || !key.chars().all(fits) {
        return Err(format!("{key:?} is not a label; use letters, digits, '-', '_', '.' and '/'"));
    }
    Ok(key)
}

/// A value that ends where it should.
fn quoted(value: &str) -> Result<String, String> {
    if value.contains('"') {
        return Err(format!("{value:?} is not the value of a label; use letters, digits, '-', '_' and '.'"));
    }
    Ok(format!("\"{value}\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn selector(yaml: &str) -> Result<String, String> {
        serde_yaml_ng::from_str::<LabelSelector>(yaml).unwrap().selector()
    }

    #[test]
    fn requirements_become_terms() {
        assert_eq!(selector("{}").unwrap(), "all()");
        let text = "{matchLabels: {a: b}, matchExpressions: [{key: c, operator: In, values: [d, e]}, \
                    {key: f, operator: NotIn, values: [g]}, {key: h, operator: Exists}, {key: i, operator: DoesNotExist}]}";
        let wanted = r#"a == "b" && c in {"d", "e"} && f not in {"g"} && has(h) && !has(i)"#;
        assert_eq!(selector(text).unwrap(), wanted);
    }

    #[test]
    fn what_would_mean_something_else_is_refused() {
        assert!(
            selector("{matchExpressions: [{key: a, operator: In}]}").unwrap_err().contains("needs values")
        );
        let with = selector("{matchExpressions: [{key: a, operator: Exists, values: [b]}]}");
        assert!(with.unwrap_err().contains("takes no values"));
        for key in ["a) || has(b", "a b", ""] {
            let text = format!("{{matchExpressions: [{{key: '{key}', operator: Exists}}]}}");
            assert!(selector(&text).unwrap_err().contains("is not a label"), "{key}");
        }
        assert!(
            selector("{matchLabels: {a: 'b\" || has(c) || d == \"'}}")
                .unwrap_err()
                .contains("is not the value")
        );
    }
}
