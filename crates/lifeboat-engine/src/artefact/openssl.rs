//! Files of `openssl enc -aes-256-cbc`: `Salted__`, 8 bytes of salt, AES-256-CBC with PKCS#7 padding. Nothing in them proves that a
//! passphrase fits: what comes out does, or does not, look like something known.

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
