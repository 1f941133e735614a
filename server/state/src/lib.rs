//! The state machine: tables, apply, watch; pure, no I/O, no clock
