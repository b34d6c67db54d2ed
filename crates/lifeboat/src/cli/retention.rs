//! `lifeboat prune --report`: what each rule of retention promises, and what is there.

use lifeboat_model::ErrorKind;
use lifeboat_model::retention::{Compliance, Tier};
use lifeboat_repo::format_utc;
use serde_json::{Value, json};

use super::Cx;
use super::outcomes::Outcomes;
use crate::config::ComponentSettings;
use crate::exit::Exit;
use crate::render::text;

/// So many missing slots are named; the others are counted.
const NAMED: usize = 8;

/// What a component has in a store.
pub(super) struct Held<'a> {
    component: &'a str,
    store: &'a str,
    /// Name of its rules; none: everything is kept.
    rules: Option<&'a str>,
    compliance: &'a [Compliance],
}

impl<'a> Held<'a> {
    pub(super) fn of(component: &'a ComponentSettings, store: &'a str, compliance: &'a [Compliance]) -> Self {
        Self {
            component: &component.name,
            store,
            rules: component.retention.as_deref(),
            compliance,
        }
    }

    /// Adds it to what is printed.
    pub(super) fn tell(&self, cx: &Cx, outcomes: &mut Outcomes) {
        outcomes.but(self.exit());
        outcomes.good(cx, self.json(), &self.text());
    }

    /// Something that was promised is missing: an objective is missed.
    fn exit(&self) -> Exit {
        if self.compliance.iter().all(Compliance::is_held) {
            Exit::OK
        } else {
            Exit::of(ErrorKind::ObjectiveMissed)
        }
    }

    fn text(&self) -> String {
        let mut out = format!("{} in {}:", self.component, self.store);
        let Some(rules) = self.rules else {
            return out + " no rules, everything is kept\n";
        };
        out.push_str(&format!(" rules {rules}\n"));
        if self.compliance.is_empty() {
            out.push_str("  there is no backup\n");
        }
        for group in self.compliance {
            let reach = group.reach_us.map_or_else(String::new, |(oldest, newest)| {
                format!(", from {} to {}", text::time(oldest), text::time(newest))
            });
            out.push_str(&format!(
                "  {}{}: {}{reach}; {} proven by a restore; never below {}\n",
                group.method,
                if group.extract { " extracts" } else { "" },
                text::counted(u64::from(group.good), "good backup"),
                group.proven,
                group.never_below
            ));
            for tier in &group.tiers {
                out.push_str(&tier_text(tier));
            }
        }
        out
    }

    fn json(&self) -> Value {
        let groups: Vec<Value> = self.compliance.iter().map(group_json).collect();
        json!({ "component": self.component, "store": self.store, "rules": self.rules, "methods": groups })
    }
}

fn tier_text(tier: &Tier) -> String {
    let range = match (tier.held.last(), tier.held.first()) {
        (Some((oldest, _)), Some((newest, _))) if oldest != newest => format!(" ({oldest} to {newest})"),
        (Some((only, _)), _) => format!(" ({only})"),
        _ => String::new(),
    };
    let mut out = format!(
        "    {:<12} wants {:<5} has {}{range}",
        tier.rule,
        tier.wanted,
        tier.held.len()
    );
    if !tier.missing.is_empty() {
        let named: Vec<&str> = tier.missing.iter().take(NAMED).map(String::as_str).collect();
        let more = tier.missing.len().saturating_sub(NAMED);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        out.push_str(&format!("; MISSING {}: {}{more}", tier.missing.len(), named.join(", ")));
    } else if tier.before > 0 {
        out.push_str("; the rest lies before the first backup");
    }
    out.push('\n');
    out
}

fn group_json(group: &Compliance) -> Value {
    let slots = |held: &[(String, String)]| -> Vec<Value> {
        held.iter()
            .map(|(slot, backup)| json!({ "slot": slot, "backup": backup }))
            .collect()
    };
    let tiers: Vec<Value> = group
        .tiers
        .iter()
        .map(|tier| {
            json!({
                "rule": tier.rule, "wanted": tier.wanted, "held": slots(&tier.held), "missing": tier.missing, "before": tier.before,
            })
        })
        .collect();
    json!({
        "method": group.method,
        "extract": group.extract,
        "held": group.is_held(),
        "tiers": tiers,
        "good": group.good,
        "proven": group.proven,
        "never_below": group.never_below,
        "oldest": group.reach_us.map(|(oldest, _)| format_utc(oldest)),
        "newest": group.reach_us.map(|(_, newest)| format_utc(newest)),
    })
}
