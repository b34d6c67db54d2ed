//! One page of a relation, and whether it is what its writer meant (PG-11).
//!
//! Numbers in, verdict out: reading again, counting and recording are the business of whoever copies. The sum is that of
//! `storage/checksum_impl.h`: 32 sums side by side, so that a compiler can do many at once.

use lifeboat_model::Lsn;

/// Bytes of a page of every cluster that was not built with another size; others are captured unchecked.
pub const PAGE_BYTES: usize = 8192;
/// Pages of a relation's segment (1 GiB): block numbers go on through the segments.
pub const SEGMENT_PAGES: u32 = 131_072;

const PRIME: u32 = 16_777_619;
/// Offset of `pd_checksum`; the sum is taken as if it were zero.
const CHECKSUM_AT: usize = 8;
/// Offset of `pd_upper`.
const UPPER_AT: usize = 14;

/// Where the sums begin (`checksumBaseOffsets`).
const OFFSETS: [u32; 32] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

/// What is known about one page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It is what was written, or a page of zeros that nobody has used yet.
    Fine,
    /// Its number does not fit, but it was written after the backup began: the log holds it whole, recovery puts it right. Whoever copies
    /// has to see at the end that the position is one the log had reached.
    Replayed(Lsn),
    /// Its number does not fit: read it again, and when it stays as it is, it is damaged.
    Doubtful(Lsn),
}

/// Judges the page `bytes` that stands at `block` of its relation, in a backup that began at `start`.
#[must_use]
pub fn judge(bytes: &[u8], block: u32, start: Lsn) -> Verdict {
    let Ok(page) = <&[u8; PAGE_BYTES]>::try_from(bytes) else {
        // Half a page: the file grew while it was read, or was never whole.
        return Verdict::Doubtful(Lsn::INVALID);
    };
    if checksum(page, block) == stored(page) && !is_new(page) {
        return Verdict::Fine;
    }
    if page.iter().all(|byte| *byte == 0) {
        return Verdict::Fine;
    }
    let lsn = position(page);
    if lsn >= start {
        Verdict::Replayed(lsn)
    } else {
        Verdict::Doubtful(lsn)
    }
}

/// The position of the last change (`pd_lsn`): two halves, the higher first.
#[must_use]
pub fn position(page: &[u8; PAGE_BYTES]) -> Lsn {
    Lsn(u64::from(word(page, 0)) << 32 | u64::from(word(page, 4)))
}

/// The number that the page carries.
#[must_use]
pub fn stored(page: &[u8; PAGE_BYTES]) -> u16 {
    u16::from_le_bytes([page[CHECKSUM_AT], page[CHECKSUM_AT + 1]])
}

/// Never initialised (`PageIsNew`).
fn is_new(page: &[u8; PAGE_BYTES]) -> bool {
    page[UPPER_AT] == 0 && page[UPPER_AT + 1] == 0
}

fn word(page: &[u8; PAGE_BYTES], at: usize) -> u32 {
    u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]])
}

/// The number that belongs to `page` at `block`.
#[must_use]
pub fn checksum(page: &[u8; PAGE_BYTES], block: u32) -> u16 {
    let mut sums = OFFSETS;
    let (lines, _) = page.as_chunks::<128>();
    for (index, line) in lines.iter().enumerate() {
        let mut words = [0_u32; 32];
        let (quads, _) = line.as_chunks::<4>();
        for (word, quad) in words.iter_mut().zip(quads) {
            *word = u32::from_le_bytes(*quad);
        }
        if index == 0 {
            // `pd_checksum` is the lower half of the third word.
            words[CHECKSUM_AT / 4] &= 0xffff_0000;
        }
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum = step(*sum, word);
        }
    }
    for _ in 0..2 {
        for sum in &mut sums {
            *sum = step(*sum, 0);
        }
    }
    let folded = sums.iter().fold(0, |all, sum| all ^ sum) ^ block;
    // At most 65,535.
    u16::try_from(folded % 65_535 + 1).unwrap_or(0)
}

const fn step(sum: u32, word: u32) -> u32 {
    let mixed = sum ^ word;
    mixed.wrapping_mul(PRIME) ^ (mixed >> 17)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(seed: u8) -> [u8; PAGE_BYTES] {
        let mut page = [0_u8; PAGE_BYTES];
        for (index, byte) in page.iter_mut().enumerate() {
            *byte = u8::try_from((index * 31 + usize::from(seed)) % 251).unwrap();
        }
        page[..8].copy_from_slice(&[0, 0, 0, 0, 0x10, 0, 0, 0]);
        let sum = checksum(&page, 7).to_le_bytes();
        page[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&sum);
        page
    }

    #[test]
    fn a_page_of_zeros_is_fine_and_one_byte_makes_it_doubtful() {
        let mut page = [0; PAGE_BYTES];
        assert_eq!(judge(&page, 0, Lsn(1)), Verdict::Fine);
        page[5000] = 1;
        assert_eq!(judge(&page, 0, Lsn(1)), Verdict::Doubtful(Lsn(0)));
    }

    #[test]
    fn flipped_bits_are_found() {
        let whole = page(3);
        assert_eq!(judge(&whole, 7, Lsn(0x11)), Verdict::Fine);
        let mut missed = Vec::new();
        for at in 0..PAGE_BYTES * 8 {
            let mut page = whole;
            page[at / 8] ^= 1 << (at % 8);
            if judge(&page, 7, Lsn(u64::MAX)) == Verdict::Fine {
                missed.push(at);
            }
        }
        // The number has 16 bits: one of 65,535 changes goes unseen, and there are as many here.
        assert!(missed.len() <= 6, "{missed:?}");
    }

    #[test]
    fn a_page_in_another_place_is_found() {
        let page = page(9);
        assert_eq!(judge(&page, 8, Lsn(0x11)), Verdict::Doubtful(Lsn(0x10)));
    }

    #[test]
    fn a_torn_page_that_the_log_holds_is_left_to_recovery() {
        let mut page = page(9);
        page[4096..].fill(0);
        assert_eq!(judge(&page, 7, Lsn(0x10)), Verdict::Replayed(Lsn(0x10)));
        assert_eq!(judge(&page, 7, Lsn(0x11)), Verdict::Doubtful(Lsn(0x10)));
    }

    #[test]
    fn half_a_page_is_doubtful() {
        assert_eq!(judge(&[0; 4096], 0, Lsn(0)), Verdict::Doubtful(Lsn::INVALID));
    }
}
