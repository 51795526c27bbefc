//! The agent's API over TCP: who has which certificate may what, and every write is noted down.

mod rig;

use margay_agent::{
    access::{Audit, Door, Files},
    control,
    datastore::{Datastore, Expected, Memory, Reach, Relays, Remote, Run, StoreError, TlsFiles, Write},
    ipam::{Ipam, Request as Wanted},
    model::{Key, Kind, Resource, scalar::Timestamp},
    web::Entrance,
};
use margay_api::control::v1::{
    ApplyRequest, AssignAddressesRequest, DeleteRequest, GetBgpRequest, GetRequest, GetStatusRequest,
    SetLogRequest, WatchRequest, control_client::ControlClient, set_log_request::Process,
};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose,
    IsCa, KeyPair,
};
use rig::{EAGER, Relayed, Running};
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use serde_json::{Value, json};
use std::{fs, net::SocketAddr, path::Path, sync::Arc};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsConnector;
use tonic::{
    Code,
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};

/// Somebody who signs.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(vec![]).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// A certificate and its key.
    fn signs(&self, subject: &[(DnType, &str)], purpose: ExtendedKeyUsagePurpose) -> (String, String) {
        let mut params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        params.extended_key_usages = vec![purpose];
        params.distinguished_name = DistinguishedName::new();
        for (kind, value) in subject {
            params.distinguished_name.push(kind.clone(), *value);
        }
        let pair = KeyPair::generate().unwrap();
        (params.signed_by(&pair, &self.0).unwrap().pem(), pair.serialize_pem())
    }

    fn caller(&self, name: &str, role: &str, namespace: Option<&str>) -> (String, String) {
        let (role, namespace) = (format!("margay:{role}"), namespace.map(|of| format!("namespace:{of}")));
        let mut subject = vec![(DnType::CommonName, name), (DnType::OrganizationName, role.as_str())];
        subject.extend(namespace.as_deref().map(|of| (DnType::OrganizationalUnitName, of)));
        self.signs(&subject, ExtendedKeyUsagePurpose::ClientAuth)
    }

    /// Files of a server, which trusts whom this one signs.
    fn serves(&self, dir: &Path) -> Files {
        let (certificate, key) =
            self.signs(&[(DnType::CommonName, "agent")], ExtendedKeyUsagePurpose::ServerAuth);
        // As those who renew certificates do: another file in the place of the one before.
        let file = |name: &str, text: &str| {
            let (path, new) = (dir.join(name), dir.join(format!("{name}.new")));
            fs::write(&new, text).unwrap();
            fs::rename(&new, &path).unwrap();
            path
        };
        Files {
            certificate: file("server.crt", &certificate),
            key: file("server.key", &key),
            client_ca: file("ca.crt", &self.0.pem()),
        }
    }
}

/// A connection with this certificate to a server that `trusted` has signed.
async fn connect(
    at: SocketAddr,
    trusted: &Authority,
    identity: Option<&(String, String)>,
) -> Result<ControlClient<Channel>, tonic::transport::Error> {
    let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(trusted.0.pem()));
    if let Some((certificate, key)) = identity {
        tls = tls.identity(Identity::from_pem(certificate, key));
    }
    let endpoint = Endpoint::from_shared(format!("https://{at}")).unwrap().tls_config(tls).unwrap();
    endpoint.connect().await.map(ControlClient::new)
}

/// Whether somebody answers: TLS 1.3 tells a client that it is refused only when it asks.
async fn answers(at: SocketAddr, trusted: &Authority, identity: Option<&(String, String)>) -> bool {
    match connect(at, trusted, identity).await {
        Ok(mut client) => {
            client.get(GetRequest { kind: "tier".into(), ..GetRequest::default() }).await.is_ok()
        }
        Err(_) => false,
    }
}

fn policy(namespace: &str) -> Value {
    json!({"apiVersion": "projectcalico.org/v3", "kind": "NetworkPolicy",
           "metadata": {"name": "web", "namespace": namespace}, "spec": {"selector": "all()"}})
}

fn pool() -> Value {
    json!({"apiVersion": "projectcalico.org/v3", "kind": "IPPool", "metadata": {"name": "pods"},
           "spec": {"cidr": "10.0.0.0/16"}})
}

