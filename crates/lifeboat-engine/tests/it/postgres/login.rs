//! Every way to be let in, and every way not to be: what is said then.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use lifeboat_engine::postgres::sql::Sql;
use lifeboat_engine::postgres::sqlstate;
use lifeboat_engine::postgres::wire::{Connection, Mode, connect};
use lifeboat_model::{Error, ErrorKind};
use lifeboat_testkit::postgres::{Certificates, Cluster, Options, Stop, majors};

use super::info;

const HBA: &[&str] = &[
    "host all,replication trusting all trust",
    "host all,replication norepl all trust",
    "host all,replication clear all password",
    "host all,replication old all md5",
    "host all,replication scram all scram-sha-256",
    "hostssl all,replication tlsonly all scram-sha-256",
    "hostnossl all,replication plainonly all scram-sha-256",
    "local all,replication scram scram-sha-256",
    "local all,replication clear password",
];

const ROLES: &str = "set password_encryption = 'md5'; create role old login replication password 'pw';
set password_encryption = 'scram-sha-256';
create role trusting login replication; create role norepl login; create role clear login replication password 'pw';
create role scram login replication password 'pw'; create role tlsonly login replication password 'pw';
create role plainonly login replication password 'pw'; create role nowhere login replication;
create role app login replication;";

async fn try_login(text: &str) -> Result<Connection, Error> {
    connect(&info(text), Mode::Replication).await
}

async fn works(text: &str) -> Connection {
    let mut connection = try_login(text).await.unwrap_or_else(|error| panic!("{text}: {error:?}"));
    connection.identify_system().await.unwrap();
    // The same must hold for SQL, which logs in by itself.
    let sql = Sql::connect(&info(text))
        .await
        .unwrap_or_else(|error| panic!("{text}: {error:?}"));
    assert_eq!(sql.text("ask", "select 1").await.unwrap(), [[Some("1".to_owned())]]);
    connection
}

async fn fails(text: &str, kind: ErrorKind, words: &str) -> Error {
    let sql = Sql::connect(&info(text)).await.unwrap_err();
    let error = try_login(text).await.unwrap_err();
    let said = format!("{error:?}");
    assert!(
        error.kind() == kind && said.contains(words) && error.hint().is_some(),
        "{text}: {said}"
    );
    assert!(!said.contains("secret"), "{said}");
    assert!(!format!("{sql:?}").contains("secret"), "{sql:?}");
    error
}

#[tokio::test]
async fn every_method_lets_the_right_password_in_and_no_other() {
    for major in majors() {
        let cluster = Cluster::start(major, &Options::new().hba(HBA));
        cluster.query(ROLES);
        let url = |user: &str| cluster.url(user, "postgres");
        works(&url("trusting")).await;
        works(&url("old:pw")).await;
        assert!(!works(&url("scram:pw")).await.is_encrypted());
        works(&format!("{} password=pw", cluster.dsn("scram", "postgres"))).await;
        works(&format!("{} password=pw", cluster.dsn("clear", "postgres"))).await;
        for user in ["old:secret", "scram:secret"] {
            let error = fails(&url(user), ErrorKind::ConfigInvalid, "28P01").await;
            assert_eq!(sqlstate(&error), Some("28P01"));
        }
        fails(&url("scram"), ErrorKind::ConfigInvalid, "there is none").await;
        let error = fails(&url("nowhere"), ErrorKind::ConfigInvalid, "pg_hba.conf").await;
        assert_eq!(sqlstate(&error), Some("28000"));
        let error = try_login(&url("norepl")).await.unwrap_err();
        assert_eq!(
            (sqlstate(&error), error.kind()),
            (Some("42501"), ErrorKind::ConfigInvalid),
            "{error:?}"
        );
        assert!(error.hint().unwrap().contains("replication"), "{error:?}");
        // The password is not given to whoever listens.
        fails(&url("clear:secret"), ErrorKind::Refused, "in clear").await;
        let error = Sql::connect(&info(&url("clear:secret"))).await.unwrap_err();
        assert!(format!("{error:?}").contains("in clear"), "{error:?}");
        assert!(!cluster.log().contains("secret"));
        fails(
            &(url("scram:secret") + "?channel_binding=require"),
            ErrorKind::Refused,
            "channel_binding",
        )
        .await;
        if major != 15 {
            fails(
                &(url("scram:secret") + "?sslmode=require"),
                ErrorKind::Refused,
                "does not offer TLS",
            )
            .await;
        }
        let error = Sql::connect(&info(&cluster.url("trusting", "absent"))).await.unwrap_err();
        assert_eq!(sqlstate(&error), Some("3D000"));
    }
}

