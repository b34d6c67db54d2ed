//! What may be written about the care of a bucket: locks, cold packs, and the credentials for both.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, SecretFile};

/// Every new file is locked against deletion for a time.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct LockFile {
    /// Who may end a lock early: `governance` (credentials with a special permission, which Lifeboat's do not need) or `compliance` (nobody,
    /// not even the owner of the account).
    #[schemars(with = "String", extend("enum" = ["governance", "compliance"]))]
    pub(in crate::config) mode: At<String>,
    /// Days from the put. Space of deleted backups comes back only after them.
    #[schemars(with = "u32", range(min = 1, max = 36500), example = &14)]
    pub(in crate::config) days: At<u32>,
}

/// Packs that recent backups do not reach move to a cheaper class. It is never a matter of their age: the newest backup needs packs of the
/// very first day.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ColdFile {
    /// A pack moves when no backup of this last time reaches it. The newest backup never moves.
    #[schemars(with = "String", example = &"30d")]
    pub(in crate::config) unreached_for: At<String>,
    /// Where it moves to: `GLACIER` (3 to 5 hours until it can be read), `DEEP_ARCHIVE` (12 hours), or a class that can be read at once.
    #[schemars(with = "String", example = &"GLACIER")]
    pub(in crate::config) storage_class: At<String>,
}

/// Credentials that may delete, extend locks and set the bucket up. Keep them off the hosts that only write backups.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct MaintenanceFile {
    /// Access key.
    #[schemars(with = "SecretFile")]
    pub(in crate::config) access_key: At<SecretFile>,
    /// Its secret key.
    #[schemars(with = "SecretFile")]
    pub(in crate::config) secret_key: At<SecretFile>,
    /// Session token of temporary keys.
    #[serde(default)]
    #[schemars(with = "Option<SecretFile>")]
    pub(in crate::config) session_token: Option<At<SecretFile>>,
}
