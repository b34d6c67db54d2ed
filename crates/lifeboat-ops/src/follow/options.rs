//! What is followed, how, and who is told of it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::canary::Canary;
use crate::protected::{Cluster, Login};

/// Something that happened, in one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Whether somebody has to look at it.
    pub is_alarm: bool,
    /// What.
    pub text: String,
}

/// Who is told.
#[derive(Clone)]
pub struct Tell(pub(super) Arc<dyn Fn(&Event) + Send + Sync>);

impl Tell {
    /// Tells this function.
    pub fn to(function: impl Fn(&Event) + Send + Sync + 'static) -> Self {
        Self(Arc::new(function))
    }

    pub(super) fn note(&self, text: impl Into<String>) {
        (self.0)(&Event {
            is_alarm: false,
            text: text.into(),
        });
    }
}

impl fmt::Debug for Tell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tell").finish_non_exhaustive()
    }
}

/// What to follow, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the server is, and who we are there: asked for on every connection.
    pub login: Login,
    /// Our replication slot; made where it is not there.
    pub slot: String,
    /// The spool takes so many bytes of the disk at most; then nothing more is received.
    pub max_spool: u64,
    /// More log than this held back by our slot is an alarm.
    pub max_slot_lag: u64,
    /// While the spool is full, our slot is dropped where it holds back more than this: the server's disk is worth more than our log. None: never.
    pub drop_slot_at: Option<u64>,
    /// New log reaches the stores at least so often.
    pub frame_every: Duration,
    /// A store that failed is tried again after this time, then less and less often.
    pub rejoin_after: Duration,
    /// A server that says nothing is asked so often how far it is; less than a second is of no use.
    pub ask_every: Duration,
    /// While nothing new comes, the time until when the log is complete is stored at most so often; zero: never.
    pub mark_every: Duration,
    /// End once everything is stored that the server had at the start.
    pub once: bool,
    /// Written so often meanwhile, where there is one; with `once`, at the start.
    pub canary: Option<Canary>,
    /// Who is told what happens.
    pub tell: Tell,
}

impl Options {
    /// The usual ones.
    #[must_use]
    pub fn new(cluster: &Cluster, tell: Tell) -> Self {
        Self {
            login: cluster.login.clone(),
            slot: cluster.slot.clone(),
            max_spool: 16 << 30,
            max_slot_lag: 8 << 30,
            drop_slot_at: None,
            frame_every: Duration::from_secs(1),
            rejoin_after: Duration::from_secs(30),
            ask_every: Duration::from_secs(5),
            mark_every: Duration::from_secs(60),
            once: false,
            canary: cluster.care.canary.as_deref().cloned(),
            tell,
        }
    }
}
