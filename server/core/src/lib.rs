//! The server: HTTP API, feed to agents, peers, CA
