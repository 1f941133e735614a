//! Gives memory that is free back to the system.
//!
//! glibc's allocator keeps what was freed between things that live. A config is read into a form,
//! compiled, and the form is dropped: with a thousand upstreams that leaves megabytes of holes that
//! workers, whose threads have heaps of their own, do not use. Nothing safe asks for them back.
//!
//! The same with the program's own pages: starting, and reading a config, runs through most of it, of
//! which serving needs a part. Those pages are the file's, so that the kernel has them again when they
//! are needed; but it leaves them in this process, and counts them as its memory, until it is short of
//! memory itself.
#![allow(unsafe_code)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What comes within this time is done for at once: giving back looks through every heap.
const TOGETHER: Duration = Duration::from_secs(1);

/// When nothing has begun for so long the program's own pages are let go. What serves comes again
/// with the next request, which that costs a tenth of a millisecond; so it is done once.
const QUIET: Duration = Duration::from_secs(30);
/// After a config was read they are let go in any case, but not again within this time.
const REST: Duration = Duration::from_secs(60);

static PLANNED: AtomicBool = AtomicBool::new(false);
static PROGRAM: Mutex<Program> = Mutex::new(Program::NEW);

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
        program().has_read = true;
    });
}

struct Planned;

impl Drop for Planned {
    fn drop(&mut self) {
        PLANNED.store(false, Ordering::Release);
    }
}

/// What is freed at the end of a heap goes back to the system from this size on, in bytes, as long
/// as there is no bulk; it is what glibc begins with.
const KEPT: usize = 128 * 1024;
/// The same while there is bulk. The records of one write over TLS are 600 KiB: were they given back
/// after each write, each would have new pages, which cost as much as all else that is done to them.
const KEPT_FOR_BULK: usize = 2 * 1024 * 1024;
/// What is freed makes the allocator look at a heap's end from 64 KiB on.
const LOOKED_AT: usize = 96 * 1024;

/// Gives back what is free, of every thread's heap; of this thread's also its end.
pub(crate) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, locks the heaps by itself, and moves nothing that is in use.
    unsafe {
        libc::malloc_trim(0);
    }
    // That leaves alone what is free at the end of a heap that is not the first thread's. It is
    // looked at when something of some size is freed.
    keep_at_end(KEPT);
    drop(std::hint::black_box(Vec::<u8>::with_capacity(LOOKED_AT)));
}

/// Lets heaps keep what bulk needs again at once, until memory is next given back.
pub(crate) fn keep_for_bulk() {
    keep_at_end(KEPT_FOR_BULK);
}

fn keep_at_end(bytes: usize) {
    #[cfg(target_env = "gnu")]
    if let Ok(bytes) = libc::c_int::try_from(bytes) {
        // SAFETY: it takes no pointer; a heap's end is given back a little earlier or later.
        unsafe {
            libc::mallopt(libc::M_TRIM_THRESHOLD, bytes);
        }
    }
    #[cfg(not(target_env = "gnu"))]
    let _ = bytes;
}

/// The program's own pages.
struct Program {
    /// A config was read, which takes what serving does not.
    has_read: bool,
    /// When something is known to have begun last.
    busy: Option<Instant>,
    /// When they were let go last, and whether nothing has begun since.
    let_go: Option<Instant>,
    is_let_go: bool,
}

impl Program {
    const NEW: Self = Self {
        has_read: false,
        busy: None,
        let_go: None,
        is_let_go: false,
    };

    /// Whether they are to be let go.
    fn look(&mut self, began: bool, now: Instant) -> bool {
        if began {
            self.is_let_go = false;
            self.busy = Some(now);
        }
        let busy = *self.busy.get_or_insert(now);
        let since = |then| now.saturating_duration_since(then);
        let is_quiet = !self.is_let_go && since(busy) >= QUIET;
        let is = is_quiet || self.has_read && self.let_go.is_none_or(|then| since(then) >= REST);
        if is {
            self.has_read = false;
            self.let_go = Some(now);
            self.is_let_go = true;
        }
        is
    }
}

fn program() -> MutexGuard<'static, Program> {
    // Nothing is left half done under this lock.
    PROGRAM.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A worker looks after its house; whether something began there since it did so last. Where
/// nothing begins on any for long, or a config was read, the program's pages are let go.
pub(crate) fn look(began: bool) {
    let is_time = program().look(began, Instant::now());
    if is_time {
        let_go_of_program();
    }
}

/// Lets go of the program's own pages; those that are needed come again.
fn let_go_of_program() {
    // SAFETY: the function takes what it is called with, and keeps nothing of it.
    unsafe {
        libc::dl_iterate_phdr(Some(let_go_of), std::ptr::null_mut());
    }
}

/// Lets go of the pages of an object, which is the program, since that is the first: of what nobody
/// ever writes to, the loader included.
unsafe extern "C" fn let_go_of(
    object: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    _data: *mut libc::c_void,
) -> libc::c_int {
    // SAFETY: it is there meanwhile, with as many headers as it says.
    let (base, headers) = unsafe {
        let object = &*object;
        let count = usize::from(object.dlpi_phnum);
        let headers = std::slice::from_raw_parts(object.dlpi_phdr, count);
        (object.dlpi_addr, headers)
    };
    // SAFETY: it only gives a number.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    let page = u64::try_from(page).unwrap_or(4096);
    for header in headers {
        if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
            continue;
        }
        let start = base + header.p_vaddr;
        let end = start + header.p_memsz;
        let start = start / page * page;
        // SAFETY: it is mapped from the file, and as it is there, since nobody writes to it: what is
        // read there next is read from the file again.
        unsafe {
            let at = start as *mut libc::c_void;
            libc::madvise(at, (end - start) as libc::size_t, libc::MADV_DONTNEED);
        }
    }
    1 // no other
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_go_when_it_is_quiet_and_after_a_config() {
        let start = Instant::now();
        let look = |program: &mut Program, seconds, began| {
            program.look(began, start + Duration::from_secs(seconds))
        };
        let mut program = Program::NEW;
        assert!(!look(&mut program, 0, false));
        assert!(!look(&mut program, 15, false));
        assert!(look(&mut program, 30, false));
        assert!(!look(&mut program, 90, false));
        // Of two workers one has work.
        for at in [100, 115, 130, 145] {
            assert!(!look(&mut program, at, true));
            assert!(!look(&mut program, at + 1, false));
        }
        assert!(look(&mut program, 180, false));
        // Configs come, and there is work.
        let mut gone = 0;
        for turn in 0..20 {
            program.has_read = true;
            gone += u32::from(look(&mut program, 300 + turn * 15, true));
        }
        assert_eq!(gone, 5);
    }

    #[test]
    fn what_is_let_go_is_there_again() {
        // Constants, code, and what the loader wrote.
        let said = || format!("{:?} {:?}", super::QUIET, std::env::args().count());
        let before = said();
        let_go_of_program();
        assert_eq!(said(), before);
    }
}
