//! `dp capture`: packets into a pcapng file, each with what became of it.

use std::{
    fs::File,
    io::{self, BufWriter, Write},
    time::{SystemTime, UNIX_EPOCH},
};

use margay_api::dataplane::v1 as api;
use tokio::signal;

use super::{
    libpcap,
    pcapng::{Packet, Pcapng},
    watched::Watched,
};
use crate::{
    args::{DpCapture, Global, Way},
    command::conntrack::checked,
    exit::{Code, Failure, Outcome},
};

/// Captures until there is enough, or somebody interrupts.
pub async fn run(global: &Global, args: &DpCapture) -> Outcome {
    let keeps = |way| args.directions.contains(&way);
    let request = api::WatchRequest {
        filter: checked(&args.filter)?,
        program: libpcap::compile(args.pcap.as_deref())?,
        count: args.count.map_or(0, |count| count.get()),
        // Of those that pass nothing would be kept.
        dropped_only: args.directions == [Way::Drop],
        rx: keeps(Way::Rx),
        tx: keeps(Way::Tx),
        drop: keeps(Way::Drop),
        snap_length: args.snap_length.unwrap_or_default(),
        ..api::WatchRequest::default()
    };
    let mut watched = Watched::begin(global, "capture packets", request).await?;
    let name = args.write.display();
    let unwritten = |error: io::Error| {
        Failure::new(Code::Failed, format!("cannot write {name}"), error.to_string(), "name another file")
    };
    let to: Box<dyn Write> = match args.write.to_str() {
        Some("-") => Box::new(io::stdout().lock()),
        _ => Box::new(File::create(&args.write).map_err(unwritten)?),
    };
    let mut file = Pcapng::begin(BufWriter::new(to)).map_err(unwritten)?;
    file.flush().map_err(unwritten)?;
    let mut packets = 0u64;
    let stop = async {
        match args.duration {
            Some(duration) => tokio::time::sleep(duration).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(stop);
    let full = loop {
        let message = tokio::select! {
            message = watched.next() => message?,
            () = &mut stop => break false,
            _ = signal::ctrl_c() => break false,
        };
        let Some(message) = message else { break false };
        let wrote = write(&mut file, &message.packets, args.bytes.get(), &mut packets);
        match wrote.and_then(|full| file.flush().map(|()| full)) {
            Ok(true) => break true,
            Ok(false) => {}
            // Who reads along has seen enough.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(Code::Ok),
            Err(error) => return Err(unwritten(error)),
        }
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos() as u64;
    match file.end(watched.missed(), now) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(unwritten(error)),
        _ => {}
    }
    eprintln!("{packets} packets captured{}", if full { ", and the file is full" } else { "" });
    watched.confess();
    Ok(Code::Ok)
}

/// True: there is no room for more.
fn write(
    file: &mut Pcapng<BufWriter<Box<dyn Write>>>,
    packets: &[api::WatchedPacket],
    most: u64,
    written: &mut u64,
) -> io::Result<bool> {
    for packet in packets {
        let comment = comment(packet);
        for frame in &packet.frames {
            let about = frame.data.len() + comment.len() + 128;
            if file.written() + about as u64 > most {
                return Ok(true);
            }
            file.packet(&Packet {
                interface: &frame.interface,
                unix_nanos: frame.unix_nanos,
                inbound: match frame.direction.as_str() {
                    "rx" => Some(true),
                    "tx" => Some(false),
                    _ => None,
                },
                length: frame.length,
                data: &frame.data,
                comment: &format!("margay {}; {comment}", frame.direction),
            })?;
            *written += 1;
        }
    }
    Ok(false)
}

/// `number: 3; in: eth0; verdict: drop; reason: policy-denied; ...`
fn comment(packet: &api::WatchedPacket) -> String {
    let facts = packet.verdict.iter().map(|fact| format!("{}: {}", fact.name, fact.value));
    let first = [format!("number: {}", packet.number), format!("in: {}", packet.interface)];
    first.into_iter().chain(facts).collect::<Vec<_>>().join("; ")
}
