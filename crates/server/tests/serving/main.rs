//! The server over real sockets: what clients send and get, and what may go wrong in between.
mod batching;
mod common;
mod garbage;
mod limits;
mod protocols;
mod reload;
mod shutdown;
