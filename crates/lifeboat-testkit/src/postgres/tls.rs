//! Certificates for TLS, made once by the stock `openssl`: an authority, a server and a client signed by it, and an authority that signed nobody.

use std::path::PathBuf;
use std::sync::OnceLock;

use super::install;
use super::run::{failed, new_folder};

/// What makes them. The server is `localhost` and 127.0.0.1; the client is the user `app`.
const MAKE: &str = r#"
set -e; cd "$0"; umask 077
key() { openssl ecparam -name prime256v1 -genkey -noout -out "$1.key"; }
authority() { key "$1"; openssl req -x509 -new -key "$1.key" -sha256 -days 3650 -subj "/CN=$1" -addext basicConstraints=critical,CA:TRUE -out "$1.crt"; }
signed() {
    key "$1"
    openssl req -new -key "$1.key" -subj "/CN=$2" -out "$1.csr"
    printf '%s' "$3" > "$1.ext"
    openssl x509 -req -in "$1.csr" -CA root.crt -CAkey root.key -CAcreateserial -sha256 -days 3650 -extfile "$1.ext" -out "$1.crt"
}
authority root
authority other
signed server localhost subjectAltName=DNS:localhost,IP:127.0.0.1
signed client app extendedKeyUsage=clientAuth
"#;

/// Where the files are, all PEM.
#[derive(Debug)]
pub struct Certificates {
    /// The authority.
    pub root: PathBuf,
    /// An authority that signed nobody.
    pub other: PathBuf,
    /// The certificate of the server.
    pub server: PathBuf,
    /// Its key.
    pub server_key: PathBuf,
    /// The certificate of the client `app`.
    pub client: PathBuf,
    /// Its key.
    pub client_key: PathBuf,
}

impl Certificates {
    /// Those of this test binary.
    ///
    /// # Panics
    /// Where there is no `openssl`.
    #[must_use]
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Certificates> = OnceLock::new();
        SHARED.get_or_init(|| {
            let folder = std::env::temp_dir().join(format!("lifeboat-postgres-tls-{}", rustix::process::geteuid().as_raw()));
            if !folder.join("client.crt").is_file() {
                let fresh = new_folder();
                install::run("/bin/sh", &["-c", MAKE, &fresh.display().to_string()]);
                let words = format!(
                    "mv -T '{}' '{}' 2>/dev/null; rm -rf '{}'",
                    fresh.display(),
                    folder.display(),
                    fresh.display()
                );
                install::run("/bin/sh", &["-c", &words]);
            }
            if !folder.join("client.crt").is_file() {
                failed("there are no certificates for TLS");
            }
            let file = |name: &str| folder.join(name);
            Self {
                root: file("root.crt"),
                other: file("other.crt"),
                server: file("server.crt"),
                server_key: file("server.key"),
                client: file("client.crt"),
                client_key: file("client.key"),
            }
        })
    }
}