fn endpoint(node: &str) -> Value {
    json!({"apiVersion": "projectcalico.org/v3", "kind": "WorkloadEndpoint",
           "metadata": {"name": format!("{node}-k8s-web-eth0"), "namespace": "shop"},
           "spec": {"node": node, "orchestrator": "k8s", "pod": "web", "endpoint": "eth0",
                    "interfaceName": "cali1", "ipNetworks": ["10.0.0.1/32"]}})
}

/// The pool's block of this prefix, with nothing given.
fn block(cidr: &str, node: &str) -> Value {
    let addresses: Vec<usize> = (0..64).collect();
    json!({"apiVersion": "projectcalico.org/v3", "kind": "IPAMBlock", "metadata": {"name": cidr.replace(['.', '/'], "-")},
           "spec": {"cidr": cidr, "affinity": format!("host:{node}"), "allocations": vec![Value::Null; 64],
                    "unallocated": addresses}})
}

/// As an agent does that keeps what agents keep.
async fn claim(client: &mut ControlClient<Channel>, block: &Value) -> Code {
    let request = ApplyRequest { objects: vec![block.to_string()], agent: true, ..ApplyRequest::default() };
    client.apply(request).await.map_or_else(|status| status.code(), |_| Code::Ok)
}

async fn apply(client: &mut ControlClient<Channel>, objects: &[Value]) -> Code {
    let objects = objects.iter().map(Value::to_string).collect();
    let request = ApplyRequest { objects, ..ApplyRequest::default() };
    client.apply(request).await.map_or_else(|status| status.code(), |_| Code::Ok)
}

async fn get(client: &mut ControlClient<Channel>, kind: &str, namespace: &str) -> Code {
    let request = GetRequest { kind: kind.into(), namespace: namespace.into(), ..GetRequest::default() };
    client.get(request).await.map_or_else(|status| status.code(), |_| Code::Ok)
}

