//! A folder as a store: whose it is, who can enter, how much room there is, and what is mounted there.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use lifeboat_io::compute;
use lifeboat_model::time::human_bytes;
use lifeboat_model::{ErrorKind, Result};

use crate::doctor::Check;

/// Looks at a folder. `min_free_bytes` gets the size of the file system and says how much of it must be free.
pub async fn check(path: &Path, min_free_bytes: impl Fn(u64) -> Option<u64> + Send + 'static) -> Result<Vec<Check>> {
    let path = path.to_path_buf();
    compute::run("look at the store", move || Ok(look(&path, &min_free_bytes))).await
}

fn look(path: &Path, min_free_bytes: &dyn Fn(u64) -> Option<u64>) -> Vec<Check> {
    let meta = match path.metadata() {
        Ok(meta) if meta.is_dir() => meta,
        Ok(_) => return vec![Check::bad(format!("{} is no folder", path.display()), "correct `path:`")],
        Err(error) => {
            let error = lifeboat_model::Error::io("look at", path.display(), error);
            let fix = if error.kind() == ErrorKind::NotFound {
                "mount the disk that belongs there; for a new store, `lifeboat store setup` makes the folder"
            } else {
                "give this user permission to enter it"
            };
            return vec![Check::bad(error.to_string(), fix)];
        }
    };
    let mut checks = vec![Check::good(format!("the folder {} is there", path.display()))];
    owner(path, &meta, &mut checks);
    mounted(path, &mut checks);
    room(path, min_free_bytes, &mut checks);
    checks
}

fn owner(path: &Path, meta: &std::fs::Metadata, checks: &mut Vec<Check>) {
    let (me, mode) = (rustix::process::geteuid().as_raw(), meta.mode() & 0o7777);
    if meta.uid() != me && meta.uid() != 0 {
        checks.push(Check::warning(
            format!(
                "it belongs to user {}, Lifeboat runs as {me}: that user can remove every backup",
                meta.uid()
            ),
            format!("chown it to the user that runs Lifeboat: chown {me} {}", path.display()),
        ));
    }
    checks.push(if mode & 0o022 != 0 {
        Check::bad(
            format!("others can write into it (mode {mode:o}): any of them can remove every backup"),
            format!("chmod 700 {}", path.display()),
        )
    } else if mode & 0o077 != 0 {
        Check::warning(
            format!("others can look into it (mode {mode:o})"),
            format!("chmod 700 {}", path.display()),
        )
    } else {
        Check::good("only its owner can enter it")
    });
    if let Err(error) = rustix::fs::access(path, rustix::fs::Access::WRITE_OK | rustix::fs::Access::READ_OK) {
        checks.push(Check::bad(
            format!("it cannot be read and written ({})", std::io::Error::from(error)),
            "mount it writable, or give this user permission",
        ));
    }
}

/// Says what is mounted there: an empty mount point looks like an empty folder.
fn mounted(path: &Path, checks: &mut Vec<Check>) {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_path_buf());
    let Ok(table) = std::fs::read_to_string("/proc/self/mounts") else {
        return;
    };
    let mut best: Option<(usize, String)> = None;
    for line in table.lines() {
        let mut words = line.split(' ');
        let (Some(device), Some(point), Some(kind)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        // Spaces in the table are written as \040.
        let point = point.replace("\\040", " ");
        let length = point.len();
        if real.starts_with(&point) && best.as_ref().is_none_or(|(known, _)| length >= *known) {
            best = Some((length, format!("{device} ({kind}), mounted at {point}")));
        }
    }
    if let Some((_, says)) = best {
        checks.push(Check::good(format!("it lies on {says}")));
    }
}

fn room(path: &Path, min_free_bytes: &dyn Fn(u64) -> Option<u64>, checks: &mut Vec<Check>) {
    let stat = match rustix::fs::statvfs(path) {
        Ok(stat) => stat,
        Err(error) => {
            let says = format!("nobody knows how much room there is ({})", std::io::Error::from(error));
            return checks.push(Check::warning(says, "look at the file system"));
        }
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let size = stat.f_blocks.saturating_mul(stat.f_frsize);
    let wanted = min_free_bytes(size).unwrap_or(0);
    checks.push(if free < wanted {
        Check::bad(
            format!(
                "{} are free, the configuration wants {}: no backup begins",
                human_bytes(free),
                human_bytes(wanted)
            ),
            "free space, or use a larger disk",
        )
    } else {
        Check::good(format!("{} of {} are free", human_bytes(free), human_bytes(size)))
    });
}
