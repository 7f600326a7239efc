use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the log has the content that a change replaced, as the rows show that come from it.
#[derive(Debug, Default)]
pub struct BeforeImages {
    missed: AtomicBool,
}

impl BeforeImages {
    /// Whether one was missed since this was last asked.
    pub(crate) fn were_missed(&self) -> bool {
        self.missed.swap(false, Ordering::AcqRel)
    }

    /// The log lacks one.
    pub fn missed(&self) {
        self.missed.store(true, Ordering::Release);
    }
}
