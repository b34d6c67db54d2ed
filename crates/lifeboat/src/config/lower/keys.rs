//! Keys of the kind `age`: their public keys, as text or in files, and where the secret half is.
//!
//! The one thing that `lower` reads besides the configuration are files of public keys: they are part of what is written there.

use std::path::Path;

use lifeboat_repo::Recipient;

use super::Lowering;
use crate::config::file::{AgeFile, At, RecipientFile};
use crate::config::problem::Problem;
use crate::config::recipient;
use crate::config::settings::KeySettings;

/// A file of public keys is at most this long.
const RECIPIENTS_LIMIT_BYTES: u64 = 1 << 20;

impl Lowering<'_> {
    pub(super) fn age_key(&mut self, name: &At<String>, age: &AgeFile) -> KeySettings {
        if age.recipients.value.is_empty() {
            self.problems.push(
                Problem::at(age.recipients.place, format!("the key `{}` has no recipient", name.value))
                    .label("empty")
                    .help("write at least one public key (`age1…`)"),
            );
        }
        let mut recipients = Vec::new();
        for written in &age.recipients.value {
            match &written.value {
                RecipientFile::Text(text) => self.recipient(name, written, text, &mut recipients),
                RecipientFile::File { file } => {
                    let path = self.path(&At {
                        value: file.clone(),
                        place: written.place,
                    });
                    match read(&path) {
                        Ok(text) => {
                            let lines = text.lines().map(str::trim);
                            for line in lines.filter(|line| !line.is_empty() && !line.starts_with('#')) {
                                self.recipient(name, written, line, &mut recipients);
                            }
                        }
                        Err(reason) => self.problems.push(
                            Problem::at(written.place, format!("the public key in {} cannot be read", path.display()))
                                .label(reason)
                                .help("name a file with public keys, such as id_ed25519.pub, or write the key itself"),
                        ),
                    }
                }
            }
        }
        let what = format!("the identity of the key {}", name.value);
        let identity = age
            .identity
            .as_ref()
            .and_then(|secret| self.secret(secret, &what, "identity"));
        let what = format!("the passphrase of the key {}", name.value);
        let passphrase = age
            .passphrase
            .as_ref()
            .and_then(|secret| self.secret(secret, &what, "passphrase"));
        KeySettings {
            name: name.value.clone(),
            recipients,
            identity,
            passphrase,
            derived: None,
        }
    }

    fn recipient(&mut self, name: &At<String>, written: &At<RecipientFile>, text: &str, recipients: &mut Vec<String>) {
        // For ssh keys the type stands first, and has a dash in it.
        let kind = text.split_whitespace().next().unwrap_or_default();
        let is_ssh = kind.contains('-') && !kind.to_ascii_uppercase().starts_with("AGE-");
        let checked = if is_ssh {
            Recipient::parse(text).map(|_| ()).map_err(|error| error.detail().to_owned())
        } else {
            recipient::check(text).map_err(str::to_owned)
        };
        if let Err(reason) = checked {
            self.problems.push(
                Problem::at(written.place, format!("a recipient of the key `{}` cannot be used", name.value))
                    .label(reason)
                    .help("a recipient is an age public key (`age1` and 58 more letters and digits), or an ssh-ed25519 or ssh-rsa public key"),
            );
        }
        recipients.push(text.to_owned());
    }
}

fn read(path: &Path) -> Result<String, String> {
    let meta = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if meta.len() > RECIPIENTS_LIMIT_BYTES {
        return Err("it is far too long for public keys".into());
    }
    std::fs::read_to_string(path).map_err(|error| error.to_string())
}
