//! The log as it is streamed is the log as it stands in the server's files, over promotions, lost slots and lost servers.

use std::time::Duration;

use lifeboat_engine::postgres::replication::stream::{Received, Started, Status, Stream};
use lifeboat_engine::postgres::sqlstate;
use lifeboat_model::ErrorKind;
use lifeboat_model::lsn::{Lsn, Position, Timeline};
use lifeboat_testkit::postgres::{Cluster, Options, majors};

use super::replication;

const MIB: u64 = 1 << 20;

fn at(timeline: u32, lsn: u64) -> Position {
    Position::new(Timeline::new(timeline).unwrap(), Lsn(lsn))
}

async fn streaming(cluster: &Cluster, slot: Option<&str>, from: Position) -> Stream {
    match replication(cluster).await.start_replication(slot, from).await.unwrap() {
        Started::Streaming(stream) => stream,
        Started::Ended(next, _) => panic!("ended: {next:?}"),
    }
}

fn status(lsn: Lsn, reply: bool) -> Status {
    Status {
        written: lsn,
        flushed: lsn,
        now_us: 1_800_000_000_000_000,
        reply,
    }
}

/// Receives up to this position.
async fn receive(stream: &mut Stream, until: Lsn) -> Vec<u8> {
    let mut all = Vec::new();
    while stream.reader.position() < until {
        match stream.reader.next().await.unwrap() {
            Received::Log { data, .. } => all.extend_from_slice(&data),
            Received::Alive { .. } => {}
            Received::EndOfTimeline => break,
        }
    }
    all
}

/// The log in the server's own file, from the start of a segment of 1 MiB on.
fn in_file(cluster: &Cluster, timeline: u32, segment: u64, length: usize) -> Vec<u8> {
    let name = format!("{timeline:08X}{:08X}{:08X}", segment / 4096, segment % 4096);
    let mut bytes = std::fs::read(cluster.data_dir().join("pg_wal").join(name)).unwrap();
    bytes.truncate(length);
    bytes
}

fn small_segments() -> Options {
    Options::new()
        .fresh(&["--wal-segsize=1"])
        .set("min_wal_size", "2MB")
        .set("max_wal_size", "2MB")
        .set("wal_keep_size", "0")
}

fn flushed(cluster: &Cluster) -> Lsn {
    cluster.query("select pg_current_wal_flush_lsn()").parse().unwrap()
}

#[tokio::test]
async fn what_is_streamed_is_what_stands_in_the_file_and_the_slot_follows() {
    for major in majors() {
        let cluster = Cluster::start(major, &small_segments());
        let mut connection = replication(&cluster).await;
        let identity = connection.identify_system().await.unwrap();
        assert_eq!(identity.system, cluster.system_identifier());
        assert_eq!(identity.position.timeline, Timeline::FIRST);
        assert_eq!(connection.wal_segment_size().await.unwrap(), MIB);
        assert_eq!(connection.show("data_directory_mode").await.unwrap(), "0700");
        assert_eq!(
            connection.show("no_such_setting").await.unwrap_err().kind(),
            ErrorKind::NotFound
        );
        assert_eq!(connection.major(), major);

        assert_eq!(connection.read_slot("follow").await.unwrap(), None);
        connection.create_slot("follow", false).await.unwrap();
        assert_eq!(
            connection.create_slot("follow", false).await.unwrap_err().kind(),
            ErrorKind::AlreadyExists
        );
        let slot = connection.read_slot("follow").await.unwrap().unwrap();
        let from = Lsn(slot.restart.unwrap().0 / MIB * MIB);
        assert_eq!(
            connection.create_slot("Bad-Name", false).await.unwrap_err().kind(),
            ErrorKind::ConfigInvalid
        );

        let mut stream = streaming(&cluster, Some("follow"), Position::new(Timeline::FIRST, from)).await;
        cluster.query("create table t as select generate_series(1, 3000) as i");
        let until = flushed(&cluster);
        let received = receive(&mut stream, until).await;
        assert!(stream.reader.position() >= until);
        let first = received.len().min(usize::try_from(MIB).unwrap());
        assert!(
            received[..first] == in_file(&cluster, 1, from.0 / MIB, first),
            "the first segment differs"
        );

        // Somebody else cannot have the slot meanwhile.
        let error = replication(&cluster)
            .await
            .start_replication(Some("follow"), at(1, from.0))
            .await
            .unwrap_err();
        assert_eq!((error.kind(), sqlstate(&error)), (ErrorKind::Locked, Some("55006")));

        stream.writer.send(status(until, true)).await.unwrap();
        loop {
            match stream.reader.next().await.unwrap() {
                Received::Alive { .. } => break,
                Received::Log { .. } => {}
                Received::EndOfTimeline => panic!("ended"),
            }
        }
        cluster.wait_until(&format!(
            "select bool_or(flush_lsn = '{until}' and replay_lsn is null) from pg_stat_replication"
        ));
        cluster.wait_until(&format!("select restart_lsn = '{until}' from pg_replication_slots"));
        let (next, mut connection) = stream.reader.end(stream.writer).await.unwrap();
        assert_eq!(next, None);
        connection.identify_system().await.unwrap();
        connection.drop_slot("follow").await.unwrap();
        assert_eq!(connection.drop_slot("follow").await.unwrap_err().kind(), ErrorKind::NotFound);
        let error = connection.start_replication(Some("follow"), at(1, from.0)).await.unwrap_err();
        assert_eq!((error.kind(), sqlstate(&error)), (ErrorKind::NotFound, Some("42704")));

        recycled(&cluster, from).await;
    }
}

