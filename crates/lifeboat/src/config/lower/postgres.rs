//! A PostgreSQL cluster: how to connect, and how it is read.

use lifeboat_engine::postgres::replication::check_slot_name;
use lifeboat_engine::postgres::{ConnInfo, Surroundings};
use lifeboat_model::Result;
use lifeboat_ops::protected::{Care, Cluster, Logical, Login, Method, Mode, Tenants};

use super::Lowering;
use crate::config::file::{At, PostgresFile, SecretFile, TenantsFile};
use crate::config::problem::Problem;
use crate::config::settings::SecretRef;

/// The longest name of a slot, in bytes.
const SLOT_BYTES: usize = 63;

impl Lowering<'_> {
    pub(super) fn postgres(&mut self, full: &str, file: &PostgresFile) -> Cluster {
        let mode = match file.mode.as_ref().map(|mode| (mode, mode.value.as_str())) {
            None | Some((_, "auto")) => Mode::Auto,
            Some((_, "local")) => Mode::Local,
            Some((_, "stream")) => Mode::Stream,
            Some((mode, _)) => {
                self.unknown(mode, "mode", "mode", &["auto", "local", "stream"]);
                Mode::Auto
            }
        };
        if let Some(slot) = &file.slot
            && let Err(error) = check_slot_name(&slot.value)
        {
            self.problems.push(
                Problem::at(slot.place, format!("`{}` is not a name for a slot", slot.value))
                    .label(error.detail())
                    .help("for example `slot: lifeboat`"),
            );
        }
        let method = match file.method.as_ref().map(|method| (method, method.value.as_str())) {
            None | Some((_, "physical")) => Method::Physical,
            Some((_, "logical")) => Method::Logical,
            Some((method, _)) => {
                self.unknown(method, "method", "method", &["physical", "logical"]);
                Method::Physical
            }
        };
        let logical = Logical {
            databases: file.databases.iter().flatten().map(|name| name.value.clone()).collect(),
            timeout: file.timeout.as_ref().map(|text| self.duration(text, "timeout", "60m")),
            lock_wait: match &file.lock_wait {
                Some(text) => self.duration(text, "lock_wait", "60s"),
                None => Logical::default().lock_wait,
            },
            keep_old: match &file.keep_old {
                Some(text) => self.duration(text, "keep_old", "7d"),
                None => Logical::default().keep_old,
            },
            tenants: file
                .tenants
                .as_ref()
                .and_then(|tenants| self.tenants(tenants, file))
                .map(Box::new),
        };
        Cluster {
            method,
            logical,
            login: self.login(full, file),
            data_dir: file.data_dir.as_ref().map(|path| self.path(path)),
            mode,
            slot: file.slot.as_ref().map_or_else(|| slot_of(full), |slot| slot.value.clone()),
            binaries: file.binaries.iter().flatten().map(|path| self.path(path)).collect(),
            // Where that is not known, `PATH` knows it.
            program: std::env::current_exe().unwrap_or_else(|_| "lifeboat".into()),
            care: Care::default(),
        }
    }

    fn tenants(&mut self, tenants: &TenantsFile, file: &PostgresFile) -> Option<Tenants> {
        let only = match file.databases.as_deref() {
            Some([only]) => Some(only),
            _ => file.database.as_ref(),
        };
        let Some(database) = tenants.database.as_ref().or(only) else {
            self.problems.push(
                Problem::at(tenants.root.place, "of which database are these the tenants?")
                    .label("there may be several")
                    .help("write `database: NAME` beside it"),
            );
            return None;
        };
        let (table, id) = match tenants.root.value.rsplit_once('.') {
            Some((table, id)) if !table.is_empty() && !id.is_empty() => (table, id),
            _ => {
                self.problems.push(
                    Problem::at(tenants.root.place, format!("`{}` is not a column", tenants.root.value))
                        .label("table and column are wanted")
                        .help("write SCHEMA.TABLE.COLUMN: `root: public.tenants.id`"),
                );
                return None;
            }
        };
        Some(Tenants {
            database: database.value.clone(),
            root: table.to_owned(),
            id: id.to_owned(),
            key: tenants
                .key
                .as_ref()
                .map_or_else(|| "tenant_id".to_owned(), |key| key.value.clone()),
            map: self.path(&tenants.map),
        })
    }

    fn login(&mut self, full: &str, file: &PostgresFile) -> Login {
        let mut words = Vec::new();
        let port = file.port.as_ref().map(|port| port.value.to_string());
        let texts = [("host", &file.host), ("user", &file.user), ("dbname", &file.database)];
        for (word, text) in texts {
            if let Some(text) = text {
                words.push((word, text.value.clone()));
            }
        }
        words.extend(port.map(|port| ("port", port)));
        if let (Some(url), Some((word, _))) = (&file.url, words.first()) {
            let field = if *word == "dbname" { "database" } else { word };
            self.problems.push(
                Problem::at(url.place, format!("{full} has both `url` and `{field}`"))
                    .label("one of them is too many")
                    .help("write everything into the url, or leave the url out"),
            );
        }
        let text: Vec<String> = words
            .iter()
            .map(|(word, value)| format!("{word}={}", quoted(value)))
            .collect();
        let written = text.join(" ");
        // What was written here can be checked here.
        if let (Some(place), Err(error)) = (
            file.host.as_ref().or(file.user.as_ref()).map(|text| text.place),
            ConnInfo::parse(&written, &Surroundings::default()),
        ) {
            let problem = Problem::at(place, format!("the connection of {full} cannot be understood"));
            self.problems.push(problem.label(error.detail()));
        }
        let url = file.url.as_ref().and_then(|url| self.url(full, url));
        let password = file
            .password
            .as_ref()
            .and_then(|secret| self.secret(secret, &format!("the password of {full}"), "password"));
        Login::new(move || connection(url.clone(), written.clone(), password.clone()))
    }

    /// A URL without a password is no secret.
    fn url(&mut self, full: &str, url: &At<SecretFile>) -> Option<SecretRef> {
        let SecretFile::Inline(text) = &url.value else {
            return self.secret(url, &format!("the url of {full}"), "url");
        };
        match ConnInfo::parse(text, &Surroundings::default()) {
            Err(error) => {
                self.problems.push(
                    Problem::at(url.place, format!("the url of {full} cannot be understood"))
                        .label(error.detail())
                        .help("write it as postgresql://user@host:5432/database"),
                );
                None
            }
            Ok(info) if info.has_password() => self.secret(url, &format!("the password of {full}"), "url"),
            Ok(_) => Some(SecretRef::Inline(text.clone())),
        }
    }
}

async fn connection(url: Option<SecretRef>, written: String, password: Option<SecretRef>) -> Result<ConnInfo> {
    let surroundings = Surroundings::of_process();
    let info = match &url {
        Some(url) => ConnInfo::parse(&url.read().await?, &surroundings)?,
        None => ConnInfo::parse(&written, &surroundings)?,
    };
    match &password {
        Some(password) => Ok(info.with_password(&password.read().await?)),
        None => Ok(info),
    }
}

/// A value of a keyword string.
fn quoted(value: &str) -> String {
    format!("'{}'", value.replace('\\', "\\\\").replace('\'', "\\'"))
}

/// `tartware/db` → `lifeboat_tartware_db`.
fn slot_of(component: &str) -> String {
    let letter = |letter: char| match letter.to_ascii_lowercase() {
        letter @ ('a'..='z' | '0'..='9') => letter,
        _ => '_',
    };
    let name: String = component.chars().map(letter).collect();
    format!("lifeboat_{name}").chars().take(SLOT_BYTES).collect()
}
