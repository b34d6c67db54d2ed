//! Takes whole captures: the image, and what the capture knows of it.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use lifeboat_engine::sqlite::{Capture, CaptureOptions, Captured, begin, inspect};
use lifeboat_io::flow::{EXTENT_BYTES, PageSource, SEGMENT_BYTES};
use lifeboat_model::{Clock, Result};

/// The machine's own time.
#[derive(Debug)]
struct RealClock(Instant);

impl Clock for RealClock {
    fn wall_us(&self) -> i64 {
        i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros()).unwrap()
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

pub fn clock() -> Arc<dyn Clock> {
    Arc::new(RealClock(Instant::now()))
}

/// As patient as a test can be: what waits longer has failed.
pub fn patient(database: &Path) -> CaptureOptions {
    CaptureOptions {
        path: database.to_owned(),
        busy_timeout: Duration::from_secs(60),
        max_stall: Duration::from_secs(60),
        sql_dump: false,
        extracts: Vec::new(),
    }
}

pub fn begin_patiently(database: &Path) -> Capture {
    begin(&patient(database), clock()).unwrap()
}

/// Takes all pages, holding them to the contract of [`PageSource`].
pub fn drain(pages: &dyn PageSource) -> Result<Vec<u8>> {
    let (mut image, mut buffer) = (Vec::new(), Vec::new());
    while let Some(offset) = pages.next_segment(&mut buffer)? {
        assert_eq!(offset, image.len() as u64, "one taker gets them in order");
        assert_eq!(image.len() % EXTENT_BYTES, 0, "only the last segment may be short");
        assert!((1..=SEGMENT_BYTES).contains(&buffer.len()));
        image.extend_from_slice(&buffer);
    }
    assert_eq!(image.len() as u64, pages.size_bytes());
    Ok(image)
}

/// The image of a database that can be captured.
pub fn take(database: &Path) -> (Vec<u8>, Captured) {
    finish(begin_patiently(database))
}

pub fn finish(capture: Capture) -> (Vec<u8>, Captured) {
    let image = drain(capture.pages().as_ref()).unwrap();
    (image, capture.finish().unwrap())
}

/// The error that a capture comes to, in whichever step.
pub fn failure(options: &CaptureOptions) -> lifeboat_model::Error {
    match begin(options, clock()) {
        Err(error) => error,
        Ok(capture) => {
            drop(drain_some(capture.pages().as_ref()));
            capture.finish().unwrap_err()
        }
    }
}

/// Takes pages until they end or fail.
pub fn drain_some(pages: &dyn PageSource) -> Result<()> {
    let mut buffer = Vec::new();
    while pages.next_segment(&mut buffer)?.is_some() {}
    Ok(())
}

/// Writes the image to `copy` and inspects it; it must be good, and be what the capture says.
pub fn judge(copy: &Path, image: &[u8], captured: &Captured) {
    std::fs::write(copy, image).unwrap();
    let inspection = inspect(copy, Some(&captured.facts)).unwrap();
    assert_eq!(inspection.integrity, ["ok"]);
    assert!(
        inspection.differences.is_empty() && inspection.foreign_keys.is_empty(),
        "{inspection:?}"
    );
}
