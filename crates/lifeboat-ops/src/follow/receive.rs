//! From one connection to the next: who is there, our slot, where to go on, and what to do about log that is gone.
//!
//! Every connection asks for the system identifier first (PG-05). Lost connections are made again for ever; what cannot be mended by waiting is told.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lifeboat_engine::postgres::replication::Identity;
use lifeboat_engine::postgres::replication::stream::Started;
use lifeboat_engine::postgres::sql::Sql;
use lifeboat_engine::postgres::sqlstate;
use lifeboat_engine::postgres::wire::{Connection, Mode, connect};
use lifeboat_io::compute::{self, Alone};
use lifeboat_model::wal::{History, SegmentSize};
use lifeboat_model::{Error, ErrorKind, Lsn, Position, Result, Timeline};
use tokio::sync::{mpsc, oneshot, watch};

use super::keep::is_guarded;
use super::place::{self, Begin, Known};
use super::ship::Ask;
use super::spool::is_conflict;
use super::stream::{self, Ended, Worth};
use super::{Aim, Backoff, Options, Shared, Source, at, in_a_line, set};

/// Majors that are followed. A newer one speaks the same protocol, as far as anybody knows.
const OLDEST: u32 = 14;
/// From here on slots can be read in replication mode.
const READS_SLOTS: u32 = 15;

/// Why receiving ended.
#[derive(Debug)]
pub(crate) enum End {
    /// It was to.
    Stopped,
    /// The source was set back: its log belongs to a new lineage. Why.
    NewLineage(String),
}

/// How to go on after a connection.
enum After {
    /// At once: a timeline ended, or a gap was recorded.
    Again,
    End(End),
}

/// Asks the server who it is, until it answers. None where it is to stop before.
pub(crate) async fn first_contact(options: Options, mut stopped: watch::Receiver<bool>) -> Result<Option<Source>> {
    let (mut backoff, mut told) = (Backoff::new(Duration::from_secs(1), Duration::from_secs(30)), false);
    loop {
        let error = match ask(&options).await {
            Ok((_, source)) => return Ok(Some(source)),
            Err(error) if options.once || !error.kind().is_retryable() => return Err(error),
            Err(error) => error,
        };
        if !told {
            options.tell.note(format!(
                "the server does not answer yet, it is tried again: {}",
                in_a_line(&error)
            ));
            told = true;
        }
        tokio::select! {
            () = tokio::time::sleep(backoff.take()) => {}
            () = set(&mut stopped) => return Ok(None),
        }
    }
}

async fn ask(options: &Options) -> Result<(Connection, Source)> {
    let mut info = options.login.conninfo().await?;
    // What `synchronous_standby_names` has to name.
    if info.application_name == "lifeboat" {
        info.application_name.clone_from(&options.slot);
    }
    let mut connection = connect(&info, Mode::Replication).await?;
    let major = connection.major();
    if major < OLDEST {
        let detail = format!("it is PostgreSQL {major}, and {OLDEST} is the oldest that is supported");
        return Err(Error::new(ErrorKind::Incompatible, "follow", connection.subject(), detail)
            .with_hint("upgrade the server; until then, back up dumps of it as files"));
    }
    let system = connection.identify_system().await?.system;
    let segment = SegmentSize::new(connection.wal_segment_size().await?)?;
    Ok((connection, Source { system, segment }))
}

/// Begins to receive, on a thread of its own: commits may wait for each answer, and what is shipped meanwhile must not be in its way.
pub(crate) fn begin(shared: &Arc<Shared>, asks: mpsc::Sender<Ask>) -> Result<Alone<End>> {
    let shared = Arc::clone(shared);
    compute::alone("receive", move || async move { run(&shared, &asks).await })
}

/// Receives until it is to stop, or until the log belongs to a new lineage.
async fn run(shared: &Arc<Shared>, asks: &mpsc::Sender<Ask>) -> Result<End> {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(30));
    let mut last = String::new();
    while !shared.stopping() {
        let before = shared.held();
        let error = match one_connection(shared, asks).await {
            Ok(After::End(end)) => return Ok(end),
            Ok(After::Again) => {
                backoff.reset();
                continue;
            }
            Err(error) if is_conflict(&error) => return Ok(End::NewLineage(in_a_line(&error))),
            Err(error) if is_final(&error) || shared.options.once => return Err(error),
            Err(error) => error,
        };
        if shared.held() != before {
            backoff.reset();
            last.clear();
        }
        let text = in_a_line(&error);
        if text != last {
            shared.alarm(format!("following is interrupted, and tried again: {text}"));
            last = text;
        }
        shared.pause(backoff.take()).await;
    }
    Ok(End::Stopped)
}

/// How often a slot is tried that somebody still holds.
const SLOT_LOOKS: u32 = 50;
/// Time between two tries.
const SLOT_LOOK: Duration = Duration::from_millis(100);

