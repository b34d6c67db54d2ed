//! Streams that several threads store side by side, and that are read front to back.

use std::io::{self, Read};

use lifeboat_model::ErrorKind;
use lifeboat_repo::{Reader, Writer};
use lifeboat_testkit::pages::random_bytes;
use tokio::sync::mpsc;

use crate::world::{Content, Files, World, meta};

/// Text of which a part repeats: chunks that are stored once and named often.
fn text(number: u64) -> Vec<u8> {
    let mut bytes = random_bytes(number, 900_000);
    bytes.extend(std::iter::repeat_n(b"the same line again\n", 200_000).flatten());
    bytes.extend(random_bytes(number + 100, usize::try_from(number).unwrap() * 70_001));
    bytes
}

async fn in_order(reader: &Reader, path: &str) -> Vec<u8> {
    let file = reader.files().iter().find(|file| file.meta.path == path).unwrap();
    let (sender, mut pieces) = mpsc::channel(2);
    let reading = reader.read_in_order(file, &sender);
    let taking = async {
        let mut bytes = Vec::new();
        while let Some(piece) = pieces.recv().await {
            bytes.extend(piece);
            if bytes.len() as u64 == file.size_bytes {
                break;
            }
        }
        bytes
    };
    let (read, bytes) = tokio::join!(reading, taking);
    read.unwrap();
    bytes
}

#[tokio::test]
async fn streams_that_are_stored_side_by_side_come_back_in_order() {
    let world = World::new(31).await;
    for _ in 0..2 {
        let mut writer = Writer::begin(&world.env, &world.repository, world.plan()).await.unwrap();
        let streams = writer.streams();
        let stored: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4)
                .map(|number| {
                    let streams = streams.clone();
                    scope.spawn(move || (number, streams.store("it", io::Cursor::new(text(number))).unwrap()))
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for (number, stream) in stored {
            assert_eq!(stream.size_bytes(), text(number).len() as u64);
            writer.add_stream(meta(&format!("s{number}")), stream).unwrap();
        }
        let committed = writer.commit(1_700_000_000_000_000, serde_json::json!({})).await.unwrap();
        let files: Files = (0..4)
            .map(|number| (format!("s{number}"), Content::Stream(text(number))))
            .collect();
        world.assert_holds(&committed.backup, &files).await;
        let reader = world.open(&committed.backup).await.unwrap();
        for number in 0..4 {
            assert!(in_order(&reader, &format!("s{number}")).await == text(number), "{number}");
        }
    }
}

/// Says no after some bytes.
struct Breaks(usize);

impl Read for Breaks {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::Error::other("the source is gone"));
        }
        let count = buffer.len().min(self.0);
        buffer[..count].fill(7);
        self.0 -= count;
        Ok(count)
    }
}

#[tokio::test]
async fn a_stream_that_was_begun_and_is_not_part_of_it_stands_in_the_way_of_a_backup() {
    for breaks in [true, false] {
        let world = World::new(32).await;
        let writer = Writer::begin(&world.env, &world.repository, world.plan()).await.unwrap();
        let streams = writer.streams();
        if breaks {
            let error = streams.store("it", Breaks(3 << 20)).unwrap_err();
            assert!(error.to_string().contains("the source is gone"), "{error}");
            // The others stop.
            assert_eq!(
                streams.store("another", io::Cursor::new(text(1))).unwrap_err().kind(),
                ErrorKind::Interrupted
            );
        } else {
            drop(streams.store("it", io::Cursor::new(text(1))).unwrap());
        }
        let error = writer.commit(1_700_000_000_000_000, serde_json::json!({})).await.unwrap_err();
        assert!(error.to_string().contains("not stored whole"), "{error}");
        assert!(world.listing().await.backups.is_empty());
    }
}

#[tokio::test]
async fn a_stream_that_nobody_takes_is_not_read_on() {
    let world = World::new(33).await;
    let files = Files::from([("s".to_owned(), Content::Stream(text(2)))]);
    let committed = world.backup(&files).await;
    let reader = world.open(&committed.backup).await.unwrap();
    let (sender, pieces) = mpsc::channel(1);
    drop(pieces);
    let error = reader.read_in_order(&reader.files()[0], &sender).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Interrupted);
}
