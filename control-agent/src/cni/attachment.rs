//! What an attachment is known by.

use super::CniError;
use margay_api::control::v1::CniAttachment;
use std::fmt;

/// One interface of one container on one network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Attachment {
    /// The network's name.
    pub network: String,
    /// The runtime's id of the container.
    pub container: String,
    /// The interface as the container sees it.
    pub interface: String,
}

impl Attachment {
    /// As the plugin names it.
    pub(super) fn of(message: Option<CniAttachment>) -> Result<Self, CniError> {
        let CniAttachment { network, container_id: container, interface } = message.unwrap_or_default();
        for (field, value) in [("network", &network), ("container_id", &container), ("interface", &interface)]
        {
            // With a slash in it, two attachments might have one name.
            if value.is_empty() || value.contains('/') {
                return Err(CniError::Invalid(format!(
                    "attachment.{field}: {value:?} is not a name: give one, without a slash"
                )));
            }
        }
        Ok(Self { network, container, interface })
    }

    /// From an endpoint's annotation.
    pub(super) fn parse(annotation: &str) -> Option<Self> {
        let mut parts = annotation.split('/').map(str::to_owned);
        let parsed = Self { network: parts.next()?, container: parts.next()?, interface: parts.next()? };
        parts.next().is_none().then_some(parsed)
    }
}

impl fmt::Display for Attachment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.network, self.container, self.interface)
    }
}

impl From<Attachment> for CniAttachment {
    fn from(attachment: Attachment) -> Self {
        let Attachment { network, container: container_id, interface } = attachment;
        Self { network, container_id, interface }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_what_its_annotation_says() {
        let attachment =
            Attachment { network: "net".into(), container: "c.1".into(), interface: "eth0".into() };
        assert_eq!(Attachment::parse(&attachment.to_string()), Some(attachment.clone()));
        assert_eq!(Attachment::of(Some(attachment.clone().into())).unwrap(), attachment);
        for wrong in ["", "net", "net/c", "net/c/eth0/1"] {
            assert_eq!(Attachment::parse(wrong), None, "{wrong}");
        }
        for (network, container) in [("", "c"), ("net", ""), ("n/et", "c")] {
            let attachment =
                Attachment { network: network.into(), container: container.into(), interface: "eth0".into() };
            assert!(Attachment::of(Some(attachment.into())).is_err(), "{network} {container}");
        }
    }
}
