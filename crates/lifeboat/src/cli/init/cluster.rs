//! A PostgreSQL cluster in `init`: how to connect, a role with the least rights, and what the server lacks.
//!
//! What dies where: the password file stands before the role is made with it; a role without a configuration that names it is used by the next run,
//! which finds the file.

use std::path::{Path, PathBuf};

use lifeboat_engine::postgres::sql::Sql;
use lifeboat_engine::postgres::{ConnInfo, Surroundings, role};
use lifeboat_io::durable;
use lifeboat_model::{Error, ErrorKind, Result};
use lifeboat_ops::doctor::{self, Check, Outcome};
use zeroize::Zeroizing;

use super::super::Cx;
use super::super::args::Init;
use crate::config::{ComponentSettings, InitialSource};

/// How a variable is named instead of a URL.
const ENV: &str = "env:";
/// Random bytes of a password.
const PASSWORD_BYTES: usize = 24;

/// A cluster that answered.
#[derive(Debug, Clone)]
pub(super) struct Found {
    /// As it will stand in the configuration.
    pub(super) source: InitialSource,
    /// A role that is to be made.
    pub(super) create: Option<Create>,
    /// What to say about it.
    pub(super) notes: Vec<String>,
}

/// A role that is to be made.
#[derive(Debug, Clone)]
pub(super) struct Create {
    login: ConnInfo,
    major: u32,
    name: String,
    password: PathBuf,
}

/// The cluster that the flags name, after it let us in.
pub(super) async fn given(args: &Init, state_dir: &Path) -> Result<Option<Found>> {
    let Some(written) = &args.postgres else {
        if args.create_role.is_some() {
            let detail = "--create-role makes a role in the cluster that --postgres names";
            return Err(Error::new(ErrorKind::Usage, "set up", "a role", detail));
        }
        return Ok(None);
    };
    let (text, variable) = match written.strip_prefix(ENV) {
        Some(name) => {
            let read = std::env::var(name);
            let text = read.map_err(|error| Error::new(ErrorKind::Usage, "read the variable", name, error.to_string()))?;
            (Zeroizing::new(text), Some(name.to_owned()))
        }
        None => (Zeroizing::new(written.clone()), None),
    };
    let bare = ConnInfo::parse(&text, &Surroundings::default()).map_err(|error| error.with_kind(ErrorKind::Usage))?;
    if variable.is_none() && bare.has_password() {
        return Err(Error::new(
            ErrorKind::Usage,
            "use",
            "the URL given with --postgres",
            "it holds a password, which everybody on this host can read in the list of processes",
        )
        .with_hint("put it into ~/.pgpass or PGPASSWORD, or the whole URL into a variable: --postgres env:DATABASE_URL"));
    }
    let login = ConnInfo::parse(&text, &Surroundings::of_process())?;
    let sql = Sql::connect(&login).await?;
    let (major, version, who) = about(&sql).await?;
    let mut notes = vec![format!("PostgreSQL {version} answers at {login}")];
    let Some(name) = args.create_role.clone() else {
        notes.extend(advice(&sql, major, &who).await?);
        let source = InitialSource::Postgres {
            url: match variable {
                Some(name) => format!("{{ env: {name} }}"),
                None => crate::config::quoted(written),
            },
            password: None,
        };
        return Ok(Some(Found {
            source,
            create: None,
            notes,
        }));
    };
    if variable.is_some() {
        let detail = "the URL in the variable is that of a login, and would stay it";
        return Err(Error::new(ErrorKind::Usage, "make a role with", written, detail)
            .with_hint("write the URL out without its password, and the password into PGPASSWORD or ~/.pgpass"));
    }
    notes.push(format!("as {}, these are run there:", who.role));
    notes.push(role::creation(&name));
    notes.extend(role::rights(major, &name).into_iter().map(|right| right.sql));
    let password = state_dir.join(format!("{name}.password"));
    Ok(Some(Found {
        source: InitialSource::Postgres {
            url: crate::config::quoted(&as_role(written, &name)),
            password: Some(password.clone()),
        },
        create: Some(Create {
            login,
            major,
            name,
            password,
        }),
        notes,
    }))
}

struct Who {
    role: String,
    is_super: bool,
}

