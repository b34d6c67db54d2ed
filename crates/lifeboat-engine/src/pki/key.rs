//! The public half of a private key: what a certificate has to hold to belong to it. The private half is looked at and let go.

use curve25519_dalek::edwards::EdwardsPoint;
use sha2::{Digest, Sha512};

use super::der::{BIT_STRING, Block, Der, INTEGER, OCTET_STRING, OID, SEQUENCE, trimmed};

const RSA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01];
const RSA_PSS: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a];
const EC: &[u8] = &[0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01];
const ED25519: &[u8] = &[0x2b, 0x65, 0x70];

/// What two keys are compared by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Public {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    Ec(Vec<u8>),
    Ed25519(Vec<u8>),
}

impl Public {
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Rsa { .. } => "RSA",
            Self::Ec(_) => "EC",
            Self::Ed25519(_) => "Ed25519",
        }
    }

    /// Whether the two are the same key; a point of a curve may be written in two ways.
    pub(super) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Ec(one), Self::Ec(two)) => one == two || compressed(one).is_some_and(|one| compressed(two) == Some(one)),
            _ => self == other,
        }
    }

    /// From the parts of a SubjectPublicKeyInfo: the algorithm's OID and the bits.
    pub(super) fn of_certificate(algorithm: &[u8], bits: &[u8]) -> Option<Self> {
        match algorithm {
            RSA | RSA_PSS => {
                let mut key = Der(Der(bits).take(SEQUENCE)?);
                rsa(key.take(INTEGER)?, key.take(INTEGER)?)
            }
            EC => Some(Self::Ec(bits.to_vec())),
            ED25519 => Some(Self::Ed25519(bits.to_vec())),
            _ => None,
        }
    }
}

fn rsa(modulus: &[u8], exponent: &[u8]) -> Option<Public> {
    Some(Public::Rsa {
        modulus: trimmed(modulus).to_vec(),
        exponent: trimmed(exponent).to_vec(),
    })
}

/// A point as SEC 1 compresses it.
fn compressed(point: &[u8]) -> Option<Vec<u8>> {
    match point.split_first()? {
        (2 | 3, _) => Some(point.to_vec()),
        (4, rest) if rest.len().is_multiple_of(2) => {
            let (x, y) = rest.split_at(rest.len() / 2);
            let mut short = vec![2 + (y.last()? & 1)];
            short.extend_from_slice(x);
            Some(short)
        }
        _ => None,
    }
}

/// What a file holds as a private key.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Private {
    /// Readable, with the public half it has.
    Plain(Public),
    /// Encrypted with a passphrase: nothing can be said about it.
    Encrypted,
    /// Readable, but the public half is not in it, or it is of a kind that is not known here.
    Opaque(String),
}

/// The private key of a PEM block, if it is one; `Some(None)` when it says so and is none.
pub(super) fn of_block(block: &Block) -> Option<Option<Private>> {
    if block.encrypted && block.label.ends_with("PRIVATE KEY") {
        return Some(Some(Private::Encrypted));
    }
    match block.label.as_str() {
        "ENCRYPTED PRIVATE KEY" => Some(encrypted(&block.der)),
        "PRIVATE KEY" => Some(pkcs8(&block.der)),
        "RSA PRIVATE KEY" => Some(pkcs1(&block.der)),
        "EC PRIVATE KEY" => Some(sec1(&block.der)),
        "OPENSSH PRIVATE KEY" | "DSA PRIVATE KEY" => Some(Some(Private::Opaque(block.label.to_lowercase()))),
        _ => None,
    }
}

/// The private key that these DER bytes are, if they are one.
pub(super) fn of_der(der: &[u8]) -> Option<Private> {
    pkcs8(der)
        .or_else(|| pkcs1(der))
        .or_else(|| sec1(der))
        .or_else(|| encrypted(der))
}

/// RFC 5958: SEQUENCE { version, algorithm, OCTET STRING key, … }.
fn pkcs8(der: &[u8]) -> Option<Private> {
    let mut key = Der(Der(der).take(SEQUENCE)?);
    key.take(INTEGER)?;
    let mut algorithm = Der(key.take(SEQUENCE)?);
    let oid = algorithm.take(OID)?;
    let content = key.take(OCTET_STRING)?;
    match oid {
        RSA | RSA_PSS => pkcs1(content),
        EC => sec1(content),
        ED25519 => {
            let seed = Der(content).take(OCTET_STRING)?;
            Some(Private::Plain(Public::Ed25519(ed25519(seed)?)))
        }
        _ => Some(Private::Opaque("a private key of a kind that is not known here".to_owned())),
    }
}

/// RFC 8017: SEQUENCE { version, modulus, publicExponent, privateExponent, … }.
fn pkcs1(der: &[u8]) -> Option<Private> {
    let mut key = Der(Der(der).take(SEQUENCE)?);
    key.take(INTEGER)?;
    let public = rsa(key.take(INTEGER)?, key.take(INTEGER)?)?;
    key.take(INTEGER)?;
    Some(Private::Plain(public))
}

/// RFC 5915: `SEQUENCE { 1, OCTET STRING key, [0] curve, [1] BIT STRING public }`.
fn sec1(der: &[u8]) -> Option<Private> {
    let mut key = Der(Der(der).take(SEQUENCE)?);
    if trimmed(key.take(INTEGER)?) != [1] {
        return None;
    }
    key.take(OCTET_STRING)?;
    while let Some((tag, content)) = key.next() {
        if tag == 0xa1 {
            // The first byte of a bit string counts its unused bits.
            let (_, point) = Der(content).take(BIT_STRING)?.split_first()?;
            return Some(Private::Plain(Public::Ec(point.to_vec())));
        }
    }
    Some(Private::Opaque("an EC key without its public half".to_owned()))
}

/// RFC 5958: SEQUENCE { algorithm, OCTET STRING }.
fn encrypted(der: &[u8]) -> Option<Private> {
    let mut key = Der(Der(der).take(SEQUENCE)?);
    Der(key.take(SEQUENCE)?).take(OID)?;
    key.take(OCTET_STRING)?;
    key.0.is_empty().then_some(Private::Encrypted)
}

/// RFC 8032, 5.1.5: the public half of a seed.
fn ed25519(seed: &[u8]) -> Option<Vec<u8>> {
    if seed.len() != 32 {
        return None;
    }
    let hash = Sha512::digest(seed);
    let scalar: [u8; 32] = hash.get(..32)?.try_into().ok()?;
    Some(EdwardsPoint::mul_base_clamped(scalar).compress().to_bytes().to_vec())
}
