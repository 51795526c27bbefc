//! `ipam show`: pools, blocks, borrowed addresses, settings; or one address.

use std::{
    collections::BTreeMap,
    io::{self, Write as _},
};

use margay_api::control::v1::{self as api, ListAddressesRequest};
use serde::Serialize;

use crate::{
    args::{Global, IpamShow},
    exit::{Code, Outcome},
    output::{Cell, Output, Table, Tone, View},
};

/// Prints what was asked for.
pub async fn run(global: &Global, args: &IpamShow, out: &mut Output) -> Outcome {
    let request = ListAddressesRequest {
        allocations: args.show_borrowed,
        address: args.ip.map(|ip| ip.to_string()).unwrap_or_default(),
        findings: false,
    };
    let answer = super::list(global, request).await?;
    match args.ip {
        Some(ip) => {
            out.show(&Address::of(ip.to_string(), answer), args.output)?;
        }
        None if args.show_borrowed => {
            let borrowed = answer.allocations.into_iter().filter(|one| one.borrowed);
            out.show(&Borrowed { borrowed: borrowed.map(Allocation::from).collect() }, args.output)?;
        }
        None if args.show_configuration => {
            out.show(&Settings::from(answer.settings.unwrap_or_default()), args.output)?;
        }
        None => {
            let blocks = args.show_blocks.then(|| answer.blocks.into_iter().map(Block::from).collect());
            let pools = answer.pools.into_iter().map(Pool::from).collect();
            out.show(&Usage { pools, blocks }, args.output)?;
        }
    }
    Ok(Code::Ok)
}

