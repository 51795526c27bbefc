//! The commands of the CNI plugin.

use super::Agent;
use crate::cni::Attachments;

impl Agent {
    /// This node's attachments.
    pub(super) fn attachments(&self) -> Attachments<'_> {
        Attachments {
            node: &self.node,
            store: &*self.store,
            ipam: &self.ipam,
            calculation: &self.calculation,
            link: &self.link,
        }
    }
}
