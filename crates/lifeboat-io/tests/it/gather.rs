//! Pieces that come in any order make the file they belong to, through the page cache and around it.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};

use lifeboat_io::direct::Aligned;
use lifeboat_io::gather::{BLOCK, Gather, ReadBack, Watch};
use lifeboat_model::ErrorKind;

/// Bytes that tell where they belong.
fn bytes_of(file: u64, size: usize) -> Vec<u8> {
    let mut state = file.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    (0..size)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 56) as u8
        })
        .collect()
}

/// Remembers what it is told.
#[derive(Debug, Default)]
struct Told(Mutex<Vec<(u64, u64, Vec<u8>)>>);

impl Watch for Told {
    fn written(&self, file: u64, offset: u64, bytes: &[u8]) {
        self.0.lock().unwrap().push((file, offset, bytes.to_vec()));
    }
}

fn read_all(file: &File, size: usize, around: bool) -> Vec<u8> {
    let (mut buffer, mut read_back, mut bytes) = (Aligned::new(1 << 16), ReadBack::new(file, around), Vec::new());
    while bytes.len() < size {
        let count = read_back
            .read_at(bytes.len() as u64, size - bytes.len(), &mut buffer)
            .unwrap();
        bytes.extend_from_slice(&buffer.bytes()[..count]);
    }
    bytes
}

/// Room for so few blocks that many are written before they are whole, and for so many that only the last ones are.
#[test]
fn pieces_in_any_order_make_the_file() {
    let sizes = [5_300_001_usize, 1 << 20, 4096, 3 << 20];
    for most in [1, 3, 64] {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let open = |number: u64| {
            let path = folder.path().join(number.to_string());
            Ok((File::options().read(true).write(true).open(path).unwrap(), number.to_string()))
        };
        let told = Arc::new(Told::default());
        let gather = Gather::new(most, Some(Arc::clone(&told) as Arc<dyn Watch>));
        let mut pieces = Vec::new();
        for (number, size) in (0_u64..).zip(sizes) {
            File::create(folder.path().join(number.to_string())).unwrap();
            let (mut at, mut length) = (0, 1_000);
            while at < size {
                length = (length * 7 + 13) % 200_000 + 1;
                let end = (at + length).min(size);
                pieces.push((number, at, end));
                at = end;
            }
        }
        // Not in order, and neighbours not far from each other, as chunks come from packs.
        let mixed: Vec<_> = pieces.chunks(9).flat_map(|some| some.iter().rev()).copied().collect();
        std::thread::scope(|scope| {
            for share in mixed.chunks(mixed.len().div_ceil(3)) {
                let (gather, open) = (&gather, &open);
                scope.spawn(move || {
                    for (number, from, to) in share {
                        let all = bytes_of(*number, sizes[usize::try_from(*number).unwrap()]);
                        gather.put(*number, *from as u64, &all[*from..*to], open).unwrap();
                    }
                });
            }
        });
        for (number, size) in (0_u64..).zip(sizes) {
            gather.end(number, &open).unwrap();
            let (file, _) = open(number).unwrap();
            assert_eq!(file.metadata().unwrap().len(), size as u64);
            for around in [false, true] {
                assert!(
                    read_all(&file, size, around) == bytes_of(number, size),
                    "file {number}, {most} blocks, around: {around}"
                );
            }
        }
        let told = told.0.lock().unwrap();
        for (number, offset, bytes) in told.iter() {
            let from = usize::try_from(*offset).unwrap();
            let all = bytes_of(*number, sizes[usize::try_from(*number).unwrap()]);
            assert!(from.is_multiple_of(BLOCK) && all[from..from + bytes.len()] == **bytes);
        }
        let whole: usize = told.iter().map(|(_, _, bytes)| bytes.len()).sum();
        assert!(
            most < 64 || whole == sizes.iter().sum::<usize>(),
            "with room for all, all is told"
        );
    }
}

#[test]
fn a_file_that_ends_early_is_an_error() {
    let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open(folder.path().join("short"))
        .unwrap();
    file.write_all_at(&[7; 5000], 0).unwrap();
    let mut buffer = Aligned::new(1 << 16);
    for around in [false, true] {
        let mut read_back = ReadBack::new(&file, around);
        assert_eq!(read_back.read_at(0, 9000, &mut buffer).unwrap(), 5000);
        assert_eq!(
            read_back.read_at(5000, 4000, &mut buffer).unwrap_err().kind(),
            std::io::ErrorKind::UnexpectedEof
        );
    }
}

#[test]
fn a_full_disk_is_an_error_that_says_so() {
    let open = |_| {
        Ok((
            File::options().read(true).write(true).open("/dev/full").unwrap(),
            "db/orders".to_owned(),
        ))
    };
    let gather = Gather::new(4, None);
    let error = gather.put(1, 0, &vec![1; 1 << 20], &open).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NoSpace, "{error}");
    assert!(error.to_string().contains("db/orders"), "{error}");
    gather.put(1, 1 << 20, b"part of a block", &open).unwrap();
    assert_eq!(gather.end(1, &open).unwrap_err().kind(), ErrorKind::NoSpace);
}
