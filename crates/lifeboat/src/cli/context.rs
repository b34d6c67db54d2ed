//! From the configuration to what the verbs need: components with their store, trust and keys.
//!
//! Opens stores and reads keys when they are asked for, not before: `list` must work where no private key is.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use lifeboat_io::compute;
use lifeboat_model::{Clock, Error, ErrorKind, Result};
use lifeboat_ops::Protected;
use lifeboat_ops::protected::Place;
use lifeboat_repo::{ComponentName, Encryption, Identities, PublicKey, Trust, identity_from_passphrase, needs_passphrase};
use lifeboat_store::BlobStore;
use lifeboat_store::away::AwayStore;
use zeroize::Zeroizing;

use super::ask::{ask_passphrase, can_ask};
use super::open::OpenStore;
use super::{Cx, scratch, zero};
use crate::config::{ComponentSettings, Encrypt, KeySettings, SecretRef, Settings, StoreSettings};

/// The configuration in force.
#[derive(Debug)]
pub(crate) struct Context {
    /// What it says.
    pub(crate) settings: Settings,
    /// Whether a passphrase can be asked for.
    can_ask: bool,
    /// Private keys that were opened, by the name of their key: a passphrase is asked for once.
    opened: Mutex<BTreeMap<String, Identities>>,
    /// The clock by which bandwidth is limited.
    clock: Arc<dyn Clock>,
}

impl Context {
    /// Finds and reads the configuration; its warnings are told.
    pub(crate) fn load(cx: &Cx) -> Result<Self> {
        Self::told(cx, zero::settings(cx)?)
    }

    /// The same for a backup, which may be the first one: what a configuration in the environment needs is made.
    pub(crate) async fn load_to_write(cx: &Cx) -> Result<Self> {
        zero::set_up(cx).await?;
        Self::load(cx)
    }

    /// The moment, microseconds since 1970.
    pub(super) fn now_us(&self) -> i64 {
        self.clock.wall_us()
    }

    /// The same of settings that were told already.
    pub(super) fn quiet(cx: &Cx, settings: Settings) -> Self {
        Self {
            settings,
            can_ask: false,
            opened: Mutex::default(),
            clock: Arc::clone(&cx.env.clock),
        }
    }

    fn told(cx: &Cx, settings: Settings) -> Result<Self> {
        cx.out.detail(|| {
            let names: Vec<&str> = settings.components.iter().map(|component| component.name.as_str()).collect();
            format!(
                "configuration {}; state {}; in the order of recovery: {}",
                settings.path.display(),
                settings.state_dir.display(),
                names.join(", ")
            )
        });
        // Whatever is run next after a crash clears up. A state folder that cannot be written to must not stop anybody.
        if let Err(error) = scratch::sweep_killed(&settings.state_dir) {
            cx.out
                .note(&format!("note: what killed runs may have left could not be removed: {error}"));
        }
        for warning in &settings.warnings {
            cx.out.note(&format!("note: {warning}"));
        }
        Ok(Self {
            can_ask: can_ask(cx),
            ..Self::quiet(cx, settings)
        })
    }

    /// The components that `what` means, in the order of recovery, each once; all of them when it names nothing.
    pub(crate) fn select(&self, what: &[String]) -> Result<Vec<&ComponentSettings>> {
        for word in what {
            if !self.settings.components.iter().any(|component| means(word, component)) {
                return Err(self.unknown(word));
            }
        }
        Ok(self
            .settings
            .components
            .iter()
            .filter(|component| what.is_empty() || what.iter().any(|word| means(word, component)))
            .collect())
    }

