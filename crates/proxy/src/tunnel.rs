//! One WebSocket, from upgrade request to log line.
