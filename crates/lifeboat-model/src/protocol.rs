//! Who may build on what, and who may delete what: the decisions behind announcements, censuses and sweeps.
//!
//! Pure functions over what was listed; time is an argument. The writer and the pruner call them, in the order of
//! [`WRITER_STEPS`] and [`PRUNER_STEPS`], and nothing else may decide about a parent or a deletion. The tests enumerate
//! every interleaving of two writers and two pruners over these functions. `docs/deletion.md` says why each step is there.
//!
//! Names (`N`) are whatever the caller lists: backup files, stored files, sessions and censuses live in one name space.
//! All times are the store's, as a [`std::time::Duration`] since any fixed moment; none is taken from a writer's own clock.

mod decide;
mod steps;

pub use decide::{
    Backup, Census, Marks, ParentUse, Session, Standing, Stop, StoredFile, View, condemn, counts, is_done, is_spent, may_extend,
    may_publish, may_sweep, may_use_parent,
};
pub use steps::{PRUNER_STEPS, PrunerStep, WRITER_STEPS, WriterStep};
