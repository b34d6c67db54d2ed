//! The order of steps of a writer and of a pruner, as data. Nothing is decided here; the order itself is what the
//! enumeration proves, and the mutation tests show which neighbours must not be exchanged.

/// One step of a writer. Between any two it may freeze for any time, or die.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum WriterStep {
    /// Put the announcement, which names the parent it would like to use.
    Announce,
    /// List and read **all** censuses and sweep lists.
    ReadCensuses,
    /// List the parent's backup file and all files of its closure. With what was read before:
    /// [`may_use_parent`](super::may_use_parent).
    ListParent,
    /// Put key file, packs and maps; repeated as often as needed. Before the deadline the session may be extended by
    /// another announcement ([`may_extend`](super::may_extend)).
    PutFiles,
    /// [`may_publish`](super::may_publish): past the deadline there is no backup file.
    CheckDeadline,
    /// Put the backup file, once. It may land at any later time.
    PutBackup,
    /// List all its files and all sweep lists again, and look at the time: [`is_done`](super::is_done).
    Confirm,
}

/// A writer's order.
pub const WRITER_STEPS: [WriterStep; 7] = [
    WriterStep::Announce,
    WriterStep::ReadCensuses,
    WriterStep::ListParent,
    WriterStep::PutFiles,
    WriterStep::CheckDeadline,
    WriterStep::PutBackup,
    WriterStep::Confirm,
];

/// One step of a pruner. Between any two it may freeze for any time, or die. An error in any listing ends the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum PrunerStep {
    /// Delete censuses that others left behind and that are spent: [`is_spent`](super::is_spent). Never a sweep list. Optional.
    RemoveSpent,
    /// List keys, packs and maps.
    ListFiles,
    /// List sessions and holds, and read them. The time they are judged by is taken **before** the listing.
    ListSessions,
    /// List and read all backup files.
    ListBackups,
    /// [`condemn`](super::condemn), and put the result as a census.
    PutCensus,
    /// Wait until the census is as old as the grace period, by the store's time.
    Wait,
    /// [`may_sweep`](super::may_sweep), and put the result as a sweep list. From now on nothing in it counts.
    PutSweepList,
    /// Delete the backup files of the sweep list.
    DeleteBackups,
    /// List backup files until those are gone.
    ConfirmBackups,
    /// Delete packs and maps, then keys.
    DeleteFiles,
    /// List until all are gone; then remove the own sweep list, then the own census.
    Retire,
}

/// A pruner's order.
pub const PRUNER_STEPS: [PrunerStep; 13] = [
    PrunerStep::RemoveSpent,
    PrunerStep::ListFiles,
    PrunerStep::ListSessions,
    PrunerStep::ListBackups,
    PrunerStep::PutCensus,
    PrunerStep::Wait,
    PrunerStep::ListSessions,
    PrunerStep::ListBackups,
    PrunerStep::PutSweepList,
    PrunerStep::DeleteBackups,
    PrunerStep::ConfirmBackups,
    PrunerStep::DeleteFiles,
    PrunerStep::Retire,
];
