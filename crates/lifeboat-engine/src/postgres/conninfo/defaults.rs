//! What the words mean, and what counts where they are silent: the service, the variables, libpq's own defaults.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_model::{Error, Result};
use zeroize::Zeroizing;

use super::parse::Words;
use super::{ChannelBinding, ConnInfo, Endpoint, Host, SslMode, Surroundings, Target, TlsFiles, invalid};

/// Where servers put their sockets: Debian and most others, then PostgreSQL as it comes.
pub(super) const SOCKET_FOLDERS: &[&str] = &["/var/run/postgresql", "/run/postgresql", "/tmp"];

/// How long a server may take to let us in where nobody says: libpq would wait for ever.
const CONNECT_LIMIT: Duration = Duration::from_secs(20);

/// Word, variable. Those with an empty variable have none.
const WORDS: &[(&str, &str)] = &[
    ("host", "PGHOST"),
    ("hostaddr", "PGHOSTADDR"),
    ("port", "PGPORT"),
    ("dbname", "PGDATABASE"),
    ("user", "PGUSER"),
    ("password", "PGPASSWORD"),
    ("passfile", "PGPASSFILE"),
    ("service", "PGSERVICE"),
    ("servicefile", "PGSERVICEFILE"),
    ("options", "PGOPTIONS"),
    ("application_name", "PGAPPNAME"),
    ("sslmode", "PGSSLMODE"),
    ("sslrootcert", "PGSSLROOTCERT"),
    ("sslcert", "PGSSLCERT"),
    ("sslkey", "PGSSLKEY"),
    ("channel_binding", "PGCHANNELBINDING"),
    ("connect_timeout", "PGCONNECT_TIMEOUT"),
    ("target_session_attrs", "PGTARGETSESSIONATTRS"),
];

/// Words of libpq that change nothing for us: we keep connections alive in any case, always speak UTF-8, and know no GSSAPI.
const WITHOUT_EFFECT: &[&str] = &[
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_count",
    "tcp_user_timeout",
    "client_encoding",
    "fallback_application_name",
    "gssencmode",
    "gssdelegation",
    "gsslib",
    "krbsrvname",
    "load_balance_hosts",
    "sslcompression",
    "sslsni",
    "replication",
];

/// Adds what the service and the variables say; what is there already stays.
pub(super) fn fill(words: &mut Words, surroundings: &Surroundings) -> Result<()> {
    for name in words.keys() {
        if !WORDS.iter().any(|(known, _)| known == name) && !WITHOUT_EFFECT.contains(&name.as_str()) {
            return Err(invalid(name, "this word is not known, or what it asks for cannot be done here").with_hint(
                "leave it out; known are host, hostaddr, port, dbname, user, password, passfile, service, options, application_name, \
                 sslmode, sslrootcert, sslcert, sslkey, channel_binding, connect_timeout and target_session_attrs",
            ));
        }
    }
    let variable = |name: &str| surroundings.variables.get(name).filter(|value| !value.is_empty()).cloned();
    if let Some(service) = words.get("service").cloned().or_else(|| variable("PGSERVICE")) {
        for (name, value) in service_words(&service, words, surroundings)? {
            words.entry(name).or_insert(value);
        }
    }
    for (name, from) in WORDS {
        if let Some(value) = variable(from) {
            words.entry((*name).to_owned()).or_insert(value);
        }
    }
    Ok(())
}

