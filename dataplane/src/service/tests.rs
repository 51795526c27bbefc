//! Services against a twin that goes through the endpoints as kube-proxy's text says.

use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use std::collections::BTreeMap;

const NOW: Nanos = Nanos::from_secs(100);

fn addr(text: &str) -> Addr {
    text.parse().unwrap()
}

fn endpoint(n: u8) -> Endpoint {
    Endpoint {
        addr: Addr::v4([10, 65, 0, n]),
        ports: [(0, 8080)].into(),
        ready: true,
        serving: true,
        terminating: false,
        local: false,
        preferred: true,
        weight: 1,
    }
}

fn definition(backends: Vec<Endpoint>) -> Definition {
    Definition {
        name: "default/web".into(),
        cluster_ips: vec![addr("10.96.0.1")],
        external_ips: vec![addr("203.0.113.1")],
        load_balancer_ips: vec![addr("198.51.100.1")],
        source_ranges: [].into(),
        ports: vec![PortDefinition { name: "".into(), proto: Proto::TCP, port: 80, node_port: Some(30_080) }],
        backends,
        affinity: None,
        internal_local: false,
        external_local: false,
    }
}

fn services(definition: &Definition) -> (Services, Assembled) {
    let mut services = Services::default();
    let own: Arc<[Addr]> = [addr("192.168.0.1"), addr("192.168.1.1")].into();
    services.set_addresses(own.clone(), own[..1].into());
    let assembled = update(&mut services, None, definition);
    (services, assembled)
}

fn update(services: &mut Services, old: Option<&Assembled>, definition: &Definition) -> Assembled {
    let new = Assembled::new(definition, old);
    new.unbuilt().for_each(|set| set.build());
    let mut changes = BTreeMap::new();
    Assembled::change(old, Some(&new), &mut changes);
    services.apply(&changes.into_iter().collect::<Vec<_>>());
    new
}

fn key(from: &str, to: &str, dport: u16) -> FlowKey {
    FlowKey { src: addr(from), dst: addr(to), sport: 4000, dport, proto: Proto::TCP }
}

fn target(services: &Services, key: &FlowKey, from: Origin) -> Target {
    match services.choose(key, from, NOW) {
        Choice::Backend(target) => target,
        other => panic!("{other:?}"),
    }
}

const CLIENT: &str = "10.65.0.200";
const FAR: &str = "172.16.0.1";

#[test]
fn every_address_leads_to_the_backend() {
    let (services, _) = services(&definition(vec![endpoint(1)]));
    for (to, port) in [("10.96.0.1", 80), ("203.0.113.1", 80), ("198.51.100.1", 80), ("192.168.0.1", 30_080)]
    {
        let found = target(&services, &key(CLIENT, to, port), Origin::Workload);
        assert_eq!(found, Target { addr: addr("10.65.0.1"), port: 8080, snat: false });
    }
    let none = |to, port| services.choose(&key(CLIENT, to, port), Origin::Workload, NOW);
    assert_eq!(none("192.168.1.1", 30_080), Choice::NotAService, "no node ports at this address");
    assert_eq!(none("192.168.0.1", 80), Choice::NotAService);
    assert_eq!(none("10.65.0.1", 80), Choice::NotAService);
    let udp = FlowKey { proto: Proto::UDP, ..key(CLIENT, "10.96.0.1", 80) };
    let refused = Choice::Refused(DropReason::NoServicePort);
    assert_eq!(services.choose(&udp, Origin::Workload, NOW), refused, "must not be routed on");
    assert_eq!(none("10.96.0.1", 81), refused);
}

#[test]
fn the_source_is_translated_where_the_answer_would_go_astray() {
    let near = Endpoint { local: true, ..endpoint(2) };
    for (backend, from, client, snat) in [
        (endpoint(1), Origin::Workload, CLIENT, false),
        (endpoint(1), Origin::Outside, FAR, true),
        (endpoint(1), Origin::Host, "192.168.0.1", true),
        (near.clone(), Origin::Outside, FAR, false),
        (near.clone(), Origin::Host, "192.168.0.1", false),
        (near, Origin::Workload, "10.65.0.2", true),
    ] {
        let (services, _) = services(&definition(vec![backend]));
        assert_eq!(target(&services, &key(client, "10.96.0.1", 80), from).snat, snat, "{from:?} {client}");
    }
}

