//! Whom a probe trusts: the roots of this machine, and an authority that the configuration names besides.

use std::path::Path;
use std::sync::Arc;

use lifeboat_io::compute;
use lifeboat_model::{Error, ErrorKind, Result};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};

/// The one library that does the cryptography.
pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// What a connection that trusts nobody else is made with.
pub(super) async fn config(ca: Option<&Path>) -> Result<ClientConfig> {
    let roots = roots(ca).await?;
    Ok(ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(ErrorKind::Bug, "set up", "TLS", &error).with_source(error))?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// The roots that this machine trusts (`SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured), and those in `ca`.
pub(super) async fn roots(ca: Option<&Path>) -> Result<RootCertStore> {
    let ca = ca.map(Path::to_path_buf);
    compute::run("read the roots", move || {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if let Some(ca) = ca {
            let unusable = |detail: String| {
                Error::new(ErrorKind::ConfigInvalid, "read the authority in", ca.display(), detail)
                    .with_hint("`ca` names a readable file with the authority's certificate, in PEM form")
            };
            let all = CertificateDer::pem_file_iter(&ca).and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>);
            let all = all.map_err(|error| unusable(error.to_string()).with_source(error))?;
            if all.is_empty() {
                return Err(unusable("there is no certificate in it".to_owned()));
            }
            for certificate in all {
                let added = roots.add(certificate);
                added.map_err(|error| unusable(error.to_string()).with_source(error))?;
            }
        }
        Ok(roots)
    })
    .await
}
