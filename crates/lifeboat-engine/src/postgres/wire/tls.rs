//! TLS by rustls with ring, in the modes of libpq (PostgreSQL documentation, 34.19 "SSL Support"), and what ties the password exchange to it.
//!
//! Not as in libpq: a certificate without alternative names is never valid for a name, revocation lists and encrypted keys are not read.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;

use lifeboat_model::{Error, ErrorKind, Result};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use sha2::{Digest, Sha256, Sha384, Sha512};
use tokio_rustls::TlsConnector;

use super::super::conninfo::{SslMode, TlsFiles};
use super::BoxIo;

/// Encrypts a connection on which the server has agreed to it; returns what `tls-server-end-point` binds to (RFC 5929, 4.1), where the
/// certificate has such a thing.
pub(super) async fn encrypt(io: BoxIo, name: &str, mode: SslMode, files: &TlsFiles) -> Result<(BoxIo, Option<Vec<u8>>)> {
    let config = config(mode, files)?;
    let server = ServerName::try_from(name.to_owned()).map_err(|error| {
        Error::new(
            ErrorKind::ConfigInvalid,
            "use TLS with",
            name,
            "this is neither a host name nor an address",
        )
        .with_source(error)
    })?;
    let stream = TlsConnector::from(Arc::new(config)).connect(server, io).await.map_err(|error| {
        let detail = format!("the TLS handshake failed: {error}");
        Error::new(ErrorKind::ConfigInvalid, "connect to PostgreSQL at", name, detail)
            .with_hint(
                "sslrootcert must hold the authority that signed the server's certificate, which for verify-full must name this host; \
                 a server that asks for a certificate of ours needs sslcert and sslkey",
            )
            .with_source(error)
    })?;
    let binding = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::first)
        .and_then(end_point);
    Ok((Box::new(stream), binding))
}

/// The hash of the certificate that its own signature uses; MD5 and SHA-1 are replaced by SHA-256. None where its signature has no hash.
fn end_point(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
    let algorithm = parsed.signature_algorithm.algorithm.to_id_string();
    match algorithm.as_str() {
        // RSA with MD5, SHA-1, SHA-256; ECDSA with SHA-1, SHA-256.
        "1.2.840.113549.1.1.4"
        | "1.2.840.113549.1.1.5"
        | "1.2.840.113549.1.1.11"
        | "1.2.840.10045.4.1"
        | "1.2.840.10045.4.3.2" => Some(Sha256::digest(certificate).to_vec()),
        "1.2.840.113549.1.1.12" | "1.2.840.10045.4.3.3" => Some(Sha384::digest(certificate).to_vec()),
        "1.2.840.113549.1.1.13" | "1.2.840.10045.4.3.4" => Some(Sha512::digest(certificate).to_vec()),
        _ => None,
    }
}

fn config(mode: SslMode, files: &TlsFiles) -> Result<ClientConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Verifier {
        signatures: Arc::clone(&provider),
        chain: chain(mode, files, &provider)?,
        names: mode == SslMode::VerifyFull,
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(ErrorKind::Bug, "set up", "TLS", &error).with_source(error))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let (Some(cert), Some(key)) = (&files.cert, &files.key) else {
        return Ok(builder.with_no_client_auth());
    };
    let certificates = read_certificates(cert)?;
    check_mode(key)?;
    let key_der = PrivateKeyDer::from_pem_file(key).map_err(|error| unreadable("sslkey", key, &error))?;
    builder
        .with_client_auth_cert(certificates, key_der)
        .map_err(|error| unreadable("sslcert with sslkey", key, &error))
}

/// How the chain of certificates is checked, if it is.
fn chain(mode: SslMode, files: &TlsFiles, provider: &Arc<CryptoProvider>) -> Result<Option<Chain>> {
    let mut pinned = Vec::new();
    let mut roots = RootCertStore::empty();
    if files.system_roots {
        let found = rustls_native_certs::load_native_certs();
        roots.add_parsable_certificates(found.certs);
    } else if let Some(root) = &files.root {
        pinned = read_certificates(root)?;
        roots.add_parsable_certificates(pinned.iter().cloned());
    } else if mode >= SslMode::VerifyCa {
        return Err(Error::new(
            ErrorKind::ConfigInvalid,
            "verify the certificate of",
            "the server",
            "no authority is given that could have signed it",
        )
        .with_hint("set sslrootcert to the file with the authority's certificate, or to `system` for public authorities"));
    } else {
        return Ok(None);
    }
    // As in libpq, `require` with an authority at hand is `verify-ca`; what is weaker asks for no certificate at all.
    if mode < SslMode::Require {
        return Ok(None);
    }
    let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
        .build()
        .map_err(|error| {
            let place = files.root.as_deref().unwrap_or(Path::new("the system's store"));
            unreadable("sslrootcert", place, &error)
        })?;
    Ok(Some(Chain { verifier, pinned }))
}

fn read_certificates(place: &Path) -> Result<Vec<CertificateDer<'static>>> {
    let all = CertificateDer::pem_file_iter(place)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable("the certificates in", place, &error))?;
    if all.is_empty() {
        return Err(Error::new(
            ErrorKind::ConfigInvalid,
            "read the certificates in",
            place.display(),
            "there is none",
        ));
    }
    Ok(all)
}

/// As libpq: a key is for its owner alone, or belongs to root and a group may read it.
fn check_mode(key: &Path) -> Result<()> {
    let metadata = std::fs::metadata(key).map_err(|error| Error::io("read the key", key.display(), error))?;
    let forbidden = if metadata.uid() == 0 { 0o037 } else { 0o077 };
    if metadata.permissions().mode() & forbidden != 0 {
        let detail = "others than its owner can read it";
        return Err(Error::new(ErrorKind::Refused, "use the key", key.display(), detail).with_hint("run `chmod 0600` on it"));
    }
    Ok(())
}

fn unreadable(what: &'static str, place: &Path, error: &(impl std::fmt::Display + ?Sized)) -> Error {
    Error::new(
        ErrorKind::ConfigInvalid,
        "use",
        format_args!("{what} {}", place.display()),
        error,
    )
    .with_hint("it must be a readable file in PEM form")
}

#[derive(Debug)]
struct Chain {
    verifier: Arc<WebPkiServerVerifier>,
    /// A server's own certificate may stand in the file of authorities.
    pinned: Vec<CertificateDer<'static>>,
}

/// Checks as much as the mode asks for; that the server has the key of its certificate is always checked.
#[derive(Debug)]
struct Verifier {
    signatures: Arc<CryptoProvider>,
    chain: Option<Chain>,
    names: bool,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let Some(chain) = &self.chain else {
            return Ok(ServerCertVerified::assertion());
        };
        if chain.pinned.iter().any(|pinned| pinned.as_ref() == end_entity.as_ref()) {
            if self.names {
                rustls::client::verify_server_name(&ParsedCertificate::try_from(end_entity)?, server_name)?;
            }
            return Ok(ServerCertVerified::assertion());
        }
        // The chain is checked before the name.
        match chain
            .verifier
            .verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now)
        {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !self.names => Ok(ServerCertVerified::assertion()),
            other => other,
        }
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
