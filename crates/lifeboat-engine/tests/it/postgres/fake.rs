//! A server that lies, stops in the middle, or is none: always an error, never a panic, never for ever; and what older servers send.

use std::time::Duration;

use lifeboat_engine::postgres::replication::backup::{Event, Request};
use lifeboat_engine::postgres::replication::stream::{Received, Started};
use lifeboat_engine::postgres::wire::{Mode, connect};
use lifeboat_model::lsn::{Lsn, Position, Timeline};
use lifeboat_model::{ErrorKind, Result};
use lifeboat_testkit::env::SeededEntropy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::info;

fn entropy() -> SeededEntropy {
    let seed = std::env::var("LIFEBOAT_TEST_SEED").map_or(1, |text| text.parse().unwrap());
    SeededEntropy::new(seed)
}

fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let mut all = vec![tag];
    all.extend(u32::try_from(body.len() + 4).unwrap().to_be_bytes());
    all.extend(body);
    all
}

fn row(values: &[Option<&str>]) -> Vec<u8> {
    let mut described = u16::try_from(values.len()).unwrap().to_be_bytes().to_vec();
    let mut data = described.clone();
    for value in values {
        described.extend(b"c\0");
        described.extend([0; 18]);
        match value {
            Some(value) => {
                data.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
                data.extend(value.as_bytes());
            }
            None => data.extend((-1_i32).to_be_bytes()),
        }
    }
    let mut all = message(b'T', &described);
    all.extend(message(b'D', &data));
    all.extend(message(b'C', b"SELECT\0"));
    all
}

fn greeting(version: &str) -> Vec<u8> {
    let mut all = message(b'R', &0_u32.to_be_bytes());
    all.extend(message(b'S', format!("server_version\0{version}\0").as_bytes()));
    all.extend(message(b'K', &[0; 8]));
    all.extend(message(b'Z', b"I"));
    all
}

fn copy(tag: u8) -> Vec<u8> {
    message(tag, &[0, 0, 0])
}

fn data(bytes: &[u8]) -> Vec<u8> {
    message(b'd', bytes)
}

/// Answers every connection with this, one part to each message, then closes; returns where it listens.
async fn server(parts: Vec<Vec<u8>>) -> u16 {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let parts = parts.clone();
            tokio::spawn(async move {
                for part in parts {
                    let mut asked = [0; 4096];
                    if !matches!(socket.read(&mut asked).await, Ok(1..)) || socket.write_all(&part).await.is_err() {
                        return;
                    }
                }
                drop(socket.shutdown().await);
            });
        }
    });
    port
}

fn dsn(port: u16) -> String {
    format!("host=127.0.0.1 port={port} user=u password=p sslmode=disable connect_timeout=3")
}

/// All commands, one after another, each on a connection of its own.
async fn everything(port: u16) -> Vec<Result<()>> {
    let mut all = Vec::new();
    for number in 0..4 {
        let work = async {
            let mut connection = connect(&info(&dsn(port)), Mode::Replication).await?;
            connection.set_silence(Duration::from_secs(1));
            match number {
                0 => connection.identify_system().await.map(|_| ()),
                1 => {
                    let mut backup = connection.base_backup(&Request::new("x")).await?;
                    while backup.next().await? != Event::End {}
                    backup.finish().await.map(|_| ())
                }
                2 => connection.timeline_history(Timeline::FIRST).await.map(|_| ()),
                _ => match connection
                    .start_replication(None, Position::new(Timeline::FIRST, Lsn(0)))
                    .await?
                {
                    Started::Ended(..) => Ok(()),
                    Started::Streaming(mut stream) => {
                        while stream.reader.next().await? != Received::EndOfTimeline {}
                        stream.reader.end(stream.writer).await.map(|_| ())
                    }
                },
            }
        };
        all.push(tokio::time::timeout(Duration::from_secs(30), work).await.expect("it hangs"));
    }
    all
}

/// What 15 says to BASE_BACKUP.
fn backup_of_15() -> Vec<u8> {
    [
        row(&[Some("0/2000028"), Some("1")]),
        row(&[None, None, None]),
        copy(b'H'),
        data(b"nbase.tar\0\0"),
        data(b"dsome bytes"),
        message(b'N', b"SNOTICE\0Mwait\0\0"),
        data(b"m"),
        data(b"d{}"),
        message(b'c', b""),
        row(&[Some("0/2000100"), Some("1")]),
        message(b'C', b"BASE_BACKUP\0"),
        message(b'Z', b"I"),
    ]
    .concat()
}

#[tokio::test]
async fn whatever_is_cut_off_or_changed_is_an_error_and_ends() {
    let answers = [
        [row(&[Some("77"), Some("1"), Some("0/3000000"), None]), message(b'Z', b"I")].concat(),
        backup_of_15(),
        [row(&[Some("00000001.history"), Some("1\t0/1\tx")]), message(b'Z', b"I")].concat(),
        [
            copy(b'W'),
            data(&[b"w".as_slice(), &[0; 24], b"log"].concat()),
            message(b'c', b""),
            row(&[Some("2"), Some("0/3")]),
            message(b'Z', b"I"),
        ]
        .concat(),
    ];
    // As they are, each is understood.
    for (number, answer) in answers.iter().enumerate() {
        let port = server(vec![greeting("15.4"), answer.clone()]).await;
        let result = &everything(port).await[number];
        assert!(result.is_ok(), "{number}: {result:?}");
    }
    let entropy = entropy();
    for (number, answer) in answers.iter().enumerate() {
        for _ in 0..12 {
            let mut random = [0; 8];
            lifeboat_model::env::Entropy::fill(&entropy, &mut random).unwrap();
            let at = usize::from(u16::from_be_bytes([random[0], random[1]])) % (answer.len() - 6);
            let port = server(vec![greeting("15.4"), answer[..at].to_vec()]).await;
            let result = &everything(port).await[number];
            assert!(
                result.is_err(),
                "{number} cut at {at}: {result:?} (repeat with LIFEBOAT_TEST_SEED)"
            );
            let mut changed = answer.clone();
            changed[at] ^= random[2] | 1;
            // What is changed inside a value may still be a value: it must only end.
            everything(server(vec![greeting("15.4"), changed]).await).await;
        }
    }
}

