//! Who can open what: recipients added and removed, key files that somebody forged, and what stock `age` and `ssh-keygen` say to it.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use lifeboat_model::{ErrorKind, Result};
use lifeboat_repo::{
    Access, Backup, Encryption, Identities, Reader, Recipient, Rekey, Rekeyed, Repository, access, forget_parent,
    generate_identity, identity_from_passphrase, needs_passphrase, protect_identity, rekey,
};
use lifeboat_store::memory::MemoryStore;
use lifeboat_store::{BlobStore, Key};
use lifeboat_testkit::faulty::{Fault, FaultyStore, Plan, is_crash};
use lifeboat_testkit::pages::{change_pages, table_pages};
use zeroize::Zeroizing;

use crate::world::{Content, Files, World, pages, seed, share, write};

struct Pair {
    identities: Identities,
    secret: String,
    public: String,
}

fn pair() -> Pair {
    let (secret, public) = generate_identity();
    Pair {
        identities: Identities::parse(&secret).unwrap(),
        secret,
        public,
    }
}

fn source(generation: u64) -> Files {
    let mut bytes = table_pages(1, 4096, 70);
    for round in 0..generation {
        change_pages(&mut bytes, 4096, round, 3);
    }
    let mut files = pages("db", bytes, 4096);
    files.insert("log".into(), Content::Stream(generation.to_le_bytes().repeat(300)));
    files
}

async fn two_backups() -> World {
    let mut world = World::new(seed()).await;
    world.env.threads = 1;
    for generation in 0..2 {
        world.backup(&source(generation)).await;
    }
    world
}

async fn opens(world: &World, backup: &Backup, identities: &Identities) -> Result<()> {
    Reader::open(&world.env, &world.repository, backup, identities)
        .await
        .map(|_reader| ())
}

async fn wrap(world: &World, recipients: &[&str], how: Rekey) -> Rekeyed {
    through(world, &world.repository, recipients, how).await.unwrap()
}

async fn through(world: &World, repository: &Repository, recipients: &[&str], how: Rekey) -> Result<Rekeyed> {
    let encryption = Encryption::Age(recipients.iter().map(|text| (*text).to_owned()).collect());
    let listing = repository.backups(&world.component, &world.trust).await?;
    rekey(
        &world.env,
        repository,
        &world.component,
        &listing,
        &encryption,
        &world.identities(),
        how,
    )
    .await
}

async fn stock_age(world: &World, key: &Key, identity: &Path) -> bool {
    let sealed = world.folder.path().join("key-file.age");
    std::fs::write(&sealed, world.bytes_of(key).await).unwrap();
    let output = Command::new("age")
        .arg("-d")
        .arg("-i")
        .arg(identity)
        .arg(&sealed)
        .output()
        .unwrap();
    output.status.success() && String::from_utf8_lossy(&output.stdout).contains("\"data_key\"")
}

fn file(world: &World, name: &str, text: &str) -> std::path::PathBuf {
    let path = world.folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    path
}

fn said(listing: &lifeboat_repo::Listing, backup: &Backup) -> Access {
    access(listing, backup)
}

