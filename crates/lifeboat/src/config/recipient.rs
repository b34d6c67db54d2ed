//! Whether a text is an age public key: checked when the configuration is read, so that a typing error does not wait for
//! the first backup.
//!
//! Checks the letters and their check sum (bech32) only; the key itself is read where it is used. Must not repeat what
//! was written: somebody may have pasted a secret key.

/// The letters of bech32, in the order of their values.
const LETTERS: &str = "qpzry9x8gf2tvdw0s3jn54khce6mua7l";

/// Length of an age X25519 public key in characters.
const LENGTH: usize = 62;

/// Why `text` is not an age public key.
pub(super) fn check(text: &str) -> Result<(), &'static str> {
    if text.to_ascii_uppercase().starts_with("AGE-SECRET-KEY-") {
        return Err("this is a secret key: it belongs into a file, named under `identity`");
    }
    let Some(data) = text.strip_prefix("age1") else {
        return Err("it does not begin with `age1`");
    };
    let values: Option<Vec<u32>> = data.chars().map(value).collect();
    let Some(values) = values else {
        return Err("it has letters that no public key has");
    };
    if text.len() != LENGTH {
        return Err("it is too short or too long for a public key");
    }
    let prefix = b"age";
    let high = prefix.iter().map(|&byte| u32::from(byte) >> 5);
    let low = prefix.iter().map(|&byte| u32::from(byte) & 31);
    if polymod(high.chain(std::iter::once(0)).chain(low).chain(values)) == 1 {
        Ok(())
    } else {
        Err("its check sum is wrong: there is a typing error in it")
    }
}

fn value(letter: char) -> Option<u32> {
    LETTERS.find(letter).and_then(|index| u32::try_from(index).ok())
}

/// The check sum of bech32 (BIP 173).
fn polymod(values: impl Iterator<Item = u32>) -> u32 {
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    values.fold(1, |sum, value| {
        let top = sum >> 25;
        let shifted = ((sum & 0x01ff_ffff) << 5) ^ value;
        GENERATOR
            .iter()
            .enumerate()
            .filter(|(bit, _)| (top >> bit) & 1 == 1)
            .fold(shifted, |sum, (_, generator)| sum ^ generator)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_what_age_makes_and_notices_one_wrong_letter() {
        let (secret, public) = lifeboat_repo::generate_identity();
        assert_eq!(check(&public), Ok(()));
        assert!(check(&secret).is_err());
        for index in 4..public.len() {
            let mut letters: Vec<char> = public.chars().collect();
            letters[index] = if letters[index] == 'q' { 'p' } else { 'q' };
            let wrong: String = letters.into_iter().collect();
            assert!(
                check(&wrong).is_err(),
                "letter {index} of {public} changed and nobody noticed"
            );
        }
    }
}
