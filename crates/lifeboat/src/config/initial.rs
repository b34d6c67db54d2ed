//! The configuration that `lifeboat init` writes: complete, with a comment wherever somebody will want to change something.
//!
//! Only text; writes nothing. Every value goes through [`quoted`], so that no path or name can become something else.

use std::path::PathBuf;

/// What a store's folder leaves free unless somebody decides otherwise: room for what shares the disk to go on until people come. A
/// share of the disk would refuse the first backup on a large disk that has plenty of room left.
pub(super) const MIN_FREE: &str = "1GiB";

/// What the first configuration is made of.
#[derive(Debug, Clone)]
pub(crate) struct Initial {
    /// Name of this installation.
    pub(crate) instance_name: String,
    /// Where it keeps its state.
    pub(crate) state_dir: PathBuf,
    /// Its public key (`ed25519:…`).
    pub(crate) instance_public: String,
    /// Public key and file of the secret key; `None` writes `encrypt: none`.
    pub(crate) key: Option<(String, PathBuf)>,
    /// Folder of the store.
    pub(crate) store_path: PathBuf,
    /// What is backed up: `system/component` and what it is.
    pub(crate) components: Vec<(String, InitialSource)>,
    /// How much work may be lost, as a duration with a unit.
    pub(crate) rpo: String,
    /// How long a recovery may take, as a duration with a unit.
    pub(crate) rto: String,
}

/// What a component of the first configuration is.
#[derive(Debug, Clone)]
pub(crate) enum InitialSource {
    /// A SQLite database.
    Sqlite(PathBuf),
    /// Files and folders: patterns, and files of which only the structure is kept.
    Files {
        /// What is backed up.
        include: Vec<String>,
        /// Of these only the keys.
        env_structure: Vec<String>,
    },
    /// A PostgreSQL cluster.
    Postgres {
        /// The connection, as it is written into the file.
        url: String,
        /// The file with the password of the role.
        password: Option<PathBuf>,
    },
    /// Keys, certificates and revocation lists: patterns.
    Pki {
        /// Private keys.
        keys: Vec<String>,
        /// Certificates.
        certs: Vec<String>,
        /// Revocation lists.
        crl: Vec<String>,
    },
}

impl InitialSource {
    /// What it is, for people.
    pub(crate) fn shown(&self) -> String {
        match self {
            Self::Sqlite(path) => path.display().to_string(),
            Self::Files { include, env_structure } if env_structure.is_empty() => include.join(", "),
            Self::Files { include, env_structure } => {
                let of = format!("the keys, without values, of {}", env_structure.join(", "));
                if include.is_empty() {
                    of
                } else {
                    format!("{} and {of}", include.join(", "))
                }
            }
            Self::Postgres { url, .. } => format!("the PostgreSQL cluster {}", url.trim_matches('"')),
            Self::Pki { keys, certs, crl } => [keys.as_slice(), certs, crl].concat().join(", "),
        }
    }

    fn lines(&self) -> Vec<String> {
        let list = |patterns: &[String]| {
            let quoted: Vec<String> = patterns.iter().map(|pattern| quoted(pattern)).collect();
            format!("[{}]", quoted.join(", "))
        };
        match self {
            Self::Sqlite(path) => vec![format!("        sqlite: {{ path: {} }}", quoted(&path.to_string_lossy()))],
            Self::Files { include, env_structure } => {
                let mut lines = vec!["        files:".to_owned(), format!("          include: {}", list(include))];
                if !env_structure.is_empty() {
                    lines.push(
                        "          # Of these only the keys are kept. For complete files: include them, and `secrets: encrypt`."
                            .to_owned(),
                    );
                    lines.push(format!("          env_structure: {}", list(env_structure)));
                }
                lines
            }
            Self::Postgres { url, password } => {
                let mut lines = vec!["        postgres:".to_owned(), format!("          url: {url}")];
                if let Some(file) = password {
                    lines.push(format!("          password: {{ file: {} }}", quoted(&file.to_string_lossy())));
                }
                lines
            }
            Self::Pki { keys, certs, crl } => {
                let mut lines = vec![
                    "        pki:".to_owned(),
                    format!("          ca_keys: {}", list(keys)),
                    format!("          certs: {}", list(certs)),
                ];
                if !crl.is_empty() {
                    lines.push(format!("          crl: {}", list(crl)));
                }
                lines.push("          warn_expiry: 30d".to_owned());
                lines
            }
        }
    }
}

