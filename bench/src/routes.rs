//! A node's routes, from those that are wanted to what workers read, and what changes of them cost meanwhile.

use crate::lpm::files;
use crate::measure::{Sample, Spread, short};
use crate::{Common, record};
use anyhow::{Context, Result, ensure};
use clap::Args;
use margay_dataplane::fib::{
    Fib, Hop, Interface, Interfaces, Origin, Rib, Role, RouteTarget, Scope, TableId,
};
use margay_dataplane::net::{Addr, IfId, Mac, Prefix};
use serde::Serialize;
use std::collections::HashMap;
use std::hint::black_box;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, RwLock};

/// Changes that are published together: what comes in a millisecond at a million a second.
const TOGETHER: usize = 1000;
/// Addresses that the reader looks up before it takes a newer table, as a worker does from one poll to the next.
const POLL: usize = 256;

/// Command line.
#[derive(Args, Debug)]
pub struct Options {
    /// Routes of one family, one a line: a prefix, and perhaps the number of its gateway behind it
    #[arg(long, value_name = "FILE")]
    table: PathBuf,
    /// Changes, one a line: `A PREFIX` or `W PREFIX`, as a router sent them; without: each route moves to another gateway
    #[arg(long, value_name = "FILE")]
    changes: Option<PathBuf>,
    #[command(flatten)]
    common: Common,
}

/// Figures of one table.
#[derive(Serialize)]
struct Figures {
    routes: usize,
    changes: usize,
    /// Of the process: what is wanted, what it is kept by, and what lookups read.
    resident_bytes: u64,
    /// From nothing to a published table, in CPU time.
    build_seconds: Spread,
    /// Nanoseconds of CPU time a changed route, a thousand published together, while another thread looks up.
    change_nanos: Spread,
    /// The same with nobody looking up.
    change_nanos_unread: Spread,
    /// Nanoseconds of CPU time of a lookup that finds the next hop and its adjacency, while routes change, and while none do.
    lookup_nanos: Spread,
    lookup_nanos_unchanged: Spread,
    /// One next hop of all routes answers: nanoseconds until that is published.
    neighbour_nanos: Spread,
}

/// Measures, prints, records.
pub fn run(options: &Options) -> Result<()> {
    let routes = files::routes(&options.table)?;
    let changes = match &options.changes {
        Some(path) => files::changes(path)?,
        None => routes.iter().map(|(prefix, value)| (*prefix, Some(value + 1))).collect(),
    };
    let figures = measure(options, &routes, &changes)?;
    if !options.common.output.json {
        print(&figures);
    }
    record::finish(&options.common.output, &[figures])
}

fn measure(
    options: &Options,
    routes: &[(Prefix, u32)],
    changes: &[(Prefix, Option<u32>)],
) -> Result<Figures> {
    let before = resident()?;
    let mut rib = full(routes);
    let published = Arc::new(RwLock::new(rib.publish()));
    let resident_bytes = resident()?.saturating_sub(before);
    let addrs: Vec<Addr> = routes.iter().map(|(prefix, _)| prefix.addr()).collect();
    check(routes, &published.read().expect("no reader panics"))?;

    let (mut builds, mut read, mut unread) = (vec![], vec![], vec![]);
    let (mut changing, mut unchanged, mut neighbours) = (vec![], vec![], vec![]);
    for _ in 0..options.common.rounds {
        let sample = Sample::of(|| black_box(full(routes).publish()).len() as u64);
        builds.push(sample.nanos_each() * sample.operations as f64 / 1e9);
        unread.push(change(&mut rib, changes, &published).nanos_each());
        change(&mut rib, &back(routes), &published);
        let (writing, looking) = looked_up(&published, &addrs, || change(&mut rib, changes, &published));
        read.push(writing.nanos_each());
        changing.push(looking.nanos_each());
        change(&mut rib, &back(routes), &published);
        unchanged.push(Sample::of(|| look(&published, &addrs)).nanos_each());
        neighbours.push(answer(&mut rib, &published).nanos_each());
    }
    Ok(Figures {
        routes: routes.len(),
        changes: changes.len(),
        resident_bytes,
        build_seconds: Spread::exact(builds),
        change_nanos: Spread::of(read),
        change_nanos_unread: Spread::of(unread),
        lookup_nanos: Spread::of(changing),
        lookup_nanos_unchanged: Spread::of(unchanged),
        neighbour_nanos: Spread::of(neighbours),
    })
}

/// The gateway of this number, on the uplink.
fn gateway(number: u32) -> Addr {
    let [.., high, low] = (number % 60_000 + 2).to_be_bytes();
    Addr::v4([10, 0, high, low])
}

fn gateway_of(destination: Prefix, number: u32) -> Addr {
    let v4 = gateway(number);
    // fd00::/64, and the same number.
    if destination.is_v4() { v4 } else { Addr::from_bits(0xfd << 120 | u128::from(v4.v4_bits())) }
}

fn target(destination: Prefix, number: u32) -> RouteTarget {
    RouteTarget::gateway(gateway_of(destination, number))
}

/// All routes wanted, and each gateway's Ethernet address known.
fn full(routes: &[(Prefix, u32)]) -> Rib {
    let mut rib = Rib::default();
    rib.set_interfaces(Arc::new(Interfaces::new([uplink()])));
    let mut gateways = HashMap::new();
    for (destination, number) in routes {
        rib.set(TableId::Main, Origin::Kernel, *destination, Some(target(*destination, *number)));
        gateways.insert(gateway_of(*destination, *number), *number);
    }
    for (addr, number) in gateways {
        rib.set_neighbour(IfId(0), addr, Some(mac(number)));
    }
    rib
}

