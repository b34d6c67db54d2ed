//! The raw pipeline: the least that any encrypted, compressed and digested backup must do, with no format around it.
//!
//! Threads read 1 MiB, digest each 128 KiB with BLAKE3, compress it with zstd 1, seal it with AES-256-GCM and gather 16 MiB;
//! other threads write and fsync that. It keeps no index, so what it writes can never be restored: it is a limit, not a rival.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use serde_json::json;

use super::data;

const SEGMENT: usize = 1 << 20;
const EXTENT: usize = 128 << 10;
const PACK: usize = 16 << 20;
const LEVEL: i32 = 1;
/// Packs that wait for the disk, per writer.
const WAITING: usize = 1;
const WRITERS: usize = 2;

/// `xtask raw-pipeline FROM TO`: prints what it read, wrote and took.
pub(crate) fn run(words: &[String]) -> Result<()> {
    let [from, to] = words else {
        bail!("usage: xtask raw-pipeline FROM TO");
    };
    let threads = std::thread::available_parallelism()?.get();
    let began = Instant::now();
    let (read, stored) = pipeline(Path::new(from), Path::new(to), threads)?;
    println!(
        "{}",
        json!({"read_bytes": read, "stored_bytes": stored, "seconds": began.elapsed().as_secs_f64(), "threads": threads})
    );
    Ok(())
}

/// One segment of work: a file and where in it.
type Segment = (usize, u64, usize);

fn pipeline(from: &Path, to: &Path, threads: usize) -> Result<(u64, u64)> {
    std::fs::create_dir_all(to)?;
    let mut files = Vec::new();
    let mut segments: Vec<Segment> = Vec::new();
    let mut total = 0;
    for (index, path) in data::files(from)?.iter().enumerate() {
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        let step = SEGMENT as u64;
        for offset in (0..size).step_by(SEGMENT) {
            segments.push((index, offset, usize::try_from(step.min(size - offset))?));
        }
        total += size;
        files.push(file);
    }
    let next = AtomicU64::new(0);
    let take = || {
        usize::try_from(next.fetch_add(1, Ordering::Relaxed))
            .ok()
            .and_then(|at| segments.get(at).copied())
    };
    let (full, to_write) = sync_channel::<Vec<u8>>(WAITING);
    let (written, empty) = sync_channel::<Vec<u8>>(threads + WAITING + WRITERS);
    let (to_write, empty) = (Mutex::new(to_write), Mutex::new(empty));
    let packs = AtomicU64::new(0);
    let stored = AtomicU64::new(0);
    std::thread::scope(|scope| -> Result<()> {
        let writers: Vec<_> = (0..WRITERS)
            .map(|_| {
                let written = written.clone();
                scope.spawn(|| write_packs(to, &to_write, written, &packs, &stored))
            })
            .collect();
        let workers: Vec<_> = (0..threads)
            .map(|number| {
                let full = full.clone();
                let (files, take, empty) = (&files, &take, &empty);
                scope.spawn(move || seal_segments(u32::try_from(number)?, files, take, &full, empty))
            })
            .collect();
        drop(full);
        for thread in workers.into_iter().chain(writers) {
            thread
                .join()
                .map_err(|_panic| anyhow!("a thread of the pipeline panicked"))??;
        }
        Ok(())
    })?;
    File::open(to)?.sync_all()?;
    Ok((total, stored.into_inner()))
}

/// Digests, compresses and seals segments until none is left.
fn seal_segments(
    number: u32,
    files: &[File],
    take: &(dyn Fn() -> Option<Segment> + Sync),
    full: &SyncSender<Vec<u8>>,
    empty: &Mutex<Receiver<Vec<u8>>>,
) -> Result<()> {
    let key = UnboundKey::new(&AES_256_GCM, &[7; 32]).map_err(|_unspecified| anyhow!("the key was refused"))?;
    let key = LessSafeKey::new(key);
    let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
    let mut segment = vec![0_u8; SEGMENT];
    let mut extent = vec![0_u8; zstd::zstd_safe::compress_bound(EXTENT)];
    let mut pack = Vec::with_capacity(PACK + EXTENT + 64);
    let mut digest = blake3::Hasher::new();
    let mut counter = 0_u64;
    while let Some((file, offset, length)) = take() {
        let segment = segment.get_mut(..length).context("a segment that is too long")?;
        files.get(file).context("no such file")?.read_exact_at(segment, offset)?;
        for raw in segment.chunks(EXTENT) {
            digest.reset().update(raw);
            let id = digest.finalize();
            let size = compressor.compress_to_buffer(raw, extent.as_mut_slice())?;
            let start = pack.len();
            match extent.get(..size) {
                Some(smaller) if size < raw.len() => pack.extend_from_slice(smaller),
                _ => pack.extend_from_slice(raw),
            }
            let mut nonce = [0_u8; 12];
            nonce[..4].copy_from_slice(&number.to_le_bytes());
            nonce[4..].copy_from_slice(&counter.to_le_bytes());
            counter += 1;
            let text = pack.get_mut(start..).context("an empty pack")?;
            let tag = key
                .seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), Aad::from(id.as_bytes()), text)
                .map_err(|_unspecified| anyhow!("sealing failed"))?;
            pack.extend_from_slice(tag.as_ref());
        }
        if pack.len() >= PACK {
            let fresh = empty.lock().unwrap_or_else(PoisonError::into_inner).try_recv();
            let fresh = fresh.unwrap_or_else(|_none| Vec::with_capacity(PACK + SEGMENT + EXTENT));
            full.send(std::mem::replace(&mut pack, fresh))?;
        }
    }
    if !pack.is_empty() {
        full.send(pack)?;
    }
    Ok(())
}

/// Writes packs to the disk until no worker is left.
fn write_packs(
    to: &Path,
    packs: &Mutex<Receiver<Vec<u8>>>,
    empty: SyncSender<Vec<u8>>,
    number: &AtomicU64,
    stored: &AtomicU64,
) -> Result<()> {
    loop {
        let received = packs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(mut pack) = received else {
            return Ok(());
        };
        let name: PathBuf = to.join(format!("{:06}", number.fetch_add(1, Ordering::Relaxed)));
        let mut file = File::create(name)?;
        file.write_all(&pack)?;
        file.sync_all()?;
        stored.fetch_add(pack.len() as u64, Ordering::Relaxed);
        pack.clear();
        // Buffers go round; where nobody waits for one it is dropped.
        drop(empty.try_send(pack));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_is_read_and_written_once() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        std::fs::create_dir(&from).unwrap();
        let mut noise = vec![0_u8; 3 << 20];
        data::stream("test").fill(&mut noise);
        std::fs::write(from.join("noise"), &noise).unwrap();
        std::fs::write(from.join("text"), vec![b'x'; 5 << 20]).unwrap();
        let (read, stored) = pipeline(&from, &to, 2).unwrap();
        assert_eq!(read, 8 << 20);
        assert_eq!(stored, data::size_of(&to).unwrap());
        // The noise stays as long as it is, with a tag for each extent; the rest nearly vanishes.
        assert!(stored > (3 << 20) + 24 * 16 && stored < (3 << 20) + 10_000, "{stored}");
    }
}
