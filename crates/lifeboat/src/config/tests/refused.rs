//! What is refused, each with the exact text that people see.

use super::{GOOD, assert_refused, with};

#[test]
fn shape() {
    let cases = [
        ("unknown-key", with("stores:", "store:")),
        ("unknown-key-deep", with("busy_timeout", "busy_timout")),
        (
            "unknown-key-far",
            with(
                "objectives: { rpo: 24h",
                "drills: { weekly: x }\n        objectives: { rpo: 24h",
            ),
        ),
        ("unknown-kind", with("sqlite: { path: queue.db }", "mysql: { url: x }")),
        (
            "unknown-store-kind",
            with("fs: { path: /var/backups/lifeboat, min_free: 5% }", "ftp: { host: b }"),
        ),
        ("unknown-secret-kind", with("{ file: /etc", "{ systemd: /etc")),
        (
            "two-secret-kinds",
            with("{ file: /etc/lifeboat/lifeboat.key }", "{ file: /a, env: B }"),
        ),
        ("missing-key", with("sqlite: { path: queue.db }", "sqlite: {}")),
        ("missing-version", with("version: 1\n", "")),
        ("other-version", with("version: 1", "version: 2\nnew_things: true")),
        ("version-as-text", with("version: 1", "version: one")),
        ("nothing-written", with("path: /data/sortie.db,", "path: ,")),
        ("text-for-list", with("to: [disk], encrypt", "to: disk, encrypt")),
        ("list-for-mapping", with("objectives: { rpo: 1h }", "objectives: [rpo, 1h]")),
        ("priority-misspelt", with("priority: high", "priority: hihg")),
        ("text-for-number", with("version: 1", "version: one")),
        ("huge-number", with("version: 1", "version: 50000000000000000000")),
        (
            "several-at-once",
            with("priority: high", "prio: 2")
                .replace("min_free", "minfree")
                .replace("rpo: 1h", "rpo: [1h]"),
        ),
        ("top-level-list", "- version: 1\n".to_owned()),
        ("only-text", "lifeboat\n".to_owned()),
    ];
    for (name, text) in cases {
        assert_refused(name, text.as_bytes());
    }
}

#[test]
fn yaml() {
    let twice = format!("{GOOD}stores:\n  other: {{ fs: {{ path: /b }} }}\n");
    let cases = [
        ("duplicate-key", twice),
        ("duplicate-name", with("      queue:\n", "      db:\n")),
        ("tab", with("  disk: {", "\tdisk: {")),
        ("open-quote", with("app-host, state", "\"app-host, state")),
        ("unknown-anchor", with("path: queue.db", "path: *elsewhere")),
        ("unknown-tag", with("path: queue.db", "path: !path queue.db")),
        ("two-documents", format!("{GOOD}---\n{GOOD}")),
        ("empty", String::new()),
        ("only-comments", "# nothing yet\n---\n".to_owned()),
    ];
    for (name, text) in cases {
        assert_refused(name, text.as_bytes());
    }
}

#[test]
fn bytes() {
    assert_refused("not-utf8", b"version: 1\ninstance: { name: caf\xe9 }\n");
    assert_refused("too-large", "#".repeat(1_100_000).as_bytes());
}

#[test]
fn units() {
    let cases = [
        ("duration-without-unit", with("rpo: 24h", "rpo: 24")),
        ("duration-unknown-unit", with("rpo: 24h", "rpo: 24hours")),
        ("duration-in-words", with("rto: 30m", "rto: soon")),
        ("duration-zero", with("rpo: 24h", "rpo: 0h")),
        ("timeout-without-unit", with("busy_timeout: 5s", "busy_timeout: 5000")),
        ("size-without-unit", with("min_free: 5%", "min_free: 5")),
        ("percent-too-much", with("min_free: 5%", "min_free: 100%")),
        ("size-unknown-unit", with("min_free: 5%", "min_free: 5G")),
    ];
    for (name, text) in cases {
        assert_refused(name, text.as_bytes());
    }
}

#[test]
fn references() {
    let second_key = concat!(
        "  spare: { age: { recipients: [age1lvyvwawkr0mcnnnncaghunadrqkmuf9e6507x9y920xxpp866cnql7dp2z] } }\n",
        "  main:\n"
    );
    let keys = GOOD
        .split_once("keys:\n")
        .and_then(|(_, rest)| rest.split_once("stores:\n"))
        .map_or("", |(keys, _)| keys);
    let cases = [
        ("unknown-store", with("to: [disk], encrypt", "to: [dsk], encrypt")),
        ("unknown-store-far", with("to: [disk], encrypt", "to: [glacier], encrypt")),
        ("unknown-encryption-key", with("encrypt: main", "encrypt: mian")),
        ("encrypt-false", with("encrypt: main", "encrypt: false")),
        ("encrypt-missing", with("  main:\n", second_key)),
        (
            "encrypt-missing-without-keys",
            with("encrypt: main", "encrypt: none").replace(keys, ""),
        ),
        ("unknown-component", with("depends_on: [queue]", "depends_on: [queu]")),
        ("store-twice", with("to: [disk], encrypt", "to: [disk, disk], encrypt")),
        (
            "required-elsewhere",
            with("to: [disk], encrypt", "to: [disk], required: [tape], encrypt"),
        ),
        ("no-store", with("to: [disk], encrypt", "to: [], encrypt")),
        (
            "circle",
            with(
                "sqlite: { path: queue.db }",
                "sqlite: { path: queue.db }\n        depends_on: [sortie/db]",
            ),
        ),
        ("depends-on-itself", with("depends_on: [queue]", "depends_on: [db]")),
        ("same-database", with("path: queue.db", "path: /data/./sortie.db")),
        (
            "same-folder",
            with("  disk:", "  copy: { fs: { path: /var/backups/lifeboat } }\n  disk:"),
        ),
    ];
    for (name, text) in cases {
        assert_refused(name, text.as_bytes());
    }
}

