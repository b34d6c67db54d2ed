//! `global/pg_control`: what a cluster says about itself while nobody runs it.
//!
//! The fields lie around a landmark, the number 1234567.0 that the server writes to recognise its own floating-point format: what stands
//! before and behind it has kept its distance from 14 to 18, while the checkpoint in front grew. The sum over all of it is looked for behind
//! the landmark, so that a field more does not turn a whole file into a damaged one.

use lifeboat_model::{Error, ErrorKind, Lsn, Result, Timeline};

use super::crc::crc32c;

/// Bytes of the file.
pub const FILE_BYTES: usize = 8192;

/// In which state the cluster was left (`DBState`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Being made.
    Starting,
    /// Stopped in order.
    Stopped,
    /// A standby, stopped in order.
    StoppedInRecovery,
    /// Was being stopped.
    Stopping,
    /// In crash recovery, or it died there.
    CrashRecovery,
    /// In recovery from an archive or another server, or it died there.
    ArchiveRecovery,
    /// Running, or it died running.
    Running,
}

/// What the file says, checked against its own sum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Control {
    /// Which cluster this is.
    pub system_identifier: u64,
    /// Version of the file: 1300 (PostgreSQL 13 to 16), 1700, 1800.
    pub control_version: u32,
    /// Version of the system catalogs; directories of tablespaces are named after it.
    pub catalog_version: u32,
    /// How it was left.
    pub state: State,
    /// Last change of the file, seconds since 1970.
    pub time_s: i64,
    /// The last checkpoint.
    pub checkpoint: Lsn,
    /// From where its recovery begins.
    pub redo: Lsn,
    /// Its timeline.
    pub timeline: Timeline,
    /// Recovery has to get at least here before anything is consistent.
    pub min_recovery: Lsn,
    /// On which timeline; `None` where that is not set.
    pub min_recovery_timeline: Option<Timeline>,
    /// Recovery from a base has begun and has not reached its end.
    pub backup_start: Lsn,
    /// Whether the end of the base must be seen in the log.
    pub backup_end_required: bool,
    /// 0 minimal, 1 replica, 2 logical.
    pub wal_level: u32,
    /// What recovery needs at least.
    pub needs: Needs,
    /// Bytes of a page.
    pub block_bytes: u32,
    /// Pages of a relation's segment.
    pub segment_blocks: u32,
    /// Bytes of a segment of log.
    pub wal_segment_bytes: u32,
    /// Pages carry numbers.
    pub checksums: bool,
}

/// Settings that a server in recovery must have at least as high as the one that wrote the log had them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Needs {
    /// `max_connections`
    pub connections: u32,
    /// `max_worker_processes`
    pub worker_processes: u32,
    /// `max_wal_senders`
    pub wal_senders: u32,
    /// `max_prepared_transactions`
    pub prepared_transactions: u32,
    /// `max_locks_per_transaction`
    pub locks_per_transaction: u32,
}

