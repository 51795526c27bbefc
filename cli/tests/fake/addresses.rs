//! The agent's books of addresses: two pools, three blocks, and something wrong with two of them.

use margay_api::control::v1::{
    AddressFinding, AddressSettings, Allocation, BlockUsage, ListAddressesRequest, ListAddressesResponse,
    PoolUsage,
};

pub fn list(request: &ListAddressesRequest) -> ListAddressesResponse {
    let wrong = "spec.unallocated: 3 is neither given nor free";
    let mut blocks = vec![
        block("10.65.0.0/26", "four", "node-a", 2, 1),
        block("10.65.0.64/26", "four", "", 0, 0),
        block("fd00::/122", "six", "node-a", 1, 0),
    ];
    blocks[1].unreadable = wrong.into();
    let mut allocations =
        vec![allocation("10.65.0.2", "web", "node-a", 7), allocation("10.65.0.3", "old", "node-b", 9)];
    allocations.retain(|one| request.allocations || one.address == request.address);
    let nobody = |pod: &str| format!("given to shop/{pod} on node node-b, and no endpoint has it");
    let findings = vec![
        finding("leaked", "10.65.0.3", "net.old", 9, &nobody("old")),
        finding("leaked", "10.65.0.4", "net.older", 4, &nobody("older")),
        finding("unreadable", "10.65.0.64", "", 0, wrong),
    ];
    ListAddressesResponse {
        revision: 12,
        pools: vec![
            pool("four", "10.65.0.0/16", 65_536, 2, 1, false),
            pool("six", "fd00::/64", 1 << 64, 1, 0, true),
        ],
        blocks,
        allocations,
        findings: if request.findings { findings } else { Vec::new() },
        settings: Some(AddressSettings {
            strict_affinity: false,
            auto_allocate_blocks: true,
            max_blocks_per_host: 20,
            ip_cooldown_seconds: 60,
        }),
        reservation: if request.address == "10.65.0.9" { "10.65.0.8/30".into() } else { String::new() },
    }
}

fn pool(name: &str, cidr: &str, size: u128, used: u64, borrowed: u64, disabled: bool) -> PoolUsage {
    let blocks = 1 + borrowed;
    PoolUsage {
        name: name.into(),
        cidr: cidr.into(),
        size: size.to_string(),
        used,
        borrowed,
        blocks,
        disabled,
    }
}

fn block(cidr: &str, pool: &str, node: &str, used: u64, borrowed: u64) -> BlockUsage {
    let (cidr, pool, node) = (cidr.into(), pool.into(), node.into());
    BlockUsage { cidr, pool, node, size: 64, used, borrowed, unreadable: String::new() }
}

fn allocation(address: &str, pod: &str, node: &str, sequence: u64) -> Allocation {
    let attributes = [("namespace", "shop"), ("pod", pod), ("node", node)];
    Allocation {
        address: address.into(),
        block: "10.65.0.0/26".into(),
        pool: "four".into(),
        handle: format!("net.{pod}"),
        sequence,
        attributes: attributes.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        owner: "node-a".into(),
        borrowed: node != "node-a",
    }
}

fn finding(kind: &str, address: &str, handle: &str, sequence: u64, message: &str) -> AddressFinding {
    let (kind, address, handle, message) = (kind.into(), address.into(), handle.into(), message.into());
    AddressFinding { kind, address, handle, sequence, message }
}
