//! What counts is judged in every store by itself (docs/several-stores.md): whether the parent may be built upon there before a common
//! session writes, and whether its backup counts there when all is put.
//!
//! A store where a list in `prune/` touches the parent, or holds something that cannot be judged, leaves for a session of its own. One that
//! has left keeps no announcement: it would name a parent that may not be there, and stop the pruner there. Deletes nothing else.

use std::collections::BTreeMap;
use std::time::Duration;

use lifeboat_model::protocol::{self, Marks};
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_store::{BlobStore, Entry, Key};

use super::{Replicas, Wanted};
use crate::id::{BackupId, ComponentName};
use crate::key::instance::Trust;
use crate::listing::Rejected;
use crate::prune::marks::{marks_of, read_sweeps};
use crate::prune::records::Place;
use crate::repository::Repository;

/// How long a store that has left may take to give up its announcement, which goes by itself later.
const WITHDRAWAL: Duration = Duration::from_secs(10);

/// What lists of one store say about the parent.
enum Verdict {
    /// Nothing.
    Free,
    /// It is on its way out there.
    Touched(Vec<Marks<Key>>),
    /// Nobody knows.
    Doubt(Error),
}

/// What all stores mark of the parent; or why nobody can say.
pub(crate) type Condemned = std::result::Result<Vec<Marks<Key>>, Error>;

impl Replicas {
    /// Reads what is being deleted in each store, and sends those apart where it touches `parent`, or cannot be judged, as long as another
    /// store has the parent and nothing in its way. If none has, nobody leaves, and the answer says why the parent must not be used:
    /// then the backup is full in all of them. Before the announcement it spares it; **after** it this is step 2 of the writer.
    pub(crate) async fn send_apart(
        &self,
        component: &ComponentName,
        trust: &Trust,
        parent: &protocol::Backup<Key>,
        backup: &BackupId,
    ) -> Result<Condemned> {
        let verdicts = self.verdicts(component, trust, parent).await?;
        if verdicts.iter().all(|(_, verdict)| matches!(verdict, Verdict::Free)) {
            return Ok(Ok(Vec::new()));
        }
        let standing = self.list_each(&component.folder()?.join("backups")?).await?;
        let stands = |place: &usize| {
            let there = standing.iter().find(|(there, _)| there == place);
            there.is_some_and(|(_, files)| files.contains_key(&parent.name))
        };
        let usable = verdicts
            .iter()
            .any(|(place, verdict)| matches!(verdict, Verdict::Free) && stands(place));
        let (mut marks, mut doubt) = (Vec::new(), None);
        for (place, verdict) in verdicts {
            let why = match verdict {
                Verdict::Free => continue,
                Verdict::Touched(touching) => {
                    marks.extend(touching);
                    format!("backup {}, or a file of it, is going to be deleted there", backup.short())
                }
                Verdict::Doubt(error) => {
                    let why = format!("nobody knows what is being deleted there: {error}");
                    doubt.get_or_insert(error);
                    why
                }
            };
            if usable {
                let member = &self.members[place];
                let error = Error::new(ErrorKind::Refused, "write the common session into", &member.name, why);
                member.leave(error, true);
            }
        }
        Ok(match doubt {
            _ if usable => Ok(Vec::new()),
            Some(doubt) => Err(doubt),
            None => Ok(marks),
        })
    }

    async fn verdicts(
        &self,
        component: &ComponentName,
        trust: &Trust,
        parent: &protocol::Backup<Key>,
    ) -> Result<Vec<(usize, Verdict)>> {
        let answers = self
            .ask(&self.live(), |store| {
                let (component, trust, repository) = (component.clone(), trust.clone(), Repository::in_one(store, self.id));
                async move {
                    let place = Place {
                        repository: &repository,
                        component: &component,
                        trust: &trust,
                    };
                    marks_of(&place).await
                }
            })
            .await;
        let verdict = |marks: Condemned| match marks {
            Err(doubt) => Verdict::Doubt(doubt),
            Ok(marks) => {
                let touching: Vec<_> = marks.into_iter().filter(|marks| marks.touches(parent)).collect();
                if touching.is_empty() {
                    Verdict::Free
                } else {
                    Verdict::Touched(touching)
                }
            }
        };
        let answers = self.settle(answers)?;
        Ok(answers.into_iter().map(|(place, marks)| (place, verdict(marks))).collect())
    }

