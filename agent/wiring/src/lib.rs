//! Facts and a registration in, the config of a proxy out: a pure function
