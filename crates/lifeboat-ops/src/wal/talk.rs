//! What is said on the socket: a name, and then frames. Both ends are the same program.
//!
//! A file is complete only with its last frame: whatever breaks off before is nothing. Reading may take as long as a store takes to answer; whoever
//! answers says from time to time that he is at it, so that silence means something.

use lifeboat_model::{Error, ErrorKind, Result};

/// What a question begins with.
pub(super) const GREETING: &str = "lifeboat-log-1 ";
/// The longest question.
pub(super) const QUESTION_LIMIT: usize = 256;
/// The longest frame.
pub(super) const FRAME_LIMIT: u32 = 16 << 20;
/// The longest file: a segment.
pub(super) const FILE_LIMIT: u64 = 1 << 30;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tag {
    /// Bytes of the file.
    Bytes,
    /// The file is complete: its length, 8 bytes.
    Whole,
    /// There is no such file, with the reason.
    Absent,
    /// It cannot be had now, with the reason, which may pass.
    NotNow,
    /// It cannot be had, with the reason, which somebody has to mend.
    Broken,
    /// Nothing yet, and whoever answers is at it.
    Wait,
}

/// The head of a frame.
pub(super) fn head(tag: Tag, length: usize) -> Result<[u8; 5]> {
    let length = u32::try_from(length).ok().filter(|length| *length <= FRAME_LIMIT);
    let length = length.ok_or_else(|| Error::new(ErrorKind::Bug, "answer", "on the socket", "a frame is too long"))?;
    let letter = match tag {
        Tag::Bytes => b'B',
        Tag::Whole => b'W',
        Tag::Absent => b'A',
        Tag::NotNow => b'N',
        Tag::Broken => b'D',
        Tag::Wait => b'.',
    };
    let [a, b, c, d] = length.to_le_bytes();
    Ok([letter, a, b, c, d])
}

/// Reads the head of a frame.
pub(super) fn read_head(head: [u8; 5]) -> Result<(Tag, usize)> {
    let [letter, a, b, c, d] = head;
    let wrong = |detail: &str| Error::new(ErrorKind::Failed, "understand", "the answer on the socket", detail);
    let tag = match letter {
        b'B' => Tag::Bytes,
        b'W' => Tag::Whole,
        b'A' => Tag::Absent,
        b'N' => Tag::NotNow,
        b'D' => Tag::Broken,
        b'.' => Tag::Wait,
        _ => return Err(wrong("it is of another version of Lifeboat, or not of Lifeboat")),
    };
    let length = u32::from_le_bytes([a, b, c, d]);
    if length > FRAME_LIMIT {
        return Err(wrong("a frame is longer than any may be"));
    }
    let length = usize::try_from(length).map_err(|error| wrong("a frame is too long").with_source(error))?;
    Ok((tag, length))
}
