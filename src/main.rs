//! `twincached`: parse options, build the parts, start, wait for a signal, stop in order.

fn main() {}
