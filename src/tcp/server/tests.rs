//! Whole nodes in one process, on real sockets and files: what becomes of their directories.

use std::fs;
use std::path::{Path, PathBuf};

use super::*;
use crate::api::{Consistency, Reply};
use crate::kv::{Command, Kv, MAX_KEY, MAX_VALUE, Query, Response};
use crate::tcp::Recovery;
use crate::tcp::identity::RestoreId;
use crate::tcp::options::Settings;
use crate::tcp::scratch::Scratch;
use crate::tcp::testing::{Register, eventually, free_port};
use crate::types::NodeId;

/// The founders of a cluster, on paper.
struct Founders {
    urls: Vec<String>,
    scratch: Scratch,
}

impl Founders {
    fn new(count: usize) -> Founders {
        let urls = (0..count).map(|_| format!("http://127.0.0.1:{}", free_port())).collect();
        Founders { urls, scratch: Scratch::new() }
    }

    fn directory(&self, id: u64) -> PathBuf {
        self.scratch.path().join(id.to_string())
    }

    fn options(&self, id: u64, directory: &Path) -> Options {
        let settings = Settings {
            id: Some(id),
            cluster: Some(self.urls.clone()),
            listen_client: Some("127.0.0.1:0".to_owned()),
            data_dir: Some(directory.to_owned()),
            segment_mib: Some(1),
            ..Settings::default()
        };
        settings.resolve().unwrap()
    }

    async fn start(&self, id: u64, directory: &Path) -> Server {
        Server::start(self.options(id, directory)).await.unwrap()
    }

    /// Whether the node has stored that it met all others.
    fn knows_all(&self, id: u64) -> bool {
        let file = fs::read_to_string(self.directory(id).join("peers.toml")).unwrap_or_default();
        (1..=self.urls.len() as u64)
            .all(|peer| peer == id || file.contains(&format!("life.{peer} ")))
    }
}

/// Writes `key`, which works once there is a leader.
async fn put(server: &Server, key: &'static str) {
    let command = Command::Put { key: key.into(), value: "value".into() }.encode();
    let request = Request::Command { session: None, command };
    asked(server, request, |reply| matches!(reply, Reply::Applied { .. })).await;
}

/// Reads `key` from all that was ever acknowledged.
async fn has(server: &Server, key: &'static str) -> bool {
    let query = Query::Get { key: key.into() }.encode();
    let request = Request::Query { query, consistency: Consistency::Linearizable };
    let reply = asked(server, request, |reply| matches!(reply, Reply::Value { .. })).await;
    let Reply::Value { response, .. } = reply else { unreachable!("it was waited for") };
    matches!(Response::decode(&response), Ok(Response::Value(Some(_))))
}

