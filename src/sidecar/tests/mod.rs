//! Tests of the sidecar.

mod simulation;
