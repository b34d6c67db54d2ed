//! Signed files (format 3): body, then who signed it.

use lifeboat_model::{Error, ErrorKind, Result};

use crate::key::instance::{Instance, PublicKey, Rights, SIGNED_FILES, Trust, verifies};

const MAGIC: &[u8; 8] = b"LBSIGN01";
pub(crate) const TRAILER_BYTES: usize = 104;

/// What a signed file is; part of what is signed, so that one cannot stand for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Session,
    Backup,
    Census,
    Sweep,
    Hold,
    Bad,
    Log,
    Lineage,
    Gap,
    Ledger,
    Kit,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Backup => "backup",
            Self::Census => "census",
            Self::Sweep => "sweep",
            Self::Hold => "hold",
            Self::Bad => "bad",
            Self::Log => "log",
            Self::Lineage => "lineage",
            Self::Gap => "gap",
            Self::Ledger => "ledger",
            Self::Kit => "kit",
        }
    }

    /// Whether an instance with `rights` may write such a file, and the words for what it may not.
    fn allowed(self, rights: Rights) -> std::result::Result<(), &'static str> {
        let (allowed, what) = match self {
            Self::Backup => (rights.backup, "write backups"),
            // A pruner announces itself, too; finding damage harms nobody: what is marked is stored once more.
            Self::Session => (rights.backup || rights.prune, "announce anything"),
            Self::Census | Self::Sweep => (rights.prune, "delete"),
            Self::Log | Self::Lineage | Self::Gap => (rights.backup, "write log"),
            Self::Hold => (rights.hold, "hold backups"),
            Self::Bad => (true, "mark damage"),
            // A record deletes nothing and makes nothing count; whoever may do anything tells what it did.
            Self::Ledger => (true, "keep a ledger"),
            Self::Kit => (rights.backup, "write recovery kits"),
        };
        if allowed { Ok(()) } else { Err(what) }
    }

    fn message(self, body: &[u8]) -> Vec<u8> {
        let mut message = SIGNED_FILES.to_vec();
        message.extend_from_slice(format!("{}\0", self.word()).as_bytes());
        message.extend_from_slice(blake3::hash(body).as_bytes());
        message
    }
}

/// Appends the trailer to `body`.
pub(crate) fn sign(kind: Kind, mut body: Vec<u8>, instance: &Instance) -> Vec<u8> {
    let signature = instance.sign(&kind.message(&body));
    body.extend_from_slice(&instance.public_key().0);
    body.extend_from_slice(&signature);
    body.extend_from_slice(MAGIC);
    body
}

/// Who signed a file, by its own word: whether that is anybody known is not asked. `Corrupt` where the signature does not fit.
pub(crate) fn signer(kind: Kind, name: &str, stored: &[u8]) -> Result<PublicKey> {
    let mut public = [0; 32];
    let trailer = stored.len().checked_sub(TRAILER_BYTES).and_then(|at| stored.get(at..at + 32));
    public.copy_from_slice(trailer.unwrap_or(&[0; 32]));
    let mut itself = Trust::new();
    itself.add("its signer", PublicKey(public));
    open(kind, name, stored, &itself).map(|(_, signer)| signer)
}

/// The body of a file that a trusted instance signed. `Corrupt` for anything else, saying which it is.
pub(crate) fn open<'a>(kind: Kind, name: &str, stored: &'a [u8], trust: &Trust) -> Result<(&'a [u8], PublicKey)> {
    let bad = |detail: String| Error::new(ErrorKind::Corrupt, "accept", name, detail);
    let (body, trailer) = stored
        .len()
        .checked_sub(TRAILER_BYTES)
        .and_then(|at| stored.split_at_checked(at))
        .ok_or_else(|| bad("it is too short to carry a signature".into()))?;
    if trailer.get(96..) != Some(MAGIC.as_slice()) {
        return Err(bad(
            "it ends without a signature: it is truncated or not a Lifeboat file".into()
        ));
    }
    let mut public = [0; 32];
    public.copy_from_slice(&trailer[..32]);
    let public = PublicKey(public);
    if !verifies(&public, &kind.message(body), &trailer[32..96]) {
        return Err(bad("its signature does not fit its content: it is damaged or forged".into()));
    }
    let Some((signer, rights)) = trust.get(&public) else {
        return Err(bad(format!("it is signed by {public}, which is not among the configured instances"))
            .with_hint("if that is one of your machines, add its key under `instances:` in lifeboat.yaml; if not, somebody else writes to this store"));
    };
    if let Err(what) = kind.allowed(rights) {
        return Err(bad(format!("it is signed by {signer}, which may not {what}")).with_hint(
            "see `may` under `instances:` in lifeboat.yaml; if that machine should not have written this, look at it",
        ));
    }
    Ok((body, public))
}
