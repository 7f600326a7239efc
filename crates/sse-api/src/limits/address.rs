//! Whose connection it is, as far as an address says: what limits per address are counted by.

use std::net::IpAddr;

/// The address that a connection is counted for. Who has one IPv6 address has the network of /64 that it lies in.
pub(crate) fn limit_key(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            IpAddr::V6((u128::from(address) & !u128::from(u64::MAX)).into())
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_counted_by_who_has_them() {
        let counted = |text: &str| limit_key(text.parse().unwrap()).to_string();
        assert_eq!(counted("::ffff:192.0.2.1"), "192.0.2.1");
        assert_eq!(counted("2001:db8:1:2:3:4:5:6"), "2001:db8:1:2::");
        assert_eq!(counted("::1"), "::1");
        assert_eq!(counted("127.9.9.9"), "127.9.9.9");
    }
}
