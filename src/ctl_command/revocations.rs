//! `wssgate ctl revoke`, `revocations` and `unrevoke`.

use clap::Args;
use serde_json::{Value, json};

use super::client::{self, Client, CtlError};
use super::show;
use crate::console;

/// What is revoked, and for how long.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
pub(super) struct RevokeArgs {
    #[command(flatten)]
    whom: WhomArgs,
    /// For how long, such as 90s, 1h30m or 7d; at least as long as tokens are valid
    #[arg(long = "for", value_name = "TIME", default_value = "24h")]
    time: String,
}

/// One of them.
#[derive(Args, Clone, Debug, PartialEq, Eq)]
#[group(required = true, multiple = false)]
struct WhomArgs {
    /// The subject of tokens, their claim `sub`
    #[arg(long, value_name = "TEXT")]
    subject: Option<String>,
    /// The ID of one token, its claim `jti`
    #[arg(long, value_name = "TEXT")]
    token_id: Option<String>,
    /// The user of WebSockets, the text of `websocket_user`
    #[arg(long, value_name = "TEXT")]
    user: Option<String>,
}

impl RevokeArgs {
    /// Revokes, and says how many were ended.
    pub(super) fn run(&self, client: &Client) -> Result<Value, CtlError> {
        let WhomArgs { subject, token_id, user } = &self.whom;
        let whom = [("subject", subject), ("token_id", token_id), ("user", user)];
        let mut query = vec![("for", self.time.clone())];
        query.extend(whom.into_iter().filter_map(|(name, text)| Some((name, text.clone()?))));
        client.post("revocations", &query)
    }
}

/// What came of it.
pub(super) fn revoked(answer: &Value) -> String {
    let id = answer["id"].as_str().unwrap_or_default();
    let ended = answer["ended"].as_u64().unwrap_or(0);
    format!("revoked (id {id}), {ended} closed\n")
}

/// All that are held.
pub(super) fn list(client: &Client) -> Result<Value, CtlError> {
    let (mut all, mut after) = (Vec::new(), None);
    loop {
        let query: Vec<_> = after.into_iter().map(|after| ("after", after)).collect();
        let mut page = client.get("revocations", &query)?;
        let Value::Array(rows) = page["revocations"].take() else {
            return Err(client.unexpected());
        };
        all.extend(rows);
        after = page["next"].as_str().map(str::to_owned);
        if after.is_none() {
            let (held, max) = (page["held"].take(), page["max"].take());
            return Ok(json!({"held": held, "max": max, "revocations": all}));
        }
    }
}

/// One line for each.
pub(super) fn revocations(answer: &Value) -> String {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.map_or(0.0, |since| since.as_secs_f64());
    let rows = show::array(&answer["revocations"]).iter().map(|row| {
        let names = ["subject", "token_id", "user"];
        let kind = names.into_iter().find(|name| row[name].is_string()).unwrap_or("-");
        let left = row["ends"].as_f64().map(|ends| (ends - now).max(0.0));
        vec![
            show::text(&row["id"]),
            kind.replace('_', " "),
            show::text(&row[kind]),
            show::seconds(&json!(left)),
        ]
    });
    show::table(&["ID", "KIND", "TEXT", "LEFT"], rows)
}

/// Takes some back; all of them, though one be none.
pub(super) fn remove(client: &Client, ids: &[String]) -> Result<(Value, bool), CtlError> {
    let mut removed = Vec::new();
    for id in ids {
        match client.delete(&format!("revocations/{}", client::escaped(id))) {
            Ok(row) => removed.push(row),
            Err(CtlError::Refused { status: 404, message }) => {
                console::say(format_args!("{id}: {message}"));
            }
            Err(error) => return Err(error),
        }
    }
    let all = removed.len() == ids.len();
    Ok((json!({"removed": removed}), all))
}
