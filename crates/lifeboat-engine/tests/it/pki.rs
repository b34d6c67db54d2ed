//! PKI material made by the real `openssl` program.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use lifeboat_engine::pki::{Expect, Material, Report, Severity, examine};
use tempfile::{TempDir, tempdir};

const MONTH: Duration = Duration::from_secs(30 * 86_400);

fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl")
        .args(arguments.split_whitespace())
        .current_dir(folder)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "openssl {arguments}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A root, an authority below it and a server's certificate, with keys of three kinds, and a revocation list.
fn pki() -> TempDir {
    let folder = tempdir().unwrap();
    let at = folder.path();
    let config = "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\ncrlnumber=crlnumber\nserial=serial\nnew_certs_dir=.\ndefault_md=sha256\npolicy=p\n\
        default_crl_days=365\ndefault_days=400\n[p]\ncommonName=supplied\n[req]\ndistinguished_name=n\n[n]\n\
        [root]\nbasicConstraints=critical,CA:TRUE,pathlen:1\nkeyUsage=keyCertSign,cRLSign\n[sub]\nbasicConstraints=critical,CA:TRUE,pathlen:0\n\
        keyUsage=keyCertSign,cRLSign\n[leaf]\nbasicConstraints=CA:FALSE\n";
    for (file, content) in [
        ("c.cnf", config),
        ("index.txt", ""),
        ("crlnumber", "01\n"),
        ("serial", "10\n"),
    ] {
        std::fs::write(at.join(file), content).unwrap();
    }
    openssl(
        at,
        "req -x509 -newkey rsa:2048 -nodes -keyout root.key -out root.crt -days 3650 -subj /CN=root -config c.cnf -extensions root",
    );
    openssl(at, "ecparam -name prime256v1 -genkey -noout -out sub.key");
    issue(at, "sub", "root", "sub", 1000);
    openssl(at, "genpkey -algorithm ed25519 -out leaf.key");
    issue(at, "leaf", "sub", "leaf", 400);
    openssl(at, "ca -gencrl -config c.cnf -keyfile root.key -cert root.crt -out root.crl");
    folder
}

fn issue(at: &Path, name: &str, by: &str, extensions: &str, days: u32) {
    openssl(
        at,
        &format!("req -new -key {name}.key -out {name}.csr -subj /CN={name} -config c.cnf"),
    );
    openssl(
        at,
        &format!(
            "x509 -req -in {name}.csr -CA {by}.crt -CAkey {by}.key -CAcreateserial -out {name}.crt -days {days} -extfile c.cnf -extensions {extensions}"
        ),
    );
}

fn now_us() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
}

fn look_later(folder: &Path, files: &[&str], later: Duration) -> Report {
    let contents: Vec<Vec<u8>> = files.iter().map(|file| std::fs::read(folder.join(file)).unwrap()).collect();
    let materials: Vec<Material<'_>> = files
        .iter()
        .zip(&contents)
        .map(|(path, bytes)| Material {
            path,
            expect: match path.rsplit('.').next() {
                Some("key") => Expect::Key,
                Some("crt") => Expect::Certificate,
                Some("crl") => Expect::RevocationList,
                _ => Expect::Anything,
            },
            bytes,
        })
        .collect();
    examine(&materials, now_us() + i64::try_from(later.as_micros()).unwrap(), MONTH)
}

fn look(folder: &Path, files: &[&str]) -> Report {
    look_later(folder, files, Duration::ZERO)
}

const ALL: [&str; 7] = [
    "root.key", "root.crt", "sub.key", "sub.crt", "leaf.key", "leaf.crt", "root.crl",
];

#[track_caller]
fn says(report: &Report, severity: Severity, words: &str) {
    assert!(
        report
            .findings
            .iter()
            .any(|finding| finding.severity == severity && finding.says.contains(words)),
        "{words:?} is not among {:?}",
        report.findings
    );
}

#[test]
fn keys_of_every_kind_match_their_certificates() {
    let folder = pki();
    let report = look(folder.path(), &ALL);
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    let kinds: Vec<(&str, &str)> = report
        .keys
        .iter()
        .map(|key| (key.kind.as_str(), key.certificates[0].as_str()))
        .collect();
    assert_eq!(kinds, [("RSA", "CN=root"), ("EC", "CN=sub"), ("Ed25519", "CN=leaf")]);
    assert_eq!(report.certificates.iter().filter(|fact| fact.is_ca).count(), 2);
    // Everything again as DER, traditional PEM and one chain file.
    let at = folder.path();
    openssl(at, "rsa -in root.key -traditional -out root-pkcs1.key");
    openssl(at, "pkcs8 -topk8 -nocrypt -in sub.key -outform DER -out sub-der.key");
    openssl(at, "ec -in sub.key -conv_form compressed -out sub-compressed.key");
    openssl(at, "x509 -in leaf.crt -outform DER -out leaf-der.crt");
    openssl(at, "crl -in root.crl -outform DER -out root-der.crl");
    let chain: Vec<u8> = ["root.crt", "sub.crt"]
        .iter()
        .flat_map(|file| std::fs::read(at.join(file)).unwrap())
        .collect();
    std::fs::write(at.join("chain.crt"), chain).unwrap();
    let report = look(
        at,
        &[
            "root-pkcs1.key",
            "sub-der.key",
            "sub-compressed.key",
            "leaf.key",
            "leaf-der.crt",
            "chain.crt",
            "root-der.crl",
        ],
    );
    assert!(report.findings.is_empty(), "{:?}", report.findings);
    assert_eq!(
        (report.keys.len(), report.certificates.len(), report.revocation_lists.len()),
        (4, 3, 1)
    );
}

