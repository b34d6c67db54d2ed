//! A row: 32 bytes that say where one extent or chunk lies.

use lifeboat_model::Result;

use crate::bytes::Fields;
use crate::key::Id;
use crate::pack::{Form, Placement};

/// Bytes of a row.
pub(crate) const ROW_BYTES: usize = 32;

/// What a row says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Row {
    /// Nobody's.
    Unused,
    /// An extent of zero bytes.
    Zero { id: Id },
    /// A blob; `extra` is the first overlay slot of an extent (0: none) or the raw length of a chunk.
    Blob { place: Placement, extra: u32, id: Id },
}

impl Row {
    pub(crate) fn encode(&self) -> [u8; ROW_BYTES] {
        let mut bytes = [0; ROW_BYTES];
        match self {
            Self::Unused => {}
            Self::Zero { id } => {
                bytes[11] = 1;
                bytes[16..].copy_from_slice(id);
            }
            Self::Blob { place, extra, id } => {
                bytes[..4].copy_from_slice(&place.pack.to_le_bytes());
                bytes[4..8].copy_from_slice(&place.offset.to_le_bytes());
                bytes[8..12].copy_from_slice(&pack_length(place).to_le_bytes());
                bytes[12..16].copy_from_slice(&extra.to_le_bytes());
                bytes[16..].copy_from_slice(id);
            }
        }
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self> {
        let mut fields = Fields::new(bytes, "a row");
        let (pack, offset, length, extra) = (fields.u32()?, fields.u32()?, fields.u32()?, fields.u32()?);
        let id: Id = fields.array()?;
        match length >> 24 {
            0 => Ok(Self::Unused),
            1 => Ok(Self::Zero { id }),
            form => Ok(Self::Blob {
                place: unpack_length(pack, offset, length, form)?,
                extra,
                id,
            }),
        }
    }

    /// The pack it lies in, if any.
    pub(crate) fn pack(&self) -> Option<u32> {
        match self {
            Self::Unused | Self::Zero { .. } => None,
            Self::Blob { place, .. } => Some(place.pack),
        }
    }

    /// The id; zeros for an unused row.
    pub(crate) fn id(&self) -> Id {
        match self {
            Self::Unused => Id::default(),
            Self::Zero { id } | Self::Blob { id, .. } => *id,
        }
    }
}

/// Stored length and form in one number.
pub(crate) fn pack_length(place: &Placement) -> u32 {
    place.stored_bytes | (u32::from(place.form.byte()) << 24)
}

/// The reverse of [`pack_length`].
pub(crate) fn unpack_length(pack: u32, offset: u32, length: u32, form: u32) -> Result<Placement> {
    let form = Form::from_byte(u8::try_from(form).unwrap_or(u8::MAX))?;
    Ok(Placement {
        pack,
        offset,
        stored_bytes: length & 0x00FF_FFFF,
        form,
    })
}