#[test]
fn who_has_no_backend_is_refused_or_dropped() {
    let local = Definition { internal_local: true, external_local: true, ..definition(vec![endpoint(1)]) };
    let ask = |services: &Services, to, port, from| services.choose(&key(FAR, to, port), from, NOW);
    let (none, _) = services(&definition(vec![]));
    let refused = Choice::Refused(DropReason::NoBackend);
    assert_eq!(ask(&none, "10.96.0.1", 80, Origin::Workload), refused);
    assert_eq!(ask(&none, "192.168.0.1", 30_080, Origin::Outside), refused);
    let (elsewhere, _) = services(&local);
    let dropped = Choice::Refused(DropReason::NoLocalBackend);
    assert_eq!(ask(&elsewhere, "10.96.0.1", 80, Origin::Workload), dropped);
    assert_eq!(ask(&elsewhere, "192.168.0.1", 30_080, Origin::Outside), dropped);
    assert!(matches!(ask(&elsewhere, "203.0.113.1", 80, Origin::Workload), Choice::Backend(_)));
}

#[test]
fn a_load_balancers_address_is_for_those_who_may_use_it() {
    let ranges = ["172.16.0.0/12".parse().unwrap()];
    let (services, _) =
        services(&Definition { source_ranges: ranges.into(), ..definition(vec![endpoint(1)]) });
    let ask = |from, to| services.choose(&key(from, to, 80), Origin::Outside, NOW);
    assert!(matches!(ask(FAR, "198.51.100.1"), Choice::Backend(_)));
    assert_eq!(ask("8.8.8.8", "198.51.100.1"), Choice::Refused(DropReason::ServiceSourceRange));
    assert!(matches!(ask("8.8.8.8", "203.0.113.1"), Choice::Backend(_)), "only of load balancers");
}

#[test]
fn a_client_stays_with_its_backend_when_others_come() {
    let of = |n: u8| Definition { affinity: Some(60), ..definition((1..=n).map(endpoint).collect()) };
    let (mut services, mut assembled) = services(&of(3));
    services.set_affinity(Arc::new(Affinity::new(1024, [5, 6])));
    let clients: Vec<String> = (0..100).map(|n| format!("172.16.0.{n}")).collect();
    let ask = |services: &Services, now| -> Vec<Addr> {
        let of = |client: &String| match services.choose(&key(client, "10.96.0.1", 80), Origin::Outside, now)
        {
            Choice::Backend(target) => target.addr,
            other => panic!("{other:?}"),
        };
        clients.iter().map(of).collect()
    };
    let first = ask(&services, NOW);
    for n in 4..=40 {
        assembled = update(&mut services, Some(&assembled), &of(n));
    }
    assert_eq!(ask(&services, NOW), first);
    assert_ne!(ask(&services, NOW.plus(Nanos::from_secs(61))), first, "new backends get clients");
    // The first backend goes: its clients go elsewhere, all others stay.
    let before = ask(&services, NOW);
    let gone = Definition { backends: of(40).backends.split_off(1), ..of(40) };
    update(&mut services, Some(&assembled), &gone);
    for (was, is) in before.iter().zip(ask(&services, NOW)) {
        assert_eq!(*was != is, *was == endpoint(1).addr, "{was} to {is}");
    }
}

#[test]
fn what_did_not_change_is_kept() {
    let web = definition(vec![endpoint(1), endpoint(2)]);
    let (_, old) = services(&web);
    let same = Assembled::new(&web, Some(&old));
    let mut changes = BTreeMap::new();
    Assembled::change(Some(&old), Some(&same), &mut changes);
    assert!(changes.is_empty(), "{changes:?}");
    let ranged = Definition { source_ranges: ["10.0.0.0/8".parse().unwrap()].into(), ..web.clone() };
    let other = Assembled::new(&ranged, Some(&old));
    assert!(Arc::ptr_eq(&other.ports().next().unwrap().cluster, &old.ports().next().unwrap().cluster));
    assert_eq!(other.unbuilt().count(), 0, "its table is kept");
}

#[test]
fn flows_that_a_change_leaves_are_named() {
    let udp = |backends| {
        let mut web = definition(backends);
        web.ports[0].proto = Proto::UDP;
        web
    };
    let stale = |old: Option<&Definition>, new: Option<&Definition>, all: bool| {
        let mut stale = Stale::default();
        stale.note(old, new, |proto| all || proto == Proto::UDP);
        stale.settled()
    };
    let (two, one) = (udp(vec![endpoint(1), endpoint(2)]), udp(vec![endpoint(1)]));
    let flow = |to, dport| FlowKey { proto: Proto::UDP, ..key(CLIENT, to, dport) };
    let answer = |n: u8| FlowKey { sport: 8080, src: endpoint(n).addr, ..FlowKey::default() };
    let gone = stale(Some(&two), Some(&one), false);
    for (to, port) in [("10.96.0.1", 80), ("192.168.0.1", 30_080)] {
        assert!(gone.covers(&flow(to, port), &answer(2)));
        assert!(!gone.covers(&flow(to, port), &answer(1)), "another backend's");
    }
    assert!(!gone.covers(&flow("10.96.0.9", 80), &answer(2)), "another service's");
    let tcp = FlowKey { proto: Proto::TCP, ..flow("10.96.0.1", 80) };
    assert!(!gone.covers(&tcp, &answer(2)));

    let web = definition(two.backends.clone());
    assert!(stale(Some(&web), None, false).is_empty());
    assert!(stale(Some(&web), None, true).covers(&tcp, &answer(2)));
    let draining = Endpoint { ready: false, terminating: true, ..endpoint(2) };
    let still = udp(vec![endpoint(1), draining]);
    assert!(stale(Some(&two), Some(&still), false).is_empty(), "it serves till its end");

    let began = stale(None, Some(&one), false);
    let before = flow("10.96.0.1", 80);
    assert!(began.covers(&before, &before.reversed()));
    assert!(!began.covers(&before, &answer(1)), "translated already");
    let elsewhere = flow("10.65.1.1", 30_080);
    assert!(!began.covers(&elsewhere, &elsewhere.reversed()), "a node port is none of others'");
}

