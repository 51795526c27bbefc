//! Between workloads of its own: every kind of packet that policy between them lets pass, and that it does not.

use std::{
    io::{self, Write as _},
    net::IpAddr,
    time::Duration,
};

use margay_api::dataplane::v1 as api;
use serde::Serialize;
use tokio::{
    signal::unix::{SignalKind, signal},
    task::JoinSet,
};

use super::{
    ATTEMPT, pair,
    speech::{How, ask},
    workloads::{CLOSED, OPEN, Role, Workloads},
};
use crate::{
    args::{Global, Pair},
    command::{dp::tell, explain::rule_name},
    exit::{Code, Failure, Outcome},
    output::{Cell, Format, Output, Progress, Table, Tone},
};

/// How long an answer may take that is expected.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long one is waited for that is not: a first segment is sent again after a second.
const SILENCE: Duration = Duration::from_millis(1500);

/// Who speaks to the server, how, and whether the test's own policy lets it.
const CASES: [(Role, How, bool); 7] = [
    (Role::Client, How::Tcp(OPEN), true),
    (Role::Client, How::Tcp(CLOSED), false),
    (Role::Client, How::Udp(OPEN), true),
    (Role::Client, How::Udp(CLOSED), false),
    (Role::Client, How::Icmp, true),
    (Role::Stranger, How::Tcp(OPEN), false),
    (Role::Stranger, How::Icmp, false),
];

/// Makes the workloads, tests, and removes them, however the test ends.
pub async fn run(global: &Global, format: Format, out: &mut Output) -> Outcome {
    if !nix::unistd::geteuid().is_root() {
        return Err(Failure::usage(
            format!("cannot {ATTEMPT}"),
            "without endpoints it makes workloads of its own, and network namespaces need root",
            "run it as root, or name endpoints: --from, --to, --proto",
        ));
    }
    if global.server.is_some() {
        return Err(Failure::usage(
            format!("cannot {ATTEMPT}"),
            "--server is another machine's agent, and the test makes workloads on this one",
            "run it on the node, with --agent, or name endpoints: --from, --to, --proto",
        ));
    }
    let mut end = interruption()?;
    let mut workloads = Workloads::prepare(global).await?;
    let tested = tokio::select! {
        tested = test(global, &mut workloads) => tested,
        _ = end.recv() => Err(Failure::new(
            Code::Failed,
            format!("cannot {ATTEMPT}"),
            "it was interrupted",
            "what it had made is removed: test again",
        )),
    };
    let cleared = workloads.clear(global).await;
    let report = tested?;
    report.show(format, out)?;
    cleared?;
    Ok(if report.passed() { Code::Ok } else { Code::Problems })
}

async fn test(global: &Global, workloads: &mut Workloads) -> Outcome<Report> {
    let progress = Progress::start("Making workloads");
    workloads.make(global).await?;
    drop(progress);
    let _progress = Progress::start("Testing");
    let asked = asked(workloads);
    let mut expected = vec![];
    for asked in &asked {
        expected.push(pair::expected(global, &asked.pair).await?);
    }
    let mut under_way = JoinSet::new();
    for (at, (asked, expected)) in asked.iter().zip(&expected).enumerate() {
        let patience = if expected.result.verdict == "allow" { PATIENCE } else { SILENCE };
        let netns = &workloads.of(asked.role).netns;
        let answered = ask(netns, asked.from, asked.to, asked.how, patience).map_err(|error| {
            Failure::new(
                Code::Failed,
                format!("cannot {ATTEMPT}"),
                error.to_string(),
                "check the limits of this process",
            )
        })?;
        under_way.spawn(async move { (at, answered.await) });
    }
    let mut answered = vec![false; asked.len()];
    while let Some(done) = under_way.join_next().await {
        let (at, came) = done.map_err(io::Error::other)?;
        answered[at] = came;
    }
    let mut report = Report { node: workloads.node.clone(), generation: workloads.generation, tests: vec![] };
    for ((asked, expected), answered) in asked.iter().zip(expected).zip(answered) {
        let mut tested = Tested::new(asked, &expected.result, answered);
        if !tested.passed {
            let proto = pair::proto(&asked.pair)?;
            tested.story = Some(pair::send(global, &asked.pair, proto, (asked.from, asked.to)).await?);
        }
        report.tests.push(tested);
    }
    Ok(report)
}

/// One question that a workload asks the server.
struct Asked {
    role: Role,
    how: How,
    intended: bool,
    from: IpAddr,
    to: IpAddr,
    /// As policy is asked for it.
    pair: Pair,
}

fn asked(workloads: &Workloads) -> Vec<Asked> {
    let server = &workloads.of(Role::Server).addresses;
    let each = CASES.iter().flat_map(|(role, how, intended)| {
        let addresses = workloads.of(*role).addresses.iter().zip(server);
        addresses.map(|(from, to)| {
            let (proto, port) = match how {
                How::Tcp(port) => ("tcp", Some(*port)),
                How::Udp(port) => ("udp", Some(*port)),
                How::Icmp if from.is_ipv4() => ("icmp", None),
                How::Icmp => ("icmpv6", None),
            };
            let pair = Pair {
                from: from.to_string(),
                to: to.to_string(),
                proto: proto.to_owned(),
                port,
                sport: 61001,
            };
            Asked { role: *role, how: *how, intended: *intended, from: *from, to: *to, pair }
        })
    });
    each.collect()
}

