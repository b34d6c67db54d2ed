//! `lifeboat catalog`: make the cache of the ledger anew.

use lifeboat_model::Result;
use lifeboat_ops::ledger::{self, Catalog};
use lifeboat_ops::protected::Protected;
use serde_json::json;

use super::Cx;
use super::args::{Audited, Catalog as Command};
use super::context::Context;
use super::outcomes::Outcomes;
use crate::exit::Exit;
use crate::render::{json as document, tell, text};

pub(super) async fn run(cx: &Cx, command: Command) -> Result<Exit> {
    let Command::Rebuild(Audited { what }) = command;
    let context = Context::load(cx)?;
    let components = context.select(&what)?;
    let key = Protected::instance_key(&context.settings.state_dir);
    let own = lifeboat_repo::Instance::load(&context.settings.instance_name, &key);
    let mut catalog = Catalog::remake(&context.settings.state_dir, own.ok().map(|instance| instance.public_key()))?;
    let mut outcomes = Outcomes::new(components.len());
    for component in components {
        let rebuilt = async { ledger::rebuild(&context.for_ledger(component).await?, &mut catalog).await };
        match rebuilt.await {
            Ok(rebuilt) => {
                for (store, error) in &rebuilt.away {
                    outcomes.but(Exit::INCOMPLETE);
                    if !cx.out.json {
                        tell(&format!(
                            "warning: {}: THE STORE {store} was left out: {error}",
                            component.name
                        ));
                    }
                }
                let mut said = format!(
                    "{}: {}; {} and {} of a checklist that this machine did not know",
                    component.name,
                    text::counted(rebuilt.records, "record"),
                    text::counted(rebuilt.proofs, "proof"),
                    text::counted(rebuilt.attestations, "tick"),
                );
                if rebuilt.broken_chains > 0 {
                    said.push_str(&format!(
                        "; {} not hold, and no tick is taken from there: `lifeboat audit verify` says what is wrong",
                        if rebuilt.broken_chains == 1 {
                            "1 chain does".to_owned()
                        } else {
                            format!("{} chains do", rebuilt.broken_chains)
                        }
                    ));
                }
                if rebuilt.refused > 0 {
                    said.push_str("; not all files are records: `lifeboat audit verify` says more");
                }
                let away = rebuilt.away.iter();
                let json = json!({
                    "component": component.name,
                    "records": rebuilt.records,
                    "proofs": rebuilt.proofs,
                    "attestations": rebuilt.attestations,
                    "broken_chains": rebuilt.broken_chains,
                    "refused": rebuilt.refused,
                    "away": away.map(|(store, error)| json!({ "store": store, "error": document::error(error) })).collect::<Vec<_>>(),
                });
                outcomes.good(cx, json, &said);
            }
            Err(error) => outcomes.bad(cx, &component.name, error),
        }
    }
    outcomes.finish(cx, "catalog-rebuild")
}
