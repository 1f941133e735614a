//! Small blocks of memory, kept by the worker that freed them.
//!
//! A request takes some twenty blocks and gives them back a moment later. glibc keeps seven of a
//! size at hand for a thread, and none above a kilobyte; the requests that are under way at once on a
//! worker are more, and then each block costs hundreds of instructions. So a worker keeps what it
//! frees in lists of its own, one for each size, up to a bound, and takes it from there.
//!
//! What is not at hand comes from glibc, and goes back there: blocks are never cut from larger ones,
//! so that all that is kept can be let go, and an idle worker does (see [`let_go`]). Other
//! allocators that are quick for this cost 2 to 8 MiB in each sidecar.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::{Cell, UnsafeCell};
use std::ptr::{self, NonNull};

/// The alignment of every block, which is glibc's.
const ALIGN: usize = 16;
/// Sizes up to this differ by 16 bytes, as glibc's do: its blocks hold 24, 40, 56 and so on.
const FINE: usize = 1032;
const FINE_STEP: usize = 16;
const FINE_FIRST: usize = 24;
const FINE_CLASSES: usize = (FINE - FINE_FIRST) / FINE_STEP + 1;
/// Sizes above that, up to this, differ by so much.
const COARSE: usize = FINE + 56 * COARSE_STEP;
const COARSE_STEP: usize = 128;
const CLASSES: usize = FINE_CLASSES + (COARSE - FINE) / COARSE_STEP;
/// Blocks of a size that a worker keeps at most, and bytes of all.
const MOST_OF_A_SIZE: u32 = 128;
const MOST_BYTES: usize = 1024 * 1024;

/// The program's allocator; see the module.
pub(crate) struct Blocks;

#[global_allocator]
static ALLOCATOR: Blocks = Blocks;

/// A block that nobody uses.
struct Free {
    next: Option<NonNull<Free>>,
}

#[derive(Clone, Copy)]
struct List {
    first: Option<NonNull<Free>>,
    length: u32,
}

/// What a thread keeps.
struct Kept {
    lists: UnsafeCell<[List; CLASSES]>,
    bytes: Cell<usize>,
    /// Only what has a guard keeps anything: it lets go at the thread's end.
    keeps: Cell<bool>,
}

thread_local! {
    static KEPT: Kept = const {
        Kept {
            lists: UnsafeCell::new([List { first: None, length: 0 }; CLASSES]),
            bytes: Cell::new(0),
            keeps: Cell::new(false),
        }
    };
}

/// While it lives, this thread keeps the blocks that it frees.
pub(crate) struct Keeps {
    /// It is this thread's.
    _of_thread: std::marker::PhantomData<*const ()>,
}

impl Keeps {
    /// Lets this thread keep the blocks that it frees.
    pub(crate) fn begin() -> Self {
        KEPT.with(|kept| kept.keeps.set(true));
        Self {
            _of_thread: std::marker::PhantomData,
        }
    }
}

impl Drop for Keeps {
    fn drop(&mut self) {
        KEPT.with(|kept| kept.keeps.set(false));
        let_go();
    }
}

/// Gives what this thread keeps back to glibc; how many bytes that were.
pub(crate) fn let_go() -> usize {
    KEPT.with(|kept| {
        let bytes = kept.bytes.get();
        for class in 0..CLASSES {
            while let Some(block) = kept.take(class) {
                // SAFETY: it came from `System` with this layout, and is in no list any more.
                unsafe { System.dealloc(block.as_ptr().cast(), layout_of(class)) };
            }
        }
        bytes
    })
}

impl Kept {
    #[inline]
    fn take(&self, class: usize) -> Option<NonNull<Free>> {
        // SAFETY: the lists are this thread's, and nothing here allocates or calls out while they
        // are borrowed; a block in a list is whole, ours, and holds a `Free`.
        unsafe {
            let list = (*self.lists.get()).get_unchecked_mut(class);
            let block = list.first?;
            list.first = block.as_ref().next;
            list.length -= 1;
            self.bytes.set(self.bytes.get() - size_of_class(class));
            Some(block)
        }
    }

    /// Whether it was kept.
    ///
    /// # Safety
    /// The block is of this class and used by nobody.
    #[inline]
    unsafe fn keep(&self, class: usize, block: NonNull<Free>) -> bool {
        let bytes = self.bytes.get() + size_of_class(class);
        // SAFETY: as in `take`; the block has room for a `Free`, and its alignment.
        unsafe {
            let list = (*self.lists.get()).get_unchecked_mut(class);
            if list.length >= MOST_OF_A_SIZE || bytes > MOST_BYTES {
                return false;
            }
            block.write(Free { next: list.first });
            list.first = Some(block);
            list.length += 1;
        }
        self.bytes.set(bytes);
        true
    }
}

/// The class of a size; `None` when it is glibc's alone.
#[inline]
fn class_of(layout: Layout) -> Option<usize> {
    let size = layout.size();
    if layout.align() > ALIGN || size > COARSE {
        return None;
    }
    Some(if size <= FINE {
        size.saturating_sub(FINE_FIRST).div_ceil(FINE_STEP)
    } else {
        FINE_CLASSES - 1 + (size - FINE).div_ceil(COARSE_STEP)
    })
}

