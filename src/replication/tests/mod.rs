//! Tests of replication.

mod simulation;