async fn asked(server: &Server, request: Request, wanted: impl Fn(&Reply) -> bool) -> Reply {
    let ask = async {
        loop {
            let reply = server.handle().request(request.clone()).await;
            if wanted(&reply) {
                return reply;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(60), ask).await.expect("the cluster answers")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_founder_whose_directory_was_emptied_is_refused_and_the_others_go_on() {
    let founders = Founders::new(3);
    let one = founders.start(1, &founders.directory(1)).await;
    let two = founders.start(2, &founders.directory(2)).await;
    let three = founders.start(3, &founders.directory(3)).await;
    put(&one, "first").await;
    eventually("all have met", || (1..=3).all(|id| founders.knows_all(id))).await;

    assert!(matches!(three.stop().await, Ended::Asked));
    let kept = founders.directory(30);
    fs::rename(founders.directory(3), &kept).unwrap();
    let mut emptied = founders.start(3, &founders.directory(3)).await;
    let ended = timeout(Duration::from_secs(60), emptied.ended()).await.expect("it stops");
    let Ended::Refused(error) = ended else { panic!("{ended:?}") };
    assert!(matches!(error, DirectoryError::OtherLife { node: NodeId(3), .. }));
    let text = error.to_string();
    let path = fs::canonicalize(founders.directory(3)).unwrap();
    for part in
        [path.to_str().unwrap(), "know node 3 by another directory", "put the old", "remove"]
    {
        assert!(text.contains(part), "`{text}` does not say `{part}`");
    }
    drop(emptied);
    put(&one, "second").await;
    put(&two, "third").await;

    // Its old directory is welcome, wherever it is now; and so is that of another.
    let three = founders.start(3, &kept).await;
    assert!(matches!(two.stop().await, Ended::Asked));
    let moved = founders.directory(20);
    fs::rename(founders.directory(2), &moved).unwrap();
    put(&three, "fourth").await;
    let two = founders.start(2, &moved).await;
    assert!(matches!(one.stop().await, Ended::Asked));
    put(&two, "fifth").await;
    for key in ["first", "second", "third", "fourth", "fifth"] {
        assert!(has(&two, key).await, "{key}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restore_that_was_cut_off_is_no_cluster_until_it_is_repeated() {
    let founders = Founders::new(1);
    let old = founders.start(1, &founders.directory(1)).await;
    put(&old, "before").await;
    let pieces = old.handle().backup().await.expect("it runs");
    let backup: bytes::Bytes = pieces.flatten().collect();
    put(&old, "after").await;
    old.stop().await;

    let place = founders.directory(2);
    // Its state is written, but the note that it is whole is not.
    let options = founders.options(1, &place);
    let expected = Expected { node: options.config.id, cluster: options.cluster };
    let directory = Directory::open(&place, expected).unwrap();
    directory.begin_restore().unwrap();
    fs::write(place.join("wal-0000000000000001"), "half of a log").unwrap();
    drop(directory);
    let error = Server::start(founders.options(1, &place)).await.err().expect("it is not whole");
    assert!(error.to_string().contains("run `stormkv restore` again"), "{error}");

    let half = backup.slice(..backup.len() - 1);
    let id = RestoreId::random();
    let error = crate::tcp::restore::<Kv>(founders.options(1, &place), (), half, id).unwrap_err();
    assert!(error.to_string().contains("founding state cannot be read"), "{error}");
    crate::tcp::restore::<Kv>(founders.options(1, &place), (), backup.clone(), id).unwrap();
    let error = crate::tcp::restore::<Kv>(founders.options(1, &place), (), backup, id).unwrap_err();
    assert!(error.to_string().contains("nothing is overwritten"), "{error}");

    let new = founders.start(1, &place).await;
    assert!(has(&new, "before").await && !has(&new, "after").await);
    put(&new, "later").await;
    new.stop().await;
    let new = founders.start(1, &place).await;
    assert!(has(&new, "later").await);
}

/// Two values of the largest size are more than a body or a command of the usual size.
#[tokio::test(flavor = "multi_thread")]
async fn every_value_that_can_be_put_can_be_swapped() {
    let founders = Founders::new(1);
    let server = founders.start(1, &founders.directory(1)).await;
    let endpoint = format!("http://{}", server.client_address());
    let client = crate::client::Client::builder([endpoint]).build().unwrap();
    // Plain text, text that is all escapes, and no text.
    for (byte, key) in [(b'x', "plain"), (1, "escaped"), (0xff, "binary")] {
        let key = key.repeat(MAX_KEY / key.len());
        let old = bytes::Bytes::from(vec![byte; MAX_VALUE]);
        let mut new = old.to_vec();
        new[0] = b'!';
        let new = bytes::Bytes::from(new);
        client.put(&key, old.clone()).await.unwrap();
        let swap = client.cas(&key, Some(old.clone()), Some(new.clone())).await.unwrap();
        assert!(swap.swapped && swap.current == Some(old), "{byte}");
        let found = client.get(&key, Consistency::Linearizable).await.unwrap().unwrap();
        assert_eq!(found.value, new, "{byte}");
    }
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn machine_survives_a_restart_and_a_restore() {
    let founders = Founders::new(1);
    let set = |value: &'static str| Request::Command { session: None, command: value.into() };
    let get = || Request::Query { query: "".into(), consistency: Consistency::Linearizable };
    let start = async |id: u64| {
        let options = founders.options(1, &founders.directory(id));
        Server::start_with::<Register>(options, ()).await.unwrap()
    };
    let is_value = |reply: &Reply, value: &str| matches!(reply, Reply::Value { response, .. } if response == value);

    let server = start(1).await;
    asked(&server, set("one"), |reply| matches!(reply, Reply::Applied { .. })).await;
    assert!(matches!(server.stop().await, Ended::Asked));
    let server = start(1).await;
    asked(&server, get(), |reply| is_value(reply, "one")).await;
    let backup: bytes::Bytes = server.handle().backup().await.expect("it runs").flatten().collect();
    server.stop().await;

    let options = founders.options(1, &founders.directory(2));
    crate::tcp::restore::<Register>(options, (), backup.clone(), RestoreId::random()).unwrap();
    let server = start(2).await;
    asked(&server, get(), |reply| is_value(reply, "one")).await;
    server.stop().await;
    let recovery = Recovery::read::<Register>(&[founders.directory(2)], &()).unwrap();
    assert!(recovery.to_string().contains("nothing that was acknowledged"), "{recovery}");

    // The key-value store cannot read the state of the register, and says so.
    let options = founders.options(1, &founders.directory(3));
    let error = crate::tcp::restore::<Kv>(options, (), backup, RestoreId::random()).unwrap_err();
    assert!(error.to_string().contains("key-value snapshot"), "{error}");
}
