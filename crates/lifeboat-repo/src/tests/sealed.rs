//! Notes every seal of this test process: which key, which nonce, what was sealed. INV-05 is that no pair of key and nonce stands here
//! with two different things.

use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

use ring::aead::{Aad, LessSafeKey, Nonce};

use crate::sync::lock;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Sealed {
    /// What the key makes of nothing under a nonce that is used for nothing else.
    key: [u8; 16],
    nonce: [u8; 12],
    content: [u8; 32],
}

/// What each key and nonce, or part of a nonce, sealed.
type Contents<const N: usize> = HashMap<([u8; 16], [u8; N]), HashSet<[u8; 32]>>;

static ALL: Mutex<Vec<Sealed>> = Mutex::new(Vec::new());

pub(crate) fn note(key: &LessSafeKey, nonce: &[u8], associated: &[u8], plain: &[u8]) {
    let unused = Nonce::assume_unique_for_key([0xFF; 12]);
    let tag = key.seal_in_place_separate_tag(unused, Aad::empty(), &mut []).unwrap();
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(associated.len() as u64).to_le_bytes());
    hasher.update(associated);
    hasher.update(plain);
    let sealed = Sealed {
        key: tag.as_ref().try_into().unwrap(),
        nonce: nonce.try_into().unwrap(),
        content: *hasher.finalize().as_bytes(),
    };
    lock(&ALL).push(sealed);
}

/// What the notes say.
#[derive(Debug)]
pub(super) struct Judged {
    /// Pairs of key and nonce that sealed two different things.
    pub(super) repeated: usize,
    /// Pairs of key and offset that sealed two different things: what a nonce made of the offset alone would have repeated.
    pub(super) same_offset: usize,
    pub(super) seals: usize,
}

pub(super) fn judge() -> Judged {
    let all = lock(&ALL).clone();
    let mut by_nonce: Contents<12> = HashMap::new();
    let mut by_offset: Contents<4> = HashMap::new();
    for sealed in &all {
        by_nonce.entry((sealed.key, sealed.nonce)).or_default().insert(sealed.content);
        let offset = [sealed.nonce[0], sealed.nonce[1], sealed.nonce[2], sealed.nonce[3]];
        by_offset.entry((sealed.key, offset)).or_default().insert(sealed.content);
    }
    Judged {
        repeated: by_nonce.values().filter(|contents| contents.len() > 1).count(),
        same_offset: by_offset.values().filter(|contents| contents.len() > 1).count(),
        seals: all.len(),
    }
}
