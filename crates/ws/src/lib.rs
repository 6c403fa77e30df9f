//! WebSocket without I/O or clock.
