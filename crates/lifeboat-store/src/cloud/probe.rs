//! What a service can do, found out by trying.
//!
//! Conditional puts: two puts of different bytes under one scratch name; the second must be refused. A service that took both, or does
//! not know the condition, gets `conditional_put: false`, which costs a look before and after each put and nothing else. Versioning
//! shows in the answer to a put. On the service if we die: the scratch file, which nothing reads and the next probe reuses.

use bytes::Bytes;
use lifeboat_model::Result;

use super::store::{Attempt, CloudStore};
use crate::{BlobStore as _, Capabilities, Key};

/// The scratch name; no file of a repository begins like this.
const SCRATCH: &str = "probe~conditional";

pub(super) async fn run(store: &CloudStore) -> Result<Capabilities> {
    let key = Key::new(SCRATCH)?;
    let mut versioning = false;
    let mut conditional_put = false;
    for body in ["a first put", "a second put"] {
        let body = Bytes::from_static(body.as_bytes());
        match store.again(|| store.put_once(&key, &body, true)).await {
            Ok(Attempt::Created(result)) => {
                versioning |= result.version.is_some_and(|version| version != "null");
            }
            // Also in the first round: what an interrupted probe left proves as much.
            Ok(Attempt::Taken) => {
                conditional_put = true;
                break;
            }
            Err(failure) if failure.unknown_request => break,
            Err(failure) => return Err(failure.error),
        }
    }
    // Whoever may only add files leaves the scratch file where it is.
    let removed = store.delete(&key).await;
    drop(removed);
    Ok(Capabilities {
        conditional_put,
        versioning,
        object_lock: false,
    })
}
