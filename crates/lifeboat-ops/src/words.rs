//! Numbers as people say them. Knows no units: sizes and times are said by `lifeboat_model::time`.

/// `1 backup`, `2 backups`.
#[must_use]
pub(crate) fn counted(count: u64, noun: &str) -> String {
    if count == 1 {
        format!("1 {noun}")
    } else {
        format!("{count} {noun}s")
    }
}

#[cfg(test)]
mod tests {
    use super::counted;

    #[test]
    fn one_is_singular() {
        assert_eq!(counted(0, "pack"), "0 packs");
        assert_eq!(counted(1, "pack"), "1 pack");
        assert_eq!(counted(2, "pack"), "2 packs");
    }
}
