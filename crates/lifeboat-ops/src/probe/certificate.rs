//! That certificates last: the one that a server shows, or those in a file.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lifeboat_engine::pki::{self, CertificateFact, Expect, Material, Severity};
use lifeboat_io::compute;
use lifeboat_model::time::human_duration;
use lifeboat_model::{Env, Error, ErrorKind, Result};
use lifeboat_repo::format_utc;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::{Answer, Found, causes, tls, within};

/// A file of certificates is at most this long.
const LIMIT_BYTES: u64 = 16 << 20;

/// Certificates, and how long they have to be valid.
#[derive(Debug, Clone)]
pub struct Certificate {
    /// Where they are.
    pub place: Place,
    /// For how long from now on.
    pub valid_for: Duration,
}

/// Where certificates are.
#[derive(Debug, Clone)]
pub enum Place {
    /// The one that a server shows.
    Host {
        /// Its name, without brackets.
        host: String,
        /// Its port.
        port: u16,
        /// How long everything may take.
        within: Duration,
        /// A file with authorities that are trusted besides those of the machine.
        ca: Option<PathBuf>,
    },
    /// All that are in a file.
    File(PathBuf),
}

pub(super) async fn ask(env: &Env, certificate: &Certificate) -> Answer {
    match &certificate.place {
        Place::Host {
            host,
            port,
            within: limit,
            ca,
        } => {
            let subject = format!("{host}:{port}");
            let recorder = Arc::new(Recorder::new(ca.as_deref()).await?);
            within(*limit, &subject, shown(env, certificate, (host, *port), recorder)).await
        }
        Place::File(path) => {
            let (path, bytes) = (path.clone(), read(path).await?);
            let shown = path.display().to_string();
            let (facts, problems) = examine(env, &shown, &bytes);
            judge(env, &shown, &facts, problems, certificate.valid_for)
        }
    }
}

/// The certificate that a server shows, whether it is trusted or not.
async fn shown(env: &Env, certificate: &Certificate, (host, port): (&str, u16), recorder: Arc<Recorder>) -> Answer {
    let subject = format!("{host}:{port}");
    let name = ServerName::try_from(host.to_owned());
    let name = name.map_err(|error| Found::new(format!("{host} is neither a host name nor an address: {error}")))?;
    let config = ClientConfig::builder_with_provider(tls::provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(ErrorKind::Bug, "set up", "TLS", &error).with_source(error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&recorder) as Arc<dyn ServerCertVerifier>)
        .with_no_client_auth();
    let stream = TcpStream::connect((host, port)).await.map_err(|error| {
        Found::new(format!("{subject} cannot be reached"))
            .seeing(error.to_string())
            .seeing("hint: is it running, and does this machine reach it at this address?")
    })?;
    let connected = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
    let seen = recorder.seen.lock().unwrap_or_else(PoisonError::into_inner).take();
    let mut problems = Vec::new();
    if let Err(error) = connected {
        problems.push(format!("the TLS handshake failed: {}", causes(&error)));
    }
    let Some(seen) = seen else {
        let reason = problems.pop().unwrap_or_default();
        return Err(Found::new(format!("{subject} showed no certificate")).seeing(reason));
    };
    if let Some(reason) = seen.refused {
        problems.push(format!("it is not trusted: {reason}"));
    }
    let (facts, unreadable) = examine(env, &subject, &seen.certificate);
    problems.extend(unreadable);
    judge(env, &subject, &facts, problems, certificate.valid_for)
}

/// What is in the bytes, and what of them cannot be read. Ends, keys and chains are judged elsewhere or not at all.
fn examine(env: &Env, path: &str, bytes: &[u8]) -> (Vec<CertificateFact>, Vec<String>) {
    let material = Material {
        path,
        expect: Expect::Certificate,
        bytes,
    };
    let report = pki::examine(&[material], env.clock.wall_us(), Duration::ZERO);
    let readable = |says: &str| {
        !["damaged", "cannot be read", "no certificate"]
            .iter()
            .any(|part| says.contains(part))
    };
    let problems = report.findings.into_iter();
    let problems = problems.filter(|finding| finding.severity == Severity::Problem && !readable(&finding.says));
    (report.certificates, problems.map(|finding| finding.says).collect())
}

