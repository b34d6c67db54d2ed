//! Files of `openssl enc -aes-256-cbc`: `Salted__`, 8 bytes of salt, AES-256-CBC with PKCS#7 padding. Nothing in them proves that a
//! passphrase fits: what comes out does, or does not, look like something known.

use std::io::{self, Read};

use aes::Aes256;
use cbc::Decryptor;
use cbc::cipher::generic_array::GenericArray;
use cbc::cipher::{BlockDecryptMut, KeyIvInit};
use md5::{Digest as _, Md5};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

/// How every such file begins.
pub(super) const MAGIC: &[u8; 8] = b"Salted__";

/// Bytes before the first block: the magic and the salt.
pub(super) const HEADER_BYTES: usize = 16;

const BLOCK_BYTES: usize = 16;
const KEY_BYTES: usize = 32;

/// Bytes decrypted at a time.
const CHUNK_BYTES: usize = 64 << 10;

/// How `openssl enc` made a key of the passphrase.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpensslKdf {
    /// PBKDF2 with HMAC-SHA-256 (`-pbkdf2`).
    Pbkdf2,
    /// One round of SHA-256 (`EVP_BytesToKey`): openssl 1.1 and later without `-pbkdf2`.
    Sha256,
    /// One round of MD5: openssl before 1.1.
    Md5,
}

impl OpensslKdf {
    /// Every one, in the order in which they are tried.
    pub const ALL: [Self; 3] = [Self::Pbkdf2, Self::Sha256, Self::Md5];

    /// The word of the configuration.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Pbkdf2 => "pbkdf2",
            Self::Sha256 => "sha256",
            Self::Md5 => "md5",
        }
    }
}

/// A passphrase and what is known of its use.
#[derive(Clone)]
pub struct Passphrase {
    /// What the configuration calls it.
    pub name: String,
    /// How a key is made of it; `None` to try all ways.
    pub kdf: Option<OpensslKdf>,
    /// Rounds of PBKDF2.
    pub iterations: u32,
    /// The passphrase.
    pub secret: Zeroizing<String>,
}

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Passphrase").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Passphrase {
    /// The ways to try it.
    pub(super) fn ways(&self) -> Vec<OpensslKdf> {
        self.kdf.map_or_else(|| OpensslKdf::ALL.to_vec(), |kdf| vec![kdf])
    }

    /// Key and initial vector for a salt.
    pub(super) fn key(&self, kdf: OpensslKdf, salt: &[u8]) -> Zeroizing<[u8; KEY_BYTES + BLOCK_BYTES]> {
        let mut key = Zeroizing::new([0; KEY_BYTES + BLOCK_BYTES]);
        let secret = self.secret.as_bytes();
        match kdf {
            OpensslKdf::Pbkdf2 => pbkdf2::pbkdf2_hmac::<Sha256>(secret, salt, self.iterations, key.as_mut()),
            OpensslKdf::Sha256 => bytes_to_key(&mut key, |last| {
                let mut hash = Sha256::new();
                hash.update(last);
                hash.update(secret);
                hash.update(salt);
                Zeroizing::new(hash.finalize().to_vec())
            }),
            OpensslKdf::Md5 => bytes_to_key(&mut key, |last| {
                let mut hash = Md5::new();
                hash.update(last);
                hash.update(secret);
                hash.update(salt);
                Zeroizing::new(hash.finalize().to_vec())
            }),
        }
        key
    }
}

/// `EVP_BytesToKey` with one round: each hash takes the one before, the passphrase and the salt.
fn bytes_to_key(key: &mut [u8; KEY_BYTES + BLOCK_BYTES], hash: impl Fn(&[u8]) -> Zeroizing<Vec<u8>>) {
    let mut last = Zeroizing::new(Vec::new());
    let mut filled = 0;
    while filled < key.len() {
        last = hash(&last);
        for (place, byte) in key.iter_mut().skip(filled).zip(last.iter()) {
            *place = *byte;
        }
        filled += last.len();
    }
}

