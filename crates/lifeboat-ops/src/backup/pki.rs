//! What is said about the keys and certificates of a backup: the bytes that are stored are the bytes that are examined.
//!
//! A PKI that is broken is backed up all the same, and said to be broken: its files may be the last ones there are.

use lifeboat_engine::files::{Bytes, Captured, shown};
use lifeboat_engine::pki::{self, Expect, Material, Severity};

use crate::proof::PkiStanding;
use crate::protected::{PkiRoles, Source};

/// Examines what was captured of a PKI, keeps the result with the facts, and says what somebody should know. Nothing for other sources.
pub(super) fn examine(source: &Source, captured: &mut Captured, now_us: i64) -> Vec<String> {
    let Source::Pki { roles, warn_expiry, .. } = source else {
        return Vec::new();
    };
    let paths: Vec<String> = captured.bytes.iter().map(|file| shown(&file.path)).collect();
    let materials: Vec<Material<'_>> = captured
        .bytes
        .iter()
        .zip(&paths)
        .map(|(file, path)| Material {
            path,
            expect: expect(roles, file),
            bytes: &file.bytes,
        })
        .collect();
    let report = pki::examine(&materials, now_us, *warn_expiry);
    let said = report
        .findings
        .iter()
        .map(|finding| match finding.severity {
            Severity::Problem => format!("PROBLEM with {finding}"),
            Severity::Warning | Severity::Unchecked => finding.to_string(),
        })
        .collect();
    captured.facts.pki = Some(report);
    said
}

/// What `status` says about it later, when other things may have ended.
pub(super) fn standing(report: &pki::Report) -> PkiStanding {
    let problems = report.findings.iter().filter(|finding| finding.severity == Severity::Problem);
    let certificates = report.certificates.iter().map(|certificate| {
        let whose = format!("the certificate {} ({})", certificate.path, certificate.subject);
        (whose, certificate.not_after_s)
    });
    let lists = report.revocation_lists.iter().filter_map(|list| {
        let whose = format!("the revocation list {} ({})", list.path, list.issuer);
        list.next_update_s.map(|end| (whose, end))
    });
    PkiStanding {
        problems: problems.map(ToString::to_string).collect(),
        ends: certificates.chain(lists).collect(),
    }
}

/// What a file should hold, by the first pattern that names it.
fn expect(roles: &PkiRoles, file: &Bytes) -> Expect {
    let Some(pattern) = file.patterns.first() else {
        return Expect::Anything;
    };
    if *pattern < roles.keys.len() {
        Expect::Key
    } else if *pattern < roles.keys.len() + roles.certs.len() {
        Expect::Certificate
    } else {
        Expect::RevocationList
    }
}
