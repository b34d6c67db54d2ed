//! What a server says when it gives up, and what to do about it.

/// The reason in the server's words: its last line of the level `FATAL` or `PANIC`, or else its last error.
#[must_use]
pub fn last_words(log: &str) -> Option<String> {
    let levels = ["PANIC:  ", "FATAL:  ", "ERROR:  "];
    let said = |level: &'static str| move |line: &str| Some(line.split_once(level)?.1.trim().to_owned());
    // Sessions that come too early or too late are turned away with the same level.
    let polite = |words: &String| !words.starts_with("the database system is ");
    levels
        .into_iter()
        .find_map(|level| log.lines().filter_map(said(level)).rfind(polite))
        .or_else(|| log.lines().rfind(|line| !line.trim().is_empty()).map(str::to_owned))
}

/// What helps against it.
pub(super) fn hint(said: &str) -> &'static str {
    for (words, hint) in [
        (
            "could not locate a valid checkpoint record",
            "the log of the base is missing: restore it again with its log; do not remove backup_label, whatever the server's own hint says",
        ),
        (
            "could not locate required checkpoint record",
            "the log of the base cannot be fetched from its start on: restore it again; do not remove backup_label, whatever the server's \
             own hint says",
        ),
        (
            "recovery ended before configured recovery target was reached",
            "the log ends before the target: choose an earlier one (`lifeboat list` shows the window)",
        ),
        (
            "requested recovery stop point is before consistent recovery point",
            "the target lies before the end of the base: choose an older base or a later target",
        ),
        (
            "could not restore file",
            "log could not be fetched: the lines before say why; nothing is lost, run the same command again",
        ),
        (
            "could not open shared memory",
            "free shared memory (/dev/shm), then run the same command again",
        ),
        (
            "No space left on device",
            "free space on that file system, then run the same command again",
        ),
        (
            "requested timeline",
            "a history file is missing, or the base is not on the way to the wanted timeline: see `lifeboat list`",
        ),
    ] {
        if said.contains(words) {
            return hint;
        }
    }
    "the server's words say what is wrong; `lifeboat verify` tells whether the backup is whole"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_found_among_the_noise() {
        let log = "2026-11-21 [1] LOG:  starting PostgreSQL\n2026-11-21 [2] FATAL:  could not restore file \"x\" from archive: 255\n\
                   2026-11-21 [3] FATAL:  the database system is starting up\n2026-11-21 [1] LOG:  database system is shut down\n";
        assert_eq!(last_words(log).unwrap(), "could not restore file \"x\" from archive: 255");
        assert!(hint(&last_words(log).unwrap()).contains("fetched"));
        assert_eq!(last_words("postgres: cannot execute\n").unwrap(), "postgres: cannot execute");
        assert_eq!(last_words(""), None);
    }
}
