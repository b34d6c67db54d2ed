//! Keys, certificates and revocation lists: do they fit each other, and how long will they last?
//!
//! A pure examination of bytes that somebody else has read: of what is being backed up, so that the backup holds exactly what was
//! examined, and of what was restored. Never opens a file, never keeps a private half, and judges only what is written in the files: no
//! certificate outside of them is trusted or needed.

mod chain;
mod der;
mod key;

use std::time::Duration;

use serde::{Deserialize, Serialize};
use x509_parser::prelude::{ASN1Time, CertificateRevocationList, FromDer, X509Certificate};

use der::{Der, pem_blocks};
use key::{Private, Public};

/// What a file is expected to hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expect {
    /// At least one private key.
    Key,
    /// At least one certificate.
    Certificate,
    /// At least one revocation list.
    RevocationList,
    /// Anything.
    Anything,
}

/// One file: PEM or DER.
#[derive(Debug, Clone, Copy)]
pub struct Material<'a> {
    /// How findings call it.
    pub path: &'a str,
    /// What it should hold.
    pub expect: Expect,
    /// Its content.
    pub bytes: &'a [u8],
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It does not work, or will not when it is needed.
    Problem,
    /// It works, and somebody has to do something soon.
    Warning,
    /// It cannot be examined here. No sign of a problem.
    Unchecked,
}

/// One sentence about one file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// Which file.
    pub path: String,
    /// What is found, one sentence without a final stop.
    pub says: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.path, self.says)
    }
}

/// What the files hold and what is wrong with it. Holds nothing secret.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Private keys.
    pub keys: Vec<KeyFact>,
    /// Certificates, in the order of the files.
    pub certificates: Vec<CertificateFact>,
    /// Revocation lists.
    pub revocation_lists: Vec<RevocationFact>,
    /// What to know, worst first.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing is broken; warnings may be there.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.iter().all(|finding| finding.severity != Severity::Problem)
    }

    /// The next time at which something here ends, seconds since 1970.
    #[must_use]
    pub fn next_end_s(&self) -> Option<i64> {
        let certificates = self.certificates.iter().map(|certificate| certificate.not_after_s);
        certificates
            .chain(self.revocation_lists.iter().filter_map(|list| list.next_update_s))
            .min()
    }
}

/// A private key that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyFact {
    /// In which file.
    pub path: String,
    /// `RSA`, `EC`, `Ed25519`, `encrypted` or `unknown`.
    pub kind: String,
    /// The subjects of the certificates that it belongs to.
    pub certificates: Vec<String>,
}

/// A certificate that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateFact {
    /// In which file.
    pub path: String,
    /// Whose it is.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// Serial number, hex with colons.
    pub serial: String,
    /// Whether it may sign others.
    pub is_ca: bool,
    /// Valid from, seconds since 1970.
    pub not_before_s: i64,
    /// Valid until, seconds since 1970.
    pub not_after_s: i64,
}

/// A revocation list that was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RevocationFact {
    /// In which file.
    pub path: String,
    /// Who signed it.
    pub issuer: String,
    /// When the next one is due, seconds since 1970.
    pub next_update_s: Option<i64>,
    /// How many certificates it revokes.
    pub revoked: u64,
}

/// Everything that was found, still to be compared.
#[derive(Default)]
struct Contents {
    keys: Vec<(String, Private)>,
    certificates: Vec<(String, Vec<u8>)>,
    lists: Vec<(String, Vec<u8>)>,
    findings: Vec<Finding>,
}

impl Contents {
    fn say(&mut self, severity: Severity, path: &str, says: impl Into<String>) {
        self.findings.push(Finding {
            severity,
            path: path.to_owned(),
            says: says.into(),
        });
    }
}