/// Each certificate against the time for which it has to be valid.
fn judge(env: &Env, subject: &str, facts: &[CertificateFact], mut problems: Vec<String>, valid_for: Duration) -> Answer {
    let now_s = env.clock.wall_us().div_euclid(1_000_000);
    let wanted_s = i64::try_from(valid_for.as_secs()).unwrap_or(i64::MAX);
    let mut seen = Vec::new();
    for fact in facts {
        let end = format_utc(fact.not_after_s.saturating_mul(1_000_000));
        seen.push(format!("{}, valid until {end}", fact.subject));
        let left_s = fact.not_after_s.saturating_sub(now_s);
        let left = human_duration(Duration::from_secs(left_s.unsigned_abs()));
        if left_s < 0 {
            problems.push(format!("{} ended {left} ago", fact.subject));
        } else if left_s < wanted_s {
            let wanted = human_duration(valid_for);
            problems.push(format!("{} ends in {left}, and {wanted} are wanted", fact.subject));
        }
        if fact.not_before_s > now_s {
            let from = format_utc(fact.not_before_s.saturating_mul(1_000_000));
            problems.push(format!("{} is valid only from {from} on", fact.subject));
        }
    }
    let first = facts.iter().map(|fact| fact.not_after_s).min();
    let first = match first {
        Some(end_s) => format_utc(end_s.saturating_mul(1_000_000)),
        None => {
            return Err(Found {
                says: format!("there is no certificate that can be read: {subject}"),
                evidence: problems,
            });
        }
    };
    match problems.first().cloned() {
        None => {
            let says = format!("{subject} is valid until {first}");
            Ok(Found { says, evidence: seen })
        }
        Some(worst) => {
            let others = problems.split_off(1);
            let says = format!("{subject}: {worst}");
            let evidence = [
                others,
                seen,
                vec!["hint: renew it, and let the server read the new one".to_owned()],
            ]
            .concat();
            Err(Found { says, evidence })
        }
    }
}

async fn read(path: &Path) -> Result<Vec<u8>, Found> {
    let path = path.to_path_buf();
    let read = compute::run("read certificates", move || {
        use std::io::Read as _;
        let failed = |error| Error::io("read the certificates in", path.display(), error);
        let mut bytes = Vec::new();
        let file = std::fs::File::open(&path).map_err(failed)?;
        file.take(LIMIT_BYTES + 1).read_to_end(&mut bytes).map_err(failed)?;
        if bytes.len() as u64 > LIMIT_BYTES {
            let detail = "it is far too long for certificates";
            return Err(Error::new(
                ErrorKind::ConfigInvalid,
                "read the certificates in",
                path.display(),
                detail,
            ));
        }
        Ok(bytes)
    });
    Ok(read.await?)
}

/// What a server showed, and why it would not be trusted.
#[derive(Debug)]
struct Seen {
    certificate: Vec<u8>,
    refused: Option<String>,
}

/// Judges the chain as any client would, and goes on in any case: the end of a certificate that is not trusted is worth knowing, too. Nothing is said
/// over such a connection.
#[derive(Debug)]
struct Recorder {
    signatures: Arc<CryptoProvider>,
    /// None where this machine trusts nobody.
    chain: Option<Arc<WebPkiServerVerifier>>,
    seen: Mutex<Option<Seen>>,
}

impl Recorder {
    async fn new(ca: Option<&Path>) -> Result<Self> {
        let (signatures, roots) = (tls::provider(), tls::roots(ca).await?);
        let chain = if roots.is_empty() {
            None
        } else {
            let builder = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&signatures));
            let built = builder.build();
            Some(built.map_err(|error| Error::new(ErrorKind::Failed, "set up", "TLS", &error).with_source(error))?)
        };
        Ok(Self {
            signatures,
            chain,
            seen: Mutex::new(None),
        })
    }
}

impl ServerCertVerifier for Recorder {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let refused = match &self.chain {
            None => Some("this machine has no roots".to_owned()),
            Some(chain) => chain
                .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
                .err()
                .map(|error| super::shown(&error.to_string())),
        };
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) = Some(Seen {
            certificate: end_entity.to_vec(),
            refused,
        });
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.signatures.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.signatures.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.signature_verification_algorithms.supported_schemes()
    }
}