    /// Those who have left have no part in the session any more: its announcement, under `names`, is removed there, so that no pruner waits
    /// for it. What cannot be removed runs out by itself.
    pub(crate) async fn withdraw(&self, names: &[Key]) {
        for member in self.members.iter().filter(|member| !member.is_live()) {
            for name in names {
                let removed = tokio::time::timeout(WITHDRAWAL, member.store.delete(name)).await;
                if !matches!(removed, Ok(Ok(()))) {
                    break;
                }
            }
        }
    }

    /// Step 6 of the writer, in each store: one where something of the backup is not there any more, or is being deleted, leaves, as long
    /// as it counts in another. If it counts nowhere, nobody leaves: whoever looks at all of them together sees it.
    pub(crate) async fn look_again(
        &self,
        component: &ComponentName,
        trust: &Trust,
        backup: &protocol::Backup<Key>,
        wanted: &Wanted,
        others: &[(Key, u64)],
    ) -> Result<()> {
        let folder = component.folder()?;
        let prune = folder.join("prune")?;
        let answers = self
            .ask(&self.live(), |store| {
                let (component, trust, repository) = (component.clone(), trust.clone(), Repository::in_one(store, self.id));
                let (folder, prune, backup) = (folder.clone(), prune.clone(), backup.clone());
                async move {
                    let entries = repository.store().list(&folder).await?;
                    let place = Place {
                        repository: &repository,
                        component: &component,
                        trust: &trust,
                    };
                    let (sweeps, _) = read_sweeps(&place, entries.iter().filter(|entry| entry.key.is_under(&prune))).await?;
                    let swept = sweeps.iter().any(|marks| marks.touches(&backup));
                    let files: BTreeMap<Key, Entry> = entries.into_iter().map(|entry| (entry.key.clone(), entry)).collect();
                    Ok((files, swept))
                }
            })
            .await;
        let mut wanting = Vec::new();
        let looked = self.settle(answers)?;
        for (place, (files, swept)) in &looked {
            let is_there = |key: &Key, size: u64| files.get(key).is_some_and(|entry| entry.size_bytes == size);
            let gone = others
                .iter()
                .find(|(key, size)| !is_there(key, *size))
                .map(|(key, _)| key.to_string());
            let detail = match (gone, swept) {
                (None, true) => Some("a pruner deletes there what it needs: it landed too late".to_owned()),
                (None, false) => wanted.wanting(component, files)?.map(lost),
                (Some(gone), _) => Some(lost(gone)),
            };
            wanting.extend(detail.map(|detail| (*place, detail)));
        }
        if wanting.len() == looked.len() {
            return Ok(());
        }
        for (place, detail) in wanting {
            let error = Error::new(ErrorKind::Corrupt, "commit the backup in", &self.members[place].name, detail);
            let hint = "something else deletes from this store; find it, then run the backup again";
            self.members[place].leave(error.with_hint(hint), false);
        }
        Ok(())
    }

    /// Takes from `rejected` what misses files only because another store has given it up: it counts wherever it stands.
    pub(crate) async fn keep_wanting(&self, component: &ComponentName, rejected: &mut Vec<Rejected>) -> Result<()> {
        if rejected.iter().all(|rejected| rejected.backup.is_none()) {
            return Ok(());
        }
        let listed = self.list_each(&component.folder()?).await?;
        let mut kept = Vec::new();
        for rejected in std::mem::take(rejected) {
            let Some(backup) = &rejected.backup else {
                kept.push(rejected);
                continue;
            };
            let wanted = Wanted::new(backup.id, &backup.closure, component)?;
            let header = wanted.backup_key(component)?;
            let mut lacks = false;
            for (_, files) in listed.iter().filter(|(_, files)| files.contains_key(&header)) {
                lacks |= wanted.wanting(component, files)?.is_some();
            }
            if lacks {
                kept.push(rejected);
            }
        }
        *rejected = kept;
        Ok(())
    }
}

fn lost(what: String) -> String {
    format!("{what} is no longer in the store, though it was stored")
}
