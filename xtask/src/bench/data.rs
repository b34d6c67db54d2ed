//! The data of `bench repo`: real PostgreSQL files and bytes that do not compress, made once and kept under the target folder.
//!
//! Every page differs from every other and none is zero: deduplication and zero detection can win nothing.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufWriter, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::{Options, postgres};

/// Bytes of a PostgreSQL page.
pub(crate) const PAGE: usize = 8192;
/// Fixed seed: the same bytes on every machine where the generator is ours.
const SEED: &[u8] = b"lifeboat bench repo 1";

/// Where the data is and how much.
#[derive(Debug)]
pub(crate) struct Source {
    /// A flat folder of files, each a whole number of pages.
    pub(crate) folder: PathBuf,
    /// Sum of their sizes.
    pub(crate) size_bytes: u64,
    stamp: PathBuf,
}

/// Makes the data unless it is there.
pub(crate) fn prepare(options: &Options) -> Result<Source> {
    let kind = if options.quick { "quick" } else { "full" };
    let base = options.folder.join(format!("repo-{kind}"));
    let (folder, stamp) = (base.join("source"), base.join("complete"));
    let half: u64 = if options.quick { 64 << 20 } else { 1 << 30 };
    if !stamp.try_exists()? {
        println!("making {} MiB of data (once)", half >> 19);
        if base.try_exists()? {
            std::fs::remove_dir_all(&base)?;
        }
        std::fs::create_dir_all(&folder)?;
        postgres::make_files(&folder, half, options.quick)?;
        make_noise(&folder, half)?;
        sync(&folder)?;
        File::create(&stamp)?.sync_all()?;
    }
    let size_bytes = size_of(&folder)?;
    Ok(Source {
        folder,
        size_bytes,
        stamp,
    })
}

/// Bytes that do not compress: the output of a keyed hash, in files of 64 MiB.
fn make_noise(folder: &Path, bytes: u64) -> Result<()> {
    let file_bytes: u64 = 64 << 20;
    for number in 0..bytes.div_ceil(file_bytes) {
        let mut stream = stream(&format!("noise {number}"));
        let mut file = BufWriter::with_capacity(1 << 20, File::create(folder.join(format!("noise-{number:03}")))?);
        let mut buffer = vec![0_u8; 1 << 20];
        for _ in 0..(file_bytes >> 20) {
            stream.fill(&mut buffer);
            file.write_all(&buffer)?;
        }
        file.flush()?;
    }
    Ok(())
}

/// A seeded stream of bytes.
pub(crate) fn stream(purpose: &str) -> blake3::OutputReader {
    blake3::Hasher::new().update(SEED).update(purpose.as_bytes()).finalize_xof()
}

/// A number below `limit` from the stream.
pub(crate) fn below(stream: &mut blake3::OutputReader, limit: u64) -> u64 {
    let mut bytes = [0_u8; 8];
    stream.fill(&mut bytes);
    u64::from_le_bytes(bytes) % limit.max(1)
}

/// Copies a file page by page without zero pages and without pages that `seen` holds; stops at `limit_bytes`.
pub(crate) fn copy_distinct(from: &Path, to: &Path, limit_bytes: u64, seen: &mut HashSet<[u8; 32]>) -> Result<u64> {
    let mut input = File::open(from)?;
    let mut output = BufWriter::with_capacity(1 << 20, File::create(to)?);
    let mut page = vec![0_u8; PAGE];
    let mut written = 0;
    let page_bytes = PAGE as u64;
    while written + page_bytes <= limit_bytes {
        match input.read_exact(&mut page) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => break,
            Err(error) => return Err(error.into()),
        }
        if page.iter().all(|byte| *byte == 0) || !seen.insert(*blake3::hash(&page).as_bytes()) {
            continue;
        }
        output.write_all(&page)?;
        written += page_bytes;
    }
    output.flush()?;
    Ok(written)
}

/// One per cent of the pages changed; puts the old ones back when dropped.
#[derive(Debug)]
pub(crate) struct Changed<'source> {
    source: &'source Source,
    old: Vec<(PathBuf, u64, Vec<u8>)>,
    /// The changed pages, one after the other.
    pub(crate) pages: Vec<u8>,
}

