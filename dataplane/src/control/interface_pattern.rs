//! Which of the kernel's interfaces say what the host's packets may be long.

use super::convert::FieldError;
use margay_api::dataplane::v1 as pb;
use regex::Regex;

/// Names of interfaces, as a regular expression that matches somewhere in them. Equal where the text is.
#[derive(Clone, Debug)]
pub struct InterfacePattern(Regex);

impl InterfacePattern {
    /// Of the node's configuration; none: uplinks count.
    pub fn parse(config: &pb::NodeConfig) -> Result<Option<Self>, FieldError> {
        if config.mtu_interfaces.is_empty() {
            return Ok(None);
        }
        let parsed = Regex::new(&config.mtu_interfaces);
        parsed
            .map(|regex| Some(Self(regex)))
            .map_err(|why| FieldError::new("mtu_interfaces", why.to_string()))
    }

    /// The interface counts.
    pub fn matches(&self, name: &str) -> bool {
        self.0.is_match(name)
    }
}

impl PartialEq for InterfacePattern {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}

impl Eq for InterfacePattern {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_is_found_anywhere_unless_it_says_where() {
        let parse = |text: &str| {
            InterfacePattern::parse(&pb::NodeConfig { mtu_interfaces: text.into(), ..Default::default() })
        };
        assert_eq!(parse(""), Ok(None));
        let any = parse("eth|wlan").unwrap().unwrap();
        assert!(any.matches("eth0") && any.matches("veth7") && !any.matches("lo"));
        let begins = parse("^(eth|en[ps])\\d+$").unwrap().unwrap();
        assert!(begins.matches("eth0") && begins.matches("ens3") && !begins.matches("veth7"));
        assert_eq!(parse("eth(").unwrap_err().field, "mtu_interfaces");
    }
}