/// What no waiting mends.
fn is_final(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Incompatible | ErrorKind::Bug | ErrorKind::Refused)
}

async fn one_connection(shared: &Arc<Shared>, asks: &mpsc::Sender<Ask>) -> Result<After> {
    let (mut connection, source) = ask(&shared.options).await?;
    check_source(shared, source)?;
    let asked_us = shared.env.clock.wall_us();
    let identity = connection.identify_system().await?;
    let way = ways(shared, &mut connection, identity.position.timeline).await?;
    let slot = ensure_slot(shared, &mut connection, &identity).await?;
    let is_standby = connection.parameter("in_hot_standby") == Some("on");
    let (from, held) = match where_to_begin(shared, connection.subject(), &way, identity.position, slot, is_standby)? {
        Ok(places) => places,
        Err(end) => return Ok(After::End(end)),
    };
    if shared.options.once {
        aim(shared, &way, from.lsn, identity.position.lsn);
    }
    {
        let mut state = shared.state();
        state.timeline = Some(from.timeline);
        state.begun = Some(from);
        state.server = identity.position.lsn;
        state.marks.clear();
        state.contacts.clear();
        state.contacts.observe(identity.position, asked_us);
        state.freshen();
        state.standing.timeline = from.timeline.number();
    }
    shared.news.notify_one();
    shared.note(format!(
        "following from {from}, of which {} is held; the server is at {}",
        held.lsn, identity.position
    ));
    let started = connection.start_replication(Some(&shared.options.slot), from).await;
    let stream = match started {
        Ok(Started::Streaming(stream)) => stream,
        Ok(Started::Ended(next, connection)) => return ended(shared, connection, next.switch).await,
        Err(error) if sqlstate(&error) == Some("55000") => {
            // Invalidated: too much was held back, or it was idle for too long.
            shared.alarm(format!(
                "the replication slot was given up by the server, and is made anew: {}",
                error.detail()
            ));
            let (mut connection, _) = ask(&shared.options).await?;
            // The same words come for a slot of another kind, which is somebody else's.
            read_slot(&shared.options, &mut connection).await?;
            drop_slot(shared, &mut connection).await?;
            return Ok(After::Again);
        }
        Err(error) => return Err(error),
    };
    let worth = Worth {
        own: from.timeline == identity.position.timeline,
        times: !is_standby,
    };
    match stream::run(shared, stream, from, held, worth).await {
        Ok(Ended::Stopped) => Ok(After::End(End::Stopped)),
        Ok(Ended::Timeline(switch, connection)) => ended(shared, *connection, switch).await,
        Err(error) if is_gone(&error) => {
            // What came on this connection is held by now.
            let held = Position::new(held.timeline, held.lsn.max(shared.state().durable));
            gap(shared, asks, held, &error).await
        }
        Err(error) if is_guarded(&error) => give_up_slot(shared, &error).await,
        Err(error) => Err(error),
    }
}

/// The slot guard: without our slot the server's disk does not fill. What is written until the spool has room again may be gone then, which is a gap
/// like any other.
async fn give_up_slot(shared: &Arc<Shared>, why: &Error) -> Result<After> {
    let (mut connection, source) = ask(&shared.options).await?;
    check_source(shared, source)?;
    drop_slot(shared, &mut connection).await?;
    drop(connection);
    shared.alarm(format!(
        "THE SLOT {} WAS DROPPED, so that the server's disk does not fill: {}. Following goes on when the stores take something again; what the server has thrown \
         away by then is missing for good, and a new backup is needed",
        shared.options.slot,
        why.detail()
    ));
    while shared.spool_is_full() && !shared.stopping() {
        let mut stop = shared.stop.subscribe();
        tokio::select! {
            () = shared.room.notified() => {}
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
            () = set(&mut stop) => {}
        }
    }
    Ok(if shared.stopping() {
        After::End(End::Stopped)
    } else {
        After::Again
    })
}

/// Where the server is now, asked for beside everything else.
pub(super) async fn server_position(options: &Options) -> Result<Position> {
    let (mut connection, _) = ask(options).await?;
    connection.identify_system().await.map(|identity| identity.position)
}