/// The endpoints that kube-proxy would take, by its `CategorizeEndpoints`.
fn twin(web: &Definition, local: bool) -> Vec<Addr> {
    let addrs = |those: &dyn Fn(&Endpoint) -> bool| -> Vec<Addr> {
        web.backends.iter().filter(|e| those(e) && !e.ports.is_empty()).map(|e| e.addr).collect()
    };
    let ready = match local {
        true => addrs(&|e| e.ready && e.local),
        false => addrs(&|e| e.ready && e.preferred),
    };
    match (ready.is_empty(), local) {
        (false, _) => ready,
        (true, true) => addrs(&|e| e.local && e.serving && e.terminating),
        (true, false) => addrs(&|e| e.serving && e.terminating),
    }
}

fn endpoints() -> impl Strategy<Value = Vec<Endpoint>> {
    let one = (1u8..30, any::<[bool; 6]>(), 1u32..4);
    vec(one, 0..12).prop_map(|all| {
        let unique: BTreeMap<u8, _> =
            all.into_iter().map(|(n, flags, weight)| (n, (flags, weight))).collect();
        let made = |(n, (flags, weight)): (u8, ([bool; 6], u32))| {
            let [ready, serving, terminating, local, preferred, has_port] = flags;
            Endpoint {
                ports: if has_port { [(0, 8080)].into() } else { [].into() },
                ready,
                serving,
                terminating,
                local,
                preferred,
                weight,
                ..endpoint(n)
            }
        };
        unique.into_iter().map(made).collect()
    })
}

proptest! {
    #[test]
    fn backends_are_those_of_the_twin(
        steps in vec((endpoints(), any::<[bool; 3]>()), 1..4), from in 0usize..3, clients in vec(0u32.., 20),
    ) {
        let from = [Origin::Workload, Origin::Host, Origin::Outside][from];
        let (mut services, mut assembled) = services(&definition(vec![]));
        services.set_affinity(Arc::new(Affinity::new(1024, [5, 6])));
        for (backends, [internal_local, external_local, sticky]) in steps {
            let affinity = sticky.then_some(60);
            let web = Definition { internal_local, external_local, affinity, ..definition(backends) };
            assembled = update(&mut services, Some(&assembled), &web);
            for (to, port, local) in [
                ("10.96.0.1", 80, internal_local),
                ("203.0.113.1", 80, external_local && from == Origin::Outside),
                ("192.168.0.1", 30_080, external_local && from == Origin::Outside),
            ] {
                let expected = twin(&web, local);
                for client in &clients {
                    let key = FlowKey { src: Addr::v4(client.to_be_bytes()), ..key(FAR, to, port) };
                    match services.choose(&key, from, NOW) {
                        Choice::Backend(target) => prop_assert!(expected.contains(&target.addr)),
                        other => {
                            let any = !twin(&web, false).is_empty()
                                || web.backends.iter().any(|e| !e.ports.is_empty() && e.ready);
                            let reason = if any { DropReason::NoLocalBackend } else { DropReason::NoBackend };
                            prop_assert_eq!(other, Choice::Refused(reason));
                            prop_assert!(expected.is_empty());
                        }
                    }
                }
            }
            // Step by step, and in one go, it comes to the same.
            let whole = Assembled::new(&web, None);
            prop_assert_eq!(
                services.frontends().keys().collect::<Vec<_>>(), whole.frontends().keys().collect::<Vec<_>>()
            );
            for (frontend, bound) in services.frontends() {
                let sockets = |port: &Port| -> Vec<Vec<_>> {
                    port.sets().map(|set| set.list().iter().map(|b| b.socket()).collect()).collect()
                };
                prop_assert_eq!(sockets(&bound.port), sockets(&whole.frontends()[frontend].port));
            }
        }
    }
}
