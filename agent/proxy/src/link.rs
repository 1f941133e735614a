//! The connections to other sidecars, each with the certificate that the other
//! end showed: to end those whose certificate is revoked while they live.
//!
//! It works beneath TLS, at the socket: whatever protocol runs above sees its
//! connection break, at whichever end it was made.

use std::cell::RefCell;
use std::rc::{Rc, Weak};

use mesh_tls::{PeerLeaf, Revocations, RevokedBy};

use crate::cut::{Cut, CutCell};
use crate::slots::Slots;

/// A connection to another sidecar.
#[derive(Debug)]
pub(crate) struct Link {
    leaf: PeerLeaf,
    cut: CutCell,
}

impl Link {
    pub(crate) fn cut_cell(&self) -> &CutCell {
        &self.cut
    }
}

/// Those of a worker.
#[derive(Debug, Default)]
pub(crate) struct Links(RefCell<Slots<Weak<Link>>>);

/// A connection's place among them, which it gives back when it goes.
#[derive(Debug)]
pub(crate) struct Linked {
    link: Rc<Link>,
    links: Rc<Links>,
    place: usize,
}

impl Links {
    /// One more.
    pub(crate) fn add(self: &Rc<Self>, leaf: PeerLeaf) -> Linked {
        let link = Rc::new(Link {
            leaf,
            cut: CutCell::default(),
        });
        let place = self.0.borrow_mut().insert(Rc::downgrade(&link));
        let links = self.clone();
        Linked { link, links, place }
    }

    /// Cuts those whose certificate is revoked; tells each.
    pub(crate) fn cut(&self, revoked: &Revocations, tell: impl Fn(&PeerLeaf, RevokedBy)) {
        if revoked.is_empty() {
            return;
        }
        let all: Vec<_> = self.0.borrow().iter().filter_map(Weak::upgrade).collect();
        for link in all {
            if link.cut.get().is_none()
                && let Some(by) = revoked.covers(&link.leaf)
            {
                tell(&link.leaf, by);
                link.cut.cut(Cut::Revoked);
            }
        }
    }
}

impl Linked {
    pub(crate) fn link(&self) -> &Rc<Link> {
        &self.link
    }

    pub(crate) fn cut_cell(&self) -> &CutCell {
        &self.link.cut
    }
}

impl Drop for Linked {
    fn drop(&mut self) {
        self.links.0.borrow_mut().remove(self.place);
    }
}
