//! What is accepted, and what it means.

use std::path::{Path, PathBuf};
use std::time::Duration;

use lifeboat_ops::Source;

use super::super::settings::Priority;
use super::super::{
    ComponentSettings, Encrypt, Initial, InitialSource, MinFree, SecretRef, Settings, StorePlace, load, render_initial, show,
};
use super::{GOOD, PATH, assert_golden, golden, read, with};

fn component<'a>(settings: &'a Settings, name: &str) -> Option<&'a ComponentSettings> {
    settings.components.iter().find(|component| component.name == name)
}

/// Busy timeout and longest stall of a database.
fn patience(component: &ComponentSettings) -> (Duration, Duration) {
    match &component.source {
        Source::Sqlite {
            busy_timeout, max_stall, ..
        } => (*busy_timeout, *max_stall),
        other => panic!("{other:?}"),
    }
}

#[test]
fn everything_arrives() {
    let settings = read(GOOD).unwrap();
    assert_eq!(settings.path, Path::new(PATH));
    assert_eq!(settings.instance_name, "app-host");
    assert_eq!(settings.state_dir, Path::new("/var/lib/lifeboat"));
    assert_eq!(settings.instances.len(), 1);
    assert_eq!(
        settings.keys["main"].identity,
        Some(SecretRef::File("/etc/lifeboat/lifeboat.key".into()))
    );
    assert_eq!(settings.stores["disk"].folder(), Some(Path::new("/var/backups/lifeboat")));
    let StorePlace::Fs(disk) = &settings.stores["disk"].place else {
        unreachable!("the example keeps its backups in a folder");
    };
    assert_eq!(disk.min_free, Some(MinFree::Percent(5)));
    assert_eq!(
        settings.not_backed_up,
        [("sortie".to_owned(), "sessions".to_owned(), "ephemeral".to_owned())]
    );
    assert_eq!(settings.warnings, Vec::<String>::new());

    // What others depend on comes first, whatever the priorities say.
    let names: Vec<&str> = settings.components.iter().map(|component| component.name.as_str()).collect();
    assert_eq!(names, ["sortie/queue", "sortie/db"]);
    let db = component(&settings, "sortie/db").unwrap();
    assert_eq!(db.source.path(), Some(Path::new("/data/sortie.db")));
    assert_eq!(patience(db), (Duration::from_secs(5), Duration::from_secs(3)));
    assert_eq!(
        (db.rpo, db.rto),
        (Some(Duration::from_secs(86_400)), Some(Duration::from_secs(1_800)))
    );
    assert_eq!(
        (db.priority, db.depends_on.as_slice()),
        (Priority::High, ["sortie/queue".to_owned()].as_slice())
    );
    assert_eq!(
        (db.stores.as_slice(), &db.encrypt),
        (&["disk".to_owned()][..], &Encrypt::Key("main".to_owned()))
    );

    // Defaults, and a path that begins at the folder of the file.
    let queue = component(&settings, "sortie/queue").unwrap();
    assert_eq!(queue.source.path(), Some(Path::new("/etc/lifeboat/queue.db")));
    assert_eq!(patience(queue), (Duration::from_secs(5), Duration::from_secs(5)));
    assert_eq!((queue.rto, queue.priority), (None, Priority::Normal));
    assert_eq!(queue.encrypt, Encrypt::Key("main".to_owned()), "the only key is the default");
}

#[test]
fn priority_then_name_decide_among_the_independent() {
    let text = with("depends_on: [queue]", "depends_on: []").replace(
        "      queue:\n",
        "      alpha: { sqlite: { path: a.db }, objectives: { rpo: 1h }, priority: high, backup: { to: [disk] } }\n      queue:\n",
    );
    let settings = read(&text).unwrap();
    let names: Vec<&str> = settings.components.iter().map(|component| component.name.as_str()).collect();
    assert_eq!(names, ["sortie/alpha", "sortie/db", "sortie/queue"]);
}

#[test]
fn state_lies_where_the_surroundings_say() {
    let settings = read(&with(", state_dir: /var/lib/lifeboat", "")).unwrap();
    assert_eq!(settings.state_dir, Path::new("/home/someone/.local/state/lifeboat"));
}

