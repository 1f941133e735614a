//! Consul's agent API in and out: JSON shapes and their translation
