//! The meaning of a configuration: a tree becomes one typed Config.
