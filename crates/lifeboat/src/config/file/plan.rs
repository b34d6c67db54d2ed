//! What may be written about when things happen and what is promised: schedules, drills, scenarios, checklists.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{At, Named};

/// When backups of one sort are expected to be made. Exactly one of `at` and `every`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ScheduleFile {
    /// Minute, hour, day of the month, month, day of the week, as cron has them, in `instance.timezone`. `friL` is the last Friday of a month.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"0 3 * * 0")]
    pub(in crate::config) at: Option<At<String>>,
    /// The longest time between two backups.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"6h")]
    pub(in crate::config) every: Option<At<String>>,
    /// By which method, of a PostgreSQL cluster: `physical` or `logical`. Default: that of the component.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("enum" = ["physical", "logical", null]))]
    pub(in crate::config) method: Option<At<String>>,
    /// The word that these backups carry (`lifeboat backup --tag`), for `tags` of a retention.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"monthly")]
    pub(in crate::config) tag: Option<At<String>>,
    /// Which of the component's stores they go to (`lifeboat backup --to`). Default: all of them.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>", example = &["disk"])]
    pub(in crate::config) to: Option<Vec<At<String>>>,
    /// Somebody is to be told when none of these came for so long. Default: `alert_after` of the component.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"8d")]
    pub(in crate::config) alert_after: Option<At<String>>,
}

/// A rehearsal: what is restored, how often, and what it is to prove.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct DrillFile {
    /// When it is held, as cron writes it, in `instance.timezone`. `0 14 * * friL` is the last Friday of each month. Without `at` and `every`, only
    /// when somebody asks for it.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"0 14 * * friL")]
    pub(in crate::config) at: Option<At<String>>,
    /// The longest time between two of them. Instead of `at`.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"4w")]
    pub(in crate::config) every: Option<At<String>>,
    /// What is restored: components of the system, in this order. Default: all of them, in the order of recovery.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>", example = &["db"])]
    pub(in crate::config) components: Option<Vec<At<String>>>,
    /// Which moment is restored: `latest` or `random` (one that is within reach, by chance). Default: `latest`.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("enum" = ["latest", "random", null], "default" = "latest"))]
    pub(in crate::config) point: Option<At<String>>,
    /// From which store. Default: the first of the component's that has it.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"s3-eu")]
    pub(in crate::config) from: Option<At<String>>,
    /// Its parts, and how long each is planned to take; they are held in this order.
    #[serde(default)]
    #[schemars(with = "Option<std::collections::BTreeMap<String, PhaseText>>")]
    pub(in crate::config) phases: Option<Named<At<String>>>,
    /// What people do and look at, one sentence each.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>", example = &["the web page loads"])]
    pub(in crate::config) manual: Option<Vec<At<String>>>,
    /// The checklist of the system that goes with it.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"quarterly")]
    pub(in crate::config) checklist: Option<At<String>>,
    /// How much may be lost in it; `0s` for nothing at all. Default: what each component promises.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"1h")]
    pub(in crate::config) rpo: Option<At<String>>,
    /// How long it may take. Default: what each component promises.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"15m")]
    pub(in crate::config) rto: Option<At<String>>,
}

/// How long the part is planned to take.
#[derive(Debug, JsonSchema)]
#[expect(dead_code, reason = "gives the schema its description; never made")]
struct PhaseText(String);

/// A disaster that was thought of, and what is promised for it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ScenarioFile {
    /// How much may be lost. Default: what each component promises.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"24h")]
    pub(in crate::config) rpo: Option<At<String>>,
    /// How long it may take until people can work again.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"4h")]
    pub(in crate::config) rto: Option<At<String>>,
    /// Components that are restored, in this order: `COMPONENT` of the system, or `SYSTEM/COMPONENT`. Default: none.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>", example = &["pki", "db"])]
    pub(in crate::config) restore: Option<Vec<At<String>>>,
    /// Which moment is needed: `any` (also between two backups) or `backup`. Default: `backup`.
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("enum" = ["any", "backup", null], "default" = "backup"))]
    pub(in crate::config) point: Option<At<String>>,
    /// From which store. Default: the first of the component's that has it.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"s3-eu")]
    pub(in crate::config) from: Option<At<String>>,
    /// What people do, one sentence each.
    #[serde(default)]
    #[schemars(with = "Option<Vec<String>>", example = &["point the DNS entry to the new cluster"])]
    pub(in crate::config) manual: Option<Vec<At<String>>>,
}

/// One line of a checklist: a fact that Lifeboat knows by itself, or something that a person says. Exactly one of `fact` and `attest`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::config) struct ItemFile {
    /// A fact: `backup_fresh` (no scheduled backup is missing), `off_site_copy` (the newest backup stands in an off-site store), `encrypted`, `proven`
    /// (restored and checked, within the time that `within` says), `key_proven` (the private key opens the newest backup), `retention_held` (every
    /// tier has what it promises), `alerts` (every schedule has an `alert_after`).
    #[serde(default)]
    #[schemars(with = "Option<String>", extend("enum" = ["backup_fresh", "off_site_copy", "encrypted", "proven", "key_proven", "retention_held", "alerts", null]))]
    pub(in crate::config) fact: Option<At<String>>,
    /// With `fact: proven`: how long ago at most.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"30d")]
    pub(in crate::config) within: Option<At<String>>,
    /// What a person says, in a few words.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"the team is trained")]
    pub(in crate::config) attest: Option<At<String>>,
    /// With `attest`: for how long that holds.
    #[serde(default)]
    #[schemars(with = "Option<String>", example = &"90d")]
    pub(in crate::config) valid: Option<At<String>>,
}
