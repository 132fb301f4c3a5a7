//! Taking a lock, and what is said when its owner has panicked: once, here.
//!
//! What a panic has left half done nobody goes on with. The released binary ends with the first panic; a test, where a
//! panic ends only its thread, shall not hide the first one behind a second.
//!
//! Not here: which locks there are and in what order they are taken; their users say so.

use std::sync::{LockResult, Mutex, MutexGuard};

/// Locks a mutex: `lock(&self.state).count += 1`.
#[inline]
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    sound(mutex.lock())
}

/// What a lock protects, unless its owner has panicked; for the results of a condition variable.
#[inline]
pub fn sound<T>(locked: LockResult<T>) -> T {
    let Ok(inside) = locked else { panic!("a thread panicked while it held this lock") };
    inside
}