/// How full pools are, and their blocks.
#[derive(Debug, Serialize)]
struct Usage {
    pools: Vec<Pool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    blocks: Option<Vec<Block>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Pool {
    name: String,
    cidr: String,
    /// Whole numbers, as text: of IPv6 they are larger than what JSON's readers hold.
    size: String,
    used: u64,
    free: String,
    borrowed: u64,
    blocks: u64,
    disabled: bool,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Block {
    cidr: String,
    pool: String,
    /// Empty: nobody's.
    node: String,
    size: u32,
    used: u64,
    free: u64,
    borrowed: u64,
    /// Why its books cannot be read.
    #[serde(skip_serializing_if = "String::is_empty")]
    unreadable: String,
}

#[derive(Debug, Serialize)]
struct Borrowed {
    borrowed: Vec<Allocation>,
}

/// An address that somebody has.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Allocation {
    address: String,
    block: String,
    /// The node that has the block.
    block_owner: String,
    pool: String,
    handle: String,
    sequence: u64,
    attributes: BTreeMap<String, String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Address {
    address: String,
    in_use: bool,
    /// The reserved prefix that holds it.
    #[serde(skip_serializing_if = "String::is_empty")]
    reservation: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    allocation: Option<Allocation>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Settings {
    strict_affinity: bool,
    auto_allocate_blocks: bool,
    max_blocks_per_host: u64,
    ip_cooldown_seconds: u64,
}

impl From<api::PoolUsage> for Pool {
    fn from(from: api::PoolUsage) -> Self {
        let free = from.size.parse::<u128>().map_or(0, |size| size.saturating_sub(from.used.into()));
        Self {
            name: from.name,
            cidr: from.cidr,
            size: from.size,
            used: from.used,
            free: free.to_string(),
            borrowed: from.borrowed,
            blocks: from.blocks,
            disabled: from.disabled,
        }
    }
}

impl From<api::BlockUsage> for Block {
    fn from(from: api::BlockUsage) -> Self {
        Self {
            cidr: from.cidr,
            pool: from.pool,
            node: from.node,
            size: from.size,
            used: from.used,
            free: u64::from(from.size).saturating_sub(from.used),
            borrowed: from.borrowed,
            unreadable: from.unreadable,
        }
    }
}

impl From<api::Allocation> for Allocation {
    fn from(from: api::Allocation) -> Self {
        Self {
            address: from.address,
            block: from.block,
            block_owner: from.owner,
            pool: from.pool,
            handle: from.handle,
            sequence: from.sequence,
            attributes: from.attributes.into_iter().collect(),
        }
    }
}

impl From<api::AddressSettings> for Settings {
    fn from(from: api::AddressSettings) -> Self {
        Self {
            strict_affinity: from.strict_affinity,
            auto_allocate_blocks: from.auto_allocate_blocks,
            max_blocks_per_host: from.max_blocks_per_host,
            ip_cooldown_seconds: from.ip_cooldown_seconds,
        }
    }
}

impl Address {
    fn of(address: String, answer: api::ListAddressesResponse) -> Self {
        let allocation = answer.allocations.into_iter().next().map(Allocation::from);
        Self { address, in_use: allocation.is_some(), reservation: answer.reservation, allocation }
    }
}

impl Allocation {
    fn attribute(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }

    /// Namespace and pod, or what else has it.
    fn whose(&self) -> String {
        match (self.attribute("namespace"), self.attribute("pod")) {
            (_, "") => self.attribute("type").to_owned(),
            (namespace, pod) => format!("{namespace}/{pod}"),
        }
    }
}

impl View for Usage {
    const RECORDS: Option<&'static str> = Some("pools");

    fn text(&self, out: &mut Output, _: bool) -> io::Result<()> {
        let mut table =
            Table::new(["POOL", "CIDR", ">SIZE", ">USED", ">FREE", ">BORROWED", ">BLOCKS", "STATE"]);
        for pool in &self.pools {
            let state = if pool.disabled { Cell::toned("disabled", Tone::Warn) } else { Cell::from("ok") };
            table.row(vec![
                (&pool.name).into(),
                (&pool.cidr).into(),
                (&pool.size).into(),
                pool.used.into(),
                (&pool.free).into(),
                pool.borrowed.into(),
                pool.blocks.into(),
                state,
            ]);
        }
        table.print(out)?;
        let Some(blocks) = &self.blocks else { return Ok(()) };
        writeln!(out)?;
        let mut table =
            Table::new(["BLOCK", "POOL", "NODE", ">SIZE", ">USED", ">FREE", ">BORROWED", "STATE"]);
        for block in blocks {
            let state = match block.unreadable.as_str() {
                "" => Cell::from("ok"),
                why => Cell::toned(format!("UNREADABLE: {why}"), Tone::Bad),
            };
            table.row(vec![
                (&block.cidr).into(),
                (&block.pool).into(),
                (&block.node).into(),
                block.size.into(),
                block.used.into(),
                block.free.into(),
                block.borrowed.into(),
                state,
            ]);
        }
        table.print(out)
    }
}

impl View for Borrowed {
    const RECORDS: Option<&'static str> = Some("borrowed");

    fn text(&self, out: &mut Output, _: bool) -> io::Result<()> {
        let mut table = Table::new(["ADDRESS", "NODE", "BLOCK", "BLOCK-OWNER", "WORKLOAD", "HANDLE"]);
        for one in &self.borrowed {
            table.row(vec![
                (&one.address).into(),
                one.attribute("node").into(),
                (&one.block).into(),
                (&one.block_owner).into(),
                one.whose().into(),
                (&one.handle).into(),
            ]);
        }
        table.print(out)
    }
}

impl View for Address {
    fn text(&self, out: &mut Output, _: bool) -> io::Result<()> {
        let state = if self.in_use { "in use" } else { "not in use" };
        writeln!(out, "{} is {state}", self.address)?;
        if !self.reservation.is_empty() {
            writeln!(out, "Reserved:    as part of {}", self.reservation)?;
        }
        let Some(one) = &self.allocation else { return Ok(()) };
        writeln!(out, "Handle:      {}", one.handle)?;
        writeln!(out, "Block:       {} of node {}, pool {}", one.block, one.block_owner, one.pool)?;
        writeln!(out, "Attributes:")?;
        one.attributes.iter().try_for_each(|(name, value)| writeln!(out, "  {name}: {value}"))
    }
}

impl View for Settings {
    fn text(&self, out: &mut Output, _: bool) -> io::Result<()> {
        let mut table = Table::new(["SETTING", "VALUE"]);
        table.row(vec!["strictAffinity".into(), self.strict_affinity.into()]);
        table.row(vec!["autoAllocateBlocks".into(), self.auto_allocate_blocks.into()]);
        table.row(vec!["maxBlocksPerHost".into(), self.max_blocks_per_host.into()]);
        table.row(vec!["ipCooldownSeconds".into(), self.ip_cooldown_seconds.into()]);
        table.print(out)
    }
}
