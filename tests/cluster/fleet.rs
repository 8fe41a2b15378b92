//! A cluster of real nodes, with the network between them in the test's hands.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::disks::{Disk, DiskModel};
use super::http::{Failure, Request, Response};
use super::net::Network;
use super::nodes::{Node, free_address, print_logs};
use super::{PATIENCE, until, within};

/// A folder of its own under the system's temporary one. Removed in the end, kept if a test fails.
pub struct Folder(PathBuf);

impl Folder {
    /// A new, empty folder.
    pub fn new() -> Folder {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("stormkv-cluster-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        // Left by a process that had the same number once.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).expect("a temporary folder");
        Folder(path)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("--- kept for you: {}", self.0.display());
        } else {
            let _ = fs::remove_dir_all(&self.0);
        }
    }
}

/// A cluster. Every process ends with it; a failing test prints the ends of their logs.
pub struct Fleet {
    /// The nodes, by id; removed and killed ones too.
    pub nodes: BTreeMap<u64, Node>,
    /// What is between them.
    pub network: Network,
    /// The founders' `--cluster`.
    pub founders: String,
    /// More arguments for every node.
    pub extra: Vec<String>,
    scheme: &'static str,
    /// For nodes whose disks can be filled and stopped.
    disks: Option<DiskModel>,
    // Last, so that it is removed after the processes have ended.
    folder: Folder,
}

impl Fleet {
    /// Founds a cluster of so many nodes and waits for its leader.
    pub fn found(count: u64) -> Fleet {
        Fleet::found_with(count, &[])
    }

    /// As [`found`](Self::found), with more arguments for every node.
    pub fn found_with(count: u64, extra: &[&str]) -> Fleet {
        let mut fleet = Fleet::prepare(count, extra);
        fleet.start_all();
        fleet.leader();
        fleet
    }

    /// The nodes 1 to `count`, none of them started.
    pub fn prepare(count: u64, extra: &[&str]) -> Fleet {
        Fleet::prepare_with("http", count, extra)
    }

    /// As [`prepare`](Self::prepare), with `https` for peers that use TLS. Their proxies cannot
    /// tell who dials, so all that they can do is to pass everything.
    pub fn prepare_with(scheme: &'static str, count: u64, extra: &[&str]) -> Fleet {
        let mut fleet = Fleet {
            scheme,
            disks: None,
            nodes: BTreeMap::new(),
            network: Network::new(),
            founders: String::new(),
            extra: extra.iter().map(|word| (*word).to_owned()).collect(),
            folder: Folder::new(),
        };
        for id in 1..=count {
            fleet.place(id);
        }
        let urls: Vec<&str> = fleet.nodes.values().map(|node| node.url.as_str()).collect();
        fleet.founders = urls.join(",");
        for id in 1..=count {
            fleet.instruct(id, &fleet.founders.clone(), &[]);
        }
        fleet
    }

    fn place(&mut self, id: u64) {
        let (http, peers) = (free_address(), free_address());
        let url = format!("{}://{}", self.scheme, self.network.door(id, peers));
        let mut node = Node::new(id, self.folder.path(), http, peers, url);
        node.disk = disk_of(&node, self.disks.as_ref(), self.folder.path());
        self.nodes.insert(id, node);
    }

    /// Puts the data of all nodes, which are not started yet, on disks that the test can fill and
    /// stop, where that works.
    pub fn control_disks(&mut self) {
        self.disks = DiskModel::compile(self.folder.path());
        for node in self.nodes.values_mut() {
            node.disk = disk_of(node, self.disks.as_ref(), self.folder.path());
        }
    }

    /// Whether the disks of the nodes can be filled and stopped.
    pub fn controls_disks(&self) -> bool {
        self.disks.is_some()
    }

    /// The disk of a node, in a fleet that controls them.
    #[track_caller]
    pub fn disk(&self, id: u64) -> &Disk {
        self.nodes[&id].disk.as_ref().expect("a fleet that controls its disks")
    }

    /// Sets what the node is started with.
    fn instruct(&mut self, id: u64, cluster: &str, more: &[&str]) {
        let node = self.nodes.get_mut(&id).expect("a node");
        let mut arguments: Vec<String> = Vec::new();
        let mut set = |name: &str, value: String| arguments.extend([name.to_owned(), value]);
        set("--id", id.to_string());
        set("--cluster", cluster.to_owned());
        set("--port", node.http.port().to_string());
        set("--listen-peer", node.peers.to_string());
        set("--data-dir", node.data.display().to_string());
        arguments.extend(more.iter().map(|word| (*word).to_owned()));
        arguments.extend(self.extra.iter().cloned());
        node.arguments = arguments;
    }

    /// A node that will join: raftexample's way, with all peers in `--cluster`, and `--join`.
    pub fn newcomer(&mut self, id: u64) -> &mut Node {
        self.place(id);
        self.instruct(id, &self.urls(), &["--join"]);
        self.node(id)
    }

    /// The `--cluster` of all nodes: as raftexample writes it if they are numbered without a gap.
    fn urls(&self) -> String {
        let urls = (1..).zip(&self.nodes).map(|(place, (id, node))| {
            if place == *id { node.url.clone() } else { format!("{id}={}", node.url) }
        });
        urls.collect::<Vec<_>>().join(",")
    }

    /// Gives a node another address for peers, which only its own `--cluster` and those of nodes that are
    /// renumbered later name. Nothing listens at the old one any more.
    pub fn renumber(&mut self, id: u64) {
        let peers = free_address();
        let url = format!("{}://{}", self.scheme, self.network.door(id, peers));
        let node = self.node(id);
        (node.peers, node.url) = (peers, url);
        self.instruct(id, &self.urls(), &["--join"]);
    }