#[test]
fn sections_without_content_are_empty() {
    let settings = read("version: 1\ninstance: { name: a }\nkeys:\nstores:\nsystems:\n").unwrap();
    assert!(settings.components.is_empty());
    assert_eq!(
        settings.warnings,
        ["nothing is backed up: there is no component under `systems`"]
    );
}

#[test]
fn anchors_and_merged_mappings_work() {
    let text = with(
        "sqlite: { path: queue.db }\n        objectives: { rpo: 1h }",
        "sqlite: { path: queue.db }\n        objectives: *promise",
    )
    .replace(
        "objectives: { rpo: 24h, rto: 30m }",
        "objectives: &promise { rpo: 24h, rto: 30m }",
    );
    // The anchor stands before the alias: db is written before queue.
    let settings = read(&text).unwrap();
    assert_eq!(
        component(&settings, "sortie/queue").unwrap().rto,
        Some(Duration::from_secs(1_800))
    );
}

#[test]
fn secrets_in_every_form() {
    let identity = "{ file: /etc/lifeboat/lifeboat.key }";
    let secret = |form: &str| read(&with(identity, form)).unwrap().keys["main"].identity.clone().unwrap();
    assert_eq!(
        secret("{ env: LIFEBOAT_IDENTITY }"),
        SecretRef::Env("LIFEBOAT_IDENTITY".to_owned())
    );
    assert_eq!(
        secret("{ command: [pass, show, dr] }"),
        SecretRef::Command(vec!["pass".into(), "show".into(), "dr".into()])
    );
    assert_eq!(
        secret("{ file: lifeboat.key }"),
        SecretRef::File("/etc/lifeboat/lifeboat.key".into())
    );
    assert_eq!(secret("hunter2"), SecretRef::Inline("hunter2".to_owned()));
    let no_identity = with(&format!("      identity: {identity}\n"), "");
    assert_eq!(read(&no_identity).unwrap().keys["main"].identity, None);
}

#[test]
fn warnings() {
    let text = with("state_dir: /var/lib/lifeboat", "state_dir: /var/backups/lifeboat/state")
        .replace("/etc/lifeboat/lifeboat.key", "/var/backups/lifeboat/lifeboat.key")
        .replace("path: queue.db", "path: /var/backups/lifeboat/queue.db")
        .replace("        objectives: { rpo: 1h }\n", "")
        .replace("encrypt: main", "encrypt: none");
    let mut found = read(&text).unwrap().warnings;
    found.extend(
        read(&with("{ file: /etc/lifeboat/lifeboat.key }", "AGE-SECRET-KEY-1ABC"))
            .unwrap()
            .warnings,
    );
    assert_golden(&golden("warnings.txt"), &(found.join("\n") + "\n"));
}

#[test]
fn shown_without_secrets() {
    let settings = read(&with("{ file: /etc/lifeboat/lifeboat.key }", "AGE-SECRET-KEY-1ABC")).unwrap();
    let shown = serde_json::to_string_pretty(&show(&settings)).unwrap() + "\n";
    assert!(!shown.contains("1ABC") && !format!("{settings:?}").contains("1ABC"));
    assert_golden(&golden("show.json"), &shown);
    let command = SecretRef::Command(vec!["vault".into(), "--token=abc".into()]);
    assert_eq!(command.to_string(), "‹command:vault›");
    assert_eq!(
        read(GOOD).unwrap().keys["main"].identity.as_ref().unwrap().to_string(),
        "‹file:/etc/lifeboat/lifeboat.key›"
    );
}

#[test]
fn durations_are_shown_as_they_can_be_written() {
    for text in ["0s", "350ms", "5s", "1m30s", "1d12h", "3d4h5m6s7ms", "40d"] {
        let duration = lifeboat_model::time::parse_duration(text).unwrap();
        assert_eq!(super::super::exact_duration(duration), text);
    }
}

fn initial(components: &[(&str, &str)], key: bool) -> Initial {
    Initial {
        instance_name: "app-host".to_owned(),
        state_dir: PathBuf::from("/var/lib/lifeboat"),
        instance_public: "ed25519:d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a".to_owned(),
        key: key.then(|| {
            let recipient = "age1lvyvwawkr0mcnnnncaghunadrqkmuf9e6507x9y920xxpp866cnql7dp2z";
            (recipient.to_owned(), PathBuf::from("/etc/lifeboat/lifeboat.key"))
        }),
        store_path: PathBuf::from("/var/backups/lifeboat"),
        components: components
            .iter()
            .map(|(name, path)| ((*name).to_owned(), InitialSource::Sqlite(PathBuf::from(path))))
            .collect(),
        rpo: "24h".to_owned(),
        rto: "30m".to_owned(),
    }
}

