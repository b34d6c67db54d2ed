//! An identity from nothing but a passphrase (`BACKUP_ENCRYPTION_KEY`): the same passphrase gives the same key on every machine.
//!
//! Documented in `docs/how-to/keys.md`, and repeated by `tools/recover.py identity`: scrypt over the passphrase with a fixed salt gives
//! 32 bytes, which are an age X25519 secret key. A fixed salt means that two people with the same passphrase have the same key, so it has
//! to be long and random; it buys that nothing but the passphrase is needed on the day of the disaster.

use ::age::x25519;
use lifeboat_model::{Error, ErrorKind, Result};
use zeroize::Zeroizing;

const SALT: &[u8] = b"lifeboat 2026 v1 passphrase identity";
/// 2^17 blocks of 1 KiB: 128 MiB and about half a second.
const LOG_N: u8 = 17;
const LETTERS: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";
/// Fewer characters are guessed, however slow a guess is.
const SHORTEST: usize = 12;

/// The age identity of a passphrase: secret (`AGE-SECRET-KEY-1…`) and public key (`age1…`). Takes about half a second and 128 MiB.
/// Spaces and line breaks around the passphrase do not count. Kind `ConfigInvalid` for one that is too short to be worth anything.
pub fn identity_from_passphrase(passphrase: &str) -> Result<(Zeroizing<String>, String)> {
    let refused = |detail: String| {
        Error::new(ErrorKind::ConfigInvalid, "derive a key from", "the passphrase", detail)
            .with_hint("`openssl rand -base64 32` prints a good one")
    };
    let passphrase = passphrase.trim();
    if passphrase.chars().count() < SHORTEST {
        return Err(refused(format!(
            "it has fewer than {SHORTEST} characters and would be guessed"
        )));
    }
    let mut secret = Zeroizing::new([0; 32]);
    let failed = |detail: String| Error::new(ErrorKind::Bug, "derive a key from", "the passphrase", detail);
    let params = scrypt::Params::new(LOG_N, 8, 1, secret.len()).map_err(|error| failed(error.to_string()))?;
    scrypt::scrypt(passphrase.as_bytes(), SALT, &params, secret.as_mut_slice()).map_err(|error| failed(error.to_string()))?;
    let text = Zeroizing::new(bech32(b"age-secret-key-", secret.as_slice()).to_ascii_uppercase());
    let identity = text
        .parse::<x25519::Identity>()
        .map_err(|reason| failed(format!("the derived key is not one ({reason})")))?;
    Ok((text, identity.to_public().to_string()))
}

/// Bech32 (BIP 173) of whole bytes.
fn bech32(prefix: &[u8], data: &[u8]) -> String {
    let mut values = Zeroizing::new(Vec::with_capacity(data.len() * 2 + 6));
    let (mut bits, mut count) = (0_u32, 0_u32);
    for byte in data {
        bits = (bits << 8 | u32::from(*byte)) & 0xfff;
        count += 8;
        while count >= 5 {
            count -= 5;
            values.push(bits >> count & 31);
        }
    }
    if count > 0 {
        values.push(bits << (5 - count) & 31);
    }
    let high = prefix.iter().map(|byte| u32::from(*byte) >> 5);
    let low = prefix.iter().map(|byte| u32::from(*byte) & 31);
    let all = high.chain([0]).chain(low).chain(values.iter().copied()).chain([0; 6]);
    let sum = polymod(all) ^ 1;
    values.extend((0..6).map(|index| sum >> (5 * (5 - index)) & 31));
    let mut text: String = prefix.iter().copied().map(char::from).collect();
    text.push('1');
    let letter = |value: &u32| LETTERS.get(*value as usize).copied().map(char::from);
    text.extend(values.iter().filter_map(letter));
    text
}

fn polymod(values: impl Iterator<Item = u32>) -> u32 {
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    values.fold(1, |sum, value| {
        let top = sum >> 25;
        let shifted = ((sum & 0x01ff_ffff) << 5) ^ value;
        let chosen = GENERATOR.iter().enumerate().filter(|(bit, _)| top >> bit & 1 == 1);
        chosen.fold(shifted, |sum, (_, generator)| sum ^ generator)
    })
}
