//! What the one who asks hears while nothing comes, and in which folders nothing is served.

use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

use super::super::talk::read_head;
use super::*;

#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "a test talks to itself")]
async fn whoever_waits_hears_that_somebody_is_at_it() {
    let (mut ours, mut theirs) = UnixStream::pair().unwrap();
    let heard = tokio::spawn(async move {
        let mut waits = 0;
        loop {
            let mut head = [0; 5];
            theirs.read_exact(&mut head).await.unwrap();
            match read_head(head).unwrap() {
                (Tag::Wait, 0) => waits += 1,
                (Tag::Absent, 0) => return waits,
                other => panic!("{other:?}"),
            }
        }
    });
    let stalls = async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        Ok(7)
    };
    let done = meanwhile(&mut ours, Duration::from_millis(20), stalls).await.unwrap();
    say(&mut ours, Tag::Absent, &[]).await.unwrap();
    assert_eq!(done, 7);
    assert!(heard.await.unwrap() >= 3);
}

#[test]
fn nothing_is_served_in_a_folder_that_somebody_else_can_change() {
    let root = tempfile::tempdir().unwrap();
    let folder = root.path().join("new");
    let opened = prepare(&folder).unwrap();
    assert_eq!(fstat(&opened).unwrap().st_mode & 0o777, 0o700);
    assert!(prepare(&folder).is_ok());
    let kind = |folder: &Path| prepare(folder).unwrap_err().kind();
    let link = root.path().join("link");
    symlink(&folder, &link).unwrap();
    assert_eq!(kind(&link), ErrorKind::Refused);
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o710)).unwrap();
    assert_eq!(kind(&folder), ErrorKind::Refused);
    std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o700)).unwrap();
    if folder.metadata().unwrap().uid() == 0 {
        chown(&folder, Some(65_534), None).unwrap();
        assert_eq!(kind(&folder), ErrorKind::Refused);
    }
}
