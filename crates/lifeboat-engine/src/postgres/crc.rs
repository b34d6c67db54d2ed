//! CRC-32C, as PostgreSQL uses it for `pg_control`, for records of the log and, in manifests, for files.
//!
//! Eight bytes at a time with eight tables ("slicing by 8"): log is summed whole.

const TABLES: [[u32; 256]; 8] = tables();

#[expect(clippy::cast_possible_truncation, reason = "the index is below 256")]
const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut index = 0;
    while index < 256 {
        let mut value = index as u32;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 {
                (value >> 1) ^ 0x82F6_3B78
            } else {
                value >> 1
            };
            bit += 1;
        }
        tables[0][index] = value;
        index += 1;
    }
    let mut table = 1;
    while table < 8 {
        let mut index = 0;
        while index < 256 {
            let value = tables[table - 1][index];
            tables[table][index] = (value >> 8) ^ tables[0][(value & 0xff) as usize];
            index += 1;
        }
        table += 1;
    }
    tables
}

/// A sum that is taken piece by piece.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crc32c(u32);

impl Crc32c {
    /// Of nothing yet.
    pub(crate) const fn new() -> Self {
        Self(u32::MAX)
    }

    /// Takes more bytes in.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        let mut value = self.0;
        let (eights, rest) = bytes.as_chunks::<8>();
        for [a, b, c, d, e, f, g, h] in eights {
            let [low, second, third, high] = (value ^ u32::from_le_bytes([*a, *b, *c, *d])).to_le_bytes();
            value = TABLES[7][usize::from(low)]
                ^ TABLES[6][usize::from(second)]
                ^ TABLES[5][usize::from(third)]
                ^ TABLES[4][usize::from(high)]
                ^ TABLES[3][usize::from(*e)]
                ^ TABLES[2][usize::from(*f)]
                ^ TABLES[1][usize::from(*g)]
                ^ TABLES[0][usize::from(*h)];
        }
        for byte in rest {
            value = (value >> 8) ^ TABLES[0][usize::from(value.to_le_bytes()[0] ^ byte)];
        }
        self.0 = value;
    }

    /// The sum of all that was taken in.
    pub(crate) const fn sum(self) -> u32 {
        !self.0
    }
}

/// The sum of `bytes`.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    let mut sum = Crc32c::new();
    sum.add(bytes);
    sum.sum()
}

#[cfg(test)]
mod tests {
    use super::{Crc32c, crc32c};

    #[test]
    fn it_is_castagnoli() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        // RFC 3720, B.4: 32 bytes of zero, and ascending ones.
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
        let ascending: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(&ascending), 0x46DD_794E);
        let mut sum = Crc32c::new();
        ascending.chunks(5).for_each(|part| sum.add(part));
        assert_eq!(sum.sum(), 0x46DD_794E);
    }
}