    /// Ends a node for good and forgets it; its data stay.
    pub fn retire(&mut self, id: u64) {
        self.nodes.remove(&id);
    }

    /// Where files of this test can be put.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A node.
    #[track_caller]
    pub fn node(&mut self, id: u64) -> &mut Node {
        self.nodes.get_mut(&id).unwrap_or_else(|| panic!("there is no node {id}"))
    }

    /// Starts every node that is down.
    pub fn start_all(&mut self) {
        for node in self.nodes.values_mut() {
            if !node.is_up() {
                node.kill();
                node.start();
            }
        }
    }

    /// kill -9, all at once.
    pub fn kill_all(&mut self) {
        self.nodes.values_mut().for_each(Node::kill);
    }

    /// The ids of all nodes.
    pub fn ids(&self) -> Vec<u64> {
        self.nodes.keys().copied().collect()
    }

    /// What a node says of itself; `None` if it does not answer.
    pub fn status(&self, id: u64) -> Option<Json> {
        let response = self.nodes.get(&id)?.get("/v1/status")?;
        (response.status == 200).then(|| response.json())
    }

    /// The leader of the newest term among these, if it knows that it leads.
    pub fn leader_among(&mut self, ids: &[u64]) -> Option<u64> {
        let mut newest: Option<(u64, u64)> = None;
        for &id in ids {
            let node = self.node(id);
            if !node.is_up() || node.is_paused() {
                continue;
            }
            let Some(status) = self.status(id) else { continue };
            if status["role"] == "leader" {
                newest = newest.max(status["term"].as_u64().map(|term| (term, id)));
            }
        }
        newest.map(|(_, id)| id)
    }

    /// Waits for a leader.
    #[track_caller]
    pub fn leader(&mut self) -> u64 {
        let ids = self.ids();
        self.leader_of(&ids)
    }

    /// Waits until one of these leads.
    #[track_caller]
    pub fn leader_of(&mut self, ids: &[u64]) -> u64 {
        until(&format!("one of {ids:?} leads"), || self.leader_among(ids))
    }

    /// The nodes that are not `id`.
    pub fn others(&self, id: u64) -> Vec<u64> {
        self.nodes.keys().copied().filter(|other| *other != id).collect()
    }

    /// Sends a request until it is answered with this status.
    #[track_caller]
    pub fn ask(&self, id: u64, request: &Request, status: u16) -> Response {
        let node = &self.nodes[&id];
        let began = Instant::now();
        loop {
            let told = match node.ask(request) {
                Ok(response) if response.status == status => return response,
                Ok(response) => format!("{} {}", response.status, response.text()),
                Err(failure) => failure.to_string(),
            };
            let (method, target) = (request.method, &request.target);
            assert!(began.elapsed() < PATIENCE, "{method} {target} at node {id}: {told}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks for a change of the membership until it is made. An attempt whose outcome is unknown
    /// may have made it, and then the next one makes no sense any more.
    #[track_caller]
    pub fn change(&self, id: u64, request: &Request) {
        let mut doubt = false;
        until(&format!("{} {} is done", request.method, request.target), || {
            match self.nodes[&id].ask(request).map(|answer| answer.status) {
                Ok(200 | 204) => return Some(()),
                Ok(404 | 409) if doubt => return Some(()),
                Ok(504) | Err(Failure::Lost(_)) => doubt = true,
                _ => {}
            }
            None
        });
    }

    /// Writes a key through a node, the way of raftexample.
    #[track_caller]
    pub fn put(&self, id: u64, key: &str, value: &str) {
        self.ask(id, &Request::new("PUT", format!("/{key}")).body(value), 204);
    }

    /// Reads a key through a node, the way of raftexample.
    #[track_caller]
    pub fn get(&self, id: u64, key: &str) -> Option<String> {
        within(PATIENCE, &format!("node {id} answers a GET of {key}"), || {
            let response = self.nodes[&id].get(&format!("/{key}"))?;
            match response.status {
                200 => Some(Some(response.text())),
                404 => Some(None),
                _ => None,
            }
        })
    }

    /// Hands leadership to this node.
    #[track_caller]
    pub fn transfer(&self, id: u64) {
        self.ask(id, &Request::new("POST", "/v1/leader").json(&json!({ "id": id })), 200);
    }

    /// The ids of the members, as this node sees them.
    pub fn members(&self, id: u64) -> Option<Vec<u64>> {
        let response = self.nodes[&id].get("/v1/members")?;
        let list = response.json()["members"].as_array()?.clone();
        Some(list.iter().filter_map(|member| member["id"].as_u64()).collect())
    }

    /// Waits until these nodes have applied the same, last entry of their log, under one leader.
    #[track_caller]
    pub fn converge(&mut self, ids: &[u64]) {
        until(&format!("{ids:?} have applied the same"), || {
            let states: Vec<Json> = ids.iter().map(|id| self.status(*id)).collect::<Option<_>>()?;
            let same = |what: &str| states.iter().all(|state| state[what] == states[0][what]);
            let done = states.iter().all(|state| state["applied"] == state["last"]);
            (same("applied") && same("term") && same("leader") && done).then_some(())
        });
    }
}

/// The disk of a node in a fleet that controls them.
fn disk_of(node: &Node, model: Option<&DiskModel>, folder: &Path) -> Option<Disk> {
    let control = folder.join(format!("disk-{}", node.id));
    model.map(|model| Disk::new(model, &node.data, control))
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.kill_all();
        if thread::panicking() {
            print_logs(self.nodes.values());
        }
    }
}
