//! MediaWiki's Action API: which wiki, what to ask, what the answers mean, and asking for many things together.

mod answer;
#[cfg(test)]
mod answer_fuzz;
mod batch;
mod client;
mod domain;
mod gate;
mod limiter;
mod redirect;
mod revisions;

pub(crate) use self::{
    answer::{Content, Revision, Slot},
    batch::{Batcher, Limits},
    client::Client,
    domain::Domain,
    gate::Gate,
    limiter::Reason,
    redirect::{Link, RedirectAsk, Redirects},
    revisions::{RevisionAsk, Revisions},
};
