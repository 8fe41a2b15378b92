//! The paths of the API: who may use which method, and what it is called in metrics.
//!
//! Every node has those of [`NodeRoute`]. The service that it runs adds its own, as [`Routes`]: the
//! key-value store those of keys, any other machine a command and a query. A path is looked up among
//! the node's first, so no service can hide them.

use hyper::body::Incoming;
use hyper::{HeaderMap, Method};

use super::answer::Answer;
use super::ask::Asker;
use super::body::Bodies;
use super::error::{ApiError, Code};
use super::{Limits, PeerRules};

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

/// A row of a list of paths.
pub(crate) struct Entry {
    /// How the path is written, and the `route` in metrics.
    pub template: &'static str,
    /// The methods it has and who may use them.
    pub methods: &'static [(Method, Access)],
}

pub(super) const GET: Method = Method::GET;
pub(super) const HEAD: Method = Method::HEAD;
pub(super) const PUT: Method = Method::PUT;
pub(super) const POST: Method = Method::POST;
pub(super) const DELETE: Method = Method::DELETE;

use Access::{Admin, Client, Open};

/// A request to a route of the service, with what is needed to answer it.
pub(crate) struct Call<'a> {
    pub asker: Asker<'a>,
    pub method: &'a Method,
    pub headers: &'a HeaderMap,
    /// Text behind the `?`.
    pub query: Option<&'a str>,
    pub body: Incoming,
    pub bodies: &'a Bodies,
    pub peers: PeerRules,
}

impl Call<'_> {
    /// Returns whether the method is GET or HEAD.
    pub fn reads(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }
}

/// The API of a service, beside that of every node.
pub(crate) trait Routes: Send + Sync + 'static {
    /// A path of it, with its variable parts.
    type Route<'p>: Copy + Send;

    /// The list of its paths.
    const ENTRIES: &'static [Entry];

    fn new(limits: &Limits) -> Self;

    /// The route of a path that every node does not have.
    fn find(path: &str) -> Option<Self::Route<'_>>;

    /// Its row in the list.
    fn number(route: Self::Route<'_>) -> usize;

    /// Answers a request whose method, token and origin are permitted.
    fn answer<'a>(
        &'a self,
        route: Self::Route<'a>,
        call: Call<'a>,
    ) -> impl Future<Output = Answer> + Send;
}

/// A path that every node has, with its variable part as it came, still encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NodeRoute<'p> {
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

