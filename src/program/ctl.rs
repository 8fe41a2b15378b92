//! `stormkv ctl`: one request to a cluster, for people and for scripts.
//!
//! The exit code tells what is known: 0 done, 1 not done and never will be (absent, not swapped,
//! refused), 3 unknown, 64 the request is wrong, 69 no node could serve it. What was asked for goes
//! to standard output, everything else to standard error.

mod print;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::fs::File;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use clap::ArgAction;
use stormkv::api::Consistency;
use stormkv::client::{BAD_ANSWER, Client, Error, ErrorKind, Guarded, TLS_MISMATCH};
use stormkv::kv::{Guard, MAX_VALUE};

use super::connect::Connect;
use super::{Exit, Failure};
use print::Printer;

const EXIT_CODES: &str = "\
Exit codes: 0 done, 1 not done and never will be (absent, not swapped, refused), 3 unknown, 64 the \
request or the settings are wrong, 69 no node could serve it, 74 a file failed";

/// The arguments of `stormkv ctl`.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = EXIT_CODES)]
pub struct Args {
    #[command(flatten)]
    connect: Connect,
    /// JSON instead of text.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: Command,
}

/// What is asked for.
#[derive(clap::Subcommand, Clone, Debug)]
enum Command {
    /// Sets a key.
    #[command(disable_help_flag = true, after_help = HYPHENS)]
    Put {
        /// Which key: 1 to 4096 bytes.
        #[arg(allow_hyphen_values = true)]
        key: OsString,
        /// Its new value, of at most 1 MiB; `-` reads it from standard input.
        #[arg(allow_hyphen_values = true)]
        value: OsString,
        /// Print help
        #[arg(long, action = ArgAction::Help)]
        help: Option<bool>,
        /// Only if the key is absent.
        #[arg(long, conflicts_with = "if_revision")]
        if_absent: bool,
        /// Only if the key has this revision.
        #[arg(long, value_name = "N")]
        if_revision: Option<u64>,
    },
    /// Prints a key's value.
    Get {
        /// Which key.
        #[arg(allow_hyphen_values = true)]
        key: OsString,
        /// From what any node has, however old; moves on from a node that is silent for a second.
        #[arg(long)]
        stale: bool,
    },
    /// Removes a key.
    Del {
        /// Which key.
        #[arg(allow_hyphen_values = true)]
        key: OsString,
        /// Only if the key has this revision.
        #[arg(long, value_name = "N")]
        if_revision: Option<u64>,
    },
    /// Sets a key if it has the value expected: `cas KEY EXPECTED NEW`.
    #[command(disable_help_flag = true, after_help = HYPHENS)]
    Cas {
        /// Which key: 1 to 4096 bytes.
        #[arg(allow_hyphen_values = true)]
        key: OsString,
        /// EXPECTED and NEW, of at most 1 MiB each; one of them may be `-` and is then read from standard input.
        #[arg(allow_hyphen_values = true, value_names = ["EXPECTED", "NEW"], num_args = 0..=2)]
        values: Vec<OsString>,
        #[command(flatten)]
        instead: Instead,
        /// Print help
        #[arg(long, action = ArgAction::Help)]
        help: Option<bool>,
    },
    /// Prints the keys that start with a prefix, and their values; with --json a line for each.
    Scan {
        /// What the keys start with; all keys if it is left out.
        #[arg(default_value = "", hide_default_value = true, allow_hyphen_values = true)]
        prefix: OsString,
        /// The most entries [default: all]
        #[arg(long, value_name = "N", default_value_t = u64::MAX, hide_default_value = true)]
        limit: u64,
        /// From what any node has, however old.
        #[arg(long)]
        stale: bool,
    },
    /// Prints who belongs to the cluster.
    Members,
    /// Prints all members, and what each endpoint says about its node within a second.
    Status,
    /// Hands leadership to a member.
    Transfer {
        /// Which member.
        id: u64,
    },
    /// Adds a member. It votes once it has caught up.
    Add {
        /// Its id, never used before.
        id: u64,
        /// Where the other members reach it.
        url: String,
        /// It receives the log and does not vote.
        #[arg(long)]
        learner: bool,
    },
    /// Removes a member for ever.
    Remove {
        /// Which member.
        id: u64,
        #[command(flatten)]
        force: Force,
    },
    /// Makes a learner a voter once it has caught up.
    Promote {
        /// Which member.
        id: u64,
        #[command(flatten)]
        force: Force,
    },
    /// Makes a voter a learner.
    Demote {
        /// Which member.
        id: u64,
        #[command(flatten)]
        force: Force,
    },
}

#[derive(Clone, Copy, Debug, clap::Args)]
struct Force {
    /// Even if no quorum of the voters that are left answers: the cluster may stop for ever.
    #[arg(long)]
    force: bool,
}