/// The first of the signals that end a program.
fn interruption() -> Outcome<tokio::sync::mpsc::Receiver<()>> {
    let (tell, told) = tokio::sync::mpsc::channel(1);
    for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
        let mut signal = signal(kind)?;
        let tell = tell.clone();
        tokio::spawn(async move {
            while signal.recv().await.is_some() {
                // Once is enough.
                let _ = tell.try_send(());
            }
        });
    }
    Ok(told)
}

#[derive(Serialize)]
struct Report {
    node: String,
    generation: u64,
    tests: Vec<Tested>,
}

#[derive(Serialize)]
struct Tested {
    from: &'static str,
    to: &'static str,
    protocol: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    source: IpAddr,
    destination: IpAddr,
    /// By policy and routes: allow or deny.
    expected: String,
    /// What decided.
    by: String,
    /// allow: an answer came.
    seen: &'static str,
    passed: bool,
    /// Another policy than the test's own decides otherwise than that.
    overruled: bool,
    #[serde(skip)]
    story: Option<api::WatchedPacket>,
}

impl Tested {
    fn new(asked: &Asked, expected: &api::ExplainResponse, answered: bool) -> Self {
        let seen = if answered { "allow" } else { "deny" };
        Self {
            from: asked.role.name(),
            to: Role::Server.name(),
            protocol: asked.pair.proto.clone(),
            port: asked.pair.port,
            source: asked.from,
            destination: asked.to,
            expected: expected.verdict.clone(),
            by: decision(expected),
            seen,
            passed: expected.verdict == seen,
            overruled: (expected.verdict == "allow") != asked.intended,
            story: None,
        }
    }

    fn packet(&self) -> String {
        match self.port {
            Some(port) => format!("{} {} > {}:{port}", self.protocol, self.from, self.to),
            None => format!("{} {} > {}", self.protocol, self.from, self.to),
        }
    }
}

/// The direction that denies, or the last that allows.
fn decision(of: &api::ExplainResponse) -> String {
    let directions = [("egress", &of.egress), ("ingress", &of.ingress)];
    let present = directions.iter().filter_map(|(way, direction)| Some((way, direction.as_ref()?)));
    let decides = |verdict: &str| present.clone().rfind(|(_, direction)| direction.verdict == verdict);
    match decides("deny").or_else(|| decides("allow")) {
        Some((way, direction)) => {
            let rule = rule_name(u32::try_from(direction.rule).ok());
            let policy = if direction.policy.is_empty() { "no policy" } else { &direction.policy };
            match direction.tier.as_str() {
                "" => format!("{way} {policy} rule {rule}"),
                tier => format!("{way} {tier} {policy} rule {rule}"),
            }
        }
        None => String::new(),
    }
}

impl Report {
    fn passed(&self) -> bool {
        self.tests.iter().all(|tested| tested.passed)
    }

    fn show(&self, format: Format, out: &mut Output) -> io::Result<()> {
        match format {
            Format::Table | Format::Wide => self.text(format == Format::Wide, out),
            Format::Yaml => out.yaml(self),
            Format::Json => out.json(self),
            Format::Jsonl => self.tests.iter().try_for_each(|tested| {
                let line = serde_json::to_string(tested).map_err(io::Error::other)?;
                writeln!(out, "{line}")
            }),
        }
    }

    fn text(&self, wide: bool, out: &mut Output) -> io::Result<()> {
        let mut heads = vec!["RESULT", "PACKET", "FROM", "TO", "EXPECTED", "SEEN"];
        heads.extend(wide.then_some("BY"));
        let mut table = Table::new(heads);
        for tested in &self.tests {
            let result = if tested.passed { ("OK", Tone::Good) } else { ("FAIL", Tone::Bad) };
            let mut row: Vec<Cell> = vec![
                Cell::toned(result.0, result.1),
                tested.packet().into(),
                tested.source.into(),
                tested.destination.into(),
                tested.expected.as_str().into(),
                tested.seen.into(),
            ];
            row.extend(wide.then(|| tested.by.as_str().into()));
            table.row(row);
        }
        table.print(out)?;
        for tested in &self.tests {
            if let Some(story) = &tested.story {
                writeln!(out, "\n{}: expected {}, by {}", tested.packet(), tested.expected, tested.by)?;
                tell(story, out)?;
            }
        }
        let passed = self.tests.iter().filter(|tested| tested.passed).count();
        let (all, node, generation) = (self.tests.len(), &self.node, self.generation);
        writeln!(out, "\n{passed} of {all} as expected, on {node}, by generation {generation}")?;
        for tested in self.tests.iter().filter(|tested| tested.overruled) {
            let (packet, verdict, by) = (tested.packet(), &tested.expected, &tested.by);
            writeln!(out, "note: {packet}: {verdict} by {by}, before the test's own policy")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_decides_is_the_direction_that_denies() {
        let direction = |verdict: &str, tier: &str, policy: &str, rule| {
            Some(api::Direction {
                verdict: verdict.into(),
                tier: tier.into(),
                policy: policy.into(),
                rule,
                ..Default::default()
            })
        };
        let of = |egress, ingress| decision(&api::ExplainResponse { egress, ingress, ..Default::default() });
        let (allows, denies) =
            (direction("allow", "default", "a/b", 2), direction("deny", "default", "c/d", -1));
        assert_eq!(of(allows.clone(), denies.clone()), "ingress default c/d rule default");
        assert_eq!(of(denies, None), "egress default c/d rule default");
        assert_eq!(of(None, allows), "ingress default a/b rule 2");
        assert_eq!(of(direction("deny", "", "profile kns.x", -1), None), "egress profile kns.x rule default");
        assert_eq!(of(direction("deny", "", "", -1), None), "egress no policy rule default");
        assert_eq!(of(None, None), "");
    }
}
