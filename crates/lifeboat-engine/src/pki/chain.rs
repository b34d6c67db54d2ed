//! Who signed whom, until when, and what was taken back (RFC 5280, as far as a set of files can tell).

use x509_parser::error::X509Error;
use x509_parser::prelude::{ASN1Time, CertificateRevocationList, X509Certificate};

use super::{Contents, Severity, day};

/// As of when things are judged.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    /// Seconds since 1970.
    pub(super) now_s: i64,
    /// What ends within this many seconds gets a warning.
    pub(super) warn_s: i64,
}

impl Moment {
    fn days_to(self, time: ASN1Time) -> i64 {
        (time.timestamp() - self.now_s).div_euclid(86_400)
    }

    fn soon(self, time: ASN1Time) -> bool {
        time.timestamp() - self.now_s < self.warn_s
    }
}

type Certificate<'a, 'b> = (&'a str, X509Certificate<'b>);

/// What a look for the signer found.
enum Signer<'c, 'a, 'b> {
    Found(&'c Certificate<'a, 'b>),
    /// Somebody of that name is here, and did not sign.
    Other,
    /// An algorithm that cannot be verified here.
    Unknown,
    Missing,
}

/// Chains and validity.
pub(super) fn certificates(certificates: &[Certificate<'_, '_>], moment: Moment, contents: &mut Contents) {
    for entry in certificates {
        let (path, certificate) = entry;
        let name = certificate.subject().to_string();
        validity(path, &name, certificate, moment, contents);
        let issuer_name = certificate.issuer().to_string();
        match signer_of(certificate, certificates) {
            Signer::Found(signer) => authority(path, &name, certificate, &signer.1, contents),
            Signer::Other => contents.say(
                Severity::Problem,
                path,
                format!("{name} names {issuer_name} as its issuer, but the key of the certificate of that name did not sign it"),
            ),
            Signer::Unknown => contents.say(
                Severity::Unchecked,
                path,
                format!("the signature of {name} is of a kind that cannot be verified here"),
            ),
            Signer::Missing => contents.say(
                Severity::Warning,
                path,
                format!("the certificate of {issuer_name}, which issued {name}, is not among these files: the chain ends there"),
            ),
        }
        if certificate.is_ca() {
            path_length(entry, certificates, contents);
        }
    }
}

fn validity(path: &str, name: &str, certificate: &X509Certificate<'_>, moment: Moment, contents: &mut Contents) {
    let validity = certificate.validity();
    if validity.not_before.timestamp() > moment.now_s {
        let from = day(validity.not_before);
        contents.say(Severity::Problem, path, format!("{name} is valid only from {from} on"));
    }
    let end = validity.not_after;
    if end.timestamp() < moment.now_s {
        contents.say(Severity::Problem, path, format!("{name} expired on {}", day(end)));
    } else if moment.soon(end) {
        let says = format!("{name} expires on {}, in {} days: renew it", day(end), moment.days_to(end));
        contents.say(Severity::Warning, path, says);
    }
}

/// The certificate that signed this one: itself, where it is a root.
fn signer_of<'c, 'a, 'b>(certificate: &X509Certificate<'_>, certificates: &'c [Certificate<'a, 'b>]) -> Signer<'c, 'a, 'b> {
    let mut result = Signer::Missing;
    for candidate in certificates {
        if candidate.1.subject().as_raw() != certificate.issuer().as_raw() {
            continue;
        }
        match certificate.verify_signature(Some(candidate.1.public_key())) {
            Ok(()) => return Signer::Found(candidate),
            Err(X509Error::SignatureUnsupportedAlgorithm) => result = Signer::Unknown,
            Err(_) if matches!(result, Signer::Missing) => result = Signer::Other,
            Err(_) => {}
        }
    }
    result
}

/// Whether the signer may sign certificates, and lives as long.
fn authority(path: &str, name: &str, certificate: &X509Certificate<'_>, signer: &X509Certificate<'_>, contents: &mut Contents) {
    if certificate == signer {
        return;
    }
    let signer_name = signer.subject().to_string();
    let may_sign = match signer.key_usage() {
        Ok(Some(usage)) => usage.value.key_cert_sign(),
        Ok(None) => true,
        Err(_) => false,
    };
    if !signer.is_ca() {
        let says = format!("{name} was issued by {signer_name}, which is no certificate authority (CA:TRUE is missing)");
        contents.say(Severity::Problem, path, says);
    } else if !may_sign {
        let says = format!("{name} was issued by {signer_name}, whose key usage does not allow to sign certificates");
        contents.say(Severity::Problem, path, says);
    }
    let (end, signer_end) = (certificate.validity().not_after, signer.validity().not_after);
    if signer_end.timestamp() < end.timestamp() {
        let says = format!(
            "{name} is valid until {}, but its issuer {signer_name} only until {}",
            day(end),
            day(signer_end)
        );
        contents.say(Severity::Warning, path, says);
    }
}