/// What a compare-and-swap has instead of its values on the command line.
#[derive(clap::Args, Clone, Debug, Default)]
struct Instead {
    /// Instead of EXPECTED: the key must be absent.
    #[arg(long)]
    absent: bool,
    /// Instead of EXPECTED: what this file holds.
    #[arg(long, value_name = "FILE", conflicts_with = "absent")]
    expected_file: Option<PathBuf>,
    /// Instead of NEW: remove the key.
    #[arg(long)]
    remove: bool,
    /// Instead of NEW: what this file holds.
    #[arg(long, value_name = "FILE", conflicts_with = "remove")]
    new_file: Option<PathBuf>,
}

const HYPHENS: &str = "Keys and values may begin with `-`. One that is spelled like an option of \
                       this command, such as --json, stands behind `--`: put -- KEY --json";

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let code = match error.kind() {
            ErrorKind::Invalid => Exit::Usage,
            // It took effect, but whether it swapped, for example, is not known.
            ErrorKind::Unknown | ErrorKind::Applied => Exit::Unknown,
            // Trying again is of no use, another flag is.
            _ if error.code() == TLS_MISMATCH => Exit::Usage,
            _ if error.is_unavailable() || error.code() == BAD_ANSWER => Exit::Unavailable,
            _ => Exit::No,
        };
        Failure::new(code, error.to_string())
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::new(Exit::Io, format!("input or output failed: {error}"))
    }
}

/// Runs it on the standard streams. Returns the exit code.
pub fn main(args: &Args) -> Exit {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("stormkv ctl: no runtime: {error}");
            return Exit::Io;
        }
    };
    let mut out = std::io::stdout().lock();
    let is_terminal = out.is_terminal();
    let mut printer = Printer::new(&mut out, args.json, is_terminal);
    runtime.block_on(run(args, &mut std::io::stdin(), &mut printer, &mut std::io::stderr()))
}

async fn run(
    args: &Args,
    input: &mut dyn Read,
    printer: &mut Printer<'_>,
    complaints: &mut dyn Write,
) -> Exit {
    let result = match perform(args, input, printer).await {
        Ok(code) => printer.finish().map(|()| code).map_err(Failure::from),
        Err(failed) => Err(failed),
    };
    match result {
        Ok(code) => code,
        Err(Failure { exit, message }) => {
            // If standard error is gone as well, there is nobody to tell.
            let _ = writeln!(complaints, "stormkv ctl: {message}");
            exit
        }
    }
}

async fn perform(
    args: &Args,
    input: &mut dyn Read,
    printer: &mut Printer<'_>,
) -> Result<Exit, Failure> {
    let usage = |message| Failure::new(Exit::Usage, message);
    // One command needs one session.
    let client = args.connect.builder().map_err(usage)?.sessions(1).build()?;
    match &args.command {
        Command::Put { key, value, if_absent, if_revision, help: _ } => {
            let value = value_of(value, input)?;
            let guard =
                if *if_absent { Some(Guard::Absent) } else { if_revision.map(Guard::Revision) };
            put(&client, key.as_encoded_bytes(), value, guard, printer).await
        }
        Command::Get { key, stale } => {
            get(&client, key.as_encoded_bytes(), freshness(*stale), printer).await
        }
        Command::Del { key, if_revision } => {
            let guard = if_revision.map(Guard::Revision);
            delete(&client, key.as_encoded_bytes(), guard, printer).await
        }
        Command::Cas { key, values, instead, help: _ } => {
            let (expected, new) = cas_values(values, instead, input)?;
            let swap = client.cas(key.as_encoded_bytes(), expected, new).await?;
            printer.swap(&swap)?;
            Ok(if swap.swapped { Exit::Ok } else { Exit::No })
        }
        Command::Scan { prefix, limit, stale } => {
            scan(&client, prefix.as_encoded_bytes(), *limit, freshness(*stale), printer).await
        }
        Command::Members => {
            printer.members(&client.members().await?)?;
            Ok(Exit::Ok)
        }
        Command::Status => {
            let overview = client.overview().await;
            printer.overview(&overview)?;
            Ok(if overview.endpoints.iter().any(|(_, status)| status.is_ok()) {
                Exit::Ok
            } else {
                Exit::Unavailable
            })
        }
        Command::Transfer { id } => {
            client.transfer(*id).await?;
            done(printer, &format!("{id} leads"))
        }
        Command::Add { id, url, learner } => {
            client.add_member(*id, url, *learner).await?;
            done(printer, &format!("{id} is a member"))
        }
        Command::Remove { id, force } => {
            client.remove_member(*id, force.force).await?;
            done(printer, &format!("{id} is no member any more"))
        }
        Command::Promote { id, force } => {
            client.promote_member(*id, force.force).await?;
            done(printer, &format!("{id} votes once it has caught up"))
        }
        Command::Demote { id, force } => {
            client.demote_member(*id, force.force).await?;
            done(printer, &format!("{id} is a learner"))
        }
    }
}