#[tokio::test]
async fn an_added_recipient_opens_what_is_there_and_the_next_backup_builds_on_it() {
    let world = two_backups().await;
    let new = pair();
    let before = world.stored("keys").await;
    let done = wrap(&world, &[&world.recipient, &new.public], Rekey::Add).await;
    assert_eq!((done.sessions, done.wrapped, done.removed, done.failed.len()), (2, 2, 0, 0));
    let listing = world.listing().await;
    let wanted: BTreeSet<_> = [&world.recipient, &new.public]
        .map(|text| Recipient::parse(text).unwrap().fingerprint())
        .into();
    for backup in &listing.backups {
        opens(&world, backup, &new.identities).await.unwrap();
        opens(&world, backup, &world.identities()).await.unwrap();
        assert_eq!(said(&listing, backup).readers.as_ref(), Some(&wanted));
    }
    // Nothing was taken away, and a second time there is nothing to do.
    assert!(before.iter().all(|key| {
        listing
            .backups
            .iter()
            .any(|backup| backup.files().unwrap().iter().any(|(name, _)| name == key))
    }));
    let again = wrap(&world, &[&world.recipient, &new.public], Rekey::Add).await;
    assert_eq!((again.wrapped, again.removed), (0, 0));
    let mut plan = world.plan();
    plan.encryption = Encryption::Age(vec![world.recipient.clone(), new.public.clone()]);
    let next = write(&world.env, &world.repository, plan, &source(2)).await.unwrap();
    assert!(next.backup.header.parent.is_some(), "{:?}", next.notes);
    opens(&world, &next.backup, &new.identities).await.unwrap();
    // Stock age opens every key file with either identity, and its own stanza is in nobody's way.
    for identity in [&world.identity, &new.secret] {
        let identity = file(&world, "identity.txt", identity);
        assert!(
            stock_age(
                &world,
                &next.backup.key_files[0].name.key(&world.component).unwrap(),
                &identity
            )
            .await
        );
    }
}

/// What it could read, it has read; what is written from now on it cannot.
#[tokio::test]
async fn a_removed_recipient_opens_nothing_written_afterwards() {
    for (wrapped, forgotten) in [(true, false), (false, false), (false, true)] {
        let world = two_backups().await;
        let removed = pair();
        let mut plan = world.plan();
        plan.encryption = Encryption::Age(vec![world.recipient.clone(), removed.public.clone()]);
        wrap(&world, &[&world.recipient, &removed.public], Rekey::Add).await;
        let shared = write(&world.env, &world.repository, plan, &source(2)).await.unwrap();
        opens(&world, &shared.backup, &removed.identities).await.unwrap();
        if wrapped {
            let done = wrap(&world, &[&world.recipient], Rekey::Replace).await;
            assert_eq!((done.wrapped, done.failed.len()), (3, 0));
            for backup in world.listing().await.backups {
                assert_eq!(
                    opens(&world, &backup, &removed.identities).await.unwrap_err().kind(),
                    ErrorKind::WrongKey
                );
                world.restore(&backup).await.unwrap();
            }
            let again = wrap(&world, &[&world.recipient], Rekey::Replace).await;
            assert_eq!((again.wrapped, again.removed), (0, 0));
        }
        if forgotten {
            assert!(forget_parent(&world.state_dir(), world.repository.id(), &world.component).unwrap());
        }
        // Only the configuration says so now; whether or not the old key files were replaced.
        let next = world.backup(&source(3)).await;
        assert!(next.backup.header.parent.is_none(), "{:?}", next.notes);
        assert_ne!(next.backup.header.lineage, shared.backup.header.lineage);
        assert!(
            next.notes.iter().any(|note| note.starts_with("full backup")),
            "{:?}",
            next.notes
        );
        assert_eq!(
            opens(&world, &next.backup, &removed.identities).await.unwrap_err().kind(),
            ErrorKind::WrongKey
        );
        let identity = file(&world, "removed.txt", &removed.secret);
        for key in &next.backup.key_files {
            assert!(!stock_age(&world, &key.name.key(&world.component).unwrap(), &identity).await);
        }
        world.assert_holds(&next.backup, &source(3)).await;
        // And after that it is incremental again.
        let after = world.backup(&source(4)).await;
        assert_eq!(
            after.backup.header.parent,
            Some(next.backup.id.to_string()),
            "{:?}",
            after.notes
        );
        world.assert_holds(&after.backup, &source(4)).await;
    }
}

