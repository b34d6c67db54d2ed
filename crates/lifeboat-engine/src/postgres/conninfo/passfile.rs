//! `.pgpass`: `host:port:database:user:password`, each a value or `*`, with a backslash before a colon or backslash that is meant.
//!
//! As libpq does, a file that others can read is not used; unlike libpq, whoever fails for lack of a password is told so.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{Endpoint, Host, defaults};

/// The answer to the question for a password.
#[derive(Clone)]
pub enum Password {
    /// This one.
    Known(Zeroizing<String>),
    /// None is given anywhere.
    None,
    /// There is a password file that was not used: why.
    Unusable(PathBuf, String),
}

impl std::fmt::Debug for Password {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Known(_) => f.write_str("Known"),
            Self::None => f.write_str("None"),
            Self::Unusable(place, why) => f.debug_tuple("Unusable").field(place).field(why).finish(),
        }
    }
}

/// Looks for the first line that fits.
pub(super) fn look_up(place: Option<&Path>, host: &Host, database: &str, user: &str) -> Password {
    let Some(place) = place else {
        return Password::None;
    };
    let unusable = |why: String| Password::Unusable(place.to_owned(), why);
    let metadata = match std::fs::metadata(place) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Password::None,
        Err(error) => return unusable(error.to_string()),
    };
    if !metadata.is_file() {
        return unusable("it is not a file".to_owned());
    }
    let mode = metadata.permissions().mode();
    if mode & 0o077 != 0 {
        return unusable(format!(
            "others can read it (mode {:04o}): run `chmod 0600` on it",
            mode & 0o7777
        ));
    }
    let text = match std::fs::read_to_string(place) {
        Ok(text) => Zeroizing::new(text),
        Err(error) => return unusable(error.to_string()),
    };
    let name = match &host.endpoint {
        Endpoint::Tcp { name, .. } => name.clone(),
        // Sockets in the usual places are called localhost there.
        Endpoint::Socket(folder) if defaults::SOCKET_FOLDERS.iter().any(|usual| folder == Path::new(usual)) => {
            "localhost".to_owned()
        }
        Endpoint::Socket(folder) => folder.display().to_string(),
    };
    let wanted = [name.as_str(), &host.port.to_string(), database, user];
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let fields = fields(line);
        let fits = wanted
            .iter()
            .zip(&fields)
            .all(|(wanted, (given, is_any))| *is_any || given.as_str() == *wanted);
        if fits && let [_, _, _, _, (password, _)] = &fields[..] {
            return Password::Known(password.clone());
        }
    }
    Password::None
}

/// The five fields of a line, each with whether it is a bare star.
fn fields(line: &str) -> Vec<(Zeroizing<String>, bool)> {
    let mut all = Vec::with_capacity(5);
    let mut field = Zeroizing::new(String::new());
    let mut escaped = false;
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => {
                escaped = true;
                field.extend(rest.next());
            }
            // The password is the last: what stands behind a further colon is not libpq's either.
            ':' => {
                let any = !escaped && field.as_str() == "*";
                all.push((std::mem::take(&mut field), any));
                escaped = false;
            }
            c => field.push(c),
        }
        if all.len() == 5 {
            return all;
        }
    }
    all.push((field, false));
    all
}