/// The section of this name in the first service file that has it.
fn service_words(service: &str, words: &Words, surroundings: &Surroundings) -> Result<Words> {
    let variable = |name: &str| surroundings.variables.get(name).map(PathBuf::from);
    let own = words
        .get("servicefile")
        .map(PathBuf::from)
        .or_else(|| variable("PGSERVICEFILE"))
        .or_else(|| surroundings.home.as_ref().map(|home| home.join(".pg_service.conf")));
    let common = variable("PGSYSCONFDIR")
        .unwrap_or_else(|| PathBuf::from("/etc/postgresql-common"))
        .join("pg_service.conf");
    for place in own.into_iter().chain([common]) {
        let text = match std::fs::read_to_string(&place) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(Error::io("read the service file", place.display(), error)),
        };
        let mut inside = false;
        let mut found = None;
        for line in text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
                inside = name == service;
                if inside {
                    found.get_or_insert_with(Words::new);
                }
            } else if inside {
                let Some((name, value)) = line.split_once('=') else {
                    return Err(invalid(
                        place.display(),
                        format_args!("a line of the service {service} has no equal sign"),
                    ));
                };
                if let Some(found) = &mut found {
                    found.entry(name.trim().to_owned()).or_insert_with(|| value.trim().to_owned());
                }
            }
        }
        if let Some(found) = found {
            return Ok(found);
        }
    }
    Err(invalid(service, "no service file has a section of this name").with_hint("look into ~/.pg_service.conf"))
}

/// Makes values of the words.
pub(super) fn build(mut words: Words, surroundings: &Surroundings) -> Result<ConnInfo> {
    let mut take = |name: &str| words.remove(name).filter(|value| !value.is_empty());
    let hosts = hosts(take("host").as_deref(), take("hostaddr").as_deref(), take("port").as_deref())?;
    let Some(user) = take("user").or_else(|| surroundings.user.clone()) else {
        return Err(invalid("the user", "none is named, and this process has none"));
    };
    let database = take("dbname").unwrap_or_else(|| user.clone());
    let in_home = |name: &str| surroundings.home.as_ref().map(|home| home.join(name));
    let there = |place: Option<PathBuf>| place.filter(|place| place.is_file());
    let root = take("sslrootcert");
    let system_roots = root.as_deref() == Some("system");
    let tls = TlsFiles {
        system_roots,
        root: match root {
            _ if system_roots => None,
            Some(root) => Some(PathBuf::from(root)),
            None => there(in_home(".postgresql/root.crt")),
        },
        cert: take("sslcert")
            .map(PathBuf::from)
            .or_else(|| there(in_home(".postgresql/postgresql.crt"))),
        key: take("sslkey")
            .map(PathBuf::from)
            .or_else(|| there(in_home(".postgresql/postgresql.key"))),
    };
    let ssl_mode = match take("sslmode").as_deref() {
        None if system_roots => SslMode::VerifyFull,
        None => SslMode::Prefer,
        Some(mode) => ssl_mode(mode)?,
    };
    if system_roots && ssl_mode != SslMode::VerifyFull {
        return Err(invalid(
            "sslmode",
            "with sslrootcert=system it must be verify-full: anybody can have a certificate of a public authority",
        ));
    }
    Ok(ConnInfo {
        hosts,
        user,
        database,
        password: take("password").map(Zeroizing::new),
        passfile: take("passfile").map(PathBuf::from).or_else(|| in_home(".pgpass")),
        ssl_mode,
        channel_binding: match take("channel_binding").as_deref() {
            None | Some("prefer") => ChannelBinding::Prefer,
            Some("disable") => ChannelBinding::Disable,
            Some("require") => ChannelBinding::Require,
            Some(other) => {
                return Err(invalid(
                    "channel_binding",
                    format_args!("'{other}' is none of disable, prefer and require"),
                ));
            }
        },
        target: target(take("target_session_attrs").as_deref().unwrap_or("any"))?,
        tls,
        connect_limit: connect_limit(take("connect_timeout").as_deref())?,
        application_name: take("application_name").unwrap_or_else(|| "lifeboat".to_owned()),
        options: take("options"),
    })
}

fn ssl_mode(text: &str) -> Result<SslMode> {
    Ok(match text {
        "disable" => SslMode::Disable,
        "allow" => SslMode::Allow,
        "prefer" => SslMode::Prefer,
        "require" => SslMode::Require,
        "verify-ca" => SslMode::VerifyCa,
        "verify-full" => SslMode::VerifyFull,
        other => {
            let detail = format!("'{other}' is none of disable, allow, prefer, require, verify-ca and verify-full");
            return Err(invalid("sslmode", detail));
        }
    })
}

