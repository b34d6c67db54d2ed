//! A network that fails: a port in front of another one, whose connections can be cut, held still, or not be made.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::postgres::failed;

/// Forwards every connection to a port of this host; ends with itself.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    target: AtomicU16,
    open: Mutex<Vec<TcpStream>>,
    shut: AtomicBool,
    ended: AtomicBool,
    /// Nothing passes.
    still: Mutex<bool>,
    moved: Condvar,
}

impl Proxy {
    /// In front of `target`, on a port of its own.
    ///
    /// # Panics
    /// Where this host has no port.
    #[must_use]
    pub fn start(target: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| Ok((listener.local_addr()?, listener)));
        let (address, listener) = listener.unwrap_or_else(|error| failed(&format!("no port: {error}")));
        let shared = Arc::new(Shared {
            target: AtomicU16::new(target),
            open: Mutex::default(),
            shut: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            still: Mutex::new(false),
            moved: Condvar::new(),
        });
        let accepting = std::thread::spawn({
            let shared = Arc::clone(&shared);
            move || accept(&shared, &listener)
        });
        Self {
            port: address.port(),
            shared,
            accepting: Some(accepting),
        }
    }

    /// Where it listens, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// New connections lead there.
    pub fn set_target(&self, port: u16) {
        self.shared.target.store(port, Ordering::SeqCst);
    }

    /// Resets all connections; new ones may be made.
    pub fn cut(&self) {
        for stream in lock(&self.shared.open).drain(..) {
            // It may be gone already.
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    /// Nobody gets through any more, or again; connections that stand stay.
    pub fn shut(&self, shut: bool) {
        self.shared.shut.store(shut, Ordering::SeqCst);
    }

    /// Nothing passes on connections that stay open, as where a cable was pulled; or again.
    pub fn hold_still(&self, still: bool) {
        *lock(&self.shared.still) = still;
        self.shared.moved.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.hold_still(false);
        self.cut();
        // Wakes whoever accepts.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
        if let Some(accepting) = self.accepting.take() {
            drop(accepting.join());
        }
    }
}

fn accept(shared: &Arc<Shared>, listener: &TcpListener) {
    for incoming in listener.incoming() {
        if shared.ended.load(Ordering::SeqCst) {
            return;
        }
        let Ok(near) = incoming else { continue };
        if shared.shut.load(Ordering::SeqCst) {
            continue;
        }
        let target = shared.target.load(Ordering::SeqCst);
        // Where nobody listens, the connection just ends.
        let Ok(far) = TcpStream::connect((Ipv4Addr::LOCALHOST, target)) else {
            continue;
        };
        let copies = [&near, &far, &near, &far].map(TcpStream::try_clone);
        let [Ok(near_in), Ok(far_out), Ok(near_kept), Ok(far_kept)] = copies else {
            continue;
        };
        lock(&shared.open).extend([near_kept, far_kept]);
        for (from, to) in [(near_in, far_out), (far, near)] {
            let shared = Arc::clone(shared);
            std::thread::spawn(move || forward(&shared, from, to));
        }
    }
}

/// Until one side ends.
fn forward(shared: &Shared, mut from: TcpStream, mut to: TcpStream) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let mut still = lock(&shared.still);
        while *still {
            still = shared.moved.wait(still).unwrap_or_else(PoisonError::into_inner);
        }
        drop(still);
        if to.write_all(buffer.get(..length).unwrap_or_default()).is_err() {
            break;
        }
    }
    // The other direction ends with this one.
    drop(from.shutdown(Shutdown::Both));
    drop(to.shutdown(Shutdown::Both));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
