//! Which server and which location a request belongs to.

use bytes::Bytes;
use wssgate_config::hosts::HostTable;
use wssgate_config::model::{
    AddressRoute, Http, ListenAddr, ListenSocket, LocationId, LocationKind, Locations, ServerId,
};

use crate::exchange::request::Request;

/// The virtual servers that answer at the local address of a connection.
pub(crate) fn address_route<'s>(
    socket: &'s ListenSocket,
    local: &ListenAddr,
) -> Option<&'s AddressRoute> {
    let exact = socket.routes.iter().find(|route| same_address(&route.address, local));
    // The last one is the address of the socket itself, such as a wildcard.
    exact.or(socket.routes.last())
}

fn same_address(configured: &ListenAddr, local: &ListenAddr) -> bool {
    match (configured, local) {
        (ListenAddr::Ip(a), ListenAddr::Ip(b)) => a.ip() == b.ip() && a.port() == b.port(),
        (a, b) => a == b,
    }
}

/// The server for a host name; captures of a regular expression become the request's.
pub(crate) fn server_for(
    request: &Request,
    names: &HostTable<ServerId>,
    host: &Bytes,
) -> Option<ServerId> {
    let (&server, matched) = names.find(host)?;
    if let Some((regex, captures)) = matched {
        request.remember(regex, host, captures);
    }
    Some(server)
}

/// What a search for a location found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// This location applies.
    Location(LocationId),
    /// The path lacks the final slash of this location: 301 to its name.
    AddSlash(LocationId),
    /// None applies; the enclosing level does.
    Nothing,
}

/// Finds the location for the path as nginx does: the longest prefix, then, unless it says `^~` or
/// is exact, the first regular expression; each with what is nested in it.
pub(crate) fn find(request: &Request, http: &Http, locations: &Locations) -> Found {
    match search(request, http, locations) {
        Search::Settled(id) | Search::Prefix(id) => Found::Location(id),
        Search::AddSlash(id) => Found::AddSlash(id),
        Search::Nothing => Found::Nothing,
    }
}

/// What the search of one level found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Search {
    /// An exact location or a regular expression: outer levels are not asked.
    Settled(LocationId),
    /// A prefix: regular expressions of outer levels still have their turn.
    Prefix(LocationId),
    AddSlash(LocationId),
    Nothing,
}

fn search(request: &Request, http: &Http, locations: &Locations) -> Search {
    let path = &request.target.path;
    let mut found = find_static(http, locations, path);
    if let Search::Prefix(id) = found {
        let location = &http.locations[id.0];
        match search(request, http, &location.locations) {
            Search::Nothing => {}
            inner @ Search::Prefix(_) => found = inner,
            settled => return settled,
        }
        // `^~` keeps regular expressions away, but not the locations nested in it.
        if location.kind == LocationKind::PrefixFinal {
            return found;
        }
    }
    if matches!(found, Search::Settled(_) | Search::AddSlash(_)) {
        return found;
    }
    for (regex, id) in &locations.regexes {
        if request.matches(regex, path) {
            return match search(request, http, &http.locations[id.0].locations) {
                Search::Nothing => Search::Settled(*id),
                // The regular expression has won already; what is nested in it is no prefix to the
                // levels outside.
                Search::Prefix(inner) => Search::Settled(inner),
                inner => inner,
            };
        }
    }
    found
}

/// The best match without regular expressions.
fn find_static(http: &Http, locations: &Locations, path: &[u8]) -> Search {
    if let Some(&id) = locations.exact.get(path) {
        return Search::Settled(id);
    }
    // All prefixes of the path sort before or at it, the longest last.
    let end = locations.prefixes.partition_point(|(prefix, _)| **prefix <= *path);
    let candidates = &locations.prefixes[..end];
    let longest = candidates.iter().rev().find(|(prefix, _)| path.starts_with(prefix));
    if let Some((prefix, id)) = longest
        && prefix.len() == path.len()
    {
        return Search::Prefix(*id);
    }
    match with_slash(http, locations, path) {
        Some(id) => Search::AddSlash(id),
        None => longest.map_or(Search::Nothing, |(_, id)| Search::Prefix(*id)),
    }
}

/// The location called `path/` if it asks for that redirect.
fn with_slash(http: &Http, locations: &Locations, path: &[u8]) -> Option<LocationId> {
    let name = [path, b"/"].concat();
    let prefix = || {
        let at =
            locations.prefixes.binary_search_by(|(prefix, _)| (**prefix).cmp(&name[..])).ok()?;
        Some(locations.prefixes[at].1)
    };
    let exact = locations.exact.get(&name[..]).copied();
    [exact, prefix()].into_iter().flatten().find(|id| http.locations[id.0].auto_redirect)
}
