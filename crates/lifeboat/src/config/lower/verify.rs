//! Proofs that are given again and again.

use lifeboat_model::time::parse_size;
use lifeboat_ops::Source;
use lifeboat_ops::proof::Level;
use lifeboat_ops::verify::due::Wanted;

use super::Lowering;
use crate::config::file::{At, ComponentFile};
use crate::config::problem::Problem;

impl Lowering<'_> {
    /// What is wanted how often, the nearest level first.
    pub(super) fn verifications(&mut self, full: &str, component: &ComponentFile, source: &Source) -> Vec<Wanted> {
        let Some(file) = &component.verify else {
            return Vec::new();
        };
        let mut wanted = Vec::new();
        if let Some(hash) = &file.hash {
            wanted.push(Wanted {
                level: Level::Hash,
                every: self.some_duration(&hash.every, "every", "1d"),
                budget_bytes: hash.budget.as_ref().and_then(|budget| self.budget(full, budget)),
            });
        }
        let plain = [
            (Level::Decrypt, &file.decrypt),
            (Level::Restore, &file.restore),
            (Level::App, &file.app),
        ];
        for (level, every) in plain {
            if let Some(every) = every {
                // Where nothing more is asked there are no checks but those of a restore.
                let farthest = if source.asks_more() { Level::App } else { Level::Restore };
                wanted.push(Wanted {
                    level: level.min(farthest),
                    every: self.some_duration(&every.every, "every", "7d"),
                    budget_bytes: None,
                });
            }
        }
        wanted
    }

    fn budget(&mut self, full: &str, text: &At<String>) -> Option<u64> {
        match parse_size(&text.value) {
            Ok(0) => {
                self.problems.push(
                    Problem::at(text.place, format!("with the budget of {full} nothing would ever be read"))
                        .help("write how much is read each time, for example 20GiB, or leave it out"),
                );
                None
            }
            Ok(bytes) => Some(bytes),
            Err(error) => {
                self.problems.push(
                    Problem::at(text.place, "`budget` is not a size")
                        .label(error.detail().to_owned())
                        .help("write a number and a unit, for example 20GiB"),
                );
                None
            }
        }
    }
}
