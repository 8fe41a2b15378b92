//! The routes of any state machine, beside those that every node has: a command, and a query.
//!
//! Bodies are the machine's own bytes, in both directions.

use super::Limits;
use super::answer::{Answer, octets};
use super::body::Arrived;
use super::params::Params;
use super::routes::Access::Client;
use super::routes::{Call, Entry, POST, Routes};
use super::session::session;

/// A path of the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    Command,
    Query,
}

/// The API of a state machine that brings no routes of its own.
pub(crate) struct MachineRoutes;

impl Routes for MachineRoutes {
    type Route<'p> = Route;

    const ENTRIES: &'static [Entry] = &[
        Entry { template: "/v1/command", methods: &[(POST, Client)] },
        Entry { template: "/v1/query", methods: &[(POST, Client)] },
    ];

    fn new(_: &Limits) -> MachineRoutes {
        MachineRoutes
    }

    fn find(path: &str) -> Option<Route> {
        match path {
            "/v1/command" => Some(Route::Command),
            "/v1/query" => Some(Route::Query),
            _ => None,
        }
    }

    fn number(route: Route) -> usize {
        match route {
            Route::Command => 0,
            Route::Query => 1,
        }
    }

    async fn answer<'a>(&'a self, route: Route, call: Call<'a>) -> Answer {
        match route {
            Route::Command => command(call).await,
            Route::Query => query(call).await,
        }
    }
}

/// `POST /v1/command`.
async fn command(call: Call<'_>) -> Answer {
    Params::parse(call.query, &[])?;
    let session = session(call.headers)?;
    let Arrived { bytes: command, memory: _memory, at } = call.bodies.read(call.body).await?;
    let (response, index) = call.asker.since(at).command(session, command).await?;
    let room = call.bodies.room_after_command(response.len())?;
    Ok(octets(room.hold(response), index))
}

/// `POST /v1/query`.
async fn query(call: Call<'_>) -> Answer {
    let consistency = Params::parse(call.query, &["consistency"])?.consistency()?;
    let Arrived { bytes: query, memory: _memory, at } = call.bodies.read(call.body).await?;
    let (response, index) = call.asker.since(at).query(query, consistency).await?;
    let room = call.bodies.room_to_answer(response.len())?;
    Ok(octets(room.hold(response), index))
}