    fn unknown(&self, word: &str) -> Error {
        let mut names: Vec<&str> = Vec::new();
        for component in &self.settings.components {
            for name in [system_of(component), component.name.as_str()] {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
        let file = self.settings.path.display();
        let error = Error::new(
            ErrorKind::Usage,
            "find",
            format!("{word:?}"),
            format!("{file} knows no system or component of that name"),
        );
        let nearest = names
            .iter()
            .map(|name| (strsim::jaro_winkler(word, name), *name))
            .max_by(|a, b| a.0.total_cmp(&b.0));
        match nearest {
            Some((score, name)) if score > 0.7 => {
                error.with_hint(format!("did you mean `{name}`? There are: {}", names.join(", ")))
            }
            _ => error.with_hint(format!("there are: {}", names.join(", "))),
        }
    }

    /// The store's settings; `name` is checked, as it may come from the command line.
    pub(crate) fn store(&self, name: &str) -> Result<&StoreSettings> {
        self.settings.stores.get(name).ok_or_else(|| {
            let names: Vec<&str> = self.settings.stores.keys().map(String::as_str).collect();
            Error::new(
                ErrorKind::Usage,
                "use the store",
                format!("{name:?}"),
                "the configuration has no store of that name",
            )
            .with_hint(format!("there are: {}", names.join(", ")))
        })
    }

    /// A store of a component, by its name in the configuration, or one that it does not know: a folder, or `s3://BUCKET/PREFIX`. One that
    /// cannot be opened is there all the same, and says why whenever it is asked; what is neither is an error.
    pub(crate) async fn place(&self, component: &ComponentSettings, name: &str) -> Result<Place> {
        let settings = match self.store(name) {
            Ok(settings) => settings.clone(),
            Err(unknown) => StoreSettings::unnamed(name)?.ok_or(unknown)?,
        };
        Ok(self.open(component, name, &settings).await)
    }

    /// Everything that the upkeep of a component needs in the stores that `stores` names, which are reached with the credentials that may
    /// delete, where they have some.
    pub(crate) async fn upkeep(&self, component: &ComponentSettings, stores: &[String]) -> Result<Protected> {
        let mut places = Vec::new();
        for name in stores {
            let settings = self.store(name)?.for_upkeep();
            places.push(self.open(component, name, &settings).await);
        }
        self.protected_in(component, places).await
    }

    async fn open(&self, component: &ComponentSettings, name: &str, settings: &StoreSettings) -> Place {
        let (store, path) = match OpenStore::open(settings, &self.clock).await {
            Ok(opened) => (Arc::clone(&opened.store), opened.path()),
            Err(reason) => (Arc::new(AwayStore::new(name, reason)) as Arc<dyn BlobStore>, None),
        };
        Place {
            name: name.to_owned(),
            store,
            path,
            required: component.required.iter().any(|required| required == name),
        }
    }

    /// Everything that the verbs need of a component, with the stores that `stores` names instead of its own where it names any.
    pub(crate) async fn protected(&self, component: &ComponentSettings, stores: &[String]) -> Result<Protected> {
        let names = if stores.is_empty() { &component.stores } else { stores };
        let mut places = Vec::new();
        for name in names {
            places.push(self.place(component, name).await?);
        }
        self.protected_in(component, places).await
    }

    /// A component as far as its ledger is concerned, for which no key is opened: it seals nothing.
    pub(crate) async fn for_ledger(&self, component: &ComponentSettings) -> Result<Protected> {
        let mut places = Vec::new();
        for name in &component.stores {
            places.push(self.place(component, name).await?);
        }
        Ok(Protected {
            component: ComponentName::new(&component.name)?,
            source: component.source.clone(),
            stores: places,
            encryption: Encryption::Age(Vec::new()),
            trust: self.trust()?,
            state_dir: self.settings.state_dir.clone(),
            rpo: component.rpo,
            rto: component.rto,
        })
    }

    async fn protected_in(&self, component: &ComponentSettings, places: Vec<Place>) -> Result<Protected> {
        Ok(Protected {
            component: ComponentName::new(&component.name)?,
            source: component.source.clone(),
            stores: places,
            encryption: self.encryption(component).await?,
            trust: self.trust()?,
            state_dir: self.settings.state_dir.clone(),
            rpo: component.rpo,
            rto: component.rto,
        })
    }

    pub(super) async fn encryption(&self, component: &ComponentSettings) -> Result<Encryption> {
        let Some(key) = self.key_of(component)? else {
            return Ok(Encryption::Clear);
        };
        if key.derived.is_none() {
            return Ok(Encryption::Age(key.recipients.clone()));
        }
        // Without the passphrase, lists and everything else that opens nothing still works; a backup says what is missing.
        match self.open_key(key, false).await {
            Ok(identities) => Ok(Encryption::Age(identities.public_keys())),
            Err(error) if error.kind() == ErrorKind::ConfigInvalid => Ok(Encryption::Age(Vec::new())),
            Err(error) => Err(error),
        }
    }

    /// The instances whose files are trusted.
    pub(crate) fn trust(&self) -> Result<Trust> {
        let mut trust = Trust::new();
        for (name, (key, rights)) in &self.settings.instances {
            trust.add_with(name, key.parse::<PublicKey>()?, *rights);
        }
        Ok(trust)
    }

    fn key(&self, name: &str) -> Result<&KeySettings> {
        self.settings.keys.get(name).ok_or_else(|| {
            Error::new(
                ErrorKind::ConfigInvalid,
                "use the key",
                format!("{name:?}"),
                "the configuration has no key of that name",
            )
        })
    }

    /// The key of a component, where it has one.
    pub(crate) fn key_of(&self, component: &ComponentSettings) -> Result<Option<&KeySettings>> {
        match &component.encrypt {
            Encrypt::None => Ok(None),
            Encrypt::Key(name) => self.key(name).map(Some),
        }
    }

    /// The private keys that may open a component's backups: its own, which must be readable, and those of other keys as far as they
    /// are at hand, because older backups may have been made for them.
    pub(crate) async fn identities(&self, component: &ComponentSettings) -> Result<Identities> {
        let own = self.key_of(component)?.map(|key| key.name.as_str());
        let mut identities = Identities::none();
        for key in self.settings.keys.values().filter(|key| key.has_identity()) {
            let is_own = own == Some(key.name.as_str());
            match self.open_key(key, is_own).await {
                Ok(opened) => identities.extend(opened),
                Err(error) if is_own => return Err(key_unreadable(error)),
                Err(_) => {}
            }
        }
        Ok(identities)
    }

    /// The private half of a key, read once. `ask`: a passphrase that is not written anywhere may be asked for.
    pub(crate) async fn open_key(&self, key: &KeySettings, ask: bool) -> Result<Identities> {
        if let Some(known) = self.opened.lock().unwrap_or_else(PoisonError::into_inner).get(&key.name) {
            return Ok(known.clone());
        }
        let identities = match (&key.derived, &key.identity) {
            (Some(passphrase), _) => {
                let passphrase = passphrase.read().await?;
                compute::run("derive a key", move || {
                    identity_from_passphrase(&passphrase).and_then(|(secret, _)| Identities::parse(&secret))
                })
                .await?
            }
            (None, Some(identity)) => {
                let stored = identity.read_bytes().await?;
                let passphrase = if needs_passphrase(&stored) {
                    Some(self.passphrase(key, ask).await?)
                } else {
                    None
                };
                compute::run("open the private key", move || match passphrase {
                    Some(passphrase) => Identities::read(&stored, &mut || Ok(passphrase.clone())),
                    None => Identities::read(&stored, &mut || Err(no_passphrase())),
                })
                .await?
            }
            (None, None) => return Ok(Identities::none()),
        };
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.insert(key.name.clone(), identities.clone());
        Ok(identities)
    }

    async fn passphrase(&self, key: &KeySettings, ask: bool) -> Result<Zeroizing<String>> {
        if let Some(reference) = &key.passphrase {
            return reference.read().await;
        }
        if !(ask && self.can_ask) {
            return Err(no_passphrase());
        }
        let question = format!("Passphrase of the key {}:", key.name);
        compute::run("ask for the passphrase", move || ask_passphrase(&question, false)).await
    }
}

fn no_passphrase() -> Error {
    Error::new(
        ErrorKind::WrongKey,
        "read the identity",
        "the identity file",
        "it is protected by a passphrase, and none was given",
    )
    .with_hint("run this on a terminal to be asked for it, or say where it is under `passphrase:` of the key")
}

/// A private key that is not where it should be is a key that does not open the data.
fn key_unreadable(error: Error) -> Error {
    if error.kind() == ErrorKind::NotFound {
        error
            .with_kind(ErrorKind::WrongKey)
            .with_hint("bring the private key back to that place, from the copy that is kept off this machine; `lifeboat key check` then proves that it fits")
    } else {
        error
    }
}

/// The file of a secret, where it is one.
#[must_use]
pub(crate) fn secret_file(reference: &SecretRef) -> Option<PathBuf> {
    match reference {
        SecretRef::File(path) => Some(path.clone()),
        SecretRef::Env(_) | SecretRef::Command(_) | SecretRef::Inline(_) => None,
    }
}

/// The system that a component belongs to.
#[must_use]
pub(crate) fn system_of(component: &ComponentSettings) -> &str {
    component
        .name
        .split_once('/')
        .map_or(component.name.as_str(), |(system, _)| system)
}

fn means(word: &str, component: &ComponentSettings) -> bool {
    word == component.name || word == system_of(component)
}
