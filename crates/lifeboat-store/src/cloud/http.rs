//! The HTTP client of the clouds: TLS by rustls with ring, roots of the system (`SSL_CERT_FILE` and `SSL_CERT_DIR` are honoured), kept
//! connections, and time limits that fit a whole pack.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use lifeboat_model::{Error, ErrorKind, Result};
use object_store::ClientOptions;
use object_store::client::{
    ClientConfigKey, HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use rustls::ClientConfig;

/// A connection must stand after this long.
const CONNECT: Duration = Duration::from_secs(10);
/// The longest silence while an answer arrives.
const SILENCE: Duration = Duration::from_secs(60);
/// A request may take this long, and longer by its size.
const REQUEST: Duration = Duration::from_secs(60);
/// The slowest upload that is waited for, in bytes per second: a pack of 32 MiB gets nine minutes.
const SLOWEST: u64 = 64 << 10;

/// Makes clients for `object_store`.
#[derive(Debug, Clone)]
pub(super) struct Connector {
    tls: ClientConfig,
}

impl Connector {
    /// Reads the roots that this machine trusts.
    pub(super) fn new() -> Result<Self> {
        let failed = |detail: String| {
            Error::new(ErrorKind::Failed, "prepare", "TLS", detail).with_hint(
                "install the package `ca-certificates`, or name a file of roots in SSL_CERT_FILE; then run the command again",
            )
        };
        let mut roots = rustls::RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        let (_, refused) = roots.add_parsable_certificates(found.certs);
        // A file that was named and cannot be read would otherwise show up as a certificate that nobody signed.
        if roots.is_empty() && refused > 0 {
            return Err(failed(format!(
                "none of the {refused} root certificates of this machine can be used"
            )));
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| failed(error.to_string()).with_source(error))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { tls })
    }

    /// The same client for the calls that `object_store` does not know.
    pub(super) fn plain(&self) -> Result<reqwest::Client> {
        self.client(CONNECT)
            .map_err(|error| Error::new(ErrorKind::Failed, "prepare", "HTTP", error.to_string()).with_source(error))
    }

    fn client(&self, connect: Duration) -> reqwest::Result<reqwest::Client> {
        reqwest::Client::builder()
            .tls_backend_preconfigured(self.tls.clone())
            // A redirect would be followed with a signature that does not fit; its status says what is wrong.
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(connect)
            .read_timeout(SILENCE)
            .tcp_keepalive(Duration::from_secs(30))
            .pool_idle_timeout(Duration::from_secs(90))
            .user_agent(concat!("lifeboat/", env!("CARGO_PKG_VERSION")))
            .build()
    }
}

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        // Only the client for the machine's own metadata has a shorter limit: elsewhere nobody answers there.
        let connect = match options.get_config_value(&ClientConfigKey::ConnectTimeout).as_deref() {
            Some("1s") => Duration::from_secs(1),
            _ => CONNECT,
        };
        let client = self.client(connect).map_err(|error| object_store::Error::Generic {
            store: "HTTP",
            source: Box::new(error),
        })?;
        Ok(HttpClient::new(Service { client }))
    }
}

#[derive(Debug)]
struct Service {
    client: reqwest::Client,
}

#[async_trait]
impl HttpService for Service {
    async fn call(&self, request: HttpRequest) -> std::result::Result<HttpResponse, HttpError> {
        let size = u64::try_from(request.body().content_length()).unwrap_or(u64::MAX);
        let limit = REQUEST.saturating_add(Duration::from_secs(size / SLOWEST));
        match tokio::time::timeout(limit, self.client.call(request)).await {
            Ok(answer) => answer,
            Err(elapsed) => Err(HttpError::new(HttpErrorKind::Timeout, elapsed)),
        }
    }
}
