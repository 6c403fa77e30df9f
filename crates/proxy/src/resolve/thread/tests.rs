use super::*;

use std::net::{Ipv4Addr, UdpSocket};

use tokio::task::yield_now;
use tokio::time::timeout;
use wssgate_config::model;
use wssgate_dns::Name;

const GUARD: Duration = Duration::from_secs(20);

/// A resolver whose server takes questions and says nothing, and that server.
fn silent() -> (Arc<Resolver>, UdpSocket) {
    let server = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let servers = vec![server.local_addr().unwrap()];
    let model = model::Resolver { servers, valid: None, ipv4: true, ipv6: false };
    (Arc::new(Resolver::new(model, Arc::default())), server)
}

fn key() -> Key {
    Key::addresses(Name::new(b"a.test").unwrap())
}

type Answered = oneshot::Receiver<Told>;

fn board(flights: &Rc<Flights>, resolver: &Arc<Resolver>) -> Answered {
    let (told, answered) = oneshot::channel();
    flights.board(Arc::clone(resolver), key(), Some(told));
    answered
}

fn aloft(flights: &Flights) -> usize {
    flights.flights.borrow().len()
}

/// Lets all tasks do what they can.
async fn settle() {
    for _ in 0..100 {
        yield_now().await;
    }
}

/// Otherwise one that went wrong would stay for ever while requests come.
#[tokio::test]
async fn a_flight_ends_in_time_whoever_boards_it() {
    let (resolver, _server) = silent();
    let longest = Duration::from_millis(100);
    let flights = Rc::new(Flights { longest, ..Flights::default() });
    let traffic = async {
        let mut first = board(&flights, &resolver);
        let mut later = Vec::new();
        loop {
            later.push(board(&flights, &resolver));
            flights.board(Arc::clone(&resolver), key(), None);
            if let Ok(told) = timeout(longest / 10, &mut first).await {
                return assert_eq!(told.unwrap().unwrap_err(), Failure::Silence);
            }
        }
    };
    LocalSet::new().run_until(timeout(GUARD, traffic)).await.unwrap();
}

#[tokio::test]
async fn a_flight_ends_when_nobody_waits_for_it() {
    let (resolver, _server) = silent();
    let flights = Rc::new(Flights { longest: 10 * GUARD, ..Flights::default() });
    let comings = async {
        let waiting: Vec<_> = (0..9).map(|_| board(&flights, &resolver)).collect();
        settle().await;
        let late = board(&flights, &resolver);
        drop(waiting);
        settle().await;
        assert_eq!(aloft(&flights), 1, "one still waits");
        drop(late);
        while aloft(&flights) > 0 {
            yield_now().await;
        }
        // What is to be renewed is worth to be known.
        flights.board(Arc::clone(&resolver), key(), None);
        drop(board(&flights, &resolver));
        settle().await;
        assert_eq!(aloft(&flights), 1);
    };
    LocalSet::new().run_until(timeout(GUARD, comings)).await.unwrap();
}

#[test]
fn those_who_have_given_up_take_no_room() {
    let mut flight = Flight::default();
    let (told, _stays) = oneshot::channel();
    flight.board(Some(told));
    for _ in 0..10_000 {
        flight.board(Some(oneshot::channel().0));
        assert!(flight.waiting.len() < 16);
    }
}

#[test]
fn a_job_that_panics_costs_no_other() {
    let thread = Arc::new(ResolverThread::default());
    let (told, done) = std::sync::mpsc::channel();
    let job = |word: &'static str| -> Job {
        let told = told.clone();
        Box::new(move || {
            vec![Box::pin(async move { told.send(word).unwrap() })
                as Pin<Box<dyn Future<Output = ()>>>]
        })
    };
    thread.instead_do(vec![Box::new(|| panic!("a test")), job("beside")]);
    assert_eq!(done.recv_timeout(GUARD), Ok("beside"));
    thread.instead_do(vec![job("after")]);
    assert_eq!(done.recv_timeout(GUARD), Ok("after"));
}
