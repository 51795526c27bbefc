//! What is wrong with a case, and where.

/// What is wrong with a case.
#[derive(Debug, PartialEq, Eq)]
pub struct Wrong {
    field: String,
    message: String,
}

impl Wrong {
    pub fn new(field: impl Into<String>, message: impl std::fmt::Display) -> Self {
        Self { field: field.into(), message: message.to_string() }
    }

    pub fn within(self, outer: impl std::fmt::Display) -> Self {
        let dot = if self.field.is_empty() { "" } else { "." };
        Self { field: format!("{outer}{dot}{}", self.field), message: self.message }
    }
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let colon = if self.field.is_empty() { "" } else { ": " };
        write!(f, "{}{colon}{}", self.field, self.message)
    }
}

impl std::error::Error for Wrong {}

impl From<serde_json::Error> for Wrong {
    fn from(error: serde_json::Error) -> Self {
        Self::new("", error)
    }
}
