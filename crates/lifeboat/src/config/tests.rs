//! Tests of the configuration: every message as people read it, kept as golden files (`UPDATE_GOLDEN=1` rewrites them).

#![allow(clippy::panic, clippy::unwrap_used, reason = "tests")]

mod accepted;
mod checks;
mod places;
mod plan;
mod probes;
mod reference;
mod refused;

use std::path::{Path, PathBuf};

use lifeboat_model::{Error, ErrorKind};

use super::surroundings::Surroundings;
use super::{Settings, parse};

/// Where the tested files pretend to be.
const PATH: &str = "/etc/lifeboat/lifeboat.yaml";

/// A configuration in which everything is right and nothing gives a warning.
const GOOD: &str = "\
version: 1
instance: { name: app-host, state_dir: /var/lib/lifeboat }
instances:
  app-host: \"ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a\"
keys:
  main:
    age:
      recipients: [age1lvyvwawkr0mcnnnncaghunadrqkmuf9e6507x9y920xxpp866cnql7dp2z]
      identity: { file: /etc/lifeboat/lifeboat.key }
stores:
  disk: { fs: { path: /var/backups/lifeboat, min_free: 5% } }
systems:
  sortie:
    not_backed_up: { sessions: ephemeral }
    components:
      db:
        sqlite: { path: /data/sortie.db, busy_timeout: 5s, max_stall: 3s }
        objectives: { rpo: 24h, rto: 30m }
        priority: high
        depends_on: [queue]
        backup: { to: [disk], encrypt: main }
      queue:
        sqlite: { path: queue.db }
        objectives: { rpo: 1h }
        backup: { to: [disk] }
";

/// A process of an ordinary user without a terminal.
fn surroundings() -> Surroundings {
    Surroundings {
        folder: PathBuf::from("/nowhere"),
        config_variable: None,
        config_home: Some(PathBuf::from("/home/someone/.config")),
        state_home: Some(PathBuf::from("/home/someone/.local/state")),
        etc: PathBuf::from("/etc"),
        root: false,
    }
}

fn read(text: &str) -> Result<Settings, Error> {
    parse(Path::new(PATH), text.as_bytes(), &surroundings())
}

/// [`GOOD`] with a part exchanged; the part must be there.
fn with(part: &str, other: &str) -> String {
    assert!(GOOD.contains(part), "the good configuration has no {part:?}");
    GOOD.replacen(part, other, 1)
}

/// The whole error as a user sees it, compared with its golden file.
fn assert_refused(name: &str, text: &[u8]) {
    let error = parse(Path::new(PATH), text, &surroundings()).expect_err("it must be refused");
    assert_eq!(error.kind(), ErrorKind::ConfigInvalid);
    let hint = error.hint().expect("a hint");
    assert_golden(&golden(&format!("{name}.txt")), &format!("{error}\n\nhint: {hint}\n"));
}

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/golden/config")
        .join(name)
}

fn assert_golden(path: &Path, found: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        #[expect(clippy::disallowed_methods, reason = "a file of the source tree, written on request")]
        std::fs::write(path, found).unwrap();
        return;
    }
    let wanted = std::fs::read_to_string(path)
        .unwrap_or_else(|error| panic!("{}: {error}; UPDATE_GOLDEN=1 writes it. Found:\n{found}", path.display()));
    assert_eq!(wanted, found, "{} differs; UPDATE_GOLDEN=1 rewrites it", path.display());
}
