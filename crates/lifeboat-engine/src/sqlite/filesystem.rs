//! Which databases live on a network file system, where SQLite's locks cannot be relied on.
//!
//! Only says so; whether that refuses a run or warns is the caller's decision.

use std::path::{Path, PathBuf};

use lifeboat_model::{Error, Result};

const FUSE_MAGIC: u32 = 0x6573_5546;

/// Kinds of FUSE mounts that are remote. Any other FUSE mount counts as local.
const REMOTE_FUSE: [&str; 14] = [
    "sshfs",
    "glusterfs",
    "s3fs",
    "rclone",
    "goofys",
    "mount-s3",
    "gcsfuse",
    "blobfuse",
    "blobfuse2",
    "ceph",
    "juicefs",
    "davfs",
    "curlftpfs",
    "moosefs",
];

/// The kind of network file system that holds `path` (`nfs`, `cifs`, `fuse.sshfs`, …), or `None` on a local one.
/// For a path that does not exist yet, the nearest folder above it that does is asked.
///
/// # Errors
/// When the file system cannot be asked, or `/proc/self/mounts` cannot be read for a FUSE mount.
pub fn network_filesystem(path: &Path) -> Result<Option<String>> {
    let absolute = std::path::absolute(path).map_err(|error| Error::io("find the file system of", path.display(), error))?;
    let existing = nearest_existing(&absolute)?;
    let answer =
        rustix::fs::statfs(&existing).map_err(|error| Error::io("find the file system of", path.display(), error.into()))?;
    let magic = magic_of(&answer);
    let mount_type = if magic == FUSE_MAGIC { mount_type(&existing)? } else { None };
    Ok(classify(magic, mount_type.as_deref()))
}

/// The kind of network file system behind a magic number of `statfs` (its low 32 bits) and, for FUSE, the type that the mount table names.
fn classify(magic: u32, mount_type: Option<&str>) -> Option<String> {
    let name = match magic {
        0x6969 => "nfs",
        0x517B => "smb",
        0xFF53_4D42 => "cifs",
        0xFE53_4D42 => "smb2",
        0x0102_1997 => "9p",
        0x5346_414F => "afs",
        0x00C3_6400 => "ceph",
        FUSE_MAGIC => return mount_type.filter(|kind| is_remote_fuse(kind)).map(str::to_owned),
        _ => return None,
    };
    Some(name.to_owned())
}

/// `fuse.sshfs` and, as some helpers register themselves, plain `sshfs`.
fn is_remote_fuse(mount_type: &str) -> bool {
    let kind = mount_type.strip_prefix("fuse.").unwrap_or(mount_type);
    REMOTE_FUSE.contains(&kind)
}

/// `f_type` is a signed word whose width differs between machines; the numbers above all fit 32 bits, so the rest is only sign.
fn magic_of(answer: &rustix::fs::StatFs) -> u32 {
    let bytes = answer.f_type.to_le_bytes();
    let mut low = [0_u8; 4];
    for (slot, byte) in low.iter_mut().zip(bytes) {
        *slot = byte;
    }
    u32::from_le_bytes(low)
}

fn nearest_existing(path: &Path) -> Result<PathBuf> {
    for candidate in path.ancestors() {
        match std::fs::canonicalize(candidate) {
            Ok(real) => return Ok(real),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io("find the file system of", path.display(), error)),
        }
    }
    Ok(PathBuf::from("/"))
}

fn mount_type(path: &Path) -> Result<Option<String>> {
    let table = std::fs::read_to_string("/proc/self/mounts")
        .map_err(|error| Error::io("read the mount table", "/proc/self/mounts", error))?;
    Ok(type_in_table(&table, path))
}

/// The type of the mount that holds `path`: the longest mount point above it, and of equal ones the last, which covers the others.
fn type_in_table(table: &str, path: &Path) -> Option<String> {
    let mut best: Option<(usize, &str)> = None;
    for line in table.lines() {
        let mut fields = line.split(' ');
        let (Some(point), Some(kind)) = (fields.nth(1), fields.next()) else {
            continue;
        };
        let point = unescape(point);
        let length = point.as_os_str().len();
        if path.starts_with(&point) && best.is_none_or(|(longest, _)| length >= longest) {
            best = Some((length, kind));
        }
    }
    best.map(|(_, kind)| kind.to_owned())
}

/// The mount table writes space, tab, newline and backslash as three octal digits.
fn unescape(point: &str) -> PathBuf {
    let plain = [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")];
    PathBuf::from(
        plain
            .iter()
            .fold(point.to_owned(), |text, (escaped, meant)| text.replace(escaped, meant)),
    )
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{FUSE_MAGIC, classify, network_filesystem, type_in_table};

    #[test]
    fn network_file_systems_are_named_by_their_magic_number() {
        let known = [
            (0x6969, "nfs"),
            (0x517B, "smb"),
            (0xFF53_4D42, "cifs"),
            (0xFE53_4D42, "smb2"),
            (0x0102_1997, "9p"),
            (0x5346_414F, "afs"),
            (0x00C3_6400, "ceph"),
        ];
        for (magic, name) in known {
            assert_eq!(classify(magic, None).as_deref(), Some(name));
        }
        for local in [0xEF53, 0x5846_5342, 0x9123_683E, 0x0102_1994, 0x794C_7630, 0x2FC1_2FC1] {
            assert_eq!(classify(local, None), None, "{local:x}");
        }
    }

    #[test]
    fn fuse_is_remote_only_when_the_mount_table_says_so() {
        assert_eq!(classify(FUSE_MAGIC, Some("fuse.sshfs")).as_deref(), Some("fuse.sshfs"));
        assert_eq!(classify(FUSE_MAGIC, Some("fuse.rclone")).as_deref(), Some("fuse.rclone"));
        assert_eq!(classify(FUSE_MAGIC, Some("fuseblk")), None);
        assert_eq!(classify(FUSE_MAGIC, Some("fuse.mergerfs")), None);
        assert_eq!(classify(FUSE_MAGIC, None), None);
        assert_eq!(classify(0xEF53, Some("fuse.sshfs")), None, "the magic number decides first");
    }

    #[test]
    fn the_innermost_and_last_mount_decides() {
        let table =
            "a / ext4 rw 0 0\nb /srv fuse.rclone rw 0 0\nc /srv/my\\040data ext4 rw 0 0\nd /srv/my\\040data fuse.sshfs rw 0 0\n";
        assert_eq!(
            type_in_table(table, Path::new("/srv/my data/app.db")).as_deref(),
            Some("fuse.sshfs")
        );
        assert_eq!(type_in_table(table, Path::new("/srv/app.db")).as_deref(), Some("fuse.rclone"));
        assert_eq!(type_in_table(table, Path::new("/srvother/app.db")).as_deref(), Some("ext4"));
        assert_eq!(type_in_table("", Path::new("/srv")), None);
    }

    #[test]
    fn a_local_folder_and_a_file_that_is_not_there_yet_are_answered() {
        assert_eq!(network_filesystem(Path::new("/proc/not/there.db")).unwrap(), None);
        assert_eq!(network_filesystem(Path::new("/proc")).unwrap(), None);
    }
}