#[test]
fn the_first_configuration_is_right() {
    let text = render_initial(&initial(
        &[
            ("sortie/db", "/data/sortie.db"),
            ("hub/db", "/data/hub.db"),
            ("sortie/jobs", "/data/jobs.db"),
        ],
        true,
    ));
    assert_golden(&golden("initial.yaml"), &text);
    let settings = read(&text).unwrap();
    assert_eq!(settings.warnings, Vec::<String>::new());
    let names: Vec<&str> = settings.components.iter().map(|component| component.name.as_str()).collect();
    assert_eq!(names, ["hub/db", "sortie/db", "sortie/jobs"]);
    assert_eq!(
        component(&settings, "sortie/jobs").unwrap().rpo,
        Some(Duration::from_secs(86_400))
    );
}

#[test]
fn the_first_configuration_without_anything_is_right_too() {
    let text = render_initial(&initial(&[], false));
    assert_golden(&golden("initial-empty.yaml"), &text);
    assert_eq!(read(&text).unwrap().warnings.len(), 1, "only: nothing is backed up");
    let text = render_initial(&initial(&[("a/b", "/b.db")], false));
    assert_eq!(component(&read(&text).unwrap(), "a/b").unwrap().encrypt, Encrypt::None);
}

#[test]
fn the_first_configuration_takes_every_name_and_path_as_it_is() {
    for odd in [
        "/data/it's: a #1 \"db\"",
        "/data/\u{e9}\u{4e2d} x",
        "/data/{a}, [b]",
        "/data/tab\tand\nline",
        "/data/ends ",
        "/data/&a *b !c",
    ] {
        let settings = read(&render_initial(&initial(&[("true/1e3", odd), ("true/null", "/n.db")], true))).unwrap();
        assert_eq!(
            component(&settings, "true/1e3").unwrap().source.path(),
            Some(Path::new(odd)),
            "{odd:?}"
        );
        assert!(component(&settings, "true/null").is_some());
    }
}

#[test]
fn a_file_is_loaded_from_disk() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("lifeboat.yaml");
    #[expect(clippy::disallowed_methods, reason = "a file of the test")]
    std::fs::write(&path, GOOD).unwrap();
    let settings = load(&path).unwrap();
    assert_eq!(
        component(&settings, "sortie/queue").unwrap().source.path(),
        Some(folder.path().join("queue.db").as_path())
    );
    let absent = load(&folder.path().join("absent.yaml")).unwrap_err();
    assert_eq!(absent.kind(), lifeboat_model::ErrorKind::ConfigInvalid);
    assert!(absent.hint().unwrap().contains("lifeboat init"));
}

/// Two names of one file are one database; a path that is only spelled alike is not.
#[test]
fn links_are_followed() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    std::fs::create_dir(&data).unwrap();
    std::fs::File::create(data.join("sortie.db")).unwrap();
    std::os::unix::fs::symlink(&data, folder.path().join("link")).unwrap();
    let at = |path: &str| {
        GOOD.replace("/data/sortie.db", data.join("sortie.db").to_str().unwrap())
            .replace("queue.db", path)
    };
    let same = read(&at(folder.path().join("link/sortie.db").to_str().unwrap())).unwrap_err();
    assert!(
        same.detail().contains("sortie/db and sortie/queue are the same database"),
        "{same}"
    );
    // Not there yet, but below a folder that is.
    let inside = at("queue.db")
        .replace("/var/backups/lifeboat", data.to_str().unwrap())
        .replace("/var/lib/lifeboat", folder.path().join("link/state").to_str().unwrap());
    let warnings = read(&inside).unwrap().warnings;
    assert!(
        warnings.iter().any(|warning| warning.starts_with("the state folder")),
        "{warnings:?}"
    );
    assert!(read(&at("/data/sortie.db")).is_ok());
}

