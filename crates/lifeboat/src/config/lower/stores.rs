//! Stores: folders, buckets, containers, their credentials and limits.

use std::collections::BTreeMap;

use lifeboat_model::time::parse_size;
use lifeboat_store::Key;

use super::Lowering;
use super::values::real;
use crate::config::file::{At, AzureFile, ConfigFile, FsFile, GcsFile, LimitFile, S3File, SecretFile, StoreFile};
use crate::config::problem::Problem;
use crate::config::settings::SecretRef;
use crate::config::store::{AzurePlace, FsPlace, GcsPlace, Limits, S3Keys, S3Place, StorePlace, StoreSettings};

/// Classes whose files must be thawed for hours before anybody can read them.
const FROZEN: [&str; 3] = ["GLACIER", "DEEP_ARCHIVE", "ARCHIVE"];

/// Bytes a second, at least.
const LEAST_RATE: u64 = 1024;

impl Lowering<'_> {
    pub(super) fn stores(&mut self, file: &ConfigFile) -> BTreeMap<String, StoreSettings> {
        let mut stores = BTreeMap::new();
        let mut seen: Vec<(String, String)> = Vec::new();
        for (name, store) in file.stores.iter().flatten() {
            self.name(name, "a store");
            let (place, limit, off_site) = match store {
                StoreFile::Fs(fs) => (StorePlace::Fs(self.fs(fs)), &fs.limit, &fs.off_site),
                StoreFile::S3(s3) => (StorePlace::S3(Box::new(self.s3(s3, &name.value))), &s3.limit, &s3.off_site),
                StoreFile::Gcs(gcs) => (StorePlace::Gcs(self.gcs(gcs, &name.value)), &gcs.limit, &gcs.off_site),
                StoreFile::Azure(azure) => (
                    StorePlace::Azure(self.azure(azure, &name.value)),
                    &azure.limit,
                    &azure.off_site,
                ),
            };
            // A folder is on this machine unless somebody says otherwise, a bucket elsewhere.
            let usual = !matches!(place, StorePlace::Fs(_));
            let settings = StoreSettings {
                name: name.value.clone(),
                place,
                limit: limit.as_ref().map(|limit| self.limits(limit)).unwrap_or_default(),
                off_site: off_site.as_ref().map_or(usual, |off_site| off_site.value),
            };
            self.a_place_of_its_own(store, &settings, &mut seen);
            stores.insert(name.value.clone(), settings);
        }
        stores
    }

    /// Two stores at one place would be one copy that is counted twice.
    fn a_place_of_its_own(&mut self, file: &StoreFile, settings: &StoreSettings, seen: &mut Vec<(String, String)>) {
        let (at, what, identity) = match (&settings.place, file) {
            (StorePlace::Fs(fs), StoreFile::Fs(file)) => (&file.path, "folder", real(&fs.path).display().to_string()),
            (StorePlace::S3(s3), StoreFile::S3(file)) => {
                let endpoint = s3.endpoint.as_deref().unwrap_or_default();
                (
                    &file.bucket,
                    "bucket and prefix",
                    format!("{} {endpoint}", settings.address()),
                )
            }
            (StorePlace::Gcs(_), StoreFile::Gcs(file)) => (&file.bucket, "bucket and prefix", settings.address()),
            (_, StoreFile::Azure(file)) => (&file.container, "container and prefix", settings.address()),
            _ => return,
        };
        if let Some((_, other)) = seen.iter().find(|(place, _)| *place == identity) {
            self.problems.push(
                Problem::at(
                    at.place,
                    format!("the stores `{other}` and `{}` are the same {what}", settings.name),
                )
                .label(format!("also the {what} of `{other}`"))
                .help(format!("give each store a {what} of its own, or remove one of them")),
            );
        }
        seen.push((identity, settings.name.clone()));
    }

    fn fs(&mut self, fs: &FsFile) -> FsPlace {
        FsPlace {
            path: self.path(&fs.path),
            min_free: fs.min_free.as_ref().and_then(|text| self.min_free(text)),
        }
    }

    fn s3(&mut self, s3: &S3File, store: &str) -> S3Place {
        let access_key = self.credential(s3.access_key.as_ref(), "access_key", store);
        let secret_key = self.credential(s3.secret_key.as_ref(), "secret_key", store);
        let session_token = self.credential(s3.session_token.as_ref(), "session_token", store);
        let keys = match (access_key, secret_key) {
            (Some(access_key), Some(secret_key)) => Some(S3Keys {
                access_key,
                secret_key,
                session_token,
            }),
            (None, None) => {
                if let Some(token) = &s3.session_token {
                    self.incomplete(token, "`session_token` needs `access_key` and `secret_key`");
                }
                None
            }
            _ => {
                for given in [&s3.access_key, &s3.secret_key].into_iter().flatten() {
                    self.incomplete(given, "`access_key` and `secret_key` belong together");
                }
                None
            }
        };
        if let (Some(_), Some(profile)) = (&keys, &s3.profile) {
            self.problems.push(
                Problem::at(profile.place, format!("the store `{store}` has both keys and a profile"))
                    .help("write `access_key` and `secret_key`, or `profile`"),
            );
        }
        let endpoint = self.endpoint(s3.endpoint.as_ref());
        S3Place {
            bucket: self.word(&s3.bucket, "a bucket"),
            prefix: self.prefix(s3.prefix.as_ref()),
            region: s3.region.as_ref().map(|region| self.word(region, "a region")),
            path_style: s3
                .path_style
                .as_ref()
                .map_or(endpoint.is_some(), |path_style| path_style.value),
            endpoint,
            storage_class: self.storage_class(s3.storage_class.as_ref()),
            profile: s3.profile.as_ref().map(|profile| profile.value.clone()),
            keys,
            care: self.care(s3, store),
        }
    }

    fn gcs(&mut self, gcs: &GcsFile, store: &str) -> GcsPlace {
        GcsPlace {
            bucket: self.word(&gcs.bucket, "a bucket"),
            prefix: self.prefix(gcs.prefix.as_ref()),
            endpoint: self.endpoint(gcs.endpoint.as_ref()),
            storage_class: gcs.storage_class.as_ref().map(|class| self.word(class, "a storage class")),
            credentials: self.credential(gcs.credentials.as_ref(), "credentials", store),
        }
    }

    fn azure(&mut self, azure: &AzureFile, store: &str) -> AzurePlace {
        if let (Some(_), Some(token)) = (&azure.account_key, &azure.sas_token) {
            self.incomplete(token, "write `account_key` or `sas_token`, not both");
        }
        AzurePlace {
            account: self.word(&azure.account, "a storage account"),
            container: self.word(&azure.container, "a container"),
            prefix: self.prefix(azure.prefix.as_ref()),
            endpoint: self.endpoint(azure.endpoint.as_ref()),
            storage_class: self.storage_class(azure.storage_class.as_ref()),
            account_key: self.credential(azure.account_key.as_ref(), "account_key", store),
            sas_token: self.credential(azure.sas_token.as_ref(), "sas_token", store),
        }
    }

    pub(super) fn credential(&mut self, secret: Option<&At<SecretFile>>, field: &str, store: &str) -> Option<SecretRef> {
        secret.and_then(|secret| self.secret(secret, &format!("`{field}` of the store {store}"), field))
    }

    fn incomplete(&mut self, at: &At<SecretFile>, what: &str) {
        self.problems.push(Problem::at(at.place, what));
    }

    /// A name that goes into an address: no spaces, no slashes, not empty.
    fn word(&mut self, text: &At<String>, what: &str) -> String {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        if text.value.is_empty() || !text.value.bytes().all(plain) {
            let problem = Problem::at(text.place, format!("`{}` is not the name of {what}", text.value));
            self.problems.push(if text.value.contains('/') {
                problem.help("write the name alone; a folder in it is its `prefix`, another service is its `endpoint`")
            } else {
                problem.help("it has letters, digits, `-`, `_` and `.`")
            });
        }
        text.value.clone()
    }

    fn prefix(&mut self, text: Option<&At<String>>) -> Option<Key> {
        let text = text?;
        let folder = text.value.trim_matches('/');
        if folder.is_empty() {
            return None;
        }
        let key = Key::new(folder).ok();
        if key.is_none() {
            self.problems.push(
                Problem::at(text.place, format!("`{}` cannot be a prefix", text.value))
                    .help("folders of letters, digits, `-`, `_`, `.` and `~`, joined by `/`; none begins with a dot"),
            );
        }
        key
    }

    fn endpoint(&mut self, text: Option<&At<String>>) -> Option<String> {
        let text = text?;
        let address = text.value.trim_end_matches('/');
        let host = address
            .strip_prefix("https://")
            .or_else(|| address.strip_prefix("http://"))
            .filter(|host| !host.is_empty());
        let Some(host) = host else {
            self.problems.push(
                Problem::at(text.place, format!("`{}` is not the address of a service", text.value))
                    .label("begins with neither `https://` nor `http://`")
                    .help("for example `endpoint: https://minio.internal:9000`"),
            );
            return None;
        };
        // A password would end up in messages.
        if host.contains(['@', '?', '#', ' ']) {
            self.problems.push(
                Problem::at(text.place, "the address of a service holds more than host, port and path")
                    .help("credentials have keys of their own beside `endpoint`"),
            );
        }
        Some(address.to_owned())
    }

    fn storage_class(&mut self, text: Option<&At<String>>) -> Option<String> {
        let text = text?;
        let class = self.word(text, "a storage class");
        if FROZEN.contains(&class.to_uppercase().as_str()) {
            self.problems.push(
                Problem::at(
                    text.place,
                    format!("packs of the class `{class}` could not be read when they are needed"),
                )
                .label("must be thawed for hours before each restore")
                .help("write a class that can be read at once, such as `STANDARD_IA` or `GLACIER_IR`"),
            );
        }
        Some(class)
    }

    fn limits(&mut self, limit: &LimitFile) -> Limits {
        Limits {
            upload: limit
                .upload
                .as_ref()
                .and_then(|text| self.bandwidth(text, "upload", LEAST_RATE)),
            download: limit
                .download
                .as_ref()
                .and_then(|text| self.bandwidth(text, "download", LEAST_RATE)),
        }
    }

    pub(super) fn bandwidth(&mut self, text: &At<String>, what: &str, least: u64) -> Option<u64> {
        let number = text.value.trim().trim_end_matches("/s");
        let reason = match parse_size(number) {
            Ok(bytes) if bytes >= least => return Some(bytes),
            Ok(_) => format!("less than {}KiB each second: nothing would ever finish", least >> 10),
            Err(error) => error.detail().to_owned(),
        };
        self.problems.push(
            Problem::at(text.place, format!("the limit `{what}` is not a number of bytes per second"))
                .label(reason)
                .help(format!("for example `{what}: 20MiB`")),
        );
        None
    }
}