#[test]
fn values() {
    let cases = [
        ("instance-key", with("ed25519:d7", "ed25519:")),
        ("recipient-typo", with("age1lvyv", "age1lvyy")),
        (
            "recipient-other",
            with(
                "[age1lvyvwawkr0mcnnnncaghunadrqkmuf9e6507x9y920xxpp866cnql7dp2z]",
                "[\"ssh-ed25519 AAAA\"]",
            ),
        ),
        (
            "no-recipient",
            with("[age1lvyvwawkr0mcnnnncaghunadrqkmuf9e6507x9y920xxpp866cnql7dp2z]", "[]"),
        ),
        (
            "empty-command",
            with("{ file: /etc/lifeboat/lifeboat.key }", "{ command: [] }"),
        ),
        (
            "reserved-key-name",
            with("  main:\n", "  none:\n").replace("encrypt: main", "encrypt: none"),
        ),
        ("bad-name", with("  sortie:\n", "  \"sor/tie\":\n")),
        ("home-in-path", with("/var/backups/lifeboat", "~/backups")),
        ("variable-in-path", with("path: queue.db", "path: \"$HOME/queue.db\"")),
        ("empty-path", with("path: queue.db", "path: \"\"")),
        ("reason-missing", with("sessions: ephemeral", "sessions: \"\"")),
        ("both-in-and-out", with("sessions: ephemeral", "db: ephemeral")),
        (
            "everything-at-once",
            with("rpo: 24h", "rpo: 24")
                .replace("[disk]", "[dsk]")
                .replace("[queue]", "[db]")
                .replace("5%", "much"),
        ),
    ];
    for (name, text) in cases {
        assert_refused(name, text.as_bytes());
    }
}

/// A key in the clear must not reach a message, wherever the mistake is and whatever kind it is.
#[test]
fn no_message_shows_a_secret() {
    let secret = "AGE-SECRET-KEY-1QQPQGPSGGQQ4N5F7R9WMTQR6VJZG6W9Z2M0JYLV4F8Q6RCGZQT5QSX7H9A";
    let identity = "identity: { file: /etc/lifeboat/lifeboat.key }";
    let inline = with(identity, &format!("identity: {secret}"));
    let cases = [
        ("secret-beside-unknown-key", inline.replace("stores:", "store:")),
        ("secret-beside-syntax-error", inline.replace("stores:", "\tstores:")),
        (
            "secret-as-recipient",
            with(
                "[age1lvyvwawkr0mcnnnncaghunadrqkmuf9e6507x9y920xxpp866cnql7dp2z]",
                &format!("[{secret}]"),
            ),
        ),
        ("secret-as-key", with(identity, &format!("{secret}: identity"))),
        ("secret-as-kind", with(identity, &format!("identity: {{ {secret}: x }}"))),
        ("secret-as-number", with("priority: high", &format!("priority: {secret}"))),
        ("secret-as-duration", with("rpo: 24h", &format!("rpo: {secret}"))),
    ];
    for (name, text) in cases {
        assert_refused(name, text.as_bytes());
        let error = super::read(&text).expect_err("it must be refused");
        let shown = format!("{error} {error:?}");
        assert!(!shown.contains("QQPQGPSGG"), "{name} shows the secret: {shown}");
    }
}

#[test]
fn stores() {
    let disk = "  disk:";
    let beside = |text: &str| with(disk, &format!("{text}\n{disk}"));
    let cases = [
        ("store-url-as-bucket", beside("  a: { s3: { bucket: s3://x/y } }")),
        (
            "store-half-a-key",
            beside("  a: { s3: { bucket: x, access_key: { env: A } } }"),
        ),
        (
            "store-token-alone",
            beside("  a: { s3: { bucket: x, session_token: { env: A } } }"),
        ),
        (
            "store-two-logins",
            beside("  a: { s3: { bucket: x, access_key: { env: A }, secret_key: { env: B }, profile: p } }"),
        ),
        ("store-endpoint", beside("  a: { s3: { bucket: x, endpoint: minio:9000 } }")),
        (
            "store-endpoint-secret",
            beside("  a: { s3: { bucket: x, endpoint: 'https://a:b@minio' } }"),
        ),
        ("store-path-style", beside("  a: { s3: { bucket: x, path_style: maybe } }")),
        ("store-frozen", beside("  a: { s3: { bucket: x, storage_class: GLACIER } }")),
        ("store-prefix", beside("  a: { gcs: { bucket: x, prefix: ../y } }")),
        (
            "store-limit",
            beside("  a: { gcs: { bucket: x, limit: { upload: 20, download: 1B } } }"),
        ),
        (
            "store-same-bucket",
            beside("  a: { s3: { bucket: x, prefix: p } }\n  b: { s3: { bucket: x, prefix: /p/ } }"),
        ),
        (
            "store-azure-two-secrets",
            beside("  a: { azure: { account: x, container: y, account_key: { env: A }, sas_token: { env: B } } }"),
        ),
        ("store-two-kinds", beside("  a: { s3: { bucket: x }, gcs: { bucket: x } }")),
    ];
    for (name, text) in cases {
        assert_refused(name, text.as_bytes());
    }
}
