//! The streams: server to agent, agent to proxy, server to server