/// An agent that also listens here, and its audit log.
async fn serve(dir: &Path, files: Files) -> (Running, SocketAddr) {
    let audit = Audit::to(&dir.join("audit.jsonl")).unwrap();
    let (store, socket, dataplane) =
        (Arc::new(Memory::new()), dir.join("agent.sock"), dir.join("dataplane.sock"));
    let running = Running::audited("node-a", store, &socket, &dataplane, audit).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let door = Door::tls(listener, files).unwrap();
    tokio::spawn(control::serve(running.agent.clone(), door));
    (running, at)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_says_what_its_owner_may() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new();
    let (running, at) = serve(dir.path(), ca.serves(dir.path())).await;
    let client = async |name: &str, role: &str, namespace: Option<&str>| {
        connect(at, &ca, Some(&ca.caller(name, role, namespace))).await.unwrap()
    };
    use Code::{Ok as Done, PermissionDenied as No};

    let mut admin = client("root", "admin", None).await;
    assert_eq!(apply(&mut admin, &[pool(), policy("test")]).await, Done);
    let mut viewer = client("vera", "viewer", None).await;
    assert_eq!(
        (get(&mut viewer, "ippool", "").await, apply(&mut viewer, &[policy("shop")]).await),
        (Done, No)
    );
    assert!(viewer.get_status(GetStatusRequest {}).await.is_ok());
    let louder = SetLogRequest { process: Process::Agent.into(), filter: "debug".into() };
    assert_eq!(viewer.set_log(louder.clone()).await.unwrap_err().code(), No);

    let mut operator = client("olaf", "operator", None).await;
    assert_eq!(
        (apply(&mut operator, &[policy("shop")]).await, apply(&mut operator, &[pool()]).await),
        (Done, No)
    );
    assert_eq!(apply(&mut operator, &[policy("shop"), pool()]).await, No, "all or nothing");
    let addresses =
        AssignAddressesRequest { handle: "h".into(), num_ipv4: 1, ..AssignAddressesRequest::default() };
    assert_eq!(operator.assign_addresses(addresses).await.unwrap_err().code(), No);
    assert_eq!(operator.set_log(louder.clone()).await.unwrap_err().code(), No);
    assert!(admin.set_log(louder).await.is_ok());

    let mut confined = client("shopkeeper", "operator", Some("shop")).await;
    assert_eq!(
        (apply(&mut confined, &[policy("shop")]).await, apply(&mut confined, &[policy("test")]).await),
        (Done, No)
    );
    assert_eq!(
        (get(&mut confined, "netpol", "shop").await, get(&mut confined, "netpol", "").await),
        (Done, No)
    );
    assert_eq!(get(&mut confined, "ippool", "").await, No);
    assert_eq!(confined.get_status(GetStatusRequest {}).await.unwrap_err().code(), No);
    assert_eq!(confined.watch(WatchRequest::default()).await.unwrap_err().code(), No);
    let deletion = |namespace: &str| DeleteRequest {
        kind: "netpol".into(),
        namespace: namespace.into(),
        name: "web".into(),
        ..DeleteRequest::default()
    };
    assert_eq!(confined.delete(deletion("test")).await.unwrap_err().code(), No);
    assert!(confined.delete(deletion("shop")).await.is_ok());

    let mut node = client("node-b", "node", None).await;
    assert_eq!(
        (apply(&mut node, &[endpoint("node-b")]).await, apply(&mut node, &[endpoint("node-a")]).await),
        (Done, No)
    );
    assert_eq!(apply(&mut node, &[policy("shop")]).await, No);
    assert_eq!(apply(&mut node, &[endpoint("node-b")]).await, Done, "again");

    let mut other = client("node-c", "node", None).await;
    let (own, foreign) = (block("10.0.3.0/26", "node-b"), block("10.0.3.0/26", "node-c"));
    assert_eq!((claim(&mut node, &own).await, claim(&mut other, &foreign).await), (Done, No));
    assert_eq!(claim(&mut other, &own).await, No, "not for another node either");
    for (cidr, why) in [("10.0.4.0/25", "of another size"), ("10.9.0.0/26", "of no pool")] {
        assert_eq!(claim(&mut other, &block(cidr, "node-c")).await, Code::InvalidArgument, "{why}");
    }
    let gone = DeleteRequest {
        kind: "ipamblock".into(),
        name: "10-0-3-0-26".into(),
        agent: true,
        ..DeleteRequest::default()
    };
    assert_eq!(other.delete(gone.clone()).await.unwrap_err().code(), No);
    assert!(node.delete(gone).await.is_ok());

    // On this machine's socket it is root, or whoever runs the test: the agent's own user.
    assert_eq!(apply(&mut running.client().await, &[pool()]).await, Done);

    let log = fs::read_to_string(dir.path().join("audit.jsonl")).unwrap();
    let lines: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let count = |caller: &str, outcome: &str| {
        lines.iter().filter(|line| line["caller"] == caller && line["outcome"] == outcome).count()
    };
    assert_eq!((count("root", "created"), count("olaf", "created"), count("olaf", "refused")), (2, 1, 4));
    assert!(lines.iter().any(|line| line["verb"] == "set log" && line["request"] == "agent \"debug\""));
    assert_eq!(
        (count("vera", "refused"), count("shopkeeper", "deleted"), count("shopkeeper", "refused")),
        (2, 1, 2)
    );
    assert_eq!(
        (count("node-b", "created"), count("node-b", "unchanged"), count("node-b", "refused")),
        (2, 1, 2)
    );
    assert!(
        lines
            .iter()
            .any(|line| line["caller"].as_str().unwrap().starts_with("user ") && line["role"] == "admin")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_get_no_connection_and_renewed_certificates_need_no_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (ca, other) = (Authority::new(), Authority::new());
    let (_running, at) = serve(dir.path(), ca.serves(dir.path())).await;
    let known = ca.caller("root", "admin", None);
    assert!(answers(at, &ca, Some(&known)).await);
    assert!(!answers(at, &ca, None).await, "without a certificate");
    assert!(!answers(at, &ca, Some(&other.caller("root", "admin", None))).await, "of another authority");
    let nobody = ca.signs(&[(DnType::CommonName, "root")], ExtendedKeyUsagePurpose::ClientAuth);
    assert!(!answers(at, &ca, Some(&nobody)).await, "without a role");
    let server = ca.signs(
        &[(DnType::CommonName, "root"), (DnType::OrganizationName, "margay:admin")],
        ExtendedKeyUsagePurpose::ServerAuth,
    );
    assert!(!answers(at, &ca, Some(&server)).await, "a server's is no caller's");
    let plain = Endpoint::from_shared(format!("http://{at}")).unwrap().connect().await;
    let answered = match plain {
        Ok(channel) => ControlClient::new(channel).get_status(GetStatusRequest {}).await.is_ok(),
        Err(_) => false,
    };
    assert!(!answered, "without TLS");

    // Files that are no good change nothing; good ones count from the next connection on.
    fs::write(dir.path().join("server.crt"), "half a certif").unwrap();
    assert!(answers(at, &ca, Some(&known)).await);
    other.serves(dir.path());
    assert!(answers(at, &other, Some(&other.caller("root", "admin", None))).await);
    assert!(!answers(at, &ca, Some(&known)).await && !answers(at, &other, Some(&known)).await);
}

#[tokio::test]
async fn files_that_are_no_good_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let files = Authority::new().serves(dir.path());
    let refused = async |files: Files| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Door::tls(listener, files).err().unwrap().to_string()
    };
    let missing = refused(Files { key: dir.path().join("none"), ..files.clone() }).await;
    assert!(missing.contains("none: No such file"), "{missing}");
    let swapped = refused(Files { certificate: files.key.clone(), ..files.clone() }).await;
    assert!(swapped.contains("server.key holds no certificate in PEM"), "{swapped}");
    let elsewhere = tempfile::tempdir().unwrap();
    let key = Authority::new().serves(elsewhere.path()).key;
    let mixed = refused(Files { key, ..files }).await;
    assert!(mixed.contains("cannot be used"), "{mixed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_is_shown_beyond_loopback_to_those_who_may_see_all() {
    let dir = tempfile::tempdir().unwrap();
    let running = Running::start(
        "a",
        Arc::new(Memory::new()),
        &dir.path().join("agent.sock"),
        &dir.path().join("dp.sock"),
    )
    .await;
    let (ours, others) = (Authority::new(), Authority::new());
    let files = ours.serves(dir.path());
    let at: SocketAddr = "0.0.0.0:0".parse().unwrap();
    let on_loopback = Entrance::open("127.0.0.1:0".parse().unwrap(), Some(files.clone())).await;
    assert!(on_loopback.err().unwrap().to_string().contains("no certificates are used"));
    let entrance = Entrance::open(at, Some(files)).await.unwrap();
    let at = SocketAddr::new([127, 0, 0, 1].into(), entrance.address().port());
    let page = tokio::spawn(margay_agent::web::serve(running.agent.clone(), entrance));

    let page_for = async |identity: Option<&(String, String)>| -> Option<String> {
        let mut stream = browse(at, &ours, identity).await.ok()?;
        // Whatever name it has: a certificate is of a name already.
        stream.write_all(b"GET / HTTP/1.1\r\nHost: node-a\r\nConnection: close\r\n\r\n").await.ok()?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.ok()?;
        Some(answer)
    };
    let viewer = page_for(Some(&ours.caller("ann", "viewer", None))).await.unwrap();
    assert!(viewer.starts_with("HTTP/1.1 200") && viewer.contains("<title>Margay</title>"), "{viewer}");
    let confined = page_for(Some(&ours.caller("bob", "viewer", Some("shop")))).await.unwrap();
    assert!(
        confined.starts_with("HTTP/1.1 403") && confined.contains("may not see all objects"),
        "{confined}"
    );
    assert_eq!(page_for(None).await, None);
    assert_eq!(page_for(Some(&others.caller("eve", "admin", None))).await, None);
    page.abort();
}

