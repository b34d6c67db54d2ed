//! CRC-32C, as PostgreSQL uses it for `pg_control` and, in manifests, for files. A table of 256 numbers: what is summed here is small.

const TABLE: [u32; 256] = table();

#[expect(clippy::cast_possible_truncation, reason = "the index is below 256")]
const fn table() -> [u32; 256] {
    let mut table = [0; 256];
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
        table[index] = value;
        index += 1;
    }
    table
}

/// The sum of `bytes`.
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    let mut value = u32::MAX;
    for byte in bytes {
        value = (value >> 8) ^ TABLE[usize::from(value.to_le_bytes()[0] ^ byte)];
    }
    !value
}

#[cfg(test)]
mod tests {
    #[test]
    fn it_is_castagnoli() {
        assert_eq!(super::crc32c(b"123456789"), 0xE306_9283);
    }
}