/// What anybody can encrypt to the recipient: the key file `good` with another key, and things that are no key file.
async fn forgeries(world: &World, good: &Key) -> Vec<Vec<u8>> {
    let content = {
        let identity = file(world, "identity.txt", &world.identity);
        let sealed = world.folder.path().join("sealed");
        std::fs::write(&sealed, world.bytes_of(good).await).unwrap();
        let output = Command::new("age")
            .arg("-d")
            .arg("-i")
            .arg(identity)
            .arg(sealed)
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let digits: Vec<char> = content.chars().collect();
    let key_at = content.find("\"data_key\":\"").unwrap() + 12;
    let mut other_key = digits.clone();
    other_key[key_at] = if other_key[key_at] == '0' { '1' } else { '0' };
    let other_key: String = other_key.into_iter().collect();
    let mut planted = Vec::new();
    for text in [
        other_key.as_str(),
        "{}",
        "not even json",
        &content.replace("\"version\":1", "\"version\":9"),
    ] {
        let plain = file(world, "forged.json", text);
        let output = Command::new("age")
            .arg("-r")
            .arg(&world.recipient)
            .arg(plain)
            .output()
            .unwrap();
        assert!(output.status.success());
        planted.push(output.stdout);
    }
    planted
}

/// Anybody can encrypt to a public key.
#[tokio::test]
async fn a_forged_key_file_is_harmless() {
    let world = two_backups().await;
    let listing = world.listing().await;
    let backup = listing.latest().unwrap();
    let good = backup.key_files[0].name.key(&world.component).unwrap();
    let mut planted = forgeries(&world, &good).await;
    planted.push(b"age-encryption.org/v1\n-> nonsense\n\n--- AAAA\nx".to_vec());
    planted.push(Vec::new());
    let mut names = Vec::new();
    for bytes in planted {
        let name = format!("keys/{}-{}.age", backup.header.session, blake3_hex(&bytes));
        let key = world.component.folder().unwrap().join(&name).unwrap();
        let _put = world.memory.put(&key, bytes.into()).await.unwrap();
        names.push(key);
    }
    // With the good one among them all is as before, for readers and for the next backup.
    world.assert_holds(backup, &source(1)).await;
    let next = world.backup(&source(2)).await;
    assert_eq!(next.backup.header.parent, Some(backup.id.to_string()), "{:?}", next.notes);
    world.assert_holds(&next.backup, &source(2)).await;
    // Whoever cannot open the good one is told so, not that something is damaged.
    assert_eq!(
        opens(&world, backup, &pair().identities).await.unwrap_err().kind(),
        ErrorKind::WrongKey
    );
    // A forged roster makes nobody believe that a recipient is there already, and does not survive a replacement.
    let done = wrap(&world, &[&world.recipient], Rekey::Replace).await;
    assert_eq!(done.failed.len(), 0);
    for key in &names {
        assert_eq!(world.memory.head(key).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
    // Alone, the forged one opens nothing.
    let listing = world.listing().await;
    let backup = listing.find("2").unwrap();
    let forged = world
        .component
        .folder()
        .unwrap()
        .join(&format!("keys/{}-{}.age", backup.header.session, blake3_hex(b"x")));
    let _put = world.memory.put(&forged.unwrap(), "x".into()).await.unwrap();
    for key in &backup.key_files {
        if key.name.session == backup.header.session {
            world.memory.delete(&key.name.key(&world.component).unwrap()).await.unwrap();
        }
    }
    assert_eq!(
        opens(&world, backup, &world.identities()).await.unwrap_err().kind(),
        ErrorKind::Corrupt
    );
}

fn blake3_hex(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_string()
}

#[tokio::test]
async fn a_damaged_key_file_beside_a_good_one_costs_nothing() {
    let world = two_backups().await;
    wrap(&world, &[&world.recipient], Rekey::Add).await;
    let second = pair();
    wrap(&world, &[&world.recipient, &second.public], Rekey::Add).await;
    let backup = world.listing().await.latest().unwrap().clone();
    for file in &backup.key_files {
        let key = file.name.key(&world.component).unwrap();
        let good = world.bytes_of(&key).await;
        let mut bad = good.clone();
        let middle = bad.len() / 2;
        bad[middle] ^= 1;
        world.overwrite(&key, bad).await;
        let listing = world.listing().await;
        world.assert_holds(listing.latest().unwrap(), &source(1)).await;
        let mut plan = world.plan();
        plan.encryption = Encryption::Age(vec![world.recipient.clone(), second.public.clone()]);
        let next = write(&world.env, &world.repository, plan, &source(1)).await.unwrap();
        assert_eq!(next.stats.changed_bytes, 0, "{:?}", next.notes);
        world.overwrite(&key, good).await;
    }
}

/// The machine dies, or the wire lies, at every operation of an add and of a replacement: every backup opens with the old identity
/// throughout, and the next run does the rest.
#[tokio::test]
async fn a_crash_at_every_operation_of_add_and_replace() {
    let new = pair();
    let mut runs = 0;
    for how in [Rekey::Add, Rekey::Replace] {
        let operations = {
            let world = two_backups().await;
            let store = Arc::new(FaultyStore::new(world.memory.clone(), Plan::calm()));
            let repository = Repository::open(Arc::<FaultyStore<MemoryStore>>::clone(&store))
                .await
                .unwrap();
            through(&world, &repository, &[&world.recipient, &new.public], how)
                .await
                .unwrap();
            store.operations()
        };
        let mut plans = Vec::new();
        for number in 1..operations {
            plans.push(Plan::calm().crash_at(number));
            plans.push(Plan::calm().crash_after(number));
            for fault in [
                Fault::ReplyLost,
                Fault::Twice,
                Fault::Late(3),
                Fault::Refused(ErrorKind::Unreachable),
            ] {
                plans.push(Plan::calm().fault(number, fault));
            }
        }
        for plan in share(plans, 6) {
            let what = format!("{how:?} {plan:?}");
            let world = two_backups().await;
            let store = Arc::new(FaultyStore::new(world.memory.clone(), plan));
            let repository = Repository::open(Arc::<FaultyStore<MemoryStore>>::clone(&store))
                .await
                .unwrap();
            let outcome = through(&world, &repository, &[&world.recipient, &new.public], how).await;
            if store.crashed() {
                assert!(outcome.is_err_and(|error| is_crash(&error)), "{what}");
            }
            drop(store.land().await);
            let listing = world.listing().await;
            assert_eq!(
                (listing.backups.len(), listing.rejected.len()),
                (2, 0),
                "{what}: {:?}",
                listing.rejected
            );
            for (generation, backup) in listing.backups.iter().enumerate() {
                world.assert_holds(backup, &source(generation as u64)).await;
            }
            let done = wrap(&world, &[&world.recipient, &new.public], how).await;
            assert_eq!(done.failed.len(), 0, "{what}");
            let listing = world.listing().await;
            for backup in &listing.backups {
                opens(&world, backup, &new.identities).await.unwrap();
                opens(&world, backup, &world.identities()).await.unwrap();
                if how == Rekey::Replace {
                    assert_eq!(backup.key_files.len(), backup.closure.sessions.len(), "{what}");
                }
            }
            runs += 1;
        }
    }
    println!("key rotation: {runs} runs with a fault, seed {}", seed());
}

/// Two machines replace at once, each with its own recipients: something always opens.
#[tokio::test]
async fn two_replacements_at_once_leave_a_key_file() {
    for delayed in 1..16 {
        let world = two_backups().await;
        let slow = Arc::new(FaultyStore::new(
            world.memory.clone(),
            Plan::calm().fault(delayed, Fault::Delay(40)),
        ));
        let repository = Repository::open(Arc::<FaultyStore<MemoryStore>>::clone(&slow)).await.unwrap();
        let (one, two) = (pair(), pair());
        let (first_set, second_set) = (
            [world.recipient.as_str(), &one.public],
            [world.recipient.as_str(), &two.public],
        );
        let (first, second) = tokio::join!(
            through(&world, &repository, &first_set, Rekey::Replace),
            through(&world, &world.repository, &second_set, Rekey::Replace),
        );
        drop((first, second));
        let listing = world.listing().await;
        assert_eq!(listing.backups.len(), 2, "delayed at {delayed}: {:?}", listing.rejected);
        for (generation, backup) in listing.backups.iter().enumerate() {
            world.assert_holds(backup, &source(generation as u64)).await;
        }
    }
}

#[tokio::test]
async fn a_session_that_the_identity_does_not_open_is_reported_and_stays() {
    let world = two_backups().await;
    let stranger = pair();
    let listing = world.listing().await;
    let encryption = Encryption::Age(vec![stranger.public.clone()]);
    let done = rekey(
        &world.env,
        &world.repository,
        &world.component,
        &listing,
        &encryption,
        &stranger.identities,
        Rekey::Replace,
    )
    .await
    .unwrap();
    assert_eq!((done.wrapped, done.removed, done.failed.len()), (0, 0, 2));
    assert!(done.failed.iter().all(|(_, error)| error.kind() == ErrorKind::WrongKey));
    for (generation, backup) in world.listing().await.backups.iter().enumerate() {
        world.assert_holds(backup, &source(generation as u64)).await;
    }
    for recipients in [Encryption::Clear, Encryption::Age(Vec::new())] {
        let identities = world.identities();
        let refused = rekey(
            &world.env,
            &world.repository,
            &world.component,
            &listing,
            &recipients,
            &identities,
            Rekey::Replace,
        );
        assert!(refused.await.is_err());
    }
}

fn ssh_keygen(world: &World, name: &str, words: &[&str]) -> (String, String) {
    let path = world.folder.path().join(name);
    let output = Command::new("ssh-keygen")
        .args(["-q", "-C", "a comment", "-f"])
        .arg(&path)
        .args(words)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let read = |path: &Path| std::fs::read_to_string(path).unwrap();
    (read(&path), read(&path.with_extension("pub")))
}

#[tokio::test]
async fn ssh_keys_open_backups_and_stock_age_agrees() {
    let world = World::new(seed()).await;
    let kinds: [&[&str]; 3] = [
        &["-t", "ed25519", "-N", ""],
        &["-t", "rsa", "-b", "2048", "-N", ""],
        &["-t", "ed25519", "-N", "a good passphrase", "-a", "4"],
    ];
    for (number, words) in kinds.into_iter().enumerate() {
        let (secret, public) = ssh_keygen(&world, &format!("id{number}"), words);
        let mut plan = world.plan();
        plan.encryption = Encryption::Age(vec![public.clone()]);
        plan.full = true;
        let backup = write(&world.env, &world.repository, plan, &source(0)).await.unwrap().backup;
        let protected = number == 2;
        assert_eq!(needs_passphrase(secret.as_bytes()), protected);
        let identities = if protected {
            assert_eq!(Identities::parse(&secret).unwrap_err().kind(), ErrorKind::WrongKey);
            let mut wrong = || Ok(Zeroizing::new("a bad one".to_owned()));
            let error = Identities::read(secret.as_bytes(), &mut wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::WrongKey);
            assert!(error.detail().contains("passphrase is wrong"), "{error}");
            Identities::read(secret.as_bytes(), &mut || Ok(Zeroizing::new("a good passphrase".to_owned()))).unwrap()
        } else {
            Identities::parse(&secret).unwrap()
        };
        assert_eq!(identities.public_keys(), [Recipient::parse(&public).unwrap().to_string()]);
        opens(&world, &backup, &identities).await.unwrap();
        assert_eq!(
            opens(&world, &backup, &world.identities()).await.unwrap_err().kind(),
            ErrorKind::WrongKey
        );
        if !protected {
            let key = backup.key_files[0].name.key(&world.component).unwrap();
            assert!(stock_age(&world, &key, &world.folder.path().join(format!("id{number}"))).await);
        }
    }
    let (secret, public) = ssh_keygen(&world, "other", &["-t", "ecdsa", "-N", ""]);
    let error = Recipient::parse(&public).unwrap_err();
    assert!(error.detail().contains("ecdsa") && error.hint().is_some(), "{error}");
    let error = Identities::parse(&secret).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongKey);
    assert!(error.hint().is_some_and(|hint| hint.contains("ed25519")), "{error}");
    let (_, weak) = ssh_keygen(&world, "weak", &["-t", "rsa", "-b", "1024", "-N", ""]);
    assert!(Recipient::parse(&weak).unwrap_err().detail().contains("2,048"));
    for nonsense in [
        "",
        "ssh-ed25519",
        "ssh-ed25519 AAAA",
        "age1",
        "ssh-rsa !!",
        "-----BEGIN",
        &world.identity,
    ] {
        let error = Recipient::parse(nonsense).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConfigInvalid);
        assert!(
            !error.to_string().contains("AGE-SECRET-KEY-1"),
            "a private key is never repeated"
        );
    }
}

#[tokio::test]
async fn an_identity_under_a_passphrase() {
    let world = World::new(seed()).await;
    let protected = protect_identity(&format!("# mine\n{}\n", world.identity), "correct horse").unwrap();
    assert!(needs_passphrase(protected.as_bytes()) && !needs_passphrase(world.identity.as_bytes()));
    let read =
        |passphrase: &'static str| Identities::read(protected.as_bytes(), &mut || Ok(Zeroizing::new(passphrase.to_owned())));
    assert_eq!(
        read("correct horse").unwrap().public_keys(),
        std::slice::from_ref(&world.recipient)
    );
    let error = read("wrong horse").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::WrongKey);
    assert!(error.detail().contains("passphrase is wrong"), "{error}");
    assert!(Identities::parse(&protected).unwrap_err().detail().contains("passphrase"));
    let cut = &protected[..protected.len() / 2];
    assert!(
        Identities::read(cut.as_bytes(), &mut || Ok(Zeroizing::new("x".into())))
            .unwrap_err()
            .detail()
            .contains("armor")
    );
    assert!(protect_identity("x", "").is_err());
    // A file that asks for more work than this machine should do.
    let heavy = protected_with_work_factor(30);
    let error = Identities::read(heavy.as_bytes(), &mut || Ok(Zeroizing::new("x".into()))).unwrap_err();
    assert!(error.detail().contains("work factor of 30"), "{error}");
}

/// The header of an age file that claims a work factor; nobody computes it.
fn protected_with_work_factor(log_n: u8) -> String {
    let salt = "A".repeat(22);
    let body = "A".repeat(43);
    format!("age-encryption.org/v1\n-> scrypt {salt} {log_n}\n{body}\n--- {body}\n0123456789abcdef0123456789abcdef")
}

#[tokio::test]
async fn a_passphrase_gives_the_same_identity_everywhere() {
    let world = World::new(seed()).await;
    let (secret, public) = identity_from_passphrase("correct horse battery staple").unwrap();
    // Written down: this must never change, or what was encrypted with it is lost. Python's hashlib.scrypt gives the same.
    assert_eq!(public, "age19urs5r75kukghtxsex34defptr4j9m6geavqk8tpzufazhypestsu57tyc");
    assert_eq!(identity_from_passphrase(" correct horse battery staple\n").unwrap().1, public);
    assert_ne!(identity_from_passphrase("correct horse battery stable").unwrap().1, public);
    let identity = file(&world, "derived.txt", &secret);
    let output = Command::new("age-keygen").arg("-y").arg(&identity).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), public);
    let error = identity_from_passphrase("short").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConfigInvalid);
    assert!(!error.to_string().contains("short"));
}
