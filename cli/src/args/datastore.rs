//! `datastore`: where objects live.

use clap::{Args, Subcommand};

use crate::args::ObjectFormat;

/// `datastore`.
#[derive(Debug, Subcommand)]
pub enum Datastore {
    /// Let go of what the store has lost.
    #[command(after_help = "\
Examples:
  margayctl datastore confirm --dry-run
  margayctl datastore confirm

Where etcd has lost many objects at once, as if it had been emptied or set back to an older copy, an agent keeps them in
force, and says so in `margayctl status`. Restore etcd, or apply them again; or confirm on each node that they are
meant to be gone.")]
    Confirm(Confirm),
}

/// `datastore confirm`.
#[derive(Args, Debug)]
pub struct Confirm {
    /// Only show what would go.
    #[arg(long)]
    pub dry_run: bool,

    /// How to print it.
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: ObjectFormat,
}
