//! Page files: read in parallel, written in any order.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::path::Path;

use lifeboat_io::durable;
use lifeboat_io::flow::{EXTENT_BYTES, FilePages, PageSink, PageSource, SEGMENT_BYTES};
use lifeboat_io::sink::FileSink;
use lifeboat_model::ErrorKind;

fn content(size: usize) -> Vec<u8> {
    (0..size).map(|at| u8::try_from((at / 512 + at) % 251).unwrap()).collect()
}

fn pages(path: &Path) -> FilePages {
    FilePages::new(File::open(path).unwrap(), "the file", 4096).unwrap()
}

#[test]
fn several_readers_get_every_byte_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pages");
    for size in [0, 1, EXTENT_BYTES, SEGMENT_BYTES, 5 * SEGMENT_BYTES + 4096] {
        let bytes = content(size);
        durable::replace_file(&path, &bytes, 0o600).unwrap();
        let source = pages(&path);
        assert_eq!((source.size_bytes(), source.page_size()), (size as u64, 4096));
        let read = || {
            let (mut segments, mut buffer) = (Vec::new(), Vec::new());
            while let Some(offset) = source.next_segment(&mut buffer).unwrap() {
                segments.push((offset, buffer.clone()));
            }
            segments
        };
        let all: Vec<_> = std::thread::scope(|scope| {
            let readers: Vec<_> = (0..4).map(|_| scope.spawn(read)).collect();
            readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect()
        });
        let count = all.len();
        let ordered: BTreeMap<_, _> = all.into_iter().collect();
        assert_eq!(ordered.len(), count, "no segment twice");
        let aligned = |(offset, segment): (&u64, &Vec<u8>)| offset % EXTENT_BYTES as u64 == 0 && segment.len() <= SEGMENT_BYTES;
        assert!(ordered.iter().all(aligned));
        assert!(ordered.into_values().flatten().eq(bytes), "{size}");
    }
}

#[test]
fn a_file_that_becomes_shorter_is_an_error_and_not_zeros() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pages");
    durable::replace_file(&path, &content(3 * SEGMENT_BYTES), 0o600).unwrap();
    let source = pages(&path);
    let mut buffer = Vec::new();
    source.next_segment(&mut buffer).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(SEGMENT_BYTES as u64 + 1).unwrap();
    let error = source.next_segment(&mut buffer).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error:?}");
}

#[test]
fn what_goes_around_the_cache_and_what_does_not_end_in_one_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    let open = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    let size = (1 << 20) + 77;
    let expected: Vec<u8> = (0..size).map(|at: usize| u8::try_from(at * 31 % 251).unwrap()).collect();
    let sink = FileSink::new(open, "out").around_cache(size as u64).unwrap();
    for (index, piece) in expected.chunks(128 << 10).enumerate() {
        sink.write_at(index as u64 * (128 << 10), piece).unwrap();
    }
    // A base first, then pages over it, as a restore does; one of them lies across two direct writes, one is not aligned.
    for (offset, length) in [(8192_u64, 8192), ((128 << 10) - 4096, 8192), (300_001, 70_000)] {
        sink.write_at(offset, &vec![7; length]).unwrap();
    }
    sink.write_at(256 << 10, &vec![9; 128 << 10]).unwrap();
    let mut expected = expected;
    for (offset, length, byte) in [
        (8192, 8192, 7),
        ((128 << 10) - 4096, 8192, 7),
        (300_001, 70_000, 7),
        (256 << 10, 128 << 10, 9),
    ] {
        expected[offset..offset + length].fill(byte);
    }
    let mut back = vec![0; 4096];
    sink.read_at(256 << 10, &mut back).unwrap();
    assert_eq!(back, vec![9; 4096]);
    sink.finish(size as u64).unwrap();
    assert!(std::fs::read(&path).unwrap() == expected);
}

#[test]
fn a_sink_takes_places_in_any_order_and_ends_at_its_size() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    let open = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(&path)
        .unwrap();
    let sink = FileSink::new(open, "out");
    sink.write_at(10_000, b"later").unwrap();
    sink.write_at(0, b"first").unwrap();
    let mut buffer = [9; 8];
    sink.read_at(10_002, &mut buffer).unwrap();
    assert_eq!(&buffer, b"ter\0\0\0\0\0");
    sink.read_at(3, &mut buffer).unwrap();
    assert_eq!(&buffer, b"st\0\0\0\0\0\0");
    sink.finish(10_002).unwrap();
    let written = std::fs::read(&path).unwrap();
    assert_eq!((written.len(), &written[10_000..]), (10_002, &b"la"[..]));
    sink.finish(20_000).unwrap();
    assert_eq!(path.metadata().unwrap().len(), 20_000);
}
