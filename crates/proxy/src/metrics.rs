//! Counters, one set per thread, summed when read.
