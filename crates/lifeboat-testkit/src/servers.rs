//! Storage services as programs, each on a loopback port of its own: `versitygw` (S3) and Azurite (Azure Blob Storage).
//!
//! One of each for a test binary; every test takes a bucket of its own. A server ends when the test binary does, however that ends, and its
//! folder with it: a shell beside it reads the pipe that only the binary holds open. `cargo xtask test` installs the programs.

use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Access key of `versitygw`.
pub const ACCESS_KEY: &str = "AKIAVERSITY";
/// Its secret key.
pub const SECRET_KEY: &str = "a secret of the tests";
/// The account that Azurite always has.
pub const AZURE_ACCOUNT: &str = "devstoreaccount1";
/// Its key, which stands in Microsoft's documentation.
pub const AZURE_KEY: &str = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

/// How long a server may take to answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs a program in a new folder until standard input closes, then removes the folder.
const KEEPER: &str = r#"
folder=$(mktemp -d) && mkdir "$folder/data" "$folder/side" && cd "$folder" || exit 1
# Where versitygw keeps what does not fit into names: a folder needs no extended attributes then.
export VGW_META_SIDECAR="$folder/side"
"$@" < /dev/null > log 2>&1 &
echo started
read -r _
kill $!
wait
cd /
rm -rf "$folder"
"#;

/// Makes a container in Azurite: address, account, key, name.
const MAKE_CONTAINER: &str = r"
import base64, email.utils, hashlib, hmac, sys, urllib.request
address, account, key, name = sys.argv[1:]
date = email.utils.formatdate(usegmt=True)
headers = f'x-ms-date:{date}\nx-ms-version:2021-12-02\n'
text = f'PUT\n\n\n\n\n\n\n\n\n\n\n\n{headers}/{account}/{account}/{name}\nrestype:container'
signed = base64.b64encode(hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()).decode()
request = urllib.request.Request(f'{address}/{name}?restype=container', method='PUT', headers={
    'x-ms-date': date, 'x-ms-version': '2021-12-02', 'Content-Length': '0', 'Authorization': f'SharedKey {account}:{signed}'})
urllib.request.urlopen(request).read()
";

/// A running server.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    /// Closes when the process ends.
    _stdin: ChildStdin,
    _keeper: Child,
}

impl Server {
    /// `versitygw`, which keeps its objects in a folder.
    ///
    /// # Panics
    /// As the others here: where it is not installed or does not start; the message says what to do.
    #[must_use]
    pub fn versitygw() -> &'static Self {
        static SHARED: OnceLock<Server> = OnceLock::new();
        SHARED.get_or_init(|| {
            Self::start("versitygw", |program, port| {
                let listen = format!("127.0.0.1:{port}");
                let program = program.display().to_string();
                [
                    &program, "--quiet", "--port", &listen, "--access", ACCESS_KEY, "--secret", SECRET_KEY,
                ]
                .into_iter()
                .chain(["posix", "data"])
                .map(str::to_owned)
                .collect()
            })
        })
    }

    /// Azurite's blob service, in memory.
    #[must_use]
    pub fn azurite() -> &'static Self {
        static SHARED: OnceLock<Server> = OnceLock::new();
        SHARED.get_or_init(|| {
            Self::start("azurite/node_modules/azurite/dist/src/blob/main.js", |program, port| {
                let (port, program) = (port.to_string(), program.display().to_string());
                ["node", &program, "--blobHost", "127.0.0.1", "--blobPort", &port]
                    .into_iter()
                    .chain([
                        "--inMemoryPersistence",
                        "--skipApiVersionCheck",
                        "--silent",
                        "--disableTelemetry",
                    ])
                    .map(str::to_owned)
                    .collect()
            })
        })
    }

    /// Its URL.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A name for a bucket that no other test has.
    #[must_use]
    pub fn name(&self, test: &str) -> String {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        format!("{}-{}", test.replace('_', "-"), COUNT.fetch_add(1, Ordering::Relaxed))
    }

    /// Makes a container in Azurite; returns its name.
    ///
    /// # Panics
    /// Where the server refuses, or there is no Python.
    #[must_use]
    pub fn azure_container(&self, test: &str) -> String {
        let name = self.name(test);
        let Some(python) = std::env::var_os("LIFEBOAT_TEST_PYTHON") else {
            failed("set LIFEBOAT_TEST_PYTHON to a Python; `cargo xtask test` does it");
        };
        let address = format!("{}/{AZURE_ACCOUNT}", self.endpoint());
        #[expect(clippy::disallowed_methods, reason = "a test runs another program")]
        let output = Command::new(python)
            .args(["-c", MAKE_CONTAINER, &address, AZURE_ACCOUNT, AZURE_KEY, &name])
            .output();
        match output {
            Ok(output) if output.status.success() => name,
            other => failed(&format!("no container: {other:?}")),
        }
    }

    fn start(program: &str, command: impl Fn(PathBuf, u16) -> Vec<String>) -> Self {
        let folder = std::env::var_os("LIFEBOAT_TEST_SERVERS").map_or_else(
            || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/servers")),
            PathBuf::from,
        );
        let path = folder.join(program);
        if !path.is_file() {
            failed(&format!(
                "{program} is not installed: run the tests through `cargo xtask test`, which does it"
            ));
        }
        let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let Ok(address) = free else { failed("there is no free port") };
        #[expect(clippy::disallowed_methods, reason = "a server that outlives single tests")]
        let started = Command::new("sh")
            .args(["-c", KEEPER, "keeper"])
            .args(command(path, address.port()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn();
        let mut keeper = started.unwrap_or_else(|error| failed(&format!("cannot start {program}: {error}")));
        let (Some(stdin), Some(stdout)) = (keeper.stdin.take(), keeper.stdout.take()) else {
            failed("the server has no pipes")
        };
        let mut line = String::new();
        let read = BufReader::new(stdout).read_line(&mut line);
        if read.is_err() || line.trim() != "started" {
            failed(&format!("{program} did not start: {read:?} {line}"));
        }
        if !answers(address) {
            failed(&format!("{program} does not answer on {address}"));
        }
        Self {
            address,
            _stdin: stdin,
            _keeper: keeper,
        }
    }
}

/// Waits until somebody listens there.
#[expect(clippy::disallowed_methods, reason = "a deadline for a real program")]
fn answers(address: SocketAddr) -> bool {
    let began = Instant::now();
    while TcpStream::connect(address).is_err() {
        if began.elapsed() > PATIENCE {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(20));
    }
    true
}

#[expect(clippy::panic, reason = "without the server the tests cannot say anything")]
fn failed(why: &str) -> ! {
    panic!("{why}")
}