#[tokio::test]
async fn noise_is_not_a_server() {
    let entropy = entropy();
    for _ in 0..60 {
        let mut noise = vec![0; 200];
        lifeboat_model::env::Entropy::fill(&entropy, &mut noise).unwrap();
        let port = server(vec![noise.clone()]).await;
        let error = connect(&info(&dsn(port)), Mode::Replication).await.unwrap_err();
        assert!(
            matches!(error.kind(), ErrorKind::Failed | ErrorKind::Unreachable | ErrorKind::TimedOut),
            "{error:?}"
        );
        // With the kind of a message that belongs there.
        noise[0] = b'R';
        noise[1..4].fill(0);
        let port = server(vec![noise]).await;
        connect(&info(&dsn(port)), Mode::Replication).await.unwrap_err();
    }
    let error = connect(
        &info(&dsn(server(vec![b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()]).await)),
        Mode::Sql,
    )
    .await
    .unwrap_err();
    assert!(error.hint().unwrap().contains("PostgreSQL server"), "{error:?}");
}

#[tokio::test]
async fn a_server_that_proves_nothing_or_asks_for_endless_work_is_refused() {
    let sasl = message(b'R', &[&10_u32.to_be_bytes()[..], b"SCRAM-SHA-256\0\0"].concat());
    let endless = message(b'R', &[&11_u32.to_be_bytes()[..], b"r=x,s=QUJD,i=4000000000"].concat());
    let error = connect(&info(&dsn(server(vec![sasl.clone(), endless]).await)), Mode::Sql)
        .await
        .unwrap_err();
    assert!(error.detail().contains("rounds"), "{error:?}");
    // Straight to "you are in", without the proof that it knows the password too.
    let error = connect(&info(&dsn(server(vec![sasl, greeting("15.1")]).await)), Mode::Sql)
        .await
        .unwrap_err();
    assert!(error.detail().contains("step 0"), "{error:?}");
    // One that lets us in and never says that it is ready.
    let mute = server(vec![message(b'R', &0_u32.to_be_bytes()), Vec::new()]).await;
    let error = connect(&info(&dsn(mute)), Mode::Sql).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
}

#[tokio::test]
async fn the_log_has_no_holes() {
    let log = |start: u64, text: &[u8]| data(&[b"w".as_slice(), &start.to_be_bytes(), &[0; 16], text].concat());
    let port = server(vec![
        greeting("16.1"),
        [copy(b'W'), log(100, b"abc"), log(104, b"d")].concat(),
    ])
    .await;
    let connection = connect(&info(&dsn(port)), Mode::Replication).await.unwrap();
    let Started::Streaming(mut stream) = connection
        .start_replication(None, Position::new(Timeline::FIRST, Lsn(100)))
        .await
        .unwrap()
    else {
        panic!("ended")
    };
    assert!(matches!(stream.reader.next().await.unwrap(), Received::Log { .. }));
    assert_eq!(stream.reader.next().await.unwrap_err().kind(), ErrorKind::Corrupt);
}

#[tokio::test]
async fn the_form_of_14_comes_out_as_the_same_events() {
    let answer = [
        row(&[Some("0/2000028"), Some("3")]),
        {
            // Two rows in one result set.
            let one = row(&[Some("16384"), Some("/space"), Some("12")]);
            let two = row(&[None, None, Some("7")]);
            let complete = message(b'C', b"SELECT\0");
            let described = 5 + 2 + 3 * 20;
            [&one[..one.len() - complete.len()], &two[described..]].concat()
        },
        copy(b'H'),
        data(b"tar of the tablespace"),
        message(b'c', b""),
        copy(b'H'),
        data(b"tar of the rest"),
        message(b'c', b""),
        copy(b'H'),
        data(b"{manifest}"),
        message(b'c', b""),
        row(&[Some("0/2000100"), Some("3")]),
        message(b'C', b"BASE_BACKUP\0"),
        message(b'Z', b"I"),
    ]
    .concat();
    let port = server(vec![greeting("14.9 (Debian)"), answer]).await;
    let connection = connect(&info(&dsn(port)), Mode::Replication).await.unwrap();
    assert_eq!(connection.major(), 14);
    let mut backup = connection.base_backup(&Request::new("x")).await.unwrap();
    assert_eq!(backup.tablespaces()[0].size, Some(12 * 1024));
    let mut events = Vec::new();
    loop {
        match backup.next().await.unwrap() {
            Event::End => break,
            event => events.push(event),
        }
    }
    let archive = |name: &str, location: Option<&str>| Event::Archive {
        name: name.into(),
        location: location.map(str::to_owned),
    };
    let bytes = |text: &'static str| Event::Data(text.into());
    let wanted = [
        archive("16384.tar", Some("/space")),
        bytes("tar of the tablespace"),
        archive("base.tar", None),
        bytes("tar of the rest"),
        Event::Manifest,
        bytes("{manifest}"),
    ];
    assert_eq!(events, wanted);
    let (end, _) = backup.finish().await.unwrap();
    assert_eq!((end.lsn, end.timeline.number()), (Lsn(0x200_0100), 3));
}