fn mac(number: u32) -> Mac {
    let [a, b, c, d] = number.to_be_bytes();
    Mac([2, 0, a, b, c, d])
}

fn uplink() -> Interface {
    Interface {
        id: IfId(0),
        name: "eth0".into(),
        role: Role::Uplink,
        mac: Mac([2, 0, 0, 0, 0, 1]),
        mtu: 1500,
        up: true,
        carrier: IfId(0),
        vlan: None,
        queues: vec![],
        addresses: [(Addr::v4([10, 0, 0, 1]), 16), (Addr::from_bits(0xfd << 120 | 1), 64)].into(),
        host: None,
        through: None,
        untracked: false,
        super_frames: false,
    }
}

/// The routes as they were.
fn back(routes: &[(Prefix, u32)]) -> Vec<(Prefix, Option<u32>)> {
    routes.iter().map(|(prefix, number)| (*prefix, Some(*number))).collect()
}

fn change(rib: &mut Rib, changes: &[(Prefix, Option<u32>)], published: &RwLock<Arc<Fib>>) -> Sample {
    Sample::of(|| {
        for some in changes.chunks(TOGETHER) {
            for (destination, number) in some {
                let target = number.map(|number| target(*destination, number));
                rib.set(TableId::Main, Origin::Kernel, *destination, target);
            }
            *published.write().expect("no reader panics") = rib.publish();
        }
        changes.len() as u64
    })
}

/// A neighbour answers anew, a thousand times.
fn answer(rib: &mut Rib, published: &RwLock<Arc<Fib>>) -> Sample {
    Sample::of(|| {
        for number in 0..1000 {
            rib.set_neighbour(IfId(0), gateway(0), Some(mac(number)));
            *published.write().expect("no reader panics") = rib.publish();
        }
        rib.set_neighbour(IfId(0), gateway(0), Some(mac(0)));
        1000
    })
}

/// Looks all addresses up, each with the newest table but for a poll; says how many they were.
fn look(published: &RwLock<Arc<Fib>>, addrs: &[Addr]) -> u64 {
    for some in addrs.chunks(POLL) {
        let fib = published.read().expect("no writer panics").clone();
        for addr in some {
            if let Hop::Adjacency(index) = fib.lookup(*addr, Scope::Host, 0) {
                black_box(fib.adjacency(index));
            }
        }
    }
    addrs.len() as u64
}

/// Does `work` while another thread looks up, and returns what both of them took.
fn looked_up(
    published: &Arc<RwLock<Arc<Fib>>>,
    addrs: &[Addr],
    work: impl FnOnce() -> Sample,
) -> (Sample, Sample) {
    let (done, passes) = (AtomicBool::new(false), AtomicU64::new(0));
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut sum = Sample::default();
            while !done.load(Relaxed) {
                sum = sum.and(Sample::of(|| look(published, addrs)));
                passes.fetch_add(1, Relaxed);
            }
            sum
        });
        while passes.load(Relaxed) == 0 {
            std::thread::yield_now();
        }
        let writing = work();
        done.store(true, Relaxed);
        (writing, reader.join().expect("the reader does not panic"))
    })
}

/// Every route's first address goes to the gateway of the most specific route that holds it.
fn check(routes: &[(Prefix, u32)], fib: &Fib) -> Result<()> {
    let known: HashMap<Prefix, u32> = routes.iter().copied().collect();
    for (prefix, _) in routes.iter().step_by(17) {
        let addr = prefix.addr();
        let longest = (0..=if addr.is_v4() { 32 } else { 128 })
            .rev()
            .find_map(|len| known.get(&Prefix::truncate(addr, len)))
            .context("a route holds its own address")?;
        let Hop::Adjacency(index) = fib.lookup(addr, Scope::Host, 0) else {
            anyhow::bail!("{addr} leads nowhere");
        };
        let found = fib.adjacency(index).map(|adjacency| adjacency.header.as_slice()[..6].to_vec());
        ensure!(found == Some(mac(*longest).0.to_vec()), "{addr} leads to another gateway");
    }
    Ok(())
}

/// Bytes of this process in memory.
fn resident() -> Result<u64> {
    let text = std::fs::read_to_string("/proc/self/statm").context("cannot read /proc/self/statm")?;
    let pages = text.split_whitespace().nth(1).context("/proc/self/statm has no second number")?;
    Ok(pages.parse::<u64>()? * 4096)
}

fn print(figures: &Figures) {
    let rate = |nanos: f64| 1e3 / nanos;
    println!(
        "{} routes, built and published in {:.2} s; {:.0} MB resident, all that is wanted included",
        short(figures.routes as u64),
        figures.build_seconds.median,
        figures.resident_bytes as f64 / 1e6
    );
    println!(
        "{} changes, {TOGETHER} published together: {} ns each, {:.1} million a second, while another thread looks up; {} ns \
         while none does",
        short(figures.changes as u64),
        figures.change_nanos.text(),
        rate(figures.change_nanos.median),
        figures.change_nanos_unread.text()
    );
    println!(
        "a lookup, to the adjacency: {} ns while routes change, {} ns while none does",
        figures.lookup_nanos.text(),
        figures.lookup_nanos_unchanged.text()
    );
    println!("a neighbour that answers, to the published table: {} ns", figures.neighbour_nanos.text());
}
