//! All paths of the API, in one list: who may use which method, and what it is called in metrics.

use hyper::Method;

use super::error::{ApiError, Code};

/// What a request must prove to be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// Nothing.
    Open,
    /// A token for clients or administrators.
    Client,
    /// A token for metrics or administrators.
    Metrics,
    /// A token for administrators.
    Admin,
}

/// A path, with its variable part as it came, still encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route<'p> {
    /// `/{key}`, or with POST and DELETE `/{id}`: what raftexample has.
    Short(&'p str),
    Key(&'p str),
    Scan,
    Cas,
    Txn,
    Sessions,
    Members,
    Member(&'p str),
    Promote(&'p str),
    Demote(&'p str),
    Leader,
    Status,
    Backup,
    Health,
    Ready,
    Metrics,
}

/// A row of the list.
pub(crate) struct Entry {
    /// How the path is written, and the `route` in metrics.
    pub template: &'static str,
    /// The methods it has and who may use them.
    pub methods: &'static [(Method, Access)],
}

const GET: Method = Method::GET;
const HEAD: Method = Method::HEAD;
const PUT: Method = Method::PUT;
const POST: Method = Method::POST;
const DELETE: Method = Method::DELETE;

use Access::{Admin, Client, Open};

/// The list. [`Route::number`] says which row belongs to which route.
pub(crate) const ENTRIES: [Entry; 16] = [
    Entry {
        template: "/{key}",
        methods: &[(GET, Client), (HEAD, Client), (PUT, Client), (POST, Admin), (DELETE, Admin)],
    },
    Entry {
        template: "/v1/kv/{key}",
        methods: &[(GET, Client), (HEAD, Client), (PUT, Client), (DELETE, Client)],
    },
    Entry { template: "/v1/kv", methods: &[(GET, Client)] },
    Entry { template: "/v1/cas", methods: &[(POST, Client)] },
    Entry { template: "/v1/txn", methods: &[(POST, Client)] },
    Entry { template: "/v1/sessions", methods: &[(POST, Client)] },
    Entry { template: "/v1/members", methods: &[(GET, Client), (POST, Admin)] },
    Entry { template: "/v1/members/{id}", methods: &[(PUT, Admin), (DELETE, Admin)] },
    Entry { template: "/v1/members/{id}/promote", methods: &[(POST, Admin)] },
    Entry { template: "/v1/members/{id}/demote", methods: &[(POST, Admin)] },
    Entry { template: "/v1/leader", methods: &[(POST, Admin)] },
    Entry { template: "/v1/status", methods: &[(GET, Client)] },
    Entry { template: "/v1/backup", methods: &[(GET, Admin)] },
    Entry { template: "/health", methods: &[(GET, Open), (HEAD, Open)] },
    Entry { template: "/ready", methods: &[(GET, Open), (HEAD, Open)] },
    Entry { template: "/metrics", methods: &[(GET, Access::Metrics)] },
];

impl<'p> Route<'p> {
    /// The route of a path. Keys come first: they are what matters for speed.
    pub fn find(path: &'p str) -> Result<Route<'p>, ApiError> {
        // Only `*` (OPTIONS) and the empty path (CONNECT) do not begin with it.
        let rest = path.strip_prefix('/').ok_or_else(|| unknown(path))?;
        let Some(versioned) = rest.strip_prefix("v1/") else {
            return Ok(match rest {
                "health" => Route::Health,
                "ready" => Route::Ready,
                "metrics" => Route::Metrics,
                _ => Route::Short(rest),
            });
        };
        if let Some(key) = versioned.strip_prefix("kv/") {
            return Ok(Route::Key(key));
        }
        if let Some(member) = versioned.strip_prefix("members/") {
            return match member.split_once('/') {
                None => Ok(Route::Member(member)),
                Some((id, "promote")) => Ok(Route::Promote(id)),
                Some((id, "demote")) => Ok(Route::Demote(id)),
                Some(_) => Err(unknown(path)),
            };
        }
        match versioned {
            "kv" => Ok(Route::Scan),
            "cas" => Ok(Route::Cas),
            "txn" => Ok(Route::Txn),
            "sessions" => Ok(Route::Sessions),
            "members" => Ok(Route::Members),
            "leader" => Ok(Route::Leader),
            "status" => Ok(Route::Status),
            "backup" => Ok(Route::Backup),
            _ => Err(unknown(path)),
        }
    }

    /// Its row in the list.
    pub fn number(self) -> usize {
        match self {
            Route::Short(_) => 0,
            Route::Key(_) => 1,
            Route::Scan => 2,
            Route::Cas => 3,
            Route::Txn => 4,
            Route::Sessions => 5,
            Route::Members => 6,
            Route::Member(_) => 7,
            Route::Promote(_) => 8,
            Route::Demote(_) => 9,
            Route::Leader => 10,
            Route::Status => 11,
            Route::Backup => 12,
            Route::Health => 13,
            Route::Ready => 14,
            Route::Metrics => 15,
        }
    }

    /// Whether it is about the state of the node, and so is answered on surplus connections, too.
    pub fn is_monitoring(self) -> bool {
        matches!(self, Route::Health | Route::Ready | Route::Status | Route::Metrics)
    }

    /// What this method of it asks for.
    pub fn access(self, method: &Method) -> Result<Access, ApiError> {
        let methods = ENTRIES[self.number()].methods;
        match methods.iter().find(|(known, _)| known == method) {
            Some((_, access)) => Ok(*access),
            None => {
                let names: Vec<&str> = methods.iter().map(|(method, _)| method.as_str()).collect();
                Err(ApiError::method(names.join(", ")))
            }
        }
    }
}

fn unknown(path: &str) -> ApiError {
    // A longer path is no near miss, and the comparison takes time.
    let shown: String = path.chars().take(60).collect();
    let nearest = ENTRIES.iter().map(|entry| entry.template).filter(|known| known.contains("/v1/"));
    let nearest = nearest.min_by_key(|known| distance(&shown, known)).unwrap_or_default();
    let message = format!("there is no path {shown}: did you mean {nearest}?");
    ApiError::new(Code::NotFound, message)
}

/// How many letters must be inserted, removed or exchanged to make `b` of `a` (Levenshtein).
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, left) in a.chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, right) in b.iter().enumerate() {
            let exchanged = diagonal + usize::from(left != *right);
            diagonal = row[j + 1];
            row[j + 1] = exchanged.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_row_is_found_by_its_own_template_and_stands_in_the_essay() {
        let essay = include_str!("../http.rs");
        for (number, entry) in ENTRIES.iter().enumerate() {
            let route = Route::find(entry.template).unwrap();
            assert_eq!(route.number(), number, "{}", entry.template);
            for (method, _) in entry.methods {
                assert!(route.access(method).is_ok());
                let listed = essay.lines().any(|line| {
                    let cells: Vec<&str> = line.split('|').map(str::trim).collect();
                    let is_id = entry.template == "/{key}" && [POST, DELETE].contains(method);
                    let template = if is_id { "/{id}" } else { entry.template };
                    cells.len() > 3
                        && cells[1].split(", ").any(|name| name == method.as_str())
                        && cells[2].trim_matches('`').split('?').next() == Some(template)
                });
                assert!(listed, "{method} {} is not in the table of the API", entry.template);
            }
        }
    }

    /// The description for machines, its paths and methods.
    #[test]
    fn the_open_api_description_has_the_same_paths_methods_roles_and_codes() {
        let document = include_str!("../../../docs/openapi.json");
        let document: serde_json::Value = serde_json::from_str(document).unwrap();
        let mut described = BTreeSet::new();
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                let role = operation["x-role"].as_str().unwrap();
                described.insert((path.clone(), method.to_uppercase(), role.to_owned()));
            }
        }
        let mut routed = BTreeSet::new();
        for entry in &ENTRIES {
            for (method, access) in entry.methods {
                let role = match access {
                    Open => "none",
                    Client => "client",
                    Access::Metrics => "metrics",
                    Admin => "admin",
                };
                routed.insert((entry.template.to_owned(), method.to_string(), role.to_owned()));
            }
        }
        assert_eq!(described, routed);

        let mut described = BTreeSet::new();
        for (name, response) in document["components"]["responses"].as_object().unwrap() {
            // hyper answers it, without a body.
            if name == "HeadTooLarge" {
                continue;
            }
            let schema = &response["content"]["application/json"]["schema"];
            let status: u16 = name.trim_start_matches('E').parse().unwrap();
            for code in schema["properties"]["code"]["enum"].as_array().unwrap() {
                described.insert((status, code.as_str().unwrap().to_owned()));
            }
        }
        let known = Code::ALL.iter().map(|code| (code.status().as_u16(), code.name().to_owned()));
        assert_eq!(described, known.collect());
    }

    #[test]
    fn what_is_not_reserved_is_a_key() {
        assert_eq!(Route::find("/v1"), Ok(Route::Short("v1")));
        assert_eq!(Route::find("/"), Ok(Route::Short("")));
        assert_eq!(Route::find("//"), Ok(Route::Short("/")));
        assert_eq!(Route::find("/v1/kv/"), Ok(Route::Key("")));
        assert_eq!(Route::find("/v1/kv/members/x"), Ok(Route::Key("members/x")));
    }

    #[test]
    fn an_unknown_path_is_told_the_nearest() {
        for (path, nearest) in [
            ("/v1/member", "/v1/members?"),
            ("/v1/sesions", "/v1/sessions?"),
            ("/v1/members/3/promot", "/v1/members/{id}/promote?"),
        ] {
            let error = Route::find(path).unwrap_err();
            assert!(error.message().ends_with(nearest), "{path}: {}", error.message());
            assert_eq!(error.code(), Code::NotFound);
        }
        assert!(Route::find("*").is_err());
    }

    #[test]
    fn a_missing_method_names_those_that_are_there() {
        let error = Route::Members.access(&Method::PATCH).unwrap_err();
        assert!(error.message().ends_with("GET, POST"), "{}", error.message());
    }
}
