//! Files and folders: configuration, certificates, whatever is not a database.
//!
//! Rules that hold everywhere in this folder:
//! - What was asked for is captured, or the capture fails with its path: nothing is skipped because it could not be read (INV-03).
//! - Names are bytes. Links are never followed unless the configuration says so, and never while restoring.
//! - The source is never changed, access times aside.

mod capture;
mod diff;
mod entry;
mod env;
mod facts;
mod glob;
mod memory;
mod options;
mod place;
mod read;
mod segments;
mod system;
mod tree;
mod walk;

pub use capture::{Around, Bytes, Capture, Captured, Previous, begin, identity};
pub use diff::{Aspect, Change, Count, Fate, TreeDifference, diff};
pub use entry::{Content, Entry, EnvKeys, Kind, Meta, Root, Time, shown};
pub use env::{is_skeleton, keys_of};
pub use facts::Facts;
pub use glob::{Chosen, check_pattern};
pub use memory::TreeStream;
pub use options::{DEFAULT_CHANGE_RETRIES, Options, common_folder, fixed_folder};
pub use place::{Beneath, Dressing, dress, dress_folder};
pub use tree::{TreeReader, entry_at};

/// Whether a link at `path` leads out of the tree, or may do so: to an absolute target, by more `..` than there are folders above it, or by
/// `..` behind a name.
#[must_use]
pub fn leads_out(path: &[u8], target: &[u8]) -> bool {
    if target.first() == Some(&b'/') {
        return true;
    }
    let mut named = false;
    let mut depth = path.iter().filter(|byte| **byte == b'/').count();
    for part in target.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            // Behind a name, `..` leads to wherever that name is: it may be a link itself.
            b".." if named => return true,
            b".." => match depth.checked_sub(1) {
                Some(less) => depth = less,
                None => return true,
            },
            _ => named = true,
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::leads_out;

    #[test]
    fn links_are_followed_on_paper() {
        for (path, target, out) in [
            ("a", "b", false),
            ("a", "..", true),
            ("d/a", "../b", false),
            ("d/a", "../../b", true),
            ("d/a", "x/../../..", true),
            ("a", "/etc", true),
            ("d/e/a", "./..//../b/c", false),
        ] {
            assert_eq!(leads_out(path.as_bytes(), target.as_bytes()), out, "{path} -> {target}");
        }
    }
}
