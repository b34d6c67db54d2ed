//! Configuration that lies outside the data directory.

use tokio_postgres::Client;

use super::plan::FileInfo;
use super::{OUTSIDE, Server};

/// Configuration that lies outside the data directory, as far as the role may read it through SQL, and what to say about the rest.
pub(super) async fn through_sql(client: &Client, server: &Server) -> (Vec<(FileInfo, Vec<u8>)>, Vec<String>) {
    let (mut files, mut unread) = (Vec::new(), Vec::new());
    let mut places = server.configuration.clone();
    // Files that those include, where they set anything.
    let sql = "select distinct sourcefile from pg_settings where sourcefile is not null";
    let included = client.query(sql, &[]).await.unwrap_or_default();
    places.extend(
        included
            .iter()
            .filter_map(|row| row.try_get::<_, String>(0).ok())
            .map(Into::into),
    );
    places.retain(|place| !place.starts_with(&server.data_dir));
    places.sort();
    places.dedup();
    for place in &places {
        let Some(path) = place.to_str() else { continue };
        let read = client.query_one("select pg_read_binary_file($1)", &[&path]).await;
        match read.and_then(|row| row.try_get::<_, Vec<u8>>(0)) {
            Ok(bytes) => files.push((
                FileInfo {
                    path: format!("{OUTSIDE}{path}"),
                    mode: 0o640,
                    uid: 0,
                    gid: 0,
                    modified_us: 0,
                },
                bytes,
            )),
            Err(_) => unread.push(path),
        }
    }
    let mut warnings = Vec::new();
    if !unread.is_empty() {
        warnings.push(format!(
            "configuration outside the data directory is not in this backup: {} (GRANT pg_read_server_files and EXECUTE ON FUNCTION \
             pg_read_binary_file(text) to the role, or back the files up as a component of their own)",
            unread.join(", ")
        ));
    }
    (files, warnings)
}
