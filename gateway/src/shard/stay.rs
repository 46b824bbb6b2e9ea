//! What an open socket is counted for, and until when.

use crate::admission::{Permit, Unproven};

/// A socket's place among the node's, and among its client's that have shown no good key yet.
#[derive(Debug)]
pub(crate) struct Stay {
    pub(crate) place: Permit,
    pub(crate) unproven: Option<Unproven>,
}

impl Stay {
    /// A key of it is good: only its place is held from now on, until it is closed.
    pub(super) fn proven(self) -> Permit {
        self.place
    }
}
