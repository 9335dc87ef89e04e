//! The coordinator: a synchronous state machine without IO, clock or randomness. Events in, actions out.

pub mod action;
pub mod event;
