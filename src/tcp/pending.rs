//! Connections that have not said what they want, in a bounded number of places.
//!
//! Anyone can connect. If the first who come kept their places until a timeout, strangers that say
//! nothing would keep out those who have something to say. So a newcomer always gets a place: if
//! there is none, the connection that deserves its place least is evicted. That is, of the source
//! address that has the most connections here, one that has sent nothing rather than one that has
//! sent something, and of these the oldest. One that has introduced itself is never evicted.
//!
//! A connection is safe for a moment after it was accepted, and for a longer one after its first
//! byte: otherwise a flood of connections would evict a peer before its first bytes are read. While
//! all are safe, a newcomer waits. So a place serves a known number of connections per second, and
//! how long a peer can be held up depends on nothing but the length of the system's queue of
//! connections.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, timeout};

/// For which a connection that has sent nothing is safe.
const SAFE_SILENT: Duration = Duration::from_millis(50);

/// For which one that has sent something is safe.
const SAFE_SPEAKING: Duration = Duration::from_millis(500);

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Stage {
    /// It was accepted.
    Silent,
    /// Its first byte has arrived.
    Speaking,
    /// It has said what it wants.
    Introduced,
}

#[derive(Debug)]
struct Connection {
    address: IpAddr,
    stage: Stage,
    /// When it has entered the stage.
    since: Instant,
    /// Dropped to evict it.
    _evict: oneshot::Sender<()>,
}

impl Connection {
    /// When it may be evicted, if ever.
    fn unsafe_from(&self) -> Option<Instant> {
        match self.stage {
            Stage::Silent => Some(self.since + SAFE_SILENT),
            Stage::Speaking => Some(self.since + SAFE_SPEAKING),
            Stage::Introduced => None,
        }
    }
}

#[derive(Debug, Default)]
struct Present {
    /// By the order in which they came.
    connections: BTreeMap<u64, Connection>,
    count: u64,
}

/// The places. See the module.
#[derive(Debug)]
pub(super) struct Pending {
    places: usize,
    present: Mutex<Present>,
    /// A place was given back.
    freed: Notify,
}

/// A place, which is given back when the value is dropped.
#[derive(Debug)]
pub(super) struct Place {
    number: u64,
    pending: Arc<Pending>,
    evicted: Option<oneshot::Receiver<()>>,
}

impl Pending {
    /// Makes so many places.
    pub fn new(places: usize) -> Arc<Pending> {
        let present = Mutex::default();
        Arc::new(Pending { places: places.max(1), present, freed: Notify::new() })
    }

    /// A place for a connection from `address`, once there is one.
    pub async fn enter(self: &Arc<Self>, address: IpAddr) -> Place {
        loop {
            let freed = self.freed.notified();
            match self.try_enter(address) {
                Ok(place) => return place,
                Err(wait) => {
                    let _ = timeout(wait, freed).await;
                }
            }
        }
    }

    /// A place for a connection from `address`.
    ///
    /// # Errors
    /// When all present connections are safe; says until when at most.
    pub fn try_enter(self: &Arc<Self>, address: IpAddr) -> Result<Place, Duration> {
        self.enter_at(Instant::now(), address)
    }

    fn enter_at(self: &Arc<Self>, now: Instant, address: IpAddr) -> Result<Place, Duration> {
        let mut present = self.present();
        if present.connections.len() >= self.places {
            let worst = worst(&present.connections, now);
            present.connections.remove(&worst?);
        }
        assert!(present.connections.len() < self.places, "a place is free now");
        present.count += 1;
        let number = present.count;
        let (evict, evicted) = oneshot::channel();
        let connection = Connection { address, stage: Stage::Silent, since: now, _evict: evict };
        present.connections.insert(number, connection);
        drop(present);
        Ok(Place { number, pending: self.clone(), evicted: Some(evicted) })
    }

