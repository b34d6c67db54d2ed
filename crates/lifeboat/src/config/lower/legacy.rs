//! Extracts of a database, and passphrases of old files.

use std::collections::BTreeMap;

use lifeboat_engine::artefact::OpensslKdf;
use lifeboat_engine::sqlite::Extract;

use super::Lowering;
use crate::config::file::{ConfigFile, KeyFile, Named, OpensslFile, SqliteFile};
use crate::config::problem::Problem;
use crate::config::settings::OpensslKeySettings;

/// Rounds of PBKDF2 unless the file says otherwise: those of `openssl enc -pbkdf2`.
const DEFAULT_ITERATIONS: u32 = 10_000;

/// The names of the keys that backups can be encrypted with.
pub(super) fn encrypting(keys: Option<&Named<KeyFile>>) -> Vec<&str> {
    let mut names: Vec<&str> = Vec::new();
    for (name, key) in keys.into_iter().flatten() {
        if !matches!(key, KeyFile::Openssl(_)) {
            names.push(name.value.as_str());
        }
    }
    names.sort_unstable();
    names
}

impl Lowering<'_> {
    pub(super) fn openssl_keys(&mut self, file: &ConfigFile) -> BTreeMap<String, OpensslKeySettings> {
        let mut keys = BTreeMap::new();
        for (name, key) in file.keys.iter().flatten() {
            if let KeyFile::Openssl(openssl) = key
                && let Some(settings) = self.openssl_key(&name.value, openssl)
            {
                keys.insert(name.value.clone(), settings);
            }
        }
        keys
    }

    fn openssl_key(&mut self, name: &str, openssl: &OpensslFile) -> Option<OpensslKeySettings> {
        if let Some(cipher) = &openssl.cipher
            && !cipher.value.eq_ignore_ascii_case("aes-256-cbc")
        {
            self.problems.push(
                Problem::at(
                    cipher.place,
                    format!("old files with the cipher `{}` cannot be read", cipher.value),
                )
                .label("not aes-256-cbc")
                .help("decrypt such files with the openssl program that made them"),
            );
        }
        let kdf = openssl.kdf.as_ref().and_then(|kdf| match kdf.value.as_str() {
            "auto" => None,
            word => OpensslKdf::ALL.into_iter().find(|kdf| kdf.word() == word).or_else(|| {
                self.problems.push(
                    Problem::at(kdf.place, format!("unknown key derivation `{word}`"))
                        .label("not known here")
                        .help("known: auto, pbkdf2, sha256, md5"),
                );
                None
            }),
        });
        let what = format!("the passphrase of the key {name}");
        let passphrase = self.secret(&openssl.passphrase, &what, "passphrase");
        Some(OpensslKeySettings {
            kdf,
            iterations: openssl.iterations.as_ref().map_or(DEFAULT_ITERATIONS, |rounds| rounds.value),
            passphrase: passphrase?,
        })
    }

    pub(super) fn extracts(&mut self, sqlite: &SqliteFile) -> Vec<Extract> {
        let mut extracts: Vec<Extract> = Vec::new();
        for extract in sqlite.extract.iter().flatten() {
            let (file, place) = (extract.file.value.as_str(), extract.file.place);
            if !is_file_name(file) {
                self.problems.push(
                    Problem::at(place, format!("`{file}` is not a file name"))
                        .help("write a plain name, for example api_keys_metadata.csv"),
                );
            } else if extracts.iter().any(|other| other.file == file) {
                self.problems
                    .push(Problem::at(place, format!("`{file}` is the file of two extracts")).label("the second one"));
            }
            if extract.query.value.trim().is_empty() {
                self.problems
                    .push(Problem::at(extract.query.place, "the query is empty").help("write one SELECT"));
            }
            if extract.columns.value.is_empty() {
                self.problems.push(
                    Problem::at(extract.columns.place, format!("the extract `{file}` may read no column"))
                        .help("list the columns that the query reads: nothing else can get into the file"),
                );
            }
            extracts.push(Extract {
                file: file.to_owned(),
                query: extract.query.value.clone(),
                columns: extract.columns.value.iter().map(|column| column.value.clone()).collect(),
            });
        }
        extracts
    }
}

/// A name without folders that every file system takes.
fn is_file_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= 200 && !name.starts_with(['.', '-']) && !name.contains(['/', '\\', '\0', '\n', '\r'])
}
