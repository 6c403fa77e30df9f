//! What operators have set of a generation, which the next one does not have.

use wssgate_config::model::LocationId;
use wssgate_syntax::printable;

use super::Generation;
use crate::peers::Override;

impl Generation {
    /// What a reload has undone once there is a newer generation, a line for each server and location.
    pub fn undone(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for group in &self.upstreams {
            for (address, set) in group.overrides() {
                let (upstream, set) = (printable(&group.name), words(set));
                lines.push(format!(
                    "upstream server {address} of {upstream} is used as configured again, \
                     no longer {set} as an operator had set it"
                ));
            }
        }
        let places = self.places().iter().enumerate();
        for (_, place) in places.filter(|(at, _)| self.doors.closed(LocationId(*at)).is_some()) {
            lines.push(format!(
                "new WebSockets are let in again in location \"{}\" of server \"{}\", \
                 which an operator had closed",
                place.location, place.server
            ));
        }
        lines
    }
}

fn words(set: Override) -> String {
    let usage = set.usage.map(|usage| usage.name().to_owned());
    let weight = set.weight.map(|weight| format!("weight {weight}"));
    usage.into_iter().chain(weight).collect::<Vec<_>>().join(" and ")
}
