//! Locks, atomics and threads. Built with `--cfg loom` or `--cfg shuttle` they are those of a model checker, which runs the
//! code that it is given through its interleavings; both have the face of `parking_lot` here, and no time passes in them.

#[cfg(not(any(loom, shuttle)))]
pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard, RwLock};
#[cfg(not(any(loom, shuttle)))]
pub(crate) use std::{sync::atomic, thread};

#[cfg(loom)]
pub(crate) use loom::{sync::atomic, thread};
#[cfg(shuttle)]
pub(crate) use shuttle::{sync::atomic, thread};

#[cfg(any(loom, shuttle))]
pub(crate) use checked::{Condvar, Mutex, MutexGuard, RwLock};

#[cfg(any(loom, shuttle))]
mod checked {
    use std::fmt;
    use std::ops::{Deref, DerefMut};
    use std::sync::PoisonError;
    use std::time::Duration;

    #[cfg(loom)]
    use loom::sync as model;
    #[cfg(shuttle)]
    use shuttle::sync as model;

    #[derive(Default)]
    pub(crate) struct Mutex<T>(model::Mutex<T>);

    /// Empty only while its owner waits for a [`Condvar`].
    pub(crate) struct MutexGuard<'a, T>(Option<model::MutexGuard<'a, T>>);

    impl<T> Mutex<T> {
        pub fn new(value: T) -> Mutex<T> {
            Mutex(model::Mutex::new(value))
        }

        pub fn lock(&self) -> MutexGuard<'_, T> {
            MutexGuard(Some(self.0.lock().unwrap_or_else(PoisonError::into_inner)))
        }
    }

    impl<T> fmt::Debug for Mutex<T> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("Mutex")
        }
    }

    impl<T> Deref for MutexGuard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0.as_ref().expect("it is locked")
        }
    }

    impl<T> DerefMut for MutexGuard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().expect("it is locked")
        }
    }

    #[derive(Debug)]
    pub(crate) struct Condvar(model::Condvar);

    impl Default for Condvar {
        fn default() -> Condvar {
            Condvar::new()
        }
    }

    impl Condvar {
        pub fn new() -> Condvar {
            Condvar(model::Condvar::new())
        }

        pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
            let locked = guard.0.take().expect("it is locked");
            guard.0 = Some(self.0.wait(locked).unwrap_or_else(PoisonError::into_inner));
        }

        /// Waits until it is woken: whoever relies on the time running out hangs, and that is found.
        pub fn wait_for<T>(&self, guard: &mut MutexGuard<'_, T>, _: Duration) {
            self.wait(guard);
        }

        pub fn notify_one(&self) {
            self.0.notify_one();
        }

        pub fn notify_all(&self) {
            self.0.notify_all();
        }
    }

    #[derive(Debug)]
    pub(crate) struct RwLock<T>(model::RwLock<T>);

    impl<T> RwLock<T> {
        pub fn new(value: T) -> RwLock<T> {
            RwLock(model::RwLock::new(value))
        }

        pub fn read(&self) -> impl Deref<Target = T> {
            self.0.read().unwrap_or_else(PoisonError::into_inner)
        }

        pub fn write(&self) -> impl DerefMut<Target = T> {
            self.0.write().unwrap_or_else(PoisonError::into_inner)
        }
    }
}
