//! What libpq reads, read as libpq does, and no password in any text.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use lifeboat_engine::postgres::conninfo::{Endpoint, Password, SslMode, Target};
use lifeboat_engine::postgres::{ConnInfo, Surroundings};
use lifeboat_model::ErrorKind;

use super::info;

fn with(variables: &[(&str, &str)], home: Option<&Path>) -> Surroundings {
    Surroundings {
        variables: variables
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect(),
        home: home.map(PathBuf::from),
        user: Some("os".to_owned()),
    }
}

fn hosts(info: &ConnInfo) -> Vec<String> {
    info.hosts().iter().map(ToString::to_string).collect()
}

fn known(info: &ConnInfo, database: &str) -> Option<String> {
    match info.password(&info.hosts()[0], database) {
        Password::Known(password) => Some(password.to_string()),
        Password::None | Password::Unusable(..) => None,
    }
}

#[test]
fn urls_and_keyword_strings_say_the_same() {
    let url = "postgresql://me:p%40ss%3A@db1:5433,[::1],db3:6000/my%20db?sslmode=verify-full&target_session_attrs=read-write&connect_timeout=7";
    let keywords = r"host = db1,::1,db3 port='5433,5432,6000' user=me password='p@ss:' dbname='my db' sslmode=verify-full
                     target_session_attrs=read-write connect_timeout=7";
    for info in [info(url), info(keywords)] {
        assert_eq!(hosts(&info), ["db1:5433", "[::1]:5432", "db3:6000"]);
        assert_eq!((info.user(), info.database()), ("me", "my db"));
        assert_eq!(known(&info, "x").unwrap(), "p@ss:");
        assert_eq!((info.ssl_mode, info.target), (SslMode::VerifyFull, Target::ReadWrite));
        assert_eq!(info.connect_limit.as_secs(), 7);
        assert!(!format!("{info:?} {info}").contains("p@ss"), "{info:?}");
    }
    let socket = info("postgresql://me@%2Fvar%2Flib%2Fsock:5555/db");
    assert_eq!(socket.hosts()[0].endpoint, Endpoint::Socket("/var/lib/sock".into()));
    assert_eq!(socket.hosts()[0].port, 5555);
    assert_eq!(
        info(r"user=u host=h password='it\'s \\ fine'")
            .password(&info("host=h user=u").hosts()[0], "x")
            .text(),
        "it's \\ fine"
    );
    assert_eq!(known(&info("postgres://u:a@b:c@h/d"), "x").unwrap(), "a@b:c");
    let both = info("host=db hostaddr=10.0.0.1 user=u");
    assert_eq!(
        both.hosts()[0].endpoint,
        Endpoint::Tcp {
            name: "db".into(),
            address: Some("10.0.0.1".into())
        }
    );
}

trait Text {
    fn text(&self) -> &str;
}

impl Text for Password {
    fn text(&self) -> &str {
        match self {
            Password::Known(password) => password,
            Password::None | Password::Unusable(..) => panic!("no password"),
        }
    }
}

#[test]
fn what_cannot_be_understood_is_an_error_without_the_secret() {
    for wrong in [
        "http://secret@host/db",
        "postgresql://u:secret@h:99999/db",
        "postgresql://u:secret@h:0/db",
        "postgresql://u:se%zzcret@h/db",
        "postgresql://u:secret@[::1/db",
        "host=h user=u password='secret",
        "secret host=h",
        "host=a,b port=1,2,3 password=secret user=u",
        "host=a,b hostaddr=1.1.1.1 password=secret user=u",
        "user=u host=h password=secret sslmode=sometimes",
        "user=u host=h password=secret colour=red",
        "user=u host=h password=secret sslcrl=/x",
        "user=u host=h password=secret require_auth=scram-sha-256",
        "user=u host=h password=secret sslrootcert=system sslmode=require",
        "user=u host=h password=secret connect_timeout=soon",
        "user=u host=h password=secret service=nobody",
        "host=h password=secret",
    ] {
        let error = ConnInfo::parse(wrong, &Surroundings::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConfigInvalid, "{wrong}");
        let said = format!("{error:?} {error}");
        assert!(!said.contains("secret") && error.hint().is_some(), "{said}");
    }
}

#[test]
fn words_before_the_service_before_variables_before_defaults() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(
        home.path().join(".pg_service.conf"),
        "# a comment\n[other]\nhost=no\n[mine]\nhost=fromservice\nport=7\ndbname=d\n",
    )
    .unwrap();
    let around = with(
        &[
            ("PGHOST", "fromenv"),
            ("PGPORT", "8"),
            ("PGUSER", "envuser"),
            ("PGSSLMODE", "require"),
            ("PGPASSWORD", "hidden"),
        ],
        Some(home.path()),
    );
    let plain = ConnInfo::parse("", &around).unwrap();
    assert_eq!(hosts(&plain), ["fromenv:8"]);
    assert_eq!(
        (plain.user(), plain.database(), plain.ssl_mode),
        ("envuser", "envuser", SslMode::Require)
    );
    assert_eq!(known(&plain, "x").unwrap(), "hidden");
    assert!(!format!("{around:?}").contains("hidden"));
    let service = ConnInfo::parse("service=mine port=9", &around).unwrap();
    assert_eq!((hosts(&service), service.database()), (vec!["fromservice:9".to_owned()], "d"));
    let bare = ConnInfo::parse("host=h", &with(&[], None)).unwrap();
    assert_eq!(
        (bare.user(), bare.database(), bare.ssl_mode, bare.target),
        ("os", "os", SslMode::Prefer, Target::Any)
    );
}

#[test]
fn password_files_as_libpq_reads_them() {
    let home = tempfile::tempdir().unwrap();
    let place = home.path().join(".pgpass");
    std::fs::write(
        &place,
        "# first line\nother:5432:*:os:wrong\nh:5432:replication:os:repl\nh:*:*:os:a\\:b\\\\c:rest\n*:*:*:*:last\n/run/s:5432:*:*:sock\n",
    )
    .unwrap();
    let around = with(&[], Some(home.path()));
    let parsed = |text: &str| ConnInfo::parse(text, &around).unwrap();
    std::fs::set_permissions(&place, PermissionsExt::from_mode(0o644)).unwrap();
    let open = parsed("host=h");
    let found = open.password(&open.hosts()[0], "db");
    assert!(
        matches!(&found, Password::Unusable(_, why) if why.contains("chmod 0600")),
        "{found:?}"
    );
    std::fs::set_permissions(&place, PermissionsExt::from_mode(0o600)).unwrap();
    assert_eq!(known(&open, "replication").unwrap(), "repl");
    assert_eq!(known(&open, "db").unwrap(), "a:b\\c");
    assert_eq!(known(&parsed("host=h user=else"), "db").unwrap(), "last");
    assert_eq!(known(&parsed("host=h password=given"), "db").unwrap(), "given");
    assert_eq!(known(&parsed("host=h passfile=/nowhere"), "db"), None);
}
