//! The sidecar
