//! Locks mutexes, and says in one place what happens when a thread panicked while it held one.
//!
//! Nobody goes on with data that a panic left half changed. The released program ends with the first panic. In a test a
//! panic ends only its thread, so whoever takes the lock next panics, too, with a message that points to the first.
//!
//! Not here: which locks there are and in what order they are taken; their users say so.

use std::sync::{LockResult, Mutex, MutexGuard, TryLockError};

/// Locks a mutex: `lock(&self.state).count += 1`.
#[inline]
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    sound(mutex.lock())
}

/// Locks a mutex, unless somebody has it.
pub fn try_lock<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    match mutex.try_lock() {
        Ok(inside) => Some(inside),
        Err(TryLockError::WouldBlock) => None,
        Err(TryLockError::Poisoned(error)) => Some(sound(Err(error))),
    }
}

/// What a lock protects; panics when its owner has panicked. For the results of a condition variable.
#[inline]
pub fn sound<T>(locked: LockResult<T>) -> T {
    let Ok(inside) = locked else { panic!("a thread panicked while it held this lock") };
    inside
}