/// The text of `lifeboat.yaml`.
pub(crate) fn render_initial(initial: &Initial) -> String {
    let mut out = String::new();
    let mut line = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    line("# Configuration of Lifeboat. `lifeboat config check` tells whether it is right.".into());
    line("# Editors know every key with the schema: lifeboat config schema > lifeboat.schema.json".into());
    line("# yaml-language-server: $schema=./lifeboat.schema.json".into());
    line("version: 1".into());
    line(String::new());
    line("instance:".into());
    line(format!("  name: {}", quoted(&initial.instance_name)));
    line("  # Signing key, locks and what was seen so far. Keep it on a disk of its own, not in a store.".into());
    line(format!("  state_dir: {}", quoted(&initial.state_dir.to_string_lossy())));
    line(String::new());
    line("# Whose backups are trusted. Add the public keys of other hosts that write into the same store.".into());
    line("instances:".into());
    line(format!(
        "  {}: {}",
        quoted(&initial.instance_name),
        quoted(&initial.instance_public)
    ));
    line(String::new());
    if let Some((recipient, identity)) = &initial.key {
        line("keys:".into());
        line("  main:".into());
        line("    age:".into());
        line("      # Everybody listed here can read the backups. Add the public key of a second, off-site key.".into());
        line(format!("      recipients: [{}]", quoted(recipient)));
        line("      # Without this file no backup can be read: keep a copy away from this machine.".into());
        line(format!("      identity: {{ file: {} }}", quoted(&identity.to_string_lossy())));
        line(String::new());
    }
    line("stores:".into());
    line("  disk:".into());
    line("    fs:".into());
    line(format!("      path: {}", quoted(&initial.store_path.to_string_lossy())));
    line(format!("      min_free: {MIN_FREE} # no backup begins while less is free"));
    line(String::new());
    line(systems(initial));
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn systems(initial: &Initial) -> String {
    let mut out = String::new();
    let mut add = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    if initial.components.is_empty() {
        add(
            "# Nothing is backed up yet. A system is what people name in an emergency; a component is one database of it.".into(),
        );
        add("systems: {}".into());
        add(example(initial));
        return out;
    }
    add("systems:".into());
    let mut written: Vec<&str> = Vec::new();
    for (name, _) in &initial.components {
        let system = name.split('/').next().unwrap_or(name);
        if written.contains(&system) {
            continue;
        }
        written.push(system);
        add(format!("  {}:", quoted(system)));
        add("    # What is deliberately left out, and why; it appears in status and reports.".into());
        add("    # not_backed_up: { sessions: can be made again }".into());
        add("    components:".into());
        for (name, source) in &initial.components {
            let (of, component) = name.split_once('/').unwrap_or((name, "db"));
            if of == system {
                add(block(initial, component, source));
            }
        }
    }
    out
}

/// One component.
fn block(initial: &Initial, component: &str, source: &InitialSource) -> String {
    let encrypt = if initial.key.is_some() { "main" } else { "none" };
    let mut lines = vec![format!("      {}:", quoted(component))];
    lines.extend(source.lines());
    lines.extend([
        "        # rpo: how much work may be lost; rto: how long a recovery may take.".to_owned(),
        format!(
            "        objectives: {{ rpo: {}, rto: {} }}",
            quoted(&initial.rpo),
            quoted(&initial.rto)
        ),
        format!("        backup: {{ to: [disk], encrypt: {encrypt} }}"),
    ]);
    lines.join("\n")
}

/// The same as a comment, for a file without components.
fn example(initial: &Initial) -> String {
    let body = block(initial, "db", &InitialSource::Sqlite("/path/to/database.db".into()));
    let head = ["systems:", "  shop:", "    components:"];
    let lines: Vec<String> = head
        .iter()
        .copied()
        .chain(body.lines())
        .map(|line| format!("#   {line}"))
        .collect();
    format!("# For example:\n{}", lines.join("\n"))
}

/// A YAML scalar: as it stands where that is safe, otherwise in double quotes (whose escapes are those of JSON).
pub(crate) fn quoted(text: &str) -> String {
    let plain = !text.is_empty()
        && text
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '/' | '.' | '_' | '-'))
        && text.starts_with(|letter: char| letter.is_ascii_alphabetic() || letter == '/')
        && !["true", "false", "null", "yes", "no", "on", "off", "y", "n"].contains(&text.to_ascii_lowercase().as_str());
    if plain || is_duration(text) {
        text.to_owned()
    } else {
        serde_json::Value::from(text).to_string()
    }
}

/// `24h` and the like begin with a digit but are text in every YAML.
fn is_duration(text: &str) -> bool {
    text.starts_with(|letter: char| letter.is_ascii_digit())
        && text.ends_with(['w', 'd', 'h', 'm', 's'])
        && text.chars().all(|letter| letter.is_ascii_digit() || "wdhms".contains(letter))
}
