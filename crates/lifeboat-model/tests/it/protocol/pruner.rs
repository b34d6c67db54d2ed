//! What a pruner can do next in a [`World`]. Decisions come from `lifeboat_model::protocol`.

use std::collections::BTreeSet;

use lifeboat_model::protocol::{Backup, Census, PrunerStep, StoredFile, View, condemn, is_spent, may_sweep};

use super::world::{
    BACKUPS, DEADLINE, END, Flaw, Label, MADE, NONE, NOW, OLD, OWN, PACKS, Pruner, State, World, bits, marks, mask, session, set,
    ticks,
};

impl World {
    /// The marks of a census (`sweep` none) or of a sweep over what pruner `i` listed; `None` where it must stop.
    fn judged(&self, s: &State, i: usize, sweep: bool) -> Option<u8> {
        let p = s.p[i];
        let open = if self.has(Flaw::SessionsSkipped) { 0 } else { p.open };
        let closures = [Self::closure(s, MADE[0]), Self::closure(s, MADE[1])];
        let parents = [s.w[0].parent, s.w[1].parent];
        let kind = if sweep { 3 } else { 2 };
        let (files, seen) = if sweep { (p.condemned, p.seen) } else { (p.files, 0) };
        let key = [
            kind,
            files,
            seen,
            open,
            p.backups,
            closures[0],
            closures[1],
            parents[0],
            parents[1],
        ];
        self.remembered(key, || {
            let backup = |bit: u8| Backup {
                name: bit,
                files: set(Self::closure(s, bit)),
            };
            let view = View {
                files: bits(files & PACKS)
                    .map(|name| StoredFile {
                        name,
                        session: if name & (OWN[0] | OWN[1]) != 0 { name } else { 0 },
                    })
                    .collect(),
                sessions: (0..2)
                    .filter(|i| open & OWN[*i] != 0)
                    .map(|i| session(i, parents[i], 0))
                    .collect(),
                asked_at: NOW,
                held: BTreeSet::new(),
                backups: bits(p.backups).map(backup).collect(),
            };
            if !sweep {
                return condemn(&view, &set(OLD))
                    .ok()
                    .map(|marks| mask(&marks.backups) | mask(&marks.files));
            }
            let census = Census {
                name: 0,
                published_at: NOW - ticks(DEADLINE),
                seen: set(seen),
                condemned: marks(p.condemned),
            };
            may_sweep(&census, ticks(DEADLINE), &view)
                .ok()
                .map(|marks| mask(&marks.backups) | mask(&marks.files))
        })
    }

    /// What pruner `actor` can do next.
    pub fn pruner(&self, s: &State, actor: u8, out: &mut Vec<(Label, State)>) -> Result<(), (Label, String)> {
        let i = usize::from(actor);
        let p = s.p[i];
        if p.pc >= END {
            return Ok(());
        }
        let step = self.pruner_order[usize::from(p.pc)];
        let label = Label::Pruner(actor, step);
        let mut n = *s;
        let me = &mut n.p[i];
        me.pc += 1;
        match step {
            PrunerStep::RemoveSpent => {
                let other = s.p[1 - i];
                let spent = is_spent(&marks(other.condemned), &set(s.store));
                if other.census != NONE && (spent || self.has(Flaw::UnspentRemoved)) {
                    let mut n = n;
                    n.p[1 - i].census = NONE;
                    out.push((Label::Remove(actor), n));
                }
            }
            PrunerStep::ListFiles => me.files = s.store & PACKS,
            PrunerStep::ListSessions => {
                // Judged by the time before the listing: the two are one moment here, the earlier one.
                me.open = Self::open(s);
            }
            PrunerStep::ListBackups => self.list_backups(s, actor, n, out),
            PrunerStep::PutCensus => {
                let judged = self.judged(s, i, false);
                *me = Pruner {
                    pc: me.pc,
                    seen: p.backups,
                    census: 0,
                    condemned: judged.unwrap_or(0),
                    ..self.start().p[i]
                };
                if judged.is_none() {
                    *me = Pruner {
                        pc: END,
                        ..self.start().p[i]
                    };
                }
            }
            PrunerStep::Wait => {
                // A census that somebody removed cannot be waited for here; whoever waited before goes on.
                if p.census == NONE {
                    me.pc = END;
                } else if p.census < DEADLINE && !self.has(Flaw::NoGrace) {
                    return Ok(());
                } else if self.pruner_order[usize::from(me.pc)] == PrunerStep::ListSessions {
                    // Nothing is learnt by waiting longer: the wait and the listing after it are one step.
                    me.pc += 1;
                    me.open = Self::open(s);
                }
            }
            PrunerStep::PutSweepList => self.put_sweep_list(s, i, me),
            PrunerStep::DeleteBackups | PrunerStep::DeleteFiles => return self.delete(s, actor, step, out),
            PrunerStep::ConfirmBackups => {}
            PrunerStep::Retire => {
                if p.sweep_stands {
                    (me.pc, me.sweep_stands, me.sweep) = (p.pc, false, 0);
                } else {
                    *me = Pruner {
                        pc: END,
                        ..self.start().p[i]
                    };
                }
            }
        }
        if step != PrunerStep::ListBackups {
            out.push((label, n));
        }
        Ok(())
    }

