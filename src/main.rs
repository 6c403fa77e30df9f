//! wssgate: a WebSocket reverse proxy configured in nginx's language.

fn main() {}