/// Decrypts whole blocks in place.
fn decrypt(cipher: &mut Decryptor<Aes256>, bytes: &mut [u8]) {
    for block in bytes.chunks_exact_mut(BLOCK_BYTES) {
        cipher.decrypt_block_mut(GenericArray::from_mut_slice(block));
    }
}

fn cipher(key: &[u8; KEY_BYTES + BLOCK_BYTES]) -> Decryptor<Aes256> {
    let (key, iv) = key.split_at(KEY_BYTES);
    Decryptor::new(GenericArray::from_slice(key), GenericArray::from_slice(iv))
}

/// The beginning in the clear, as far as whole blocks of `sealed` go. The last block of a short file still has its padding.
pub(super) fn beginning(key: &[u8; KEY_BYTES + BLOCK_BYTES], sealed: &[u8]) -> Vec<u8> {
    let mut bytes = sealed
        .get(..sealed.len() / BLOCK_BYTES * BLOCK_BYTES)
        .unwrap_or_default()
        .to_vec();
    decrypt(&mut cipher(key), &mut bytes);
    bytes
}

/// Reads the clear bytes of what `inner` gives after the salt.
pub(super) struct Decrypting<R> {
    inner: R,
    cipher: Decryptor<Aes256>,
    /// Clear bytes; those before `at` were given out. The last block stays back until it is known not to be the last of the file.
    clear: Vec<u8>,
    at: usize,
    /// Sealed bytes that make no whole block yet.
    sealed: Vec<u8>,
    ended: bool,
}

impl<R: Read> Decrypting<R> {
    pub(super) fn new(inner: R, key: &[u8; KEY_BYTES + BLOCK_BYTES]) -> Self {
        Self {
            inner,
            cipher: cipher(key),
            clear: Vec::new(),
            at: 0,
            sealed: Vec::new(),
            ended: false,
        }
    }

    /// Makes clear bytes to give out, or finds the end.
    fn advance(&mut self) -> io::Result<()> {
        self.clear.drain(..self.at);
        self.at = 0;
        let mut chunk = vec![0; CHUNK_BYTES];
        let count = self.inner.read(&mut chunk)?;
        if count == 0 {
            self.ended = true;
            return self.unpad();
        }
        self.sealed.extend_from_slice(chunk.get(..count).unwrap_or_default());
        let whole = self.sealed.len() / BLOCK_BYTES * BLOCK_BYTES;
        let mut blocks: Vec<u8> = self.sealed.drain(..whole).collect();
        decrypt(&mut self.cipher, &mut blocks);
        self.clear.extend_from_slice(&blocks);
        Ok(())
    }

    /// Takes the padding off: 1 to 16 bytes, each of which says how many.
    fn unpad(&mut self) -> io::Result<()> {
        let cut = |says| Err(io::Error::new(io::ErrorKind::UnexpectedEof, says));
        if !self.sealed.is_empty() || self.clear.is_empty() {
            return cut("the encrypted file is cut off: its length is no whole number of blocks");
        }
        let padding = usize::from(self.clear.last().copied().unwrap_or(0));
        let keep = self.clear.len().saturating_sub(padding);
        let good = (1..=BLOCK_BYTES).contains(&padding)
            && self
                .clear
                .get(keep..)
                .is_some_and(|pad| pad.len() == padding && pad.iter().all(|byte| usize::from(*byte) == padding));
        if !good {
            return cut("the encrypted file is cut off or damaged: its end is not what openssl writes");
        }
        self.clear.truncate(keep);
        Ok(())
    }

    fn ready(&self) -> usize {
        let held_back = if self.ended { 0 } else { BLOCK_BYTES };
        self.clear.len().saturating_sub(self.at).saturating_sub(held_back)
    }
}

impl<R: Read> Read for Decrypting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.ready() == 0 {
            if self.ended {
                return Ok(0);
            }
            self.advance()?;
        }
        let count = self.ready().min(buffer.len());
        if let (Some(to), Some(from)) = (buffer.get_mut(..count), self.clear.get(self.at..self.at + count)) {
            to.copy_from_slice(from);
        }
        self.at += count;
        Ok(count)
    }
}
