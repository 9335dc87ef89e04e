//! The protocol by in-process pairs: the real server and coordinator, Kafka as a small model, scripted taskmanagers.

mod admin;
mod attach;
mod errors;
mod harness;
mod offsets;
mod streams;
mod topics;
