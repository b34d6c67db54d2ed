//! The pages of a cluster whose server is stopped: every one that has a number is looked at (PG-11).

use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use lifeboat_model::check::Outcome;
use lifeboat_model::time::human_bytes;
use lifeboat_model::{Error, ErrorKind, Lsn, Result};

use super::{EVIDENCE, counted, cut};
use crate::postgres::capture::{Facts, PagesOf, pages_of};
use crate::postgres::page::{PAGE_BYTES, Verdict, judge};

/// What it is called.
const NAME: &str = "page checksums";
/// Bytes that are read at once.
const READ_BYTES: usize = 1 << 20;

#[derive(Debug, Default)]
struct Seen {
    pages: u64,
    bad: u64,
    /// File and block of the first ones.
    named: Vec<(String, u32)>,
}

/// Checks all pages below `data_dir`, with `threads` readers. `facts` says which of them were damaged in the source already. Blocks.
pub fn check(data_dir: &Path, facts: &Facts, threads: usize) -> Outcome {
    match look(data_dir, threads) {
        Ok(None) => Outcome::not_available(NAME, "the cluster has no page checksums (pg_checksums --enable makes them)"),
        Ok(Some(seen)) => judged(&seen, facts),
        Err(error) => Outcome::failed(NAME, format!("the files could not be read: {error}")),
    }
}

fn judged(seen: &Seen, facts: &Facts) -> Outcome {
    let pages = counted(seen.pages, "page", "pages");
    let size = human_bytes(seen.pages * PAGE_BYTES as u64);
    if seen.bad == 0 {
        return Outcome::passed(NAME, format!("{pages} ({size}) are as they were written"));
    }
    let is_known = |path: &str, block: u32| {
        facts
            .bad_pages
            .iter()
            .any(|(known, number, _)| (known.as_str(), *number) == (path, block))
    };
    let evidence = seen.named.iter().map(|(path, block)| {
        let known = if is_known(path, *block) {
            ", damaged in the source already"
        } else {
            ""
        };
        cut(&format!("block {block} of {path}{known}"))
    });
    Outcome::failed(NAME, format!("{} of {pages} are damaged", seen.bad)).with_evidence(evidence.collect())
}

/// `None` where pages have no numbers, or other sizes than ours.
fn look(data_dir: &Path, threads: usize) -> Result<Option<Seen>> {
    let PagesOf { files, checkable } = pages_of(data_dir)?;
    if !checkable {
        return Ok(None);
    }
    let next = AtomicUsize::new(0);
    let parts: Vec<Result<Seen>> = std::thread::scope(|scope| {
        let work = || {
            let mut seen = Seen::default();
            let mut buffer = vec![0; READ_BYTES];
            while let Some((path, place, first_block)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                look_at(path, place, *first_block, &mut buffer, &mut seen)?;
            }
            Ok(seen)
        };
        let readers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        readers
            .into_iter()
            .map(|reader| reader.join().unwrap_or_else(|_| Err(panicked())))
            .collect()
    });
    let mut all = Seen::default();
    for part in parts {
        let part = part?;
        all.pages += part.pages;
        all.bad += part.bad;
        all.named.extend(part.named);
    }
    all.named.sort();
    all.named.truncate(EVIDENCE);
    Ok(Some(all))
}

fn look_at(path: &str, place: &Path, first_block: u32, buffer: &mut [u8], seen: &mut Seen) -> Result<()> {
    let failed = |error| Error::io("read", place.display(), error);
    let mut file = File::open(place).map_err(failed)?;
    let mut block = first_block;
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read(&mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
        for page in buffer[..filled].chunks(PAGE_BYTES) {
            seen.pages += 1;
            // Nothing is behind the log: recovery has ended, and the server was stopped with a checkpoint.
            if judge(page, block, Lsn(u64::MAX)) != Verdict::Fine {
                seen.bad += 1;
                if seen.named.len() < EVIDENCE {
                    seen.named.push((path.to_owned(), block));
                }
            }
            block = block.saturating_add(1);
        }
        if filled < buffer.len() {
            return Ok(());
        }
    }
}

fn panicked() -> Error {
    Error::new(ErrorKind::Bug, "check", "the pages of a cluster", "a reader panicked")
}
