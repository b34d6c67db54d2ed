//! Measures a child process: wall time, what it printed, and the peak memory of it and its children.
//!
//! Memory is sampled from `/proc` at 20 Hz: the sum of resident memory over the process tree; for the process itself the kernel's own
//! high-water mark counts too, so that a short peak between two samples is not missed. Pages that processes share are counted for each.

use std::collections::HashMap;
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::sh;

/// Time between two samples.
const SAMPLE: Duration = Duration::from_millis(50);

/// What a run cost.
#[derive(Debug)]
pub(crate) struct Measured {
    /// Wall time from start to end.
    pub(crate) seconds: f64,
    /// Peak resident memory of the process and its children.
    pub(crate) peak_rss_kib: u64,
    /// What it printed.
    pub(crate) stdout: String,
}

/// Runs to the end; anything but success is an error. Standard error is shown.
pub(crate) fn measured(command: &mut Command) -> Result<Measured> {
    let name = sh::shown(command);
    let began = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let id = child.id();
    let mut pipe = child.stdout.take().context("no standard output")?;
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut peak = 0;
            while !over.load(Ordering::Acquire) {
                peak = peak.max(tree_rss_kib(id));
                std::thread::park_timeout(SAMPLE);
            }
            peak
        });
        let mut stdout = String::new();
        let read = pipe.read_to_string(&mut stdout);
        let status = child.wait();
        let seconds = began.elapsed().as_secs_f64();
        over.store(true, Ordering::Release);
        sampler.thread().unpark();
        let peak_rss_kib = sampler.join().ok().context("the sampling thread panicked")?;
        read.with_context(|| format!("cannot read what {name} prints"))?;
        let status = status?;
        if !status.success() {
            bail!("{name} ended with {status}\n{stdout}");
        }
        Ok(Measured {
            seconds,
            peak_rss_kib,
            stdout,
        })
    })
}

/// Resident memory of a process and all below it. A process that ends while we look counts as nothing.
fn tree_rss_kib(root: u32) -> u64 {
    let mut children: HashMap<u32, Vec<u32>> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let id = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok());
        if let Some((id, parent)) = id.and_then(|id| Some((id, parent_of(id)?))) {
            children.entry(parent).or_default().push(id);
        }
    }
    let mut sum = 0;
    let mut waiting = vec![root];
    while let Some(id) = waiting.pop() {
        sum += status_kib(id, "VmRSS:").unwrap_or(0);
        waiting.extend(children.remove(&id).into_iter().flatten());
    }
    sum.max(status_kib(root, "VmHWM:").unwrap_or(0))
}

fn parent_of(id: u32) -> Option<u32> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
    // The name in parentheses may hold anything; what follows the last one is well-formed.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(1)?.parse().ok()
}

fn status_kib(id: u32, key: &str) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).ok()?;
    let value = status.lines().find_map(|line| line.strip_prefix(key))?;
    value.trim().strip_suffix("kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_of_the_child_counts() {
        // Two processes, each holding what `head` reads; the outer shell waits for both.
        let script = "x=$(head -c 60000000 /dev/zero | tr '\\0' a); (y=$x; sleep 0.4; echo ${#y})";
        let run = measured(&mut sh::program("sh", ["-c", script])).unwrap();
        assert_eq!(run.stdout.trim(), "60000000");
        assert!(run.seconds >= 0.4, "{run:?}");
        assert!(run.peak_rss_kib > 100_000, "{run:?}");
    }

    #[test]
    fn a_failure_is_an_error() {
        assert!(
            measured(&mut sh::program("sh", ["-c", "exit 7"]))
                .unwrap_err()
                .to_string()
                .contains('7')
        );
    }
}
