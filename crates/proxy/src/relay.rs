//! The relay thread: owns every established HTTP/1.1 tunnel.