fn target(text: &str) -> Result<Target> {
    Ok(match text {
        "any" => Target::Any,
        "read-write" => Target::ReadWrite,
        "read-only" => Target::ReadOnly,
        "primary" => Target::Primary,
        "standby" => Target::Standby,
        "prefer-standby" => Target::PreferStandby,
        other => {
            let detail = format!("'{other}' is none of any, read-write, read-only, primary, standby and prefer-standby");
            return Err(invalid("target_session_attrs", detail));
        }
    })
}

/// Zero and less is libpq's "for ever", which is ours by default; 1 counts as 2 there.
fn connect_limit(text: Option<&str>) -> Result<Duration> {
    let Some(text) = text else {
        return Ok(CONNECT_LIMIT);
    };
    match text.trim().parse::<i64>() {
        Ok(seconds) => Ok(u64::try_from(seconds)
            .ok()
            .filter(|seconds| *seconds > 0)
            .map_or(CONNECT_LIMIT, |s| Duration::from_secs(s.max(2)))),
        Err(error) => Err(invalid("connect_timeout", format_args!("'{text}' is not a number of seconds")).with_source(error)),
    }
}

/// Names, addresses and ports, each a list parted by commas; one port counts for all.
fn hosts(names: Option<&str>, addresses: Option<&str>, ports: Option<&str>) -> Result<Vec<Host>> {
    let list = |text: Option<&str>| text.map(|text| text.split(',').map(|part| part.trim().to_owned()).collect::<Vec<_>>());
    let (names, addresses) = (list(names), list(addresses));
    let ports = list(ports).unwrap_or_default();
    let count = match (&names, &addresses) {
        (Some(names), Some(addresses)) if names.len() != addresses.len() => {
            let detail = format!("there are {} names and {} addresses", names.len(), addresses.len());
            return Err(invalid("host and hostaddr", detail));
        }
        (Some(list), _) | (None, Some(list)) => list.len(),
        (None, None) => 1,
    };
    if ports.len() > 1 && ports.len() != count {
        return Err(invalid(
            "port",
            format_args!("there are {count} hosts and {} ports", ports.len()),
        ));
    }
    (0..count)
        .map(|number| {
            let port = match ports.get(number).or_else(|| ports.first()).map(String::as_str) {
                None | Some("") => 5432,
                Some(text) => match text.parse::<u16>() {
                    Ok(port) if port > 0 => port,
                    _ => return Err(invalid("port", format_args!("'{text}' is not a port"))),
                },
            };
            let at = |list: &Option<Vec<String>>| {
                list.as_ref()
                    .and_then(|list| list.get(number))
                    .filter(|text| !text.is_empty())
                    .cloned()
            };
            let (name, address) = (at(&names), at(&addresses));
            let endpoint = match (name, address) {
                (None, None) => usual_place(port),
                (Some(name), None) if name.starts_with('/') => Endpoint::Socket(PathBuf::from(name)),
                (Some(name), None) if name.starts_with('@') => {
                    return Err(invalid("host", "sockets without a file are not supported"));
                }
                (name, address) => Endpoint::Tcp {
                    name: name.or_else(|| address.clone()).unwrap_or_default(),
                    address,
                },
            };
            Ok(Host { endpoint, port })
        })
        .collect()
}

/// Where nobody says where: the socket that is there, else this machine by name.
fn usual_place(port: u16) -> Endpoint {
    let folder = SOCKET_FOLDERS
        .iter()
        .find(|folder| std::fs::symlink_metadata(super::socket_path(Path::new(folder), port)).is_ok());
    match folder {
        Some(folder) => Endpoint::Socket(PathBuf::from(folder)),
        None => Endpoint::Tcp {
            name: "localhost".to_owned(),
            address: None,
        },
    }
}

/// The user of this process by its number, as far as the local file knows it.
pub(super) fn system_user() -> Option<String> {
    let number = rustix::process::geteuid().as_raw().to_string();
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    })
}