/// Examines `materials` as of `now_us` (microseconds since 1970); what ends within `warn` gets a warning.
#[must_use]
pub fn examine(materials: &[Material<'_>], now_us: i64, warn: Duration) -> Report {
    let mut contents = Contents::default();
    for material in materials {
        read(material, &mut contents);
    }
    let (certificate_bytes, list_bytes) = (
        std::mem::take(&mut contents.certificates),
        std::mem::take(&mut contents.lists),
    );
    let mut certificates = Vec::new();
    for (path, bytes) in &certificate_bytes {
        match X509Certificate::from_der(bytes) {
            Ok((_, certificate)) if !certificates.iter().any(|(_, known)| *known == certificate) => {
                certificates.push((path.as_str(), certificate));
            }
            Ok(_) => {}
            Err(_) => contents.say(Severity::Problem, path, "a certificate in it cannot be read"),
        }
    }
    let mut lists = Vec::new();
    for (path, bytes) in &list_bytes {
        match CertificateRevocationList::from_der(bytes) {
            Ok((_, list)) => lists.push((path.as_str(), list)),
            Err(_) => contents.say(Severity::Problem, path, "a revocation list in it cannot be read"),
        }
    }
    let moment = chain::Moment {
        now_s: now_us.div_euclid(1_000_000),
        warn_s: i64::try_from(warn.as_secs()).unwrap_or(i64::MAX),
    };
    let keys = std::mem::take(&mut contents.keys);
    let key_facts = pair(&keys, &certificates, &mut contents);
    chain::certificates(&certificates, moment, &mut contents);
    chain::lists(&lists, &certificates, moment, &mut contents);
    let mut findings = contents.findings;
    findings.sort_by_key(|finding| finding.severity);
    Report {
        keys: key_facts,
        certificates: certificates
            .iter()
            .map(|(path, certificate)| fact(path, certificate))
            .collect(),
        revocation_lists: lists
            .iter()
            .map(|(path, list)| RevocationFact {
                path: (*path).to_owned(),
                issuer: list.issuer().to_string(),
                next_update_s: list.next_update().map(|time| time.timestamp()),
                revoked: list.iter_revoked_certificates().count() as u64,
            })
            .collect(),
        findings,
    }
}

fn fact(path: &str, certificate: &X509Certificate<'_>) -> CertificateFact {
    CertificateFact {
        path: path.to_owned(),
        subject: certificate.subject().to_string(),
        issuer: certificate.issuer().to_string(),
        serial: certificate.raw_serial_as_string(),
        is_ca: certificate.is_ca(),
        not_before_s: certificate.validity().not_before.timestamp(),
        not_after_s: certificate.validity().not_after.timestamp(),
    }
}

/// Sorts one file's content into keys, certificates and lists.
fn read(material: &Material<'_>, contents: &mut Contents) {
    let path = material.path;
    let before = (contents.keys.len(), contents.certificates.len(), contents.lists.len());
    let broken = contents.findings.len();
    let blocks = pem_blocks(material.bytes);
    if blocks.is_empty() {
        read_der(path, material.bytes, contents);
    }
    for block in blocks {
        let block = match block {
            Ok(block) => block,
            Err(label) => {
                contents.say(Severity::Problem, path, format!("its block `{label}` is damaged or cut off"));
                continue;
            }
        };
        match (block.label.as_str(), key::of_block(&block)) {
            (_, Some(Some(private))) => contents.keys.push((path.to_owned(), private)),
            (label, Some(None)) => contents.say(Severity::Problem, path, format!("its block `{label}` holds no readable key")),
            ("CERTIFICATE" | "X509 CERTIFICATE" | "TRUSTED CERTIFICATE", None) => {
                contents.certificates.push((path.to_owned(), block.der));
            }
            ("X509 CRL", None) => contents.lists.push((path.to_owned(), block.der)),
            // Parameters, requests and public keys: of no importance here.
            (_, None) => {}
        }
    }
    let after = (contents.keys.len(), contents.certificates.len(), contents.lists.len());
    let missing = match material.expect {
        Expect::Key if after.0 == before.0 => "no private key",
        Expect::Certificate if after.1 == before.1 => "no certificate",
        Expect::RevocationList if after.2 == before.2 => "no revocation list",
        _ => return,
    };
    // Where something is damaged, that is the reason.
    if contents.findings.len() == broken {
        contents.say(Severity::Problem, path, format!("{missing} is in it"));
    }
}

fn read_der(path: &str, bytes: &[u8], contents: &mut Contents) {
    if X509Certificate::from_der(bytes).is_ok() {
        contents.certificates.push((path.to_owned(), bytes.to_vec()));
    } else if CertificateRevocationList::from_der(bytes).is_ok() {
        contents.lists.push((path.to_owned(), bytes.to_vec()));
    } else if let Some(private) = key::of_der(bytes) {
        contents.keys.push((path.to_owned(), private));
    } else if bytes.first() == Some(&der::SEQUENCE) && Der(bytes).next().is_none() {
        contents.say(Severity::Problem, path, "it is cut off or damaged");
    }
}

/// Key matches certificate.
fn pair(keys: &[(String, Private)], certificates: &[(&str, X509Certificate<'_>)], contents: &mut Contents) -> Vec<KeyFact> {
    let mut facts = Vec::new();
    for (path, private) in keys {
        let (kind, fitting) = match private {
            Private::Plain(public) => {
                let fitting: Vec<String> = certificates
                    .iter()
                    .filter(|(_, certificate)| public_of(certificate).is_some_and(|other| other.is(public)))
                    .map(|(_, certificate)| certificate.subject().to_string())
                    .collect();
                if fitting.is_empty() {
                    let says = if certificates.is_empty() {
                        "there is no certificate among these files that this private key could belong to"
                    } else {
                        "this private key belongs to none of the certificates among these files"
                    };
                    contents.say(Severity::Problem, path, says);
                }
                (public.word(), fitting)
            }
            Private::Encrypted => {
                let says = "the private key in it is encrypted with a passphrase of its own: whether it belongs to a certificate cannot be seen; keep that passphrase, too";
                contents.say(Severity::Unchecked, path, says);
                ("encrypted", Vec::new())
            }
            Private::Opaque(what) => {
                contents.say(
                    Severity::Unchecked,
                    path,
                    format!("{what}: it cannot be compared with a certificate"),
                );
                ("unknown", Vec::new())
            }
        };
        facts.push(KeyFact {
            path: path.clone(),
            kind: kind.to_owned(),
            certificates: fitting,
        });
    }
    facts
}

fn public_of(certificate: &X509Certificate<'_>) -> Option<Public> {
    let info = certificate.public_key();
    Public::of_certificate(info.algorithm.algorithm.as_bytes(), &info.subject_public_key.data)
}

/// A day as people write it.
fn day(time: ASN1Time) -> String {
    let date = time.to_datetime();
    format!("{:04}-{:02}-{:02}", date.year(), u8::from(date.month()), date.day())
}
