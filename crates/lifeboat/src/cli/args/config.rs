//! What may be typed behind `config`.

use clap::Subcommand;

use super::super::examples;

/// `config`.
#[derive(Debug, Subcommand)]
pub(crate) enum Config {
    /// Say what is wrong, with line and column, and whether the plan can keep what it promises: exit 4 where it cannot.
    #[command(after_help = examples::CONFIG_CHECK)]
    Check {
        /// Only say what a code of a finding means, and how it is mended.
        #[arg(long, value_name = "CODE")]
        explain: Option<String>,
    },
    /// Print the configuration in force, defaults filled in, secrets masked.
    #[command(after_help = examples::CONFIG_SHOW)]
    Show {
        /// Also say where each value comes from: which line, which variable, or the default.
        #[arg(long)]
        origin: bool,
    },
    /// Print the JSON Schema of lifeboat.yaml.
    #[command(after_help = examples::CONFIG_SCHEMA)]
    Schema,
}
