//! `selector`: questions about selectors.

use std::path::PathBuf;

use clap::Subcommand;

/// `selector`.
#[derive(Debug, Subcommand)]
pub enum SelectorCommand {
    /// Evaluate selectors against labels, one JSON object a line.
    #[command(after_help = "\
Example:
  echo '{\"selector\":\"role == \\\"web\\\"\",\"labels\":{\"role\":\"web\"}}' | margayctl selector eval -

Answers each line with {\"valid\":true,\"match\":...,\"canonical\":...,\"uid\":...} or {\"valid\":false,\"error\":...}.")]
    Eval {
        /// A file, or - for standard input.
        file: PathBuf,
    },
}
