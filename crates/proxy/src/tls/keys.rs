//! Taking the traffic keys out of a finished handshake.
