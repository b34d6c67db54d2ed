//! What may be written about proofs that are given again and again.

use schemars::JsonSchema;
use serde::Deserialize;

use super::At;

/// How often each level of `lifeboat verify` is wanted. A level that goes farther counts for those before it, and so does a drill.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct VerifyFile {
    /// Every file that is stored is read; with a `budget`, of all backups, a slice at a time.
    #[serde(default)]
    pub(in crate::config) hash: Option<HashFile>,
    /// Everything of the newest backup opens.
    #[serde(default)]
    pub(in crate::config) decrypt: Option<EveryFile>,
    /// The newest backup is restored into a scratch folder and checked.
    #[serde(default)]
    pub(in crate::config) restore: Option<EveryFile>,
    /// The same, and checked as the application sees it.
    #[serde(default)]
    pub(in crate::config) app: Option<EveryFile>,
}

/// How often.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct EveryFile {
    /// The longest time between two.
    #[schemars(with = "String", example = &"7d")]
    pub(in crate::config) every: At<String>,
}

/// How often, and how much of it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct HashFile {
    /// The longest time between two.
    #[schemars(with = "String", example = &"1d")]
    pub(in crate::config) every: At<String>,
    /// About so many bytes of each store are read each time, of all backups, what was read longest ago first. Without it, the newest backup.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"20GiB")]
    pub(in crate::config) budget: Option<At<String>>,
}