#[inline]
const fn size_of_class(class: usize) -> usize {
    if class < FINE_CLASSES {
        FINE_FIRST + class * FINE_STEP
    } else {
        FINE + (class + 1 - FINE_CLASSES) * COARSE_STEP
    }
}

#[inline]
fn layout_of(class: usize) -> Layout {
    // SAFETY: the alignment is a power of two, and no size is near the largest.
    unsafe { Layout::from_size_align_unchecked(size_of_class(class), ALIGN) }
}

// SAFETY: every block is one of `System`'s, of the size of its class or larger than that of the
// layout that was asked for; it is given out once until it is given back. A thread-local without a
// destructor is there until the thread's end, and making it allocates nothing.
unsafe impl GlobalAlloc for Blocks {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(class) = class_of(layout) else {
            // SAFETY: as the caller says.
            return unsafe { System.alloc(layout) };
        };
        match KEPT.with(|kept| kept.take(class)) {
            Some(block) => block.as_ptr().cast(),
            // SAFETY: no class has size zero.
            None => unsafe { System.alloc(layout_of(class)) },
        }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        let Some(class) = class_of(layout) else {
            // SAFETY: as the caller says; such a layout was given to `System` as it is.
            return unsafe { System.dealloc(block, layout) };
        };
        let is_kept = KEPT.with(|kept| {
            // SAFETY: the caller gives it back, and it was allocated by its class; it is not null.
            kept.keeps.get() && unsafe { kept.keep(class, NonNull::new_unchecked(block.cast())) }
        });
        if !is_kept {
            // SAFETY: it came from `System` with this layout.
            unsafe { System.dealloc(block, layout_of(class)) };
        }
    }

    #[inline]
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if class_of(layout).is_none() {
            // SAFETY: as the caller says.
            return unsafe { System.alloc_zeroed(layout) };
        }
        // SAFETY: as the caller says; a block that is there has at least that size.
        unsafe {
            let block = self.alloc(layout);
            if !block.is_null() {
                ptr::write_bytes(block, 0, layout.size());
            }
            block
        }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller says that the size fits the alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (class_of(layout), class_of(wanted)) {
            // SAFETY: both are `System`'s as they are.
            (None, None) => unsafe { System.realloc(block, layout, size) },
            (old, new) if old == new => block,
            // SAFETY: both blocks are as large as what is copied, and are two.
            _ => unsafe {
                let new = self.alloc(wanted);
                if !new.is_null() {
                    ptr::copy_nonoverlapping(block, new, layout.size().min(size));
                    self.dealloc(block, layout);
                }
                new
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_hold_their_sizes() {
        let class =
            |size| class_of(Layout::from_size_align(size, 8).unwrap_or(Layout::new::<u8>()));
        for size in 0..=COARSE {
            let class = class(size);
            assert!(class.is_some_and(|class| class < CLASSES), "{size}");
            let class = class.unwrap_or_default();
            assert!(size_of_class(class) >= size, "{size}");
            assert!(class == 0 || size_of_class(class - 1) < size, "{size}");
        }
        assert_eq!(class(COARSE + 1), None);
    }

    #[test]
    fn a_thread_keeps_what_it_freed_and_lets_it_go() {
        std::thread::spawn(|| {
            let address = |one: &[u8; 100]| one.as_ptr().addr();
            assert_eq!(let_go(), 0);
            let keeps = Keeps::begin();
            let one = Box::new([1_u8; 100]);
            let at = address(&one);
            drop(one);
            let again = Box::new([2_u8; 100]);
            assert_eq!(address(&again), at);
            drop(again);
            assert!(let_go() >= 100);
            assert_eq!(let_go(), 0);
            drop(keeps);
            drop(Box::new([3_u8; 100]));
            assert_eq!(let_go(), 0);
        })
        .join()
        .unwrap_or_else(|_| panic!("the thread"));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        std::thread::spawn(|| {
            let _keeps = Keeps::begin();
            let many: Vec<Box<[u8; 64]>> = (0..1000).map(|_| Box::new([0; 64])).collect();
            drop(many);
            let few = let_go();
            assert!(few < 1000 * 64, "{few}");
            let large: Vec<Vec<u8>> = (1000..8000).step_by(2).map(|size| vec![0; size]).collect();
            drop(large);
            assert!(let_go() <= MOST_BYTES);
        })
        .join()
        .unwrap_or_else(|_| panic!("the thread"));
    }

    /// Every size, grown and shrunk, keeps its content.
    #[test]
    fn content_moves_with_its_block() {
        let _keeps = Keeps::begin();
        let mut held: Vec<Vec<u8>> = Vec::new();
        for size in (1..20_000).step_by(37) {
            let mut one: Vec<u8> = vec![7; size / 2];
            one.resize(size, 9);
            one.shrink_to_fit();
            assert!(one.iter().take(size / 2).all(|byte| *byte == 7));
            assert!(one.iter().skip(size / 2).all(|byte| *byte == 9));
            held.push(one);
            if held.len() > 50 {
                held.remove(size % 50);
            }
            assert!(vec![0_u8; size].iter().all(|byte| *byte == 0));
        }
    }
}
