//! The hash of a file from its blocks, taken in any order as they are handed to the disk.
//!
//! BLAKE3 is a tree: the hash of a file follows from those of its blocks. So a large file is compared with what was captured without being read
//! once more, in the very memory that the disk was given, at the place that it was given for.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use blake3::hazmat::{ChainingValue, HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root};
use lifeboat_io::gather::{BLOCK, Watch};

/// Hashes of blocks, with their lengths, by file and offset: 48 bytes for each MiB of the files that are on their way.
#[derive(Debug, Default)]
pub(super) struct BlockHashes(Mutex<BTreeMap<u64, Blocks>>);

type Blocks = BTreeMap<u64, (ChainingValue, u64)>;

impl Watch for BlockHashes {
    fn written(&self, file: u64, offset: u64, bytes: &[u8]) {
        let mut hasher = blake3::Hasher::new();
        hasher.set_input_offset(offset);
        hasher.update(bytes);
        let hash = hasher.finalize_non_root();
        let known = (hash, bytes.len() as u64);
        self.files().entry(file).or_default().insert(offset, known);
    }
}

impl BlockHashes {
    fn files(&self) -> MutexGuard<'_, BTreeMap<u64, Blocks>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hash of a file of `size` bytes, where every block of it is known: more than one, and all whole but the last. Forgets the file.
    pub(super) fn take(&self, file: u64, size: u64) -> Option<blake3::Hash> {
        let blocks = self.files().remove(&file)?;
        let mut end = 0;
        for (offset, (_, length)) in &blocks {
            if *offset != end || *length != (size - end).min(BLOCK as u64) {
                return None;
            }
            end += length;
        }
        let hashes: Vec<ChainingValue> = blocks.into_values().map(|(hash, _)| hash).collect();
        let (left, right) = halves(&hashes)?;
        (end == size).then(|| merge_subtrees_root(&subtree(left), &subtree(right), Mode::Hash))
    }
}

/// The left half is the largest power of two that leaves something to the right; nothing for less than two.
fn halves(hashes: &[ChainingValue]) -> Option<(&[ChainingValue], &[ChainingValue])> {
    let left = hashes.len().div_ceil(2).next_power_of_two();
    hashes.split_at_checked(left).filter(|(_, right)| !right.is_empty())
}

fn subtree(hashes: &[ChainingValue]) -> ChainingValue {
    match halves(hashes) {
        Some((left, right)) => merge_subtrees_non_root(&subtree(left), &subtree(right), Mode::Hash),
        None => hashes.first().copied().unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_in_blocks_hashes_to_what_the_file_does() {
        let bytes: Vec<u8> = (0..17 * BLOCK + 77).map(|at| u8::try_from(at * 31 % 251).unwrap()).collect();
        for size in [
            BLOCK + 1,
            2 * BLOCK,
            2 * BLOCK + 1,
            3 * BLOCK,
            5 * BLOCK - 1,
            8 * BLOCK,
            9 * BLOCK + 4096,
            bytes.len(),
        ] {
            let hashes = BlockHashes::default();
            for (index, block) in bytes[..size].chunks(BLOCK).enumerate().rev() {
                hashes.written(7, (index * BLOCK) as u64, block);
            }
            assert_eq!(hashes.take(7, size as u64), Some(blake3::hash(&bytes[..size])), "{size}");
            assert_eq!(hashes.take(7, size as u64), None, "it is forgotten");
        }
    }

    #[test]
    fn a_block_that_is_missing_short_or_too_much_gives_no_hash() {
        let block = vec![3; BLOCK];
        for (offsets, size) in [
            (vec![0, 2], 3),
            (vec![1, 2], 3),
            (vec![0, 1], 3),
            (vec![0, 1, 2, 3], 3),
            (vec![0], 1),
        ] {
            let hashes = BlockHashes::default();
            for offset in offsets {
                hashes.written(1, offset * BLOCK as u64, &block);
            }
            assert_eq!(hashes.take(1, size * BLOCK as u64), None);
        }
        let hashes = BlockHashes::default();
        hashes.written(1, 0, &block[1..]);
        hashes.written(1, BLOCK as u64, &block);
        assert_eq!(hashes.take(1, 2 * BLOCK as u64), None);
    }
}
