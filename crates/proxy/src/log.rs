//! Error lines and access lines, and the files that they go to.