/// Changes every page with a chance of one in a hundred as an update of a row would: the header and 128 bytes somewhere behind it.
pub(crate) fn change_one_per_cent(source: &Source) -> Result<Changed<'_>> {
    // A run that dies now leaves data that is not what the stamp says.
    std::fs::remove_file(&source.stamp)?;
    let mut changed = Changed {
        source,
        old: Vec::new(),
        pages: Vec::new(),
    };
    let mut stream = stream("changes");
    for path in files(&source.folder)? {
        let file = File::options().read(true).write(true).open(&path)?;
        for index in 0..file.metadata()?.len() / PAGE as u64 {
            if below(&mut stream, 100) != 0 {
                continue;
            }
            let offset = index * PAGE as u64;
            let mut page = vec![0_u8; PAGE];
            file.read_exact_at(&mut page, offset)?;
            changed.old.push((path.clone(), offset, page.clone()));
            let place = 24 + usize::try_from(below(&mut stream, 8000))?;
            for range in [0..10, place..place + 128] {
                stream.fill(page.get_mut(range).context("a place outside the page")?);
            }
            file.write_all_at(&page, offset)?;
            changed.pages.extend_from_slice(&page);
        }
        file.sync_all()?;
    }
    Ok(changed)
}

impl Drop for Changed<'_> {
    fn drop(&mut self) {
        let restored = self.old.iter().try_for_each(|(path, offset, page)| {
            let file = File::options().write(true).open(path)?;
            file.write_all_at(page, *offset)
        });
        // Without the stamp the data is made again next time, which is right when it could not be put back.
        if restored.and_then(|()| File::create(&self.source.stamp).map(drop)).is_err() {
            println!("the benchmark data could not be put back; it will be made again");
        }
    }
}

/// The files of a folder at any depth, by name.
pub(crate) fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_path_buf()];
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                waiting.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Sum of the sizes of all files below a folder.
pub(crate) fn size_of(folder: &Path) -> Result<u64> {
    files(folder)?
        .iter()
        .try_fold(0, |sum, path| Ok(sum + path.metadata()?.len()))
}

/// Reads everything once, so that it lies in the page cache.
pub(crate) fn warm(folder: &Path) -> Result<()> {
    for path in files(folder)? {
        std::io::copy(&mut File::open(path)?, &mut std::io::sink())?;
    }
    Ok(())
}

/// Makes everything on the file system of `folder` durable.
pub(crate) fn sync(folder: &Path) -> Result<()> {
    let mut command = crate::sh::program("sync", ["-f"]);
    crate::sh::output(command.arg(folder)).map(drop)
}

/// Fails unless every file of `source` lies below `restored` with the same bytes.
pub(crate) fn compare(source: &Path, restored: &Path) -> Result<()> {
    let found = files(restored)?;
    for path in files(source)? {
        let name = path.file_name().context("a file without a name")?;
        let Some(other) = found.iter().find(|other| other.file_name() == Some(name)) else {
            bail!("{} was not restored", path.display());
        };
        if digest(&path)? != digest(other)? {
            bail!("{} differs from {}", other.display(), path.display());
        }
    }
    Ok(())
}

fn digest(path: &Path) -> Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(File::open(path)?)?;
    Ok(hasher.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn zero_and_repeated_pages_are_dropped() {
        let folder = tempfile::tempdir().unwrap();
        let mut bytes = vec![1_u8; PAGE];
        bytes.extend(vec![0_u8; PAGE]);
        bytes.extend(vec![1_u8; PAGE]);
        bytes.extend(vec![2_u8; PAGE]);
        bytes.extend(vec![3_u8; 100]);
        let (from, to) = (folder.path().join("a"), folder.path().join("b"));
        std::fs::write(&from, &bytes).unwrap();
        let written = copy_distinct(&from, &to, 1 << 20, &mut HashSet::new()).unwrap();
        assert_eq!((written, to.metadata().unwrap().len()), (2 * 8192, 2 * 8192));
        assert_eq!(copy_distinct(&from, &to, 8192, &mut HashSet::new()).unwrap(), 8192);
    }

    #[test]
    fn changes_are_put_back_and_differences_are_noticed() {
        let base = tempfile::tempdir().unwrap();
        let (folder, other) = (base.path().join("source"), base.path().join("other"));
        for folder in [&folder, &other] {
            std::fs::create_dir(folder).unwrap();
            make_noise(folder, 1).unwrap();
        }
        let stamp = base.path().join("complete");
        std::fs::write(&stamp, "").unwrap();
        let size_bytes = size_of(&folder).unwrap();
        let source = Source {
            folder,
            size_bytes,
            stamp,
        };
        let changed = change_one_per_cent(&source).unwrap();
        let pages = changed.pages.len() / PAGE;
        assert!((40..140).contains(&pages), "{pages} of 8192 pages");
        assert!(!source.stamp.try_exists().unwrap());
        assert!(compare(&source.folder, &other).is_err());
        drop(changed);
        compare(&source.folder, &other).unwrap();
        assert!(source.stamp.try_exists().unwrap());
    }
}
