//! Networks whose proxies are believed.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// A list of networks; an empty one holds no address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Box<[IpNet]>);

/// The text is not such a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("off, or networks such as 10.0.0.0/8,2001:db8::/32")]
pub struct NetworksError;

impl Networks {
    /// Whether an address is in one of them. Cost: O(networks), which are a few.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(&address))
    }
}

impl FromStr for Networks {
    type Err = NetworksError;

    /// `off`, or networks with commas between them; an address alone is a network of one.
    fn from_str(text: &str) -> Result<Self, NetworksError> {
        if text == "off" {
            return Ok(Self::default());
        }
        let network = |text: &str| {
            let text = text.trim();
            let alone = |address: IpAddr| IpNet::from(address.to_canonical());
            text.parse()
                .or_else(|_| text.parse().map(alone))
                .map_err(|_| NetworksError)
        };
        text.split(',')
            .map(network)
            .collect::<Result<_, _>>()
            .map(Self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_found_in_their_networks() {
        let networks: Networks = "10.0.0.0/8, 192.0.2.7,2001:db8::/32".parse().unwrap();
        for (address, is_in) in [
            ("10.255.0.1", true),
            ("::ffff:10.1.2.3", true),
            ("11.0.0.1", false),
            ("192.0.2.7", true),
            ("192.0.2.8", false),
            ("2001:db8:ffff::1", true),
            ("2001:db9::1", false),
        ] {
            assert_eq!(
                networks.contains(address.parse().unwrap()),
                is_in,
                "{address}"
            );
        }
        let off: Networks = "off".parse().unwrap();
        assert!(!off.contains("10.0.0.1".parse().unwrap()));
    }

    #[test]
    fn what_is_no_list_of_networks_is_refused() {
        for text in [
            "",
            "on",
            "10.0.0.0/33",
            "10.0.0.0/8;",
            "10.0.0.0/8,",
            "proxy.example",
        ] {
            assert_eq!(text.parse::<Networks>(), Err(NetworksError), "{text:?}");
        }
    }
}