#[test]
fn a_key_of_another_certificate_is_a_problem() {
    let folder = pki();
    openssl(folder.path(), "genpkey -algorithm ed25519 -out other.key");
    let report = look(folder.path(), &["root.crt", "sub.crt", "leaf.crt", "other.key"]);
    says(&report, Severity::Problem, "belongs to none of the certificates");
    assert!(!report.is_sound());
    says(
        &look(folder.path(), &["other.key"]),
        Severity::Problem,
        "there is no certificate",
    );
}

#[test]
fn an_encrypted_key_is_recognised_and_not_judged() {
    let folder = pki();
    let at = folder.path();
    openssl(at, "pkcs8 -topk8 -in root.key -passout pass:x -out encrypted.key");
    openssl(
        at,
        "pkcs8 -topk8 -in root.key -passout pass:x -outform DER -out encrypted-der.key",
    );
    openssl(at, "rsa -in root.key -traditional -aes256 -passout pass:x -out old.key");
    let report = look(at, &["encrypted.key", "encrypted-der.key", "old.key", "root.crt"]);
    assert!(report.is_sound(), "{:?}", report.findings);
    assert_eq!(report.keys.iter().filter(|key| key.kind == "encrypted").count(), 3);
    assert_eq!(report.findings.len(), 3);
    says(&report, Severity::Unchecked, "keep that passphrase");
}

#[test]
fn what_ends_is_told_before_and_after() {
    let folder = pki();
    let day = Duration::from_secs(86_400);
    let report = look_later(folder.path(), &ALL, 340 * day);
    says(&report, Severity::Warning, "the next revocation list of CN=root is due");
    assert!(report.is_sound());
    let report = look_later(folder.path(), &ALL, 380 * day);
    says(&report, Severity::Warning, "CN=leaf expires on ");
    says(&report, Severity::Problem, "the revocation list of CN=root ended on ");
    let report = look_later(folder.path(), &ALL, 401 * day);
    says(&report, Severity::Problem, "CN=leaf expired on ");
    assert!(
        report
            .next_end_s()
            .is_some_and(|end| end < now_us() / 1_000_000 + 366 * 86_400)
    );
}

#[test]
fn a_chain_that_is_cut_or_forged_is_noticed() {
    let folder = pki();
    let at = folder.path();
    says(&look(at, &["leaf.crt"]), Severity::Warning, "the chain ends there");
    // Another authority of the same name.
    openssl(
        at,
        "req -x509 -newkey rsa:2048 -nodes -keyout false.key -out false.crt -days 10 -subj /CN=root -config c.cnf -extensions root",
    );
    says(&look(at, &["sub.crt", "false.crt"]), Severity::Problem, "did not sign it");
    says(&look(at, &["root.crl", "false.crt"]), Severity::Problem, "did not sign it");
    // The server's certificate signs another one.
    openssl(at, "ecparam -name prime256v1 -genkey -noout -out child.key");
    issue(at, "child", "leaf", "leaf", 10);
    let report = look(at, &["root.crt", "sub.crt", "leaf.crt", "child.crt"]);
    says(&report, Severity::Problem, "is no certificate authority");
    // Deeper than the path length allows.
    openssl(at, "ecparam -name prime256v1 -genkey -noout -out deep.key");
    issue(at, "deep", "sub", "sub", 10);
    says(
        &look(at, &["root.crt", "sub.crt", "deep.crt"]),
        Severity::Problem,
        "(pathlen)",
    );
    // It outlives its issuer.
    issue(at, "child", "deep", "leaf", 300);
    says(
        &look(at, &["root.crt", "sub.crt", "deep.crt", "child.crt"]),
        Severity::Warning,
        "but its issuer CN=deep only until",
    );
}

#[test]
fn a_revoked_certificate_is_a_problem() {
    let folder = pki();
    let at = folder.path();
    openssl(at, "ca -config c.cnf -keyfile root.key -cert root.crt -revoke sub.crt");
    openssl(at, "ca -gencrl -config c.cnf -keyfile root.key -cert root.crt -out root.crl");
    let report = look(at, &ALL);
    says(&report, Severity::Problem, "CN=sub was revoked on ");
    assert_eq!(report.revocation_lists[0].revoked, 1);
}

#[test]
fn damaged_and_misplaced_files_are_problems_and_never_a_panic() {
    let folder = pki();
    let at = folder.path();
    std::fs::copy(at.join("root.crt"), at.join("wrong.key")).unwrap();
    says(&look(at, &["wrong.key"]), Severity::Problem, "no private key is in it");
    let pem = std::fs::read(at.join("root.key")).unwrap();
    std::fs::write(at.join("cut.key"), &pem[..pem.len() / 2]).unwrap();
    says(&look(at, &["cut.key"]), Severity::Problem, "is damaged or cut off");
    openssl(at, "x509 -in root.crt -outform DER -out root.der");
    openssl(at, "pkey -in sub.key -outform DER -out key.der");
    for file in ["root.der", "key.der", "root.crt", "sub.key", "leaf.key", "root.crl"] {
        let good = std::fs::read(at.join(file)).unwrap();
        for cut in 0..good.len() {
            examine_bytes(&good[..cut]);
            let mut bad = good.clone();
            bad[cut] ^= 0x81;
            examine_bytes(&bad);
        }
    }
}

fn examine_bytes(bytes: &[u8]) {
    let material = Material {
        path: "x",
        expect: Expect::Anything,
        bytes,
    };
    drop(examine(&[material], now_us(), MONTH));
}
