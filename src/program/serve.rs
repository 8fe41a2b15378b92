//! Runs a node until it is told to stop, or stops by itself.

use std::io::IsTerminal;

use tokio::signal::unix::{SignalKind, signal};
use tracing::info;
use tracing_subscriber::EnvFilter;

use super::{Exit, Failure, ServeArgs};
use stormkv::error::Error;
use stormkv::tcp::options::{LogFormat, Options, Settings};
use stormkv::tcp::{Ended, Server, ServerError, raise_limit};

pub fn serve(args: ServeArgs) -> Result<Exit, Failure> {
    let settings = args.settings()?;
    log(&settings)?;
    let options = settings.resolve().map_err(Failure::usage)?;
    raise_limit();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("stormkv-net")
        .build()
        .map_err(|error| Failure::new(Exit::Io, format!("no threads for the network: {error}")))?;
    let exit = runtime.block_on(run(options));
    // A look-up of a name or a thread that hangs must not hold up the end.
    runtime.shutdown_background();
    exit
}

async fn run(options: Options) -> Result<Exit, Failure> {
    let mut terminate = handler(SignalKind::terminate())?;
    let mut interrupt = handler(SignalKind::interrupt())?;
    let mut hangup = handler(SignalKind::hangup())?;
    // Reading a large disk takes a while. Nothing was promised yet.
    let mut server = tokio::select! {
        server = Server::start(options) => server?,
        _ = terminate.recv() => return Ok(Exit::Ok),
        _ = interrupt.recv() => return Ok(Exit::Ok),
    };
    loop {
        tokio::select! {
            end = server.ended() => return ended(end),
            _ = terminate.recv() => return stop(server, "SIGTERM", &mut interrupt).await,
            _ = interrupt.recv() => return stop(server, "SIGINT", &mut terminate).await,
            _ = hangup.recv() => server.reload().await,
        }
    }
}

fn handler(kind: SignalKind) -> Result<tokio::signal::unix::Signal, Failure> {
    signal(kind)
        .map_err(|error| Failure::new(Exit::Internal, format!("no signal handler: {error}")))
}

/// Hands over and ends in good order; a second signal ends it at once, which loses nothing either.
async fn stop(
    server: Server,
    signal: &str,
    second: &mut tokio::signal::unix::Signal,
) -> Result<Exit, Failure> {
    info!(signal, "stopping: handing over leadership, finishing requests");
    tokio::select! {
        end = server.stop() => ended(end),
        _ = second.recv() => Ok(Exit::Ok),
    }
}

/// What the end of a node means for its process.
fn ended(end: Ended) -> Result<Exit, Failure> {
    match end {
        Ended::Asked => Ok(Exit::Ok),
        Ended::Stopped(Error::Removed) => {
            info!("this member was removed from the cluster: stopping for good");
            Ok(Exit::Ok)
        }
        Ended::Stopped(error) => Err(ServerError::Node(error).into()),
        Ended::Refused(error) => Err(ServerError::from(error).into()),
        Ended::Panicked => Err(Failure::new(
            Exit::Internal,
            "an invariant of the node broke, and it was stopped before it could do harm: this is \
             a bug, please report it with the log",
        )),
    }
}

/// Sends log lines to standard error.
fn log(settings: &Settings) -> Result<(), Failure> {
    let filter = settings.log_level.as_deref().unwrap_or("info");
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        Failure::usage(format!("--log-level `{filter}`: {error}; write a level such as info"))
    })?;
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // To complain of a standard error that is gone, at standard error, would be a panic.
    let lines = lines.log_internal_errors(false);
    match settings.log.unwrap_or_default() {
        LogFormat::Pretty => lines.with_ansi(std::io::stderr().is_terminal()).init(),
        LogFormat::Json => lines.json().flatten_event(true).init(),
    }
    Ok(())
}
