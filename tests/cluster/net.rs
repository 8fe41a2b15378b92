//! The network between the nodes, in this process: one proxy in front of each node.
//!
//! A node advertises its proxy's address and listens elsewhere, so all that peers say to it passes
//! here. Each connection begins with a Hello that names who dials, so every link has a direction:
//! what `a` sends to `b` travels on connections that `a` has dialed. (What flows back on them,
//! handshake answers and pongs, shares their fate; messages of `b` have connections of their own.)
//!
//! A link can be silent (bytes are held back, connections stay open: what a cut cable or a firewall
//! that drops packets looks like), refused (connections are closed at once), or slow. What was held
//! back on a silent link arrives when it is mended, as TCP would retransmit it. A connection can
//! also be cut, in the middle of whatever it carries.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// The first bytes of a connection between peers.
const MAGIC: &[u8; 8] = b"stormkv\0";
/// The Hello up to the dialer's own address.
const HELLO: usize = 50;
/// Where in it the dialer's id stands.
const FROM: std::ops::Range<usize> = 24..32;

/// What a link does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum State {
    /// Everything passes.
    #[default]
    Open,
    /// Nothing passes, nobody is told.
    Silent,
    /// Connections are closed, new ones too.
    Refused,
    /// Everything passes, so much later.
    Slow(Duration),
}

/// A link: from one node to another.
pub type Link = (u64, u64);

#[derive(Default)]
struct Table {
    /// Links that are not open.
    links: BTreeMap<Link, State>,
    /// Connections under way, with both of their ends.
    connections: BTreeMap<u64, (Link, [TcpStream; 2])>,
    next: u64,
    /// Bytes that have passed, by link.
    carried: BTreeMap<Link, u64>,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    table: Mutex<Table>,
    changed: Condvar,
}

/// The network of one fleet. Closes everything when it is dropped.
#[derive(Default)]
pub struct Network {
    shared: Arc<Shared>,
    doors: Vec<SocketAddr>,
}

impl Network {
    /// A network in which everything passes.
    pub fn new() -> Network {
        Network::default()
    }

    /// Opens a proxy in front of the node `to`, which listens at `behind`. The result is the
    /// address that the node should advertise.
    pub fn door(&mut self, to: u64, behind: SocketAddr) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        self.doors.push(address);
        let shared = self.shared.clone();
        thread::spawn(move || {
            for dialer in listener.incoming().flatten() {
                if shared.lock().closed {
                    break;
                }
                let shared = shared.clone();
                thread::spawn(move || {
                    // A connection that fails is closed; its dialer tries again.
                    let _ = shared.carry(to, behind, dialer);
                });
            }
        });
        address
    }

    /// Sets what a link does from now on.
    pub fn set(&self, link: Link, state: State) {
        let mut table = self.shared.lock();
        match state {
            State::Open => table.links.remove(&link),
            state => table.links.insert(link, state),
        };
        if state == State::Refused {
            table.cut(|other| other == link);
        }
        drop(table);
        self.shared.changed.notify_all();
    }

    /// Nothing passes from any of these to any of those.
    pub fn block(&self, from: &[u64], to: &[u64], state: State) {
        for &a in from {
            for &b in to {
                if a != b {
                    self.set((a, b), state);
                }
            }
        }
    }

    /// Nothing passes between these and those, in either direction.
    pub fn split(&self, left: &[u64], right: &[u64], state: State) {
        self.block(left, right, state);
        self.block(right, left, state);
    }

    /// Closes the connections of a link, whatever they carry. Says how many there were.
    pub fn cut(&self, link: Link) -> usize {
        self.shared.lock().cut(|other| other == link)
    }

    /// All links are open again.
    pub fn heal(&self) {
        self.shared.lock().links.clear();
        self.shared.changed.notify_all();
    }

    /// Bytes that have passed so far, by link.
    pub fn carried(&self) -> BTreeMap<Link, u64> {
        self.shared.lock().carried.clone()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let mut table = self.shared.lock();
        table.closed = true;
        table.cut(|_| true);
        drop(table);
        self.shared.changed.notify_all();
        for door in &self.doors {
            // Wakes the proxy from its wait, so that it sees that all is over.
            let _ = TcpStream::connect(door);
        }
    }
}

impl Table {
    fn cut(&mut self, which: impl Fn(Link) -> bool) -> usize {
        let mut count = 0;
        for (link, ends) in self.connections.values() {
            if which(*link) {
                count += 1;
                for end in ends {
                    let _ = end.shutdown(Shutdown::Both);
                }
            }
        }
        count
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Carries one connection from its first to its last byte.
    fn carry(self: Arc<Self>, to: u64, behind: SocketAddr, dialer: TcpStream) -> io::Result<()> {
        let mut dialer = dialer;
        dialer.set_nodelay(true)?;
        let (from, first) = read_hello(&mut dialer)?;
        let link = (from, to);
        // A refused or silent link must not even reach the node behind it.
        self.pass(link, 0)?;
        let mut node = TcpStream::connect(behind)?;
        node.set_nodelay(true)?;
        let number = {
            let mut table = self.lock();
            let number = table.next;
            table.next += 1;
            let ends = [dialer.try_clone()?, node.try_clone()?];
            table.connections.insert(number, (link, ends));
            number
        };
        let back = {
            let (shared, from, to) = (self.clone(), node.try_clone()?, dialer.try_clone()?);
            thread::spawn(move || shared.pump(link, from, to))
        };
        if self.pass(link, first.len()).and_then(|()| node.write_all(&first)).is_ok() {
            self.pump(link, dialer, node);
        } else {
            let _ = node.shutdown(Shutdown::Both);
        }
        let _ = back.join();
        self.lock().connections.remove(&number);
        Ok(())
    }

    /// Carries bytes one way until either end is closed.
    fn pump(&self, link: Link, mut from: TcpStream, mut to: TcpStream) {
        let mut buffer = vec![0; 64 << 10];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            if self.pass(link, count).and_then(|()| to.write_all(&buffer[..count])).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }

    /// Waits until so many bytes may pass; an error if they never may.
    fn pass(&self, link: Link, bytes: usize) -> io::Result<()> {
        let mut table = self.lock();
        loop {
            if table.closed {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            match table.links.get(&link).copied().unwrap_or_default() {
                State::Refused => return Err(io::ErrorKind::ConnectionRefused.into()),
                State::Silent => {
                    table = self.changed.wait(table).unwrap_or_else(PoisonError::into_inner);
                }
                state => {
                    *table.carried.entry(link).or_default() += bytes as u64;
                    drop(table);
                    if let State::Slow(delay) = state {
                        thread::sleep(delay);
                    }
                    return Ok(());
                }
            }
        }
    }
}

/// Reads as much of a connection's beginning as tells who dials: 0 if it does not begin with a
/// Hello in plain bytes (TLS hides it).
fn read_hello(dialer: &mut TcpStream) -> io::Result<(u64, Vec<u8>)> {
    dialer.set_read_timeout(Some(Duration::from_secs(10)))?;
    let mut first = vec![0; MAGIC.len()];
    dialer.read_exact(&mut first)?;
    let mut from = 0;
    if first == MAGIC {
        first.resize(HELLO, 0);
        dialer.read_exact(&mut first[MAGIC.len()..])?;
        from = u64::from_le_bytes(first[FROM].try_into().expect("eight bytes"));
    }
    dialer.set_read_timeout(None)?;
    Ok((from, first))
}
