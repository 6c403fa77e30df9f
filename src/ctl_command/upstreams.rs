//! `wssgate ctl upstreams`: upstream servers, and how they are used until the next reload.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::client::{Client, CtlError};
use super::drain::MannerArgs;
use super::{CtlArgs, show};

/// A change of one server.
#[derive(Subcommand, Clone, Debug, PartialEq, Eq)]
pub(super) enum ChangeArgs {
    /// Open no new connections to a server, like `down` in the configuration
    Down(LeavingArgs),
    /// Only let those in who stick to a server, like `drain` in the configuration
    Drain(LeavingArgs),
    /// Use a server again, also one that is `down` in the configuration
    Up(ServerName),
    /// Set the weight of a server
    Weight {
        #[command(flatten)]
        server: ServerName,
        /// From 1 to 10000, or configured
        weight: String,
    },
    /// Use a server as it is configured
    Reset(ServerName),
}

/// Which server.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(super) struct ServerName {
    /// Name of the upstream
    name: String,
    /// Address of the server, as the list shows it
    address: String,
}

#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(super) struct LeavingArgs {
    #[command(flatten)]
    server: ServerName,
    /// With --over: how its WebSockets are closed; without it they stay
    #[command(flatten)]
    manner: MannerArgs,
    /// Do not wait for the end of that
    #[arg(long)]
    detach: bool,
}

impl CtlArgs {
    pub(super) fn upstreams(
        &self,
        client: &Client,
        change: Option<&ChangeArgs>,
    ) -> Result<bool, CtlError> {
        let Some(change) = change else {
            let upstreams = client.get("upstreams", &[])?;
            return self.print(&upstreams, || table(&upstreams));
        };
        let of = |name: &str| [("state", name.to_owned())];
        let (server, query) = match change {
            ChangeArgs::Down(leaving) => return self.leave(client, "down", leaving),
            ChangeArgs::Drain(leaving) => return self.leave(client, "drain", leaving),
            ChangeArgs::Up(server) => (server, of("up").to_vec()),
            ChangeArgs::Weight { server, weight } => (server, vec![("weight", weight.clone())]),
            ChangeArgs::Reset(server) => {
                (server, [of("configured"), [("weight", "configured".to_owned())]].concat())
            }
        };
        let answer = client.post("upstreams/peers", &[server.query(), query].concat())?;
        self.print(&answer, || server.table(&answer))
    }

    fn leave(&self, client: &Client, state: &str, leaving: &LeavingArgs) -> Result<bool, CtlError> {
        let LeavingArgs { server, manner, detach } = leaving;
        let state = vec![("state", state.to_owned())];
        let query = [server.query(), state, manner.query()].concat();
        let answer = client.post("upstreams/peers", &query)?;
        if answer["drain"].is_null() {
            return self.print(&answer, || server.table(&answer));
        }
        self.follow_drain(client, &answer, *detach)
    }
}

impl ServerName {
    fn query(&self) -> Vec<(&'static str, String)> {
        vec![("upstream", self.name.clone()), ("address", self.address.clone())]
    }

    /// The server as it is now.
    fn table(&self, answer: &Value) -> String {
        table(&json!({"upstreams": [{"name": self.name, "peers": [answer["peer"]]}]}))
    }
}

/// One line for each upstream server.
fn table(answer: &Value) -> String {
    let rows = show::array(&answer["upstreams"]).iter().flat_map(|upstream| {
        show::array(&upstream["peers"]).iter().map(|peer| {
            vec![
                show::text(&upstream["name"]),
                show::text(&peer["address"]),
                show::text(&peer["state"]),
                show::text(&peer["weight"]),
                show::text(&peer["connections"]),
                show::text(&peer["tunnels"]),
                show::text(&peer["failures"]),
                why(peer),
            ]
        })
    });
    let head =
        ["UPSTREAM", "SERVER", "STATE", "WEIGHT", "CONNECTIONS", "TUNNELS", "FAILURES", "BECAUSE"];
    show::table(&head, rows)
}

/// What there is to say of how a server is used.
fn why(peer: &Value) -> String {
    let set = &peer["override"];
    let mut why = Vec::new();
    match (peer["wanted"].as_str(), set["state"].as_str()) {
        (_, Some(state)) => why.push(format!("set {state}")),
        (Some(wanted @ ("down" | "drain")), None) => why.push(format!("configured {wanted}")),
        _ => {}
    }
    if set["weight"].is_u64() {
        why.push("set weight".to_owned());
    }
    match peer["checks"].as_str() {
        Some("failed") => why.push("health checks fail".to_owned()),
        Some("pending") => why.push("to be checked".to_owned()),
        _ => {}
    }
    if peer["failing"] == true {
        why.push("requests failed".to_owned());
    }
    why.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_says_why_it_is_used_as_it_is() {
        let set = json!({"state": "drain", "weight": 3});
        for (peer, expected) in [
            (json!({"wanted": "up", "checks": "passed", "failing": false}), ""),
            (json!({"wanted": "down", "checks": "passed"}), "configured down"),
            (json!({"wanted": "drain", "override": set}), "set drain, set weight"),
            (
                json!({"wanted": "up", "checks": "failed", "failing": true}),
                "health checks fail, requests failed",
            ),
            (json!({"state": "gone", "wanted": null, "checks": null}), ""),
        ] {
            assert_eq!(why(&peer), expected, "{peer}");
        }
    }
}
