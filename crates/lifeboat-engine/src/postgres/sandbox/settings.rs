//! With which settings a restored cluster runs here (PG-10): nothing of it reaches the outside, and nothing of what it was configured for
//! happens again.
//!
//! They are given on the command line of the server, which no file overrides. Its own `postgresql.conf` and `pg_hba.conf` are not read.

use super::{Plan, Recovery};
use crate::postgres::binaries::Binaries;
use crate::postgres::control::Control;

/// Libraries that begin to work by themselves: jobs, replication. They are never loaded.
const ACTIVE: [&str; 8] = [
    "pg_cron",
    "pg_partman_bgw",
    "pglogical",
    "spock",
    "bdr",
    "repmgr",
    "pg_timetable",
    "basebackup_to_shell",
];

/// Room for slots and origins that the data directory may hold.
const SLOTS: u32 = 64;

/// Which of the wanted libraries are loaded, and which are not, with the reason.
pub(super) fn libraries(wanted: &[String], binaries: &Binaries) -> (Vec<String>, Vec<String>) {
    let (mut loaded, mut dropped) = (Vec::new(), Vec::new());
    for name in wanted {
        let short = name.strip_prefix("$libdir/").unwrap_or(name);
        if ACTIVE.contains(&short) {
            dropped.push(format!("the library {name} was not loaded: it works by itself"));
        } else if binaries.has_library(name) {
            loaded.push(name.clone());
        } else {
            dropped.push(format!("the library {name} was not loaded: it is not installed on this host"));
        }
    }
    (loaded, dropped)
}

/// All settings, in order.
pub(super) fn settings(
    plan: &Plan,
    control: &Control,
    socket_folder: &str,
    loaded: &[String],
    slots: u32,
) -> Vec<(String, String)> {
    let major = plan.binaries.major();
    let mut all: Vec<(String, String)> = Vec::new();
    let mut set = |name: &str, value: &str| all.push((name.to_owned(), value.to_owned()));
    set("listen_addresses", "");
    set("port", "5432");
    set("unix_socket_directories", socket_folder);
    for (name, value) in QUIET {
        set(name, value);
    }
    for (from, to, name, value) in BY_MAJOR {
        if (from..=to).contains(&major) {
            set(name, value);
        }
    }
    set("shared_preload_libraries", &loaded.join(","));
    // The server does not start with less than two segments.
    let segments = control.wal_segment_bytes >> 20;
    set("min_wal_size", &format!("{}MB", segments.saturating_mul(2).max(80)));
    set("max_wal_size", &format!("{}MB", segments.saturating_mul(4).max(1024)));
    set("wal_level", if control.wal_level >= 2 { "logical" } else { "replica" });
    for (name, needed) in control.needs.settings() {
        let least = match name {
            "max_connections" => 20,
            "max_worker_processes" | "max_wal_senders" => 4,
            "max_locks_per_transaction" => 64,
            _ => 0,
        };
        set(name, &needed.max(least).to_string());
    }
    let slots = slots.max(SLOTS).to_string();
    set("max_replication_slots", &slots);
    if major >= 18 {
        set("max_active_replication_origins", &slots);
    }
    set("fsync", if plan.durable { "on" } else { "off" });
    for (name, value) in recovery(&plan.recovery) {
        set(name, &value);
    }
    for (name, value) in &plan.settings {
        set(name, value);
    }
    all
}

fn recovery(recovery: &Recovery) -> Vec<(&'static str, String)> {
    let mut target = [
        ("recovery_target", String::new()),
        ("recovery_target_lsn", String::new()),
        ("recovery_target_time", String::new()),
        ("recovery_target_name", String::new()),
        ("recovery_target_xid", String::new()),
        ("recovery_target_inclusive", "on".to_owned()),
        ("recovery_target_timeline", "latest".to_owned()),
        ("recovery_target_action", "pause".to_owned()),
        ("restore_command", String::new()),
    ];
    let Recovery::Archive {
        restore_command,
        settings,
    } = recovery
    else {
        return target.into();
    };
    for (name, value) in &mut target {
        if *name == "restore_command" {
            value.clone_from(restore_command);
        } else if let Some(given) = settings.get(*name) {
            value.clone_from(given);
        }
    }
    // The server takes a target after another for a second one, even where it is empty: what is set comes last.
    target.sort_by_key(|(_, value)| !value.is_empty());
    target.into()
}

/// What is the same in every version.
const QUIET: [(&str, &str); 49] = [
    ("unix_socket_permissions", "0700"),
    ("unix_socket_group", ""),
    ("external_pid_file", ""),
    ("cluster_name", "lifeboat-sandbox"),
    ("ssl", "off"),
    ("ssl_passphrase_command", ""),
    ("bonjour", "off"),
    // Nothing is archived, replicated, waited for or run.
    ("archive_mode", "off"),
    ("archive_command", ""),
    ("archive_cleanup_command", ""),
    ("recovery_end_command", ""),
    ("primary_conninfo", ""),
    ("primary_slot_name", ""),
    ("synchronous_standby_names", ""),
    ("hot_standby", "on"),
    ("hot_standby_feedback", "off"),
    ("recovery_min_apply_delay", "0"),
    ("max_logical_replication_workers", "0"),
    ("max_slot_wal_keep_size", "-1"),
    ("autovacuum", "off"),
    ("session_preload_libraries", ""),
    ("local_preload_libraries", ""),
    ("cron.launch_active_jobs", "off"),
    ("timescaledb.max_background_workers", "0"),
    ("timescaledb.telemetry_level", "off"),
    ("restart_after_crash", "off"),
    // What depends on the host that it came from.
    ("lc_messages", "C"),
    ("timezone", "UTC"),
    ("log_timezone", "UTC"),
    ("huge_pages", "off"),
    ("shared_buffers", "64MB"),
    ("dynamic_shared_memory_type", "posix"),
    ("shared_memory_type", "mmap"),
    ("temp_tablespaces", ""),
    ("default_tablespace", ""),
    ("jit", "off"),
    ("wal_compression", "off"),
    ("wal_keep_size", "0"),
    // Its words come to us, and no row of anybody is in them.
    ("logging_collector", "off"),
    ("log_destination", "stderr"),
    ("log_min_messages", "warning"),
    ("log_min_error_statement", "panic"),
    ("log_statement", "none"),
    ("log_min_duration_statement", "-1"),
    ("log_min_duration_sample", "-1"),
    ("log_parameter_max_length", "0"),
    ("log_line_prefix", "%m [%p] "),
    ("log_error_verbosity", "default"),
    ("update_process_title", "on"),
];

/// What some versions know: from, to.
const BY_MAJOR: [(u32, u32, &str, &str); 8] = [
    (0, 14, "stats_temp_directory", "pg_stat_tmp"),
    (0, 15, "promote_trigger_file", ""),
    (15, u32::MAX, "archive_library", ""),
    (17, u32::MAX, "summarize_wal", "off"),
    (17, u32::MAX, "sync_replication_slots", "off"),
    (17, u32::MAX, "synchronized_standby_slots", ""),
    (18, u32::MAX, "io_method", "worker"),
    (18, u32::MAX, "idle_replication_slot_timeout", "0"),
];