fn done(printer: &mut Printer<'_>, what: &str) -> Result<Exit, Failure> {
    printer.done(what)?;
    Ok(Exit::Ok)
}

fn freshness(stale: bool) -> Consistency {
    if stale { Consistency::Stale } else { Consistency::Linearizable }
}

/// The value that an argument stands for.
fn value_of(argument: &OsString, input: &mut dyn Read) -> Result<Bytes, Failure> {
    if argument != "-" {
        return Ok(argument.as_encoded_bytes().to_vec().into());
    }
    Ok(limited(input)?)
}

/// What a compare-and-swap expects, and what it sets.
type Values = (Option<Bytes>, Option<Bytes>);

fn cas_values(
    values: &[OsString],
    instead: &Instead,
    input: &mut dyn Read,
) -> Result<Values, Failure> {
    let has_expected = !instead.absent && instead.expected_file.is_none();
    let has_new = !instead.remove && instead.new_file.is_none();
    let due = usize::from(has_expected) + usize::from(has_new);
    if values.len() != due {
        let message = format!(
            "cas takes KEY EXPECTED NEW (--absent or --expected-file instead of EXPECTED, --remove \
             or --new-file instead of NEW): {due} values are due after KEY, not {}",
            values.len()
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    if values.iter().filter(|value| *value == "-").count() > 1 {
        return Err(Failure::new(
            Exit::Usage,
            "standard input can be only one of the values".to_owned(),
        ));
    }
    let mut values = values.iter();
    let mut value = |is_given: bool, file: &Option<PathBuf>| match file {
        Some(file) => value_in(file).map(Some),
        None if is_given => values.next().map(|value| value_of(value, input)).transpose(),
        None => Ok(None),
    };
    let expected = value(has_expected, &instead.expected_file)?;
    let new = value(has_new, &instead.new_file)?;
    Ok((expected, new))
}

/// The value that is in a file.
fn value_in(path: &Path) -> Result<Bytes, Failure> {
    let fail = |error| Failure::new(Exit::Io, format!("{}: {error}", path.display()));
    limited(&mut File::open(path).map_err(fail)?).map_err(fail)
}

/// All that can be read, and one byte more than a value may have at most: so that the client sees
/// that it is too much.
fn limited(input: &mut dyn Read) -> std::io::Result<Bytes> {
    let mut value = Vec::new();
    input.take(MAX_VALUE as u64 + 1).read_to_end(&mut value)?;
    Ok(value.into())
}

async fn put(
    client: &Client,
    key: &[u8],
    value: Bytes,
    guard: Option<Guard>,
    printer: &mut Printer<'_>,
) -> Result<Exit, Failure> {
    let outcome = match guard {
        Some(guard) => client.put_if(key, guard, value).await?,
        None => Guarded::Done { revision: Some(client.put(key, value).await?) },
    };
    guarded(outcome, printer)
}

fn guarded(outcome: Guarded, printer: &mut Printer<'_>) -> Result<Exit, Failure> {
    printer.guarded(outcome)?;
    match outcome {
        Guarded::Done { .. } => Ok(Exit::Ok),
        Guarded::Conflict { revision: Some(found) } => Err(Failure::new(
            Exit::No,
            format!("nothing was changed: the key has revision {found}"),
        )),
        Guarded::Conflict { revision: None } => {
            Err(Failure::new(Exit::No, "nothing was changed: the key is absent".to_owned()))
        }
    }
}

fn absent(key: &[u8]) -> Failure {
    Failure::new(Exit::No, format!("there is no key {}", key.escape_ascii()))
}

async fn get(
    client: &Client,
    key: &[u8],
    consistency: Consistency,
    printer: &mut Printer<'_>,
) -> Result<Exit, Failure> {
    let found = client.get(key, consistency).await?.ok_or_else(|| absent(key))?;
    printer.value(key, &found)?;
    Ok(Exit::Ok)
}

async fn delete(
    client: &Client,
    key: &[u8],
    guard: Option<Guard>,
    printer: &mut Printer<'_>,
) -> Result<Exit, Failure> {
    if let Some(guard) = guard {
        return guarded(client.delete_if(key, guard).await?, printer);
    }
    if !client.delete(key).await? {
        return Err(absent(key));
    }
    done(printer, "deleted")
}

async fn scan(
    client: &Client,
    prefix: &[u8],
    limit: u64,
    consistency: Consistency,
    printer: &mut Printer<'_>,
) -> Result<Exit, Failure> {
    let mut left = limit;
    let page_size = u32::try_from(limit).unwrap_or(u32::MAX);
    let mut scan = client.scan(prefix).consistency(consistency).page_size(page_size);
    while left > 0 {
        let Some(mut page) = scan.next_page().await? else { break };
        page.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        left -= page.len() as u64;
        printer.entries(&page)?;
    }
    Ok(Exit::Ok)
}