/// A server with TLS, and keyword strings for it: host, user, more.
fn with_tls() -> (Cluster, impl Fn(&str, &str, &str) -> String) {
    let mut hba = HBA.to_vec();
    hba.push("hostssl all,replication app all cert");
    let cluster = Cluster::start(15, &Options::new().hba(&hba).tls());
    cluster.query(ROLES);
    let port = cluster.port();
    let dsn = move |host: &str, user: &str, more: &str| {
        format!("host={host} hostaddr=127.0.0.1 port={port} user={user} password=pw dbname=postgres {more}")
    };
    (cluster, dsn)
}

fn root(path: &Path) -> String {
    format!("sslrootcert={}", path.display())
}

#[tokio::test]
async fn whether_there_is_tls_is_decided_as_libpq_does() {
    let (_cluster, dsn) = with_tls();
    let wanted = [
        ("scram", "disable", false),
        ("scram", "allow", false),
        ("scram", "prefer", true),
        ("scram", "require", true),
        ("tlsonly", "allow", true),
        ("tlsonly", "prefer", true),
        ("plainonly", "prefer", false),
        ("plainonly", "allow", false),
        ("clear", "require", true),
    ];
    for (user, mode, encrypted) in wanted {
        let connection = works(&dsn("elsewhere", user, &format!("sslmode={mode}"))).await;
        assert_eq!(connection.is_encrypted(), encrypted, "{user} {mode}");
    }
    fails(
        &dsn("elsewhere", "tlsonly", "sslmode=disable"),
        ErrorKind::ConfigInvalid,
        "sslmode=require",
    )
    .await;
    fails(
        &dsn("elsewhere", "plainonly", "sslmode=require"),
        ErrorKind::ConfigInvalid,
        "28000",
    )
    .await;
    works(&dsn("localhost", "scram", "sslmode=require channel_binding=require")).await;
    works(&dsn("localhost", "scram", "sslmode=require channel_binding=disable")).await;
    for user in ["old", "trusting"] {
        fails(
            &dsn("localhost", user, "sslmode=require channel_binding=require"),
            ErrorKind::Refused,
            "SCRAM",
        )
        .await;
    }
}