    fn open(s: &State) -> u8 {
        (0..2).filter(|w| s.w[*w].age < DEADLINE).fold(0, |mask, w| mask | OWN[w])
    }

    fn list_backups(&self, s: &State, actor: u8, mut n: State, out: &mut Vec<(Label, State)>) {
        let i = usize::from(actor);
        let listed = s.store & BACKUPS;
        n.p[i].backups = listed;
        out.push((Label::Pruner(actor, PrunerStep::ListBackups), n));
        if s.faults == 0 {
            return;
        }
        n.faults -= 1;
        // Before a sweep only what the census saw: hiding a newer one is beyond the protocol (docs/deletion.md).
        let known = if s.p[i].census == NONE { listed } else { listed & s.p[i].seen };
        for bit in bits(known) {
            n.p[i].backups = listed & !bit;
            out.push((Label::ListingHides(actor, bit), n));
        }
        n.p[i].backups = 0;
        if !self.has(Flaw::ErrorTakenForEmpty) {
            n.p[i] = Pruner {
                pc: END,
                census: s.p[i].census,
                condemned: s.p[i].condemned,
                ..self.start().p[i]
            };
        }
        out.push((Label::ListingFails(actor), n));
    }

    fn put_sweep_list(&self, s: &State, i: usize, me: &mut Pruner) {
        let p = s.p[i];
        let mut judged = self.judged(s, i, true);
        if self.has(Flaw::BackupsNotReadAgain) {
            judged = Some(p.condemned);
        }
        if self.has(Flaw::SeenNotCompared) {
            let unseen = State {
                p: [Pruner { seen: 0, ..s.p[0] }, Pruner { seen: 0, ..s.p[1] }],
                ..*s
            };
            judged = self.judged(&unseen, i, true);
        }
        (me.open, me.backups, me.files, me.seen) = (0, 0, 0, 0);
        me.sweep = judged.unwrap_or(0);
        me.sweep_stands = !self.has(Flaw::NoSweepList);
        if me.sweep == 0 {
            *me = Pruner {
                pc: END,
                ..self.start().p[i]
            };
        }
    }

    /// Deletes the next name of the sweep list; the step is over with the last one.
    fn delete(&self, s: &State, actor: u8, step: PrunerStep, out: &mut Vec<(Label, State)>) -> Result<(), (Label, String)> {
        let i = usize::from(actor);
        let p = s.p[i];
        let kind = if step == PrunerStep::DeleteFiles { PACKS } else { BACKUPS };
        let mut n = *s;
        n.p[i].pc += 1;
        let Some(bit) = bits(p.sweep & s.store & kind).next() else {
            out.push((Label::Pruner(actor, step), n));
            return Ok(());
        };
        n.store &= !bit;
        if p.sweep & n.store & kind != 0 {
            n.p[i].pc = p.pc;
        }
        let label = Label::Delete(actor, bit);
        if let Some(what) = self.hurt(s, i, bit) {
            return Err((label, what));
        }
        out.push((label, n));
        Ok(())
    }
}
