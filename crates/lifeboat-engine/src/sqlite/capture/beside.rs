//! The part of a capture that comes after the pages: SQL text and extracts, on the same connection and in the same transaction.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_model::{Error, ErrorKind, Result};
use rusqlite::Connection;

use super::super::dump::{Dump, Flow};
use super::super::extract::ExtractFacts;
use super::super::queue::{Pushed, Queue};
use super::super::source::SourceFile;
use super::super::stream::{Beside, dump_name};
use super::{CaptureOptions, PATIENCE, Reading, Transaction, abandoned};

/// The streams that were asked for, in their order.
pub(super) fn streams(options: &CaptureOptions, file: &SourceFile) -> Result<Vec<Beside>> {
    let dump = options.sql_dump.then(|| dump_name(&file.file_name));
    let names: Vec<String> = dump
        .into_iter()
        .chain(options.extracts.iter().map(|extract| extract.file.clone()))
        .collect();
    for (index, name) in names.iter().enumerate() {
        if *name == file.file_name || names.iter().take(index).any(|other| other == name) {
            let detail = "two files of the backup would have this name";
            return Err(Error::new(ErrorKind::ConfigInvalid, "make the extract", name, detail)
                .with_hint("give the extract another `file` in lifeboat.yaml"));
        }
    }
    Ok(names.into_iter().map(Beside::new).collect())
}

impl Reading {
    pub(super) fn queues(&self) -> Vec<Arc<Queue>> {
        let beside = self.beside.iter().map(|(_, queue)| Arc::clone(queue));
        std::iter::once(Arc::clone(&self.queue)).chain(beside).collect()
    }

    /// The SQL text. In rollback-journal mode the lock is let go and taken again as for the pages.
    pub(super) fn dump(&self, transaction: &mut Transaction<'_>, wal: bool, stall: &mut Duration) -> Result<Option<String>> {
        let Some((name, queue)) = self.beside.first().filter(|_| self.options.sql_dump) else {
            return Ok(None);
        };
        let mut dump = Dump::new(transaction.connection, transaction.path)?;
        let mut offset = 0;
        loop {
            let (mut waiting, since) = (None, transaction.since);
            let done = dump.run(transaction.connection, transaction.path, &mut |buffer| {
                // What found no room waits until the lock is gone.
                if let Some(segment) = waiting.take()
                    && !matches!(queue.push(segment, None), Pushed::Queued)
                {
                    return Err(abandoned(transaction.path));
                }
                let piece = std::mem::take(buffer);
                let segment = (offset, piece);
                offset += segment.1.len() as u64;
                let held = self.clock.monotonic().saturating_sub(since);
                let patience = (!wal).then(|| self.options.max_stall.saturating_sub(held));
                match queue.push(segment, patience) {
                    Pushed::Abandoned => Err(abandoned(transaction.path)),
                    Pushed::Full(segment) => {
                        waiting = Some(segment);
                        Ok(Flow::Stop)
                    }
                    Pushed::Queued if patience.is_some_and(|left| left.is_zero()) => Ok(Flow::Stop),
                    Pushed::Queued => Ok(Flow::Go),
                }
            })?;
            if !done || waiting.is_some() {
                self.renew(transaction, waiting.map(|segment| (queue.as_ref(), segment)), stall)?;
            }
            if done {
                queue.finish(false);
                return Ok(Some(name.clone()));
            }
        }
    }

    /// The extracts, each within the time that writers may be kept waiting.
    pub(super) fn extracts(
        &self,
        connection: &mut Connection,
        wal: bool,
        since: Duration,
    ) -> Result<BTreeMap<String, ExtractFacts>> {
        let path = self.options.path.as_path();
        let skip = usize::from(self.options.sql_dump);
        let mut facts = BTreeMap::new();
        for (extract, (name, queue)) in self.options.extracts.iter().zip(self.beside.iter().skip(skip)) {
            let mut offset = 0;
            let found = extract.run(connection, path, &mut |buffer| {
                let segment = (offset, std::mem::take(buffer));
                offset += segment.1.len() as u64;
                let held = self.clock.monotonic().saturating_sub(since);
                let patience = (!wal).then(|| self.options.max_stall.saturating_sub(held));
                match queue.push(segment, patience) {
                    Pushed::Queued => Ok(Flow::Go),
                    Pushed::Abandoned => Err(abandoned(path)),
                    Pushed::Full(_) => {
                        let detail = format!(
                            "it took longer than {:?}, the longest that writers may be kept waiting in rollback-journal mode",
                            self.options.max_stall
                        );
                        Err(Error::new(ErrorKind::TimedOut, "make the extract", name, detail).with_hint(PATIENCE))
                    }
                }
            })?;
            queue.finish(false);
            facts.insert(name.clone(), found);
        }
        Ok(facts)
    }
}
