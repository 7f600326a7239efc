//! A hash that is the same in every process and release: for what is given out or stored.

/// FNV-1a, 32 bits. Recognises damage and difference; it is no protection against anybody.
pub fn stable_hash(bytes: impl IntoIterator<Item = u8>) -> u32 {
    stable_hash_after(0x811c_9dc5, bytes)
}

/// The hash of more bytes after those that `hash` is of.
pub fn stable_hash_after(hash: u32, bytes: impl IntoIterator<Item = u8>) -> u32 {
    bytes.into_iter().fold(hash, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}
