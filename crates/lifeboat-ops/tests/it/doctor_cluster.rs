//! What the doctor finds out about a server, and that what it advises mends it.

use lifeboat_engine::postgres::{ConnInfo, Surroundings};
use lifeboat_ops::doctor::{self, Check, Outcome};
use lifeboat_ops::protected::{self, Care, Login, Mode};
use lifeboat_testkit::postgres::{Cluster, Options, majors};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

fn source(dsn: &str) -> protected::Cluster {
    protected::Cluster {
        method: lifeboat_ops::protected::Method::Physical,
        logical: lifeboat_ops::protected::Logical::default(),
        login: Login::known(ConnInfo::parse(dsn, &Surroundings::default()).unwrap()),
        data_dir: None,
        mode: Mode::Auto,
        slot: "lifeboat_test".to_owned(),
        binaries: Vec::new(),
        program: "lifeboat".into(),
        care: Care::default(),
    }
}

async fn not_good(dsn: &str) -> Vec<Check> {
    let checks = doctor::server(&source(dsn)).await;
    checks.into_iter().filter(|check| check.outcome != Outcome::Good).collect()
}

fn fix(check: &Check) -> &str {
    check.fix.as_deref().expect("every finding says what to do")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_role_lacks_is_named_and_the_statements_mend_it() {
    for major in majors() {
        let mut options = Options::new().set("fsync", "on");
        if major >= 17 {
            options = options.set("summarize_wal", "on");
        }
        let cluster = Cluster::start(major, &options);
        cluster.query("create role poor login");
        let dsn = cluster.dsn("poor", "postgres");
        let found = not_good(&dsn).await;
        assert!(found.iter().any(|check| check.outcome == Outcome::Bad), "{major}: {found:?}");
        assert!(
            found.iter().any(|check| check.says.contains("may not replicate")),
            "{major}: {found:?}"
        );
        for check in &found {
            let statement = fix(check).strip_prefix("in the database postgres: ").unwrap_or(fix(check));
            if statement.starts_with("GRANT") || statement.starts_with("ALTER ROLE") {
                cluster.query(statement);
            }
        }
        let left = not_good(&dsn).await;
        assert!(left.is_empty(), "{major}: {left:?}");
        // Once there is a slot, it may fill the server's disk.
        cluster.query("select pg_create_physical_replication_slot('lifeboat_test', true)");
        let found = not_good(&dsn).await;
        let [only] = found.as_slice() else {
            panic!("{major}: {found:?}")
        };
        assert!(only.says.contains("max_slot_wal_keep_size has no limit"), "{only:?}");
        for statement in fix(only).split("; ") {
            cluster.query(statement);
        }
        cluster.wait_until("select setting <> '-1' from pg_settings where name = 'max_slot_wal_keep_size'");
        let left = not_good(&dsn).await;
        assert!(left.is_empty(), "{major}: {left:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_not_let_in_is_told_why() {
    let rules = ["host all known all scram-sha-256", "hostssl all tls all trust"];
    let cluster = Cluster::start(15, &Options::new().hba(&rules).tls());
    cluster.query("create role known login replication password 'right'; create role tls login");
    let dsn = |user: &str, rest: &str| format!("host=127.0.0.1 port={} dbname=postgres user={user} {rest}", cluster.port());
    for (dsn, says, advice) in [
        (
            dsn("known", "password=wrong sslmode=disable"),
            "password",
            "check the password",
        ),
        (dsn("tls", "sslmode=disable"), "no encryption", "sslmode=require"),
        (dsn("nobody", "sslmode=disable"), "pg_hba.conf", "pg_hba.conf"),
    ] {
        let found = not_good(&dsn).await;
        let [only] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(only.outcome, Outcome::Bad);
        assert!(only.says.contains(says) && fix(only).contains(advice), "{only:?}");
    }
    // Let in for SQL, and not to replicate.
    let found = not_good(&dsn("known", "password=right sslmode=disable")).await;
    assert!(
        found.iter().any(|check| fix(check).contains("host replication known")),
        "{found:?}"
    );
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    [&[tag][..], &length, body].concat()
}

/// Lets everybody in, and answers each query with these two texts.
async fn old_server(mut stream: TcpStream, values: [&'static str; 2]) -> std::io::Result<()> {
    let length = stream.read_u32().await?;
    let mut startup = vec![0; usize::try_from(length).unwrap() - 4];
    stream.read_exact(&mut startup).await?;
    let ready = message(b'Z', b"I");
    let greeting = [
        message(b'R', &[0; 4]),
        message(b'S', format!("server_version\0{}\0", values[1]).as_bytes()),
        ready.clone(),
    ];
    stream.write_all(&greeting.concat()).await?;
    loop {
        let tag = stream.read_u8().await?;
        let length = stream.read_u32().await?;
        let mut body = vec![0; usize::try_from(length).unwrap() - 4];
        stream.read_exact(&mut body).await?;
        if tag != b'Q' {
            return Ok(());
        }
        let mut columns = 2_u16.to_be_bytes().to_vec();
        let mut row = columns.clone();
        for value in values {
            columns.extend([b'v', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 25, 255, 255, 255, 255, 255, 255, 0, 0]);
            row.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
            row.extend(value.as_bytes());
        }
        let answer = [
            message(b'T', &columns),
            message(b'D', &row),
            message(b'C', b"SELECT 1\0"),
            ready.clone(),
        ];
        stream.write_all(&answer.concat()).await?;
    }
}

#[tokio::test]
async fn a_server_that_is_too_old_is_refused_in_clear_words() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut servers = JoinSet::new();
    servers.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            drop(old_server(stream, ["130021", "13.21"]).await);
        }
    });
    let found = not_good(&format!("host=127.0.0.1 port={port} user=me dbname=postgres sslmode=disable")).await;
    let [only] = found.as_slice() else { panic!("{found:?}") };
    assert_eq!(only.outcome, Outcome::Bad);
    assert!(
        only.says.contains("13.21") && only.says.contains("14 is the oldest"),
        "{only:?}"
    );
}
