//! Going once through the records of all log that a restore replays.

use lifeboat_engine::postgres::records::{End, Record, Scan};
use lifeboat_io::compute;
use lifeboat_model::{Lsn, Result};
use lifeboat_repo::block_end;

use super::Archive;

/// Shows `state` each record that begins on the page of `from` or behind it, up to `until`, and says where they ended. While a block is looked through, the next one is
/// fetched.
pub(crate) async fn walk<T: Send + 'static>(
    archive: &Archive,
    (from, until): (Lsn, Lsn),
    mut state: T,
    see: fn(&mut T, &Record),
) -> Result<(T, End)> {
    let mut scan = Scan::new(from, archive.segment_size());
    let begin = scan.begins();
    let mut end = block_end(begin).min(until);
    let mut bytes = match begin < until {
        true => archive.along_way(begin, end).await?,
        false => Vec::new(),
    };
    while !bytes.is_empty() && !scan.is_over() {
        let look = compute::run("look through the log", move || {
            scan.take(&bytes, |record| see(&mut state, record));
            Ok((scan, state))
        });
        let (start, stop) = (end, block_end(end).min(until));
        let next = async {
            match start < until {
                true => archive.along_way(start, stop).await,
                false => Ok(Vec::new()),
            }
        };
        let (looked, fetched) = tokio::join!(look, next);
        (scan, state) = looked?;
        // What cannot be fetched behind the last record is of no interest.
        bytes = if scan.is_over() { Vec::new() } else { fetched? };
        end = stop;
    }
    let end = scan.finish(|record| see(&mut state, record));
    Ok((state, end))
}
