//! From kinds of failure to exit codes: the one table that scripts rely on.
//!
//! The match is total on purpose: a new kind does not compile until somebody has decided about it here. Prints nothing.

use std::process::ExitCode;

use lifeboat_model::ErrorKind;

/// How the process ends. Ordered by what a script should hear first when several things happened: see [`Exit::worse`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Exit(u8);

impl Exit {
    /// Everything asked for was done.
    pub(crate) const OK: Self = Self(0);
    /// Finished, but something is missing.
    pub(crate) const INCOMPLETE: Self = Self(3);
    /// `status --nagios`: at risk.
    pub(crate) const WARNING: Self = Self(1);
    /// `status --nagios`: not ready.
    pub(crate) const CRITICAL: Self = Self(2);
    /// `status --nagios`: it could not be asked.
    pub(crate) const UNKNOWN: Self = Self(3);
    /// `wal fetch` could not be answered (PG-07).
    pub(crate) const NOT_NOW: Self = Self(255);

    /// The code of a kind of failure.
    #[must_use]
    pub(crate) const fn of(kind: ErrorKind) -> Self {
        Self(match kind {
            ErrorKind::Failed
            | ErrorKind::NotFound
            | ErrorKind::AlreadyExists
            | ErrorKind::NoSpace
            | ErrorKind::Incompatible
            | ErrorKind::Bug => 1,
            ErrorKind::Usage => 2,
            ErrorKind::Incomplete => 3,
            ErrorKind::ObjectiveMissed => 4,
            ErrorKind::Corrupt => 5,
            ErrorKind::Refused => 6,
            ErrorKind::ConfigInvalid => 7,
            ErrorKind::TimedOut => 8,
            ErrorKind::NoSuchPoint => 9,
            ErrorKind::NoRepository => 10,
            ErrorKind::Locked => 11,
            ErrorKind::WrongKey => 12,
            ErrorKind::Unreachable => 13,
            ErrorKind::Interrupted => 130,
            ErrorKind::Terminated => 143,
        })
    }

    /// The number that the shell sees.
    #[must_use]
    pub(crate) const fn code(self) -> u8 {
        self.0
    }

    /// The one of two outcomes that matters more: bad data before everything, an incomplete run after every failure, success last.
    #[must_use]
    pub(crate) fn worse(self, other: Self) -> Self {
        if other.weight() > self.weight() { other } else { self }
    }

    /// Bad data is the worst news, then failures in no order (the first one wins), then what finished with something missing.
    const fn weight(self) -> u8 {
        match self.0 {
            0 => 0,
            3 => 1,
            4 => 2,
            5 => 4,
            _ => 3,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.0)
    }
}

/// One line of the table: the code, its name, what happened, what to do.
#[derive(Debug)]
pub(crate) struct Meaning {
    /// The number that the shell sees.
    pub(crate) code: u8,
    /// What happened, in a few words.
    pub(crate) means: &'static str,
    /// What helps.
    pub(crate) advice: &'static str,
}