/// From where to ask for log, and up to where it is held; or why following ends.
fn where_to_begin(
    shared: &Shared,
    subject: &str,
    way: &History,
    server: Position,
    slot: Lsn,
    is_standby: bool,
) -> Result<std::result::Result<(Position, Position), End>> {
    let (held, gone) = (shared.held(), shared.state().gone.clone());
    // A hole in front of the spool's first byte is none of retention's.
    let kept = shared
        .spool()
        .ranges()
        .map(|range| Lsn(range.start.0.saturating_sub(1)))
        .min();
    let about = Known {
        held: &held,
        gone: &gone,
        floor: shared.source.segment.align_down(slot).min(kept.unwrap_or(slot)),
    };
    match place::begin(about, way, server.lsn, shared.source.segment) {
        Begin::Fresh => {
            let from = Position::new(way.timeline_at(slot), shared.source.segment.align_down(slot));
            Ok(Ok((from, from)))
        }
        Begin::At { from, held } => Ok(Ok((from, held))),
        Begin::Behind { held } if is_standby => {
            let detail = format!("this standby is at {server}, and {held} is held already");
            Err(Error::new(ErrorKind::Unreachable, "follow", subject, detail)
                .with_hint("it is asked again until it has caught up"))
        }
        Begin::Behind { held } => {
            let why = format!("the server is at {server}, and {held} is held already: it was set back to an earlier moment");
            Ok(Err(End::NewLineage(why)))
        }
        Begin::Abandoned { newer } => {
            let detail = format!(
                "this server is on timeline {}, and timeline {newer} was followed already: it is an old primary, or a standby of one",
                server.timeline
            );
            let hint =
                "point the connection at the server that was promoted; name all of them with target_session_attrs=read-write";
            Err(Error::new(ErrorKind::Failed, "follow", subject, detail).with_hint(hint))
        }
    }
}

fn check_source(shared: &Shared, source: Source) -> Result<()> {
    if source == shared.source {
        return Ok(());
    }
    let detail = format!(
        "the server is the cluster {} now, and {} was followed (segments of {} and {})",
        source.system, shared.source.system, source.segment, shared.source.segment
    );
    Err(
        Error::new(ErrorKind::Refused, "follow the log of", &shared.protected.component, detail)
            .with_hint("look at the connection in lifeboat.yaml; a new cluster gets a component of its own"),
    )
}