/// The list of the paths that every node has. [`NodeRoute::number`] maps a route to its row.
const NODE_ENTRIES: [Entry; 11] = [
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

impl<'p> NodeRoute<'p> {
    fn find(path: &'p str) -> Option<NodeRoute<'p>> {
        let Some(versioned) = path.strip_prefix("/v1/") else {
            return match path {
                "/health" => Some(NodeRoute::Health),
                "/ready" => Some(NodeRoute::Ready),
                "/metrics" => Some(NodeRoute::Metrics),
                _ => None,
            };
        };
        match versioned {
            "sessions" => Some(NodeRoute::Sessions),
            "members" => Some(NodeRoute::Members),
            "leader" => Some(NodeRoute::Leader),
            "status" => Some(NodeRoute::Status),
            "backup" => Some(NodeRoute::Backup),
            _ => {
                let member = versioned.strip_prefix("members/")?;
                match member.split_once('/') {
                    None => Some(NodeRoute::Member(member)),
                    Some((id, "promote")) => Some(NodeRoute::Promote(id)),
                    Some((id, "demote")) => Some(NodeRoute::Demote(id)),
                    Some(_) => None,
                }
            }
        }
    }

    fn number(self) -> usize {
        match self {
            NodeRoute::Sessions => 0,
            NodeRoute::Members => 1,
            NodeRoute::Member(_) => 2,
            NodeRoute::Promote(_) => 3,
            NodeRoute::Demote(_) => 4,
            NodeRoute::Leader => 5,
            NodeRoute::Status => 6,
            NodeRoute::Backup => 7,
            NodeRoute::Health => 8,
            NodeRoute::Ready => 9,
            NodeRoute::Metrics => 10,
        }
    }
}

/// A path of a node that runs a service.
pub(super) enum Route<'p, R: Routes> {
    Node(NodeRoute<'p>),
    Service(R::Route<'p>),
}

/// The list of all paths of a node that runs a service. [`Route::number`] counts its rows.
pub(super) fn entries<R: Routes>() -> impl Iterator<Item = &'static Entry> {
    NODE_ENTRIES.iter().chain(R::ENTRIES)
}

impl<'p, R: Routes> Route<'p, R> {
    /// The route of a path.
    pub fn find(path: &'p str) -> Result<Route<'p, R>, ApiError> {
        NodeRoute::find(path)
            .map(Route::Node)
            .or_else(|| R::find(path).map(Route::Service))
            .ok_or_else(|| unknown::<R>(path))
    }

    /// Its row in the list of all paths.
    pub fn number(&self) -> usize {
        match self {
            Route::Node(route) => route.number(),
            Route::Service(route) => NODE_ENTRIES.len() + R::number(*route),
        }
    }

    fn entry(&self) -> &'static Entry {
        match self {
            Route::Node(route) => &NODE_ENTRIES[route.number()],
            Route::Service(route) => &R::ENTRIES[R::number(*route)],
        }
    }

    /// Returns whether it is about the state of the node, and so is answered on surplus connections, too.
    pub fn is_monitoring(&self) -> bool {
        use NodeRoute::{Health, Metrics, Ready, Status};
        matches!(self, Route::Node(Health | Ready | Status | Metrics))
    }

    /// What this method of it asks for.
    pub fn access(&self, method: &Method) -> Result<Access, ApiError> {
        let methods = self.entry().methods;
        match methods.iter().find(|(known, _)| known == method) {
            Some((_, access)) => Ok(*access),
            None => {
                let names: Vec<&str> = methods.iter().map(|(method, _)| method.as_str()).collect();
                Err(ApiError::method(names.join(", ")))
            }
        }
    }
}

fn unknown<R: Routes>(path: &str) -> ApiError {
    // A longer path is no near miss, and the comparison takes time.
    let shown: String = path.chars().take(60).collect();
    let nearest = entries::<R>().map(|entry| entry.template).filter(|known| known.contains("/v1/"));
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

    use super::super::kv::{self, KvRoutes};
    use super::super::machine::MachineRoutes;
    use super::*;

    /// Finds each row by its template, and in the documentation of the module.
    fn check_rows<R: Routes>() {
        let essay = include_str!("../http.rs");
        for (number, entry) in entries::<R>().enumerate() {
            let route = Route::<R>::find(entry.template).ok().unwrap();
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
                assert!(listed, "{method} {} is not in a table of the API", entry.template);
            }
        }
    }

    #[test]
    fn every_row_is_found_by_its_own_template_and_stands_in_the_essay() {
        check_rows::<KvRoutes>();
        check_rows::<MachineRoutes>();
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
        for entry in entries::<KvRoutes>().chain(MachineRoutes::ENTRIES) {
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
        for (path, wanted) in [
            ("/v1", kv::Route::Short("v1")),
            ("/", kv::Route::Short("")),
            ("//", kv::Route::Short("/")),
            ("/v1/kv/", kv::Route::Key("")),
            ("/v1/kv/members/x", kv::Route::Key("members/x")),
        ] {
            let found = Route::<KvRoutes>::find(path);
            assert!(matches!(found, Ok(Route::Service(route)) if route == wanted), "{path}");
        }
    }

    #[test]
    fn machine_has_no_keys() {
        for path in ["/", "/k", "/v1/kv/k", "/v1/kv", "/v1/cas", "/v1/command/", "/4"] {
            let error = Route::<MachineRoutes>::find(path).err().unwrap();
            assert_eq!(error.code(), Code::NotFound, "{path}");
        }
        let error = Route::<MachineRoutes>::find("/v1/comand").err().unwrap();
        assert!(error.message().ends_with("/v1/command?"), "{}", error.message());
    }

    #[test]
    fn an_unknown_path_is_told_the_nearest() {
        for (path, nearest) in [
            ("/v1/member", "/v1/members?"),
            ("/v1/sesions", "/v1/sessions?"),
            ("/v1/members/3/promot", "/v1/members/{id}/promote?"),
        ] {
            let error = Route::<KvRoutes>::find(path).err().unwrap();
            assert!(error.message().ends_with(nearest), "{path}: {}", error.message());
            assert_eq!(error.code(), Code::NotFound);
        }
        assert!(Route::<KvRoutes>::find("*").is_err());
    }

    #[test]
    fn a_missing_method_names_those_that_are_there() {
        let members = Route::<KvRoutes>::Node(NodeRoute::Members);
        let error = members.access(&Method::PATCH).unwrap_err();
        assert!(error.message().ends_with("GET, POST"), "{}", error.message());
    }
}
