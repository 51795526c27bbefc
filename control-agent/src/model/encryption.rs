//! What Calico has no field for of encryption between nodes: an annotation of a FelixConfiguration.

use super::scalar::either;

/// Whether nodes' workloads reach each other in clear where there is no key to encrypt with.
pub const ENCRYPTION: &str = "margay.io/encryption";

/// Reads [`ENCRYPTION`]: they do not, `Required`, or do as the pool says, `Preferred`.
///
/// # Errors
/// Anything else.
pub fn is_required(text: &str) -> Result<bool, String> {
    either(text, ["Required", "Preferred"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::load;

    #[test]
    fn anything_else_is_refused() {
        let refusals = |how: &str| {
            let text = format!(
                "apiVersion: projectcalico.org/v3\nkind: FelixConfiguration\n\
                 metadata: {{name: default, annotations: {{{ENCRYPTION}: {how}}}}}\n"
            );
            load(&text).unwrap().remove(0).unsupported()
        };
        assert_eq!(["Required", "Preferred"].map(|how| refusals(how).len()), [0, 0]);
        let why = refusals("Always").remove(0).to_string();
        assert!(why.contains("use Required or Preferred"), "{why}");
        assert_eq!(["Required", "Preferred"].map(is_required), [Ok(true), Ok(false)]);
    }
}
