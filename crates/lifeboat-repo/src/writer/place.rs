//! Where the rows of a file stand in the row space: where the parent has them, else where nobody of the parent is.
//!
//! A place that a file of the parent owns stays reserved for it through the whole session, whether or not that file comes again.

use crate::map::ROWS_PER_PAGE;
use crate::state::FileState;

/// Stretches of whole pages of the row space that are free, ascending, each as first row and number of rows; behind `end` all is free.
#[derive(Debug, Default)]
pub(crate) struct FreeRows {
    gaps: Vec<(u64, u64)>,
    end: u64,
}

impl FreeRows {
    /// What the files of the parent leave free.
    pub(crate) fn beside(files: &[FileState]) -> Self {
        let mut owned: Vec<(u64, u64)> = files.iter().flat_map(|file| file.record.ranges.iter().copied()).collect();
        owned.sort_unstable();
        let mut free = Self::default();
        for (first, count) in owned {
            if first > free.end {
                free.gaps.push((free.end, first - free.end));
            }
            free.end = free.end.max((first + count).next_multiple_of(ROWS_PER_PAGE));
        }
        free
    }

    /// Ranges for `rows` rows: the parent's own first, so that unchanged rows keep their place, then free ones.
    pub(crate) fn place(&mut self, parent: &[(u64, u64)], rows: u64) -> Vec<(u64, u64)> {
        let mut left = rows;
        let mut ranges = Vec::new();
        for (first, count) in parent {
            // A range owns whole pages of the row space: its last page may be filled up.
            let count = count.next_multiple_of(ROWS_PER_PAGE).min(left);
            if count > 0 {
                ranges.push((*first, count));
                left -= count;
            }
        }
        while left > 0 {
            let (first, room) = if self.gaps.is_empty() {
                (self.end, u64::MAX)
            } else {
                self.gaps.remove(0)
            };
            let count = left.min(room);
            let used = count.next_multiple_of(ROWS_PER_PAGE);
            if room == u64::MAX {
                self.end += used;
            } else if room > used {
                self.gaps.insert(0, (first + used, room - used));
            }
            ranges.push((first, count));
            left -= count;
        }
        ranges
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_keep_their_place_fill_gaps_and_then_the_end() {
        let mut free = FreeRows {
            gaps: vec![(128, 256)],
            end: 512,
        };
        assert_eq!(free.place(&[(0, 5)], 3), [(0, 3)]);
        assert_eq!(free.place(&[(0, 5)], 128), [(0, 128)]);
        assert_eq!(free.place(&[(0, 5)], 130), [(0, 128), (128, 2)]);
        assert_eq!(free.place(&[], 400), [(256, 128), (512, 272)]);
        assert_eq!(free.place(&[], 0), []);
        assert_eq!(free.place(&[], 1), [(896, 1)]);
    }
}
