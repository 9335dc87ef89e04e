//! Which jobmanager to dial next: pure.

/// The configured ones in turn; before them, once, where the one that was asked last said that the leader is.
#[derive(Debug)]
pub(super) struct Addresses {
    configured: Vec<String>,
    next: usize,
    referred: Option<String>,
}

impl Addresses {
    /// At least one.
    pub(super) fn new<'a>(configured: impl IntoIterator<Item = &'a str>) -> Self {
        Self { configured: configured.into_iter().map(str::to_owned).collect(), next: 0, referred: None }
    }

    /// The one to dial.
    pub(super) fn current(&self) -> &str {
        let configured = || self.configured.get(self.next).map_or("", String::as_str);
        self.referred.as_deref().unwrap_or_else(configured)
    }

    /// It does not answer, or does not lead.
    pub(super) fn failed(&mut self) {
        if self.referred.take().is_none() {
            self.next = (self.next + 1) % self.configured.len().max(1);
        }
    }

    /// It does not lead, and says who does.
    pub(super) fn refer(&mut self, leader: &str) {
        let looped = self.current() == leader;
        self.failed();
        if !looped && !leader.is_empty() {
            self.referred = Some(leader.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_are_asked_in_turn_and_a_reference_is_followed_once() {
        let mut addresses = Addresses::new(["a:1", "b:1"]);
        assert_eq!(addresses.current(), "a:1");
        addresses.failed();
        assert_eq!(addresses.current(), "b:1");
        addresses.refer("leader:1");
        assert_eq!(addresses.current(), "leader:1");
        addresses.failed();
        assert_eq!(addresses.current(), "a:1");
        addresses.refer("");
        assert_eq!(addresses.current(), "b:1");
    }

    #[test]
    fn a_standby_that_refers_to_itself_is_left() {
        let mut addresses = Addresses::new(["a:1", "b:1"]);
        addresses.refer("a:1");
        assert_eq!(addresses.current(), "b:1");
        addresses.refer("c:1");
        addresses.refer("c:1");
        assert_eq!(addresses.current(), "a:1");
        let mut alone = Addresses::new(["a:1"]);
        alone.failed();
        assert_eq!(alone.current(), "a:1");
    }
}