/// The log goes, and a slot that is made anew is above what we had. The server says so after it has agreed to stream.
async fn recycled(cluster: &Cluster, from: Lsn) {
    for _ in 0..4 {
        cluster.query("insert into t select generate_series(1, 3000); select pg_switch_wal(); checkpoint");
    }
    replication(cluster).await.create_slot("follow", false).await.unwrap();
    let mut stream = streaming(cluster, Some("follow"), at(1, from.0)).await;
    let error = stream.reader.next().await.unwrap_err();
    let found = (error.kind(), sqlstate(&error));
    assert_eq!(found, (ErrorKind::NotFound, Some("58P01")), "{error:?}");
}

#[tokio::test]
async fn a_promotion_while_streaming_ends_the_timeline_exactly() {
    for major in majors() {
        let primary = Cluster::start(major, &small_segments());
        primary.query("create table t as select generate_series(1, 100) as i");
        let standby = primary.standby(&Options::new());
        standby.wait_for_replay(&primary);
        let from = Lsn(flushed(&primary).0 / MIB * MIB);
        let mut stream = streaming(&standby, None, Position::new(Timeline::FIRST, from)).await;
        primary.query("insert into t select 0");
        receive(&mut stream, flushed(&primary)).await;
        standby.promote();
        while stream.reader.next().await.unwrap() != Received::EndOfTimeline {}
        let end = stream.reader.position();
        let (next, mut connection) = stream.reader.end(stream.writer).await.unwrap();
        let switch = next.unwrap().switch;
        assert_eq!((switch.timeline.number(), switch.lsn), (2, end));
        let history = connection.timeline_history(switch.timeline).await.unwrap();
        assert_eq!(history.name, "00000002.history");
        assert!(
            String::from_utf8_lossy(&history.content).contains(&format!("1\t{}\t", switch.lsn)),
            "{history:?}"
        );
        let error = connection.timeline_history(Timeline::FIRST).await.unwrap_err();
        assert_eq!((error.kind(), sqlstate(&error)), (ErrorKind::NotFound, Some("58P01")));

        // Exactly at the switch there is nothing to copy; behind it is not in the history of this server.
        let old = Position::new(Timeline::FIRST, switch.lsn);
        let Started::Ended(next, mut connection) = connection.start_replication(None, old).await.unwrap() else {
            panic!("streams at the switch")
        };
        assert_eq!(next.switch, switch);
        connection.identify_system().await.unwrap();
        let error = connection
            .start_replication(None, at(1, switch.lsn.0 + MIB))
            .await
            .unwrap_err();
        assert_eq!(sqlstate(&error), Some("XX000"), "{error:?}");

        let from = Lsn(switch.lsn.0 / MIB * MIB);
        let mut stream = streaming(&standby, None, Position::new(switch.timeline, from)).await;
        standby.query("insert into t select -1");
        let received = receive(&mut stream, flushed(&standby)).await;
        let first = received.len().min(usize::try_from(MIB).unwrap());
        assert!(received[..first] == in_file(&standby, 2, from.0 / MIB, first));
    }
}

#[tokio::test]
async fn a_server_that_dies_is_an_error_at_once_and_one_that_is_silent_after_a_while() {
    for major in majors() {
        let mut cluster = Cluster::start(major, &small_segments());
        let from = Lsn(flushed(&cluster).0 / MIB * MIB);
        let mut stream = streaming(&cluster, None, Position::new(Timeline::FIRST, from)).await;
        receive(&mut stream, flushed(&cluster)).await;
        cluster.kill_9();
        let error = loop {
            match stream.reader.next().await {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::Unreachable, "{error:?}");
        assert!(error.kind().is_retryable());
        cluster.begin();
        let mut connection = replication(&cluster).await;
        connection.set_silence(Duration::from_millis(50));
        let Started::Streaming(mut stream) = connection
            .start_replication(None, Position::new(Timeline::FIRST, from))
            .await
            .unwrap()
        else {
            panic!("ended")
        };
        let error = loop {
            match stream.reader.next().await {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::TimedOut, "{error:?}");
    }
}