#[tokio::test]
async fn secrets_are_read_when_they_are_needed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    #[expect(clippy::disallowed_methods, reason = "a file of the test")]
    std::fs::write(&path, "one\ntwo\r\n\n").unwrap();
    let shell = |script: &str| SecretRef::Command(vec!["/bin/sh".into(), "-c".into(), script.into()]);
    assert_eq!(*SecretRef::File(path.clone()).read().await.unwrap(), "one\ntwo");
    assert_eq!(*shell("printf 'a secret\\n'").read().await.unwrap(), "a secret");
    assert_eq!(*SecretRef::Inline("x".into()).read().await.unwrap(), "x");

    let refused = [
        (SecretRef::File(folder.path().join("absent")), "cannot read secret"),
        (shell("printf '\\n'"), "cannot read secret ‹command:/bin/sh›: it is empty"),
        (
            shell("printf '\\377'"),
            "cannot read secret ‹command:/bin/sh›: it is not UTF-8 text",
        ),
        // Not what it printed, on either stream: a shell that traces itself prints secrets on stderr.
        (
            shell("echo no such entry >&2; exit 3"),
            "the command ended with exit status: 3",
        ),
        (
            SecretRef::Env("LIFEBOAT_TEST_NEVER_SET".into()),
            "‹env:LIFEBOAT_TEST_NEVER_SET›: the variable is not set",
        ),
    ];
    for (secret, wanted) in refused {
        let error = secret.read().await.unwrap_err().to_string();
        assert!(error.contains(wanted), "{error}");
    }
}

#[test]
fn stores_of_every_kind_arrive() {
    let stores = "  disk: { fs: { path: /var/backups/lifeboat, min_free: 5%, limit: { upload: 20MiB } } }
  eu: { s3: { bucket: example-lifeboat, prefix: eu/, region: eu-central-1, storage_class: STANDARD_IA } }
  minio:
    s3:
      bucket: my-backups
      endpoint: https://minio.internal:9000/
      access_key: { env: AWS_ACCESS_KEY_ID }
      secret_key: { file: /run/secrets/minio }
      limit: { upload: 20MiB, download: 1GB/s }
  gcs: { gcs: { bucket: your-backup-bucket, prefix: /sortie/, credentials: { file: gcs.json } } }
  azure: { azure: { account: examplebackups, container: lifeboat, sas_token: { command: [pass, azure] } } }
";
    let settings = read(&with(
        "  disk: { fs: { path: /var/backups/lifeboat, min_free: 5% } }\n",
        stores,
    ))
    .unwrap();
    let addresses: Vec<String> = settings.stores.values().map(|store| store.address()).collect();
    assert_eq!(
        addresses,
        [
            "az://examplebackups/lifeboat",
            "/var/backups/lifeboat",
            "s3://example-lifeboat/eu",
            "gs://your-backup-bucket/sortie",
            "s3://my-backups",
        ]
    );
    let StorePlace::S3(minio) = &settings.stores["minio"].place else {
        unreachable!("minio is written as s3");
    };
    // A service of one's own has its buckets in the path unless the file says otherwise.
    assert!(minio.path_style);
    assert_eq!(minio.endpoint.as_deref(), Some("https://minio.internal:9000"));
    let limit = settings.stores["minio"].limit;
    assert_eq!((limit.upload, limit.download), (Some(20 << 20), Some(1_000_000_000)));
    let shown = serde_json::to_string_pretty(&show(&settings)["stores"]).unwrap();
    assert_golden(&golden("stores.json"), &(shown + "\n"));
}

#[test]
fn a_first_configuration_of_files_and_a_pki_is_right() {
    let mut first = initial(&[], true);
    let list = |patterns: &[&str]| patterns.iter().map(|pattern| (*pattern).to_owned()).collect::<Vec<String>>();
    first.components = vec![
        (
            "shop/config".to_owned(),
            InitialSource::Files {
                include: list(&["/srv/shop/k8s/*.yaml", "/srv/shop/a \"b\": #c"]),
                env_structure: list(&["/srv/shop/.env"]),
            },
        ),
        (
            "shop/pki".to_owned(),
            InitialSource::Pki {
                keys: list(&["/srv/ca/*.key"]),
                certs: list(&["/srv/ca/*.crt"]),
                crl: list(&["/srv/ca/*.crl"]),
            },
        ),
    ];
    let text = render_initial(&first);
    let kinds = read(&text).unwrap();
    let kinds: Vec<&str> = kinds.components.iter().map(|component| component.source.kind()).collect();
    assert_eq!(kinds, ["files", "pki"], "{text}");
}