/// A path length of n allows n further authorities below this one.
fn path_length(authority: &Certificate<'_, '_>, certificates: &[Certificate<'_, '_>], contents: &mut Contents) {
    let limit = match authority.1.basic_constraints() {
        Ok(Some(constraints)) => constraints.value.path_len_constraint,
        Ok(None) | Err(_) => None,
    };
    let Some(limit) = limit else { return };
    let below = depth(authority, certificates, 0);
    if below > limit {
        let says = format!(
            "{} allows {limit} authorities below it (pathlen), and there are {below} among these files",
            authority.1.subject()
        );
        contents.say(Severity::Problem, authority.0, says);
    }
}

/// The longest chain of authorities below this one. Bounded: two that signed each other would have no end.
fn depth(authority: &Certificate<'_, '_>, certificates: &[Certificate<'_, '_>], level: u32) -> u32 {
    const LIMIT: u32 = 16;
    if level >= LIMIT {
        return 0;
    }
    let children = certificates.iter().filter(|(_, child)| {
        child.is_ca()
            && child.issuer().as_raw() == authority.1.subject().as_raw()
            && *child != authority.1
            && child.subject().as_raw() != child.issuer().as_raw()
            && child.verify_signature(Some(authority.1.public_key())).is_ok()
    });
    children
        .map(|child| depth(child, certificates, level + 1).saturating_add(1))
        .max()
        .unwrap_or(0)
}

/// Revocation lists: signed by whom, due when, and which of the certificates they take back.
pub(super) fn lists(
    lists: &[(&str, CertificateRevocationList<'_>)],
    certificates: &[Certificate<'_, '_>],
    moment: Moment,
    contents: &mut Contents,
) {
    for (path, list) in lists {
        let issuer = list.issuer().to_string();
        let mut signers = certificates
            .iter()
            .filter(|(_, certificate)| certificate.subject().as_raw() == list.issuer().as_raw())
            .map(|(_, certificate)| list.verify_signature(certificate.public_key()))
            .peekable();
        let genuine = if signers.peek().is_none() {
            let says = format!("the certificate of {issuer}, which signed this revocation list, is not among these files");
            contents.say(Severity::Unchecked, path, says);
            true
        } else {
            let results: Vec<_> = signers.collect();
            if results.iter().any(Result::is_ok) {
                true
            } else if results.contains(&Err(X509Error::SignatureUnsupportedAlgorithm)) {
                let says = "the signature of this revocation list is of a kind that cannot be verified here";
                contents.say(Severity::Unchecked, path, says);
                true
            } else {
                let says = format!("this revocation list names {issuer}, whose key did not sign it");
                contents.say(Severity::Problem, path, says);
                false
            }
        };
        due(path, list, moment, contents);
        if genuine {
            revoked(list, certificates, contents);
        }
    }
}

fn due(path: &str, list: &CertificateRevocationList<'_>, moment: Moment, contents: &mut Contents) {
    let issuer = list.issuer();
    let Some(next) = list.next_update() else {
        contents.say(
            Severity::Warning,
            path,
            format!("the revocation list of {issuer} does not say when the next one is due"),
        );
        return;
    };
    if next.timestamp() < moment.now_s {
        let says = format!(
            "the revocation list of {issuer} ended on {}: those who ask for it refuse every certificate of that issuer",
            day(next)
        );
        contents.say(Severity::Problem, path, says);
    } else if moment.soon(next) {
        let says = format!(
            "the next revocation list of {issuer} is due on {}, in {} days",
            day(next),
            moment.days_to(next)
        );
        contents.say(Severity::Warning, path, says);
    }
}

fn revoked(list: &CertificateRevocationList<'_>, certificates: &[Certificate<'_, '_>], contents: &mut Contents) {
    for entry in list.iter_revoked_certificates() {
        for (path, certificate) in certificates {
            let same_issuer = certificate.issuer().as_raw() == list.issuer().as_raw();
            if same_issuer && certificate.raw_serial() == entry.raw_serial() {
                let says = format!(
                    "{} was revoked on {} by {}",
                    certificate.subject(),
                    day(entry.revocation_date),
                    list.issuer()
                );
                contents.say(Severity::Problem, path, says);
            }
        }
    }
}
