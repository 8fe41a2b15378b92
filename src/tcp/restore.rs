//! Makes the data directory of a founder whose cluster begins with the state of a backup.
//!
//! Each restore founds another cluster, also of the same backup with the same members: a client of one
//! must not take the revisions and sessions of another for its own. A random number sets them apart, which
//! all initial members of one cluster are given; see [`RestoreId`].
//!
//! The node itself is started for that, on the real disk and without any peer, until what it wrote
//! first is durable: so there is one way only in which a log begins.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use bytes::Bytes;

use crate::api::{Reply, RequestId};
use crate::config::{Config, FOUNDING_GAP};
use crate::digest::Digest;
use crate::driver::{Driver, Host};
use crate::env::{Clock, Completion, Transport};
use crate::error::Error;
use crate::machine::StateMachine;
use crate::tcp::directory::{Directory, Expected};
use crate::tcp::disk::{Files, OnFiles};
use crate::tcp::identity::RestoreId;
use crate::tcp::options::Options;
use crate::tcp::server::ServerError;
use crate::types::NodeId;
use crate::wire::Message;

/// Sets digests of backups apart from other hashes.
const STATE_SEED: u64 = 0x7265_7374_6f72_6564;

/// Only a disk: nobody to talk to, and no time to pass.
struct Alone {
    files: Files,
}

impl Clock for Alone {
    fn now(&self) -> Duration {
        Duration::ZERO
    }
}

impl Transport for Alone {
    fn send(&mut self, _: NodeId, _: Message) {}

    fn reply(&mut self, _: RequestId, _: Reply) {}
}

impl OnFiles for Alone {
    fn files(&mut self) -> &mut Files {
        &mut self.files
    }
}

impl Host for Alone {}

/// Makes the data directory of a founder of the new cluster `id`, whose first state is `backup`, which a
/// node with the machine `M`, of these parameters, has made. Blocks.
///
/// # Errors
/// When the directory has been used or cannot be written, when the backup cannot be read, and for a
/// node that joins, because that one gets the state from the others.
pub fn restore<M: StateMachine>(
    options: Options,
    params: M::Params,
    backup: Bytes,
    id: RestoreId,
) -> Result<(), ServerError> {
    if options.cluster.is_none() {
        return Err(ServerError::Settings(
            "a node that joins a cluster gets its state from it: restore without --join".to_owned(),
        ));
    }
    let expected = Expected { node: options.config.id, cluster: options.cluster };
    let directory = Arc::new(Directory::open(&options.data_dir, expected)?);
    let state = Digest::new(STATE_SEED).bytes(&backup).u64(id.number()).finish();
    directory.begin_restore()?;
    let (report, completions) = channel();
    let report = move |completion| {
        // Whoever waited has seen an error before.
        let _ = report.send(completion);
    };
    let founding_gap = founding_gap(id);
    let config = Config { founding_state: Some(backup), founding_gap, ..options.config };
    let again = |error: Error| match error {
        Error::Disk(error) => ServerError::Io(format!(
            "the backup is not restored: {error} (run the restore again, not the node)"
        )),
        error => ServerError::Node(error),
    };
    let files = Files::start(directory.clone(), config.segment_bytes, report);
    let files = files.map_err(|error| again(Error::Disk(error)))?;
    found::<M>(params, config, files, &completions).map_err(again)?;
    // Only now may a node start on it.
    Ok(directory.end_restore(state)?)
}

/// Returns where the log of the cluster that a restore founds begins. Two of them are apart with a
/// probability of 65,535 to 65,536, and indices stay below 2^53, so that every reader of JSON can hold them.
fn founding_gap(id: RestoreId) -> u64 {
    FOUNDING_GAP * (1 + (id.number() >> 48))
}

/// Writes what a founder begins with. `files` reports to the other end of `completions`.
fn found<M: StateMachine>(
    params: M::Params,
    config: Config,
    files: Files,
    completions: &Receiver<Completion>,
) -> Result<(), Error> {
    let mut host = Alone { files };
    let mut driver: Driver<M> = Driver::start_with(params, config, &mut host)?;
    while driver.is_writing() {
        let Ok(completion) = completions.recv() else { break };
        driver.complete(completion);
        driver.flush(&mut host);
    }
    driver.node().stopped().cloned().map_or(Ok(()), Err)
}
