//! The backends of services, as EndpointSlices tell them.

use super::Resources;
use crate::model::{
    Cidr, Kind, Protocol,
    kubernetes::{EndpointSlice, Typed},
};
use std::collections::HashMap;

/// EndpointSlices by the namespace and name of their service.
pub(super) struct Services<'a> {
    slices: HashMap<&'a str, HashMap<&'a str, Vec<&'a EndpointSlice>>>,
}

impl<'a> Services<'a> {
    pub fn new(resources: &'a Resources) -> Self {
        let mut slices: HashMap<_, HashMap<_, Vec<_>>> = HashMap::new();
        for object in resources.kubernetes(Kind::EndpointSlice) {
            if let Typed::EndpointSlice(slice) = object
                && let Some(service) = slice.service()
            {
                let of_namespace = slices.entry(slice.metadata.namespace.as_str()).or_default();
                of_namespace.entry(service).or_default().push(slice);
            }
        }
        Self { slices }
    }

    /// The backends of a service, with repetitions. Those that are not ready count, as in Calico.
    pub fn addresses(&self, namespace: &str, name: &str) -> impl Iterator<Item = Cidr> {
        self.of(namespace, name).iter().flat_map(|slice| slice.addresses()).map(Cidr::host)
    }

    /// As [`addresses`](Self::addresses), with each port of each. A port without a number is none.
    pub fn ports(&self, namespace: &str, name: &str) -> impl Iterator<Item = (Cidr, Protocol, u16)> {
        self.of(namespace, name).iter().flat_map(|slice| {
            slice.addresses().flat_map(move |address| {
                slice.ports.iter().filter_map(move |port| {
                    Some((Cidr::host(address), port.protocol.unwrap_or(Protocol::TCP), port.port?))
                })
            })
        })
    }

    /// Its slices.
    pub fn of(&self, namespace: &str, name: &str) -> &[&'a EndpointSlice] {
        let found = self.slices.get(namespace).and_then(|of_namespace| of_namespace.get(name));
        found.map_or(&[], Vec::as_slice)
    }
}
