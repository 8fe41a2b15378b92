//! How results look: tables and plain bytes for people, JSON for scripts.

use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Map, Value, json};
use stormkv::client::{Error, Guarded, Members, Status, Swap};
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

    /// What each endpoint says about its node.
    pub fn statuses(&mut self, statuses: &[(String, Result<Status, Error>)]) -> io::Result<()> {
        if self.is_json {
            let one = |(endpoint, status): &(String, Result<Status, Error>)| match status {
                Ok(status) => json!({ "endpoint": endpoint, "status": status }),
                Err(error) => json!({ "endpoint": endpoint, "error": error.to_string() }),
            };
            return self.json(&statuses.iter().map(one).collect());
        }
        let known = || statuses.iter().filter_map(|(_, status)| status.as_ref().ok());
        let newest = known().map(|status| status.commit).max().unwrap_or(0);
        let head = ["ENDPOINT", "ID", "ROLE", "TERM", "LEADER", "COMMIT", "APPLIED", "LAG"];
        let mut rows = vec![row(head)];
        for (endpoint, status) in statuses {
            rows.push(match status {
                Ok(status) => vec![
                    endpoint.clone(),
                    status.id.to_string(),
                    status.role.clone(),
                    status.term.to_string(),
                    status.leader.map_or_else(|| "none".to_owned(), |leader| leader.to_string()),
                    status.commit.to_string(),
                    status.applied.index.to_string(),
                    newest.saturating_sub(status.applied.index).to_string(),
                ],
                Err(_) => vec![endpoint.clone(), "-".to_owned(), "unreachable".to_owned()],
            });
        }
        self.out.write_all(table(&[1, 3, 4, 5, 6, 7], &rows).as_bytes())?;
        for (endpoint, status) in statuses {
            if let Err(error) = status {
                writeln!(self.out, "{endpoint}: {}", error.message())?;
            }
        }
        Ok(())
    }
}