async fn about(sql: &Sql) -> Result<(u32, String, Who)> {
    let text = "select current_setting('server_version_num')::int / 10000, current_setting('server_version'), current_user, \
                current_setting('is_superuser')";
    let values: Vec<String> = sql.text("ask", text).await?.into_iter().flatten().flatten().collect();
    let [major, version, role, is_super] = values.as_slice() else {
        return Err(Error::new(
            ErrorKind::Failed,
            "ask",
            sql.subject(),
            "it did not say its version",
        ));
    };
    let major = major.parse().unwrap_or(0);
    if major < 14 {
        let detail = "versions 14 to 18 are supported";
        return Err(
            Error::new(ErrorKind::Incompatible, "protect", format!("PostgreSQL {version}"), detail)
                .with_hint("upgrade the server; until then its own pg_dump can be kept: lifeboat init --files 'DUMPS/*'"),
        );
    }
    let who = Who {
        role: role.clone(),
        is_super: is_super == "on",
    };
    Ok((major, version.clone(), who))
}

/// What there is to say about the login that will be used.
async fn advice(sql: &Sql, major: u32, who: &Who) -> Result<Vec<String>> {
    if who.is_super {
        return Ok(vec![format!(
            "{} may do everything there; --create-role makes a role with the least rights",
            who.role
        )]);
    }
    let missing = role::missing(sql, major, &who.role).await?;
    Ok(missing
        .into_iter()
        .map(|right| format!("it lacks a right {}: {}", right.what_for, right.sql))
        .collect())
}

/// The same connection as another role.
fn as_role(url: &str, role: &str) -> String {
    let plain = !role.is_empty() && role.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    let is_url = ["postgresql://", "postgres://"]
        .into_iter()
        .find(|scheme| url.starts_with(scheme));
    match is_url.and_then(|scheme| url.strip_prefix(scheme)) {
        Some(rest) if plain => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (authority, behind) = rest.split_at(end);
            let hosts = authority.rsplit_once('@').map_or(authority, |(_, hosts)| hosts);
            format!("postgresql://{role}@{hosts}{behind}")
        }
        Some(_) => {
            let sign = if url.contains('?') { '&' } else { '?' };
            let encoded: String = role.bytes().map(|byte| format!("%{byte:02X}")).collect();
            format!("{url}{sign}user={encoded}")
        }
        // A later word counts.
        None => format!("{url} user='{}'", role.replace('\\', "\\\\").replace('\'', "\\'")),
    }
}

impl Create {
    /// Makes the role; its password is in a file that only this user can read.
    pub(super) async fn run(&self, cx: &Cx) -> Result<()> {
        let mut random = Zeroizing::new([0; PASSWORD_BYTES]);
        cx.env.entropy.fill(&mut *random)?;
        let fresh = Zeroizing::new(hex::encode(*random));
        durable::create_folder(&durable::parent_of(&self.password))?;
        let ours = durable::create_file(&self.password, fresh.as_bytes(), 0o600)? == durable::Created::AlreadyThere;
        let password = match ours {
            false => fresh,
            true => {
                let read = std::fs::read_to_string(&self.password);
                Zeroizing::new(read.map_err(|error| Error::io("read", self.password.display(), error))?)
            }
        };
        let sql = Sql::connect(&self.login).await?;
        match role::create(&sql, self.major, &self.name, password.trim()).await {
            // An earlier run of ours made it, and was stopped.
            Err(error) if error.kind() == ErrorKind::AlreadyExists && ours => Ok(()),
            Err(error) if !ours => {
                durable::remove_file(&self.password)?;
                Err(error)
            }
            other => other,
        }
    }
}

/// What the doctor has to say about the server of a component that is none of a good word.
pub(super) async fn doctor(cx: &Cx, component: &ComponentSettings) {
    let Some(cluster) = component.source.cluster() else { return };
    for Check { says, outcome, fix } in doctor::server(cluster).await {
        if outcome == Outcome::Good {
            continue;
        }
        let fix = fix.map(|fix| format!("\n  fix: {fix}")).unwrap_or_default();
        cx.out.note(&format!("doctor: {}: {says}{fix}", component.name));
    }
}

#[cfg(test)]
mod tests {
    use super::as_role;

    #[test]
    fn the_connection_stays_and_the_role_becomes_another() {
        for (url, wanted) in [
            (
                "postgresql://postgres@db:5433/app?sslmode=require",
                "postgresql://lifeboat@db:5433/app?sslmode=require",
            ),
            ("postgres://db", "postgresql://lifeboat@db"),
            ("postgresql:///app", "postgresql://lifeboat@/app"),
            (
                "host=/run user=postgres dbname=app",
                "host=/run user=postgres dbname=app user='lifeboat'",
            ),
        ] {
            assert_eq!(as_role(url, "lifeboat"), wanted);
        }
        assert_eq!(as_role("postgresql://a@db/app", "é"), "postgresql://a@db/app?user=%C3%A9");
        assert_eq!(as_role("host=db", "o'x"), "host=db user='o\\'x'");
    }
}
