//! What the ends would notice: a middleman without faults, and one that loses, doubles or swaps bytes.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use wssgate_ws::Side;

use crate::{
    end::{World, live},
    life::{Ending, Life},
    on_a_runtime,
    tunnel::{self, Kind, Stop, Tunnel},
    wire::{Reader, Stream, Writer, split},
};

/// What a middleman does to the bytes of one direction.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    None,
    Loses,
    Doubles,
    Swaps,
    /// Ends early, and as if it were over.
    Ends,
}

/// Behind how many bytes.
const PLACE: usize = 2000;

/// Lives that end in order, with enough to send for every fault to come into its place.
fn lives() -> impl Iterator<Item = Life> {
    let is_wanted = |life: &Life| {
        let sent = |side| life.content(side).map(|frame| frame.payload.len()).sum::<usize>();
        matches!(life.ending, Ending::Close(_))
            && life.complete
            && [Side::Client, Side::Server].into_iter().all(|side| sent(side) > 2 * PLACE)
    };
    (0..).map(Life::new).filter(is_wanted).take(10)
}

#[test]
fn every_fault_is_noticed_and_nothing_else() {
    for life in lives() {
        for fault in [Fault::None, Fault::Loses, Fault::Doubles, Fault::Swaps, Fault::Ends] {
            for from in [Side::Client, Side::Server] {
                let faults = faults_of(&life, fault, from);
                assert_eq!(faults.is_empty(), fault == Fault::None, "{fault:?}: {faults:?}");
            }
        }
    }
}

/// What both ends say of a life past a middleman with a fault in the bytes of one end.
fn faults_of(life: &Life, fault: Fault, from: Side) -> Vec<String> {
    // Nobody pauses.
    let world = World { stop: AtomicBool::new(true), ..World::default() };
    on_a_runtime(async {
        let (middle, ends) = past(fault, from);
        let ends = ends.map(|(side, (reader, writer))| {
            let world = &world;
            async move { world.note(0, side, live(world, life, side, reader, writer).await) }
        });
        let [client, server] = ends;
        tokio::join!(middle, client, server);
    });
    let ended = world.ended.iter().map(|count| count.load(Ordering::SeqCst)).sum::<u64>();
    let faults = world.faults.into_inner().unwrap();
    assert_eq!(ended + faults.len() as u64, 2);
    faults
}

/// An end that has not begun.
type End = (Side, (Reader, Writer));

/// A middleman, and the ends of a tunnel past it.
fn past(fault: Fault, from: Side) -> (impl Future<Output = ()>, [End; 2]) {
    let (client, from_client) = duplex(1 << 16);
    let (server, from_server) = duplex(1 << 16);
    let ends = [(client, Side::Client), (server, Side::Server)].map(|(stream, side)| {
        let stream: Box<dyn Stream> = Box::new(stream);
        (side, split(stream, side))
    });
    (pass(from_client, from_server, fault, from), ends)
}

/// Those that live long. What a fault does to the end of a half is seen by whoever hears it.
#[test]
fn every_fault_in_a_long_life_is_noticed_and_nothing_else() {
    let says_enough = |tunnel: &Tunnel| {
        [Side::Client, Side::Server].into_iter().all(|side| {
            let first = tunnel.content(side).take(FEW as usize);
            first.map(|frame| frame.payload.len()).sum::<usize>() > 2 * PLACE
        })
    };
    for kind in [Kind::Echo, Kind::HalfClient, Kind::HalfServer] {
        let tunnels = (0..).map(|id| Tunnel::new(id, id));
        let mut tunnels = tunnels.filter(|tunnel| tunnel.kind == kind && says_enough(tunnel));
        for fault in [Fault::None, Fault::Loses, Fault::Doubles, Fault::Swaps, Fault::Ends] {
            for from in [Side::Client, Side::Server] {
                let tunnel = tunnels.next().unwrap();
                let ends = ends_of(&tunnel, fault, from);
                let is_noticed = ends.iter().any(Result::is_err);
                assert_eq!(
                    is_noticed,
                    fault != Fault::None,
                    "{kind:?}, {fault:?}, {from:?}: {ends:?}"
                );
                let is_cut = ends.iter().all(|end| !matches!(end, Err(Stop::Fault(_))));
                assert_eq!(
                    is_cut,
                    matches!(fault, Fault::None | Fault::Ends),
                    "{fault:?}: {ends:?}"
                );
            }
        }
    }
}

/// Frames of each end that are sent in any case.
const FEW: u64 = 10;

/// What became of both ends of a tunnel past a middleman with a fault.
fn ends_of(tunnel: &Tunnel, fault: Fault, from: Side) -> [Result<(), Stop>; 2] {
    on_a_runtime(async {
        let (middle, [client, server]) = past(fault, from);
        let end = |(side, halves): End| tunnel::live(tunnel, side, halves, 1);
        let finish = async {
            while tunnel.progress.load(Ordering::Relaxed) < 2 * FEW && !tunnel.is_finishing() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            tunnel.finish();
        };
        tokio::join!(middle, end(client), end(server), finish);
    });
    [Side::Client, Side::Server].map(|side| tunnel.end(side).unwrap().how)
}

/// Passes bytes both ways until both directions are over.
async fn pass(client: DuplexStream, server: DuplexStream, fault: Fault, from: Side) {
    let (mut from_client, mut to_client) = tokio::io::split(client);
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let fault_of = |side| if side == from { fault } else { Fault::None };
    let up = copy(&mut from_client, &mut to_server, fault_of(Side::Client));
    let down = copy(&mut from_server, &mut to_client, fault_of(Side::Server));
    tokio::join!(up, down);
}

async fn copy(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    fault: Fault,
) {
    let (mut buffer, mut seen) = (vec![0; 4096], 0);
    while let Ok(len @ 1..) = from.read(&mut buffer).await {
        let mut bytes = buffer[..len].to_vec();
        let at = PLACE.checked_sub(seen);
        seen += len;
        if let Some(at) = at.filter(|at| at + 1 < len) {
            match fault {
                Fault::None => {}
                Fault::Loses => _ = bytes.remove(at),
                Fault::Doubles => bytes.insert(at, bytes[at]),
                // Of different ones.
                Fault::Swaps => match (at + 1..len).find(|&other| bytes[other] != bytes[at]) {
                    Some(other) => bytes.swap(at, other),
                    None => bytes[at] ^= 1,
                },
                Fault::Ends => break,
            }
        }
        if to.write_all(&bytes).await.is_err() {
            return;
        }
    }
    // The other end may be gone.
    let _ = to.shutdown().await;
}
