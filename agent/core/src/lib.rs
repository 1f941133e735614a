//! The agent: local catalog, checks, stream to the servers, feed to proxies