impl Needs {
    /// The settings by name.
    #[must_use]
    pub const fn settings(&self) -> [(&'static str, u32); 5] {
        [
            ("max_connections", self.connections),
            ("max_worker_processes", self.worker_processes),
            ("max_wal_senders", self.wal_senders),
            ("max_prepared_transactions", self.prepared_transactions),
            ("max_locks_per_transaction", self.locks_per_transaction),
        ]
    }
}

/// Where the landmark is in PostgreSQL 14 to 16; later by a few words.
const LANDMARK_FROM: usize = 208;
const LANDMARK_TO: usize = 272;
const LANDMARK: f64 = 1_234_567.0;
/// From the landmark to the first byte that can belong to the sum: behind the random bytes of mock authentication.
const SUM_FROM: usize = 72;
const SUM_TO: usize = 160;

impl Control {
    /// Reads the file's bytes. Kind `Corrupt` where its sum does not fit or it makes no sense, `Incompatible` where it was written by a
    /// machine of another byte order or a version before 14.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let Some(file) = bytes.get(..512) else {
            return Err(broken("it is too short"));
        };
        let control_version = u32_at(file, 8);
        if !(1300..100_000).contains(&control_version) {
            return Err(if control_version != 0 && control_version & 0xffff == 0 {
                incompatible("it was written on a machine with another byte order")
            } else if (900..1300).contains(&control_version) {
                incompatible("it belongs to a version before 14")
            } else {
                broken("its version makes no sense")
            });
        }
        let at = (LANDMARK_FROM..=LANDMARK_TO)
            .step_by(8)
            .find(|at| f64::from_le_bytes(eight(file, *at)) == LANDMARK)
            .ok_or_else(|| broken("its layout is not known, or it is damaged"))?;
        let sum_fits = |end: usize| file.get(..end).is_some_and(|summed| crc32c(summed) == u32_at(file, end));
        if !(at + SUM_FROM..=at + SUM_TO).step_by(4).any(sum_fits) {
            return Err(broken("its own sum does not fit"));
        }
        let timeline = |at: usize| Timeline::new(u32_at(file, at));
        let control = Self {
            system_identifier: u64::from_le_bytes(eight(file, 0)),
            control_version,
            catalog_version: u32_at(file, 12),
            state: state(u32_at(file, 16))?,
            time_s: i64::from_le_bytes(eight(file, 24)),
            checkpoint: lsn_at(file, 32),
            redo: lsn_at(file, 40),
            timeline: timeline(48)?,
            min_recovery: lsn_at(file, at - 72),
            min_recovery_timeline: timeline(at - 64).ok(),
            backup_start: lsn_at(file, at - 56),
            backup_end_required: file[at - 40] != 0,
            wal_level: u32_at(file, at - 36),
            needs: Needs {
                connections: u32_at(file, at - 28),
                worker_processes: u32_at(file, at - 24),
                wal_senders: u32_at(file, at - 20),
                prepared_transactions: u32_at(file, at - 16),
                locks_per_transaction: u32_at(file, at - 12),
            },
            block_bytes: u32_at(file, at + 8),
            segment_blocks: u32_at(file, at + 12),
            wal_segment_bytes: u32_at(file, at + 20),
            checksums: u32_at(file, at + 44) == 1,
        };
        let sizes = [control.block_bytes, control.segment_blocks, control.wal_segment_bytes];
        if !sizes.iter().all(|size| size.is_power_of_two()) {
            return Err(broken("its sizes make no sense"));
        }
        Ok(control)
    }

    /// Whether the pages can be checked here: numbers are on, and pages and segments have the usual sizes.
    #[must_use]
    pub fn checkable(&self) -> bool {
        self.checksums
            && self.block_bytes as usize == super::page::PAGE_BYTES
            && self.segment_blocks == super::page::SEGMENT_PAGES
    }
}

fn state(number: u32) -> Result<State> {
    Ok(match number {
        0 => State::Starting,
        1 => State::Stopped,
        2 => State::StoppedInRecovery,
        3 => State::Stopping,
        4 => State::CrashRecovery,
        5 => State::ArchiveRecovery,
        6 => State::Running,
        _ => return Err(broken("its state makes no sense")),
    })
}

fn eight(file: &[u8], at: usize) -> [u8; 8] {
    file.get(at..at + 8)
        .and_then(|bytes| bytes.try_into().ok())
        .unwrap_or_default()
}

fn lsn_at(file: &[u8], at: usize) -> Lsn {
    Lsn(u64::from_le_bytes(eight(file, at)))
}

fn u32_at(file: &[u8], at: usize) -> u32 {
    let four = file.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
    four.map_or(0, u32::from_le_bytes)
}

fn broken(detail: &'static str) -> Error {
    Error::new(ErrorKind::Corrupt, "read", "global/pg_control", detail)
}

fn incompatible(detail: &'static str) -> Error {
    broken(detail)
        .with_kind(ErrorKind::Incompatible)
        .with_hint("PostgreSQL 14 to 18 on little-endian machines are supported")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_and_noise_are_refused() {
        assert_eq!(Control::parse(&[]).unwrap_err().kind(), ErrorKind::Corrupt);
        assert_eq!(Control::parse(&[0; FILE_BYTES]).unwrap_err().kind(), ErrorKind::Corrupt);
        let mut old = [0; FILE_BYTES];
        old[8..12].copy_from_slice(&1201_u32.to_le_bytes());
        assert_eq!(Control::parse(&old).unwrap_err().kind(), ErrorKind::Incompatible);
    }
}
