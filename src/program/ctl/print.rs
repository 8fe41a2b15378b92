//! How results look: tables and plain bytes for people, JSON for scripts.

use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use stormkv::client::{Error, Guarded, Member, Members, Overview, Status, Swap};
use stormkv::kv::{KeyValue, Versioned};

/// Writes results.
pub struct Printer<'a> {
    out: &'a mut dyn Write,
    is_json: bool,
    /// A terminal gets an end of line after a value, everything else gets the bare value.
    is_terminal: bool,
    /// Whether the head of a table of entries was written.
    has_head: bool,
}

/// Sets `field` to a text, or `field_base64` to bytes that are none: as in the nodes' own JSON.
fn set(object: &mut Map<String, Value>, field: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(field.to_owned(), text.into()),
        Err(_) => object.insert(format!("{field}_base64"), STANDARD.encode(bytes).into()),
    };
}

/// Bytes in a table: text as it is, unless it would disturb the table.
fn shown(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(char::is_control) => text.to_owned(),
        _ => bytes.escape_ascii().to_string(),
    }
}

/// Rows of cells as lines, each column as wide as its widest cell. Columns that are numbers stand
/// at the right.
fn table(numbers: &[usize], rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
            if column > 0 {
                line.push_str("  ");
            }
            let cell = if numbers.contains(&column) {
                format!("{cell:>width$}")
            } else {
                format!("{cell:<width$}")
            };
            line.push_str(&cell);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn row<const N: usize>(cells: [&str; N]) -> Vec<String> {
    cells.iter().map(|&cell| cell.to_owned()).collect()
}

impl<'a> Printer<'a> {
    /// A printer that writes to `out`.
    pub fn new(out: &'a mut dyn Write, is_json: bool, is_terminal: bool) -> Printer<'a> {
        Printer { out, is_json, is_terminal, has_head: false }
    }

    /// Everything is written.
    pub fn finish(&mut self) -> io::Result<()> {
        self.out.flush()
    }

    fn json(&mut self, value: &Value) -> io::Result<()> {
        writeln!(self.out, "{value}")
    }

    /// A change without a result of its own.
    pub fn done(&mut self, what: &str) -> io::Result<()> {
        if self.is_json {
            return self.json(&json!({ "ok": true }));
        }
        writeln!(self.out, "{what}")
    }

    /// What was read.
    pub fn value(&mut self, key: &[u8], found: &Versioned) -> io::Result<()> {
        if self.is_json {
            let mut object = Map::new();
            set(&mut object, "key", key);
            set(&mut object, "value", &found.value);
            object.insert("revision".to_owned(), found.revision.into());
            return self.json(&object.into());
        }
        self.out.write_all(&found.value)?;
        if self.is_terminal { self.out.write_all(b"\n") } else { Ok(()) }
    }

    /// A put or a guarded delete. A conflict is told in words by the caller.
    pub fn guarded(&mut self, outcome: Guarded) -> io::Result<()> {
        if self.is_json {
            let (done, revision) = match outcome {
                Guarded::Done { revision } => (true, revision),
                Guarded::Conflict { revision } => (false, revision),
            };
            return self.json(&json!({ "ok": done, "revision": revision }));
        }
        match outcome {
            Guarded::Done { revision: Some(revision) } => {
                writeln!(self.out, "ok, revision {revision}")
            }
            Guarded::Done { revision: None } => writeln!(self.out, "deleted"),
            Guarded::Conflict { .. } => Ok(()),
        }
    }

    /// A compare-and-swap.
    pub fn swap(&mut self, swap: &Swap) -> io::Result<()> {
        if self.is_json {
            let mut object = Map::new();
            object.insert("swapped".to_owned(), swap.swapped.into());
            match &swap.current {
                Some(current) => set(&mut object, "current", current),
                None => drop(object.insert("current".to_owned(), Value::Null)),
            }
            return self.json(&object.into());
        }
        match (&swap.current, swap.swapped) {
            (_, true) => writeln!(self.out, "swapped"),
            (Some(current), false) => {
                writeln!(self.out, "not swapped, the value is {}", shown(current))
            }
            (None, false) => writeln!(self.out, "not swapped, the key is absent"),
        }
    }

    /// A page of a scan.
    pub fn entries(&mut self, entries: &[KeyValue]) -> io::Result<()> {
        if self.is_json {
            for entry in entries {
                let mut object = Map::new();
                set(&mut object, "key", &entry.key);
                set(&mut object, "value", &entry.value);
                object.insert("revision".to_owned(), entry.revision.into());
                self.json(&object.into())?;
            }
            return Ok(());
        }
        let mut rows = Vec::new();
        if !std::mem::replace(&mut self.has_head, true) {
            rows.push(row(["KEY", "REVISION", "VALUE"]));
        }
        for entry in entries {
            rows.push(vec![shown(&entry.key), entry.revision.to_string(), shown(&entry.value)]);
        }
        self.out.write_all(table(&[1], &rows).as_bytes())
    }

    /// Who belongs to the cluster.
    pub fn members(&mut self, members: &Members) -> io::Result<()> {
        if self.is_json {
            return self.json(&json!(members));
        }
        let mut rows = vec![row(["ID", "ROLE", "LEADER", "URL"])];
        for member in &members.members {
            let leads = if member.leader { "yes" } else { "" };
            let becomes = if member.becomes_voter { ", becomes a voter" } else { "" };
            let role = format!("{}{becomes}", member.role);
            rows.push(row([&member.id.to_string(), &role, leads, &member.url]));
        }
        self.out.write_all(table(&[0], &rows).as_bytes())?;
        if !members.removed.is_empty() {
            let removed: Vec<String> = members.removed.iter().map(u64::to_string).collect();
            writeln!(self.out, "removed for ever: {}", removed.join(", "))?;
        }
        Ok(())
    }

    /// The members, and what each endpoint says about its node.
    pub fn overview(&mut self, overview: &Overview) -> io::Result<()> {
        let member = |id: u64| overview.members.iter().find(|member| member.id == id);
        let member_at = |endpoint: &String| {
            overview.members.iter().find(|member| member.client_url.as_ref() == Some(endpoint))
        };
        let answers = || overview.endpoints.iter().filter_map(|(_, status)| status.as_ref().ok());
        let unseen: Vec<&Member> = overview
            .members
            .iter()
            .filter(|member| answers().all(|status| status.id != member.id))
            .filter(|member| {
                overview.endpoints.iter().all(|(url, _)| member.client_url.as_ref() != Some(url))
            })
            .collect();
        if self.is_json {
            let one = |(endpoint, status): &(String, Result<Status, Error>)| match status {
                Ok(status) => {
                    let member = member(status.id);
                    json!({ "endpoint": endpoint, "member": member, "status": status })
                }
                Err(error) => {
                    let (member, error) = (member_at(endpoint), error.to_string());
                    json!({ "endpoint": endpoint, "member": member, "error": error })
                }
            };
            let rows = overview.endpoints.iter().map(one);
            let rows =
                rows.chain(unseen.iter().map(
                    |member| json!({ "endpoint": null, "member": member, "error": NO_ENDPOINT }),
                ));
            return self.json(&rows.collect());
        }
        let newest = answers().map(|status| status.commit).max().unwrap_or(0);
        let mut rows = vec![row([
            "ID", "ENDPOINT", "ROLE", "LEADER", "TERM", "APPLIED", "LAG", "KEYS", "SIZE", "UPTIME",
            "VERSION",
        ])];
        for (endpoint, status) in &overview.endpoints {
            rows.push(match status {
                Ok(status) => vec![
                    status.id.to_string(),
                    endpoint.clone(),
                    role(status, member(status.id)),
                    status.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string()),
                    status.term.to_string(),
                    status.applied.index.to_string(),
                    newest.saturating_sub(status.applied.index).to_string(),
                    status.keys.to_string(),
                    size(status.state_bytes),
                    span(status.uptime_s),
                    status.version.clone(),
                ],
                Err(_) => {
                    let id =
                        member_at(endpoint).map_or("-".to_owned(), |member| member.id.to_string());
                    row([&id, endpoint, "unreachable"])
                }
            });
        }
        for member in &unseen {
            rows.push(row([&member.id.to_string(), "-", &member.role, "no answer"]));
        }
        self.out.write_all(table(&[0, 3, 4, 5, 6, 7, 8, 9], &rows).as_bytes())?;
        for (endpoint, status) in &overview.endpoints {
            if let Err(error) = status {
                // Most messages begin with the endpoint.
                let message = error.message().trim_start_matches(endpoint.as_str());
                writeln!(self.out, "{endpoint}: {}", message.trim_start_matches([':', ' ']))?;
            }
        }
        for member in &unseen {
            let (id, url) = (member.id, &member.url);
            writeln!(self.out, "member {id} (peers reach it at {url}): {NO_ENDPOINT}")?;
        }
        Ok(())
    }
}

/// Why nothing is known of a member.
const NO_ENDPOINT: &str = "it answered at none of the endpoints: is it down, or is its client URL \
                           missing in --endpoints?";

/// The role in raft, and what of the membership it does not show.
fn role(status: &Status, member: Option<&Member>) -> String {
    match member {
        Some(member) if member.role != "voter" => member.role.clone(),
        _ => status.role.clone(),
    }
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut amount = bytes as f64;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{amount:.1} {}", UNITS[unit]) }
}

/// A time for people: the two largest units.
fn span(seconds: f64) -> String {
    let seconds = seconds as u64;
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {} min", minutes % 60),
        _ => format!("{days} d {} h", hours % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_short() {
        for (bytes, text) in [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (3 << 30, "3.0 GiB")]
        {
            assert_eq!(size(bytes), text);
        }
        for (seconds, text) in
            [(1.9, "1 s"), (61.0, "1 min 1 s"), (7260.0, "2 h 1 min"), (93_600.0, "1 d 2 h")]
        {
            assert_eq!(span(seconds), text);
        }
    }
}
