//! Scripted clients and upstreams, certificates and temporary configurations for tests.
