//! `moto`, an S3 service in Python that knows versions, locks, rules and archive classes, on a loopback port of its own.
//!
//! One server for each test binary; every test takes a bucket of its own. It ends when the test binary does, however that ends: it reads
//! the pipe that only the binary holds open.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;

/// Runs until standard input closes; prints its port first.
const SERVER: &str = r"
import os, sys, threading
def end():
    sys.stdin.read()
    os._exit(0)
threading.Thread(target=end, daemon=True).start()
import logging
logging.getLogger('werkzeug').setLevel(logging.ERROR)
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server
moto = DomainDispatcherApplication(create_backend_app)
def as_s3_does(environ, start):
    # For a put into a bucket with object lock S3 takes any `x-amz-checksum-*`; moto asks for the header that names the algorithm.
    if 'HTTP_X_AMZ_CHECKSUM_SHA256' in environ:
        environ.setdefault('HTTP_X_AMZ_SDK_CHECKSUM_ALGORITHM', 'SHA256')
    return moto(environ, start)
server = make_server('127.0.0.1', 0, as_s3_does, threaded=True)
print(server.server_port, flush=True)
server.serve_forever()
";

/// A running server.
#[derive(Debug)]
pub struct Moto {
    endpoint: String,
    /// Closes when the process ends.
    _stdin: ChildStdin,
    _child: Child,
}

impl Moto {
    /// The server of this test binary.
    ///
    /// # Panics
    /// Where it cannot be started; the message says what is missing.
    #[must_use]
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Moto> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    #[expect(
        clippy::disallowed_methods,
        clippy::panic,
        reason = "a server that outlives single tests; without it the tests cannot say anything"
    )]
    fn start() -> Self {
        let Some(python) = std::env::var_os("LIFEBOAT_TEST_PYTHON") else {
            panic!("set LIFEBOAT_TEST_PYTHON to a Python that has moto; `cargo xtask test` does it");
        };
        let started = Command::new(&python)
            .args(["-c", SERVER])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut child = started.unwrap_or_else(|error| panic!("cannot start {}: {error}", python.display()));
        let (Some(stdin), Some(stdout)) = (child.stdin.take(), child.stdout.take()) else {
            panic!("the server has no pipes");
        };
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        match (read, line.trim().parse::<u16>()) {
            (Ok(_), Ok(port)) => Self {
                endpoint: format!("http://127.0.0.1:{port}"),
                _stdin: stdin,
                _child: child,
            },
            (read, _) => panic!("moto did not start ({read:?}): {line:?}; `cargo xtask test` installs what it needs"),
        }
    }

    /// Its URL. Any credentials will do.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// A name for a bucket that no other test has.
    #[must_use]
    pub fn bucket(&self, test: &str) -> String {
        use std::sync::atomic::{AtomicU32, Ordering};
        static COUNT: AtomicU32 = AtomicU32::new(0);
        format!("{}-{}", test.replace('_', "-"), COUNT.fetch_add(1, Ordering::Relaxed))
    }
}