/// The way to the server's timeline, and every history file on it, kept before anything of its log is.
async fn ways(shared: &Arc<Shared>, connection: &mut Connection, timeline: Timeline) -> Result<History> {
    if timeline == Timeline::FIRST {
        return Ok(History::first());
    }
    let file = connection.timeline_history(timeline).await?;
    let way = History::parse(timeline, &String::from_utf8_lossy(&file.content))?;
    keep_history(shared, timeline, file.content.to_vec()).await?;
    let known: BTreeSet<Timeline> = shared.spool().histories().keys().copied().collect();
    for fork in way.forks().iter().filter(|fork| fork.timeline != Timeline::FIRST) {
        if known.contains(&fork.timeline) {
            continue;
        }
        match connection.timeline_history(fork.timeline).await {
            Ok(file) => keep_history(shared, fork.timeline, file.content.to_vec()).await?,
            // A standby that was made from a newer base never had it.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(way)
}

async fn keep_history(shared: &Arc<Shared>, timeline: Timeline, text: Vec<u8>) -> Result<()> {
    let spool = Arc::clone(shared);
    compute::run("keep a history", move || spool.spool().put_history(timeline, &text)).await?;
    shared.news.notify_one();
    Ok(())
}

/// With `once`: what has to be stored, the first time.
fn aim(shared: &Shared, way: &History, from: Lsn, until: Lsn) {
    let mut state = shared.state();
    if state.aim.is_none() {
        let left = way.forks().last().map_or(Lsn::INVALID, |fork| fork.at);
        state.aim = Some(Aim {
            way: way.clone(),
            from,
            until: until.max(left),
        });
    }
    drop(state);
    shared.look_at_target();
}

/// Our slot is there and reserves log. Returns the oldest position that it keeps.
async fn ensure_slot(shared: &Shared, connection: &mut Connection, identity: &Identity) -> Result<Lsn> {
    let slot = &shared.options.slot;
    match connection.create_slot(slot, false).await {
        Ok(()) => shared.note(format!("made the replication slot {slot}")),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(error),
    }
    match read_slot(&shared.options, connection).await? {
        Read::At(restart) => return Ok(restart),
        Read::Unknown => return Ok(identity.position.lsn),
        Read::Nothing => {}
    }
    // It keeps nothing: the server has taken the log from it (`wal_status` is lost), or somebody made it without reserving.
    shared.alarm(format!(
        "the replication slot {slot} keeps nothing any more, and is made anew"
    ));
    drop_slot(shared, connection).await?;
    connection.create_slot(slot, false).await?;
    match read_slot(&shared.options, connection).await? {
        Read::At(restart) => Ok(restart),
        Read::Nothing | Read::Unknown => Ok(identity.position.lsn),
    }
}

/// What a slot says of itself.
enum Read {
    /// It keeps log from here on.
    At(Lsn),
    /// It keeps nothing.
    Nothing,
    /// It is ours by its kind, and nobody can say more.
    Unknown,
}

/// Looks at our slot. One of another kind is somebody else's: `Refused`.
async fn read_slot(options: &Options, connection: &mut Connection) -> Result<Read> {
    if connection.major() >= READS_SLOTS {
        let read = connection.read_slot(&options.slot).await?;
        return Ok(read.and_then(|slot| slot.restart).map_or(Read::Nothing, Read::At));
    }
    read_slot_by_sql(options).await
}

/// In older servers a slot is read by SQL alone.
async fn read_slot_by_sql(options: &Options) -> Result<Read> {
    let info = options.login.conninfo().await?;
    let sql = Sql::connect(&info).await.map_err(|error| {
        error.with_hint("servers before PostgreSQL 15 tell about slots by SQL alone: let the role log in to a database, too")
    })?;
    // A name of a slot is made of letters, digits and underscores: it was made, or found, by a command that checks it.
    let asked = format!(
        "select slot_type, restart_lsn from pg_replication_slots where slot_name = '{}'",
        options.slot
    );
    let rows = sql.text("read a replication slot of", &asked).await?;
    let mut values = rows.into_iter().next().unwrap_or_default().into_iter();
    match (values.next().flatten().as_deref(), values.next().flatten()) {
        (Some("physical"), Some(restart)) => Ok(Read::At(restart.parse()?)),
        (Some("physical"), None) => Ok(Read::Nothing),
        (None, _) => Ok(Read::Unknown),
        (Some(other), _) => {
            let detail = format!("the slot {} is {other}: it is somebody else's", options.slot);
            Err(Error::new(ErrorKind::Refused, "follow", sql.subject(), detail)
                .with_hint("name another one in lifeboat.yaml (`slot:`)"))
        }
    }
}

/// Drops our slot; the connection before this one may still be ending.
async fn drop_slot(shared: &Shared, connection: &mut Connection) -> Result<()> {
    let mut look = 0;
    loop {
        match connection.drop_slot(&shared.options.slot).await {
            Err(error) if error.kind() == ErrorKind::Locked && look < SLOT_LOOKS => look += 1,
            dropped => return dropped,
        }
        tokio::time::sleep(SLOT_LOOK).await;
    }
}

/// The end of a timeline: the history of the next one is kept first.
async fn ended(shared: &Arc<Shared>, mut connection: Connection, switch: Position) -> Result<After> {
    let file = connection.timeline_history(switch.timeline).await?;
    keep_history(shared, switch.timeline, file.content.to_vec()).await?;
    shared.note(format!("the timeline was left for {} at {}", switch.timeline, switch.lsn));
    Ok(After::Again)
}

/// The server no longer has that log.
fn is_gone(error: &Error) -> bool {
    sqlstate(error) == Some("58P01")
}

/// Log is gone for good: where does it begin now? The gap is recorded before anything behind it is taken (PG-08).
async fn gap(shared: &Arc<Shared>, asks: &mpsc::Sender<Ask>, held: Position, why: &Error) -> Result<After> {
    let (mut connection, source) = ask(&shared.options).await?;
    check_source(shared, source)?;
    let identity = connection.identify_system().await?;
    let way = ways(shared, &mut connection, identity.position.timeline).await?;
    let mut slot = ensure_slot(shared, &mut connection, &identity).await?;
    let known = shared.held();
    let mut ranges = place::missing(&known, held, shared.source.segment.align_down(slot), &way);
    if ranges.is_empty() {
        // A status of an earlier time has set the slot back to what we hold, and the log behind that is gone: it begins anew where log is.
        drop_slot(shared, &mut connection).await?;
        slot = ensure_slot(shared, &mut connection, &identity).await?;
        ranges = place::missing(&known, held, shared.source.segment.align_down(slot), &way);
    }
    drop(connection);
    let first = shared.source.segment.align_down(slot);
    if ranges.is_empty() {
        return Err(why.duplicate());
    }
    let text = format!("the server no longer has it: {}", why.detail());
    for range in &ranges {
        shared.alarm(format!(
            "LOG IS MISSING FOR GOOD, {range}: {text}; run a new backup, nothing behind it can be reached before"
        ));
    }
    let (done, recorded) = oneshot::channel();
    let gone = || {
        Error::new(
            ErrorKind::Interrupted,
            "record a gap of",
            &shared.protected.component,
            "following ends",
        )
    };
    let ask = Ask {
        ranges: ranges.clone(),
        why: text,
        done,
    };
    if asks.send(ask).await.is_err() || recorded.await.is_err() {
        return Err(gone());
    }
    let mut state = shared.state();
    ranges.iter().for_each(|range| state.gone.add(*range));
    state.report.gaps.extend(ranges);
    drop(state);
    shared.note(format!("following goes on at {}", at(way.timeline_at(first), first)));
    Ok(After::Again)
}
