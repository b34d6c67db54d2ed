//! Reading and writing little-endian fields of fixed records, without panics on short input.

use lifeboat_model::{Error, ErrorKind, Result};

/// A cursor over outside bytes: every read that does not fit is an error of kind `Corrupt`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Fields<'a> {
    /// Reads `bytes`, called `what` in errors.
    pub(crate) fn new(bytes: &'a [u8], what: &'static str) -> Self {
        Self { rest: bytes, what }
    }

    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let Some((head, tail)) = self.rest.split_at_checked(count) else {
            return Err(Error::new(
                ErrorKind::Corrupt,
                "decode",
                self.what,
                "it is shorter than its own fields say",
            ));
        };
        self.rest = tail;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }
}

/// A length that was bounded before, as the `u32` the format stores; anything larger is a bug, reported as one.
pub(crate) fn len_u32(length: usize, what: &'static str) -> Result<u32> {
    u32::try_from(length)
        .map_err(|error| Error::new(ErrorKind::Bug, "store the length of", what, "it is 4 GiB or more").with_source(error))
}

/// A stored length as a memory size (the product runs on 64-bit machines only).
pub(crate) fn size(length: u64, what: &'static str) -> Result<usize> {
    usize::try_from(length)
        .map_err(|error| Error::new(ErrorKind::Corrupt, "decode", what, "a length in it is out of range").with_source(error))
}

/// Decodes exactly `N` bytes of hex.
pub(crate) fn hex_array<const N: usize>(text: &str, what: &'static str) -> Result<[u8; N]> {
    let mut array = [0; N];
    hex::decode_to_slice(text, &mut array).map_err(|error| {
        Error::new(ErrorKind::Corrupt, "decode", what, format!("it is not {N} bytes of hex")).with_source(error)
    })?;
    Ok(array)
}
