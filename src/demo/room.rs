//! Everybody who has a WebSocket open.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio::sync::mpsc::{Receiver, Sender, channel};

/// Messages that may wait for one member; a member that reads no faster loses some.
const QUEUE: usize = 64;

/// The members and the way to each of them.
#[derive(Default)]
pub(crate) struct Room {
    members: RefCell<BTreeMap<u64, Sender<String>>>,
    last: Cell<u64>,
}

impl Room {
    /// Takes a new member in; gives its number and its messages, of which the first may be that it came.
    pub(crate) fn join(&self) -> (u64, Receiver<String>) {
        let (sender, receiver) = channel(QUEUE);
        let number = self.last.get() + 1;
        self.last.set(number);
        self.members.borrow_mut().insert(number, sender);
        self.tell_count();
        (number, receiver)
    }

    /// Forgets a member.
    pub(crate) fn leave(&self, number: u64) {
        self.members.borrow_mut().remove(&number);
        self.tell_count();
    }

    /// How many members there are.
    pub(crate) fn count(&self) -> usize {
        self.members.borrow().len()
    }

    /// Sends `message` to everybody.
    pub(crate) fn tell(&self, message: &Value) {
        let text = message.to_string();
        for member in self.members.borrow().values() {
            // A full queue: that member reads too slowly and goes without.
            let _ = member.try_send(text.clone());
        }
    }

    fn tell_count(&self) {
        self.tell(&json!({"type": "people", "count": self.count()}));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_hear_what_is_told_and_who_is_there() {
        let room = Room::default();
        let (first, mut heard) = room.join();
        let (second, _) = room.join();
        room.tell(&json!("hello"));
        room.leave(second);
        let mut all = Vec::new();
        while let Ok(text) = heard.try_recv() {
            all.push(text);
        }
        let count = |count: usize| json!({"type": "people", "count": count}).to_string();
        assert_eq!(all, [count(1), count(2), "\"hello\"".to_owned(), count(1)]);
        assert_eq!((first, room.count()), (1, 1));
    }

    #[test]
    fn a_member_that_does_not_read_holds_nobody_up() {
        let room = Room::default();
        let (_, mut heard) = room.join();
        (0..QUEUE * 2).for_each(|number| room.tell(&json!(number)));
        let mut count = 0;
        while heard.try_recv().is_ok() {
            count += 1;
        }
        assert_eq!(count, QUEUE);
    }
}
