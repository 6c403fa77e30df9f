//! OpenSSL cipher strings in terms of the suites that we have.
