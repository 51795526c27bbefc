//! The wiring of the packet graph: all of it, and nothing else.

use crate::graph::{At, Builder, Graph};
use crate::nodes::{
    Arp, ArpNext, Commit, CommitNext, Conntrack, ConntrackNext, Cut, Decap, DecapNext, Drop, Encap,
    EncapNext, Fragments, FragmentsNext, Handoff, Hold, IcmpError, IcmpErrorNext, Nd, NdNext, Parse,
    ParseNext, Policy, PolicyNext, Punt, Rewrite, RewriteNext, Route, RouteNext, Service, ServiceNext, Tx,
    Untracked, UntrackedNext, Wait, WgDecrypt, WgDecryptNext, WgEncrypt, WgEncryptNext, WgHold, World,
};

/// Where packets enter the graph.
#[derive(Clone, Copy)]
pub struct Entries {
    /// From a device.
    pub parse: At<Parse>,
    /// Parsed, and a fragment of a packet whose fragments this worker gathers.
    pub fragments: At<Fragments>,
    /// Parsed, and this worker's own.
    pub conntrack: At<Conntrack>,
    /// To be answered with an error.
    pub icmp_error: At<IcmpError>,
    /// To leave by a tunnel.
    pub encap: At<Encap>,
    /// To leave by an encrypted tunnel, for whose peer there is a session.
    pub wg_encrypt: At<WgEncrypt>,
    /// Came by an encrypted tunnel, in a session that this worker owns.
    pub wg_decrypt: At<WgDecrypt>,
    /// Ready to send.
    pub tx: At<Tx>,
}

/// Builds the graph.
pub fn pipeline(ticks: fn() -> u64) -> (Graph<World>, Entries) {
    let mut g = Builder::default();

    let parse = g.node(Parse);
    let decap = g.node(Decap);
    let wg_decrypt = g.node(WgDecrypt::default());
    let arp = g.node(Arp);
    let nd = g.node(Nd);
    let fragments = g.node(Fragments);
    let untracked = g.node(Untracked);
    let conntrack = g.node(Conntrack);
    let service = g.node(Service);
    let route = g.node(Route);
    let policy = g.node(Policy::default());
    let commit = g.node(Commit);
    let rewrite = g.node(Rewrite);
    let icmp_error = g.node(IcmpError::default());
    let encap = g.node(Encap);
    let wg_encrypt = g.node(WgEncrypt::default());
    let handoff = g.sink(Handoff);
    let cut = g.sink(Cut);
    let hold = g.sink(Hold);
    let wg_hold = g.sink(WgHold);
    let early = g.sink(Wait);
    let punt = g.sink(Punt);
    let drop = g.sink(Drop);
    let tx = g.sink(Tx);

    g.connect(parse, ParseNext::Conntrack, conntrack)
        .connect(parse, ParseNext::Arp, arp)
        .connect(parse, ParseNext::Nd, nd)
        .connect(parse, ParseNext::Untracked, untracked)
        .connect(parse, ParseNext::Fragments, fragments)
        .connect(parse, ParseNext::Decap, decap)
        .connect(parse, ParseNext::WgDecrypt, wg_decrypt)
        .connect(parse, ParseNext::Drop, drop);
    // What was inside is parsed like any other packet.
    g.connect(decap, DecapNext::Parse, parse).connect(decap, DecapNext::Punt, punt).connect(
        decap,
        DecapNext::Drop,
        drop,
    );
    g.connect(wg_decrypt, WgDecryptNext::Parse, parse)
        .connect(wg_decrypt, WgDecryptNext::Handoff, handoff)
        .connect(wg_decrypt, WgDecryptNext::Punt, punt)
        .connect(wg_decrypt, WgDecryptNext::Drop, drop);
    g.connect(arp, ArpNext::Tx, tx).connect(arp, ArpNext::Punt, punt).connect(arp, ArpNext::Drop, drop);
    g.connect(nd, NdNext::Tx, tx).connect(nd, NdNext::Punt, punt).connect(nd, NdNext::Drop, drop);
    g.connect(fragments, FragmentsNext::Conntrack, conntrack)
        .connect(fragments, FragmentsNext::Untracked, untracked)
        .connect(fragments, FragmentsNext::Handoff, handoff)
        .connect(fragments, FragmentsNext::Early, early)
        .connect(fragments, FragmentsNext::Drop, drop);
    g.connect(untracked, UntrackedNext::Conntrack, conntrack)
        .connect(untracked, UntrackedNext::Route, route)
        .connect(untracked, UntrackedNext::Drop, drop);
    g.connect(conntrack, ConntrackNext::Rewrite, rewrite)
        .connect(conntrack, ConntrackNext::Service, service)
        .connect(conntrack, ConntrackNext::Handoff, handoff)
        .connect(conntrack, ConntrackNext::Drop, drop);
    g.connect(service, ServiceNext::Route, route)
        .connect(service, ServiceNext::IcmpError, icmp_error)
        .connect(service, ServiceNext::Drop, drop);
    g.connect(route, RouteNext::Policy, policy)
        .connect(route, RouteNext::Commit, commit)
        .connect(route, RouteNext::Rewrite, rewrite)
        .connect(route, RouteNext::IcmpError, icmp_error)
        .connect(route, RouteNext::Drop, drop);
    g.connect(policy, PolicyNext::Commit, commit).connect(policy, PolicyNext::Rewrite, rewrite).connect(
        policy,
        PolicyNext::Drop,
        drop,
    );
    g.connect(commit, CommitNext::Rewrite, rewrite).connect(commit, CommitNext::Drop, drop);
    g.connect(rewrite, RewriteNext::Tx, tx)
        .connect(rewrite, RewriteNext::Encap, encap)
        .connect(rewrite, RewriteNext::Cut, cut)
        .connect(rewrite, RewriteNext::Hold, hold)
        .connect(rewrite, RewriteNext::IcmpError, icmp_error)
        .connect(rewrite, RewriteNext::Drop, drop);
    g.connect(icmp_error, IcmpErrorNext::Tx, tx).connect(icmp_error, IcmpErrorNext::Encap, encap).connect(
        icmp_error,
        IcmpErrorNext::Drop,
        drop,
    );
    g.connect(encap, EncapNext::Tx, tx).connect(encap, EncapNext::WgEncrypt, wg_encrypt).connect(
        encap,
        EncapNext::Drop,
        drop,
    );
    g.connect(wg_encrypt, WgEncryptNext::Tx, tx).connect(wg_encrypt, WgEncryptNext::Hold, wg_hold).connect(
        wg_encrypt,
        WgEncryptNext::Drop,
        drop,
    );

    let graph = g.build(ticks).expect("every arc is connected above");
    (graph, Entries { parse, fragments, conntrack, icmp_error, encap, wg_encrypt, wg_decrypt, tx })
}
