//! mesh/1: many byte streams over one connection