/// As a browser does: HTTP/1.1, and a certificate if there is one.
async fn browse(
    at: SocketAddr,
    trusted: &Authority,
    identity: Option<&(String, String)>,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(trusted.0.pem().as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_root_certificates(roots);
    let mut config = match identity {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
            config.with_client_auth_cert(chain, key).unwrap()
        }
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let stream = TcpStream::connect(at).await?;
    TlsConnector::from(Arc::new(config)).connect(at.ip().into(), stream).await
}

/// A node that follows the relay with a certificate that `signer` has signed.
fn node(name: &str, dir: &Path, at: SocketAddr, trusted: &Authority, signer: &Authority) -> Remote {
    let (certificate, key) = signer.caller(name, "node", None);
    let file = |what: &str, text: &str| {
        let path = dir.join(format!("{name}.{what}"));
        fs::write(&path, text).unwrap();
        path
    };
    let files = TlsFiles {
        certificate: file("crt", &certificate),
        key: file("key", &key),
        ca: file("ca", &trusted.0.pem()),
    };
    let addresses = vec![format!("https://{at}")];
    let relays = Relays { addresses, files: Some(files), node: Some(name.into()) };
    Remote::with_snapshot(Reach::Relays(relays), None, EAGER)
}

fn write(object: &Value, expected: Expected) -> Write {
    let mut resource = Resource::from_json(&object.to_string()).unwrap();
    resource.set_defaults();
    Write::Put { key: resource.key(), json: resource.to_json().into(), expected }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_tells_a_node_what_it_needs_and_takes_what_is_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let ca = Authority::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    let door = Door::tls(listener, ca.serves(dir.path())).unwrap();
    let relay = Relayed::at(Arc::new(Memory::new()), dir.path(), None, door);
    let mut admin = connect(at, &ca, Some(&ca.caller("root", "admin", None))).await.unwrap();
    while !relay.relaying.relay.health().state().healthy {
        tokio::task::yield_now().await;
    }
    assert_eq!(apply(&mut admin, &[pool(), policy("shop"), policy("test")]).await, Code::Ok);

    let own = node("node-a", dir.path(), at, &ca, &ca);
    while own.list().await.is_err() {
        tokio::task::yield_now().await;
    }
    let kinds = async |store: &Remote| {
        let entries = store.list().await.unwrap().entries;
        entries.into_iter().map(|entry| entry.key.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&own).await, ["IPPool pods"], "no policy is its business");

    // It gets addresses for its workloads, which are its own business, and so is the policy then.
    let ipam = Ipam::new(Arc::new(node("node-a", dir.path(), at, &ca, &ca)), Arc::new(Timestamp::default));
    let mut wanted = Wanted::new("h", "node-a");
    wanted.v4 = 1;
    let assigned = loop {
        // Not before its connection has told it of the pool.
        match ipam.assign(&wanted).await {
            Ok(assigned) => break assigned,
            Err(error) => assert!(error.to_string().contains("connecting"), "{error}"),
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(assigned.len(), 1);
    own.commit(vec![write(&endpoint("node-a"), Expected::Nothing)], Run::Real).await.unwrap();
    let policy = Key::namespaced(Kind::NetworkPolicy, "shop", "web");
    while own.get(&policy).await.unwrap().is_none() {
        tokio::task::yield_now().await;
    }
    let told = kinds(&own).await;
    assert!(told.contains(&"WorkloadEndpoint shop/node-a-k8s-web-eth0".to_owned()), "{told:?}");
    assert!(!told.contains(&"NetworkPolicy test/web".to_owned()), "{told:?}");

    // What is not its own it may not write, nor is it told what another one needs.
    let others = own.commit(vec![write(&endpoint("node-b"), Expected::Nothing)], Run::Real).await;
    assert!(matches!(&others, Err(StoreError::Refused { code: Code::PermissionDenied, .. })), "{others:?}");
    let mut client = connect(at, &ca, Some(&ca.caller("node-a", "node", None))).await.unwrap();
    let request = WatchRequest { agent: true, for_node: "node-b".into(), ..WatchRequest::default() };
    assert_eq!(client.watch(request).await.unwrap_err().code(), Code::PermissionDenied);
    let status = client.get_status(GetStatusRequest {}).await.unwrap().into_inner().relay.unwrap();
    assert!(status.clients.iter().all(|client| client.node == "node-a" && client.objects > 0), "{status:?}");
    assert_eq!(client.get_bgp(GetBgpRequest {}).await.unwrap_err().code(), Code::Unimplemented);
    let waits = ApplyRequest { wait: true, ..ApplyRequest::default() };
    assert_eq!(client.apply(waits).await.unwrap_err().code(), Code::FailedPrecondition);

    // Nobody's certificate.
    let stranger = node("node-c", dir.path(), at, &ca, &Authority::new());
    let refused = loop {
        let reason = stranger.health().state().reason;
        if !reason.ends_with("connecting") {
            break reason;
        }
        tokio::task::yield_now().await;
    };
    assert!(stranger.list().await.is_err(), "{refused}");
}
