//! Load balancing: which instance takes the next request
