//! What a writer can do next in a [`World`]. Decisions come from `lifeboat_model::protocol`.

use lifeboat_model::protocol::{Marks, ParentUse, WriterStep, counts, is_done, may_extend, may_publish, may_use_parent};

use super::world::{DEADLINE, DONE, END, Flaw, Label, MADE, NONE, NOW, OLD, OWN, State, World, bits, marks, name, session, set};

impl World {
    /// What writer `actor` can do next.
    pub fn writer(&self, s: &State, actor: u8, out: &mut Vec<(Label, State)>) -> Result<(), (Label, String)> {
        let i = usize::from(actor);
        let w = s.w[i];
        self.landings(s, actor, out);
        if w.pc >= END {
            return Ok(());
        }
        let step = self.writer_order[usize::from(w.pc)];
        let label = Label::Writer(actor, step);
        let mut n = *s;
        n.w[i].pc += 1;
        let now_session = session(i, w.parent, w.own_age);
        match step {
            WriterStep::Announce | WriterStep::ReadCensuses if w.parent == 0 && w.age == NONE && w.pc == 0 => {
                let parents = s.store & if self.any_parent { OLD | MADE[1 - i] } else { OLD };
                for parent in bits(parents) {
                    let mut n = n;
                    n.w[i].parent = parent;
                    self.announce_or_read(&mut n, i, step);
                    out.push((label, n));
                }
                if parents != 0 && !self.any_parent {
                    return Ok(());
                }
                // Without a parent: a full backup.
                self.announce_or_read(&mut n, i, step);
            }
            WriterStep::Announce | WriterStep::ReadCensuses => self.announce_or_read(&mut n, i, step),
            WriterStep::ListParent => {
                let parent = Self::backup(s, w.parent);
                n.w[i].listed_ok = w.parent != 0 && may_use_parent(&parent, &[], &set(s.store)) == ParentUse::Use;
            }
            WriterStep::PutFiles => {
                n.store |= OWN[i];
                n.w[i].pack_repeat = self.repeats;
                if self.extensions && !w.extended {
                    let mut n = *s;
                    n.w[i].extended = true;
                    (n.w[i].age, n.w[i].own_age) = (0, 0);
                    if !may_extend(&now_session, &session(i, w.parent, 0)) && !self.has(Flaw::LateExtensionTaken) {
                        n.w[i].pc = END;
                    }
                    out.push((Label::Extend(actor), n));
                }
            }
            WriterStep::CheckDeadline => {}
            WriterStep::PutBackup => {
                n.w[i].in_flight = true;
                let absent = Self::closure(s, MADE[i]) & !s.store;
                if let Some(bit) = bits(absent).next().filter(|_| w.own_age < DEADLINE) {
                    return Err((label, format!("the backup names {}, which is absent", name(bit))));
                }
            }
            WriterStep::Confirm => n.w[i].pc = if self.confirmed(s, i) { DONE } else { END },
        }
        // The look at the clock needs no freeze before it: one that is frozen there looks later, and sees no more time.
        if step == WriterStep::PutFiles {
            n.w[i].pc += 1;
            if !may_publish(&now_session, NOW) && !self.has(Flaw::DeadlineIgnored) {
                n.w[i].pc = END;
            }
        }
        out.push((label, n));
        Ok(())
    }

    fn announce_or_read(&self, n: &mut State, i: usize, step: WriterStep) {
        if step == WriterStep::Announce {
            (n.w[i].age, n.w[i].own_age) = (0, 0);
            n.w[i].repeat = self.repeats;
            return;
        }
        let mut read: Vec<Marks<u8>> = Vec::new();
        let mut censuses: Vec<(u8, u8)> =
            n.p.iter()
                .filter(|p| p.census != NONE)
                .map(|p| (p.census, p.condemned))
                .collect();
        if self.has(Flaw::OnlyOneCensusRead) {
            censuses.sort_unstable();
            censuses.truncate(1);
        }
        read.extend(censuses.into_iter().map(|(_, condemned)| marks(condemned)));
        read.push(marks(Self::swept(n)));
        // The parent's closure does not depend on this writer; what is present is judged by the listing that follows.
        let parent = Self::backup(n, n.w[i].parent);
        n.w[i].census_ok = n.w[i].parent != 0 && may_use_parent(&parent, &read, &set(255)) == ParentUse::Use;
    }

    /// Puts that were sent earlier and land now.
    fn landings(&self, s: &State, actor: u8, out: &mut Vec<(Label, State)>) {
        let i = usize::from(actor);
        let w = s.w[i];
        if w.in_flight {
            let mut n = *s;
            n.store |= MADE[i];
            n.w[i].in_flight = false;
            out.push((Label::BackupLands(actor), n));
        }
        if w.repeat {
            let mut n = *s;
            n.w[i].repeat = false;
            // The announcement stands; a store that ignores the condition takes it again and shows a new time.
            if !self.conditional_put {
                n.w[i].age = 0;
            }
            out.push((Label::AnnouncementLandsAgain(actor), n));
        }
        if w.pack_repeat {
            let mut n = *s;
            n.w[i].pack_repeat = false;
            n.store |= OWN[i];
            out.push((Label::PackLandsAgain(actor), n));
        }
    }

    /// Whether writer `i`, looking now, may report its backup as made.
    fn confirmed(&self, s: &State, i: usize) -> bool {
        let w = s.w[i];
        let sweeping = if self.has(Flaw::ConfirmSkipsSweepLists) {
            0
        } else {
            Self::swept(s)
        };
        let age = if self.has(Flaw::DeadlineIgnored) { 0 } else { w.own_age };
        let standing = counts(&Self::backup(s, MADE[i]), &set(s.store), &[marks(sweeping)]);
        s.store & MADE[i] != 0 && is_done(&session(i, w.parent, age), NOW, &standing)
    }
}
