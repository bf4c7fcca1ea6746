//! The end of a server.
use crate::common::{Running, config};
use exsearch_server::ServerConfig;
use std::net::TcpStream;

#[test]
fn what_is_in_flight_is_answered_before_the_end() {
    let mut running = Running::new(config());
    let mut idle = running.client();
    assert_eq!(idle.get("/health").status, 200);
    let blocked = running.get_later("/api/search?query=block");
    running.until("queued_queries", 1);
    let (address, world) = (running.address, running.world.clone());
    let stopping = std::thread::spawn(move || running.stop());
    // New connections are refused from the moment that it is told to stop.
    while TcpStream::connect(address).is_ok() {
        std::thread::yield_now();
    }
    assert_eq!(idle.rest(), b"", "a connection without a request is closed");
    assert!(!stopping.is_finished() && !blocked.is_finished());
    world.open_gate();
    assert_eq!(blocked.join().expect("answered").status, 200);
    stopping.join().expect("stopped");
}

#[test]
fn the_end_does_not_wait_for_ever() {
    let mut running = Running::new(ServerConfig { drain_ms: 50, ..config() });
    let mut client = running.client();
    client.send(b"GET /api/search?query=block HTTP/1.1\r\nhost: test\r\n\r\n");
    running.until("queued_queries", 1);
    running.stop();
    assert!(client.answer().is_none(), "cut off");
    running.world.open_gate();
}