/// Every code that Lifeboat ends with, ascending. `docs/exit-codes.md` is made from it and tested against it.
pub(crate) const TABLE: [Meaning; 17] = [
    meaning(0, "Everything that was asked for was done.", "Nothing."),
    meaning(
        1,
        "It failed, for none of the reasons below: a full disk, an unexpected error of the system, a bug.",
        "Read the error; its hint names the next command.",
    ),
    meaning(
        2,
        "The command line does not make sense.",
        "`lifeboat help COMMAND` shows the arguments, with examples.",
    ),
    meaning(
        3,
        "It finished, but something is missing from the result.",
        "Read the notes; what was made is usable, what is missing is named.",
    ),
    meaning(
        4,
        "An objective was not met: a system would lose more, or take longer, than was promised.",
        "`lifeboat status` names the system and the cause.",
    ),
    meaning(
        5,
        "Bad data was found, stored, captured or restored; by any command.",
        "Believe it. `lifeboat list` shows other backups; `lifeboat backup` stores again what is damaged.",
    ),
    meaning(
        6,
        "A guard refused: going on could have destroyed something, or a question could not be asked without a terminal.",
        "The error prints the command that would go on. Read it before you run it.",
    ),
    meaning(
        7,
        "The configuration is invalid.",
        "`lifeboat config check` shows file, line and column.",
    ),
    meaning(
        8,
        "A time limit passed.",
        "Run it again when the other side is less busy, or raise the limit.",
    ),
    meaning(
        9,
        "No backup or point answers the question.",
        "`lifeboat points` shows all; the error names the nearest.",
    ),
    meaning(
        10,
        "There is no repository in the store.",
        "Check that the right disk is mounted; `lifeboat init` makes a new one.",
    ),
    meaning(
        11,
        "Another process holds what is needed.",
        "Wait for it, then run the same command again.",
    ),
    meaning(
        12,
        "The keys at hand do not open the data.",
        "`lifeboat key check` shows which public keys the identity holds.",
    ),
    meaning(
        13,
        "The source or the store cannot be reached or read.",
        "Check mounts, permissions and the network; `lifeboat doctor` looks at each.",
    ),
    meaning(130, "It was interrupted (Ctrl-C).", "Run the same command again."),
    meaning(143, "It was terminated (SIGTERM).", "Run the same command again."),
    meaning(
        255,
        "`wal fetch` only: the file could not be had, whatever the reason. It ends in 0, 1 (there is no such file) or this.",
        "Mend what its words name, then start the server again: recovery goes on.",
    ),
];

const fn meaning(code: u8, means: &'static str, advice: &'static str) -> Meaning {
    Meaning { code, means, advice }
}

#[cfg(test)]
mod tests {
    use lifeboat_model::ErrorKind;

    use super::{Exit, TABLE};

    const KINDS: [ErrorKind; 20] = [
        ErrorKind::Failed,
        ErrorKind::Usage,
        ErrorKind::Incomplete,
        ErrorKind::ObjectiveMissed,
        ErrorKind::Corrupt,
        ErrorKind::Refused,
        ErrorKind::ConfigInvalid,
        ErrorKind::TimedOut,
        ErrorKind::NoSuchPoint,
        ErrorKind::NoRepository,
        ErrorKind::Locked,
        ErrorKind::WrongKey,
        ErrorKind::Unreachable,
        ErrorKind::NotFound,
        ErrorKind::AlreadyExists,
        ErrorKind::NoSpace,
        ErrorKind::Incompatible,
        ErrorKind::Interrupted,
        ErrorKind::Terminated,
        ErrorKind::Bug,
    ];

    #[test]
    fn the_table_holds_exactly_the_codes_that_occur() {
        let mut occur: Vec<u8> = KINDS
            .iter()
            .map(|kind| Exit::of(*kind).code())
            .chain([0, Exit::NOT_NOW.code()])
            .collect();
        occur.sort_unstable();
        occur.dedup();
        let listed: Vec<u8> = TABLE.iter().map(|row| row.code).collect();
        assert_eq!(listed, occur);
    }

    #[test]
    fn the_worse_outcome_wins() {
        let of = Exit::of;
        let (corrupt, failed, locked) = (of(ErrorKind::Corrupt), of(ErrorKind::Failed), of(ErrorKind::Locked));
        assert_eq!(Exit::OK.worse(Exit::INCOMPLETE), Exit::INCOMPLETE);
        assert_eq!(
            Exit::INCOMPLETE.worse(of(ErrorKind::ObjectiveMissed)),
            of(ErrorKind::ObjectiveMissed)
        );
        assert_eq!(locked.worse(corrupt), corrupt);
        assert_eq!(corrupt.worse(locked), corrupt);
        assert_eq!(locked.worse(failed), locked, "the first failure keeps its word");
        assert_eq!(failed.worse(Exit::OK), failed);
    }
}