#[tokio::test]
async fn certificates_are_checked_as_far_as_is_asked_for() {
    let (_cluster, dsn) = with_tls();
    let certificates = Certificates::shared();
    let (good, other, own) = (
        root(&certificates.root),
        root(&certificates.other),
        root(&certificates.server),
    );
    let right = [
        ("elsewhere", "require", &good),
        ("elsewhere", "verify-ca", &good),
        ("localhost", "verify-full", &good),
        ("127.0.0.1", "verify-full", &good),
        ("localhost", "verify-full", &own),
    ];
    for (host, mode, root) in right {
        assert!(
            works(&dsn(host, "scram", &format!("sslmode={mode} {root}")))
                .await
                .is_encrypted()
        );
    }
    let nowhere = "sslrootcert=/nowhere".to_owned();
    let none = String::new();
    let wrong = [
        ("localhost", "require", &other, "handshake"),
        ("localhost", "verify-ca", &other, "handshake"),
        ("localhost", "verify-full", &other, "handshake"),
        ("elsewhere", "verify-full", &good, "handshake"),
        ("elsewhere", "verify-full", &own, "handshake"),
        ("localhost", "verify-ca", &none, "no authority"),
        ("localhost", "verify-ca", &nowhere, "/nowhere"),
    ];
    for (host, mode, root, words) in wrong {
        fails(
            &dsn(host, "scram", &format!("sslmode={mode} {root}")),
            ErrorKind::ConfigInvalid,
            words,
        )
        .await;
    }
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("client.key");
    std::fs::copy(&certificates.client_key, &key).unwrap();
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
    let more = format!(
        "sslmode=require sslcert={} sslkey={}",
        certificates.client.display(),
        key.display()
    );
    let with_cert = dsn("localhost", "app", &more);
    fails(&with_cert, ErrorKind::Refused, "others").await;
    std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
    works(&with_cert).await;
    fails(&dsn("localhost", "app", "sslmode=require"), ErrorKind::ConfigInvalid, "28000").await;
}

#[tokio::test]
async fn of_several_servers_the_wanted_one_is_found() {
    let mut primary = Cluster::start(16, &Options::new());
    let standby = primary.standby(&Options::new());
    let (standby_port, primary_port) = (standby.port(), primary.port());
    let dsn = |more: &str| {
        format!(
            "host=127.0.0.1,127.0.0.1,127.0.0.1 port=1,{},{} user=postgres {more}",
            standby_port, primary_port
        )
    };
    for (target, wanted) in [
        ("any", "on"),
        ("read-write", "off"),
        ("primary", "off"),
        ("standby", "on"),
        ("prefer-standby", "on"),
        ("read-only", "on"),
    ] {
        let connection = connect(&info(&dsn(&format!("target_session_attrs={target}"))), Mode::Replication)
            .await
            .unwrap();
        assert_eq!(connection.parameter("in_hot_standby"), Some(wanted), "{target}");
        assert_eq!(connection.major(), 16);
    }
    let rw = Sql::connect(&info(&dsn("target_session_attrs=read-write"))).await.unwrap();
    assert_eq!(
        rw.text("ask", "select pg_is_in_recovery()").await.unwrap(),
        [[Some("f".to_owned())]]
    );
    primary.stop(Stop::Fast);
    let error = connect(&info(&dsn("target_session_attrs=primary")), Mode::Sql)
        .await
        .unwrap_err();
    assert!(
        error.detail().contains("it is a standby") && error.detail().contains(&primary_port.to_string()),
        "{error:?}"
    );
    drop(standby);
    let error = connect(&info(&dsn("")), Mode::Sql).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
}

#[tokio::test]
async fn a_command_can_be_ended_from_outside_and_the_session_goes_on() {
    for (major, options, more) in [(15, Options::new().tls(), "?sslmode=require"), (18, Options::new(), "")] {
        let cluster = Cluster::start(major, &options);
        let mut connection = connect(&info(&(cluster.url("postgres", "postgres") + more)), Mode::Sql)
            .await
            .unwrap();
        let canceller = connection.canceller();
        let (ended, cancelled) = tokio::join!(connection.query("sleep in", "select pg_sleep(600)"), async {
            cluster.wait_until("select exists (select from pg_stat_activity where query like '%sleep(600)%' and pid <> pg_backend_pid() and wait_event = 'PgSleep')");
            canceller.cancel().await
        });
        cancelled.unwrap();
        assert_eq!(sqlstate(&ended.unwrap_err()), Some("57014"));
        assert_eq!(connection.query("ask", "select 7").await.unwrap()[0].first(0), Some("7"));
        connection
            .query("raise", "do $$ begin raise warning 'heard'; end $$")
            .await
            .unwrap();
        assert!(connection.take_notices().iter().any(|notice| notice.message == "heard"));
        connection.close().await.unwrap();
    }
}
