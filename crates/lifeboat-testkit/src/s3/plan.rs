//! What happens to which request: by script, or by the request's number.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;

use hyper::Method;
use hyper::http::request::Parts;

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum S3Fault {
    /// The request is done, and the connection breaks before the answer.
    ReplyLost,
    /// Nothing is done; the answer is `503 SlowDown`.
    SlowDown,
    /// Nothing is done; the answer is `500 InternalError`.
    Internal,
    /// Nothing is done; the answer is `409 ConditionalRequestConflict`.
    Conflict,
    /// The request is done twice; the second answer is sent.
    Twice,
    /// The request is done and answered, and done once more when [`super::S3Server::settle`] is called.
    Again,
    /// Nothing is done and the connection breaks; it is done when [`super::S3Server::settle`] is called.
    Late,
    /// The answer's body breaks off in its middle.
    CutBody,
    /// The answer is whole, and its body is the first half of what is stored.
    Shortened,
    /// One bit of the answer's body is another one.
    WrongByte,
    /// A deletion is answered at once and done when [`super::S3Server::settle`] is called.
    Later,
    /// Nothing is done; the answer has this status and code.
    Refused(u16, &'static str),
}

/// Which requests a fault is for.
#[derive(Debug, Clone)]
pub(super) struct Aim {
    /// The method.
    pub(super) method: Method,
    /// Part of the path or the query.
    pub(super) part: &'static str,
}

#[derive(Debug)]
struct Scripted {
    aim: Aim,
    fault: S3Fault,
    times: usize,
}

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The method.
    pub method: Method,
    /// Path and query.
    pub address: String,
}

impl Asked {
    /// What can go wrong with such a request.
    #[must_use]
    pub fn faults(&self) -> &'static [S3Fault] {
        use S3Fault::{Again, Conflict, CutBody, Internal, Late, Later, ReplyLost, Shortened, SlowDown, Twice, WrongByte};
        if self.method == Method::PUT {
            &[ReplyLost, SlowDown, Internal, Conflict, Twice, Again, Late]
        } else if self.method == Method::DELETE {
            &[ReplyLost, SlowDown, Twice, Again, Late, Later]
        } else if self.method == Method::HEAD {
            &[ReplyLost, SlowDown]
        } else if self.address.contains("list-type") {
            &[ReplyLost, SlowDown, Internal, CutBody]
        } else {
            &[ReplyLost, SlowDown, Internal, CutBody, Shortened, WrongByte]
        }
    }
}

/// When in a request somebody is struck down.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// The request has come, and nothing is done.
    Before,
    /// Half of what is put has come, and nothing is done; or half of what is read is sent. Otherwise as [`Moment::After`].
    Middle,
    /// It is done, and nothing is answered.
    After,
}

/// Somebody is struck down in a request.
#[derive(Clone)]
pub struct Strike {
    /// The number of the request; the first is 0.
    pub number: u64,
    /// When in it.
    pub moment: Moment,
    /// Does it.
    pub blow: Arc<dyn Fn() + Send + Sync>,
}

impl Strike {
    pub(super) fn fall(&self) {
        (self.blow)();
    }
}

impl fmt::Debug for Strike {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} request {}", self.moment, self.number)
    }
}

/// What becomes of a request.
#[derive(Debug)]
pub(super) enum Come {
    Calm,
    Fault(S3Fault),
    Strike(Strike),
}

/// What is to go wrong, and what was asked since that was said.
#[derive(Debug, Default)]
pub(super) struct Planned {
    script: VecDeque<Scripted>,
    faults: BTreeMap<u64, S3Fault>,
    strike: Option<Strike>,
    asked: Vec<Asked>,
    came: u64,
}

impl Planned {
    pub(super) fn script(&mut self, aim: Aim, fault: S3Fault, times: usize) {
        self.script.push_back(Scripted { aim, fault, times });
    }

    pub(super) fn script_is_done(&self) -> bool {
        self.script.is_empty()
    }

    pub(super) fn begin(&mut self, faults: BTreeMap<u64, S3Fault>) {
        self.faults = faults;
        self.strike = None;
        self.asked.clear();
        self.came = 0;
    }

    pub(super) fn strike(&mut self, strike: Strike) {
        self.strike = Some(strike);
    }

    pub(super) fn asked(&self) -> &[Asked] {
        &self.asked
    }

    pub(super) fn came(&self) -> u64 {
        self.came
    }

    pub(super) fn next(&mut self, parts: &Parts) -> Come {
        let request = Asked {
            method: parts.method.clone(),
            address: parts.uri.to_string(),
        };
        let number = self.asked.len() as u64;
        let scripted = self.scripted(&request);
        let planned = self.faults.remove(&number).filter(|fault| request.faults().contains(fault));
        self.asked.push(request);
        if self.strike.as_ref().is_some_and(|strike| strike.number == number)
            && let Some(strike) = self.strike.take()
        {
            return Come::Strike(strike);
        }
        self.came += u64::from(planned.is_some());
        scripted.or(planned).map_or(Come::Calm, Come::Fault)
    }

    fn scripted(&mut self, request: &Asked) -> Option<S3Fault> {
        let index = self
            .script
            .iter()
            .position(|scripted| scripted.aim.method == request.method && request.address.contains(scripted.aim.part))?;
        let scripted = self.script.get_mut(index)?;
        let fault = scripted.fault;
        scripted.times = scripted.times.saturating_sub(1);
        if scripted.times == 0 {
            self.script.remove(index);
        }
        Some(fault)
    }
}
