//! How the C library's allocator gives memory back.

/// What is at least as large is a mapping of its own, and goes back to the system when it is freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const MAPPED_FROM: std::ffi::c_int = 1 << 20;

/// By default glibc raises this bound, up to 32 MiB, to whatever was freed: after one large row the next ones would come
/// from the heaps of the threads, which keep what they once had.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[allow(unsafe_code, reason = "there is no safe way to say it")]
pub(crate) fn give_back_large_memory() {
    // SAFETY: it sets a number, under a lock of the allocator, and can be called at any time.
    let set = unsafe { libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM) };
    debug_assert_eq!(set, 1);
}

#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(crate) fn give_back_large_memory() {}
