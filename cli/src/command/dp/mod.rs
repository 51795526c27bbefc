//! `dp`: what the dataplane counts. One look, or one after the other.

mod adjacencies;
mod buffers;
mod capture;
mod drops;
mod fib;
mod hist;
mod interfaces;
mod libpcap;
mod neighbours;
mod pcapng;
mod queues;
mod runtime;
mod services;
mod trace;
mod tunnels;
mod watched;

use std::io::Write as _;

use margay_api::dataplane::v1::dataplane_client::DataplaneClient;
use tokio::time::{MissedTickBehavior, interval};
use tonic::{Status, transport::Channel};

pub use self::{
    adjacencies::Adjacencies,
    buffers::Buffers,
    drops::Drops,
    fib::{lookup, routes},
    hist::Histograms,
    interfaces::Interfaces,
    neighbours::Neighbours,
    queues::Queues,
    runtime::Runtime,
    services::Services,
    tunnels::Tunnels,
};
pub use self::{
    capture::run as capture,
    trace::{run as trace, story as tell},
    watched::Watched,
};
use crate::{
    args::{Global, Look},
    client,
    exit::{Code, Failure, Outcome},
    output::{Format, Output, View},
};

/// Clears the screen and goes to its top.
const CLEAR: &str = "\x1b[2J\x1b[H";

/// Something that the dataplane counts from its start on.
pub trait Counted: View + Sized {
    /// What to call it in an error.
    const WHAT: &'static str;

    /// Asks the dataplane.
    async fn fetch(dataplane: &mut DataplaneClient<Channel>) -> Result<Self, Status>;

    /// What was counted after `earlier`.
    fn since(&self, earlier: &Self) -> Self;
}

/// Shows it once, or at every interval what the interval added.
pub async fn show<C: Counted>(global: &Global, look: &Look, out: &mut Output) -> Outcome {
    show_some::<C>(global, look, Ok, out).await
}

/// As [`show`], of what `only` leaves of it.
pub async fn show_some<C: Counted>(
    global: &Global,
    look: &Look,
    only: impl Fn(C) -> Outcome<C>,
    out: &mut Output,
) -> Outcome {
    let attempt = format!("read the dataplane's {}", C::WHAT);
    let mut dataplane = client::dataplane(global).await?;
    let mut total = only(client::answer(global.timeout, &attempt, C::fetch(&mut dataplane)).await?)?;
    let Some(period) = look.watch else {
        out.show(&total, look.output)?;
        return Ok(Code::Ok);
    };

    frame(&total, look.output, out)?;
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        let now = only(client::answer(global.timeout, &attempt, C::fetch(&mut dataplane)).await?)?;
        frame(&now.since(&total), look.output, out)?;
        total = now;
    }
}

/// Shows what is fetched, once or at every interval.
pub async fn repeat<V: View>(
    look: &Look,
    out: &mut Output,
    mut fetch: impl AsyncFnMut() -> Outcome<V>,
) -> Outcome {
    let first = fetch().await?;
    let Some(period) = look.watch else {
        out.show(&first, look.output)?;
        return Ok(Code::Ok);
    };
    frame(&first, look.output, out)?;
    let mut ticks = interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    loop {
        ticks.tick().await;
        frame(&fetch().await?, look.output, out)?;
    }
}

/// One picture of several: alone on a screen, apart in a file.
fn frame<V: View>(view: &V, format: Format, out: &mut Output) -> Outcome<()> {
    let table = matches!(format, Format::Table | Format::Wide);
    if table && out.is_terminal() {
        write!(out, "{CLEAR}")?;
    }
    if format == Format::Yaml {
        writeln!(out, "---")?;
    }
    out.show(view, format)?;
    if table && !out.is_terminal() {
        writeln!(out)?;
    }
    out.flush()?;
    Ok(())
}

/// What is of the worker that is asked for; of all where none is.
fn one_of<T>(workers: Vec<T>, number: impl Fn(&T) -> u32, asked: Option<u32>) -> Outcome<Vec<T>> {
    let Some(asked) = asked else { return Ok(workers) };
    let last = workers.iter().map(&number).max();
    let of_it: Vec<T> = workers.into_iter().filter(|worker| number(worker) == asked).collect();
    if of_it.is_empty() {
        let there = last.map_or_else(|| "there is none".to_owned(), |last| format!("the last is {last}"));
        let next = "see which there are with `margayctl status`";
        return Err(Failure::new(Code::NotFound, format!("there is no worker {asked}"), there, next));
    }
    Ok(of_it)
}

/// What a counter grew by. One that shrank was started anew.
pub fn grown(now: u64, earlier: u64) -> u64 {
    now.checked_sub(earlier).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use super::grown;

    #[test]
    fn a_counter_that_was_reset_counts_from_zero() {
        assert_eq!((grown(7, 5), grown(5, 5), grown(3, 5)), (2, 0, 3));
    }
}
