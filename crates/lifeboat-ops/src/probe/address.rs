//! Whom a probe asks over the network, and what it says besides.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use lifeboat_model::{Error, ErrorKind, Result};
use reqwest::Url;
use reqwest::header::{HeaderName, HeaderValue};

/// Headers that belong to the connection, and that Lifeboat writes itself.
const OURS: &[&str] = &[
    "connection",
    "content-length",
    "host",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A checked URL without a login in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address(pub(super) Url);

impl Address {
    /// Reads a URL of one of these schemes.
    ///
    /// # Errors
    /// `ConfigInvalid` where it is no such URL, or has a login or a fragment in it.
    pub fn parse(text: &str, schemes: &[&str]) -> Result<Self> {
        let invalid = |detail: String| Error::new(ErrorKind::ConfigInvalid, "read", "the url", detail);
        let url = Url::parse(text).map_err(|error| invalid(error.to_string()).with_source(error))?;
        if !schemes.contains(&url.scheme()) {
            return Err(invalid(format!("it begins with neither {}", either(schemes))));
        }
        if !url.username().is_empty() || url.password().is_some() {
            let error = invalid("a login does not belong into it".to_owned());
            return Err(error.with_hint("write it as a header: `headers: { authorization: { env: NAME } }`"));
        }
        if url.fragment().is_some() {
            return Err(invalid("what follows `#` is never sent".to_owned()));
        }
        if url.host_str().is_none_or(str::is_empty) {
            return Err(invalid("it has no host".to_owned()));
        }
        Ok(Self(url))
    }

    /// The host without the brackets of an address.
    pub(super) fn host(&self) -> &str {
        let host = self.0.host_str().unwrap_or_default();
        host.trim_start_matches('[').trim_end_matches(']')
    }

    pub(super) fn port(&self) -> u16 {
        self.0.port_or_known_default().unwrap_or(443)
    }

    /// What goes into the header `Host`.
    pub(super) fn authority(&self) -> String {
        let host = self.0.host_str().unwrap_or_default();
        match self.0.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

fn either(schemes: &[&str]) -> String {
    let written: Vec<String> = schemes.iter().map(|scheme| format!("{scheme}://")).collect();
    written.join(" nor ")
}

type Asked = Pin<Box<dyn Future<Output = Result<String>> + Send>>;

/// A header whose value is asked for only when it is sent, because it may be a secret. Never shown, not even by `Debug`.
#[derive(Clone)]
pub struct Header {
    name: HeaderName,
    value: Arc<dyn Fn() -> Asked + Send + Sync>,
}

impl Header {
    /// A header of this name; `value` is asked each time.
    ///
    /// # Errors
    /// `ConfigInvalid` where this is no name of a header, or of one that Lifeboat writes itself.
    pub fn new<F>(name: &str, value: impl Fn() -> F + Send + Sync + 'static) -> Result<Self>
    where
        F: Future<Output = Result<String>> + Send + 'static,
    {
        let invalid = |detail: &str| Error::new(ErrorKind::ConfigInvalid, "send the header", name, detail);
        let parsed = name.parse::<HeaderName>();
        let parsed = parsed.map_err(|error| invalid("this is no name of a header").with_source(error))?;
        if OURS.contains(&parsed.as_str()) || parsed.as_str().starts_with("sec-websocket-") {
            return Err(invalid("Lifeboat writes this header itself").with_hint("leave it out"));
        }
        Ok(Self {
            name: parsed,
            value: Arc::new(move || Box::pin(value())),
        })
    }

    /// What is sent.
    pub(super) async fn read(&self) -> Result<(HeaderName, HeaderValue)> {
        let text = (self.value)().await?;
        let value = HeaderValue::from_str(&text);
        // No source: it is made of the value, which may be a secret.
        let Ok(mut value) = value else {
            let detail = "its value has characters that no header may have";
            return Err(Error::new(ErrorKind::ConfigInvalid, "send the header", &self.name, detail)
                .with_hint("it is one line of plain text; look for a line break in it"));
        };
        value.set_sensitive(true);
        Ok((self.name.clone(), value))
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: …", self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_taken_apart_as_it_is_asked() {
        let parse = |text: &str| Address::parse(text, &["ws", "wss"]);
        let plain = parse("wss://app.example.com/ws?a=1").unwrap();
        assert_eq!((plain.host(), plain.port()), ("app.example.com", 443));
        assert_eq!(plain.authority(), "app.example.com");
        let other = parse("ws://[::1]:8080").unwrap();
        assert_eq!((other.host(), other.port()), ("::1", 8080));
        assert_eq!(other.authority(), "[::1]:8080");
        for wrong in ["http://a/", "wss://me:pw@a/", "wss://a/#x", "a", "wss://"] {
            assert_eq!(parse(wrong).unwrap_err().kind(), ErrorKind::ConfigInvalid, "{wrong}");
        }
    }

    #[test]
    fn headers_of_the_connection_are_ours() {
        let header = |name: &str| Header::new(name, || std::future::ready(Ok("secret".to_owned())));
        assert_eq!(format!("{:?}", header("Authorization").unwrap()), "authorization: …");
        for wrong in ["Host", "sec-websocket-key", "a b", ""] {
            assert!(header(wrong).is_err(), "{wrong}");
        }
    }
}
