//! What comes back over the crossing.

use lifeboat_io::compute::run;
use lifeboat_model::{Error, ErrorKind};

#[tokio::test]
async fn values_and_errors_come_back_as_they_are() {
    assert_eq!(run("count", || Ok(7)).await.unwrap(), 7);
    let failed = run::<(), _>("count", || Err(Error::new(ErrorKind::NoSpace, "write", "a", "full"))).await;
    assert_eq!(failed.unwrap_err().kind(), ErrorKind::NoSpace);
}

#[tokio::test]
async fn a_panic_becomes_an_error_and_the_program_goes_on() {
    let failed = run::<(), _>("count", || panic!("on purpose")).await.unwrap_err();
    assert_eq!((failed.kind(), failed.op()), (ErrorKind::Bug, "count"));
    assert_eq!(run("count", || Ok(1)).await.unwrap(), 1);
}