    fn present(&self) -> MutexGuard<'_, Present> {
        self.present.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection to evict; if all are safe, the time until one is not.
fn worst(connections: &BTreeMap<u64, Connection>, now: Instant) -> Result<u64, Duration> {
    let mut of_address: BTreeMap<IpAddr, usize> = BTreeMap::new();
    let mut wait = SAFE_SPEAKING;
    for connection in connections.values() {
        *of_address.entry(connection.address).or_default() += 1;
        if let Some(at) = connection.unsafe_from() {
            wait = wait.min(at.saturating_duration_since(now));
        }
    }
    let exposed = |connection: &Connection| connection.unsafe_from().is_some_and(|at| at <= now);
    connections
        .iter()
        .filter(|(_, connection)| exposed(connection))
        .min_by_key(|(number, connection)| {
            let others = of_address[&connection.address];
            (std::cmp::Reverse(others), connection.stage, **number)
        })
        .map(|(number, _)| *number)
        .ok_or(wait)
}

impl Place {
    /// The connection has reached this stage.
    pub fn reached(&self, stage: Stage) {
        self.reached_at(Instant::now(), stage);
    }

    fn reached_at(&self, now: Instant, stage: Stage) {
        let mut present = self.pending.present();
        if let Some(connection) = present.connections.get_mut(&self.number) {
            assert!(stage > connection.stage, "stages follow on each other");
            connection.stage = stage;
            connection.since = now;
        }
    }

    /// Ready when the place was given to another connection. To be called once.
    pub fn evicted(&mut self) -> impl Future<Output = ()> + use<> {
        let evicted = self.evicted.take();
        async move {
            let Some(evicted) = evicted else { return std::future::pending().await };
            let _ = evicted.await;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if self.pending.present().connections.remove(&self.number).is_some() {
            self.pending.freed.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(last: u8) -> IpAddr {
        IpAddr::from([127, 0, 0, last])
    }

    fn numbers(pending: &Pending) -> Vec<u64> {
        pending.present().connections.keys().copied().collect()
    }

    #[tokio::test]
    async fn newcomer_evicts_the_oldest_silent_connection() {
        let pending = Pending::new(3);
        let mut now = Instant::now();
        let enter = |now: Instant| pending.enter_at(now, address(1));
        let mut places = [(); 3].map(|()| enter(now).unwrap());
        places[0].reached_at(now, Stage::Speaking);
        let (speaking, silent) = (places[0].evicted(), places[1].evicted());
        assert_eq!(enter(now).unwrap_err(), SAFE_SILENT);
        now += SAFE_SILENT;
        let _fourth = enter(now).unwrap();
        silent.await;
        assert_eq!(numbers(&pending), [1, 3, 4]);
        // Those that have spoken go last, and those that are introduced never.
        let _fifth = enter(now).unwrap();
        assert_eq!(numbers(&pending), [1, 4, 5]);
        now += SAFE_SPEAKING;
        let _two = [(); 2].map(|()| enter(now).unwrap());
        assert_eq!(numbers(&pending), [1, 6, 7]);
        places[0].reached_at(now, Stage::Introduced);
        now += SAFE_SPEAKING * 100;
        let _three = [(); 2].map(|()| enter(now).unwrap());
        assert_eq!(numbers(&pending), [1, 8, 9]);
        drop(places);
        speaking.await;
        assert_eq!(numbers(&pending), [8, 9]);
    }

    #[test]
    fn address_with_the_most_connections_loses_first() {
        let pending = Pending::new(4);
        let now = Instant::now();
        let _one = pending.enter_at(now, address(1)).unwrap();
        let _many = [(); 3].map(|()| pending.enter_at(now, address(2)).unwrap());
        let _new = pending.enter_at(now + SAFE_SILENT, address(3)).unwrap();
        assert_eq!(numbers(&pending), [1, 3, 4, 5]);
    }

    #[tokio::test]
    async fn newcomer_waits_for_a_place_that_is_given_back() {
        let pending = Pending::new(1);
        let first = pending.enter(address(1)).await;
        first.reached(Stage::Introduced);
        let other = pending.clone();
        let waiting = tokio::spawn(async move { other.enter(address(1)).await.number });
        tokio::time::sleep(SAFE_SILENT * 2).await;
        assert!(!waiting.is_finished());
        drop(first);
        assert_eq!(waiting.await.unwrap(), 2);
        assert!(numbers(&pending).is_empty());
    }

    #[test]
    fn flood_of_silent_connections_is_slowed_down() {
        let pending = Pending::new(10);
        let began = Instant::now();
        let mut now = began;
        let mut places = Vec::new();
        while places.len() < 100 {
            match pending.enter_at(now, address(1)) {
                Ok(place) => places.push(place),
                Err(wait) => now += wait,
            }
        }
        assert_eq!(now - began, SAFE_SILENT * 9);
        assert_eq!(numbers(&pending).len(), 10);
    }
}
