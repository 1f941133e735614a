//! Gives memory that is free back to the system.
//!
//! glibc's allocator keeps what was freed between things that live. A config is read into a form,
//! compiled, and the form is dropped: with a thousand upstreams that leaves megabytes of holes that
//! workers, whose threads have heaps of their own, do not use. Nothing safe asks for them back.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What comes within this time is done for at once: giving back looks through every heap.
const TOGETHER: Duration = Duration::from_secs(1);

static PLANNED: AtomicBool = AtomicBool::new(false);

/// Gives back what is free, soon. Needs a tokio runtime with time.
pub(crate) fn give_back_soon() {
    if PLANNED.swap(true, Ordering::AcqRel) {
        return;
    }
    let planned = Planned; // also when the runtime ends before
    tokio::spawn(async move {
        tokio::time::sleep(TOGETHER).await;
        drop(planned);
        give_back();
    });
}

struct Planned;

impl Drop for Planned {
    fn drop(&mut self) {
        PLANNED.store(false, Ordering::Release);
    }
}

/// Gives back what is free, of every thread's heap.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, locks the heaps by itself, and moves nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
}
